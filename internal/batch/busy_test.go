package batch_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/batch"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// One item is under way, one waits for its batch and one for a place.
func TestErrBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		commit := make(chan struct{})
		var got []int
		q := batch.New(1, 2, time.Minute, func(_ context.Context, items []int) []error {
			<-commit
			got = append(got, items...)
			return ok(items)
		})
		errs := make([]error, 3)
		for i := range errs {
			go func() { errs[i] = q.Do(t.Context(), i) }()
			synctest.Wait()
		}
		<-time.After(time.Minute + time.Second)
		synctest.Wait()
		require.NoError(t, errs[0], "it has not been answered")
		require.ErrorIs(t, errs[1], fault.ErrBusy)
		require.ErrorIs(t, errs[2], fault.ErrBusy)
		close(commit)
		synctest.Wait()
		require.NoError(t, errs[0])
		require.NoError(t, q.Do(t.Context(), 3))
		require.Equal(t, []int{0, 3}, got)
	})
}
