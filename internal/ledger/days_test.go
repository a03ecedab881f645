package ledger

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

func TestJoined(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 1, 1<<32 - 1, 1 << 32, 7<<32 + 5, fault.MaxAmount} {
		require.Equal(t, n, joined([2]int64{n >> 32, n & (1<<32 - 1)}))
	}
	require.Equal(t, int64(fault.MaxAmount), joined([2]int64{1 << 40, 0}))
}
