package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/money"
)

// ModelOrder is an order of models.
type ModelOrder int

// The orders. Ties are broken by model_id, then by id. Models with an unknown value come last.
const (
	OrderByModelID       ModelOrder = iota
	OrderByInputCost                // cheapest input first
	OrderByOutputCost               // cheapest output first
	OrderByContextWindow            // largest first
)

// ModelFilter selects models. All conditions must hold; a zero condition is ignored.
type ModelFilter struct {
	ProviderID uuid.UUID
	FamilyID   uuid.UUID
	Search     string // part of model_id or name; the case of ASCII letters is ignored

	SupportsImages           bool
	SupportsAudio            bool
	SupportsTools            bool
	SupportsStructuredOutput bool
	CanReason                bool
	CanStream                bool
	MinContextWindow         int64      // tokens
	MaxInputCost             *money.USD // per 1M tokens; leaves out models without a known price
	MaxOutputCost            *money.USD // per 1M tokens; leaves out models without a known price
	WithDeprecated           bool       // include deprecated models

	Deleted bool // select deleted models instead of live ones

	Order ModelOrder // Defaults to OrderByModelID
	Limit int        // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID  // the last model of the page before, in the same order; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl ModelFilter) Next(last *ent.Model) (ModelFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

func (fl ModelFilter) faults() (f fault.List) {
	f.Label("search", fl.Search, 0, rule.MaxModelID)
	f.Check(fl.MinContextWindow >= 0, "min context window %d is negative", fl.MinContextWindow)
	f.Check(fl.Order >= OrderByModelID && fl.Order <= OrderByContextWindow, "order %d is unknown", fl.Order)
	return f
}

// ListModels returns a page of models. It returns [ErrInvalidData] if the filter breaks a rule, and [ErrNotFound] if
// the model that After names was purged.
func (r *Registry) ListModels(ctx context.Context, filter ModelFilter) ([]*ent.Model, error) {
	return r.listModels(ctx, "list models", filter)
}

// GetModelsByProvider returns a page of the live models of a provider, deprecated ones included, by model_id. An
// unknown provider has no models. [Registry.ListModels] can do the same, and more.
//
// It returns [ErrInvalidData] if the limit is out of range, and [ErrNotFound] if the model that After names was purged.
func (r *Registry) GetModelsByProvider(ctx context.Context, providerID uuid.UUID, page Page) ([]*ent.Model, error) {
	return r.listModels(ctx, fmt.Sprintf("get models of provider %s", providerID), ModelFilter{
		ProviderID: providerID, WithDeprecated: true, Limit: page.Limit, After: page.After,
	}, model.ProviderID(providerID)) // the filter ignores a zero id
}

func (r *Registry) listModels(
	ctx context.Context, op string, filter ModelFilter, also ...predicate.Model,
) ([]*ent.Model, error) {
	l := listing[uuid.UUID]{filter.order(), filter.Limit, filter.After}
	c := l.client(r)
	return list(ctx, r, op, filter.faults(), l, c.Model.Get,
		c.Model.Query().Where(filter.predicates()...).Where(also...))
}

func (fl ModelFilter) predicates() []predicate.Model {
	return append(matching[predicate.Model](fl), wanted([]condition[predicate.Model]{
		{
			fl.Search != "",
			model.Or(containsFold(model.FieldModelID, fl.Search), containsFold(model.FieldName, fl.Search)),
		},
		{fl.MinContextWindow > 0, model.ContextWindowGTE(fl.MinContextWindow)},
		{fl.MaxInputCost != nil, model.CostPer1mInputLTE(value(fl.MaxInputCost))},
		{fl.MaxOutputCost != nil, model.CostPer1mOutputLTE(value(fl.MaxOutputCost))},
		{!fl.WithDeprecated, model.Deprecated(false)},
	})...)
}

func (fl ModelFilter) order() []*sql.OrderFieldTerm {
	order := ascending(model.FieldModelID, model.FieldID)
	switch fl.Order {
	case OrderByInputCost:
		return slices.Insert(order, 0, sql.OrderByField(model.FieldCostPer1mInput, sql.OrderNullsLast()))
	case OrderByOutputCost:
		return slices.Insert(order, 0, sql.OrderByField(model.FieldCostPer1mOutput, sql.OrderNullsLast()))
	case OrderByContextWindow:
		return slices.Insert(order, 0, sql.OrderByField(model.FieldContextWindow, sql.OrderDesc()))
	}
	return order
}

// containsFold matches rows whose column contains a text, ignoring the case of ASCII letters. Ent's ContainsFold also
// folds letters beyond ASCII in the text, but the databases do not do so in the column.
func containsFold(column, text string) predicate.Model {
	return func(s *sql.Selector) {
		position := "INSTR"
		if s.Dialect() == dialect.Postgres {
			position = "STRPOS"
		}
		s.Where(sql.P(func(b *sql.Builder) {
			b.WriteString(position +
				"(LOWER(").Ident(s.C(column)).WriteString("), ").Arg(lowerASCII(text)).WriteString(") > 0")
		}))
	}
}

func lowerASCII(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text)
}

// nameTaken adds to a conflict of several models which of them exists already. It looks only after the failure, so that
// creating models takes no longer. It returns any other error unchanged.
func (r *Registry) nameTaken(ctx context.Context, err error, inputs []ModelInput) error {
	if !errors.Is(err, ErrConflict) || len(inputs) == 1 {
		return err
	}
	type name struct {
		provider uuid.UUID
		model    string
	}
	seen := make(map[name]int, len(inputs))
	for i, in := range inputs {
		n := name{in.ProviderID, in.ModelID}
		if first, twice := seen[n]; twice {
			return fmt.Errorf(
				"%w: models %d and %d are both %q of provider %s", err, first, i, in.ModelID, in.ProviderID,
			)
		}
		seen[n] = i
	}
	for some := range slices.Chunk(inputs, chunk) {
		names := make([]string, len(some))
		for i, in := range some {
			names[i] = in.ModelID
		}
		rows, failed := r.fresh.Model.Query().Where(model.ModelIDIn(names...), model.DeletedAtIsNil()).All(ctx)
		if failed != nil {
			return err
		}
		for _, m := range rows {
			if i, ok := seen[name{m.ProviderID, m.ModelID}]; ok {
				return fmt.Errorf("%w: model %d: %q of provider %s", err, i, m.ModelID, m.ProviderID)
			}
		}
	}
	return err // another process has deleted the model meanwhile
}
