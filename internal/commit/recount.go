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
	bound := chain.bindings(of, now)
	if err := b.readSpent(ctx, from, bound); err != nil {
		return nil, err
	}
	r := b.priced(a.Model, now, ledger.Estimate{Tokens: a.Want.Tokens, Output: a.Output}, a.Want.Cost)
	return b.ceilings(bound, r), nil
}

// Recount counts what was spent before a budget was made, in its present window and in later ones. It returns the
// instant from which on the counters are complete. The caller has the policy's lock.
func (m *Committer) Recount(ctx context.Context, tx *ent.Client, now time.Time, row *ent.Budget) (time.Time, error) {
	b := m.counting(tx, now)
	path, err := b.pathOf(ctx, row.ConsumerID)
	if err != nil {
		return time.Time{}, err
	}
	complete, err := b.spendAgain(ctx, row, path, utc.Beginning)
	if err != nil {
		return time.Time{}, err
	}
	return complete, b.writeSpent(ctx)
}

// Leave and Enter move what a subtree has spent out of budgets above it, and into them, in their present windows and in
// later ones. Earlier windows stay as they are. The caller has the policy's lock.
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

// spentBy counts what a subtree has spent in the present and later windows of budgets.
func (m *Committer) spentBy(
	ctx context.Context, tx *ent.Client, now time.Time, path string, rows []*ent.Budget,
) (*batch, error) {
	b := m.counting(tx, now)
	for _, row := range rows {
		if _, err := b.spendAgain(ctx, row, path, row.CountsFrom); err != nil {
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

// spendAgain counts, for one budget, what a subtree has spent from an instant on, in the present window and in later
// ones. It returns the instant from which on that is complete.
func (b *batch) spendAgain(ctx context.Context, row *ent.Budget, path string, from time.Time) (time.Time, error) {
	known, err := readSources(ctx, b.tx)
	if err != nil {
		return time.Time{}, err
	}
	window, err := WindowOf(row)
	if err != nil {
		return time.Time{}, err
	}
	begin, end := window.Of(b.now)
	first := known.stretch(window, utc.Max(begin, from), end)
	for s := first; ; {
		if err := b.spendStretch(ctx, row, path, s); err != nil {
			return first.from, err
		}
		var later *uuid.UUID
		const next = "SELECT id FROM usage_events WHERE id >= $1 ORDER BY id LIMIT 1"
		err := bulk.Scan(ctx, b.tx, next, []any{ledger.FirstEventID(s.until)}, func(scan func(...any) error) error {
			return scan(&later)
		})
		if err != nil || later == nil {
			return first.from, err
		}
		begin, end := window.Of(ledger.EventTime(*later)) // of a clock that is ahead
		s = known.stretch(window, begin, end)
	}
}

// spendStretch counts, for one budget, what a subtree has spent in a part of one of its windows.
func (b *batch) spendStretch(ctx context.Context, row *ent.Budget, path string, s stretch) error {
	all, err := s.read(ctx, b.tx, path)
	if err != nil {
		return err
	}
	consumers := map[uuid.UUID]bool{}
	for _, one := range all {
		consumers[one.consumer] = true
	}
	if err := b.findOwners(ctx, b.tx, consumers, nil); err != nil {
		return err
	}
	for _, one := range all {
		chain, err := b.chainOf(&one.consumer)
		if err != nil {
			return err
		}
		b.spend(chain, one.of, s.from, one.took, func(bud *budget.Budget) bool { return bud.ID == row.ID })
	}
	return nil
}
