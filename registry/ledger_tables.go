package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"entgo.io/ent/dialect"

	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
)

// writePeriods writes periods, in their order, as they are to be, over what is there.
func writePeriods(ctx context.Context, tx bulk.Execer, sorted []period, periods map[period]sums) error {
	for i, t := range ledgerTables {
		err := bulk.Chunks(among(i, sorted), func(some []period) error {
			args := make([]any, 0, len(some)*len(t.columns))
			for _, p := range some {
				s := periods[p]
				args = append(args, usage.DefaultID(), p.model)
				if !p.isTotal() {
					args = append(args, p.key, p.price)
				}
				args = append(args, p.start, p.end())
				args = s.appendCells(args, p)
			}
			_, err := tx.ExecContext(ctx, t.write(len(some)), args...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// updatePeriods writes periods, in their order, that are there.
func updatePeriods(ctx context.Context, tx bulk.Execer, engine string, sorted []period, periods map[period]sums) error {
	var rows [len(ledgerTables)][][]any
	for _, p := range sorted {
		s, i := periods[p], p.table()
		row := s.appendCells(make([]any, 0, len(ledgerTables[i].columns)), p)
		if p.isTotal() {
			row = append(row, p.model)
		} else {
			row = append(row, p.key, p.price)
		}
		rows[i] = append(rows[i], append(row, p.start))
	}
	for i, t := range ledgerTables {
		if engine == dialect.Postgres && t.grain == grainQuarter {
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

// updateBoth writes quarters, and as many days, in one statement each: PostgreSQL takes as many round trips as for one
// table. What is left is in rows. The rows were read in this transaction, under the locks of their models.
func updateBoth(ctx context.Context, tx bulk.Execer, quarters int, rows *[len(ledgerTables)][][]any) error {
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
			if err := ledgerTables[i].update.Run(ctx, &both, dialect.Postgres, rows[i][:n]); err != nil {
				return err
			}
			rows[i] = rows[i][n:]
		}
		if err := both.Flush(ctx, tx); err != nil {
			return err
		}
	}
}

// appendCells appends the average, the digest and sumColumns of the row of a period.
func (s *sums) appendCells(args []any, p period) []any {
	var cost any
	if known := s.knownCost(); known != nil {
		cost = int64(*known)
	}
	histogram := s.histogram.AppendBinary(nil)
	args = append(args, s.averageLatency(), digestOf(p, s, histogram), s.requests, s.errors, s.unpriced, cost, s.latency, histogram)
	for _, n := range s.tokens {
		args = append(args, n)
	}
	return args
}

// ledgerTable is a table of periods.
type ledgerTable struct {
	name    string
	grain   grain
	totals  bool
	columns []string
	key     []string // the columns that name a row
	write   func(n int) string
	update  bulk.Update
}

// ledgerTables are in the order of period.table: quarters before their days.
var ledgerTables = [...]*ledgerTable{
	newLedgerTable(usagequarter.Table, grainQuarter, usage.FieldModelID, usage.FieldAPIKeyID, usage.FieldPriceID),
	newLedgerTable(usage.Table, grainDay, usage.FieldModelID, usage.FieldAPIKeyID, usage.FieldPriceID),
	newLedgerTable(usagetotalquarter.Table, grainQuarter, usagetotal.FieldModelID),
	newLedgerTable(usagetotal.Table, grainDay, usagetotal.FieldModelID),
}

func newLedgerTable(name string, of grain, by ...string) *ledgerTable {
	t := &ledgerTable{name: name, grain: of, totals: len(by) == 1}
	t.key = append(slices.Clone(by), usage.FieldPeriodStart)
	if !t.totals {
		t.key = t.key[1:] // the price says which model
	}
	t.columns = slices.Concat([]string{usage.FieldID}, by, []string{
		usage.FieldPeriodStart, usage.FieldPeriodEnd, usage.FieldAverageLatencyMs, usage.FieldDigest,
	}, sumColumns)
	t.write = bulk.Statements(func(n int) string {
		var sets []string
		for _, column := range t.columns[len(by)+3:] {
			sets = append(sets, column+" = excluded."+column)
		}
		return fmt.Sprintf("INSERT INTO %s (%s) VALUES %s ON CONFLICT (%s) DO UPDATE SET %s", name, strings.Join(t.columns, ", "),
			bulk.Placeholders(n, slices.Repeat([]string{"$%d"}, len(t.columns))...), strings.Join(t.key, ", "), strings.Join(sets, ", "))
	})
	var key, sums []bulk.Column
	for _, name := range t.key {
		key = append(key, bulk.Column{Name: name, Postgres: periodTypes[name]})
	}
	for _, name := range t.columns[len(t.columns)-len(sumColumns)-2:] {
		sums = append(sums, bulk.Column{Name: name, Postgres: cmp.Or(map[string]string{
			usage.FieldAverageLatencyMs: "double precision", usage.FieldLatencyHistogram: "bytea",
		}[name], "bigint")})
	}
	t.update = bulk.NewUpdate(name, key, sums...)
	return t
}

// among returns those of the periods that are in the table of an index.
func among(table int, periods []period) []period {
	var some []period
	for _, p := range periods {
		if p.table() == table {
			some = append(some, p)
		}
	}
	return some
}
