package dimension

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	entdimension "github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/dimensionvalue"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Memory is what a process remembers of dimensions and values, as of a version of the policy. Nobody changes what is
// remembered. That something is not there is not remembered.
type Memory struct {
	mu      sync.Mutex
	version int64
	all     []*Dimension // nil: nothing is remembered
	values  map[place]Value
	tags    *tagMemory
}

const readSQL = "SELECT d.id, d.name, d.kind, d.parts, d.max_values, d.grain, d.since, d.open_from, d.retired_at," +
	" v.id, v.kind FROM dimensions AS d LEFT JOIN dimension_values AS v ON v.dimension_id = d.id" +
	" AND v.kind <> 'value' ORDER BY d.id"

// Read reads all dimensions.
func Read(ctx context.Context, tx bulk.Querier) (*Book, error) {
	b := newBook(nil, new(tagMemory))
	err := bulk.Scan(ctx, tx, readSQL, nil, func(scan func(...any) error) error {
		d := new(Dimension)
		var kind, grain string
		var parts []byte
		var value *uuid.UUID
		var of *string
		err := scan(&d.ID, &d.Name, &kind, &parts, &d.Max, &grain, &d.Since, &d.OpenFrom, &d.Retired, &value, &of)
		if err != nil {
			return err
		}
		if n := len(b.All); n > 0 && b.All[n-1].ID == d.ID {
			d = b.All[n-1]
		} else {
			b.All = append(b.All, d)
		}
		d.Kind, d.DaysOnly = entdimension.Kind(kind), grain == string(entdimension.GrainDay)
		d.Since, d.OpenFrom = utc.Of(d.Since), utc.Of(d.OpenFrom)
		switch {
		case value == nil:
		case *of == string(dimensionvalue.KindOther):
			d.Other = *value
		default:
			d.Unassigned = *value
		}
		if len(parts) == 0 {
			return nil
		}
		if err := json.Unmarshal(parts, &d.Parts); err != nil {
			return fmt.Errorf("%w: parts of dimension %s: %w", fault.ErrCorrupt, d.ID, err)
		}
		return nil
	})
	slices.SortStableFunc(b.All, func(x, y *Dimension) int { return min(len(x.Parts), 1) - min(len(y.Parts), 1) })
	return b, err
}

// FoldedTo returns the last event of a model that is folded.
func FoldedTo(ctx context.Context, tx bulk.Querier, model uuid.UUID) (to uuid.UUID, err error) {
	const statement = "SELECT " + ledger.FoldedTo + " FROM " + ledger.ModelsFolded + " WHERE m.id = $1"
	err = bulk.Scan(ctx, tx, statement, []any{model}, func(scan func(...any) error) error { return scan(&to) })
	return to, err
}

// maxValues is how many values are remembered; with more, all are forgotten.
const maxValues = 200_000

// Open returns a book as of a version, which it reads unless it is remembered.
func (m *Memory) Open(ctx context.Context, tx bulk.Querier, version int64) (*Book, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all != nil && m.version == version {
		return newBook(m.all, m.tags), nil
	}
	b, err := Read(ctx, tx)
	if err == nil && (m.all == nil || m.version < version) {
		m.version, m.all, m.values, m.tags = version, append([]*Dimension{}, b.All...), map[place]Value{}, b.tags
	}
	return b, err
}

// recall looks names up in what is remembered, and returns those that are not there.
func (m *Memory) recall(b *Book, names map[place]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range names {
		if v, ok := m.values[p]; ok {
			b.values[p] = v
			delete(names, p)
		}
	}
}

// keep remembers values that were read.
func (m *Memory) keep(b *Book, read []place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.values) > maxValues {
		m.values = map[place]Value{}
	}
	for _, p := range read {
		if v := b.values[p]; v.ID != uuid.Nil && m.values != nil {
			m.values[p] = v
		}
	}
}

// Learn finds the values of events: among those that m remembers, unless it is nil, and in the database. It passes over
// events that are damaged.
func (b *Book) Learn(ctx context.Context, tx bulk.Querier, m *Memory, events []ledger.Event) error {
	return b.learn(ctx, tx, m, events, nil)
}

