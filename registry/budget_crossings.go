package registry

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/budgetcrossing"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
)

// CrossingFilter selects crossings.
type CrossingFilter struct {
	BudgetID     uuid.UUID // zero: of all budgets
	SubjectID    uuid.UUID // zero: of all consumers
	Acknowledged bool      // those that somebody has taken note of, too

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last crossing of the page before; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl CrossingFilter) Next(last *ent.BudgetCrossing) (CrossingFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListBudgetCrossings returns a page of crossings, oldest first: thresholds that were passed, and the first refusal of
// each ceiling, in windows of a day or longer. Each is there once for a subject and window. Without Acknowledged it is
// a feed: what AckBudgetCrossings has not been told of. It returns [ErrInvalidData] if the limit is out of range, and
// [ErrNotFound] if the crossing that After names is gone.
func (r *Registry) ListBudgetCrossings(ctx context.Context, filter CrossingFilter) ([]*ent.BudgetCrossing, error) {
	l := listing[uuid.UUID]{ascending(budgetcrossing.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	query := c.BudgetCrossing.Query().Where(matching[predicate.BudgetCrossing](filter)...)
	if !filter.Acknowledged {
		query.Where(budgetcrossing.AcknowledgedAtIsNil())
	}
	return list(ctx, r, "list budget crossings", nil, l, c.BudgetCrossing.Get, query)
}

// AckBudgetCrossings notes that somebody has taken note of crossings. Those that are not there, and those noted before,
// are left as they are.
func (r *Registry) AckBudgetCrossings(ctx context.Context, ids ...uuid.UUID) error {
	return r.write(ctx, fmt.Sprintf("acknowledge %d budget crossings", len(ids)), nil, func(tx *ent.Client) error {
		for some := range slices.Chunk(ids, chunk) {
			err := tx.BudgetCrossing.Update().
				Where(budgetcrossing.IDIn(some...), budgetcrossing.AcknowledgedAtIsNil()).
				SetAcknowledgedAt(timeOf(tx)).Exec(ctx)
			if err != nil {
				return err
			}
		}
		return nil
	})
}
