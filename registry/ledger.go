package registry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// The ledger's periods are read, changed here and written as a whole: histograms cannot be added in SQL, and
// a digest is of all columns. What keeps others from changing them meanwhile is lockLedger.

// grain is the length of a period. Each has its own tables, and the digests of their rows begin with it.
type grain string

const (
	grainQuarter grain = "quarter" // of an hour
	grainDay     grain = "day"     // of UTC
)

// period names a row of usage_quarters or usage_tracking; or, without key and price, one of their totals.
type period struct {
	model, key, price uuid.UUID
	grain             grain
	start             time.Time
}

func (p period) isTotal() bool { return p.key == uuid.Nil }

// table returns the index of the period's table among ledgerTables.
func (p period) table() (i int) {
	if p.grain == grainDay {
		i++
	}
	if p.isTotal() {
		i += 2
	}
	return i
}

// total returns the period of the model that this one is summed in.
func (p period) total() period { return period{model: p.model, grain: p.grain, start: p.start} }

func (p period) end() time.Time {
	if p.grain == grainDay {
		return p.start.Add(day)
	}
	return p.start.Add(quarter)
}

// comparePeriods is an order of all periods.
func comparePeriods(a, b period) int {
	return cmp.Or(bytes.Compare(a.model[:], b.model[:]), bytes.Compare(a.key[:], b.key[:]),
		bytes.Compare(a.price[:], b.price[:]), cmp.Compare(b.grain, a.grain), a.start.Compare(b.start))
}

// maxAmount is the largest sum that a column takes.
const maxAmount = 9_000_000_000_000_000_000

// sums are what the requests of a period amount to.
type sums struct {
	requests, errors, unpriced int64
	tokens                     [5]int64  // in the order of tokenColumns
	cost                       money.USD // of the requests that are not unpriced
	latency                    int64     // milliseconds
	histogram                  latency.Histogram
}

var errOverflow = fmt.Errorf("%w: a sum of usage does not fit", ErrInvalidData)

// merge adds other sums, or returns errOverflow.
func (s *sums) merge(o sums) error {
	if err := s.histogram.Merge(o.histogram); err != nil {
		return fmt.Errorf("%w: %w", errOverflow, err)
	}
	return s.mergeNumbers(&o)
}

// mergeNumbers adds everything but the histogram.
func (s *sums) mergeNumbers(o *sums) error {
	fits := true
	add := func(to *int64, n int64) {
		*to += n
		fits = fits && *to >= 0 && *to <= maxAmount // two amounts overflow to a negative number
	}
	add(&s.requests, o.requests)
	add(&s.errors, o.errors)
	add(&s.unpriced, o.unpriced)
	add(&s.latency, o.latency)
	for i, n := range o.tokens {
		add(&s.tokens[i], n)
	}
	add((*int64)(&s.cost), int64(o.cost))
	if !fits {
		return errOverflow
	}
	return nil
}

// knownCost returns the cost, or nil when no request has a known one.
func (s *sums) knownCost() *money.USD {
	if s.unpriced == s.requests {
		return nil
	}
	return &s.cost
}

// averageLatency is in milliseconds.
func (s *sums) averageLatency() float64 {
	if s.requests == 0 {
		return 0
	}
	return float64(s.latency) / float64(s.requests)
}

func (s *sums) meters() meter.Tokens {
	return meter.Tokens{
		InputTokens: s.tokens[0], OutputTokens: s.tokens[1], CacheReadTokens: s.tokens[2],
		CacheWriteTokens: s.tokens[3], ReasoningTokens: s.tokens[4],
	}
}

// inColumns returns tokens in the order of tokenColumns.
func inColumns(t meter.Tokens) [5]int64 {
	return [5]int64{t.InputTokens, t.OutputTokens, t.CacheReadTokens, t.CacheWriteTokens, t.ReasoningTokens}
}

var tokenColumns = []string{
	usage.FieldInputTokens, usage.FieldOutputTokens, usage.FieldCacheReadTokens,
	usage.FieldCacheWriteTokens, usage.FieldReasoningTokens,
}

