package registry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
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
		return p.start.Add(utc.Day)
	}
	return p.start.Add(utc.Quarter)
}

// comparePeriods is an order of all periods.
func comparePeriods(a, b period) int {
	return cmp.Or(bytes.Compare(a.model[:], b.model[:]), bytes.Compare(a.key[:], b.key[:]),
		bytes.Compare(a.price[:], b.price[:]), cmp.Compare(b.grain, a.grain), a.start.Compare(b.start))
}

func sortedPeriods(all map[period]sums) []period {
	sorted := slices.AppendSeq(make([]period, 0, len(all)), maps.Keys(all))
	slices.SortFunc(sorted, comparePeriods)
	return sorted
}

// sums are what the requests of a period amount to.
type sums struct {
	requests, errors, unpriced int64
	tokens                     [5]int64  // in the order of tokenColumns
	cost                       money.USD // of the requests that are not unpriced
	latency                    int64     // milliseconds
	histogram                  latency.Histogram
}

// merge adds other sums, or returns errOverflow.
func (s *sums) merge(o sums) error {
	if err := s.histogram.Merge(o.histogram); err != nil {
		return fmt.Errorf("%w: %w", fault.ErrOverflow, err)
	}
	return s.mergeNumbers(&o)
}

// mergeNumbers adds everything but the histogram.
func (s *sums) mergeNumbers(o *sums) error {
	fits := true
	add := func(to *int64, n int64) {
		*to += n
		fits = fits && *to >= 0 && *to <= fault.MaxAmount // two amounts overflow to a negative number
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
		return fault.ErrOverflow
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

// lockModels locks models by advisory locks, in the order of the locks' numbers.
func lockModels(ctx context.Context, tx *ent.Client, models []uuid.UUID) error {
	_, err := tx.ExecContext(ctx, lockModelsSQL("$1"), modelLocks(models))
	return err
}

func lockModelsSQL(numbers string) string {
	return "SELECT count(pg_advisory_xact_lock(number)) FROM unnest(CAST(" + numbers + " AS bigint[])) AS number"
}

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
		return fault.ErrOverflow
	case err != nil:
		return fmt.Errorf("%w: latency_histogram: %w", ErrCorrupt, err)
	}
	return s.mergeNumbers(&c.sums)
}

// chunkSizes are how many periods of each of ledgerTables a statement reads.
type chunkSizes [len(ledgerTables)]int

var readPeriodsSQL = map[string]func(chunkSizes) string{
	dialect.SQLite:   bulk.Statements(func(n chunkSizes) string { return readPeriodsText(n, nil) }),
	dialect.Postgres: bulk.Statements(func(n chunkSizes) string { return readPeriodsText(n, periodTypes) }),
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
				strings.Join(sumColumns, ", t."), bulk.PlaceholdersFrom(first, rows, columns...), t.name, strings.Join(on, " AND ")))
		}
		first += rows * len(columns)
	}
	return strings.Join(selects, " UNION ALL ")
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
	h := horizons{utc.Beginning, utc.Beginning}
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
