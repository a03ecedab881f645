package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/budgetgrant"
	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// GrantInput describes more than the ceilings of a budget, for some of its windows.
type GrantInput struct {
	BudgetID  uuid.UUID
	SubjectID uuid.UUID // of a budget for each: the consumer that has it. Defaults to all
	Cost      money.USD // in addition to the ceiling, if the budget has one; likewise the next two
	Tokens    int64
	Requests  int64

	From    time.Time // the first window is the one this lies in. Defaults to now
	Windows int       // how many, up to 1,000. Defaults to 1
	Reason  string    // for people, up to 1,024 characters
}

const maxWindows = 1000

// GrantBudget raises the ceilings of a budget for some windows, and returns the grant. It changes no counter.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule, or nothing is granted: the budget has no such ceiling, it does not
//     count the subject by itself, or the windows are over
//   - [ErrForeignKey]: the budget or the subject is unknown
func (r *Registry) GrantBudget(ctx context.Context, in GrantInput) (*ent.BudgetGrant, error) {
	if in.Windows == 0 {
		in.Windows = 1
	}
	f := judge(draft.BudgetGrant.Create(), in)
	f.Check(in.Cost > 0 || in.Tokens > 0 || in.Requests > 0, "nothing is granted")
	f.Check(in.Windows >= 1 && in.Windows <= maxWindows, "%d windows are not between 1 and %d", in.Windows, maxWindows)
	if !in.From.IsZero() {
		f.Time("from", in.From)
	}
	return change(ctx, r.writePolicy, fmt.Sprintf("grant budget %s", in.BudgetID), f,
		func(tx *ent.Client) (*ent.BudgetGrant, error) {
			row, err := tx.Budget.Get(ctx, in.BudgetID)
			if ent.IsNotFound(err) {
				err = fault.Missing("budget", in.BudgetID)
			}
			if err != nil {
				return nil, err
			}
			if err := requireEffect(ctx, tx, in, row); err != nil {
				return nil, err
			}
			window, err := commit.WindowOf(row)
			if err != nil {
				return nil, err
			}
			from := timeOf(tx)
			if !in.From.IsZero() {
				from = utc.Of(in.From)
			}
			begin := window.Nth(from, 0)
			until := window.Nth(begin, in.Windows)
			if !until.After(timeOf(tx)) {
				return nil, fmt.Errorf("%w: the windows of the grant are over", ErrInvalidData)
			}
			return save(ctx, tx, ActionCreate, nil, filled(tx.BudgetGrant.Create(), in).
				SetWindowsFrom(begin).SetWindowsUntil(until).SetCreatedAt(timeOf(tx)))
		})
}

// requireEffect returns ErrInvalidData if a grant would raise no ceiling, and ErrForeignKey if its subject is unknown.
func requireEffect(ctx context.Context, tx *ent.Client, in GrantInput, row *ent.Budget) error {
	var f fault.List
	f.Check(in.Cost == 0 || row.Cost > 0, "the budget has no ceiling of cost")
	f.Check(in.Tokens == 0 || row.Tokens > 0, "the budget has no ceiling of tokens")
	f.Check(in.Requests == 0 || row.Requests > 0, "the budget has no ceiling of requests")
	if err := f.Err(); err != nil || in.SubjectID == uuid.Nil {
		return err
	}
	subject, err := tx.Consumer.Query().Where(consumer.ID(in.SubjectID), consumer.DeletedAtIsNil()).Only(ctx)
	if ent.IsNotFound(err) {
		err = fault.Missing("consumer", in.SubjectID)
	}
	if err != nil {
		return err
	}
	path, err := commit.PathIDs(subject.Path)
	if err != nil {
		return err
	}
	rows, err := tx.Consumer.Query().Where(consumer.IDIn(path...)).Order(consumer.ByPath()).All(ctx) // the root first
	if err != nil {
		return err
	}
	chain := make([]budget.Consumer, len(rows))
	for i, c := range rows {
		chain[i] = budget.Consumer{ID: c.ID, Kind: c.Kind}
	}
	b := budget.Budget{Owner: row.ConsumerID, Each: row.Each, EachKind: row.EachKind}
	if counted, ok := b.Subject(chain); !ok || counted != subject.ID {
		return fmt.Errorf("%w: the budget does not count consumer %s by itself", ErrInvalidData, subject.ID)
	}
	return nil
}

// RevokeGrant takes a grant back and returns it. What was admitted by it stays admitted. A grant that was revoked
// before is left as it is. It returns [ErrNotFound] if there is no such grant.
func (r *Registry) RevokeGrant(ctx context.Context, id uuid.UUID) (*ent.BudgetGrant, error) {
	return change(ctx, r.writePolicy, fmt.Sprintf("revoke grant %s", id), nil,
		func(tx *ent.Client) (*ent.BudgetGrant, error) {
			old, err := tx.BudgetGrant.Get(ctx, id)
			if err != nil || old.RevokedAt != nil {
				return old, err
			}
			return save(ctx, tx, ActionUpdate, old, old.Update().SetRevokedAt(timeOf(tx)))
		})
}

// GetGrant returns a grant. It returns [ErrNotFound] if there is no such grant.
func (r *Registry) GetGrant(ctx context.Context, id uuid.UUID) (*ent.BudgetGrant, error) {
	row, err := r.client.BudgetGrant.Get(ctx, id)
	return tied(r, row), translate(ctx, fmt.Sprintf("get grant %s", id), err)
}

// GrantFilter selects grants, revoked ones included.
type GrantFilter struct {
	BudgetID  uuid.UUID // zero: of all budgets
	SubjectID uuid.UUID // zero: for all consumers

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last grant of the page before; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl GrantFilter) Next(last *ent.BudgetGrant) (GrantFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListGrants returns a page of grants, in the order in which they were made. It returns [ErrInvalidData] if the limit
// is out of range, and [ErrNotFound] if the grant that After names is gone.
func (r *Registry) ListGrants(ctx context.Context, filter GrantFilter) ([]*ent.BudgetGrant, error) {
	l := listing[uuid.UUID]{ascending(budgetgrant.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	return list(ctx, r, "list grants", nil, l, c.BudgetGrant.Get,
		c.BudgetGrant.Query().Where(matching[predicate.BudgetGrant](filter)...))
}
