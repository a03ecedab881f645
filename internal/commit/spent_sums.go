package commit

import (
	"context"
	"fmt"
	"strings"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvalue"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvaluequarter"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// sources says from when on what consumers have spent is known.
type sources struct {
	ledger.Horizons

	since time.Time // usage is summed by consumer
}

func readSources(ctx context.Context, tx *ent.Client) (s sources, err error) {
	if s.Horizons, err = ledger.ReadHorizons(ctx, tx); err != nil {
		return s, err
	}
	row, err := tx.Dimension.Get(ctx, dimension.ConsumerID)
	if ent.IsNotFound(err) {
		return s, fmt.Errorf("%w: there is no dimension of consumers", fault.ErrCorrupt)
	}
	if err == nil {
		s.since = utc.Of(row.Since)
	}
	return s, err
}

// stretch is a part of a window, in which what was spent is known.
type stretch struct {
	from, until time.Time
	events      bool      // it is read from events alone
	first       time.Time // where the first period begins that is read: nothing in it was before from
	quarters    time.Time // from when on there are quarters of an hour
}

// stretch returns the part of a window that begins at or after an instant and is known.
func (s sources) stretch(w budget.Window, from, until time.Time) stretch {
	switch {
	case w.Per == budget.Minute: // shorter than a period
		return stretch{from: utc.Max(from, s.Events), until: until, events: true}
	case !from.After(s.since):
		return stretch{from: s.since, until: until, first: s.Widen(s.since, utc.Floor), quarters: s.Quarters}
	}
	from = s.Widen(from, utc.Ceil)
	return stretch{from: from, until: until, first: from, quarters: s.Quarters}
}

// spent is what a consumer spent, on a model or on all.
type spent struct {
	consumer uuid.UUID
	of       namedModel // zero: all
	took     budget.Amount
}

// The parts of a query about a subtree, whose paths are between $1 and $2. SQLite reads the left side of a CROSS JOIN
// first.
var (
	spentOfPeriods = "SELECT c.id AS consumer, t.model_id AS model, " +
		ledger.TakenColumns("t.request_count", "t.total_cost", "t.unpriced_count", "t") +
		" FROM consumers AS c CROSS JOIN %s AS t WHERE t.value_id = c.id" + inPaths + "%s" +
		" AND t.period_start >= $%%d AND t.period_start < $%%d"
	spentOfDays = "SELECT c.id AS consumer, CAST(NULL AS uuid) AS model, " + ledger.AmountColumns("t") +
		" FROM consumers AS c CROSS JOIN consumer_days AS t WHERE t.consumer_id = c.id" + inPaths +
		" AND t.day >= $%d AND t.day < $%d"
	subtracted = "SELECT consumer, model, -requests, -tokens_high, -tokens_low, -cost_high, -cost_low, -unpriced" +
		" FROM (%s) AS q"
	spentOfEvents = "SELECT e.consumer_id AS consumer, e.model_id AS model, " +
		ledger.TakenColumns("1", "e.cost", "CASE WHEN e.cost IS NULL THEN 1 ELSE 0 END", "e") + " FROM "
	spentOfAll  = spentOfEvents + "usage_events AS e WHERE true" + ofSubtree + between
	spentOfTail = map[string]string{
		dialect.SQLite:   spentOfEvents + ledger.Tail(dialect.SQLite, ofSubtree+between),
		dialect.Postgres: spentOfEvents + ledger.Tail(dialect.Postgres, ofSubtree+between),
	}
)

// withoutJIT keeps PostgreSQL from compiling the statements of a transaction: that can take ten seconds if one of them
// sums up a month.
const withoutJIT = "SELECT set_config('jit', 'off', true)"

const (
	inPaths         = " AND c.path >= $1 AND c.path < $2"
	ofModels        = " AND t.price_id IN (SELECT p.id FROM prices AS p WHERE p.model_id IN (%s))"
	between         = " AND e.id >= $%d AND e.id < $%d"
	ofSubtree       = " AND e.consumer_id IN (SELECT c.id FROM consumers AS c WHERE c.path >= $1 AND c.path < $2)"
	spentSums       = ", " + ledger.TakenSums + " FROM (%s) AS s"
	spentByConsumer = "SELECT s.consumer, NULL, ''" + spentSums + " GROUP BY s.consumer"
	spentByModel    = "SELECT s.consumer, m.provider_id, m.model_id" + spentSums +
		" JOIN models AS m ON m.id = s.model GROUP BY s.consumer, m.provider_id, m.model_id"
)

// maxListed is how many models a query names; for more, it reads all.
const maxListed = 1000

// query returns the query for what a subtree spent in a stretch, by consumer. If models are named, it is for these,
// and perhaps some others, and tells them apart, which takes longer. It is one statement, so that it finds each request
// either in the sums by consumer or among the events that are not folded.
func (s stretch) query(engine, path string, models []uuid.UUID) (string, []any) {
	sums := spentByConsumer
	if models != nil {
		sums = spentByModel
	}
	args := []any{path, path + "0"} // "0" is after "/"
	var parts []string
	add := func(part string, from, until any) {
		args = append(args, from, until)
		parts = append(parts, fmt.Sprintf(part, len(args)-1, len(args)))
	}
	begin, end := ledger.FirstEventID(s.from), ledger.FirstEventID(s.until)
	if s.events {
		add(spentOfAll, begin, end)
		return fmt.Sprintf(sums, parts[0]), args
	}
	listed := ""
	if len(models) > 0 && len(models) <= maxListed {
		numbers := make([]string, len(models))
		for i, id := range models {
			args = append(args, id)
			numbers[i] = fmt.Sprint("$", len(args))
		}
		listed = fmt.Sprintf(ofModels, strings.Join(numbers, ", "))
	}
	days, quarters := spentOfDays, fmt.Sprintf(spentOfPeriods, usagebyvaluequarter.Table, listed)
	if models != nil {
		days = fmt.Sprintf(spentOfPeriods, usagebyvalue.Table, listed)
	}
	s.periods(func(of part, from, until time.Time) {
		if from.Before(until) {
			add([]string{days, quarters, fmt.Sprintf(subtracted, quarters)}[of], from, until)
		}
	})
	add(spentOfTail[engine], begin, end)
	return fmt.Sprintf(sums, strings.Join(parts, " UNION ALL ")), args
}

// part is what a stretch is put together from.
type part int

const (
	wholeDays part = iota
	quartersOfHours
	lessQuarters // they are subtracted
)

// periods calls add for the periods of a stretch: whole days; and, of a part of a day, its quarters of an hour, or the
// whole day without the other ones, if these are fewer.
func (s stretch) periods(add func(of part, from, until time.Time)) {
	ofDay := func(from, until time.Time) {
		day := utc.StartOfDay(from)
		next := day.Add(utc.Day)
		switch fewer := until.Sub(from) <= utc.Day/2; {
		case !from.Before(until):
			return
		case from.After(day) && day.Before(s.quarters), fewer && !from.Before(s.quarters):
			add(quartersOfHours, from, until)
			return
		}
		add(wholeDays, day, next)
		add(lessQuarters, day, from)
		add(lessQuarters, until, next)
	}
	first, last := utc.Ceil(s.first, utc.Day), utc.Floor(s.until, utc.Day)
	if last.Before(first) {
		ofDay(s.first, s.until)
		return
	}
	ofDay(s.first, first)
	add(wholeDays, first, last)
	ofDay(last, s.until)
}

// modelsOf returns the models that count for a budget with a filter, and nil for one without.
func (b *batch) modelsOf(ctx context.Context, row *ent.Budget) (models []uuid.UUID, err error) {
	if row.ProviderID == nil && row.Models == nil {
		return nil, nil
	}
	of := budget.Budget{Models: row.Models}
	if row.ProviderID != nil {
		of.Provider = *row.ProviderID
	}
	models = []uuid.UUID{}
	const query = "SELECT id, provider_id, model_id FROM models ORDER BY id"
	err = bulk.Scan(ctx, b.tx, query, nil, func(scan func(...any) error) error {
		var id, provider uuid.UUID
		var name string
		err := scan(&id, &provider, &name)
		if of.Covers(provider, name) {
			models = append(models, id)
		}
		return err
	})
	return models, err
}

// readStretch returns what a subtree spent in a stretch, by consumer; and by model, if models are named: see query.
func (b *batch) readStretch(ctx context.Context, s stretch, path string, models []uuid.UUID) (all []spent, err error) {
	if !s.from.Before(s.until) || models != nil && len(models) == 0 {
		return nil, nil
	}
	if b.engine == dialect.Postgres {
		err := bulk.Scan(ctx, b.tx, withoutJIT, nil, func(scan func(...any) error) error { return scan(new(string)) })
		if err != nil {
			return nil, err
		}
	}
	query, args := s.query(b.engine, path, models)
	err = bulk.Scan(ctx, b.tx, query, args, func(scan func(...any) error) error {
		var one spent
		var cells ledger.TakenCells
		err := scan(cells.Addresses(&one.consumer, &one.of.provider, &one.of.name)...)
		if one.took = cells.Read(); one.took != (budget.Amount{}) { // all else was in quarters that are subtracted
			all = append(all, one)
		}
		return err
	})
	return all, err
}

// counting returns a batch that only counts what was spent.
func (m *Committer) counting(tx *ent.Client, now time.Time) *batch {
	return &batch{env: &m.env, snapshot: newSnapshot(m.Strategy, now), tx: tx, inTx: true}
}

func (b *batch) pathOf(ctx context.Context, consumer uuid.UUID) (string, error) {
	if err := b.findOwners(ctx, b.tx, map[uuid.UUID]bool{consumer: true}, nil); err != nil {
		return "", err
	}
	if b.owners[consumer] == nil {
		return "", fault.Missing("consumer", consumer)
	}
	return b.owners[consumer].Path, nil
}

// spendAgain counts, for one budget, what a subtree has spent from an instant on, in the present window and in later
// ones. It returns the instant from which on that is complete.
func (b *batch) spendAgain(ctx context.Context, row *ent.Budget, path string, from time.Time) (time.Time, error) {
	known, err := readSources(ctx, b.tx)
	if err != nil {
		return time.Time{}, err
	}
	window, err := WindowOf(row)
	if err != nil {
		return time.Time{}, err
	}
	begin, end := window.Of(b.now)
	first := known.stretch(window, utc.Max(begin, from), end)
	for s := first; ; {
		if err := b.spendStretch(ctx, row, path, s); err != nil {
			return first.from, err
		}
		var later *uuid.UUID
		const next = "SELECT id FROM usage_events WHERE id >= $1 ORDER BY id LIMIT 1"
		err := bulk.Scan(ctx, b.tx, next, []any{ledger.FirstEventID(s.until)}, func(scan func(...any) error) error {
			return scan(&later)
		})
		if err != nil || later == nil {
			return first.from, err
		}
		begin, end := window.Of(ledger.EventTime(*later)) // of a clock that is ahead
		s = known.stretch(window, begin, end)
	}
}

// spendStretch counts, for one budget, what a subtree has spent in a part of one of its windows.
func (b *batch) spendStretch(ctx context.Context, row *ent.Budget, path string, s stretch) error {
	models, err := b.modelsOf(ctx, row)
	if err != nil {
		return err
	}
	all, err := b.readStretch(ctx, s, path, models)
	if err != nil {
		return err
	}
	consumers := map[uuid.UUID]bool{}
	for _, one := range all {
		consumers[one.consumer] = true
	}
	if err := b.findOwners(ctx, b.tx, consumers, nil); err != nil {
		return err
	}
	for _, one := range all {
		chain, err := b.chainOf(&one.consumer)
		if err != nil {
			return err
		}
		b.spend(chain, one.of, s.from, one.took, func(bud *budget.Budget) bool { return bud.ID == row.ID })
	}
	return nil
}
