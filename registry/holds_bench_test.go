package registry_test

// This measures how long operations of many sources keep others waiting, and has no source of its own.

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// BenchmarkHold shows how long somebody waits at most who writes to the same SQLite file while long operations run:
//
//	go test -run '^$' -bench Hold -benchtime 1x -timeout 1h ./registry
func BenchmarkHold(b *testing.B) {
	for _, hold := range holds {
		b.Run(hold.name, func(b *testing.B) {
			name := filepath.Join(b.TempDir(), "registry.db")
			h := holder{openHolder(b, name), b, name}
			other := openHolder(b, name)
			for b.Loop() {
				b.StopTimer()
				do := hold.prepare(h)
				longest := waiting(b, other)
				b.StartTimer()
				do()
				b.ReportMetric(longest().Seconds(), "s-longest-wait")
			}
		})
	}
}

// holder is a registry on a file.
type holder struct {
	*registry.Registry
	b    *testing.B
	name string
}

func openHolder(b *testing.B, name string, options ...registry.Option) *registry.Registry {
	b.Helper()
	options = append(options, registry.WithBusyTimeout(time.Hour), registry.WithKeyring(ring(b, "a")))
	reg, err := registry.Open(b.Context(), name, options...)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, reg.Close()) })
	return reg
}

// waiting writes again and again, until the function is called that it returns.
func waiting(b *testing.B, reg *registry.Registry) (longest func() time.Duration) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	var all sync.WaitGroup
	var most time.Duration
	n := 0
	all.Go(func() {
		for ; ctx.Err() == nil; n++ {
			began := time.Now()
			if err := reg.SetSetting(b.Context(), "waits", fmt.Sprint(n)); err != nil {
				b.Error(err)
			}
			most = max(most, time.Since(began))
			<-time.After(time.Millisecond)
		}
	})
	return func() time.Duration {
		stop()
		all.Wait()
		b.ReportMetric(float64(n), "writes")
		return most
	}
}

