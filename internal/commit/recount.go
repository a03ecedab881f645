package commit

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
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
