package ledger

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"entgo.io/ent/dialect"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvalue"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvaluequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// readText returns a query for the sums of periods whose numbers and keys are v. SQLite reads the left side of a CROSS
// JOIN first.
func (t *Table) readText(v string, column func(i int) string) string {
	on := make([]string, len(t.key))
	for i, name := range t.key {
		on[i] = "t." + name + " = v." + column(i+1)
	}
	return "SELECT v." + column(0) + ", t." + strings.Join(SumColumns, ", t.") + " FROM " + v +
		" CROSS JOIN " + t.Name + " AS t WHERE " + strings.Join(on, " AND ")
}

// readChunk reads some periods of a table from SQLite, where the columns of VALUES are column1 and so on.
func (t *Table) readChunk(n int) string {
	row := slices.Repeat([]string{"$%d"}, 1+len(t.key))
	return t.readText("(VALUES "+bulk.Placeholders(n, row...)+") AS v",
		func(i int) string { return fmt.Sprintf("column%d", i+1) })
}

// readPostgres reads any number of periods of some tables in one round trip.
func readPostgres(tables []*Table) string {
	var selects []string
	first := 1
	for _, t := range tables {
		columns := append([]string{bulk.Number}, t.key...)
		v := bulk.Unnest(first, t.Name, columns)
		selects = append(selects, t.readText(v, func(i int) string { return columns[i] }))
		first += len(columns)
	}
	return strings.Join(selects, " UNION ALL ")
}

// byKey and byValue are the tables that are read together: most batches add to no value.
var byKey, byValue = tableGroup{0, readPostgres(Tables[:4])}, tableGroup{4, readPostgres(Tables[4:])}

type tableGroup struct {
	first int // its first table
	read  string
}