// holds are long operations, and what there must be for them.
var holds = []struct {
	name    string
	prepare func(holder) (do func())
}{
	{name: "RepairLedger/a day", prepare: func(h holder) func() { return h.repair(h.b, 1_000_000, day, 8, 1) }},
	{name: "RepairLedger/a quarter", prepare: func(h holder) func() { return h.repair(h.b, 300_000, day/96, 8, 1) }},
	{name: "RepairLedger/many days", prepare: func(h holder) func() { return h.repair(h.b, 300_000, 100*day, 8, 8) }},
	{name: "RepairLedger/many rows", prepare: func(h holder) func() { return h.repair(h.b, 300_000, day, 20, 50) }},
	{name: "ImportCatalog/new", prepare: func(h holder) func() {
		b := h.b
		return h.run(b, func(ctx context.Context) error {
			_, err := h.ImportCatalog(ctx, bigCatalogue(1), nil)
			return err
		})
	}},
	{name: "ImportCatalog/changed", prepare: func(h holder) func() {
		b := h.b
		_, err := h.ImportCatalog(b.Context(), bigCatalogue(1), nil)
		require.NoError(b, err)
		return h.run(b, func(ctx context.Context) error {
			_, err := h.ImportCatalog(ctx, bigCatalogue(2), nil)
			return err
		})
	}},
	{name: "ImportCatalog/same", prepare: func(h holder) func() {
		b := h.b
		_, err := h.ImportCatalog(b.Context(), bigCatalogue(1), nil)
		require.NoError(b, err)
		return h.run(b, func(ctx context.Context) error {
			_, err := h.ImportCatalog(ctx, bigCatalogue(1), nil)
			return err
		})
	}},
	{name: "DeleteProvider", prepare: func(h holder) func() {
		b := h.b
		p := h.provider(b, 5000)
		return h.run(b, func(ctx context.Context) error { return h.DeleteProvider(ctx, p.ID) })
	}},
	{name: "UndeleteProvider", prepare: func(h holder) func() {
		b := h.b
		p := h.provider(b, 5000)
		require.NoError(b, h.DeleteProvider(b.Context(), p.ID))
		return h.run(b, func(ctx context.Context) error {
			_, err := h.UndeleteProvider(ctx, p.ID)
			return err
		})
	}},
	{name: "PurgeProvider", prepare: func(h holder) func() {
		b := h.b
		p := h.provider(b, 5000)
		return h.run(b, func(ctx context.Context) error { return h.PurgeProvider(ctx, p.ID) })
	}},
	{name: "PurgeModel", prepare: func(h holder) func() {
		b := h.b
		p := h.provider(b, 5000)
		m := must(h.Client().Provider.QueryModels(p).FirstID(b.Context()))
		h.leases(b, p, m, 50_000, time.Hour)
		return h.run(b, func(ctx context.Context) error { return h.PurgeModel(ctx, m) })
	}},
	{name: "PurgeAPIKey", prepare: func(h holder) func() {
		b := h.b
		p := h.provider(b, 5000)
		m := must(h.Client().Provider.QueryModels(p).FirstID(b.Context()))
		h.leases(b, p, m, 50_000, time.Hour)
		k := must(h.Client().Provider.QueryKeys(p).FirstID(b.Context()))
		return h.run(b, func(ctx context.Context) error { return h.PurgeAPIKey(ctx, k) })
	}},
	{name: "ResetDailyUsage", prepare: func(h holder) func() {
		b := h.b
		p := h.provider(b, 5000)
		m := must(h.Client().Provider.QueryModels(p).FirstID(b.Context()))
		h.leases(b, p, m, 50_000, time.Hour)
		return h.run(b, func(ctx context.Context) error {
			_, err := h.ResetDailyUsage(ctx)
			return err
		})
	}},
	{name: "ResetDailyUsage/many keys", prepare: func(h holder) func() {
		b := h.b
		for range 50 {
			p := h.provider(b, 1)
			h.leases(b, p, must(h.Client().Provider.QueryModels(p).FirstID(b.Context())), 200, time.Hour)
		}
		return h.run(b, func(ctx context.Context) error {
			n, err := h.ResetDailyUsage(ctx)
			b.Log(n)
			return err
		})
	}},
	{name: "CreateModels", prepare: func(h holder) func() {
		b := h.b
		p, inputs := h.provider(b, 1), make([]registry.ModelInput, 5000)
		for i := range inputs {
			inputs[i] = registry.ModelInput{ProviderID: p.ID, ModelID: fmt.Sprint("new", i), Rates: gpt4()}
		}
		return h.run(b, func(ctx context.Context) error {
			_, err := h.CreateModels(ctx, inputs)
			return err
		})
	}},
	{name: "RecordUsageBatch/an hour", prepare: func(h holder) func() {
		b := h.b
		return func() { h.requests(b, registry.MaxUsageBatch, time.Hour, 8, 8) }
	}},
	{name: "RecordUsageBatch/many days", prepare: func(h holder) func() {
		b := h.b
		return func() { h.requests(b, registry.MaxUsageBatch, 1000*day, 8, 8) }
	}},
	{name: "AcquireKey/expired leases", prepare: func(h holder) func() {
		b := h.b
		p := h.provider(b, 1)
		m := must(h.Client().Provider.QueryModels(p).FirstID(b.Context()))
		h.leases(b, p, m, 100_000, time.Millisecond)
		return h.run(b, func(ctx context.Context) error {
			_, err := h.AcquireKey(ctx, registry.AcquireInput{ProviderID: p.ID, ModelID: m, TTL: time.Minute})
			return err
		})
	}},
	{name: "RotateKeyring", prepare: func(h holder) func() {
		b := h.b
		for range 50 {
			h.provider(b, 1)
		}
		return h.run(b, func(ctx context.Context) error {
			_, err := h.RotateKeyring(ctx, registry.KeyringRotationInput{DataKey: true})
			return err
		})
	}},
	{name: "Prune", prepare: func(h holder) func() {
		b := h.b
		h.requests(b, 300_000, day, 8, 1)
		h.logs(b, 200_000)
		later := openHolder(b, h.name, registry.WithClock(func() time.Time { return time.Now().AddDate(1, 0, 0) }))
		return h.run(b, func(ctx context.Context) error {
			report, err := later.Prune(ctx, registry.PruneInput{Budget: time.Hour})
			b.Logf("%+v", report)
			return err
		})
	}},
	{name: "Move", prepare: func(h holder) func() {
		b := h.b
		h.requests(b, 300_000, day, 8, 1)
		return h.run(b, func(ctx context.Context) error {
			to := filepath.Join(b.TempDir(), "target.db")
			_, err := registry.Move(ctx, h.name, to, nil, registry.WithBusyTimeout(time.Hour))
			require.ErrorIs(b, err, registry.ErrConflict) // somebody writes
			return nil
		})
	}},
}

func (h holder) run(b *testing.B, do func(ctx context.Context) error) func() {
	b.Helper()
	return func() {
		b.Helper()
		require.NoError(b, do(b.Context()))
	}
}

