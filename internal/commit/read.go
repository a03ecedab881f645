package commit

import (
	"context"
	"fmt"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// read locks the ledger and the pools, and reads what the calls refer to and the snapshot lacks.
func (b *batch) read(ctx context.Context, calls []Call) error {
	n := needsOf(calls)
	if err := b.learnOwners(ctx, n, calls); err != nil {
		return err
	}
	var held map[uuid.UUID]bool
	if b.engine == dialect.Postgres {
		var err error
		if held, err = b.lockPools(ctx, n); err != nil {
			return err
		}
	}
	keys, pools := bulk.Unknown(n.keys, b.keys), bulk.Unknown(n.pools, b.pools)
	if err := b.readPools(ctx, b.tx, keys, pools); err != nil {
		return err
	}
	for id := range n.keys {
		if k := b.keys[id]; held != nil && k != nil && !held[k.Provider] {
			return bulk.ErrStale // the key was another provider's when the pools were taken
		}
	}
	b.now = b.Clock() // after all waiting
	for i := range calls {
		b.now = utc.Max(b.now, calls[i].Now)
	}
	if err := b.readOpen(ctx, b.tx, pools); err != nil {
		return err
	}
	if err := b.readProviders(ctx, b.tx, bulk.Unknown(n.providers, b.providers)); err != nil {
		return err
	}
	if err := b.takeLeases(ctx, b.tx, n.ending, n.asked); err != nil {
		return err
	}
	if err := b.learnModels(ctx, n); err != nil {
		return err
	}
	if err := b.readRequests(ctx, b.tx, n.requests); err != nil {
		return err
	}
	return b.readSpent(ctx, b.tx, b.asked(n))
}

// learnModels reads unknown models. Prices are read only for models that requests are recorded for.
func (b *batch) learnModels(ctx context.Context, n needs) error {
	if len(b.models) == 0 || n.from.Before(b.from) {
		clear(b.models)
		clear(b.prices)
		b.from = utc.StartOfDay(n.from) // the requests of leases began at other times
	}
	for id := range n.models {
		if named, ok := b.known.Load(id); ok {
			b.names[id] = named.(namedModel)
		} else {
			n.ledger[id] = true
		}
	}
	return b.readModels(ctx, b.tx, bulk.Unknown(n.ledger, b.models))
}

// The numbers of placeholders ascend, because SQLite takes them for names and counts by itself.
const readModelsSQL = "SELECT m.id, m.provider_id, m.model_id, p.id, COALESCE(p.service_tier, '')," +
	" COALESCE(p.min_context_tokens, 0), " + ledger.RateColumns + "," +
	" p.effective_from, p.effective_to FROM (SELECT id, provider_id, model_id FROM models WHERE id IN %s) AS m" +
	" LEFT JOIN prices AS p ON p.model_id = m.id AND p.superseded_at IS NULL" +
	" AND (p.effective_to IS NULL OR p.effective_to > $%d)"

// readModels reads models and their prices in force.
func (b *batch) readModels(ctx context.Context, tx bulk.Querier, models []uuid.UUID) error {
	if len(models) == 0 {
		return nil
	}
	list, args := bulk.In(models)
	query := fmt.Sprintf(readModelsSQL, list, len(args)+1)
	return bulk.Scan(ctx, tx, query, append(args, b.from), func(scan func(...any) error) error {
		var (
			model, provider, id uuid.UUID
			name                string
			p                   ent.Price
			effectiveFrom       *time.Time // NULL: there is no price
		)
		cells := append(
			[]any{&model, &provider, &name, &id, &p.ServiceTier, &p.MinContextTokens}, ledger.RateCells(&p)...,
		)
		if err := scan(append(cells, &effectiveFrom, &p.EffectiveTo)...); err != nil {
			return err
		}
		b.models[model] = namedModel{provider, name}
		b.known.Store(model, b.models[model])
		if effectiveFrom == nil {
			return nil
		}
		p.ID, p.ModelID, p.EffectiveFrom = id, model, *effectiveFrom
		b.prices[model] = append(b.prices[model], &p)
		return nil
	})
}

// readRequests reads which request ids have been recorded, as far back as events are kept, and as what.
func (s *snapshot) readRequests(ctx context.Context, tx *ent.Client, ids []string) error {
	const query = "SELECT request_id, COALESCE(fingerprint, 0) FROM usage_events WHERE request_id IN %s"
	return bulk.ScanIn(ctx, tx, query, ids, func(scan func(...any) error) error {
		var id string
		var fingerprint int64
		err := scan(&id, &fingerprint)
		s.recorded[id] = fingerprint
		return err
	})
}
