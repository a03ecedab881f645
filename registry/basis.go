package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// basis is what the ledger says of that which the records of a batch refer to.
type basis struct {
	state   store.State // of the database, when the batch's transaction began
	certain bool        // the state could be told

	models   map[uuid.UUID]uuid.UUID // providers by model
	keys     map[uuid.UUID]uuid.UUID // providers by key
	prices   map[uuid.UUID][]*ent.Price
	from     time.Time // prices are those of the models that are in effect then or later
	periods  map[period]sums
	recorded map[string]bool // request ids, of this batch
}

// memory keeps the basis of the last batch for the next one, which then reads only what is new: a file that this
// process alone writes to is as it was left. Whether it is, the database tells; the least doubt, and all is read.
type memory struct {
	mu   sync.Mutex
	last *basis
}

// maxRemembered is how many periods, models and keys are kept for the next batch; with more, all is forgotten.
const maxRemembered = 2048

// recall returns the basis for the batch whose transaction has just begun. A nil memory has none.
func (m *memory) recall(ctx context.Context, db store.DB, tx *ent.Client) (*basis, error) {
	b := &basis{
		models: map[uuid.UUID]uuid.UUID{}, keys: map[uuid.UUID]uuid.UUID{}, prices: map[uuid.UUID][]*ent.Price{},
		periods: map[period]sums{},
	}
	if m != nil {
		m.mu.Lock()
		last := m.last
		m.last = nil // it is changed, and may not be committed
		m.mu.Unlock()
		state, ok, err := db.State(ctx, tx)
		if err != nil {
			return nil, err
		}
		if ok && last != nil && state.Follows(last.state) && len(last.periods)+len(last.models)+len(last.keys) <= maxRemembered {
			b = last
		}
		b.state, b.certain = state, ok
	}
	b.recorded = map[string]bool{}
	return b, nil
}

// keep remembers the basis of a batch that has been committed.
func (m *memory) keep(b *basis) {
	if m == nil || !b.certain {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = b
}

// readBasis locks the ledger, and reads of it what the records refer to and is not known.
func (r *Registry) readBasis(ctx context.Context, tx *ent.Client, b *basis, records []record) error {
	models, keys := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	var requests []string
	from := records[0].At
	for _, rec := range records {
		models[rec.ModelID], keys[rec.APIKeyID] = true, true
		if rec.named {
			requests = append(requests, rec.RequestID)
		}
		from = minTime(from, rec.At)
	}
	// Where there are locks to take, nothing is known before.
	owners, err := r.lockLedger(ctx, tx, slices.Collect(maps.Keys(models)), unknown(keys, b.keys))
	if err != nil {
		return err
	}
	maps.Copy(b.keys, owners)
	if len(b.models) == 0 || from.Before(b.from) {
		clear(b.models)
		clear(b.prices)
		b.from = from
	}
	if err := b.readModels(ctx, tx, unknown(models, b.models)); err != nil {
		return err
	}
	return b.readRequests(ctx, tx, requests)
}

// Numbers of placeholders ascend, because SQLite takes them for names and counts for itself.
const readModelsSQL = "SELECT m.id, m.provider_id, p.id, COALESCE(p.service_tier, ''), COALESCE(p.min_context_tokens, 0), p.rates," +
	" p.effective_from, p.effective_to FROM (SELECT id, provider_id FROM models WHERE id IN %s) AS m" +
	" LEFT JOIN prices AS p ON p.model_id = m.id AND p.superseded_at IS NULL AND (p.effective_to IS NULL OR p.effective_to > $%d)"

// readModels reads models and their prices in force.
func (b *basis) readModels(ctx context.Context, tx *ent.Client, models []uuid.UUID) error {
	if len(models) == 0 {
		return nil
	}
	list, args := inList(models)
	return scanRows(ctx, tx, fmt.Sprintf(readModelsSQL, list, len(args)+1), append(args, b.from), func(scan func(...any) error) error {
		var (
			model, provider, id uuid.UUID
			rates               []byte
			p                   ent.Price
			effectiveFrom       *time.Time // NULL: there is no price
		)
		err := scan(&model, &provider, &id, &p.ServiceTier, &p.MinContextTokens, &rates, &effectiveFrom, &p.EffectiveTo)
		if err != nil {
			return err
		}
		b.models[model] = provider
		if effectiveFrom == nil {
			return nil
		}
		p.ID, p.ModelID, p.EffectiveFrom = id, model, *effectiveFrom
		b.prices[model] = append(b.prices[model], &p)
		return json.Unmarshal(rates, &p.Rates)
	})
}

// readRequests reads which of the request ids have been recorded, as far back as events are kept.
func (b *basis) readRequests(ctx context.Context, tx *ent.Client, ids []string) error {
	return chunks(ids, func(some []string) error {
		list, args := inList(some)
		return scanRows(ctx, tx, "SELECT request_id FROM usage_events WHERE request_id IN "+list, args, func(scan func(...any) error) error {
			var id string
			if err := scan(&id); err != nil {
				return err
			}
			b.recorded[id] = true
			return nil
		})
	})
}

// readPeriods reads those of the periods that there are and that are not known. Each statement reads both tables.
func (r *Registry) readPeriods(ctx context.Context, tx *ent.Client, b *basis, periods []period) error {
	periods = slices.DeleteFunc(periods, func(p period) bool {
		_, known := b.periods[p]
		return known
	})
	usages, totals := ledgerTables[0].among(periods), ledgerTables[1].among(periods)
	for len(usages)+len(totals) > 0 {
		n := chunkSizes{chunkSize(len(usages)), chunkSize(len(totals))}
		some := slices.Concat(usages[:n.usages], totals[:n.totals])
		usages, totals = usages[n.usages:], totals[n.totals:]
		args := make([]any, 0, 5*len(some))
		for i, p := range some {
			args = append(args, i)
			if p.isTotal() {
				args = append(args, p.model)
			} else {
				args = append(args, p.key, p.price)
			}
			args = append(args, string(p.grain), p.start)
		}
		var i int
		cells := newSumCells(&i)
		err := scanRows(ctx, tx, readPeriodsSQL[r.db.Dialect()](n), args, func(scan func(...any) error) (err error) {
			if err := scan(cells.addresses...); err != nil {
				return err
			}
			b.periods[some[i]], err = cells.read()
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
