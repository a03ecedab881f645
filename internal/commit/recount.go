package commit

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// WindowOf returns the windows of a budget.
func WindowOf(row *ent.Budget) (budget.Window, error) {
	return windowOf(string(row.Per), row.Zone, row.AnchorDay, row.AnchorHour)
}

// States returns all ceilings that bind a request for a key, as it would find them at an instant.
func (m *Committer) States(ctx context.Context, from bulk.Querier, now time.Time, a *Acquire) ([]budget.State, error) {
	b := batch{env: &m.env, snapshot: newSnapshot(m.Strategy, now), inTx: true}
	b.begin()
	b.from = now
	n := needsOf([]Call{{Now: now, Acquire: a}})
	if err := b.findOwners(ctx, from, n.owners, n.accessKeys); err != nil {
		return nil, err
	}
	if key := b.accessKeys[a.For.AccessKey]; key != nil && a.For.Consumer == uuid.Nil {
		a.For.Consumer = key.Consumer
	}
	chain, err := b.chainOf(a.For.consumer())
	if err != nil {
		return nil, err
	}
	if err := b.readModels(ctx, from, []uuid.UUID{a.Model}); err != nil {
		return nil, err
	}
	if err := b.checkFor(a.For); err != nil {
		return nil, err
	}
	name, err := b.modelName(a.Model, a.Provider)
	if err != nil {
		return nil, err
	}
	of := namedModel{a.Provider, name}
	bound := bindings(chain, of, now)
	if err := b.readSpent(ctx, from, bound); err != nil {
		return nil, err
	}
	r := b.priced(a.Model, now, ledger.Estimate{Tokens: a.Want.Tokens, Output: a.Output}, a.Want.Cost)
	return b.ceilings(bound, r), nil
}

const spentOfSubtreeSQL = "SELECT e.consumer_id, m.provider_id, m.model_id, count(*)," +
	" sum(e.input_tokens + e.output_tokens + e.cache_read_tokens + e.cache_write_tokens + e.reasoning_tokens)," +
	" COALESCE(sum(e.cost), 0), count(*) - count(e.cost)" +
	" FROM usage_events AS e JOIN consumers AS c ON c.id = e.consumer_id JOIN models AS m ON m.id = e.model_id" +
	" WHERE e.id >= $1 AND e.id < $2 AND c.path >= $3 AND c.path < $4 GROUP BY e.consumer_id, m.provider_id, m.model_id"

// Recount counts what was spent before a budget was made, as far back as events are kept, in its present window and in
// later ones. It returns the instant from which on the counters are complete. The caller has the policy's lock.
func (m *Committer) Recount(ctx context.Context, tx *ent.Client, now time.Time, row *ent.Budget) (time.Time, error) {
	b := m.counting(tx, now)
	horizons, err := ledger.ReadHorizons(ctx, tx)
	if err != nil {
		return time.Time{}, err
	}
	window, err := WindowOf(row)
	if err != nil {
		return time.Time{}, err
	}
	path, err := b.pathOf(ctx, row.ConsumerID)
	if err != nil {
		return time.Time{}, err
	}
	begin, end := window.Of(now)
	complete := utc.Max(begin, horizons.Events)
	for from := complete; ; _, end = window.Of(from) {
		if err := b.spendAgain(ctx, row, path, from, end); err != nil {
			return complete, err
		}
		var later *uuid.UUID
		const next = "SELECT id FROM usage_events WHERE id >= $1 ORDER BY id LIMIT 1"
		err := bulk.Scan(ctx, tx, next, []any{ledger.FirstEventID(end)}, func(scan func(...any) error) error {
			return scan(&later)
		})
		if err != nil {
			return complete, err
		}
		if later == nil {
			return complete, b.writeSpent(ctx)
		}
		from = ledger.EventTime(*later)
	}
}

// Leave and Enter move what a subtree has spent out of budgets above it, and into them, as far back as events are kept.
// Earlier windows stay as they are. The caller has the policy's lock.
func (m *Committer) Leave(ctx context.Context, tx *ent.Client, now time.Time, path string, rows []*ent.Budget) error {
	b, err := m.spentBy(ctx, tx, now, path, rows)
	if err != nil {
		return err
	}
	return b.unspend(ctx)
}

// Enter is the second step of a move: see Leave.
func (m *Committer) Enter(ctx context.Context, tx *ent.Client, now time.Time, path string, rows []*ent.Budget) error {
	b, err := m.spentBy(ctx, tx, now, path, rows)
	if err != nil {
		return err
	}
	return b.writeSpent(ctx)
}

// spentBy counts what a subtree has spent in the present windows of budgets.
func (m *Committer) spentBy(
	ctx context.Context, tx *ent.Client, now time.Time, path string, rows []*ent.Budget,
) (*batch, error) {
	b := m.counting(tx, now)
	for _, row := range rows {
		window, err := WindowOf(row)
		if err != nil {
			return nil, err
		}
		begin, end := window.Of(now)
		if err := b.spendAgain(ctx, row, path, utc.Max(begin, row.CountsFrom), end); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// counting returns a batch that only counts what was spent.
func (m *Committer) counting(tx *ent.Client, now time.Time) *batch {
	return &batch{env: &m.env, snapshot: newSnapshot(m.Strategy, now), tx: tx, inTx: true}
}

func (b *batch) pathOf(ctx context.Context, consumer uuid.UUID) (string, error) {
	if err := b.findOwners(ctx, b.tx, map[uuid.UUID]bool{consumer: true}, nil); err != nil {
		return "", err
	}
	if b.owners[consumer] == nil {
		return "", fault.Missing("consumer", consumer)
	}
	return b.owners[consumer].Path, nil
}

// spendAgain counts, for one budget, the events of a subtree from one instant to another within one of its windows.
func (b *batch) spendAgain(ctx context.Context, row *ent.Budget, path string, from, until time.Time) error {
	type spent struct {
		of   namedModel
		took budget.Amount
	}
	all, consumers := map[uuid.UUID][]spent{}, map[uuid.UUID]bool{}
	args := []any{ledger.FirstEventID(from), ledger.FirstEventID(until), path, path + "0"} // "0" is after "/"
	err := bulk.Scan(ctx, b.tx, spentOfSubtreeSQL, args, func(scan func(...any) error) error {
		var id uuid.UUID
		var s spent
		err := scan(&id, &s.of.provider, &s.of.name, &s.took.Requests, &s.took.Tokens, (*int64)(&s.took.Cost),
			&s.took.Unpriced)
		all[id], consumers[id] = append(all[id], s), true
		return err
	})
	if err != nil {
		return err
	}
	if err := b.findOwners(ctx, b.tx, consumers, nil); err != nil {
		return err
	}
	for id, models := range all {
		chain, err := b.chainOf(&id)
		if err != nil {
			return err
		}
		for _, s := range models {
			b.spend(chain, s.of, from, s.took, func(bud *budget.Budget) bool { return bud.ID == row.ID })
		}
	}
	return nil
}
