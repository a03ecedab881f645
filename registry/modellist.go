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

// The orders. Within each, models follow by model_id and then by id; models whose value is not
// known come last.
const (
	OrderByModelID       ModelOrder = iota
	OrderByInputCost                // cheapest input first
	OrderByOutputCost               // cheapest output first
	OrderByContextWindow            // largest first
)

// ModelFilter selects models. Conditions that are zero are none; the others must all hold.
type ModelFilter struct {
	ProviderID uuid.UUID
	FamilyID   uuid.UUID
	Search     string // a part of model_id or name; ASCII letters in any case

	SupportsImages           bool
	SupportsAudio            bool
	SupportsTools            bool
	SupportsStructuredOutput bool
	CanReason                bool
	CanStream                bool
	MinContextWindow         int64      // tokens
	MaxInputCost             *money.USD // per 1M tokens; leaves out models whose price is not known
	MaxOutputCost            *money.USD // per 1M tokens; leaves out models whose price is not known
	WithDeprecated           bool       // deprecated models too

	Deleted bool // the deleted models instead of the live ones

	Order ModelOrder // Defaults to ByModelID
	Limit int        // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID  // the last model of the page before, in the same order; zero: from the first
}

// Next returns the filter of the page after the one that ends with last, and how many rows a full page has.
func (fl ModelFilter) Next(last *ent.Model) (ModelFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

func (fl ModelFilter) faults() fault.List {
	var f fault.List
	f.Label("search", fl.Search, 0, rule.MaxModelID)
	f.Check(fl.MinContextWindow >= 0, "min context window %d is negative", fl.MinContextWindow)
	f.Check(fl.Order >= OrderByModelID && fl.Order <= OrderByContextWindow, "order %d is not known", fl.Order)
	return f
}

// ListModels returns a page of the models that the filter selects. It returns [ErrInvalidData], or [ErrNotFound] for an
// After that was purged.
func (r *Registry) ListModels(ctx context.Context, filter ModelFilter) ([]*ent.Model, error) {
	return r.listModels(ctx, "list models", filter)
}

// GetModelsByProvider returns a page of the live models of a provider, deprecated ones too, by model_id. An unknown
// provider has none. [Registry.ListModels] does the same, and more. It returns [ErrInvalidData] for a limit that is
// out of range, or [ErrNotFound] for an After that was purged.
func (r *Registry) GetModelsByProvider(ctx context.Context, providerID uuid.UUID, page Page) ([]*ent.Model, error) {
	return r.listModels(ctx, fmt.Sprintf("get models of provider %s", providerID), ModelFilter{
		ProviderID: providerID, WithDeprecated: true, Limit: page.Limit, After: page.After,
	}, model.ProviderID(providerID)) // a zero id is no condition of the filter
}

func (r *Registry) listModels(
	ctx context.Context, op string, filter ModelFilter, also ...predicate.Model,
) ([]*ent.Model, error) {
	return listing[*ent.Model, uuid.UUID]{
		order: filter.order(),
		get: func(ctx context.Context, c *ent.Client, id uuid.UUID) (*ent.Model, error) {
			return c.Model.Get(ctx, id)
		},
		place: filter.place,
		all: func(ctx context.Context, c *ent.Client, page func(*sql.Selector)) ([]*ent.Model, error) {
			query := c.Model.Query().Where(filter.predicates()...).Where(also...)
			query.Modify(page)
			return query.All(ctx)
		},
	}.page(ctx, r, op, filter.faults(), filter.Limit, filter.After)
}

func (fl ModelFilter) predicates() []predicate.Model {
	live := model.DeletedAtIsNil()
	if fl.Deleted {
		live = model.DeletedAtNotNil()
	}
	where := append(matching[predicate.Model]("Model", fl), live)
	for _, flag := range []struct {
		wanted bool
		is     predicate.Model
	}{
		{
			fl.Search != "",
			model.Or(containsFold(model.FieldModelID, fl.Search), containsFold(model.FieldName, fl.Search)),
		},
		{fl.MinContextWindow > 0, model.ContextWindowGTE(fl.MinContextWindow)},
		{fl.MaxInputCost != nil, model.CostPer1mInputLTE(value(fl.MaxInputCost))},
		{fl.MaxOutputCost != nil, model.CostPer1mOutputLTE(value(fl.MaxOutputCost))},
		{!fl.WithDeprecated, model.Deprecated(false)},
	} {
		if flag.wanted {
			where = append(where, flag.is)
		}
	}
	return where
}

func (fl ModelFilter) order() []sortColumn {
	order := ascending(model.FieldModelID, model.FieldID)
	switch fl.Order {
	case OrderByInputCost:
		return append([]sortColumn{{name: model.FieldCostPer1mInput, lastNil: true}}, order...)
	case OrderByOutputCost:
		return append([]sortColumn{{name: model.FieldCostPer1mOutput, lastNil: true}}, order...)
	case OrderByContextWindow:
		return append([]sortColumn{{name: model.FieldContextWindow, newest: true}}, order...)
	}
	return order
}

// place returns the values of a model in the order.
func (fl ModelFilter) place(m *ent.Model) []any {
	place := []any{m.ModelID, m.ID}
	switch fl.Order {
	case OrderByInputCost:
		return append([]any{known(m.CostPer1mInput)}, place...)
	case OrderByOutputCost:
		return append([]any{known(m.CostPer1mOutput)}, place...)
	case OrderByContextWindow:
		return append([]any{m.ContextWindow}, place...)
	}
	return place
}

// known returns what p points to, or nil.
func known[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

// containsFold tells whether a column has a text in it, ASCII letters in any case. Ent's ContainsFold
// folds the text beyond ASCII, which the databases do not do with the column.
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

// nameTaken says, of several models that could not be created, which one exists already: it is asked for when that is
// known, so that creating models takes no longer. Any other error stays as it is.
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
	return err // another process has deleted it meanwhile
}
