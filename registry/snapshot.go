package registry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// snapshot holds the rows that one batch needs, as they were read, and as the batch changes them.
type snapshot struct {
	state store.State // of a SQLite database, when the batch's transaction began

	models    map[uuid.UUID]namedModel // with their prices
	prices    map[uuid.UUID][]*ent.Price
	from      time.Time // prices are those of the models that are in effect then or later
	periods   map[ledger.Period]ledger.Sums
	keys      map[uuid.UUID]*pool.Key
	groups    map[uuid.UUID]*pool.Group
	pools     map[uuid.UUID]*pool.Pool // by provider
	providers map[uuid.UUID]*pool.Provider
	states    map[uuid.UUID]uuid.UUID // of the pools on PostgreSQL, in which they were left; see pool_states

	// Of this batch:

	now      time.Time                 // the latest of its calls
	recorded map[string]bool           // request ids
	leases   map[uuid.UUID]*pool.Lease // that end, or that were acquired by an attempt whose answer was lost
	expired  map[uuid.UUID]*pool.Lease // that end, and had expired: only id, key and expires are known
	names    map[uuid.UUID]namedModel  // of models, without their prices
	looked   map[uuid.UUID]bool        // pools in which no lease counts that has expired
}

// namedModel is what the pool and the ledger have to know of a model.
type namedModel struct {
	provider uuid.UUID
	name     string
}

// modelNames remembers models, of which neither the provider nor its name for them ever changes.
type modelNames struct {
	mu    sync.Mutex
	known map[uuid.UUID]namedModel
}

// of copies those of some models that are known, and returns the others.
func (m *modelNames) of(models map[uuid.UUID]bool, to map[uuid.UUID]namedModel) (unknown []uuid.UUID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range models {
		if named, ok := m.known[id]; ok {
			to[id] = named
		} else {
			unknown = append(unknown, id)
		}
	}
	return unknown
}

// forget forgets all: one may have been purged.
func (m *modelNames) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.known)
}

// learn remembers models that have been read.
func (m *modelNames) learn(models []uuid.UUID, from map[uuid.UUID]namedModel) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known)+len(models) > maxRemembered {
		m.known = make(map[uuid.UUID]namedModel, len(models))
	}
	for _, id := range models {
		if named, ok := from[id]; ok {
			m.known[id] = named
		}
	}
}

// memory keeps the snapshot of the last batch for the next one, which then reads only what is new. A file that this
// process alone writes to is as it was left, and SQLite tells; the least doubt, and all is read. On PostgreSQL only
// pools are remembered, and lockLedger forgets those that others have changed.
type memory struct {
	mu   sync.Mutex
	last *snapshot
}

// maxRemembered is how many rows are kept for the next batch; with more, all is forgotten.
const maxRemembered = 2048

// newSnapshot knows nothing.
func newSnapshot(now time.Time) *snapshot {
	return &snapshot{
		models: map[uuid.UUID]namedModel{}, prices: map[uuid.UUID][]*ent.Price{}, periods: map[ledger.Period]ledger.Sums{}, keys: map[uuid.UUID]*pool.Key{},
		groups: map[uuid.UUID]*pool.Group{}, pools: map[uuid.UUID]*pool.Pool{}, providers: map[uuid.UUID]*pool.Provider{}, looked: map[uuid.UUID]bool{}, now: now,
		states: map[uuid.UUID]uuid.UUID{},
	}
}

// recall returns the snapshot for the batch whose transaction has just begun. A nil memory has none.
func (m *memory) recall(ctx context.Context, db store.DB, tx *ent.Client) (*snapshot, error) {
	s := newSnapshot(time.Time{})
	if m != nil {
		m.mu.Lock()
		last := m.last
		m.last = nil // it is changed, and may not be committed
		m.mu.Unlock()
		state, ok, err := db.State(ctx, tx)
		if err != nil {
			return nil, err
		}
		fits := last != nil && len(last.periods)+len(last.models)+len(last.keys)+
			len(last.pools)+len(last.providers)+len(last.states) <= maxRemembered
		if fits && (!ok || state.Follows(last.state)) {
			s = last
		}
		if !ok { // PostgreSQL
			clear(s.models)
			clear(s.prices)
			clear(s.periods)
		}
		s.state = state
	}
	s.recorded, s.leases, s.looked = map[string]bool{}, map[uuid.UUID]*pool.Lease{}, map[uuid.UUID]bool{}
	s.names, s.expired = map[uuid.UUID]namedModel{}, map[uuid.UUID]*pool.Lease{}
	return s, nil
}

// keep remembers the snapshot of a batch that has been committed.
func (m *memory) keep(s *snapshot) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = s
}

// needs are what calls refer to.
type needs struct {
	models, ledger map[uuid.UUID]bool // those that are named, and those that requests are recorded of
	keys           map[uuid.UUID]bool
	pools          map[uuid.UUID]bool // by provider, of which all keys are needed
	providers      map[uuid.UUID]bool // whose incidents are needed
	from           time.Time          // the earliest request
}

