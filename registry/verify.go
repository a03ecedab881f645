package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// DifferenceKind says what is wrong at a place in the ledger.
type DifferenceKind string

// The kinds of differences.
const (
	MissingRow      DifferenceKind = "missing row"       // what is below it amounts to a row that is not there
	SurplusRow      DifferenceKind = "surplus row"       // nothing is below it
	WrongSum        DifferenceKind = "wrong sum"         // a column is not the sum of what is below it, or does not follow from the others
	WrongCost       DifferenceKind = "wrong cost"        // it is not the tokens at the rates of the price
	WrongDigest     DifferenceKind = "wrong digest"      // it is not that of what the row says: one of both was damaged
	WrongEvent      DifferenceKind = "wrong event"       // it refers to what is not there, or its time is not that of its id
	WrongKeyCounter DifferenceKind = "wrong key counter" // it is not the key's days and what IncrementUsage counted
	UnreadableRow   DifferenceKind = "unreadable row"    // a column holds no value of its type
)

// Difference is where the ledger is not what it must be. What does not apply is zero.
type Difference struct {
	Kind        DifferenceKind
	Table       string    // of periods, usage_quarters or usage_tracking (UTC days), or their totals; else usage_events or api_keys
	EventID     uuid.UUID // of one in usage_events
	ModelID     uuid.UUID
	APIKeyID    uuid.UUID
	PriceID     uuid.UUID
	PeriodStart time.Time
	Field       string // the column; empty: the row
	Want, Have  string // histograms in hex, their first 64 bytes

	Model               string // the provider's name for it, also of a deleted one; empty without ModelID
	KeyLabel, KeyPrefix string // of the key, deleted or not; empty likewise
}

// MaxDifferences is how many differences are listed.
const MaxDifferences = 10_000

// differences are a list that does not grow for ever.
type differences struct {
	list []Difference
	more int64
}

func (d *differences) add(all ...Difference) {
	n := min(len(all), MaxDifferences-len(d.list))
	d.list = append(d.list, all[:n]...)
	d.more += int64(len(all) - n)
}

// LedgerReport is what VerifyLedger has seen.
type LedgerReport struct {
	Events, Quarters, Days, Keys int64 // that were looked at

	EventsFrom   time.Time // from then on no event is missing; what is before was not looked at
	QuartersFrom time.Time // likewise for the quarters of an hour

	Differences []Difference // up to MaxDifferences, by day
	Unlisted    int64        // differences beyond those
}

// VerifyLedger proves the ledger, as far back as its parts are complete: that each quarter of an hour is the
// sum of its events, each day that of its quarters, and each total of a model that of its keys and prices, in
// every column; that events cost their tokens at the rates of their price to the nano-dollar, and periods
// without events within half a nano-dollar a request; that each row's digest is that of what the row says; and
// that the counters of keys are their days and what IncrementUsage counted. What was recorded before digests and
// histograms were kept has none.
//
// Others may record meanwhile: each UTC day is read in one state, and so are the counters. Within a
// transaction on PostgreSQL, others wait until its end to record for models that seem to have a difference. In memory,
// others wait while a day is read. A million events take some ten seconds.
//
// A difference is no error: it is in the report, whose rows RepairLedger can mend.
func (r *Registry) VerifyLedger(ctx context.Context) (LedgerReport, error) {
	var report LedgerReport
	var found differences
	err := newLedgerReader(r).each(ctx, func(d *ledgerDay) error {
		report.Events += d.numEvents
		report.Quarters += d.numQuarters
		report.Days += d.numDays
		report.EventsFrom, report.QuartersFrom = d.Events, d.Quarters
		found.add(d.found...)
		d.judge(func(p ledger.Period, v verdict) {
			mendable, left := d.compare(p, v)
			found.add(mendable...)
			found.add(left...)
		})
		return nil
	})
	if err == nil {
		err = keyCounters(ctx, r.fresh, nil, func(c keyCounter) error {
			report.Keys++
			found.add(c.differences()...)
			return nil
		})
	}
	if err == nil && report.EventsFrom.IsZero() { // there was no day
		var h ledger.Horizons
		h, err = ledger.ReadHorizons(ctx, r.fresh)
		report.EventsFrom, report.QuartersFrom = h.Events, h.Quarters
	}
	if err == nil {
		err = r.nameDifferences(ctx, found.list)
	}
	if err != nil {
		return LedgerReport{}, translate(ctx, "verify ledger", err)
	}
	report.Differences, report.Unlisted = found.list, found.more
	return report, nil
}

