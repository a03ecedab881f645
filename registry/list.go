package registry

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"reflect"
	"strings"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// The sizes of pages, in rows. Every list is a page: the filter's Limit is the most rows it has, and After is the last
// row of the page before. Creating or deleting rows meanwhile moves no row from one page to another. [All] iterates
// over all pages.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// chunk is the number of rows of an INSERT, and of values of an IN list. SQLite takes at most 32,766 parameters, and a
// model has about twenty.
const chunk = 500

// Page says which part of a list to return.
type Page struct {
	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last row of the page before; zero: the first page
}

// All returns an iterator over all rows of a list. It reads them page by page, filter.Limit rows at a time:
//
//	for m, err := range registry.All(ctx, reg.ListModels, registry.ModelFilter{ProviderID: id}) {
//		if err != nil {
//			return err
//		}
//		...
//	}
//
// An error of the list ends the iteration. Rows that are created meanwhile are included if they come after those
// already read. F is the list's filter, and R its row.
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

// pageSize returns the most rows of a page.
func pageSize(limit int) int { return cmp.Or(limit, DefaultLimit) }

// listing says which page of a list to return. ID is the type of the ids of its rows.
type listing[ID comparable] struct {
	order []*sql.OrderFieldTerm // the last column is the id
	limit int
	after ID // zero: the first page
}

func (l listing[ID]) isFirst() bool {
	var none ID
	return l.after == none
}

// client returns the client to read the page with: a replica may lack the row before it, or some before that one.
func (l listing[ID]) client(r *Registry) *ent.Client {
	if l.isFirst() {
		return r.client
	}
	return r.fresh
}

// list returns a page of the rows of a query: the first one, or the one after the row that get returns.
func list[T entRow[T], ID comparable, Modified any](
	ctx context.Context, r *Registry, op string, f fault.List, l listing[ID],
	get func(context.Context, ID) (T, error), query interface {
		Modify(modifiers ...func(*sql.Selector)) Modified
		All(ctx context.Context) ([]T, error)
	},
) ([]T, error) {
	checkLimit(&f, l.limit)
	if err := f.Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	if !l.isFirst() {
		last, err := get(ctx, l.after)
		if ent.IsNotFound(err) {
			err = fmt.Errorf("the page after %v: %w: it was removed; begin again without After", l.after, ErrNotFound)
		}
		if err != nil {
			return nil, translate(ctx, op, err)
		}
		query.Modify(func(s *sql.Selector) { s.Where(following(s, l.order, placeOf(last, l.order))) })
	}
	query.Modify(func(s *sql.Selector) {
		for _, c := range l.order {
			c.ToFunc()(s)
		}
		s.Limit(pageSize(l.limit))
	})
	page, err := query.All(ctx)
	return allTied(r, page), translate(ctx, op, err)
}

// placeOf returns the values of a row in the columns of an order; nil for NULL.
func placeOf(row any, order []*sql.OrderFieldTerm) []any {
	place, v := make([]any, len(order)), reflect.ValueOf(row).Elem()
	for i, c := range order {
		column := strings.ReplaceAll(c.Field, "_", "")
		if i == len(order)-1 {
			column = "id" // whatever it is called in the database
		}
		is := v.FieldByNameFunc(func(field string) bool { return strings.EqualFold(field, column) })
		if is.Kind() == reflect.Pointer {
			if is.IsNil() {
				continue
			}
			is = is.Elem()
		}
		place[i] = is.Interface()
	}
	return place
}

// found returns the row that a query finds by a name. A name that no row can have need not be looked for.
func found[T entRow[T]](
	ctx context.Context, r *Registry, op, name string, only func(context.Context) (T, error),
) (row T, err error) {
	if !fault.Storable(name) {
		return row, translate(ctx, op, ErrNotFound)
	}
	row, err = only(ctx)
	return tied(r, row), translate(ctx, op, err)
}

// following matches the rows after a place in an order. It begins with a bound on the first column alone; in this form
// both databases read an index on it from there on.
func following(s *sql.Selector, order []*sql.OrderFieldTerm, place []any) *sql.Predicate {
	first, rest := order[0], order[1:]
	name := s.C(first.Field)
	beyond := sql.GT(name, place[0])
	from := sql.GTE(name, place[0])
	if first.Desc {
		beyond, from = sql.LT(name, place[0]), sql.LTE(name, place[0])
	}
	if len(rest) == 0 {
		return beyond
	}
	if !first.NullsLast {
		return sql.And(from, sql.Or(beyond, following(s, rest, place[1:])))
	}
	if place[0] == nil {
		return sql.And(sql.IsNull(name), following(s, rest, place[1:]))
	}
	return sql.Or(beyond, sql.IsNull(name), sql.And(sql.EQ(name, place[0]), following(s, rest, place[1:])))
}

// ascending orders by columns, each from the smallest value on.
func ascending(names ...string) (order []*sql.OrderFieldTerm) {
	for _, name := range names {
		order = append(order, sql.OrderByField(name))
	}
	return order
}

// newestFirst orders by columns, each from the greatest value on.
func newestFirst(names ...string) (order []*sql.OrderFieldTerm) {
	for _, name := range names {
		order = append(order, sql.OrderByField(name, sql.OrderDesc()))
	}
	return order
}
