package registry_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// BenchmarkGetUsageStats sums a month of a model that is used every hour: in whole days, and with days that are cut.
func BenchmarkGetUsageStats(b *testing.B) {
	for _, e := range []engine{onSQLite, onPostgres} {
		b.Run("engine="+e.name, func(b *testing.B) {
			reg := e.new(b)
			p := mustProvider(b, reg, "p")
			m, k := mustModel(b, reg, p.ID, "m", gpt4()), mustKey(b, reg, p.ID, 1)
			end := registrytest.Start.Truncate(24 * time.Hour)
			start := end.AddDate(0, -1, 0)
			var inputs []registry.UsageInput
			for at := start; at.Before(end); at = at.Add(time.Hour) {
				inputs = append(inputs, registry.UsageInput{
					ModelID: m.ID, APIKeyID: k.ID, At: at, Tokens: meter.Tokens{InputTokens: 150}, Latency: time.Second,
				})
			}
			require.NoError(b, reg.RecordUsageBatch(b.Context(), inputs))
			for name, cut := range map[string]time.Duration{"days": 0, "cut": time.Hour} {
				b.Run(name, func(b *testing.B) {
					for b.Loop() {
						stats, err := reg.GetUsageStats(b.Context(), m.ID, start.Add(cut), end.Add(-cut))
						require.NoError(b, err)
						require.NotZero(b, stats.Requests)
					}
				})
			}
		})
	}
}
