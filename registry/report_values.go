package registry

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	entdimension "github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// valued returns the dimensions of consumers and tags that a report names.
func (in ReportInput) valued() (names []string) {
	for _, d := range in.By {
		switch d {
		case ByProvider, ByFamily, ByModel, ByKey:
		case BySubtree:
			names = append(names, dimension.Consumer)
		default:
			names = append(names, string(d))
		}
	}
	for d := range in.Values {
		names = append(names, string(d))
	}
	if in.ConsumerID != uuid.Nil {
		names = append(names, dimension.Consumer)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// valueReport is a report by consumers and tags that is being made. Its sums are by values, which stand for keys.
type valueReport struct {
	*report

	client  *ent.Client
	book    *dimension.Book
	of      *dimension.Dimension
	nobody  uuid.UUID // the value of requests without tags
	outputs map[uuid.UUID][]output
	// Before this instant, or in a part of the period before it, requests did not count in the dimension.
	complete time.Time
}

// output is a row of a report in which a value counts.
type output struct {
	consumer uuid.UUID
	tags     []string // that the report is grouped by
	texts    string   // the same, see dimension.NameOf
	n, i     int64    // a value has n tags, of which this is number i; n is 0 if its cost is another row's
}

func (r *Registry) reportByValue(ctx context.Context, in ReportInput, h ledger.Horizons) (rows []ReportRow, err error) {
	err = r.inOneState(ctx, func(client *ent.Client) error {
		p := &valueReport{client: client}
		if err := r.lockAllModels(ctx); err != nil {
			return err
		}
		if p.book, err = dimension.Read(ctx, client); err != nil {
			return err
		}
		if p.of, err = combining(p.book, in.valued()); err != nil {
			return err
		}
		if p.of.DaysOnly {
			h.Quarters = utc.End
		}
		if p.report, err = newReport(ctx, in, h, r.now()); err != nil {
			return err
		}
		p.most = maxValueSums
		if p.models, err = reportModels(ctx, client, in); err != nil {
			return err
		}
		if err := p.learnValues(ctx); err != nil {
			return err
		}
		if err := p.read(ctx, r.db.Dialect()); err != nil {
			return err
		}
		rows, err = p.expand(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rows, r.nameRows(ctx, rows)
}

// maxValueSums is how many sums by value a report adds up. Several may be one row.
const maxValueSums = 10 * MaxReportRows

// lockAllModels keeps others from recording and folding within a transaction on PostgreSQL, where statements see one
// state each.
func (r *Registry) lockAllModels(ctx context.Context) error {
	if !r.inTx || r.db.Dialect() != dialect.Postgres {
		return nil
	}
	models, err := r.client.Model.Query().IDs(ctx)
	if err != nil {
		return err
	}
	return ledger.LockModels(ctx, r.client, models)
}

// combining returns the dimension that has all of some dimensions: the one, or the composite with the fewest parts.
func combining(b *dimension.Book, names []string) (of *dimension.Dimension, err error) {
	for _, name := range names {
		if b.Named(name) == nil {
			if name == dimension.Consumer {
				return nil, fmt.Errorf("%w: there is no consumer", ErrInvalidData)
			}
			return nil, fmt.Errorf("%w: there is no dimension %.64q", ErrInvalidData, name)
		}
	}
	if len(names) == 1 {
		return b.Named(names[0]), nil
	}
	for _, d := range b.All {
		has := func(name string) bool { return slices.Contains(d.Parts, name) }
		if len(d.Parts) > 0 && !slices.ContainsFunc(names, func(name string) bool { return !has(name) }) &&
			(of == nil || len(d.Parts) < len(of.Parts)) {
			of = d
		}
	}
	if of == nil {
		return nil, fmt.Errorf("%w: no composite dimension combines %s: see CreateDimension", ErrInvalidData,
			strings.Join(names, " and "))
	}
	return of, nil
}

// read adds up the periods, and the requests that are not folded yet.
func (p *valueReport) read(ctx context.Context, engine string) error {
	p.complete = utc.Min(utc.Max(p.Widen(p.of.Since, utc.Ceil), p.start), p.end)
	if p.of.Retired != nil { // what is retired counts nothing any more
		p.complete = p.end
	}
	q := ledger.Query{Totals: true, Model: p.ModelID, Provider: p.ProviderID, Family: p.FamilyID}
	if p.start.Before(p.complete) {
		p.byKey = false
		err := ledger.Each(ctx, p.client, engine, q, ledger.Parts(p.start, p.complete, p.cuts), p.addUnassigned)
		if err != nil {
			return err
		}
	}
	q.Totals, q.Dimension = false, p.of.ID
	for _, span := range [][2]time.Time{{p.start, p.complete}, {p.complete, p.end}} {
		err := ledger.Each(ctx, p.client, engine, q, ledger.Parts(span[0], span[1], p.cuts), p.addRow)
		if err != nil {
			return err
		}
	}
	return p.addTail(ctx, engine, q)
}

// addUnassigned adds a total: requests that did not count in the dimension are among them.
func (p *valueReport) addUnassigned(row ledger.Row) error {
	g, ok := p.models[row.Model]
	if !ok || len(p.outputs[p.nobody]) == 0 {
		return nil
	}
	g.key = p.nobody
	s, err := p.sumsOf(row.Grain, row.Start, g)
	if err != nil {
		return err
	}
	return row.AddTo(s)
}

// addRow adds the period of a value.
func (p *valueReport) addRow(row ledger.Row) error {
	value, err := uuid.Parse(row.Key)
	if err != nil {
		return fmt.Errorf("%w: value_id: %w", ErrCorrupt, err)
	}
	if row.Start.Before(p.complete) {
		sums, err := row.Read()
		if err != nil {
			return err
		}
		return p.addSums(row.Model, value, row.Grain, row.Start, sums)
	}
	g, ok := p.models[row.Model]
	if !ok || len(p.outputs[value]) == 0 {
		return nil
	}
	g.key = value
	to, err := p.sumsOf(row.Grain, row.Start, g)
	if err != nil {
		return err
	}
	return row.AddTo(to)
}

func (p *valueReport) addSums(model string, value uuid.UUID, grain ledger.Grain, start time.Time, s ledger.Sums) error {
	g, ok := p.models[model]
	if !ok {
		return nil
	}
	if g.key = p.nobody; start.Before(p.complete) && len(p.outputs[p.nobody]) > 0 { // it is in the total
		rest, err := p.sumsOf(grain, start, g)
		if err != nil {
			return err
		}
		if !rest.Subtract(s) {
			if rest.Requests < 0 {
				return fmt.Errorf("%w: the usage of %s is less than that of its values: see VerifyLedger", ErrCorrupt,
					start.Format(time.RFC3339))
			}
			// Reprice shares costs out among values where it cannot know them.
			rest.Cost, rest.RetryCost = max(0, rest.Cost), max(0, rest.RetryCost)
			rest.ComparedCost = max(0, rest.ComparedCost)
		}
	}
	if len(p.outputs[value]) == 0 {
		return nil
	}
	g.key = value
	to, err := p.sumsOf(grain, start, g)
	if err != nil {
		return err
	}
	return to.Merge(s)
}

// addTail adds the requests that are not folded yet.
func (p *valueReport) addTail(ctx context.Context, engine string, q ledger.Query) error {
	var tail []ledger.Event
	err := ledger.ReadTail(ctx, p.client, engine, q, ledger.FirstEventID(p.start), ledger.FirstEventID(p.end),
		func(e ledger.Event, err error) error {
			if err == nil { // else VerifyLedger tells
				e.At = utc.Of(e.At)
				tail = append(tail, e)
			}
			return nil
		})
	if err != nil {
		return err
	}
	if err := p.book.Learn(ctx, p.client, nil, tail); err != nil {
		return err
	}
	grain, length := ledger.QuarterGrain, utc.Quarter
	if p.of.DaysOnly {
		grain, length = ledger.DayGrain, utc.Day
	}
	for i := range tail {
		e := &tail[i]
		values, err := p.book.Of(e, nil)
		if err != nil { // damaged: VerifyLedger tells
			continue
		}
		for _, v := range values {
			if v.ID != p.of.ID {
				continue
			}
			err := p.addSums(e.Model.String(), v.Value, grain, e.At.Truncate(length), e.Sums())
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// valueCell is a row of the report.
type valueCell struct {
	reportCell
	consumer uuid.UUID
	texts    string
}

func (c valueCell) compare(o valueCell) int {
	return cmp.Or(c.reportCell.compare(o.reportCell), bytes.Compare(c.consumer[:], o.consumer[:]),
		cmp.Compare(c.texts, o.texts))
}

type attributed struct {
	ledger.Sums
	cost money.USD
}

// expand makes rows of the sums by values.
func (p *valueReport) expand(ctx context.Context) (rows []ReportRow, err error) {
	if p.FillGaps {
		if err := p.fill(ctx); err != nil {
			return nil, err
		}
	}
	cells := map[valueCell]*attributed{}
	for c, s := range p.sums {
		if s.Requests == 0 && !p.FillGaps { // all of a total was subtracted
			continue
		}
		for _, o := range p.outputs[c.key] {
			to := valueCell{c, o.consumer, o.texts}
			to.key = uuid.Nil
			a := cells[to]
			if a == nil {
				if len(cells) == MaxReportRows {
					return nil, tooManyRows()
				}
				a = new(attributed)
				cells[to] = a
			}
			if err := a.Merge(*s); err != nil {
				return nil, err
			}
			if o.n > 0 {
				a.cost += s.Cost / money.USD(o.n)
				if o.i < int64(s.Cost)%o.n {
					a.cost++
				}
			}
		}
	}
	for _, c := range slices.SortedFunc(maps.Keys(cells), valueCell.compare) {
		row := p.row(c.reportCell, &cells[c].Sums)
		row.ConsumerID, row.AttributedCost = c.consumer, cells[c].cost
		if row.Values, err = p.valuesOf(c.texts); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// tagged returns the dimensions of tags that the report is grouped by.
func (p *valueReport) tagged() (all []Dimension) {
	for _, d := range p.By {
		switch d {
		case ByProvider, ByFamily, ByModel, ByKey, ByConsumer, BySubtree:
		default:
			all = append(all, d)
		}
	}
	return all
}

// valuesOf returns the tags of a row.
func (p *valueReport) valuesOf(texts string) (map[Dimension]string, error) {
	by := p.tagged()
	if len(by) == 0 {
		return nil, nil
	}
	all, err := dimension.TextsOf(texts)
	if err != nil {
		return nil, err
	}
	values := make(map[Dimension]string, len(by))
	for i, d := range by {
		values[d] = all[i]
	}
	return values, nil
}

// learnValues finds in which rows the values of the dimension count.
func (p *valueReport) learnValues(ctx context.Context) error {
	names, err := p.readNames(ctx)
	if err != nil {
		return err
	}
	p.nobody, p.outputs = p.of.Unassigned, map[uuid.UUID][]output{}
	if p.of.Kind == entdimension.KindComposite {
		var ids []string
		for _, part := range p.of.Parts {
			ids = append(ids, p.book.Named(part).Unassigned.String())
		}
		nobody := dimension.NameOf(ids)
		for id, v := range names {
			if v.dimension == p.of.ID && v.name == nobody {
				p.nobody = id
			}
		}
	}
	for id, v := range names {
		if v.dimension != p.of.ID {
			continue
		}
		if p.outputs[id], err = p.outputsOf(id, v, names); err != nil {
			return err
		}
	}
	return nil
}
