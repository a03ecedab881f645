package ledger

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

func TestAllot(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		total   int64
		weights []int64
		want    []int64
	}{
		"nothing":          {0, []int64{1, 2}, []int64{0, 0}},
		"no weights":       {5, nil, []int64{}},
		"all zero":         {5, []int64{0, 0}, []int64{0, 0}},
		"in proportion":    {100, []int64{1, 3}, []int64{25, 75}},
		"largest fraction": {10, []int64{1, 1, 4}, []int64{2, 2, 6}},
		"the first":        {5, []int64{1, 1, 1, 1}, []int64{2, 1, 1, 1}},
		"beside a zero":    {7, []int64{0, 1}, []int64{0, 7}},
		"large":            {fault.MaxAmount, []int64{fault.MaxAmount, fault.MaxAmount / 2}, []int64{6e18, 3e18}},
		"damaged":          {1, []int64{math.MaxInt64, math.MaxInt64, math.MaxInt64}, []int64{0, 0, 0}},
	} {
		got := Allot(c.total, c.weights)
		require.Equal(t, c.want, got, what)
	}
}
