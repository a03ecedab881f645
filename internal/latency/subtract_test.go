package latency_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/jeffersonwarrior/modelscan/internal/latency"
)

// What was merged can be taken away again, and what was not cannot.
func TestSubtract(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var one, other latency.Histogram
		for _, h := range []*latency.Histogram{&one, &other} {
			for _, ms := range rapid.SliceOf(rapid.Int64Range(0, 200)).Draw(t, "values") {
				h.Add(ms)
			}
		}
		want, both := one.AppendBinary(nil), one.Clone()
		require.NoError(t, both.Merge(other))
		whole := both.AppendBinary(nil)

		beyond := both.Clone()
		beyond.Add(rapid.Int64Range(0, 300).Draw(t, "one more"))
		require.ErrorIs(t, both.Subtract(beyond), latency.ErrRange)
		require.Equal(t, whole, both.AppendBinary(nil), "it is as it was")

		require.NoError(t, both.Subtract(other))
		require.Equal(t, want, both.AppendBinary(nil))
		require.Equal(t, one.Count(), both.Count())
	})
}