// ledgerReader reads the ledger day by day. What it knows of prices, models and keys does not change.
type ledgerReader struct {
	r      *Registry
	prices map[uuid.UUID]*ent.Price
	models map[uuid.UUID]uuid.UUID // providers by model
	keys   map[uuid.UUID]uuid.UUID // providers by key
}

func newLedgerReader(r *Registry) *ledgerReader {
	return &ledgerReader{r: r, prices: map[uuid.UUID]*ent.Price{}, models: map[uuid.UUID]uuid.UUID{}, keys: map[uuid.UUID]uuid.UUID{}}
}

// each visits all UTC days of the ledger in their order, each in one state.
func (l *ledgerReader) each(ctx context.Context, visit func(*ledgerDay) error) error {
	start, ok, err := l.next(ctx, time.Time{})
	for ok && err == nil {
		var d *ledgerDay
		if d, err = l.day(ctx, start); err != nil {
			return err
		}
		if err = visit(d); err != nil {
			return err
		}
		if start = start.Add(utc.Day); d.empty() { // else the next day is likely to have something
			start, ok, err = l.next(ctx, start)
		}
	}
	return err
}

// next returns the first UTC day from an instant on that has something.
func (l *ledgerReader) next(ctx context.Context, from time.Time) (first time.Time, ok bool, err error) {
	client := l.r.fresh
	h, err := ledger.ReadHorizons(ctx, client)
	if err != nil {
		return first, false, err
	}
	note := func(t time.Time) {
		if !ok || t.Before(first) {
			first, ok = t, true
		}
	}
	for _, t := range ledger.Tables {
		err := bulk.Scan(ctx, client, firstPeriodsSQL(t), []any{h.CompleteFrom(t, from)}, func(scan func(...any) error) error {
			var at *time.Time
			if err := scan(&at); err != nil || at == nil {
				return err
			}
			note(*at)
			return nil
		})
		if err != nil {
			return first, false, err
		}
	}
	if h.Events.After(from) {
		from = h.Events
	}
	err = bulk.Scan(ctx, client, "SELECT id FROM usage_events WHERE id > $1 ORDER BY id LIMIT 1", []any{ledger.FirstEventID(from)},
		func(scan func(...any) error) error {
			var id uuid.UUID
			if err := scan(&id); err != nil {
				return err
			}
			note(ledger.EventTime(id))
			return nil
		})
	return utc.StartOfDay(first), ok, err
}

// firstPeriodsSQL returns the first period of each model from an instant on, NULL for none.
func firstPeriodsSQL(t *ledger.Table) string {
	return "SELECT (SELECT t.period_start FROM " + t.Name + " AS t WHERE t.model_id = m.id AND t.period_start >= $1" +
		" ORDER BY t.period_start LIMIT 1) FROM models AS m"
}

// day reads a UTC day in one state.
func (l *ledgerReader) day(ctx context.Context, start time.Time) (*ledgerDay, error) {
	if l.r.inTx {
		return l.lockedDay(ctx, l.r.client, start)
	}
	return settled(ctx, l.r.fresh, func() (d *ledgerDay, err error) {
		return d, l.r.db.Retry(ctx, func() error {
			s, err := l.r.db.Snapshot(ctx)
			if err != nil {
				return err
			}
			d, err = l.load(ctx, ent.NewClient(ent.Driver(s)), start)
			return errors.Join(err, s.Close())
		})
	})
}

// settled loads a day until no horizon was moved meanwhile. What is removed lies before a horizon that was
// moved earlier, and on PostgreSQL a partition is taken away from under a snapshot.
func settled(ctx context.Context, client *ent.Client, load func() (*ledgerDay, error)) (*ledgerDay, error) {
	for {
		d, err := load()
		if err != nil {
			return nil, err
		}
		h, err := ledger.ReadHorizons(ctx, client)
		if err != nil || h.Events.Equal(d.Events) && h.Quarters.Equal(d.Quarters) {
			return d, err
		}
	}
}

