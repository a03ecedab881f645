package registry

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

// part is a stretch of time whose usage is read from periods of one grain.
type part struct {
	grain    grain
	from, to time.Time
}

// parts divides a range of whole quarters into whole days, and quarters where days are cut: by the ends of the
// range and at the given instants, which ascend. No request is in two of them.
func parts(start, end time.Time, cuts []time.Time) (all []part) {
	add := func(length grain, from, to time.Time) {
		last := len(all) - 1
		switch {
		case !from.Before(to):
		case last >= 0 && all[last].grain == length && all[last].to.Equal(from):
			all[last].to = to
		default:
			all = append(all, part{length, from, to})
		}
	}
	at := start
	for _, cut := range append([]time.Time{start}, append(cuts, end)...) {
		from, to := cut.Truncate(utc.Day), utc.Ceil(cut, utc.Day)
		if from.Equal(to) || to.Before(at) || from.After(end) { // a day begins there
			continue
		}
		if from.After(at) {
			add(grainDay, at, from)
			at = from
		}
		add(grainQuarter, at, utc.Min(to, end))
		at = utc.Max(at, utc.Min(to, end))
	}
	add(grainDay, at, end)
	return all
}

// periodQuery says whose periods are read, and whether by key and price or the models' totals. What is zero is no
// condition; models are always named, since the indexes begin with them or with a key.
type periodQuery struct {
	totals                       bool
	model, provider, family, key uuid.UUID
}

// periodRow is a row that is read.
type periodRow struct {
	*sumCells
	grain      grain
	start      time.Time
	model, key string // ids
}

// maxParts is how many parts a statement reads: SQLite has a limit of 500.
const maxParts = 100

// eachPeriod calls each for the periods in parts. It reads them in one statement, and so in one state, unless there
// are very many parts.
func (r *Registry) eachPeriod(ctx context.Context, q periodQuery, all []part, each func(periodRow) error) error {
	for some := range slices.Chunk(all, maxParts) {
		query, args := q.statement(r.db.Dialect(), some)
		var seconds int64
		row := periodRow{}
		row.sumCells = newSumCells(&row.grain, &seconds, &row.model, &row.key)
		err := bulk.Scan(ctx, r.client, query, args, func(scan func(...any) error) error {
			if err := scan(row.addresses...); err != nil {
				return err
			}
			row.start = time.Unix(seconds, 0).UTC()
			return each(row)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// table returns the index of the table of a grain.
func (q periodQuery) table(of grain) int {
	p := period{grain: of}
	if !q.totals {
		p.key[0] = 1 // of any
	}
	return p.table()
}

// statement reads the parts' periods. Seconds are cheaper to read than times.
func (q periodQuery) statement(engine string, parts []part) (string, []any) {
	seconds, key := "CAST(EXTRACT(EPOCH FROM t.period_start) AS bigint)", "''"
	if engine == dialect.SQLite {
		seconds = "unixepoch(t.period_start)"
	}
	if !q.totals {
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
		// Of a CROSS JOIN, SQLite reads the left side first: the few models, or the key.
		table := ledgerTables[q.table(p.grain)].name
		from := "models AS m CROSS JOIN " + table + " AS t"
		conditions := ""
		if q.key != uuid.Nil {
			from = table + " AS t CROSS JOIN models AS m"
			conditions += where("t.api_key_id =", q.key)
		}
		for _, c := range []struct {
			column string
			id     uuid.UUID
		}{{"m.id =", q.model}, {"m.provider_id =", q.provider}, {"m.family_id =", q.family}} {
			if c.id != uuid.Nil {
				conditions += where(c.column, c.id)
			}
		}
		conditions += where("t.period_start >=", p.from) + where("t.period_start <", p.to)
		selects = append(selects, fmt.Sprintf("SELECT '%s', %s, CAST(t.model_id AS text), %s, t.%s FROM %s WHERE t.model_id = m.id%s",
			p.grain, seconds, key, strings.Join(sumColumns, ", t."), from, conditions))
	}
	return strings.Join(selects, " UNION ALL "), args
}
