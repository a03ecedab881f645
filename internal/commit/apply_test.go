package commit

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// noon is when the tests are.
var noon = time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)

// known is a batch that has read a provider with a model, its price and a key; and another provider's model.
type known struct {
	batch
	provider, model, price, other uuid.UUID
	key                           *pool.Key
}

func newKnown() *known {
	k := &known{provider: uuid.New(), model: uuid.New(), price: uuid.New(), other: uuid.New()}
	k.key = &pool.Key{ID: uuid.New(), Provider: k.provider, Prefix: "sk-", Label: "a", Weight: 1}
	s := newSnapshot(pool.FairTurns, noon)
	s.begin()
	dollar := money.Dollar
	s.models = map[uuid.UUID]namedModel{k.model: {k.provider, "m"}, k.other: {uuid.New(), "other"}}
	s.prices = map[uuid.UUID][]*ent.Price{k.model: {{
		ID: k.price, ModelID: k.model, ServiceTier: ledger.StandardTier, EffectiveFrom: utc.Beginning,
		CostPer1mInput: &dollar,
	}}}
	s.keys[k.key.ID] = k.key
	s.providers[k.provider] = &pool.Provider{ID: k.provider}
	p := &pool.Pool{Keys: []*pool.Key{k.key}, Provider: s.providers[k.provider], Turns: map[int]int64{}}
	p.Open(nil, nil, noon)
	s.pools[k.provider] = p
	noKey := func(*pool.Pool, pool.Want, time.Time) error { return fault.ErrNoKeyAvailable }
	k.batch = batch{env: &env{Config: Config{NoKey: noKey}}, snapshot: s}
	k.periods = map[ledger.Period]ledger.Sums{}
	return k
}

// request is one of a million input tokens, which cost a dollar.
func (k *known) request(id string) Request {
	return Request{ServiceTier: ledger.StandardTier, Event: ledger.Event{
		ID: ledger.NewEventID(noon), Model: k.model, Key: k.key.ID, RequestID: id, At: noon, Success: true,
		Tokens: ledger.InColumns(meter.Tokens{InputTokens: 1_000_000}),
	}}
}

// lease acquires the key for a request of some tokens.
func (k *known) lease(t *testing.T, tokens int64) *Leased {
	t.Helper()
	a := &Acquire{
		ID: uuid.New(), Provider: k.provider, Model: k.model, TTL: time.Minute,
		Want: pool.Want{Amount: pool.Amount{Requests: 1, Tokens: tokens}},
	}
	require.NoError(t, k.acquire(&Call{Now: noon, Acquire: a}))
	require.Equal(t, "m", a.Want.Model)
	require.Equal(t, noon.Add(time.Minute), a.Leased.Expires)
	l := k.opened[len(k.opened)-1]
	k.leases[l.ID] = l // as if another batch had leased it
	return a.Leased
}

func (k *known) end(l *Leased, o Outcome, r Request) error {
	end := &End{Lease: l.ID, Key: k.key.ID, Provider: k.provider, Acquired: l.Acquired, Outcome: o}
	if o == Failed {
		end.Failure = pool.Diagnosis{Class: upstream.RateLimited, Until: noon.Add(time.Hour)}
	}
	return k.apply(&Call{Now: noon, Actor: "me", Request: r, End: end})
}

func TestRecord(t *testing.T) {
	t.Parallel()
	t.Run("OK", func(t *testing.T) {
		t.Parallel()
		k := newKnown()
		require.NoError(t, k.apply(&Call{Now: noon, Request: k.request("r")}))
		require.NoError(t, k.apply(&Call{Now: noon, Request: k.request("r")}), "it is the same request")
		require.Len(t, k.events, 1)
		require.Equal(t, k.price, k.events[0].Price)
		require.Equal(t, money.Dollar, *k.events[0].Cost)
		require.Len(t, k.periods, 4)
		for p, s := range k.periods {
			require.EqualValues(t, 1, s.Requests, p)
			require.Equal(t, money.Dollar, s.Cost, p)
		}
		require.EqualValues(t, []int64{1, 1_000_000}, []int64{k.key.Uses, k.key.Tokens})
		require.Equal(t, noon, *k.key.LastUsed)
	})
	t.Run("OK_a_clock_that_is_ahead", func(t *testing.T) {
		t.Parallel()
		k := newKnown()
		r := k.request("r")
		r.At = noon.Add(time.Hour)
		require.NoError(t, k.apply(&Call{Now: noon, Request: r}))
		require.Equal(t, noon, *k.key.LastUsed)
	})
	for name, c := range map[string]struct {
		change func(k *known, r *Request)
		want   error
	}{
		"ErrForeignKey_model":      {func(_ *known, r *Request) { r.Model = uuid.New() }, fault.ErrForeignKey},
		"ErrForeignKey_key":        {func(_ *known, r *Request) { r.Key = uuid.New() }, fault.ErrForeignKey},
		"ErrForeignKey_price":      {func(k *known, _ *Request) { clear(k.prices) }, fault.ErrForeignKey},
		"ErrInvalidData_of_others": {func(k *known, r *Request) { r.Model = k.other }, fault.ErrInvalidData},
		"ErrOverflow":              {func(k *known, _ *Request) { k.key.Tokens = fault.MaxAmount }, fault.ErrOverflow},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKnown()
			r := k.request("r")
			c.change(k, &r)
			require.ErrorIs(t, k.apply(&Call{Now: noon, Request: r}), c.want)
			require.Empty(t, k.events)
			require.Empty(t, k.periods)
			require.Zero(t, k.key.Uses)
		})
	}
}

