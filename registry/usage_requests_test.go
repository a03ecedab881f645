package registry_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestRequestID shows that a request id counts once, wherever and however it is repeated.
func TestRequestID(t *testing.T) {
	t.Parallel()
	for name, database := range map[string]func(testing.TB) string{
		"sqlite":   func(tb testing.TB) string { tb.Helper(); return filepath.Join(tb.TempDir(), "r.db") },
		"postgres": registrytest.PostgresURL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, url := t.Context(), database(t)
			clock := registrytest.NewClock(registrytest.Start)
			open := func() *registry.Registry {
				reg, err := registry.Open(ctx, url, registry.WithClock(clock.Now))
				require.NoError(t, err)
				return reg
			}
			reg := open()
			p := mustProvider(t, reg, "p")
			m, n := mustModel(t, reg, p.ID, "m", gpt4()), mustModel(t, reg, p.ID, "n", gpt4())
			k, other := mustKey(t, reg, p.ID, 1), mustKey(t, reg, p.ID, 2)
			in := registry.UsageInput{
				RequestID: "req-1", ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 100},
			}
			require.NoError(t, reg.RecordUsage(ctx, in))
			want := dump(t, reg)

			require.NoError(t, reg.RecordUsage(ctx, in), "again")
			changed := in
			changed.APIKeyID, changed.Latency = other.ID, time.Second
			require.NoError(t, reg.RecordUsage(ctx, changed), "whatever else is said of it")
			require.NoError(t, reg.RecordUsageBatch(ctx, []registry.UsageInput{in, changed, in}))
			requireConflicts(t, reg, in, n)
			require.NoError(t, reg.InTx(ctx, func(tx *registry.Registry) error { return tx.RecordUsage(ctx, in) }))
			clock.Advance(3 * 24 * time.Hour)
			require.NoError(t, reg.RecordUsage(ctx, changed), "on another day")
			require.NoError(t, reg.Close())
			reg = open()
			defer func() { require.NoError(t, reg.Close()) }()
			require.NoError(t, reg.RecordUsage(ctx, in), "after a restart")
			require.Equal(t, want, dump(t, reg))

			wrong := in
			wrong.ModelID = uuid.New()
			require.ErrorIs(
				t, reg.RecordUsage(ctx, wrong), registry.ErrForeignKey, "it has to be a request all the same",
			)
			require.ErrorIs(
				t, reg.RecordUsageBatch(ctx, []registry.UsageInput{{ModelID: m.ID, APIKeyID: k.ID}, wrong}),
				registry.ErrForeignKey,
			)
			require.Equal(t, want, dump(t, reg), "a batch is recorded as a whole, or not at all")

			// One that failed is not one that was recorded.
			wrong.RequestID = "req-2"
			require.Error(t, reg.RecordUsage(ctx, wrong))
			wrong.ModelID = m.ID
			require.NoError(t, reg.RecordUsage(ctx, wrong))
			require.NoError(t, reg.RecordUsageBatch(ctx, []registry.UsageInput{{
				RequestID: "req-3", ModelID: m.ID, APIKeyID: k.ID,
			},
				{
					RequestID: "req-3", ModelID: m.ID, APIKeyID: other.ID,
				}, {ModelID: m.ID, APIKeyID: k.ID}, {ModelID: m.ID, APIKeyID: k.ID}}))
			require.EqualValues(t, 5, recorded(t, reg), "those without an id are each another one")
		})
	}
}