// digestOf is the first 64 bits of a SHA-256 over everything that a row says but its id. It is to find
// damage, which integrity checks of the database pass over when the damaged value is a possible one.
func digestOf(p period, s *sums, histogram []byte) int64 {
	var stack [512]byte
	b := stack[:0]
	for _, id := range []uuid.UUID{p.model, p.key, p.price} {
		b = append(b, id[:]...)
	}
	b = append(b, p.grain...)
	known := int64(1)
	if s.knownCost() == nil {
		known = 0
	}
	for _, n := range []int64{
		p.start.UnixMicro(), p.end().UnixMicro(), s.requests, s.errors, s.unpriced,
		s.tokens[0], s.tokens[1], s.tokens[2], s.tokens[3], s.tokens[4], known, int64(s.cost), s.latency,
	} {
		b = binary.BigEndian.AppendUint64(b, uint64(n)) //nolint:gosec // the bits
	}
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(s.averageLatency()))
	sum := sha256.Sum256(append(b, histogram...))
	return int64(binary.BigEndian.Uint64(sum[:])) //nolint:gosec // the bits
}

// lockLedger keeps others from changing the periods of models, and keys, until the transaction ends; and from
// leasing keys of the providers. Models come first, by locks that nothing else takes, so that the catalogue may change
// meanwhile; then the rows of the keys and those of their groups: whoever takes several waits for nobody who waits for
// him. It reads into the basis those keys and pools that it does not know.
func (r *Registry) lockLedger(ctx context.Context, tx *ent.Client, b *basis, models []uuid.UUID, keys, providers map[uuid.UUID]bool) error {
	// Where there are locks to take, nothing is known before.
	some, pools := unknown(keys, b.keys), unknown(providers, b.pools)
	if len(some)+len(pools) > 0 {
		return r.readPool(ctx, tx, b, true, models, some, pools)
	}
	if r.db.Dialect() == dialect.SQLite || len(models) == 0 {
		return nil
	}
	return lockModels(ctx, tx, models)
}

// lockModels locks models by advisory locks, in the order of the locks' numbers.
func lockModels(ctx context.Context, tx *ent.Client, models []uuid.UUID) error {
	_, err := tx.ExecContext(ctx, lockModelsSQL, modelLocks(models))
	return err
}

const lockModelsSQL = "SELECT count(pg_advisory_xact_lock(number)) FROM unnest(CAST($1 AS bigint[])) AS number"

func modelLocks(models []uuid.UUID) []int64 {
	numbers := make([]int64, 0, len(models))
	for _, id := range models {
		numbers = append(numbers, int64(binary.BigEndian.Uint64(id[8:]))) //nolint:gosec // the bits
	}
	slices.Sort(numbers)
	return numbers
}

// sumColumns are the columns of sums in the order in which they are read.
var sumColumns = append([]string{usage.FieldRequestCount, usage.FieldErrorCount, usage.FieldUnpricedCount, usage.FieldTotalCost,
	usage.FieldLatencyMsSum, usage.FieldLatencyHistogram}, tokenColumns...)

// sumCells are what sumColumns are scanned into.
type sumCells struct {
	sums
	total     *int64
	encoded   []byte
	addresses []any
}

func newSumCells(before ...any) *sumCells {
	c := new(sumCells)
	c.addresses = append(before, &c.requests, &c.errors, &c.unpriced, &c.total, &c.latency, &c.encoded)
	for i := range c.tokens {
		c.addresses = append(c.addresses, &c.tokens[i])
	}
	return c
}

// read returns the sums that were scanned last.
func (c *sumCells) read() (s sums, err error) { return s, c.addTo(&s) }

// addTo adds the sums that were scanned last to others.
func (c *sumCells) addTo(s *sums) error {
	c.cost = money.USD(value(c.total))
	switch err := s.histogram.MergeBinary(c.encoded); {
	case errors.Is(err, latency.ErrRange):
		return errOverflow
	case err != nil:
		return fmt.Errorf("%w: latency_histogram: %w", ErrCorrupt, err)
	}
	return s.mergeNumbers(&c.sums)
}

// chunkSizes are how many periods of each of ledgerTables a statement reads.
type chunkSizes [len(ledgerTables)]int

