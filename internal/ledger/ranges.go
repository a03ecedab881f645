package ledger

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Part is a span of time that is read from periods of one grain.
type Part struct {
	grain    Grain
	from, to time.Time
}

// Parts divides a range of whole quarters into parts. Whole days are read as days; a day that an end of the range or
// one of the ascending cuts divides is read as quarters. No request is in two parts.
func Parts(start, end time.Time, cuts []time.Time) (all []Part) {
	add := func(length Grain, from, to time.Time) {
		last := len(all) - 1
		switch {
		case !from.Before(to):
		case last >= 0 && all[last].grain == length && all[last].to.Equal(from):
			all[last].to = to
		default:
			all = append(all, Part{length, from, to})
		}
	}
	at := start
	for _, cut := range append([]time.Time{start}, append(cuts, end)...) {
		from, to := cut.Truncate(utc.Day), utc.Ceil(cut, utc.Day)
		if from.Equal(to) || to.Before(at) || from.After(end) { // a day begins there
			continue
		}
		if from.After(at) {
			add(DayGrain, at, from)
			at = from
		}
		add(QuarterGrain, at, utc.Min(to, end))
		at = utc.Max(at, utc.Min(to, end))
	}
	add(DayGrain, at, end)
	return all
}

// Query selects the periods to read: by key and price; the totals of models; or by the values of a dimension. A zero id
// is no condition. Models are always joined, because the indexes begin with a model, a key or a value.
type Query struct {
	Totals                       bool
	Dimension                    uuid.UUID
	Model, Provider, Family, Key uuid.UUID
}

// condition is what a column must be.
type condition struct {
	column string
	id     uuid.UUID
}

// models are the conditions of the models, which are m.
func (q Query) models() (all []condition) {
	for _, c := range []condition{{"m.id =", q.Model}, {"m.provider_id =", q.Provider}, {"m.family_id =", q.Family}} {
		if c.id != uuid.Nil {
			all = append(all, c)
		}
	}
	return all
}

// Row is a row as read.
type Row struct {
	*Cells
	Grain      Grain
	Start      time.Time
	Model, Key string // ids; in a dimension, Key is the value's
}

// maxParts is how many parts a statement reads: SQLite has a limit of 500.
const maxParts = 100

// Each calls each for the periods in parts. It reads them in one statement, and so in one state, unless there are more
// than maxParts.
func Each(
	ctx context.Context, tx bulk.Querier, engine string, q Query, all []Part, each func(Row) error,
) error {
	for some := range slices.Chunk(all, maxParts) {
		query, args := q.statement(engine, some)
		var seconds int64
		row := Row{}
		row.Cells = NewCells(&row.Grain, &seconds, &row.Model, &row.Key)
		err := bulk.Scan(ctx, tx, query, args, func(scan func(...any) error) error {
			if err := scan(row.Addresses...); err != nil {
				return err
			}
			row.Start = time.Unix(seconds, 0).UTC()
			return each(row)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// statement reads the parts' periods. Seconds are cheaper to read than times.
func (q Query) statement(engine string, parts []Part) (string, []any) {
	seconds, key := "CAST(EXTRACT(EPOCH FROM t.period_start) AS bigint)", "''"
	if engine == dialect.SQLite {
		seconds = "unixepoch(t.period_start)"
	}
	byValue := q.Dimension != uuid.Nil
	switch {
	case byValue:
		key = "CAST(t.value_id AS text)"
	case !q.Totals:
		key = "CAST(t.api_key_id AS text)"
	}
	var (
		args    []any
		selects []string
	)
	where := func(condition string, value any) string {
		args = append(args, value)
		return fmt.Sprintf(" AND %s $%d", condition, len(args))
	}
	for _, p := range parts {
		i := slices.IndexFunc(Tables[:], func(t *Table) bool {
			return t.Grain == p.grain && t.Totals == q.Totals && t.ByValue == byValue
		})
		// SQLite reads the left side of a CROSS JOIN first: the few models, the key, or the values.
		table := Tables[i].Name
		from := "models AS m CROSS JOIN " + table + " AS t"
		conditions := ""
		if q.Key != uuid.Nil {
			from = table + " AS t CROSS JOIN models AS m"
			conditions += where("t.api_key_id =", q.Key)
		}
		if byValue {
			from = "dimension_values AS v CROSS JOIN " + table + " AS t CROSS JOIN models AS m"
			conditions += " AND t.value_id = v.id" + where("v.dimension_id =", q.Dimension)
		}
		for _, c := range q.models() {
			conditions += where(c.column, c.id)
		}
		conditions += where("t.period_start >=", p.from) + where("t.period_start <", p.to)
		selects = append(selects, fmt.Sprintf(
			"SELECT '%s', %s, CAST(t.model_id AS text), %s, t.%s FROM %s WHERE t.model_id = m.id%s",
			p.grain, seconds, key, strings.Join(SumColumns, ", t."), from, conditions))
	}
	return strings.Join(selects, " UNION ALL "), args
}
