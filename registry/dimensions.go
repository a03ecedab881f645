package registry

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	entdimension "github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/dimensionvalue"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// DimensionInput describes a dimension: what usage is summed by beside models and keys, such as the feature or the
// customer that a request was made for.
type DimensionInput struct {
	Name  string // the name of its tags, a slug such as feature; never changes
	Multi bool   // a request may have several of its tags
	// Of makes it a composite: usage is summed by each combination of the values of these dimensions, 2 to 4 of those
	// that take one tag; "consumer" is one of them once there are consumers. It has no tags of its own.
	Of []string
	// MaxValues is the most values that are told apart, 1 to 10,000; later ones count as OtherValue. Defaults to 1,000.
	MaxValues int
	// DaysOnly keeps sums of UTC days alone, which take a tenth of the space. Reports have no hours then; in other
	// zones each UTC day counts in the day that has its noon.
	DaysOnly bool
}

// DimensionUpdate changes the fields of a dimension that are not nil.
type DimensionUpdate struct {
	// MaxValues may be raised: values that are new then count from the next microsecond on.
	MaxValues *int
}

const maxParts = 4 // of a composite

// reserved are names that reports have for other things; and names of what is never the same twice: a dimension of it
// would be full at once.
var reserved = map[string]string{
	"provider": "reports have it", "family": "reports have it", "model": "reports have it", "key": "reports have it",
	"consumer": "reports have it", "subtree": "reports have it",
	"request": "each has another", "session": "each has another", "trace": "each has another",
	"conversation": "each has another", "message": "each has another", "span": "each has another",
}

func (in DimensionInput) withDefaults() DimensionInput {
	in.MaxValues = cmp.Or(in.MaxValues, entdimension.DefaultMaxValues)
	return in
}

func (in DimensionInput) faults() fault.List {
	f := judge(draft.Dimension.Create(), in)
	f.Check(len(in.Name) <= rule.MaxWord, "name has %d characters, more than %d", len(in.Name), rule.MaxWord)
	why := reserved[strings.TrimSuffix(strings.TrimSuffix(in.Name, "_id"), "-id")]
	f.Check(why == "", "name %q cannot be a dimension's: %s", in.Name, why)
	checkMaxValues(&f, in.MaxValues)
	f.Check(in.Of == nil || len(in.Of) >= 2 && len(in.Of) <= maxParts, "a composite has %d parts, not 2 to %d",
		len(in.Of), maxParts)
	f.Check(in.Of == nil || !in.Multi, "a composite has no tags")
	for i, part := range in.Of {
		f.Check(!slices.Contains(in.Of[:i], part), "part %.64q is given twice", part)
	}
	return f
}

func checkMaxValues(f *fault.List, n int) {
	f.Check(n >= 1 && n <= 10_000, "max_values %d is not between 1 and 10000", n)
}

// CreateDimension creates a dimension and returns it. Requests from now on count in it: those of before, and those that
// have no tag, are reported without a value.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule, the name is reserved, or a part takes several tags or is a composite
//   - [ErrForeignKey]: a part is unknown
//   - [ErrConflict]: there is, or was, a dimension of this name
func (r *Registry) CreateDimension(ctx context.Context, in DimensionInput) (*ent.Dimension, error) {
	in = in.withDefaults()
	return change(ctx, r.writePolicy, named("create dimension", in.Name, rule.MaxWord), in.faults(),
		func(tx *ent.Client) (*ent.Dimension, error) {
			since := timeOf(tx)
			create := filled(tx.Dimension.Create(), in)
			if in.DaysOnly {
				create.SetGrain(entdimension.GrainDay)
			}
			if in.Multi {
				create.SetKind(entdimension.KindMulti)
			}
			var nobody []string // the values of a request without tags
			if in.Of != nil {
				create.SetKind(entdimension.KindComposite).SetParts(in.Of)
				var err error
				if nobody, since, err = unassignedOf(ctx, tx, in); err != nil {
					return nil, err
				}
			}
			d, err := save(ctx, tx, ActionCreate, nil, create.SetSince(since).SetOpenFrom(since))
			if err != nil {
				return nil, taken(err, "there is a dimension called %q", in.Name)
			}
			none := tx.DimensionValue.Create().SetDimensionID(d.ID).SetSince(d.Since).SetName("").
				SetKind(dimensionvalue.KindUnassigned)
			if in.Of != nil {
				none.SetKind(dimensionvalue.KindValue).SetName(dimension.NameOf(nobody))
			}
			other := tx.DimensionValue.Create().SetDimensionID(d.ID).SetSince(d.Since).SetName("").
				SetKind(dimensionvalue.KindOther)
			if err := tx.DimensionValue.CreateBulk(none, other).Exec(ctx); err != nil {
				return nil, err
			}
			return d, dimension.Overtaken(ctx, tx, r.db.Dialect(), d.ID, d.Since)
		})
}

