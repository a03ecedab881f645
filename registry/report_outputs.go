package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	entdimension "github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
)

// namedValue is a value of a dimension, as a report needs it.
type namedValue struct {
	dimension uuid.UUID
	name      string // the tag, "" or OtherValue
	path      string // of a consumer
}

// readNames reads the values of the report's dimension and of its parts.
func (p *valueReport) readNames(ctx context.Context) (map[uuid.UUID]namedValue, error) {
	dims := []uuid.UUID{p.of.ID}
	for _, part := range p.of.Parts {
		d := p.book.Named(part)
		if d == nil {
			return nil, fmt.Errorf("%w: part %.64q of dimension %q is not there", ErrCorrupt, part, p.of.Name)
		}
		dims = append(dims, d.ID)
	}
	names := map[uuid.UUID]namedValue{}
	const query = "SELECT v.id, v.dimension_id, CASE v.kind WHEN 'other' THEN '" + OtherValue + "' ELSE v.name END," +
		" COALESCE(c.path, '') FROM dimension_values AS v LEFT JOIN " + consumer.Table + " AS c ON c.id = v.id" +
		" WHERE v.dimension_id IN %s"
	err := bulk.ScanIn(ctx, p.client, query, dims, func(scan func(...any) error) error {
		var id uuid.UUID
		var v namedValue
		err := scan(&id, &v.dimension, &v.name, &v.path)
		names[id] = v
		return err
	})
	return names, err
}

// choice is one way in which a value counts under a dimension.
type choice struct {
	text string
	id   uuid.UUID // of a consumer
	n, i int64
}

// outputsOf returns the rows in which a value counts: none if the report does not select it.
func (p *valueReport) outputsOf(id uuid.UUID, v namedValue, names map[uuid.UUID]namedValue) (all []output, err error) {
	of := map[string][]choice{}
	if p.of.Kind == entdimension.KindComposite {
		err = p.partChoices(v, names, of)
	} else {
		of[p.of.Name], err = p.choices(p.of, id, v)
	}
	if err != nil {
		return nil, err
	}
	order := slices.Sorted(maps.Keys(of))
	slices.SortStableFunc(order, func(a, b string) int { // as the report is grouped
		return cmp.Compare(slices.Index(p.By, Dimension(a)), slices.Index(p.By, Dimension(b)))
	})
	all = []output{{n: 1}}
	for _, name := range order {
		var next []output
		for _, o := range all {
			for _, c := range of[name] {
				with := o
				with.consumer, with.n, with.i = cmp.Or(o.consumer, c.id), o.n*c.n, o.i+c.i
				if name != dimension.Consumer && slices.Contains(p.By, Dimension(name)) {
					with.tags = append(slices.Clip(o.tags), c.text)
				}
				next = append(next, with)
			}
		}
		all = next
	}
	for k := range all {
		all[k].texts = dimension.NameOf(all[k].tags)
	}
	return all, nil
}

// partChoices adds the choices of the parts of a composite's value.
func (p *valueReport) partChoices(v namedValue, names map[uuid.UUID]namedValue, to map[string][]choice) error {
	parts := make([]uuid.UUID, len(p.of.Parts))
	if v.name == OtherValue {
		for i, name := range p.of.Parts {
			parts[i] = p.book.Named(name).Other
		}
	} else {
		ids, err := dimension.TextsOf(v.name)
		if err != nil || len(ids) != len(parts) {
			return fmt.Errorf("%w: value %.80q of dimension %q", ErrCorrupt, v.name, p.of.Name)
		}
		for i, text := range ids {
			if parts[i], err = uuid.Parse(text); err != nil {
				return fmt.Errorf("%w: value %.80q of dimension %q", ErrCorrupt, v.name, p.of.Name)
			}
		}
	}
	for i, name := range p.of.Parts {
		choices, err := p.choices(p.book.Named(name), parts[i], names[parts[i]])
		if err != nil {
			return err
		}
		to[name] = choices
	}
	return nil
}

// choices returns the ways in which a value counts under its dimension: none if the report does not select it.
func (p *valueReport) choices(d *dimension.Dimension, id uuid.UUID, v namedValue) (all []choice, err error) {
	switch {
	case d.Kind == entdimension.KindConsumer:
		return p.consumerChoices(id, v)
	case d.Kind == entdimension.KindMulti && v.name != "" && v.name != OtherValue:
		texts, err := dimension.TextsOf(v.name)
		if err != nil {
			return nil, err
		}
		for i, text := range texts {
			all = append(all, choice{text: text, n: int64(len(texts)), i: int64(i)})
		}
	default:
		all = []choice{{text: v.name, n: 1}}
	}
	want, selected := p.Values[Dimension(d.Name)]
	if !selected {
		return all, nil
	}
	i := slices.IndexFunc(all, func(c choice) bool { return c.text == want })
	switch {
	case i < 0:
		return nil, nil
	case slices.Contains(p.By, Dimension(d.Name)): // requests with this tag, under all of their tags
		return all, nil
	}
	return all[i : i+1], nil
}

// consumerChoices returns the consumers that usage for one counts under.
func (p *valueReport) consumerChoices(id uuid.UUID, v namedValue) ([]choice, error) {
	var ids []uuid.UUID
	if v.path != "" {
		var err error
		if ids, err = commit.PathIDs(v.path); err != nil {
			return nil, err
		}
	}
	if p.ConsumerID != uuid.Nil {
		for len(ids) > 0 && ids[0] != p.ConsumerID {
			ids = ids[1:]
		}
		if len(ids) == 0 {
			return nil, nil
		}
	}
	var all []choice
	for _, by := range p.By {
		switch {
		case by == BySubtree && len(ids) > 0:
			for _, above := range ids {
				c := choice{id: above}
				if above == id {
					c.n = 1
				}
				all = append(all, c)
			}
			return all, nil
		case by == ByConsumer && len(ids) > 0:
			return []choice{{id: id, n: 1}}, nil
		}
	}
	return []choice{{n: 1}}, nil
}
