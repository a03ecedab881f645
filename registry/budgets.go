package registry

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/money"
)

// BudgetInput describes a budget: ceilings for what is spent for a consumer and for all below it.
type BudgetInput struct {
	ConsumerID uuid.UUID // a live consumer
	Name       string    // name for people, up to 128 characters; unique among the consumer's budgets
	Ceilings             // at least one
	Window

	// Each gives every consumer below the owner the ceilings for itself: those of EachKind, the first one of that kind
	// on the way down, or the owner's children if EachKind is empty. Without Each, all share them.
	Each     bool
	EachKind string

	ProviderID uuid.UUID // requests to its models count. Defaults to all providers
	Models     []string  // the provider's names of the models that count, * at the end: any rest. Defaults to all

	Mode       entbudget.Mode       // Defaults to entbudget.ModeEnforce
	OnUnpriced entbudget.OnUnpriced // of requests that have no price. Defaults to entbudget.OnUnpricedBlock
	// Thresholds are up to 10 percentages of a ceiling, 1 to 1000, that ListBudgetCrossings reports. Nil: 80 and 100.
	Thresholds []int
}

// BudgetUpdate changes the fields of a budget that are not nil. What a budget measures cannot be changed: a new budget
// starts from what the ledger knows.
type BudgetUpdate struct {
	Name        *string
	Cost        *money.USD
	Tokens      *int64
	Requests    *int64
	Concurrency *int64
	Mode        *entbudget.Mode
	OnUnpriced  *entbudget.OnUnpriced
	Thresholds  *[]int
}

const maxThresholds = 10

func (in BudgetInput) withDefaults() BudgetInput {
	in.Per = cmp.Or(in.Per, entbudget.DefaultPer)
	in.Zone = cmp.Or(in.Zone, entbudget.DefaultZone)
	if in.Per == entbudget.PerWeek || in.Per == entbudget.PerMonth {
		in.AnchorDay = cmp.Or(in.AnchorDay, 1)
	}
	in.Mode = cmp.Or(in.Mode, entbudget.DefaultMode)
	in.OnUnpriced = cmp.Or(in.OnUnpriced, entbudget.DefaultOnUnpriced)
	if in.Thresholds == nil {
		in.Thresholds = []int{80, 100}
	}
	return in
}

func (in BudgetInput) faults() fault.List {
	f := judge(draft.Budget.Create(), in)
	f.Check(in.Ceilings != Ceilings{}, "there is no ceiling")
	f.Check(in.Each || in.EachKind == "", "EachKind is given without Each")
	checkWindow(&f, in.Window)
	checkThresholds(&f, in.Thresholds)
	return f
}

func checkWindow(f *fault.List, w Window) {
	last := map[entbudget.Per]int{entbudget.PerWeek: 7, entbudget.PerMonth: 31}[w.Per]
	f.Check(w.AnchorDay >= min(1, last) && w.AnchorDay <= last, "anchor day %d is not between %d and %d",
		w.AnchorDay, min(1, last), last)
	latest := 0
	switch w.Per {
	case entbudget.PerDay, entbudget.PerWeek, entbudget.PerMonth:
		latest = 23
	}
	f.Check(w.AnchorHour >= 0 && w.AnchorHour <= latest, "anchor hour %d is not between 0 and %d", w.AnchorHour, latest)
	_, err := time.LoadLocation(w.Zone)
	f.Check(err == nil && w.Zone != "Local", "zone %.*q is not known", rule.MaxWord, w.Zone)
}

func checkThresholds(f *fault.List, percentages []int) {
	f.Check(len(percentages) <= maxThresholds, "%d thresholds are more than %d", len(percentages), maxThresholds)
	for i, percent := range percentages {
		f.Check(percent >= 1 && percent <= 1000, "threshold %d is not between 1 and 1000 %%", percent)
		f.Check(i == 0 || percentages[i-1] < percent, "thresholds do not ascend")
	}
}

// CreateBudget creates a budget and returns it. From the moment that it returns, no process admits more than its
// ceilings: see [Registry.AcquireKey].
//
// It starts from what was spent in its present window, by the sums by consumer and the requests that are not in them
// yet. CountsFrom says since when that is complete: the beginning of the window, or the first consumer if that came
// later. If the window begins within a UTC day whose quarters of an hour were pruned, it is the next day; a window of a
// minute is complete since events are kept.
//
// While it adds up what was spent, others wait: on SQLite all who write, on PostgreSQL requests for consumers and
// changes of the catalogue. A month of a thousand consumers takes about a tenth of a second. A budget for one model
// takes three times as long, and one for fifty models a hundred times: the days of consumers do not tell models apart.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule
//   - [ErrForeignKey]: the consumer or the provider is unknown
//   - [ErrConflict]: the consumer has a budget of this name
func (r *Registry) CreateBudget(ctx context.Context, in BudgetInput) (*ent.Budget, error) {
	in = in.withDefaults()
	return change(ctx, r.writePolicy, named("create budget", in.Name, rule.MaxName), in.faults(),
		func(tx *ent.Client) (*ent.Budget, error) {
			live, err := tx.Consumer.Query().Where(consumer.ID(in.ConsumerID), consumer.DeletedAtIsNil()).Exist(ctx)
			if err == nil && !live {
				err = fault.Missing("consumer", in.ConsumerID)
			}
			if err == nil && in.ProviderID != uuid.Nil {
				err = requireProvider(ctx, tx, in.ProviderID)
			}
			if err != nil {
				return nil, err
			}
			create := filled(tx.Budget.Create(), in).SetCountsFrom(timeOf(tx))
			row, err := create.Save(ctx)
			if err != nil {
				return nil, taken(err, "the consumer has another budget called %q", in.Name)
			}
			from, err := r.commits.Recount(ctx, tx, timeOf(tx), row)
			if err != nil {
				return nil, err
			}
			row, err = row.Update().SetCountsFrom(from).Save(ctx)
			noteRow(tx, ActionCreate, nil, row)
			return row, err
		})
}

