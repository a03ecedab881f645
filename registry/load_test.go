package registry_test

// These tests call many operations at once, and have no source of their own.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestLoad mixes all operations from 64 goroutines, on a file, in memory and on PostgreSQL. No call may
// fail, and in the end the keys' counters and the ledger say what was recorded.
func TestLoad(t *testing.T) {
	long(t, "64 goroutines call everything")
	eachDatabase(t, func(t *testing.T, reg *registry.Registry) {
		t.Helper()
		newLoad(t, reg).run(t)
	})
}

// eachDatabase runs a test on a file, in memory and on PostgreSQL, by the machine's clock.
func eachDatabase(t *testing.T, test func(*testing.T, *registry.Registry)) {
	t.Helper()
	t.Parallel()
	for name, database := range map[string]func(testing.TB) string{
		"file":     func(tb testing.TB) string { tb.Helper(); return filepath.Join(tb.TempDir(), "load.db") },
		"memory":   func(testing.TB) string { return ":memory:" },
		"postgres": registrytest.PostgresURL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, err := registry.Open(t.Context(), database(t))
			require.NoError(t, err)
			defer func() { require.NoError(t, reg.Close()) }()
			test(t, reg)
		})
	}
}

type load struct {
	reg      *registry.Registry
	provider *ent.Provider
	models   []*ent.Model
	keys     []*ent.APIKey

	recorded, incremented atomic.Int64 // requests
	tokens                atomic.Int64 // of both
	inputs                atomic.Int64 // of what was recorded
}

func newLoad(t *testing.T, reg *registry.Registry) *load {
	t.Helper()
	l := &load{reg: reg, provider: mustProvider(t, reg, "load")}
	for i := range 5 {
		// A nano-dollar for an input token: the cost is the number of them.
		l.models = append(
			l.models, mustModel(t, reg, l.provider.ID, fmt.Sprint("m", i), money.Rates{meter.Input: 1_000_000}),
		)
	}
	for i := range 10 {
		l.keys = append(l.keys, mustKey(t, reg, l.provider.ID, i))
	}
	return l
}

