package commit

import (
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// snapshot holds the rows that one batch needs, as read and then as changed by the batch.
type snapshot struct {
	state    store.State // of a SQLite database, when the batch's transaction began
	strategy pool.Strategy

	models    map[uuid.UUID]namedModel // with their prices
	prices    map[uuid.UUID][]*ent.Price
	folded    map[uuid.UUID]uuid.UUID // by model: up to which event usage by value is added up
	from      time.Time               // prices are in effect then or later
	stored    map[ledger.Period]ledger.Sums
	keys      map[uuid.UUID]*pool.Key
	groups    map[uuid.UUID]*pool.Group
	pools     map[uuid.UUID]*pool.Pool // by provider
	providers map[uuid.UUID]*pool.Provider
	states    map[uuid.UUID]uuid.UUID // by provider: how the pool was left on PostgreSQL, see pool_states
	accounts  map[accountID]*account  // what subjects have spent and reserve
	version   *int64                  // of the policy; nil: it was not read

	// Of this batch:

	now      time.Time                 // the latest of its calls
	recorded map[string]int64          // request ids, and the fingerprints of their requests
	leases   map[uuid.UUID]*pool.Lease // that end or are renewed, or that a lost attempt acquired
	expired  map[uuid.UUID]*pool.Lease // that end after they expired: only id, key and expires are known
	names    map[uuid.UUID]namedModel  // of models, without their prices
	looked   map[uuid.UUID]bool        // pools without expired leases
}

// namedModel is what the pool and the ledger need to know of a model.
type namedModel struct {
	provider uuid.UUID
	name     string
}

// newSnapshot returns an empty snapshot.
func newSnapshot(strategy pool.Strategy, now time.Time) *snapshot {
	return &snapshot{
		strategy: strategy,
		models:   map[uuid.UUID]namedModel{}, prices: map[uuid.UUID][]*ent.Price{},
		folded: map[uuid.UUID]uuid.UUID{},
		stored: map[ledger.Period]ledger.Sums{},
		keys:   map[uuid.UUID]*pool.Key{}, groups: map[uuid.UUID]*pool.Group{}, pools: map[uuid.UUID]*pool.Pool{},
		providers: map[uuid.UUID]*pool.Provider{}, states: map[uuid.UUID]uuid.UUID{}, looked: map[uuid.UUID]bool{},
		accounts: map[accountID]*account{},
		now:      now,
	}
}

// rows returns how many rows the snapshot holds.
func (s *snapshot) rows() int {
	return len(s.stored) + len(s.models) + len(s.keys) + len(s.pools) + len(s.providers) + len(s.states)
}

// forget drops the pool of a provider, so that it is read again.
func (s *snapshot) forget(provider uuid.UUID) {
	maps.DeleteFunc(s.keys, func(_ uuid.UUID, k *pool.Key) bool { return k.Provider == provider })
	maps.DeleteFunc(s.groups, func(_ uuid.UUID, g *pool.Group) bool { return g.Provider == provider })
	delete(s.pools, provider)
	delete(s.providers, provider)
}

// maxRemembered is how many rows are kept for the next batch; with more, all but the accounts are forgotten.
const maxRemembered = 2048

// begin drops what belonged to the batch before.
func (s *snapshot) begin() {
	s.recorded, s.leases, s.looked = map[string]int64{}, map[uuid.UUID]*pool.Lease{}, map[uuid.UUID]bool{}
	s.names, s.expired = map[uuid.UUID]namedModel{}, map[uuid.UUID]*pool.Lease{}
}

// modelName returns the provider's name of a model that has been read, or "" for a zero id.
func (s *snapshot) modelName(id, provider uuid.UUID) (string, error) {
	if id == uuid.Nil {
		return "", nil
	}
	m, ok := s.names[id]
	if !ok {
		m, ok = s.models[id]
	}
	switch {
	case !ok:
		return "", fault.Missing("model", id)
	case m.provider != provider:
		return "", fmt.Errorf("%w: model %s, %q, is another provider's", fault.ErrInvalidData, id, m.name)
	}
	return m.name, nil
}

// release ends a lease: what it took counts in place of what it reserved, in the group in which the lease began.
func (s *snapshot) release(l *pool.Lease, took pool.Amount) {
	if k := s.keys[l.Key]; k != nil { // else the key is gone, and its counters with it
		k.Release(l, took, s.now)
		k.Pass = max(k.Pass, l.Pass)
		k.Changed |= pool.ChangedCounters
	}
	if l.Group == nil {
		return
	}
	if g := s.groups[*l.Group]; g != nil {
		g.Release(l, took, s.now)
		g.Changed |= pool.ChangedCounters
	}
}