// GetBudget returns a budget. It returns [ErrNotFound] if there is no such budget.
func (r *Registry) GetBudget(ctx context.Context, id uuid.UUID) (*ent.Budget, error) {
	row, err := r.client.Budget.Get(ctx, id)
	return tied(r, row), translate(ctx, fmt.Sprintf("get budget %s", id), err)
}

// FindBudget returns the budget of a consumer with this name. It returns [ErrNotFound] if there is no such budget.
func (r *Registry) FindBudget(ctx context.Context, consumerID uuid.UUID, name string) (*ent.Budget, error) {
	op := fmt.Sprintf("find budget %.*q of consumer %s", rule.MaxName, name, consumerID)
	return found(ctx, r, op, name,
		r.client.Budget.Query().Where(entbudget.ConsumerID(consumerID), entbudget.Name(name)).Only)
}

// BudgetFilter selects budgets.
type BudgetFilter struct {
	ConsumerID uuid.UUID // zero: of all consumers

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last budget of the page before; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl BudgetFilter) Next(last *ent.Budget) (BudgetFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListBudgets returns a page of budgets, in the order in which they were created. It returns [ErrInvalidData] if the
// limit is out of range, and [ErrNotFound] if the budget that After names was deleted.
func (r *Registry) ListBudgets(ctx context.Context, filter BudgetFilter) ([]*ent.Budget, error) {
	l := listing[uuid.UUID]{ascending(entbudget.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	return list(ctx, r, "list budgets", nil, l, c.Budget.Get,
		c.Budget.Query().Where(matching[predicate.Budget](filter)...))
}

// UpdateBudget changes a budget and returns it. It changes no counter. When it has returned, no process admits a
// request by the old ceilings; requests that are open go on.
//
// Errors:
//
//   - [ErrInvalidData]: the update breaks a rule, or takes the last ceiling away
//   - [ErrConflict]: another budget of the consumer has the new name
//   - [ErrNotFound]: there is no such budget
func (r *Registry) UpdateBudget(ctx context.Context, id uuid.UUID, up BudgetUpdate) (*ent.Budget, error) {
	f := judge(draft.Budget.UpdateOneID(id), up)
	if up.Thresholds != nil {
		checkThresholds(&f, *up.Thresholds)
	}
	return change(ctx, r.writePolicy, fmt.Sprintf("update budget %s", id), f,
		func(tx *ent.Client) (*ent.Budget, error) {
			old, err := tx.Budget.Get(ctx, id)
			if err != nil {
				return nil, err
			}
			after := Ceilings{
				valueOr(up.Cost, old.Cost), valueOr(up.Tokens, old.Tokens), valueOr(up.Requests, old.Requests),
				valueOr(up.Concurrency, old.Concurrency),
			}
			if (after == Ceilings{}) {
				return nil, fmt.Errorf("%w: no ceiling is left: delete the budget", ErrInvalidData)
			}
			row, err := save(ctx, tx, ActionUpdate, old, filled(old.Update(), up))
			if err != nil {
				return nil, taken(err, "the consumer has another budget called %q", value(up.Name))
			}
			return row, nil
		})
}

// valueOr returns what a pointer points to, or else a default.
func valueOr[T any](p *T, otherwise T) T {
	if p != nil {
		return *p
	}
	return otherwise
}

// DeleteBudget removes a budget for good, with its counters, grants and crossings. It refuses nothing any more. It
// returns [ErrNotFound] if there is no such budget.
func (r *Registry) DeleteBudget(ctx context.Context, id uuid.UUID) error {
	return r.writePolicy(ctx, fmt.Sprintf("delete budget %s", id), nil, func(tx *ent.Client) error {
		old, err := tx.Budget.Get(ctx, id)
		if err != nil {
			return err
		}
		noteRow(tx, ActionDelete, old, nil)
		return tx.Budget.DeleteOne(old).Exec(ctx)
	})
}

// budgetsAbove returns the budgets of the consumers above the last one of a path.
func budgetsAbove(ctx context.Context, tx *ent.Client, path string) ([]*ent.Budget, error) {
	ids, err := commit.PathIDs(path)
	if err != nil {
		return nil, err
	}
	above := entbudget.ConsumerIDIn(ids[:len(ids)-1]...)
	return tx.Budget.Query().Where(above).Order(entbudget.ByID()).All(ctx)
}
