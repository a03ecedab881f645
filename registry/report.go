package registry

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/calendar"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Dimension is what a report is grouped by.
type Dimension string

// The built-in dimensions. Those that CreateDimension has made have their names: Dimension("feature").
const (
	ByProvider Dimension = "provider"
	ByFamily   Dimension = "family" // the family that the model is in now
	ByModel    Dimension = "model"
	ByKey      Dimension = "key"
	ByConsumer Dimension = "consumer"
	// BySubtree has a row for each consumer that sums up all below it, as the tree is now. So what is below several
	// counts in each of them; AttributedCost counts in its own consumer alone.
	BySubtree Dimension = "subtree"
)

// Step is the length of time that a row of a report covers.
type Step string

// The steps. All but StepQuarter follow the clocks of the report's location:
//
//   - A week begins on Monday.
//   - A day begins with the first instant of its date: at 00:00, or later if clocks were set forward over it. It ends
//     where the next existing date begins.
//   - An hour also ends where clocks are set.
const (
	StepQuarter Step = "quarter" // 15 minutes
	StepHour    Step = "hour"
	StepDay     Step = "day"
	StepWeek    Step = "week"
	StepMonth   Step = "month"
)

// MaxReportRows is the most rows that a report may have.
const MaxReportRows = 100_000

// ReportInput says what a report covers and how it is grouped.
type ReportInput struct {
	Start, End time.Time // from Start until before End

	// What to report, live or deleted. All conditions must hold; a zero condition is ignored.
	ProviderID, FamilyID, ModelID, APIKeyID uuid.UUID

	ConsumerID uuid.UUID // the usage for a consumer and all below it, as the tree is now
	// Values selects usage by its tag: a tag, "" for usage without one, or OtherValue.
	Values map[Dimension]string

	// By has a row for each combination of these. Defaults to one row for everything. Usage is summed by keys, or by
	// consumers and tags, but not by both; and by several of the latter if a composite dimension combines them.
	By   []Dimension
	Step Step // a row for each step. Defaults to one row for the whole range
	// Location is the time zone in which days and other steps begin. Defaults to UTC.
	Location *time.Location
	// FillGaps adds rows of zeros: each combination that has a row in the range gets one for every step.
	FillGaps bool
}

// ReportRow is the usage of one combination of dimensions in one step.
type ReportRow struct {
	Start, End time.Time // the time that the row covers, in the report's location
	// The ids that the report is grouped by. The others are zero, and so is the family of a model without one.
	ProviderID, FamilyID, ModelID, APIKeyID uuid.UUID
	ConsumerID                              uuid.UUID // also zero: nobody, or a consumer that was purged
	// Values are the tags that the report is grouped by: "" for usage without a tag, and OtherValue.
	Values map[Dimension]string
	ReportNames
	UsageFigures
	// AttributedCost is TotalCost, but adds up over rows that count the same requests. What requests with the same tags
	// cost is shared out among these equally, the odd nano-dollars to the first ones in the alphabet. By subtrees it
	// counts for its own consumer alone.
	AttributedCost money.USD `json:"AttributedCostUSD"`
}

// OtherValue is the tag of usage whose own tag came when its dimension had no room for further values. As a tag it
// counts there, too.
const OtherValue = dimension.OtherName

func (in ReportInput) withDefaults() ReportInput {
	in.Location = cmp.Or(in.Location, time.UTC)
	in.Start, in.End = utc.Clamp(in.Start), utc.Clamp(in.End)
	return in
}

func (in ReportInput) faults() (f fault.List) {
	f.Span(in.Start, in.End)
	f.Check(in.Step == "" || stepBounds[in.Step] != nil, "there is no step %.40q", in.Step)
	for i, d := range in.By {
		f.Check(!slices.Contains(in.By[:i], d), "dimension %.40q is given twice", d)
	}
	byKey := in.APIKeyID != uuid.Nil || slices.Contains(in.By, ByKey)
	f.Check(!byKey || len(in.valued()) == 0, "usage is summed by keys, or by consumers and tags, not by both")
	f.Check(!slices.Contains(in.By, ByConsumer) || !slices.Contains(in.By, BySubtree),
		"usage is reported by consumers or by subtrees, not by both")
	return f
}