func (l *load) run(t *testing.T) {
	t.Helper()
	const goroutines, rounds = 64, 20
	var all sync.WaitGroup
	errs := make(chan error, goroutines)
	begin := make(chan struct{})
	for g := range goroutines {
		all.Go(func() {
			<-begin
			random := rand.New(rand.NewPCG(1, uint64(g)))
			for i := range rounds {
				if err := l.call(t.Context(), random, g*rounds+i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	close(begin)
	all.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	l.check(t)
}

// call makes one random call.
func (l *load) call(ctx context.Context, random *rand.Rand, n int) error {
	reg, m, k := l.reg, l.models[random.IntN(len(l.models))], l.keys[random.IntN(len(l.keys))]
	tokens := random.Int64N(1000)
	var err error
	switch random.IntN(20) {
	case 0, 1, 2, 3, 4, 5, 6:
		err = l.record(ctx, reg, m.ID, k.ID, tokens)
	case 7:
		err = reg.InTx(ctx, func(tx *registry.Registry) error {
			return errors.Join(l.record(ctx, tx, m.ID, k.ID, tokens), l.record(ctx, tx, m.ID, k.ID, tokens))
		})
	case 8:
		if err = reg.IncrementUsage(ctx, k.ID, tokens, tokens); err == nil {
			l.incremented.Add(1)
			l.tokens.Add(2 * tokens)
		}
	case 9:
		err = reg.DegradeKey(ctx, k.ID, "load", time.Hour)
	case 10:
		err = reg.RestoreKey(ctx, k.ID)
	case 11:
		_, err = reg.CreateProvider(ctx, registry.ProviderInput{Name: fmt.Sprintf("p%d", n)})
	case 12:
		_, err = reg.CreateModel(
			ctx, registry.ModelInput{ProviderID: l.provider.ID, ModelID: fmt.Sprintf("x%d", n), Rates: gpt4()},
		)
	case 13:
		_, err = reg.UpdateModelPricing(ctx, m.ID, registry.PriceInput{
			ServiceTier: "batch", Rates: money.Rates{meter.Input: money.USD(n)},
		})
	case 14:
		err = reg.SetSetting(ctx, fmt.Sprint("k", n%7), fmt.Sprint(n))
	case 15:
		var log *ent.DiscoveryLog
		if log, err = reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "load"}); err == nil {
			_, err = reg.UpdateDiscoveryResult(ctx, log.ID, n, discoverylog.StatusSuccess)
		}
	case 16:
		_, err = reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: l.provider.ID, Version: fmt.Sprint(n)})
	case 17:
		_, err = reg.UpdateAPIKey(ctx, k.ID, registry.KeyUpdate{Label: ptr(fmt.Sprint(n))})
	default:
		err = l.read(ctx, m)
	}
	return err
}

func (l *load) record(ctx context.Context, reg *registry.Registry, modelID, keyID uuid.UUID, tokens int64) error {
	err := reg.RecordUsage(ctx, registry.UsageInput{
		ModelID: modelID, APIKeyID: keyID, Tokens: meter.Tokens{InputTokens: tokens},
	})
	if err == nil {
		l.recorded.Add(1)
		l.tokens.Add(tokens)
		l.inputs.Add(tokens)
	}
	return err
}

func (l *load) read(ctx context.Context, m *ent.Model) error {
	_, err := l.reg.GetLeastUsedKey(ctx, l.provider.ID)
	if errors.Is(err, registry.ErrNoKeyAvailable) {
		err = nil // all of them may be degraded
	}
	_, statsErr := l.reg.GetUsageStats(ctx, m.ID, m.CreatedAt.Add(-time.Hour), m.CreatedAt.Add(time.Hour))
	_, costErr := l.reg.GetCostBreakdown(ctx, l.provider.ID)
	_, listErr := l.reg.ListModels(ctx, registry.ModelFilter{Order: registry.OrderByInputCost})
	_, logErr := l.reg.GetRecentDiscoveries(ctx, registry.DiscoveryFilter{Limit: 10})
	return errors.Join(err, statsErr, costErr, listErr, logErr)
}

func (l *load) check(t *testing.T) {
	t.Helper()
	keys, err := l.reg.ListAPIKeys(t.Context(), registry.KeyFilter{ProviderID: l.provider.ID})
	require.NoError(t, err)
	var count, tokens int64
	for _, k := range keys {
		count += k.UsageCount
		tokens += k.TokenCount
	}
	require.Equal(t, l.recorded.Load()+l.incremented.Load(), count)
	require.Equal(t, l.tokens.Load(), tokens)
	for _, rows := range byGrain(t, l.reg) {
		var requests, inputs int64
		var cost money.USD
		for _, row := range rows {
			requests += row.RequestCount
			inputs += row.InputTokens
			cost += *row.TotalCost
		}
		require.Equal(t, l.recorded.Load(), requests)
		require.Equal(t, l.inputs.Load(), inputs)
		require.EqualValues(t, l.inputs.Load(), cost)
	}
	t.Logf("%d requests recorded, %d incremented", l.recorded.Load(), l.incremented.Load())
}

// TestImportUnderLoad imports a catalogue while usage is recorded: both get through.
func TestImportUnderLoad(t *testing.T) { eachEngineAtOnce(t, testImportUnderLoad) }

func testImportUnderLoad(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	l := newLoad(t, reg)
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	errs := make(chan error, 8)
	for range 8 {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := l.record(t.Context(), reg, l.models[0].ID, l.keys[0].ID, 1); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	for range 3 {
		_, err := reg.ImportCatalog(t.Context(), catalog.Catwalk(), nil)
		require.NoError(t, err)
	}
	stop()
	all.Wait()
	close(errs)
	require.NoError(t, <-errs)
	l.check(t)
}

// TestNoDeadlocks records two models with the same keys, at once: nobody waits for a key of somebody who waits for his.
// A deadlock would be repeated, and be seen by nobody but the server.
func TestNoDeadlocks(t *testing.T) {
	long(t, "many transactions wait for each other")
	t.Parallel()
	name := registrytest.PostgresURL(t)
	reg, err := registry.Open(t.Context(), name)
	require.NoError(t, err)
	p := mustProvider(t, reg, "openai")
	var batches [2][]registry.UsageInput
	models := []*ent.Model{mustModel(t, reg, p.ID, "a", gpt4()), mustModel(t, reg, p.ID, "b", gpt4())}
	for n := range 16 {
		k := mustKey(t, reg, p.ID, n)
		for i, m := range models {
			batches[i] = append(batches[i], registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID})
		}
	}
	var all sync.WaitGroup
	for _, batch := range batches {
		all.Go(func() {
			for range 100 {
				if err := reg.RecordUsageBatch(t.Context(), batch); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, reg.Close()) // then servers tell what they counted
	require.EqualValues(t, 2*100*16, pgValue[int64](t, name, "SELECT CAST(sum(usage_count) AS bigint) FROM api_keys"))
	requireNoDeadlocks(t, name)
}

// requireNoDeadlocks requires that the server has found no deadlock in a database.
func requireNoDeadlocks(t *testing.T, name string) {
	t.Helper()
	require.Zero(
		t, pgValue[int64](t, name, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"),
	)
}
