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
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
)

// chunkSizes says how many periods of each of Tables a statement reads.
type chunkSizes [len(Tables)]int

var readSQL = map[string]func(chunkSizes) string{
	dialect.SQLite:   bulk.Statements(func(n chunkSizes) string { return readText(n, nil) }),
	dialect.Postgres: bulk.Statements(func(n chunkSizes) string { return readText(n, periodTypes) }),
}

// periodTypes are the types of the columns that name a period, which PostgreSQL has to be told.
var periodTypes = map[string]string{
	usage.FieldModelID: "uuid", usage.FieldAPIKeyID: "uuid", usage.FieldPriceID: "uuid",
	usage.FieldPeriodStart: "timestamptz",
}

func readText(n chunkSizes, types map[string]string) string {
	var selects []string
	first := 1
	for i, rows := range n {
		t := Tables[i]
		columns, on := []string{"$%d"}, make([]string, len(t.key))
		if types != nil {
			columns[0] = "CAST($%d AS bigint)"
		}
		for k, c := range t.key { // the columns of VALUES are column1 and so on in both dialects
			on[k] = fmt.Sprintf("t.%s = v.column%d", c, k+2)
			columns = append(columns, "$%d")
			if types != nil {
				columns[k+1] = "CAST($%d AS " + types[c] + ")"
			}
		}
		if rows > 0 { // SQLite reads the left side of a CROSS JOIN first
			selects = append(selects, fmt.Sprintf("SELECT v.column1, t.%s FROM (VALUES %s) AS v CROSS JOIN %s AS"+
				" t WHERE %s",
				strings.Join(SumColumns, ", t."), bulk.PlaceholdersFrom(first, rows, columns...), t.Name,
				strings.Join(on, " AND ")))
		}
		first += rows * len(columns)
	}
	return strings.Join(selects, " UNION ALL ")
}

// Read adds the stored periods to a map. It does not read periods that are in the map already. Each statement reads all
// tables.
func Read(ctx context.Context, tx bulk.Querier, engine string, periods []Period, into map[Period]Sums) error {
	var unread [len(Tables)][]Period
	for _, p := range periods {
		if _, known := into[p]; !known {
			unread[p.Table()] = append(unread[p.Table()], p)
		}
	}
	for {
		var n chunkSizes
		var some []Period
		for i, of := range unread {
			n[i] = bulk.ChunkSize(len(of))
			some = append(some, of[:n[i]]...)
			unread[i] = of[n[i]:]
		}
		if len(some) == 0 {
			return nil
		}
		args := make([]any, 0, 4*len(some))
		for i, p := range some {
			args = p.appendKey(append(args, i))
		}
		var i int
		cells := NewCells(&i)
		err := bulk.Scan(ctx, tx, readSQL[engine](n), args, func(scan func(...any) error) (err error) {
			if err := scan(cells.Addresses...); err != nil {
				return err
			}
			into[some[i]], err = cells.Read()
			return err
		})
		if err != nil {
			return err
		}
	}
}

// Write inserts periods, in their order, or overwrites stored ones.
func Write(ctx context.Context, tx bulk.Execer, sorted []Period, periods map[Period]Sums) error {
	for i, rows := range byTable(sorted, func(p Period, row []any) []any {
		s := periods[p]
		row = append(row, usage.DefaultID())
		if !p.IsTotal() {
			row = append(row, p.Model)
		}
		return s.appendCells(append(p.appendKey(row), p.End()), p)
	}) {
		if err := Tables[i].insert.Run(ctx, tx, rows); err != nil {
			return err
		}
	}
	return nil
}

// Update overwrites stored periods, in their order.
func Update(ctx context.Context, tx bulk.Execer, engine string, sorted []Period, periods map[Period]Sums) error {
	rows := byTable(sorted, func(p Period, row []any) []any {
		s := periods[p]
		return p.appendKey(s.appendCells(row, p))
	})
	for i, t := range Tables {
		if engine == dialect.Postgres && t.Grain == QuarterGrain {
			if err := updateBoth(ctx, tx, i, &rows); err != nil {
				return err
			}
		}
		if err := t.update.Run(ctx, tx, engine, rows[i]); err != nil {
			return err
		}
	}
	return nil
}

// updateBoth writes as many quarters as days in each statement, so that PostgreSQL takes half the round trips. It
// leaves the rest in rows. The rows were read in this transaction, under the locks of their models.
func updateBoth(ctx context.Context, tx bulk.Execer, quarters int, rows *[len(Tables)][][]any) error {
	if _, collects := tx.(*bulk.Together); collects { // everything goes to the server at once
		return nil
	}
	for {
		n := bulk.ChunkSize(min(len(rows[quarters]), len(rows[quarters+1])))
		if n == 0 {
			return nil
		}
		var both bulk.Together
		for i := quarters; i <= quarters+1; i++ {
			if err := Tables[i].update.Run(ctx, &both, dialect.Postgres, rows[i][:n]); err != nil {
				return err
			}
			rows[i] = rows[i][n:]
		}
		if err := both.Flush(ctx, tx); err != nil {
			return err
		}
	}
}

// Table is a table of periods.
type Table struct {
	Name    string
	Grain   Grain
	Totals  bool
	columns []string
	key     []string    // the columns that identify a row
	insert  bulk.Insert // or overwrites it
	update  bulk.Update
}

// Tables are in the order of Period.Table: quarters before their days.
var Tables = [...]*Table{
	newTable(usagequarter.Table, QuarterGrain, usage.FieldModelID, usage.FieldAPIKeyID, usage.FieldPriceID),
	newTable(usage.Table, DayGrain, usage.FieldModelID, usage.FieldAPIKeyID, usage.FieldPriceID),
	newTable(usagetotalquarter.Table, QuarterGrain, usagetotal.FieldModelID),
	newTable(usagetotal.Table, DayGrain, usagetotal.FieldModelID),
}

func newTable(name string, of Grain, by ...string) *Table {
	t := &Table{Name: name, Grain: of, Totals: len(by) == 1}
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
	t.insert = bulk.NewInsert(name, strings.Join(t.columns, ", "),
		" ON CONFLICT ("+strings.Join(t.key, ", ")+") DO UPDATE SET "+strings.Join(sets, ", "))
	var key, sums []bulk.Column
	for _, name := range t.key {
		key = append(key, bulk.Column{Name: name, Postgres: periodTypes[name]})
	}
	for _, name := range t.columns[len(t.columns)-len(SumColumns)-2:] {
		sums = append(sums, bulk.Column{Name: name, Postgres: cmp.Or(map[string]string{
			usage.FieldAverageLatencyMs: "double precision", usage.FieldLatencyHistogram: "bytea",
		}[name], "bigint")})
	}
	t.update = bulk.NewUpdate(name, key, sums...)
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