// UsageReport returns the usage in a range of time, grouped by the dimensions and steps of the input. Rows are ordered
// by time, then by their ids. They carry the names that go with the ids, also of deleted rows. Combinations without
// usage have no row, unless FillGaps is set. An unknown provider, family, model or key has no usage.
//
// Start and End of a row say what it covers:
//
//   - The range is widened to whole quarters of an hour. The first and the last row may cover less than a step.
//   - A quarter counts in the step in which it begins. If a step does not begin with a UTC quarter, as in Monrovia
//     until 1972, it begins with the next one.
//   - Where Prune has removed the quarters, whole UTC days are counted, each in the step that contains its noon. Steps
//     shorter than a day are not available there.
//
// Usage under consumers and tags is complete, up to the last request. Usage from before a dimension was created has no
// value in it.
//
// It returns [ErrInvalidData] if the input breaks a rule, a dimension does not exist or several are not combined by a
// composite one, the report would have more than [MaxReportRows] rows, a step is not available, or a sum would
// overflow.
func (r *Registry) UsageReport(ctx context.Context, in ReportInput) ([]ReportRow, error) {
	const op = "usage report"
	in = in.withDefaults()
	if err := in.faults().Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	var rows []ReportRow
	err := r.steadily(ctx, func(h ledger.Horizons) (err error) {
		if len(in.valued()) > 0 {
			rows, err = r.reportByValue(ctx, in, h)
		} else {
			rows, err = r.report(ctx, in, h)
		}
		return err
	})
	return rows, translate(ctx, op, err)
}

// steadily calls read until the horizons have not changed meanwhile. Prune moves the horizons before it removes
// quarters and events.
func (r *Registry) steadily(ctx context.Context, read func(ledger.Horizons) error) error {
	h, err := ledger.ReadHorizons(ctx, r.client)
	for err == nil {
		if err = read(h); err != nil {
			break
		}
		before := h
		if h, err = ledger.ReadHorizons(ctx, r.client); err == nil && h.Equal(before) {
			return nil
		}
	}
	return err
}

func (r *Registry) report(ctx context.Context, in ReportInput, h ledger.Horizons) (_ []ReportRow, err error) {
	p, err := newReport(ctx, in, h, r.now())
	if err != nil {
		return nil, err
	}
	if p.models, err = reportModels(ctx, r.client, in); err != nil {
		return nil, err
	}
	q := ledger.Query{
		Totals: in.APIKeyID == uuid.Nil && !slices.Contains(in.By, ByKey),
		Model:  in.ModelID, Provider: in.ProviderID, Family: in.FamilyID, Key: in.APIKeyID,
	}
	if err := ledger.Each(ctx, r.client, r.db.Dialect(), q, ledger.Parts(p.start, p.end, p.cuts), p.add); err != nil {
		return nil, err
	}
	rows, err := p.rows(ctx)
	if err != nil {
		return nil, err
	}
	return rows, r.nameRows(ctx, rows)
}

// report is a report that is being made.
type report struct {
	ReportInput
	ledger.Horizons
	start, end time.Time
	cuts       []time.Time
	models     map[string]group

	sums   map[reportCell]*ledger.Sums
	most   int // sums
	byKey  bool
	cached struct { // the step of the last row, often the same for the next one
		grain      ledger.Grain
		from, step time.Time
	}
}

type reportCell struct {
	step int64 // its first second
	group
}

