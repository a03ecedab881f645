package registry_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func TestLease(t *testing.T) { eachEngine(t, testLease) }

func testLease(t *testing.T, e engine) {
	t.Run("Settle", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{
			RequestsPerMinute: 9, TokensPerMinute: 9000, RequestsPerDay: 9, TokensPerDay: 9000, Concurrency: 9,
			CostPerDay: money.Dollar,
		}}})
		in := p.want(1000)
		in.EstimatedCost = 5 * money.Cent
		lease, err := p.AcquireKey(t.Context(), in)
		require.NoError(t, err)
		require.Equal(t, p.keys[0].ID, lease.KeyID)
		require.Equal(t, p.clock.Now().Add(time.Minute), lease.ExpiresAt)
		require.Equal(t, []int64{0, 0, 0, 0, 0, 0}, p.counters(t, 0), "they are of what has ended")
		require.Equal(t, map[registry.LimitName]int64{
			registry.LimitRequestsPerMinute: 1, registry.LimitTokensPerMinute: 1000, registry.LimitRequestsPerDay: 1,
			registry.LimitTokensPerDay: 1000,
			registry.LimitConcurrency:  1, registry.LimitCostPerDay: int64(5 * money.Cent),
		}, p.counted(t, 0))
		require.EqualValues(t, 1, p.explain(t, 0)[0].InFlight)
		require.NoError(t, lease.Settle(t.Context(), used(1200)))
		require.Equal(t, []int64{1, 1200, 1, 1200, 1, 1200}, p.counters(t, 0))
		require.Equal(t, 36*money.Dollar/1000, p.key(t, 0).CostToday)
		require.Equal(t, map[registry.LimitName]int64{
			registry.LimitRequestsPerMinute: 1, registry.LimitTokensPerMinute: 1200, registry.LimitRequestsPerDay: 1,
			registry.LimitTokensPerDay: 1200,
			registry.LimitConcurrency:  0, registry.LimitCostPerDay: int64(36 * money.Dollar / 1000),
		}, p.counted(t, 0))
		events, err := p.ListUsageEvents(t.Context(), registry.EventFilter{})
		require.NoError(t, err)
		require.Len(t, events, 1)
		require.Equal(t, lease.ID.String(), events[0].RequestID)
		for _, again := range []func() error{
			func() error { return lease.Settle(t.Context(), used(1)) },
			func() error { return errOf(lease.Fail(t.Context(), registry.Failure{Status: 500})) },
			func() error { return lease.Release(t.Context()) },
		} {
			require.ErrorIs(t, again(), registry.ErrLeaseEnded)
		}
		require.Zero(t, p.openLeases(t))
		report, err := p.VerifyLedger(t.Context())
		require.NoError(t, err)
		require.Empty(t, report.Differences)
	})
	t.Run("Release", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		require.NoError(t, p.acquire(t, 1000).Release(t.Context()))
		require.Equal(t, []int64{0, 0, 0, 0, 0, 0}, p.counters(t, 0))
		require.Zero(t, p.openLeases(t))
	})
	t.Run("Expiry", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{Concurrency: 2, TokensPerDay: 2000}}})
		crashed, late := p.acquire(t, 1000), p.acquire(t, 1000)
		require.Equal(t, registry.KeyLimited, p.refused(t, p.want(1000)).Keys[0].Reason)
		p.clock.Advance(time.Minute - time.Microsecond)
		_ = p.refused(t, p.want(1000))
		p.clock.Advance(time.Microsecond)
		require.Empty(t, p.explain(t, 1000)[0].Reason, "what has expired counts no more")
		next := p.acquire(t, 1000)
		require.Equal(
			t, map[registry.LimitName]int64{registry.LimitConcurrency: 1, registry.LimitTokensPerDay: 1000},
			p.counted(t, 0),
		)
		// Its request happened all the same.
		require.NoError(t, late.Settle(t.Context(), used(300)))
		require.NoError(t, errOf(crashed.Fail(t.Context(), registry.Failure{Status: 500})))
		require.NoError(t, next.Settle(t.Context(), used(100)))
		require.Equal(t, []int64{3, 400, 3, 400}, p.counters(t, 0)[2:])
		require.Zero(t, p.openLeases(t))
	})
	t.Run("Windows", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Limits: registry.Limits{TokensPerMinute: 1000}}})
		lease := p.acquire(t, 600)
		p.clock.Advance(time.Minute - time.Second)
		require.NoError(t, lease.Settle(t.Context(), used(900))) // in the minute in which it began
		require.Equal(t, registry.KeyLimited, p.refused(t, p.want(200)).Keys[0].Reason)
		p.clock.Advance(time.Second)
		lease = p.acquire(t, 1000)
		p.clock.Advance(time.Minute)
		require.NoError(t, lease.Settle(t.Context(), used(5000)))
		p.acquire(t, 1000)
	})
}

// TestLeaseEnds ends leases twice, over another handle, and when what they are of is gone.
func TestLeaseEnds(t *testing.T) { eachEngine(t, testLeaseEnds) }