// unassignedOf returns the values of the parts of a composite that requests without tags count under, and from when on
// all parts count: another process may have a clock that is ahead.
func unassignedOf(
	ctx context.Context, tx *ent.Client, in DimensionInput,
) (ids []string, since time.Time, err error) {
	since = timeOf(tx)
	book, err := dimension.Read(ctx, tx)
	if err != nil {
		return nil, since, err
	}
	for _, part := range in.Of {
		d := book.Named(part)
		switch {
		case d == nil:
			return nil, since, fmt.Errorf("%w: dimension %.64q: %w", ErrForeignKey, part, ErrNotFound)
		case d.Kind != entdimension.KindSingle && d.Kind != entdimension.KindConsumer:
			err := fmt.Errorf("%w: dimension %q takes several tags, or is a composite", ErrInvalidData, part)
			return nil, since, err
		case d.Retired != nil:
			return nil, since, fmt.Errorf("%w: dimension %q is retired", ErrInvalidData, part)
		case d.DaysOnly && !in.DaysOnly:
			return nil, since, fmt.Errorf("%w: dimension %q has days alone", ErrInvalidData, part)
		}
		ids, since = append(ids, d.Unassigned.String()), utc.Max(since, d.Since)
	}
	return ids, since, nil
}

// GetDimension returns a dimension, retired or not. It returns [ErrNotFound] if there is no such dimension.
func (r *Registry) GetDimension(ctx context.Context, id uuid.UUID) (*ent.Dimension, error) {
	row, err := r.client.Dimension.Get(ctx, id)
	return tied(r, row), translate(ctx, fmt.Sprintf("get dimension %s", id), err)
}

// FindDimension returns the dimension of this name. It returns [ErrNotFound] if there is no such dimension.
func (r *Registry) FindDimension(ctx context.Context, name string) (*ent.Dimension, error) {
	op := fmt.Sprintf("find dimension %.*q", rule.MaxWord, name)
	return found(ctx, r, op, name, r.client.Dimension.Query().Where(entdimension.Name(name)).Only)
}