// lockedDay reads a UTC day in a transaction of the caller's, and locks all models: on PostgreSQL others may record
// between two of its statements. A model with differences that was created meanwhile is locked too, and the day is
// read again.
func (l *ledgerReader) lockedDay(ctx context.Context, tx *ent.Client, start time.Time) (*ledgerDay, error) {
	locked := map[uuid.UUID]bool{}
	var models []uuid.UUID
	if l.r.db.Dialect() == dialect.Postgres {
		var err error
		if models, err = tx.Model.Query().IDs(ctx); err != nil {
			return nil, err
		}
	}
	for {
		if l.r.db.Dialect() == dialect.Postgres {
			if err := ledger.LockModels(ctx, tx, models); err != nil {
				return nil, err
			}
		}
		for _, id := range models {
			locked[id] = true
		}
		d, err := settled(ctx, tx, func() (*ledgerDay, error) { return l.load(ctx, tx, start) })
		if err != nil || l.r.db.Dialect() == dialect.SQLite {
			return d, err
		}
		models = slices.DeleteFunc(d.faulty(), func(id uuid.UUID) bool { return locked[id] })
		if len(models) == 0 {
			return d, nil
		}
	}
}

// keyCounter is what a key counts, and what its days amount to.
type keyCounter struct {
	id         uuid.UUID
	have, want [2]int64 // usage_count and token_count
	fits       bool     // want
	days       [4]int64 // requests in billions and those beyond, tokens likewise: the sums of damaged rows need not fit
	extra      [2]int64
}

const billion = 1_000_000_000

// keyCountersSQL reads the counters of all keys, deleted ones too, or of those in a list.
func keyCountersSQL(where string) string {
	const tokens = "(u.input_tokens%[1]s + u.output_tokens%[1]s + u.cache_read_tokens%[1]s + u.cache_write_tokens%[1]s + u.reasoning_tokens%[1]s)"
	sum := func(column, operator string) string {
		column = strings.ReplaceAll(column, "%[1]s", fmt.Sprintf(" %s %d", operator, billion))
		return "CAST(COALESCE(SUM(" + column + "), 0) AS bigint)"
	}
	return "SELECT k.id, k.usage_count, k.token_count, k.extra_requests, k.extra_tokens, " + strings.Join([]string{
		sum("u.request_count%[1]s", "/"), sum("u.request_count%[1]s", "%"), sum(tokens, "/"), sum(tokens, "%"),
	}, ", ") + " FROM api_keys AS k LEFT JOIN usage_tracking AS u ON u.api_key_id = k.id" +
		where + " GROUP BY k.id"
}

// keyCounters calls each for the counters of all keys, which one statement reads in one state; or of some.
func keyCounters(ctx context.Context, client *ent.Client, some []uuid.UUID, each func(keyCounter) error) error {
	where, args := "", []any(nil)
	if some != nil {
		where, args = bulk.In(some)
		where = " WHERE k.id IN " + where
	}
	return bulk.Scan(ctx, client, keyCountersSQL(where), args, func(scan func(...any) error) error {
		var c keyCounter
		if err := scan(&c.id, &c.have[0], &c.have[1], &c.extra[0], &c.extra[1], &c.days[0], &c.days[1], &c.days[2], &c.days[3]); err != nil {
			return err
		}
		c.fits = true
		for i := range c.want {
			billions, rest := c.days[2*i]+c.days[2*i+1]/billion, c.days[2*i+1]%billion
			c.want[i] = billions*billion + rest + c.extra[i]
			c.fits = c.fits && billions < fault.MaxAmount/billion && c.want[i] <= fault.MaxAmount
		}
		return each(c)
	})
}

func (c keyCounter) differences() (all []Difference) {
	for i, field := range []string{apikey.FieldUsageCount, apikey.FieldTokenCount} {
		if c.fits && c.have[i] == c.want[i] {
			continue
		}
		want := strconv.FormatInt(c.want[i], 10)
		if !c.fits {
			want = fault.ErrOverflow.Error()
		}
		all = append(all, Difference{
			Kind: WrongKeyCounter, Table: apikey.Table, APIKeyID: c.id, Field: field, Want: want, Have: strconv.FormatInt(c.have[i], 10),
		})
	}
	return all
}
