package registry

import (
	"context"
	"fmt"
	"iter"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// The sizes of pages, in rows. Every list is a page: a filter's Limit says how long it is at most, and After, the
// last row of the page before, where it begins. What is created or deleted meanwhile moves no row from one page to
// another. [All] goes through all pages.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// chunk is how many rows one INSERT carries, and how many values one IN list: 32,766
// parameters are the most that SQLite takes, and a model has some twenty.
const chunk = 500

// Page is the part of a list to be returned.
type Page struct {
	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last row of the page before; zero: from the first
}

// All returns an iterator over all rows of a list, which it reads page by page, of filter.Limit rows each:
//
//	for m, err := range registry.All(ctx, reg.ListModels, registry.ModelFilter{ProviderID: id}) {
//		if err != nil {
//			return err
//		}
//		...
//	}
//
// It ends after an error of the list. Rows that are created meanwhile are among them if they come after those that were
// read. R and F are the list's own: each of the registry's filters will do.
func All[F interface{ Next(R) (F, int) }, R any](
	ctx context.Context, list func(context.Context, F) ([]R, error), filter F,
) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		for {
			page, err := list(ctx, filter)
			if err != nil {
				var none R
				yield(none, err)
				return
			}
			for _, row := range page {
				if !yield(row, nil) {
					return
				}
			}
			if len(page) == 0 {
				return
			}
			following, size := filter.Next(page[len(page)-1])
			if len(page) < size {
				return
			}
			filter = following
		}
	}
}

func checkLimit(f *fault.List, limit int) {
	f.Check(limit >= 0 && limit <= MaxLimit, "limit %d is not between 0 and %d", limit, MaxLimit)
}

// pageSize is how many rows a page has at most.
func pageSize(limit int) int {
	if limit == 0 {
		return DefaultLimit
	}
	return limit
}

// sortColumn is a part of the order of a list.
type sortColumn struct {
	name    string
	newest  bool // descending
	lastNil bool // values that are not known come last
}

// listing says how a list is read. ID is the type of its rows' ids.
type listing[T entRow[T], ID comparable] struct {
	order []sortColumn // the last one is the id
	get   func(context.Context, *ent.Client, ID) (T, error)
	place func(T) []any // the values of a row in the order
	all   func(ctx context.Context, client *ent.Client, page func(*sql.Selector)) ([]T, error)
}

// page returns a page, after the row of an id that is not zero.
func (l listing[T, ID]) page(
	ctx context.Context, r *Registry, op string, f fault.List, limit int, after ID,
) ([]T, error) {
	checkLimit(&f, limit)
	if err := f.Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	client, begin := r.client, []any(nil)
	var first ID
	if after != first {
		client = r.fresh // a replica could lack that row, which was the primary's, or some before it
		last, err := l.get(ctx, client, after)
		if ent.IsNotFound(err) {
			err = fmt.Errorf("the page after %v: %w: it was removed; begin again without After", after, ErrNotFound)
		}
		if err != nil {
			return nil, translate(ctx, op, err)
		}
		begin = l.place(last)
	}
	page, err := l.all(ctx, client, func(s *sql.Selector) {
		if begin != nil {
			s.Where(following(s, l.order, begin))
		}
		for _, c := range l.order {
			s.OrderExprFunc(c.sorted(s))
		}
		s.Limit(pageSize(limit))
	})
	return allTied(r, page), translate(ctx, op, err)
}

func (c sortColumn) sorted(s *sql.Selector) func(*sql.Builder) {
	return func(b *sql.Builder) {
		b.Ident(s.C(c.name))
		if c.newest {
			b.WriteString(" DESC")
		}
		if c.lastNil {
			b.WriteString(" NULLS LAST")
		}
	}
}

// following is the condition on rows that come after a place in an order. It begins with a bound on the first column
// alone: in this form both databases read an index on that from there on.
func following(s *sql.Selector, order []sortColumn, place []any) *sql.Predicate {
	first, rest := order[0], order[1:]
	name := s.C(first.name)
	beyond := sql.GT(name, place[0])
	from := sql.GTE(name, place[0])
	if first.newest {
		beyond, from = sql.LT(name, place[0]), sql.LTE(name, place[0])
	}
	if len(rest) == 0 {
		return beyond
	}
	if !first.lastNil {
		return sql.And(from, sql.Or(beyond, following(s, rest, place[1:])))
	}
	if place[0] == nil {
		return sql.And(sql.IsNull(name), following(s, rest, place[1:]))
	}
	return sql.Or(beyond, sql.IsNull(name), sql.And(sql.EQ(name, place[0]), following(s, rest, place[1:])))
}

// ascending is an order by columns, each from the least on.
func ascending(names ...string) (order []sortColumn) {
	for _, name := range names {
		order = append(order, sortColumn{name: name})
	}
	return order
}

// newestFirst is an order by columns, each from the greatest on.
func newestFirst(names ...string) (order []sortColumn) {
	for _, name := range names {
		order = append(order, sortColumn{name: name, newest: true})
	}
	return order
}
