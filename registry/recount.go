package registry

import (
	"context"
	"fmt"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
)

// lockBudgets keeps others, within a transaction on PostgreSQL, from what counters are compared with. It comes before
// the locks of models.
func (r *Registry) lockBudgets(ctx context.Context, tx *ent.Client) error {
	if !r.inTx || r.db.Dialect() != dialect.Postgres {
		return nil
	}
	return r.lockPolicy(ctx, tx)
}

// recountBudgets sets the counters of all budgets to what the ledger has, after usage of a model was priced anew. Each
// budget is a transaction.
func (r *Registry) recountBudgets(ctx context.Context, op string, model uuid.UUID) error {
	ids, err := budgetsToRecount(ctx, r.fresh, model)
	if err == nil {
		_, err = r.setCounters(ctx, op, ids)
	}
	return translate(ctx, op, err)
}

// recountWithin is recountBudgets within the transaction of an operation.
func (r *Registry) recountWithin(ctx context.Context, tx *ent.Client, model uuid.UUID) error {
	ids, err := budgetsToRecount(ctx, tx, model)
	for _, id := range ids {
		if _, err = r.setCountersIn(ctx, tx, id); err != nil {
			return err
		}
	}
	return err
}

// budgetsToRecount returns the budgets whose counters may change when usage of a model is priced anew: all, or none if
// the model has no usage.
func budgetsToRecount(ctx context.Context, from *ent.Client, model uuid.UUID) ([]uuid.UUID, error) {
	ids, err := from.Budget.Query().Order(entbudget.ByID()).IDs(ctx)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	used, err := from.UsageTotal.Query().Where(usagetotal.ModelID(model)).Exist(ctx)
	if err != nil || !used {
		return nil, err
	}
	return ids, nil
}

// setCounters sets the wrong counters of budgets, each of them in a transaction, and returns how many it has set.
func (r *Registry) setCounters(ctx context.Context, op string, budgets []uuid.UUID) (set int64, err error) {
	if len(budgets) == 0 {
		return 0, nil
	}
	err = r.pieces(ctx, op, func() (more bool, err error) {
		var n int64
		err = r.writeAlone(ctx, fmt.Sprintf("budget %s", budgets[0]), nil, func(tx *ent.Client) (err error) {
			n, err = r.setCountersIn(ctx, tx, budgets[0])
			return err
		})
		if err == nil {
			set += n
		}
		budgets = budgets[1:]
		return len(budgets) > 0, err
	})
	return set, err
}

// setCountersIn sets the wrong counters of a budget, which it reads under the policy's lock, and returns their number.
func (r *Registry) setCountersIn(ctx context.Context, tx *ent.Client, id uuid.UUID) (int64, error) {
	if err := r.lockPolicy(ctx, tx); err != nil {
		return 0, err
	}
	row, err := tx.Budget.Query().Where(entbudget.ID(id)).Only(ctx)
	if ent.IsNotFound(err) { // it was deleted meanwhile
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	wrong, err := r.commits.WrongCounters(ctx, tx, timeOf(tx), row)
	if err != nil {
		return 0, err
	}
	return int64(len(wrong)), r.commits.SetCounters(ctx, tx, timeOf(tx), wrong)
}
