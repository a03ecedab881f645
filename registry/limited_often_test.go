package registry_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestLimitedOften has a key be told again and again to wait for a second: the audit trail does not grow with that.
// MODELSCAN_TEST_LIMITED says how often.
func TestLimitedOften(t *testing.T) { eachEngine(t, testLimitedOften) }

func testLimitedOften(t *testing.T, e engine) {
	t.Parallel()
	times := 100
	if text := os.Getenv("MODELSCAN_TEST_LIMITED"); text != "" {
		times = must(strconv.Atoi(text))
	}
	p := e.newPoolTest(t, make([]registry.KeyInput, 1))
	before := must(p.Client().AuditEntry.Query().Count(t.Context()))
	for range times {
		p.fail(t, 0, retryAfter(limited, 1))
		p.clock.Advance(time.Second)
	}
	require.NoError(t, p.acquire(t, 1).Settle(t.Context(), used(1)))
	entries := must(p.Client().AuditEntry.Query().All(t.Context()))[before:]
	bytes := 0
	for _, entry := range entries {
		bytes += len(entry.Before) + len(entry.After)
	}
	t.Logf("%d times 429: %d entries, %d bytes in them", times, len(entries), bytes)
	require.LessOrEqual(t, len(entries), 14)
	require.Equal(t, times, must(p.Client().UsageEvent.Query().Count(t.Context()))-1, "each request is in the ledger")
}