// learn has add, unless it is nil, see the names that are not there: first those of parts, then those of composites,
// whose names depend on them.
func (b *Book) learn(
	ctx context.Context, tx bulk.Querier, m *Memory, events []ledger.Event, add func(absent []place) error,
) error {
	if len(b.All) == 0 {
		return nil
	}
	rounds := 1
	if slices.ContainsFunc(b.All, func(d *Dimension) bool { return d.Kind == entdimension.KindComposite }) {
		rounds = 2
	}
	for range rounds {
		names, asked := map[place]bool{}, map[uuid.UUID]bool{}
		for i := range events {
			_, err := b.Of(&events[i], func(d *Dimension, name string) {
				if d.Kind != entdimension.KindComposite || b.knowsParts(d, asked) {
					names[place{d.ID, name}], asked[d.ID] = true, true
				}
			})
			if err != nil && add != nil {
				return err
			}
		}
		if len(names) == 0 {
			return nil
		}
		if m != nil {
			m.recall(b, names)
		}
		absent, err := b.read(ctx, tx, m, names)
		if err == nil && add != nil {
			err = add(absent)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// knowsParts reports whether no value of a composite's parts is being looked up.
func (b *Book) knowsParts(d *Dimension, asked map[uuid.UUID]bool) bool {
	return !slices.ContainsFunc(d.Parts, func(part string) bool {
		of := b.Named(part)
		return of != nil && asked[of.ID]
	})
}

// read reads values by their names. It returns the names that are not there.
func (b *Book) read(ctx context.Context, tx bulk.Querier, m *Memory, names map[place]bool) (absent []place, err error) {
	sorted := slices.SortedFunc(maps.Keys(names), comparePlaces)
	for _, d := range b.All {
		var texts []string
		for _, p := range sorted {
			if p.dimension == d.ID {
				texts = append(texts, p.name)
			}
		}
		const query = "SELECT name, id, since FROM dimension_values WHERE name IN %s AND dimension_id = $%d" +
			" AND kind = 'value'"
		err := bulk.ScanIn(ctx, tx, query, texts, func(scan func(...any) error) error {
			var name string
			var v Value
			err := scan(&name, &v.ID, &v.Since)
			b.values[place{d.ID, name}] = v
			return err
		}, d.ID)
		if err != nil {
			return nil, err
		}
	}
	if m != nil {
		m.keep(b, sorted)
	}
	for _, p := range sorted {
		if _, ok := b.values[p]; !ok {
			b.values[p] = Value{}
			absent = append(absent, p)
		}
	}
	return absent, nil
}

func comparePlaces(a, b place) int {
	return cmp.Or(bytes.Compare(a.dimension[:], b.dimension[:]), strings.Compare(a.name, b.name))
}

// insertValues leaves alone what another transaction has inserted.
var insertValues = bulk.NewInsert(dimensionvalue.Table, []string{
	dimensionvalue.FieldID, dimensionvalue.FieldDimensionID, dimensionvalue.FieldName, dimensionvalue.FieldSince,
}, " ON CONFLICT (dimension_id, kind, name) DO NOTHING")

// Intern finds the values of events, and adds those that are not there, as long as their dimensions have room.
func (b *Book) Intern(ctx context.Context, tx *ent.Client, engine string, m *Memory, events []ledger.Event) error {
	return b.learn(ctx, tx, m, events, func(absent []place) error { return b.add(ctx, tx, engine, absent) })
}

// add adds values as long as there is room. On PostgreSQL it locks their dimensions: whoever counts values sees all.
func (b *Book) add(ctx context.Context, tx *ent.Client, engine string, absent []place) error {
	if len(absent) == 0 {
		return nil
	}
	names, dims := map[place]bool{}, map[uuid.UUID]bool{}
	for _, p := range absent {
		names[p], dims[p.dimension] = true, true
	}
	if engine == dialect.Postgres {
		if err := ledger.LockModels(ctx, tx, slices.Collect(maps.Keys(dims))); err != nil {
			return err
		}
		for _, p := range absent {
			delete(b.values, p)
		}
		var err error
		if absent, err = b.read(ctx, tx, nil, names); err != nil {
			return err
		}
	}
	var rows [][]any
	for _, d := range b.All {
		if !dims[d.ID] {
			continue
		}
		room, err := d.room(ctx, tx)
		if err != nil {
			return err
		}
		for _, p := range absent {
			if p.dimension != d.ID || room <= 0 {
				continue
			}
			v := Value{dimensionvalue.DefaultID(), d.OpenFrom}
			room--
			b.values[p] = v
			rows = append(rows, []any{v.ID, d.ID, p.name, v.Since})
		}
	}
	return insertValues.Run(ctx, tx, engine, rows)
}

// room returns how many more values a dimension may have. Each consumer has been given one.
func (d *Dimension) room(ctx context.Context, tx bulk.Querier) (n int, err error) {
	if d.Kind == entdimension.KindConsumer {
		return 0, nil
	}
	err = bulk.Scan(ctx, tx, "SELECT count(*) FROM dimension_values WHERE dimension_id = $1 AND kind = 'value'",
		[]any{d.ID}, func(scan func(...any) error) error { return scan(&n) })
	return d.Max - n, err
}

// less compares ids of events, whose order is that of time.
func less(a, b uuid.UUID) bool { return bytes.Compare(a[:], b[:]) < 0 }