func newReport(ctx context.Context, in ReportInput, h ledger.Horizons, now time.Time) (*report, error) {
	p := &report{
		ReportInput: in, Horizons: h, start: h.Widen(in.Start, utc.Floor), end: h.Widen(in.End, utc.Ceil),
		sums: map[reportCell]*ledger.Sums{}, byKey: slices.Contains(in.By, ByKey), most: MaxReportRows,
	}
	if in.Step == "" {
		return p, nil
	}
	if short := in.Step == StepQuarter || in.Step == StepHour; short && p.start.Before(h.Quarters) {
		return nil, fmt.Errorf("%w: before %s only whole days are kept: choose a longer step or a later start",
			ErrInvalidData, h.Quarters.Format(time.RFC3339))
	}
	// Cut days where steps begin, from where there are quarters to where there can be usage.
	next := func(at time.Time) time.Time {
		_, end := p.step(at)
		return end
	}
	if in.Step == StepQuarter || in.Step == StepHour {
		next = func(at time.Time) time.Time { return at.Add(utc.Day / 2).Truncate(utc.Day).Add(utc.Day / 2) } // noon
	}
	until := utc.Min(p.end, utc.Ceil(now.Add(maxAhead+utc.Day), utc.Day))
	for at := next(utc.Max(p.start, h.Quarters)); at.Before(until); at = next(at) {
		p.cuts = append(p.cuts, at)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// stepBounds find the steps. StepDay begins with the first quarter of an hour of a date.
var stepBounds = map[Step]calendar.Bounds{
	StepQuarter: calendar.Quarters, StepHour: calendar.Hours, StepDay: calendar.Days, StepWeek: calendar.Weeks,
	StepMonth: calendar.Months,
}

// step returns where the step of a quarter of an hour begins, and where the next one does.
func (p *report) step(t time.Time) (begin, end time.Time) {
	if bounds := stepBounds[p.Step]; bounds != nil {
		return bounds(p.Location, t)
	}
	return p.start, p.end
}

// covered returns where the usage that is counted in a step begins, given the step's beginning. Where there are only
// whole days, it is the first day whose noon lies in the step.
func (p *report) covered(step time.Time) time.Time {
	if step.Before(p.Quarters) {
		step = utc.Ceil(step.Add(-utc.Day/2), utc.Day)
	}
	return utc.Min(utc.Max(step, p.start), p.end)
}

// add adds a period to its row.
func (p *report) add(row ledger.Row) error {
	g, ok := p.models[row.Model]
	if !ok {
		return nil // the model was created meanwhile
	}
	if p.byKey {
		var err error
		if g.key, err = uuid.Parse(row.Key); err != nil {
			return fmt.Errorf("%w: api_key_id: %w", ErrCorrupt, err)
		}
	}
	s, err := p.sumsOf(row.Grain, row.Start, g)
	if err != nil {
		return err
	}
	return row.AddTo(s)
}

// sumsOf returns the sums that a period adds to.
func (p *report) sumsOf(grain ledger.Grain, start time.Time, g group) (*ledger.Sums, error) {
	if p.cached.grain != grain || !p.cached.from.Equal(start) {
		at := start
		if grain == ledger.DayGrain && at.Before(p.Quarters) {
			at = at.Add(utc.Day / 2)
		}
		p.cached.grain, p.cached.from = grain, start
		p.cached.step, _ = p.step(at)
	}
	cell := reportCell{p.cached.step.Unix(), g}
	s := p.sums[cell]
	if s == nil {
		if len(p.sums) == p.most {
			return nil, tooManyRows()
		}
		s = new(ledger.Sums)
		p.sums[cell] = s
	}
	return s, nil
}

func tooManyRows() error {
	return fmt.Errorf("%w: the report would have more than %d rows", ErrInvalidData, MaxReportRows)
}

// rows returns the rows in order.
func (p *report) rows(ctx context.Context) ([]ReportRow, error) {
	if p.FillGaps {
		if err := p.fill(ctx); err != nil {
			return nil, err
		}
	}
	cells := slices.SortedFunc(maps.Keys(p.sums), reportCell.compare)
	rows := make([]ReportRow, 0, len(cells))
	for _, c := range cells {
		rows = append(rows, p.row(c, p.sums[c]))
	}
	return rows, nil
}

func (c reportCell) compare(o reportCell) int {
	return cmp.Or(cmp.Compare(c.step, o.step), bytes.Compare(c.provider[:], o.provider[:]),
		bytes.Compare(c.family[:], o.family[:]), bytes.Compare(c.model[:], o.model[:]),
		bytes.Compare(c.key[:], o.key[:]))
}

func (p *report) row(c reportCell, s *ledger.Sums) ReportRow {
	begin, end := p.step(time.Unix(c.step, 0))
	return ReportRow{
		Start: p.covered(begin).In(p.Location), End: p.covered(end).In(p.Location),
		ProviderID: c.provider, FamilyID: c.family, ModelID: c.model, APIKeyID: c.key,
		UsageFigures: figuresOf(s), AttributedCost: s.Cost,
	}
}

// fill adds the rows without usage.
func (p *report) fill(ctx context.Context) error {
	groups := map[group]bool{}
	for c := range p.sums {
		groups[c.group] = true
	}
	if len(groups) == 0 {
		return nil
	}
	steps := 0
	for at := p.start; at.Before(p.end); {
		begin, end := p.step(at)
		at = end
		if err := ctx.Err(); err != nil {
			return err
		}
		if !p.covered(begin).Before(p.covered(end)) {
			continue // the noon of no whole day lies in it
		}
		if steps++; steps*len(groups) > p.most {
			return tooManyRows()
		}
		for g := range groups {
			if c := (reportCell{begin.Unix(), g}); p.sums[c] == nil {
				p.sums[c] = new(ledger.Sums)
			}
		}
	}
	return nil
}