// TestRequestIDAtOnce has two registries, as of two processes, record the same requests with different keys and on two
// days at the same time.
func TestRequestIDAtOnce(t *testing.T) {
	t.Parallel()
	for name, database := range map[string]func(testing.TB) string{
		"sqlite":   func(tb testing.TB) string { tb.Helper(); return filepath.Join(tb.TempDir(), "r.db") },
		"postgres": registrytest.PostgresURL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, url := t.Context(), database(t)
			var regs []*registry.Registry
			for range 2 {
				reg, err := registry.Open(ctx, url, registry.WithDurability(registry.DurabilityRelaxed),
					registry.WithClock(func() time.Time { return registrytest.Start }))
				require.NoError(t, err)
				defer func() { require.NoError(t, reg.Close()) }()
				regs = append(regs, reg)
			}
			p := mustProvider(t, regs[0], "p")
			m := mustModel(t, regs[0], p.ID, "m", gpt4())
			keys := []*ent.APIKey{
				mustKey(t, regs[0], p.ID, 1), mustKey(t, regs[0], p.ID, 2), mustKey(t, regs[0], p.ID, 3),
			}
			const requests = 300
			var wg sync.WaitGroup
			for g := range 8 {
				wg.Go(func() {
					for i := range requests {
						at := registrytest.Start.Add(-time.Duration((i+g)%2) * 24 * time.Hour)
						err := regs[g%2].RecordUsage(ctx, registry.UsageInput{
							RequestID: fmt.Sprint("r", i), ModelID: m.ID, APIKeyID: keys[(g+
								i)%3].ID, At: at, Tokens: meter.Tokens{InputTokens: 1},
						})
						if err != nil {
							t.Errorf("request %d: %v", i, err)
						}
					}
				})
			}
			wg.Wait()
			require.EqualValues(t, requests, recorded(t, regs[0]))
		})
	}
}

// TestRequestIDOfTwoDays shows that on PostgreSQL, where only the partition of a day keeps request ids unique, the same
// request with another key and of another day waits for the one that is being recorded.
func TestRequestIDOfTwoDays(t *testing.T) {
	t.Parallel()
	reg, _ := onPostgres.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	m, other := mustModel(t, reg, p.ID, "m", gpt4()), mustModel(t, reg, p.ID, "other", gpt4())
	k, second := mustKey(t, reg, p.ID, 1), mustKey(t, reg, p.ID, 2)
	first := registry.UsageInput{RequestID: "r", ModelID: m.ID, APIKeyID: k.ID}
	again := registry.UsageInput{
		RequestID: "r", ModelID: other.ID, APIKeyID: second.ID, At: registrytest.Start.Add(-24 * time.Hour),
	}
	record(t, reg, m, k, 1, 1)
	// makes the partition
	require.NoError(t, reg.RecordUsage(ctx, registry.UsageInput{ModelID: other.ID, APIKeyID: second.ID, At: again.At}))

	var done atomic.Bool
	result := make(chan error, 1)
	require.NoError(t, reg.InTx(ctx, func(tx *registry.Registry) error {
		if err := tx.RecordUsage(ctx, first); err != nil {
			return err
		}
		go func() {
			err := reg.RecordUsage(ctx, again)
			done.Store(true)
			result <- err
		}()
		for waiting := 0; waiting == 0 && !done.Load(); {
			var err error
			waiting, err = pgQuery[int](ctx, reg, "SELECT count(*) FROM pg_stat_activity"+
				" WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'")
			if err != nil {
				return err
			}
		}
		require.False(t, done.Load(), "it waits")
		return nil
	}))
	require.ErrorIs(t, <-result, registry.ErrConflict, "it has another model")
	require.EqualValues(t, 3, recorded(t, reg))
}

// TestEvent shows what an event holds, and that one bad record of a batch fails alone.
func TestEvent(t *testing.T) { eachEngine(t, testEvent) }