// DimensionFilter selects dimensions.
type DimensionFilter struct {
	Retired bool // select retired dimensions; false: live ones

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last dimension of the page before; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl DimensionFilter) Next(last *ent.Dimension) (DimensionFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListDimensions returns a page of dimensions, in the order in which they were created, after the built-in one of
// consumers. It returns [ErrInvalidData] if the limit is out of range, and [ErrNotFound] if the dimension that After
// names does not exist.
func (r *Registry) ListDimensions(ctx context.Context, filter DimensionFilter) ([]*ent.Dimension, error) {
	l := listing[uuid.UUID]{ascending(entdimension.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	retired := entdimension.RetiredAtIsNil()
	if filter.Retired {
		retired = entdimension.RetiredAtNotNil()
	}
	return list(ctx, r, "list dimensions", nil, l, c.Dimension.Get, c.Dimension.Query().Where(retired))
}

// UpdateDimension changes a dimension and returns it.
//
// Errors:
//
//   - [ErrInvalidData]: the update breaks a rule, or lowers MaxValues
//   - [ErrNotFound]: there is no such dimension
func (r *Registry) UpdateDimension(ctx context.Context, id uuid.UUID, up DimensionUpdate) (*ent.Dimension, error) {
	f := judge(draft.Dimension.UpdateOneID(id), up)
	if up.MaxValues != nil {
		checkMaxValues(&f, *up.MaxValues)
	}
	return change(ctx, r.writePolicy, fmt.Sprintf("update dimension %s", id), f,
		func(tx *ent.Client) (*ent.Dimension, error) {
			old, err := tx.Dimension.Get(ctx, id)
			if err != nil {
				return nil, err
			}
			most := valueOr(up.MaxValues, old.MaxValues)
			if most < old.MaxValues {
				return nil, fmt.Errorf("%w: max_values %d is less than %d: values that are there stay", ErrInvalidData,
					most, old.MaxValues)
			}
			update := filled(old.Update(), up)
			if most > old.MaxValues { // what counted as other still does
				update.SetOpenFrom(utc.Max(old.OpenFrom, timeOf(tx).Add(time.Microsecond)))
			}
			return save(ctx, tx, ActionUpdate, old, update)
		})
}

// RetireDimension ends a dimension: requests from now on do not count in it, and its tags are refused. What was counted
// stays, and its name stays taken. So do the composites that it is a part of: they are retired with it. Retiring a
// retired dimension changes nothing.
//
// It returns [ErrInvalidData] for the built-in dimension of consumers, and [ErrNotFound] if there is no such dimension.
func (r *Registry) RetireDimension(ctx context.Context, id uuid.UUID) error {
	return r.writePolicy(ctx, fmt.Sprintf("retire dimension %s", id), nil, func(tx *ent.Client) error {
		old, err := tx.Dimension.Get(ctx, id)
		if err != nil || old.RetiredAt != nil {
			return err
		}
		if id == dimension.ConsumerID {
			return fmt.Errorf("%w: usage is always summed by consumers", ErrInvalidData)
		}
		all, err := tx.Dimension.Query().Where(entdimension.RetiredAtIsNil()).Order(entdimension.ByID()).All(ctx)
		if err != nil {
			return err
		}
		for _, d := range all {
			if d.ID != id && !slices.Contains(d.Parts, old.Name) {
				continue
			}
			retire := d.Update().SetRetiredAt(utc.Max(d.Since, timeOf(tx)))
			if _, err := save(ctx, tx, ActionUpdate, d, retire); err != nil {
				return err
			}
		}
		return nil
	})
}

// giveValue gives a new consumer the value that its usage is summed under. The first consumer makes the dimension.
func (r *Registry) giveValue(ctx context.Context, tx *ent.Client, id uuid.UUID) error {
	d, err := tx.Dimension.Query().Where(entdimension.ID(dimension.ConsumerID)).Only(ctx)
	if ent.IsNotFound(err) {
		// Folds share it. It comes after the consumer's own row, which nobody else knows.
		if err := r.lockPolicy(ctx, tx); err != nil {
			return err
		}
		now := timeOf(tx)
		d, err = tx.Dimension.Create().SetID(dimension.ConsumerID).SetName(dimension.Consumer).
			SetKind(entdimension.KindConsumer).SetMaxValues(10_000).SetSince(now).SetOpenFrom(now).Save(ctx)
		if err != nil {
			return err
		}
		value := func(id uuid.UUID, kind dimensionvalue.Kind) *ent.DimensionValueCreate {
			return tx.DimensionValue.Create().SetID(id).SetDimensionID(d.ID).SetName("").SetKind(kind).
				SetSince(d.Since)
		}
		err = tx.DimensionValue.CreateBulk(
			value(dimension.UnassignedID, dimensionvalue.KindUnassigned),
			value(dimension.OtherID, dimensionvalue.KindOther)).Exec(ctx)
		if err == nil {
			err = r.raisePolicy(ctx, tx)
		}
		if err == nil {
			err = dimension.Overtaken(ctx, tx, r.db.Dialect(), d.ID, d.Since)
		}
	}
	if err != nil {
		return err
	}
	return tx.DimensionValue.Create().SetID(id).SetDimensionID(d.ID).SetName(id.String()).SetSince(d.Since).Exec(ctx)
}

// noValues removes the values of consumers that are purged. It fails if there is usage under one of them: in a sum, or
// of a request that is not folded yet.
func noValues(ctx context.Context, tx *ent.Client, engine string, consumers []uuid.UUID) error {
	slices.SortFunc(consumers, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	tail := "SELECT e.consumer_id FROM " + ledger.Tail(engine, " AND e.consumer_id IN %s") + " LIMIT 1"
	err := bulk.ScanIn(ctx, tx, tail, consumers, func(scan func(...any) error) error {
		var id uuid.UUID
		if err := scan(&id); err != nil {
			return err
		}
		return fmt.Errorf("%w: there is usage of consumer %s", ErrForeignKey, id)
	})
	if err != nil {
		return err
	}
	for some := range slices.Chunk(consumers, chunk) {
		if _, err := tx.DimensionValue.Delete().Where(dimensionvalue.IDIn(some...)).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}
