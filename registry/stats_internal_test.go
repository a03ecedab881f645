package registry

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/money"
)

// A sum that does not fit names no other package.
func TestCostSum(t *testing.T) {
	t.Parallel()
	_, err := costSum(math.MaxInt64, 0)
	require.ErrorIs(t, err, ErrInvalidData)
	require.ErrorIs(t, err, money.ErrRange)
	require.EqualError(t, err, "invalid data: sum of costs: amount out of range")
}