func testEvent(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	m, unpriced := mustModel(t, reg, p.ID, "m", gpt4()), mustModel(t, reg, p.ID, "unpriced", nil)
	k := mustKey(t, reg, p.ID, 1)
	at := clock.Now().Add(-time.Hour).Add(123456 * time.Microsecond)
	in := registry.UsageInput{
		RequestID: "é-1", ModelID: m.ID, APIKeyID: k.ID, At: at.In(
			time.FixedZone("", 3600),
		), Latency: 1234*time.Millisecond + 1,
		Failed: true, ErrorClass: "rate_limited", HTTPStatus: 429,
		Tokens: meter.Tokens{
			InputTokens: 1, OutputTokens: 2, CacheReadTokens: 3, CacheWriteTokens: 4, ReasoningTokens: 5,
		},
	}
	require.NoError(t, reg.RecordUsage(ctx, in))
	require.NoError(t, reg.RecordUsage(ctx, registry.UsageInput{ModelID: unpriced.ID, APIKeyID: k.ID}))
	events, err := reg.ListUsageEvents(ctx, registry.EventFilter{})
	require.NoError(t, err)
	require.Len(t, events, 2)
	require.Equal(t, events[0].ID.String(), events[0].RequestID, "an id of ours where the caller has none")
	require.Equal(t, usageevent.CostStatusUnpriced, events[0].CostStatus)
	require.Nil(t, events[0].Cost)
	require.True(t, events[0].Success)

	price, err := reg.PriceAt(ctx, m.ID, at)
	require.NoError(t, err)
	got := events[1]
	require.EqualValues(t, 7, got.ID.Version())
	require.EqualValues(t, at.UnixMilli(), binary.BigEndian.Uint64(append([]byte{0, 0}, got.ID[:6]...)))
	cost := 30*money.MicroDollar*8 + 60*money.MicroDollar*7
	require.Equal(t, ent.UsageEvent{
		ID: got.ID, RequestID: "é-1", At: at, ModelID: m.ID, APIKeyID: k.ID, PriceID: price.ID,
		InputTokens: 1, OutputTokens: 2, CacheReadTokens: 3, CacheWriteTokens: 4, ReasoningTokens: 5,
		Cost: &cost, CostStatus: usageevent.CostStatusPriced, LatencyMs: 1234, ErrorClass: "rate_limited",
		HTTPStatus: 429,
	}, plain(got))
	walked, err := got.QueryModel().QueryUsageEvents().All(ctx)
	require.NoError(t, err)
	require.Len(t, walked, 1, "the graph goes there and back")
}

// plain returns an event without what ties it to a client.
func plain(e *ent.UsageEvent) ent.UsageEvent {
	return ent.UsageEvent{
		ID: e.ID, RequestID: e.RequestID, At: e.At, ModelID: e.ModelID, APIKeyID: e.APIKeyID, PriceID: e.PriceID,
		InputTokens: e.InputTokens, OutputTokens: e.OutputTokens, CacheReadTokens: e.CacheReadTokens,
		CacheWriteTokens: e.CacheWriteTokens, ReasoningTokens: e.ReasoningTokens, Cost: e.Cost,
		CostStatus: e.CostStatus,
		LatencyMs:  e.LatencyMs, Success: e.Success, ErrorClass: e.ErrorClass, HTTPStatus: e.HTTPStatus,
	}
}

// TestRecordRefused names what cannot be recorded, in a batch whose other records are.
func TestRecordRefused(t *testing.T) { eachEngineAtOnce(t, testRecordRefused) }