func testLeaseEnds(t *testing.T, e engine) {
	t.Run("GetLease", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, []registry.KeyInput{{Label: "l"}})
		lease := p.acquire(t, 10)
		other, err := p.GetLease(t.Context(), lease.ID)
		require.NoError(t, err)
		require.Equal(t, []any{
			lease.ID, lease.KeyID, lease.ModelID, "sk-test-", "l", lease.AcquiredAt, lease.ExpiresAt,
		},
			[]any{
				other.ID, other.KeyID, other.ModelID, other.KeyPrefix, other.KeyLabel, other.AcquiredAt,
				other.ExpiresAt,
			})
		require.NoError(t, other.Settle(t.Context(), used(10)))
		_, err = p.GetLease(t.Context(), lease.ID)
		require.ErrorIs(t, err, registry.ErrNotFound)
		require.NoError(t, lease.Settle(t.Context(), used(10)), "as if the answer to the first had been lost")
		require.EqualValues(t, 1, p.key(t, 0).UsageCount)
		require.EqualValues(t, 1, p.key(t, 0).RequestsToday)
	})
	t.Run("recorded before", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		in := used(5)
		in.RequestID = "r"
		require.NoError(t, p.acquire(t, 10).Settle(t.Context(), in))
		require.NoError(t, p.acquire(t, 10).Settle(t.Context(), in), "the same request again")
		require.Equal(t, []int64{1, 5, 1, 5}, p.counters(t, 0)[2:])
		require.Zero(t, p.openLeases(t))
	})
	t.Run("a key that is gone", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		lease, purged := p.acquire(t, 10), p.acquire(t, 10)
		require.NoError(t, p.DeleteAPIKey(t.Context(), p.keys[0].ID))
		require.NoError(t, lease.Settle(t.Context(), used(5)))
		require.EqualValues(t, 1, p.key(t, 0).UsageCount)
		require.ErrorIs(t, p.PurgeAPIKey(t.Context(), p.keys[0].ID), registry.ErrForeignKey)
		require.NoError(t, purged.Release(t.Context()))
		require.Zero(t, p.openLeases(t))
	})
}

// TestLeaseRefuses shows what is refused of a lease, and that it stays as open as it was.
func TestLeaseRefuses(t *testing.T) { eachEngine(t, testLeaseRefuses) }

func testLeaseRefuses(t *testing.T, e engine) {
	t.Run("ErrForeignKey", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		in := p.want(1)
		in.ModelID = uuid.New()
		_, err := p.AcquireKey(t.Context(), in)
		require.ErrorIs(t, err, registry.ErrForeignKey)
		lease := p.acquire(t, 1)
		err = lease.Settle(t.Context(), registry.UsageInput{ModelID: uuid.New()})
		require.ErrorIs(t, err, registry.ErrForeignKey)
		require.Equal(t, 1, p.openLeases(t))
		require.EqualValues(t, 1, p.explain(t, 0)[0].InFlight, "it is as open as it was")
		require.NoError(t, lease.Settle(t.Context(), used(1)))
	})
	t.Run("ErrInvalidData", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		other := mustProvider(t, p.Registry, "other")
		foreign := mustModel(t, p.Registry, other.ID, "m", gpt4())
		for name, change := range map[string]func(*registry.AcquireInput){
			"no TTL":          func(in *registry.AcquireInput) { in.TTL = 0 },
			"negative TTL":    func(in *registry.AcquireInput) { in.TTL = -time.Second },
			"a day":           func(in *registry.AcquireInput) { in.TTL = 24 * time.Hour },
			"negative tokens": func(in *registry.AcquireInput) { in.EstimatedTokens = -1 },
			"absurd tokens":   func(in *registry.AcquireInput) { in.EstimatedTokens = 9_000_000_000_000_000_001 },
			"negative cost":   func(in *registry.AcquireInput) { in.EstimatedCost = -1 },
			"too many":        func(in *registry.AcquireInput) { in.Exclude = make([]uuid.UUID, 101) },
			"another's model": func(in *registry.AcquireInput) { in.ModelID = foreign.ID },
		} {
			in := p.want(1)
			change(&in)
			_, err := p.AcquireKey(t.Context(), in)
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
		}
		require.ErrorIs(t, p.InTx(t.Context(), func(tx *registry.Registry) error {
			in := p.want(1)
			in.Wait = true
			_, err := tx.AcquireKey(t.Context(), in)
			return err
		}), registry.ErrInvalidData)
		lease := p.acquire(t, 1)
		in := used(1)
		in.APIKeyID = uuid.New()
		require.ErrorIs(t, lease.Settle(t.Context(), in), registry.ErrInvalidData)
		require.ErrorIs(t, lease.Settle(t.Context(), used(-1)), registry.ErrInvalidData)
		require.NoError(t, lease.Settle(t.Context(), used(1)), "it is as open as it was")
	})
	t.Run("InTx", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		require.ErrorIs(t, p.InTx(t.Context(), func(tx *registry.Registry) error {
			lease, err := tx.AcquireKey(t.Context(), p.want(1))
			require.NoError(t, err)
			require.NoError(t, lease.Settle(t.Context(), used(5)))
			return errRollback
		}), errRollback)
		require.Zero(t, p.key(t, 0).RequestsToday)
		var lease *registry.Lease
		require.NoError(t, p.InTx(t.Context(), func(tx *registry.Registry) (err error) {
			lease, err = tx.AcquireKey(t.Context(), p.want(1))
			return err
		}))
		require.NoError(t, lease.Settle(t.Context(), used(5)), "after the commit")
		require.EqualValues(t, 1, p.key(t, 0).UsageCount)
		require.ErrorIs(t, lease.Release(t.Context()), registry.ErrLeaseEnded)
	})
}