// Read adds the stored periods to a map. It does not read periods that are in the map already.
func Read(ctx context.Context, tx bulk.Querier, engine string, periods []Period, into map[Period]Sums) error {
	unread := slices.DeleteFunc(slices.Clone(periods), func(p Period) bool {
		_, known := into[p]
		return known
	})
	if len(unread) == 0 {
		return nil
	}
	number := -1
	rows := byTable(unread, func(p Period, row []any) []any {
		number++
		return p.appendKey(append(row, number))
	})
	cells := NewCells(&number)
	keep := func(scan func(...any) error) (err error) {
		if err := scan(cells.Addresses...); err != nil {
			return err
		}
		into[unread[number]], err = cells.Read()
		return err
	}
	if engine == dialect.Postgres {
		return cmp.Or(byKey.scan(ctx, tx, rows[:4], keep), byValue.scan(ctx, tx, rows[4:], keep))
	}
	for i, t := range Tables {
		err := bulk.Chunks(rows[i], func(some [][]any) error {
			return bulk.Scan(ctx, tx, t.read(len(some)), slices.Concat(some...), keep)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// scan reads the rows of the group's tables, if there are any.
func (g tableGroup) scan(
	ctx context.Context, tx bulk.Querier, rows [][][]any, keep func(scan func(...any) error) error,
) error {
	var all []any
	n := 0
	for i, some := range rows {
		args, err := bulk.Arrays(1+len(Tables[g.first+i].key), some)
		if err != nil {
			return err
		}
		all, n = append(all, args...), n+len(some)
	}
	if n == 0 {
		return nil
	}
	return bulk.Scan(ctx, tx, g.read, all, keep)
}

// AddTo adds sums to the stored ones, which it reads unless they are in stored, and leaves there. It writes by way of
// to. The days of consumers are added in the database.
func AddTo(
	ctx context.Context, tx bulk.Querier, to bulk.Execer, engine string, sums, stored map[Period]Sums,
) error {
	all := Sorted(sums)
	days := 0 // they come first
	for days < len(all) && all[days].Model == uuid.Nil {
		days++
	}
	added, changed, err := addUp(ctx, tx, engine, all[days:], sums, stored)
	if err == nil {
		err = Write(ctx, to, engine, added, stored)
	}
	if err == nil {
		err = Add(ctx, to, engine, changed, stored, sums)
	}
	if err == nil {
		err = addDays.Run(ctx, to, engine, dayRows(all[:days], sums))
	}
	return err
}

// addUp adds sums to the stored ones in memory. It returns the periods to insert and the periods to update.
func addUp(
	ctx context.Context, tx bulk.Querier, engine string, all []Period, sums, stored map[Period]Sums,
) (added, changed []Period, err error) {
	if err := Read(ctx, tx, engine, all, stored); err != nil {
		return nil, nil, err
	}
	for _, p := range all {
		total, known := stored[p] // zero: it is new
		if err := total.Merge(sums[p]); err != nil {
			return nil, nil, err
		}
		stored[p] = total
		if known {
			changed = append(changed, p)
		} else {
			added = append(added, p)
		}
	}
	return added, changed, nil
}

// Write inserts periods, in their order, or overwrites stored ones.
func Write(ctx context.Context, tx bulk.Execer, engine string, sorted []Period, periods map[Period]Sums) error {
	for i, rows := range byTable(sorted, func(p Period, row []any) []any {
		s := periods[p]
		row = append(row, usage.DefaultID())
		if !p.IsTotal() {
			row = append(row, p.Model)
		}
		return s.appendCells(append(p.appendKey(row), p.End()), p)
	}) {
		if err := Tables[i].insert.Run(ctx, tx, engine, rows); err != nil {
			return err
		}
	}
	return nil
}

// Add overwrites stored periods, in their order, with sums to which others were added. Where these say nothing of what
// requests say of themselves, what is stored of that stays: most requests say nothing.
func Add(
	ctx context.Context, tx bulk.Execer, engine string, sorted []Period, periods, added map[Period]Sums,
) error {
	silent := func(p Period) bool {
		s := added[p]
		return s.isSilent()
	}
	for _, quietly := range []bool{true, false} {
		some := slices.DeleteFunc(slices.Clone(sorted), func(p Period) bool { return silent(p) != quietly })
		rows := byTable(some, func(p Period, row []any) []any {
			s := periods[p]
			row = s.appendCells(row, p)
			if quietly {
				row = row[:len(row)-numSaid-1]
			}
			return p.appendKey(row)
		})
		for i, t := range Tables {
			update := t.update
			if quietly {
				update = t.updateSilent
			}
			if err := update.Run(ctx, tx, engine, rows[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Table is a table of periods.
type Table struct {
	Name    string
	Grain   Grain
	Totals  bool
	ByValue bool
	columns []string
	key     []string           // the columns that identify a row
	read    func(n int) string // n rows, on SQLite
	insert  bulk.Insert        // or overwrites it
	update  bulk.Update

	updateSilent bulk.Update // without the columns of Said
}

// Tables are in the order of Period.Table: quarters before their days.
var Tables = [...]*Table{
	newTable(usagequarter.Table, QuarterGrain, usage.FieldModelID, usage.FieldAPIKeyID, usage.FieldPriceID),
	newTable(usage.Table, DayGrain, usage.FieldModelID, usage.FieldAPIKeyID, usage.FieldPriceID),
	newTable(usagetotalquarter.Table, QuarterGrain, usagetotal.FieldModelID),
	newTable(usagetotal.Table, DayGrain, usagetotal.FieldModelID),
	newTable(usagebyvaluequarter.Table, QuarterGrain, usage.FieldModelID, usagebyvalue.FieldValueID,
		usage.FieldPriceID),
	newTable(usagebyvalue.Table, DayGrain, usage.FieldModelID, usagebyvalue.FieldValueID, usage.FieldPriceID),
}

func newTable(name string, of Grain, by ...string) *Table {
	t := &Table{Name: name, Grain: of, Totals: len(by) == 1, ByValue: slices.Contains(by, usagebyvalue.FieldValueID)}
	t.key = append(slices.Clone(by), usage.FieldPeriodStart)
	if !t.Totals {
		t.key = t.key[1:] // the price says which model
	}
	t.columns = slices.Concat([]string{usage.FieldID}, by, []string{
		usage.FieldPeriodStart, usage.FieldPeriodEnd, usage.FieldAverageLatencyMs, usage.FieldDigest,
	}, SumColumns)
	var sets []string
	for _, column := range t.columns[len(by)+3:] {
		sets = append(sets, column+" = excluded."+column)
	}
	t.insert = bulk.NewInsert(name, t.columns,
		" ON CONFLICT ("+strings.Join(t.key, ", ")+") DO UPDATE SET "+strings.Join(sets, ", "))
	t.read = bulk.Statements(t.readChunk)
	sums := t.columns[len(by)+3:]
	t.update = bulk.NewUpdate(name, t.key, sums...)
	t.updateSilent = bulk.NewUpdate(name, t.key, sums[:len(sums)-numSaid-1]...)
	return t
}

// byTable returns the rows of periods by table. Row appends the values of one.
func byTable(periods []Period, row func(Period, []any) []any) (rows [len(Tables)][][]any) {
	for _, p := range periods {
		i := p.Table()
		rows[i] = append(rows[i], row(p, make([]any, 0, len(Tables[i].columns))))
	}
	return rows
}

// appendKey appends the values of Table.key.
func (p Period) appendKey(args []any) []any {
	if p.IsTotal() {
		return append(args, p.Model, p.Start)
	}
	return append(args, p.Key, p.Price, p.Start)
}

// LockModels locks models by advisory locks, in the order of the locks' numbers.
func LockModels(ctx context.Context, tx *ent.Client, models []uuid.UUID) error {
	_, err := tx.ExecContext(ctx, LockModelsSQL("$1"), ModelLocks(models))
	return err
}

// LockModelsSQL returns a query that takes the locks whose numbers an SQL expression gives.
func LockModelsSQL(numbers string) string {
	return "SELECT count(pg_advisory_xact_lock(number)) FROM unnest(CAST(" + numbers + " AS bigint[])) AS number"
}

// ModelLocks returns the numbers of the locks of models, ascending.
func ModelLocks(models []uuid.UUID) []int64 {
	numbers := make([]int64, 0, len(models))
	for _, id := range models {
		numbers = append(numbers, int64(binary.BigEndian.Uint64(id[8:]))) //nolint:gosec // the bits
	}
	slices.Sort(numbers)
	return numbers
}

// ReadHorizons reads both horizons. A part without one is complete from the beginning.
func ReadHorizons(ctx context.Context, client *ent.Client) (Horizons, error) {
	rows, err := client.UsageHorizon.Query().All(ctx)
	h := Horizons{Events: utc.Beginning, Quarters: utc.Beginning}
	for _, row := range rows {
		switch row.ID {
		case EventsPart:
			h.Events = row.CompleteFrom
		case QuartersPart:
			h.Quarters = row.CompleteFrom
		}
	}
	return h, err
}