func testRecordRefused(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	p, q := mustProvider(t, reg, "p"), mustProvider(t, reg, "q")
	m := mustModel(t, reg, p.ID, "m", gpt4())
	k, foreign := mustKey(t, reg, p.ID, 1), mustKey(t, reg, q.ID, 2)
	ok := registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}
	bad := map[string]struct {
		change func(*registry.UsageInput)
		want   error
	}{
		"long request id": {
			change: func(in *registry.UsageInput) { in.RequestID = strings.Repeat("é", 129) },
			want:   registry.ErrInvalidData,
		},
		"unreadable id": {
			change: func(in *registry.UsageInput) { in.RequestID = "a\x00b" }, want: registry.ErrInvalidData,
		},
		"long error class": {
			change: func(in *registry.UsageInput) { in.Failed, in.ErrorClass = true, strings.Repeat("x", 65) },
			want:   registry.ErrInvalidData,
		},
		"class of a success": {
			change: func(in *registry.UsageInput) { in.ErrorClass = "server" }, want: registry.ErrInvalidData,
		},
		"status 99": {
			change: func(in *registry.UsageInput) { in.HTTPStatus = 99 }, want: registry.ErrInvalidData,
		},
		"status 600": {
			change: func(in *registry.UsageInput) { in.HTTPStatus = 600 }, want: registry.ErrInvalidData,
		},
		"negative meter": {
			change: func(in *registry.UsageInput) { in.OutputTokens = -1 }, want: registry.ErrInvalidData,
		},
		"huge meter": {
			change: func(in *registry.UsageInput) { in.OutputTokens = meter.MaxTokens + 1 },
			want:   registry.ErrInvalidData,
		},
		"far future": {
			change: func(in *registry.UsageInput) { in.At = clock.Now().AddDate(100, 0, 0) },
			want:   registry.ErrInvalidData,
		},
		"before the epoch": {
			change: func(in *registry.UsageInput) { in.At = time.Unix(-1, 0) }, want: registry.ErrInvalidData,
		},
		"foreign key": {
			change: func(in *registry.UsageInput) { in.APIKeyID = foreign.ID }, want: registry.ErrInvalidData,
		},
		"unknown key": {
			change: func(in *registry.UsageInput) { in.APIKeyID = uuid.New() }, want: registry.ErrForeignKey,
		},
		"unknown model": {
			change: func(in *registry.UsageInput) { in.ModelID = uuid.New() }, want: registry.ErrForeignKey,
		},
	}
	before := dump(t, reg)
	for name, test := range bad {
		in := ok
		test.change(&in)
		require.ErrorIs(t, reg.RecordUsage(ctx, in), test.want, name)
		require.ErrorIs(t, reg.RecordUsageBatch(ctx, []registry.UsageInput{ok, in}), test.want, name)
	}
	require.ErrorIs(
		t, reg.RecordUsageBatch(ctx, make([]registry.UsageInput, registry.MaxUsageBatch+1)), registry.ErrInvalidData,
	)
	require.NoError(t, reg.RecordUsageBatch(ctx, nil))
	require.Equal(t, before, dump(t, reg), "nothing is written")

	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := reg.RecordUsage(ctx, ok); err != nil {
				t.Error(err)
			}
		})
		for name, test := range bad {
			in := ok
			test.change(&in)
			wg.Go(func() {
				if err := reg.RecordUsage(context.WithoutCancel(ctx), in); err == nil {
					t.Error(name)
				}
			})
		}
	}
	wg.Wait()
	require.EqualValues(t, 50, recorded(t, reg), "the rest of their batches is")
}

// requireConflicts records other requests under the id of one that is recorded: each is refused and not counted.
func requireConflicts(t *testing.T, reg *registry.Registry, in registry.UsageInput, n *ent.Model) {
	t.Helper()
	want := dump(t, reg)
	for name, change := range map[string]func(*registry.UsageInput){
		"model":         func(in *registry.UsageInput) { in.ModelID = n.ID },
		"tokens":        func(in *registry.UsageInput) { in.InputTokens++ },
		"outcome":       func(in *registry.UsageInput) { in.Failed = true },
		"status":        func(in *registry.UsageInput) { in.HTTPStatus = 200 },
		"usage":         func(in *registry.UsageInput) { in.Usage = registry.UsageEstimated },
		"provider cost": func(in *registry.UsageInput) { in.ProviderCost = new(money.USD(1)) },
	} {
		other := in
		change(&other)
		for how, record := range map[string]func(*registry.Registry) error{
			"alone": func(reg *registry.Registry) error { return reg.RecordUsage(t.Context(), other) },
			"batch": func(reg *registry.Registry) error {
				fresh := other
				fresh.RequestID = ""
				return reg.RecordUsageBatch(t.Context(), []registry.UsageInput{fresh, other})
			},
		} {
			require.ErrorIs(t, record(reg), registry.ErrConflict, name, how)
			err := reg.InTx(t.Context(), func(tx *registry.Registry) error {
				require.ErrorIs(t, record(tx), registry.ErrConflict, name, how)
				return nil
			})
			require.NoError(t, err)
		}
	}
	twice := []registry.UsageInput{in, in}
	twice[0].RequestID, twice[1].RequestID = "twice", "twice"
	twice[1].InputTokens++
	require.ErrorIs(t, reg.RecordUsageBatch(t.Context(), twice), registry.ErrConflict, "in one transaction")
	require.Equal(t, want, dump(t, reg))
}