// requests records some over a time that ends now.
func (h holder) requests(b *testing.B, n int, over time.Duration, models, keys int) {
	b.Helper()
	p := mustProvider(b, h.Registry, "p")
	inputs := make([]registry.UsageInput, n)
	now := time.Now()
	ms, ks := make([]*ent.Model, models), make([]*ent.APIKey, keys)
	for i := range ms {
		ms[i] = mustModel(b, h.Registry, p.ID, fmt.Sprint("m", i), gpt4())
	}
	for i := range ks {
		ks[i] = mustKey(b, h.Registry, p.ID, i)
	}
	for i := range inputs {
		inputs[i] = registry.UsageInput{
			ModelID: ms[i%models].ID, APIKeyID: ks[i/models%keys].ID, At: now.Add(
				-over / time.Duration(n) * time.Duration(i),
			),
			Tokens: meter.Tokens{
				InputTokens: int64(i), OutputTokens: 7,
			}, Latency: time.Duration(i%5000) * time.Millisecond,
		}
		if len(inputs[:i+1])%registry.MaxUsageBatch == 0 || i == n-1 {
			from := i / registry.MaxUsageBatch * registry.MaxUsageBatch
			require.NoError(b, h.RecordUsageBatch(b.Context(), inputs[from:i+1]))
		}
	}
}

func (h holder) repair(b *testing.B, n int, over time.Duration, models, keys int) func() {
	b.Helper()
	h.requests(b, n, over, models, keys)
	for _, table := range periodTables {
		_, err := h.Client().ExecContext(b.Context(), "UPDATE "+table+" SET input_tokens = input_tokens + 1")
		require.NoError(b, err)
	}
	return h.run(b, func(ctx context.Context) error {
		report, err := h.RepairLedger(ctx)
		b.Logf("%+v", report)
		return err
	})
}

// bigCatalogue is as large as that of models.dev.
func bigCatalogue(cents money.USD) catalog.Snapshot {
	s := catalog.Snapshot{Source: "big"}
	for i := range 150 {
		p := catalog.Provider{Name: fmt.Sprint("p", i), AuthMethod: "bearer"}
		for j := range 35 {
			p.Models = append(p.Models, catalog.Model{
				ModelID: fmt.Sprint("m", j), Family: fmt.Sprint("f", j/10), ContextWindow: 100_000,
				Rates: money.Rates{meter.Input: cents * money.Cent, meter.Output: 2 * cents * money.Cent},
			})
		}
		s.Providers = append(s.Providers, p)
	}
	return s
}

// provider has some models, and as many keys as there may be.
func (h holder) provider(b *testing.B, models int) (p *ent.Provider) {
	b.Helper()
	require.NoError(b, h.InTx(b.Context(), func(tx *registry.Registry) error {
		p = mustProvider(b, tx, "p"+uuid.NewString())
		for i := range models {
			mustModel(b, tx, p.ID, fmt.Sprint("m", i), gpt4())
		}
		for i := range registry.MaxKeysPerProvider {
			mustKey(b, tx, p.ID, i)
		}
		return nil
	}))
	return p
}

// leases are leases of the provider's keys for a model.
func (h holder) leases(b *testing.B, p *ent.Provider, m uuid.UUID, n int, ttl time.Duration) {
	b.Helper()
	keys, now := must(h.Client().Provider.QueryKeys(p).All(b.Context())), time.Now().UTC()
	require.NoError(b, h.InTx(b.Context(), func(tx *registry.Registry) error {
		for i := range n {
			_, err := tx.Client().ExecContext(b.Context(), "INSERT INTO key_leases"+
				" (id, api_key_id, model_id, acquired_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
				uuid.Must(uuid.NewV7()), keys[i%len(keys)].ID, m, now, now.Add(ttl))
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

// logs are entries of the audit trail of the key pool's, and discovery logs.
func (h holder) logs(b *testing.B, n int) {
	b.Helper()
	for range n / 1000 {
		audits, logs := make([]*ent.AuditEntryCreate, 1000), make([]*ent.DiscoveryLogCreate, 1000)
		for i := range audits {
			audits[i] = h.Past().AuditEntry.Create().SetAt(time.Now().UTC()).SetAction(registry.ActionProbe).
				SetEntity(registry.EntityAPIKey).SetEntityID(uuid.NewString()).SetAutomatic(true)
			logs[i] = h.Past().DiscoveryLog.Create().SetIdentifier(fmt.Sprint(i)).SetStartedAt(time.Now().UTC())
		}
		require.NoError(b, h.Past().AuditEntry.CreateBulk(audits...).Exec(b.Context()))
		require.NoError(b, h.Past().DiscoveryLog.CreateBulk(logs...).Exec(b.Context()))
	}
}
