package registry_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestExplainAtOnce looks at a key while others lease it: what it was used for never falls.
func TestExplainAtOnce(t *testing.T) { eachEngineAtOnce(t, testExplainAtOnce) }

func testExplainAtOnce(t *testing.T, e engine) {
	t.Parallel()
	p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{RequestsPerDay: 1_000_000}}})
	var all sync.WaitGroup
	var left atomic.Int64
	for range 4 {
		left.Add(1)
		all.Go(func() {
			defer left.Add(-1)
			for range 100 {
				lease, err := p.AcquireKey(t.Context(), p.want(1))
				if err == nil {
					err = lease.Settle(t.Context(), used(1))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	looks := 0
	for before := int64(0); left.Load() > 0; looks++ {
		now := p.counted(t, 0)[registry.LimitRequestsPerDay]
		require.GreaterOrEqual(t, now, before)
		before = now
	}
	all.Wait()
	require.Positive(t, looks)
}