var readPeriodsSQL = map[string]func(chunkSizes) string{
	dialect.SQLite:   statements(func(n chunkSizes) string { return readPeriodsText(n, nil) }),
	dialect.Postgres: statements(func(n chunkSizes) string { return readPeriodsText(n, periodTypes) }),
}

// periodTypes are what PostgreSQL has to be told of the columns that name a period.
var periodTypes = map[string]string{
	usage.FieldModelID: "uuid", usage.FieldAPIKeyID: "uuid", usage.FieldPriceID: "uuid",
	usage.FieldPeriodStart: "timestamptz",
}

func readPeriodsText(n chunkSizes, types map[string]string) string {
	var selects []string
	first := 1
	for i, rows := range n {
		t := ledgerTables[i]
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
			selects = append(selects, fmt.Sprintf("SELECT v.column1, t.%s FROM (VALUES %s) AS v CROSS JOIN %s AS t WHERE %s",
				strings.Join(sumColumns, ", t."), placeholdersFrom(first, rows, columns...), t.name, strings.Join(on, " AND ")))
		}
		first += rows * len(columns)
	}
	return strings.Join(selects, " UNION ALL ")
}

// writePeriods writes periods, in their order, as they are to be, over what is there.
func writePeriods(ctx context.Context, tx execer, sorted []period, periods map[period]sums) error {
	for i, t := range ledgerTables {
		err := chunks(among(i, sorted), func(some []period) error {
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
func updatePeriods(ctx context.Context, tx execer, engine string, sorted []period, periods map[period]sums) error {
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
		if err := t.update.run(ctx, tx, engine, rows[i]); err != nil {
			return err
		}
	}
	return nil
}

// updateBoth writes quarters, and as many days, in one statement each: PostgreSQL takes as many round trips as for one
// table. What is left is in rows. The rows were read in this transaction, under the locks of their models.
func updateBoth(ctx context.Context, tx execer, quarters int, rows *[len(ledgerTables)][][]any) error {
	if _, collects := tx.(*together); collects { // everything goes to the server at once
		return nil
	}
	for {
		n := chunkSize(min(len(rows[quarters]), len(rows[quarters+1])))
		if n == 0 {
			return nil
		}
		var both together
		for i := quarters; i <= quarters+1; i++ {
			if err := ledgerTables[i].update.run(ctx, &both, dialect.Postgres, rows[i][:n]); err != nil {
				return err
			}
			rows[i] = rows[i][n:]
		}
		if err := both.flush(ctx, tx); err != nil {
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
	update  rowUpdate
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
	t.write = statements(func(n int) string {
		var sets []string
		for _, column := range t.columns[len(by)+3:] {
			sets = append(sets, column+" = excluded."+column)
		}
		return fmt.Sprintf("INSERT INTO %s (%s) VALUES %s ON CONFLICT (%s) DO UPDATE SET %s", name, strings.Join(t.columns, ", "),
			placeholders(n, slices.Repeat([]string{"$%d"}, len(t.columns))...), strings.Join(t.key, ", "), strings.Join(sets, ", "))
	})
	var key, sums []column
	for _, name := range t.key {
		key = append(key, column{name: name, postgres: periodTypes[name]})
	}
	for _, name := range t.columns[len(t.columns)-len(sumColumns)-2:] {
		sums = append(sums, column{name: name, postgres: cmp.Or(map[string]string{
			usage.FieldAverageLatencyMs: "double precision", usage.FieldLatencyHistogram: "bytea",
		}[name], "bigint")})
	}
	t.update = newRowUpdate(name, key, sums...)
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

// horizons say from when on the parts of the ledger are complete; what lies before is being removed.
type horizons struct{ events, quarters time.Time }

// The parts that have a horizon.
const (
	eventsPart   = "events"
	quartersPart = "quarters"
)

func readHorizons(ctx context.Context, client *ent.Client) (horizons, error) {
	rows, err := client.UsageHorizon.Query().All(ctx)
	h := horizons{beginning, beginning}
	for _, row := range rows {
		switch row.ID {
		case eventsPart:
			h.events = row.CompleteFrom
		case quartersPart:
			h.quarters = row.CompleteFrom
		}
	}
	return h, err
}
