package registry_test

import (
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestRecordTogether records good and bad requests at the same time, so that they share transactions:
// each gets its own verdict, and the bad ones leave nothing behind.
func TestRecordTogether(t *testing.T) { eachEngineAtOnce(t, testRecordTogether) }

func testRecordTogether(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p, other := mustProvider(t, reg, "openai"), mustProvider(t, reg, "other")
	m, n := mustModel(t, reg, p.ID, "m", gpt4()), mustModel(
		t, reg, p.ID, "n", money.Rates{meter.Input: 1_000_000 * money.Dollar},
	)
	k, foreign := mustKey(t, reg, p.ID, 1), mustKey(t, reg, other.ID, 2)
	yesterday := clock.Now().Add(-24 * 3600e9)
	inputs := []struct {
		in   registry.UsageInput
		want error
	}{
		{in: registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 10}}},
		{
			in: registry.UsageInput{
				ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{OutputTokens: 1}, Failed: true, At: yesterday,
			},
		},
		{in: registry.UsageInput{ModelID: uuid.Must(uuid.NewV7()), APIKeyID: k.ID}, want: registry.ErrForeignKey},
		{in: registry.UsageInput{ModelID: m.ID, APIKeyID: uuid.Must(uuid.NewV7())}, want: registry.ErrForeignKey},
		{in: registry.UsageInput{ModelID: m.ID, APIKeyID: foreign.ID}, want: registry.ErrInvalidData},
		// The cost of one fits, that of two does not.
		{
			in:   registry.UsageInput{ModelID: n.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 8_000_000_000}},
			want: errOnce,
		},
	}
	const each = 20
	var (
		all  sync.WaitGroup
		once atomic.Int64
	)
	for _, input := range inputs {
		for range each {
			all.Go(func() {
				err := reg.RecordUsage(t.Context(), input.in)
				switch {
				case errors.Is(input.want, errOnce):
					if err == nil {
						once.Add(1)
					} else if !errors.Is(err, registry.ErrInvalidData) {
						t.Errorf("%v", err)
					}
				case !errors.Is(err, input.want):
					t.Errorf("%v, not %v", err, input.want)
				}
			})
		}
	}
	all.Wait()
	require.EqualValues(t, 1, once.Load())

	keys, err := reg.ListAPIKeys(t.Context(), registry.KeyFilter{ProviderID: p.ID})
	require.NoError(t, err)
	require.EqualValues(t, 2*each+1, keys[0].UsageCount)
	require.EqualValues(t, 11*each+8_000_000_000, keys[0].TokenCount)
	require.EqualValues(t, each+1, keys[0].RequestsToday, "those of yesterday do not count")
	for _, rows := range byGrain(t, reg) {
		require.Len(t, rows, 3)
		var requests, failed int64
		for _, row := range rows {
			requests += row.RequestCount
			failed += row.ErrorCount
			if row.ModelID == n.ID {
				require.Equal(t, 8_000_000_000*money.Dollar, *row.TotalCost)
			}
		}
		require.EqualValues(t, 2*each+1, requests)
		require.EqualValues(t, each, failed)
	}
}

// errOnce stands for ErrInvalidData of all but the first.
var errOnce = errors.New("once")

// TestRecordAndClose closes a registry while requests are recorded: what was acknowledged is there, and
// nothing else.
func TestRecordAndClose(t *testing.T) {
	t.Parallel()
	for name, database := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { t.Helper(); return filepath.Join(t.TempDir(), "db") },
		"postgres": func(t *testing.T) string { t.Helper(); return registrytest.PostgresURL(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := database(t)
			reg, err := registry.Open(t.Context(), path)
			require.NoError(t, err)
			p := mustProvider(t, reg, "openai")
			m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
			var (
				all   sync.WaitGroup
				acked atomic.Int64
				ready = make(chan struct{})
			)
			for range 64 {
				all.Go(func() {
					for {
						err := reg.RecordUsage(t.Context(), registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID})
						if err != nil {
							if !errors.Is(err, registry.ErrClosed) {
								t.Error(err)
							}
							return
						}
						if acked.Add(1) == 500 {
							close(ready)
						}
					}
				})
			}
			<-ready
			require.NoError(t, reg.Close())
			all.Wait()
			reg, err = registry.Open(t.Context(), path)
			require.NoError(t, err)
			keys, err := reg.ListAPIKeys(t.Context(), registry.KeyFilter{ProviderID: p.ID})
			require.NoError(t, err)
			require.Equal(t, acked.Load(), keys[0].UsageCount)
			require.NoError(t, reg.Close())
		})
	}
}

// TestRecordPlans: PostgreSQL plans the statements of a batch once, and what others read for what they ask.
func TestRecordPlans(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	name := pgtest.Database(t, "", nil)
	reg, err := registry.Open(t.Context(), name)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
	pgRun(t, name, `CREATE TABLE planned (at varchar, mode varchar)`,
		`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO planned VALUES (TG_TABLE_NAME, current_setting('plan_cache_mode')); RETURN NULL; END $$`,
		`CREATE TRIGGER note AFTER INSERT ON usage_tracking EXECUTE FUNCTION note()`,
		`CREATE TRIGGER note AFTER UPDATE ON models EXECUTE FUNCTION note()`)
	require.NoError(t, reg.RecordUsage(t.Context(), registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}))
	_, err = reg.UpdateModel(t.Context(), m.ID, registry.ModelUpdate{Name: new("another")})
	require.NoError(t, err)
	require.Equal(t, "models auto, usage_tracking force_generic_plan",
		pgValue[string](t, name, "SELECT string_agg(at || ' ' || mode, ', ' ORDER BY at) FROM planned"))
}
