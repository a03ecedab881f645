package ledger

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/ent/consumerday"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvalue"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Requests to different models add to the same day of a consumer, and no lock of a model keeps others from it. So the
// database itself adds to it.

// Amount returns the sums that budgets count, cut to their range.
func (s *Sums) Amount() budget.Amount {
	all := budget.Amount{Requests: s.Requests, Cost: s.Cost, Unpriced: s.Unpriced}
	for _, n := range s.Tokens {
		all = all.Plus(budget.Amount{Tokens: n})
	}
	return all
}

// Amounts are the columns of budget.Amount, in the order of its Numbers.
var Amounts = []string{
	consumerday.FieldRequests, consumerday.FieldTokens, consumerday.FieldCost, consumerday.FieldUnpricedRequests,
}

// AddingSQL is the end of an insert into a table that adds the columns of Amounts to the row that has the key, if there
// is one. It cuts them to their range.
func AddingSQL(table string, key ...string) string {
	sums := make([]string, len(Amounts))
	for i, c := range Amounts {
		sums[i] = fmt.Sprintf("%[1]s = CASE WHEN %[2]s.%[1]s > %[3]d - excluded.%[1]s THEN %[3]d"+
			" ELSE %[2]s.%[1]s + excluded.%[1]s END", c, table, int64(fault.MaxAmount))
	}
	return " ON CONFLICT (" + strings.Join(key, ", ") + ") DO UPDATE SET " + strings.Join(sums, ", ")
}

// TakenColumns returns what is summed up of a row of usage: amounts in halves of 32 bits, see joined.
func TakenColumns(requests, cost, unpriced, table string) string {
	const high, low = "(%s >> 32)", "(%s & 4294967295)"
	sum := func(half string) string {
		terms := make([]string, len(TokenColumns))
		for i, column := range TokenColumns {
			terms[i] = fmt.Sprintf(half, table+"."+column)
		}
		return strings.Join(terms, " + ")
	}
	cost = "COALESCE(" + cost + ", 0)"
	return strings.Join([]string{
		requests + " AS requests", sum(high) + " AS tokens_high", sum(low) + " AS tokens_low",
		fmt.Sprintf(high, cost) + " AS cost_high", fmt.Sprintf(low, cost) + " AS cost_low", unpriced + " AS unpriced",
	}, ", ")
}

// AmountColumns returns the same of a row that has the columns of Amounts.
func AmountColumns(table string) string {
	return strings.ReplaceAll("t.requests AS requests, t.tokens >> 32 AS tokens_high,"+
		" t.tokens & 4294967295 AS tokens_low, t.cost >> 32 AS cost_high, t.cost & 4294967295 AS cost_low,"+
		" t.unpriced_requests AS unpriced", "t.", table+".")
}

// TakenSums sums up the columns of TakenColumns, or of AmountColumns, of s.
const TakenSums = "sum(s.requests), sum(s.tokens_high), sum(s.tokens_low), sum(s.cost_high), sum(s.cost_low)," +
	" sum(s.unpriced)"

// TakenCells is what TakenSums are scanned into.
type TakenCells struct {
	all          budget.Amount
	tokens, cost [2]int64
}

// Addresses follow the addresses of the columns before them.
func (c *TakenCells) Addresses(before ...any) []any {
	return append(before, &c.all.Requests, &c.tokens[0], &c.tokens[1], &c.cost[0], &c.cost[1], &c.all.Unpriced)
}

// Read returns the amount that was scanned last.
func (c *TakenCells) Read() budget.Amount {
	c.all.Tokens, c.all.Cost = joined(c.tokens), money.USD(joined(c.cost))
	return c.all
}

// joined returns the sum of amounts, of their halves of 32 bits: the sum of whole ones may be more than an integer of
// the database takes.
func joined(halves [2]int64) int64 {
	high, low := halves[0]+halves[1]>>32, halves[1]&math.MaxUint32
	if high > math.MaxInt32 {
		return fault.MaxAmount
	}
	return min(high<<32+low, fault.MaxAmount)
}

var (
	dayKey  = []string{consumerday.FieldConsumerID, consumerday.FieldDay}
	addDays = bulk.NewInsert(consumerday.Table, slices.Concat([]string{consumerday.FieldID}, dayKey, Amounts),
		AddingSQL(consumerday.Table, dayKey...))
	// clearDays locks rows, whatever is in them.
	clearDays = bulk.NewInsert(consumerday.Table, slices.Concat([]string{consumerday.FieldID}, dayKey),
		" ON CONFLICT ("+strings.Join(dayKey, ", ")+") DO UPDATE SET "+strings.Join(Amounts, " = 0, ")+" = 0")
	setDays  = bulk.NewUpdate(consumerday.Table, dayKey, Amounts...)
	dropDays = bulk.NewDelete(consumerday.Table, dayKey, "t.consumer_id = %s AND t.day = %s")
)