func TestEnd(t *testing.T) {
	t.Parallel()
	none := Request{}
	t.Run("OK_released", func(t *testing.T) {
		t.Parallel()
		k := newKnown()
		l := k.lease(t, 10)
		require.EqualValues(t, 1, k.key.InFlight())
		require.NoError(t, k.end(l, Released, none))
		require.Zero(t, k.key.InFlight())
		require.Zero(t, k.key.MinuteRequests)
		require.ErrorIs(t, k.end(l, Released, none), fault.ErrLeaseEnded)
	})
	t.Run("OK_succeeded", func(t *testing.T) {
		t.Parallel()
		k := newKnown()
		l := k.lease(t, 10)
		require.NoError(t, k.end(l, Succeeded, k.request(l.ID.String())))
		require.Zero(t, k.key.InFlight())
		require.EqualValues(t, []int64{1, 1_000_000}, []int64{k.key.MinuteRequests, k.key.MinuteTokens})
		require.Equal(t, noon, *k.key.SucceededAt)
		require.Len(t, k.events, 1)
		require.NoError(t, k.end(l, Succeeded, k.request(l.ID.String())), "its request is recorded")
		require.Len(t, k.events, 1)
	})
	t.Run("OK_used", func(t *testing.T) {
		t.Parallel()
		k := newKnown()
		l := k.lease(t, 10)
		r := k.request(l.ID.String())
		r.Success = false
		require.NoError(t, k.end(l, Used, r))
		require.Nil(t, k.key.SucceededAt)
		require.Nil(t, k.key.FailedAt)
	})
	t.Run("OK_failed", func(t *testing.T) {
		t.Parallel()
		k := newKnown()
		require.NoError(t, k.end(k.lease(t, 10), Failed, none))
		require.EqualValues(t, 1, k.key.MinuteRequests)
		require.Equal(t, noon.Add(time.Hour), *k.key.DegradedUntil)
		require.Len(t, k.did, 1)
		require.Equal(t, "me", k.did[0].actor)
		require.Equal(t, pool.KeyDegraded, k.did[0].events[0].Kind)
	})
	t.Run("OK_expired", func(t *testing.T) {
		t.Parallel()
		k := newKnown()
		l := &Leased{Lease: pool.Lease{ID: uuid.New(), Key: k.key.ID, Acquired: noon.Add(-time.Hour)}}
		k.expired[l.ID] = &l.Lease
		require.NoError(t, k.end(l, Succeeded, k.request("r")))
		require.Len(t, k.events, 1)
	})
	t.Run("OK_refused_stays_open", func(t *testing.T) {
		t.Parallel()
		k := newKnown()
		l := k.lease(t, 10)
		r := k.request("r")
		r.Model = k.other
		require.ErrorIs(t, k.end(l, Succeeded, r), fault.ErrInvalidData)
		require.Equal(t, []uuid.UUID{l.ID}, k.refused)
		require.EqualValues(t, 1, k.key.InFlight())
		require.NoError(t, k.end(l, Succeeded, k.request("r")), "in the same batch")
	})
	t.Run("OK_again", func(t *testing.T) {
		t.Parallel()
		k := newKnown()
		l := k.lease(t, 10)
		require.NoError(t, k.end(l, Released, none))
		again := &Call{Now: noon, End: &End{Lease: l.ID, Key: k.key.ID, Outcome: Released, Repeated: true}}
		require.NoError(t, k.apply(again), "the answer to the first attempt was lost")
	})
	t.Run("OK_observed", func(t *testing.T) {
		t.Parallel()
		k := newKnown()
		said := []upstream.Quota{{Meter: upstream.Requests, Limit: 10, Remaining: 0, Reset: noon.Add(time.Hour)}}
		seen := &Call{Now: noon, End: &End{Key: k.key.ID, Outcome: Observed, Said: said}}
		require.NoError(t, k.apply(seen))
		a := &Acquire{ID: uuid.New(), Provider: k.provider, Want: pool.Want{Amount: pool.Amount{Requests: 1}}}
		require.ErrorIs(t, k.acquire(&Call{Now: noon, Acquire: a}), fault.ErrNoKeyAvailable)
		require.Nil(t, a.Leased)
		k.key.Deleted = true
		require.ErrorIs(t, k.apply(seen), fault.ErrNotFound)
	})
	t.Run("OK_nobody_knows_the_lease", func(t *testing.T) {
		t.Parallel()
		k := newKnown()
		l := k.lease(t, 10)
		for range 2 {
			require.NoError(
				t, k.apply(&Call{Now: noon, End: &End{Lease: l.ID, Provider: k.provider, Outcome: Released}}),
			)
		}
		require.Zero(t, k.key.InFlight())
	})
}

func TestAcquire(t *testing.T) {
	t.Parallel()
	k := newKnown()
	l := k.lease(t, 10)
	require.Equal(t, Leased{*k.opened[0], "sk-", "a"}, *l)
	require.Equal(t, k.model, *l.Model)
	again := &Acquire{ID: l.ID, Provider: k.provider, repeated: true}
	require.NoError(t, k.acquire(&Call{Now: noon, Acquire: again}))
	require.Equal(t, l.ID, again.Leased.ID)
	require.Len(t, k.opened, 1, "the first attempt has leased it")
	for id, want := range map[uuid.UUID]error{k.other: fault.ErrInvalidData, uuid.New(): fault.ErrForeignKey} {
		a := &Acquire{ID: uuid.New(), Provider: k.provider, Model: id}
		require.ErrorIs(t, k.acquire(&Call{Now: noon, Acquire: a}), want)
	}
}
