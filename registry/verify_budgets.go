package registry

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/ent/budgetwindow"
	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/proof"
)

// verifiedBudgets is what was found in consumers and in the counters of budgets.
type verifiedBudgets struct {
	budgets int64 // that were checked
	found   []proof.Difference
	wrong   []uuid.UUID // budgets with counters that can be set
}

// verifyBudgets checks the paths of consumers and the counters of budgets in one state of the database. Within a
// transaction on PostgreSQL it takes the policy's lock, which must come before those of models.
func (r *Registry) verifyBudgets(ctx context.Context) (v verifiedBudgets, err error) {
	if err := r.lockBudgets(ctx, r.client); err != nil {
		return v, err
	}
	for {
		var of ledger.Horizons
		err = r.inOneState(ctx, func(client *ent.Client) (err error) {
			if of, err = ledger.ReadHorizons(ctx, client); err == nil {
				v, err = r.verifyBudgetsIn(ctx, client)
			}
			return err
		})
		if err != nil {
			return v, err
		}
		// On PostgreSQL a snapshot does not keep a partition of events from being dropped.
		h, err := ledger.ReadHorizons(ctx, r.fresh)
		if err != nil || h.Equal(of) {
			return v, err
		}
	}
}

func (r *Registry) verifyBudgetsIn(ctx context.Context, client *ent.Client) (v verifiedBudgets, err error) {
	if v.found, err = wrongPaths(ctx, client); err != nil {
		return v, err
	}
	budgets, err := client.Budget.Query().Order(entbudget.ByID()).All(ctx)
	if err != nil {
		return v, err
	}
	now := r.now()
	for _, row := range budgets {
		v.budgets++
		wrong, err := r.commits.WrongCounters(ctx, client, now, row)
		switch {
		case errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnsupported):
			v.found = append(v.found, proof.Difference{
				Kind: proof.UnreadableRow, Table: entbudget.Table, Budget: row.ID, Have: err.Error(),
			})
		case err != nil:
			return v, err
		case len(wrong) > 0:
			v.wrong = append(v.wrong, row.ID)
		}
		for _, c := range wrong {
			v.found = append(v.found, proof.AmountDifferences(proof.Difference{
				Kind: proof.WrongBudgetCounter, Table: budgetwindow.Table, Budget: c.Budget, Subject: c.Subject,
				Start: c.Begin,
			}, c.Want, c.Have)...)
		}
	}
	return v, nil
}

const wrongPathsSQL = "SELECT c.id, c.path, COALESCE(p.path || '/', '') || CAST(c.id AS text) FROM consumers AS c" +
	" LEFT JOIN consumers AS p ON p.id = c.parent_id" +
	" WHERE c.path <> COALESCE(p.path || '/', '') || CAST(c.id AS text) ORDER BY c.id"

// wrongPaths returns the consumers whose paths do not follow from those of their parents.
func wrongPaths(ctx context.Context, client *ent.Client) (all []proof.Difference, err error) {
	err = bulk.Scan(ctx, client, wrongPathsSQL, nil, func(scan func(...any) error) error {
		d := proof.Difference{Kind: proof.WrongPath, Table: consumer.Table, Field: consumer.FieldPath}
		err := scan(&d.Subject, &d.Have, &d.Want)
		all = append(all, d)
		return err
	})
	return all, err
}