// dayRows returns the rows of days of consumers, for addDays.
func dayRows(days []Period, sums map[Period]Sums) (rows [][]any) {
	for _, p := range days {
		s := sums[p]
		rows = append(rows, AppendAmount([]any{consumerday.DefaultID(), p.Key, p.Start}, s.Amount()))
	}
	return rows
}

// AppendAmount appends the values of Amounts.
func AppendAmount(row []any, a budget.Amount) []any {
	for _, n := range a.Numbers() {
		row = append(row, n)
	}
	return row
}

// RecountDays sums up the days of consumers anew from usage_by_value. It ignores values that are not consumers.
func RecountDays(ctx context.Context, tx bulk.Querier, engine string, of map[Period]bool) error {
	byDay, locked := map[time.Time][]uuid.UUID{}, [][]any{}
	for p := range of {
		byDay[p.Start] = append(byDay[p.Start], p.Key)
	}
	var days []Period
	for day, values := range byDay {
		var consumers []uuid.UUID
		err := bulk.ScanIn(ctx, tx, "SELECT id FROM "+consumer.Table+" WHERE id IN %s", values,
			func(scan func(...any) error) error {
				var id uuid.UUID
				err := scan(&id)
				consumers, days = append(consumers, id), append(days, ConsumerDay(id, day))
				return err
			})
		if err != nil {
			return err
		}
		byDay[day] = consumers
	}
	// All in one order. When the rows are locked, one statement sees all that others have added.
	slices.SortFunc(days, ComparePeriods)
	for _, p := range days {
		locked = append(locked, []any{consumerday.DefaultID(), p.Key, p.Start})
	}
	if err := clearDays.Run(ctx, tx, engine, locked); err != nil {
		return err
	}
	took := map[Period]budget.Amount{}
	for day, consumers := range byDay {
		if err := readTaken(ctx, tx, consumers, day, took); err != nil {
			return err
		}
	}
	var set, drop [][]any
	for _, p := range days {
		if a, ok := took[p]; ok {
			set = append(set, append(AppendAmount(nil, a), p.Key, p.Start))
		} else {
			drop = append(drop, []any{p.Key, p.Start})
		}
	}
	if err := setDays.Run(ctx, tx, engine, set); err != nil {
		return err
	}
	return dropDays.Run(ctx, tx, engine, drop)
}

var takenOnDay = "SELECT s.value_id, " + TakenSums + " FROM (SELECT t.value_id, " +
	TakenColumns("t.request_count", "t.total_cost", "t.unpriced_count", "t") + " FROM " + usagebyvalue.Table +
	" AS t WHERE t.value_id IN %s AND t.period_start = $%d) AS s GROUP BY s.value_id"

// readTaken reads what consumers took on a day, at all models and prices.
func readTaken(
	ctx context.Context, tx bulk.Querier, consumers []uuid.UUID, day time.Time, into map[Period]budget.Amount,
) error {
	var id uuid.UUID
	var cells TakenCells
	addresses := cells.Addresses(&id)
	return bulk.ScanIn(ctx, tx, takenOnDay, consumers, func(scan func(...any) error) error {
		err := scan(addresses...)
		into[ConsumerDay(id, day)] = cells.Read()
		return err
	}, day)
}

// DayRow is a row of consumer_days as it stands.
type DayRow struct {
	budget.Amount

	Unreadable error
}

const daysSQL = "SELECT t.consumer_id, t.day, t.requests, t.tokens, t.cost, t.unpriced_requests" +
	" FROM consumers AS c CROSS JOIN consumer_days AS t WHERE t.consumer_id = c.id AND t.day >= $1 AND t.day < $2"

// ReadDays returns the rows of a day, also those that do not begin with it. SQLite reads the left side of a CROSS JOIN
// first.
func ReadDays(ctx context.Context, tx bulk.Querier, day time.Time) (map[Period]DayRow, error) {
	rows := map[Period]DayRow{}
	return rows, bulk.Scan(ctx, tx, daysSQL, []any{day, day.Add(utc.Day)}, func(scan func(...any) error) error {
		var id uuid.UUID
		var begin time.Time
		var row DayRow
		row.Unreadable = scan(&id, &begin, &row.Requests, &row.Tokens, (*int64)(&row.Cost), &row.Unpriced)
		if begin.IsZero() {
			return row.Unreadable
		}
		rows[ConsumerDay(id, utc.Of(begin))] = row
		return nil
	})
}

// FirstDay returns the first day from an instant on that a consumer has a row of, or nil.
func FirstDay(ctx context.Context, tx bulk.Querier, from time.Time) (first *time.Time, err error) {
	const query = "SELECT (SELECT t.day FROM consumer_days AS t WHERE t.consumer_id = c.id AND t.day >= $1" +
		" ORDER BY t.day LIMIT 1) FROM consumers AS c"
	err = bulk.Scan(ctx, tx, query, []any{from}, func(scan func(...any) error) error {
		var at *time.Time
		if err := scan(&at); err != nil || at == nil {
			return err
		}
		if day := utc.Of(*at); first == nil || day.Before(*first) {
			first = &day
		}
		return nil
	})
	return first, err
}