func needsOf(calls []call) needs {
	n := needs{
		models: map[uuid.UUID]bool{}, ledger: map[uuid.UUID]bool{}, keys: map[uuid.UUID]bool{}, pools: map[uuid.UUID]bool{},
		providers: map[uuid.UUID]bool{}, from: calls[0].now,
	}
	for i := range calls {
		c := &calls[i]
		if c.records() {
			n.ledger[c.ModelID], n.keys[c.APIKeyID] = true, true
			n.from = utc.Min(n.from, c.At)
		}
		if a := c.acquire; a != nil {
			n.pools[a.provider] = true
			if a.model != uuid.Nil {
				n.models[a.model] = true
			}
		}
		if end := c.end; end != nil {
			switch {
			case end.failed != nil: // which other keys failed alike
				n.pools[end.provider] = true
			case end.provider != uuid.Nil:
				n.providers[end.provider] = true
			}
			if end.key != uuid.Nil {
				n.keys[end.key] = true
			}
		}
	}
	return n
}

// readSnapshot locks the ledger and the pool, and reads of them what the calls refer to and is not known.
func (r *Registry) readSnapshot(ctx context.Context, tx *ent.Client, s *snapshot, calls []call) error {
	n := needsOf(calls)
	var held map[uuid.UUID]bool
	if r.db.Dialect() == dialect.Postgres {
		var err error
		if held, err = r.lockLedger(ctx, tx, s, n); err != nil {
			return err
		}
	}
	keys, pools := bulk.Unknown(n.keys, s.keys), bulk.Unknown(n.pools, s.pools)
	if err := r.readPool(ctx, tx, s, keys, pools); err != nil {
		return err
	}
	for id := range n.keys {
		if k := s.keys[id]; held != nil && k != nil && !held[k.Provider] {
			return bulk.ErrStale // it was another provider's when the pools were taken
		}
	}
	s.now = r.now() // what was waited for is over
	for i := range calls {
		s.now = utc.Max(s.now, calls[i].now)
	}
	if err := s.readOpen(ctx, tx, pools); err != nil {
		return err
	}
	if err := s.readProviders(ctx, tx, bulk.Unknown(n.providers, s.providers)); err != nil {
		return err
	}
	if err := r.readLeases(ctx, tx, s, calls); err != nil {
		return err
	}
	if len(s.models) == 0 || n.from.Before(s.from) {
		clear(s.models)
		clear(s.prices)
		s.from = n.from
	}
	for _, id := range r.names.of(n.models, s.names) {
		n.ledger[id] = true
	}
	models := bulk.Unknown(n.ledger, s.models)
	if err := s.readModels(ctx, tx, models); err != nil {
		return err
	}
	r.names.learn(models, s.models)
	var requests []string
	for i := range calls {
		if c := &calls[i]; c.records() && c.named {
			requests = append(requests, c.RequestID)
		}
	}
	return s.readRequests(ctx, tx, requests)
}

// Numbers of placeholders ascend, because SQLite takes them for names and counts for itself.
const readModelsSQL = "SELECT m.id, m.provider_id, m.model_id, p.id, COALESCE(p.service_tier, ''), COALESCE(p.min_context_tokens, 0), " + rateColumns + "," +
	" p.effective_from, p.effective_to FROM (SELECT id, provider_id, model_id FROM models WHERE id IN %s) AS m" +
	" LEFT JOIN prices AS p ON p.model_id = m.id AND p.superseded_at IS NULL AND (p.effective_to IS NULL OR p.effective_to > $%d)"

// readModels reads models and their prices in force.
func (s *snapshot) readModels(ctx context.Context, tx bulk.Querier, models []uuid.UUID) error {
	if len(models) == 0 {
		return nil
	}
	list, args := bulk.In(models)
	return bulk.Scan(ctx, tx, fmt.Sprintf(readModelsSQL, list, len(args)+1), append(args, s.from), func(scan func(...any) error) error {
		var (
			model, provider, id uuid.UUID
			name                string
			p                   ent.Price
			effectiveFrom       *time.Time // NULL: there is no price
		)
		cells := append([]any{&model, &provider, &name, &id, &p.ServiceTier, &p.MinContextTokens}, rateCells(&p)...)
		if err := scan(append(cells, &effectiveFrom, &p.EffectiveTo)...); err != nil {
			return err
		}
		s.models[model] = namedModel{provider, name}
		if effectiveFrom == nil {
			return nil
		}
		p.ID, p.ModelID, p.EffectiveFrom = id, model, *effectiveFrom
		s.prices[model] = append(s.prices[model], &p)
		return nil
	})
}

// readRequests reads which of the request ids have been recorded, as far back as events are kept.
func (s *snapshot) readRequests(ctx context.Context, tx *ent.Client, ids []string) error {
	return bulk.Chunks(ids, func(some []string) error {
		list, args := bulk.In(some)
		return bulk.Scan(ctx, tx, "SELECT request_id FROM usage_events WHERE request_id IN "+list, args, func(scan func(...any) error) error {
			var id string
			if err := scan(&id); err != nil {
				return err
			}
			s.recorded[id] = true
			return nil
		})
	})
}
