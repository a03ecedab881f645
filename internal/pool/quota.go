package pool

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Quota has limits, and what they are compared with: the row's counters of ended requests, and open leases.
type Quota struct {
	Limits

	Minute                 *time.Time
	MinuteRequests         int64
	MinuteTokens           int64
	LastReset              time.Time
	DayRequests, DayTokens int64
	DayCost                money.USD
	Observed               observations

	Open map[uuid.UUID]*Lease // leases that count in it; nil: not read yet
	Held reserved             // what they reserve
}

// reserved is what leases reserve in the current windows.
type reserved struct {
	Minute, Day Amount
	observed    Amount // since the provider's last statement
}

// observation is a provider's last statement of one of its limits, less what was used since.
type observation struct {
	Limit     int64     `json:"limit"`     // -1: it did not say
	Remaining int64     `json:"remaining"` // -1: it did not say
	Reset     time.Time `json:"reset"`     // when the limit is whole again; zero: it did not say
	Seen      time.Time `json:"seen"`      // when it said so
}

// observations are by meter. A map of them is never changed, only replaced.
type observations map[upstream.Meter]observation

// Amount is what a request asks of a quota, or what it turned out to take.
type Amount struct {
	Requests, Tokens int64
	Cost             money.USD
}

// How far the current windows may be ahead of this clock, because clocks differ. Beyond that, one clock was wrong. A
// process whose clock is behind counts in the windows that it finds. The bound of a day is longer: a limit of a day
// must not be lost to a clock that is wrong by more than minutes, and nobody should wait an hour for a minute to end.
const (
	maxMinuteAhead = 5 * time.Minute
	maxDayAhead    = time.Hour
)

// Roll begins the windows of now, unless another process, whose clock is ahead, has begun later ones.
func (q *Quota) Roll(now time.Time) {
	minute, day := q.rollMinute(now), q.rollDay(now)
	if minute || day {
		q.Recount()
	}
}

func (q *Quota) rollMinute(now time.Time) bool {
	minute := now.Truncate(time.Minute)
	if q.Minute != nil && !q.Minute.Before(minute) && !q.Minute.After(now.Add(maxMinuteAhead)) {
		return false
	}
	begun := minute // a copy, so that only this path allocates
	q.Minute, q.MinuteRequests, q.MinuteTokens = &begun, 0, 0
	return true
}

func (q *Quota) rollDay(now time.Time) bool {
	today := utc.StartOfDay(now)
	if !q.LastReset.Before(today) && !q.LastReset.After(now.Add(maxDayAhead)) {
		return false
	}
	q.LastReset, q.DayRequests, q.DayTokens, q.DayCost = today, 0, 0, 0
	return true
}

// rollTo begins the windows of now, or of a later instant, at which a process whose clock is ahead began something.
func (q *Quota) rollTo(at, now time.Time) {
	q.Roll(now)
	if !at.After(now) {
		return
	}
	minute := !at.After(now.Add(maxMinuteAhead)) && q.rollMinute(at)
	day := !at.After(now.Add(maxDayAhead)) && q.rollDay(at)
	if minute || day {
		q.Recount()
	}
}

// inMinute and inDay report whether an instant is in the current windows. A lease that begins in a later minute,
// because another process has begun a new day, counts in this minute too.
func (q *Quota) inMinute(at time.Time) bool {
	return q.Minute != nil && !at.Before(*q.Minute) && at.Before(q.Minute.Add(time.Minute+maxDayAhead))
}

func (q *Quota) inDay(at time.Time) bool {
	return utc.StartOfDay(q.LastReset).Equal(utc.StartOfDay(at))
}

// countMinute and countDay add what was used at an instant, if that is in the current window.
func (q *Quota) countMinute(at time.Time, a Amount) {
	if q.inMinute(at) {
		q.MinuteRequests = rule.Saturated(q.MinuteRequests, a.Requests)
		q.MinuteTokens = rule.Saturated(q.MinuteTokens, a.Tokens)
	}
}

func (q *Quota) countDay(at time.Time, a Amount) {
	if q.inDay(at) {
		q.DayRequests = rule.Saturated(q.DayRequests, a.Requests)
		q.DayTokens = rule.Saturated(q.DayTokens, a.Tokens)
		q.DayCost = rule.Saturated(q.DayCost, a.Cost)
	}
}

// reserve counts a lease.
func (q *Quota) reserve(l *Lease) {
	q.Open[l.ID] = l
	q.hold(l, 1)
}

// Release removes a lease and counts what it took.
func (q *Quota) Release(l *Lease, took Amount, now time.Time) {
	q.rollTo(l.Acquired, now)
	if own := q.Open[l.ID]; own != nil {
		delete(q.Open, l.ID)
		if q.Held.saturated() {
			q.Recount()
		} else {
			q.hold(own, -1)
		}
	}
	q.countMinute(l.Acquired, took)
	if !l.Acquired.Before(q.LastReset) { // else the day began anew meanwhile, without the request
		q.countDay(l.Acquired, took)
	}
	q.takeObserved(l.Acquired, took)
}

// saturated reports whether a sum was cut, and is less than what is reserved.
func (h *reserved) saturated() bool {
	return max(h.Minute.Tokens, h.Day.Tokens, int64(h.Day.Cost), h.observed.Tokens) == fault.MaxAmount
}

// hold adds what a lease reserves, or with sign -1 subtracts it.
func (q *Quota) hold(l *Lease, sign int64) {
	a := Amount{sign, sign * l.Tokens, money.USD(sign) * l.Cost}
	if q.inMinute(l.Acquired) {
		q.Held.Minute = q.Held.Minute.plus(a)
	}
	if q.inDay(l.Acquired) && !l.Acquired.Before(q.LastReset) {
		q.Held.Day = q.Held.Day.plus(a)
	}
	if o, ok := q.Observed[upstream.Requests]; ok && !o.Seen.After(l.Acquired) {
		q.Held.observed.Requests += a.Requests
	}
	if o, ok := q.Observed[upstream.Tokens]; ok && !o.Seen.After(l.Acquired) {
		q.Held.observed.Tokens = rule.Saturated(q.Held.observed.Tokens, a.Tokens)
	}
}

// Recount adds up what all leases reserve now.
func (q *Quota) Recount() {
	q.Held = reserved{}
	for _, l := range q.Open {
		q.hold(l, 1)
	}
}

// takeObserved subtracts an amount from what is left of the provider's limits, if the provider stated that before an
// instant.
func (q *Quota) takeObserved(at time.Time, a Amount) {
	if len(q.Observed) == 0 {
		return
	}
	left := make(observations, len(q.Observed))
	for meter, o := range q.Observed {
		if o.Remaining >= 0 && !o.Seen.After(at) {
			o.Remaining = max(0, rule.Saturated(o.Remaining, -a.of(meter)))
		}
		left[meter] = o
	}
	q.Observed = left
}

// observe notes the limits that the provider states.
func (q *Quota) observe(said []upstream.Quota, now time.Time) {
	all := make(observations, len(q.Observed)+len(said))
	maps.Copy(all, q.Observed)
	for _, s := range said {
		all[s.Meter] = observation{s.Limit, s.Remaining, s.Reset, now}
	}
	q.Observed = all
	q.Recount()
}

// plus returns the sum of two amounts, cut to the range of a column.
func (a Amount) plus(b Amount) Amount {
	return Amount{a.Requests + b.Requests, rule.Saturated(a.Tokens, b.Tokens), rule.Saturated(a.Cost, b.Cost)}
}

// AtLeast returns the greater of each quantity of two amounts.
func (a Amount) AtLeast(b Amount) Amount {
	return Amount{max(a.Requests, b.Requests), max(a.Tokens, b.Tokens), max(a.Cost, b.Cost)}
}

// Reserved returns what a lease reserves.
func (l *Lease) Reserved() Amount { return Amount{1, l.Tokens, l.Cost} }

func (a Amount) of(meter upstream.Meter) int64 {
	if meter == upstream.Tokens {
		return a.Tokens
	}
	return a.Requests
}

// Window is a limit, what was used of it, and when its window ends; zero: never.
type Window struct {
	Name            LimitName
	Limit, Used, of int64 // of: what a request asks for
	end             time.Time
}

// Closed reports whether a request does not fit.
func (w Window) Closed() bool { return w.Used > w.Limit-w.of || w.of > w.Limit }

// Opens returns when a request that does not fit now will fit; zero: never, or not known.
func (w Window) Opens() time.Time {
	if w.of > w.Limit {
		return time.Time{}
	}
	return w.end
}

// Windows appends a window for each limit that is set. Call Roll first. If the provider stated only what remains of a
// limit, that is the limit.
func (q *Quota) Windows(a Amount, now time.Time, all []Window) []Window {
	nextDay, nextMinute := utc.StartOfDay(q.LastReset).Add(utc.Day), now
	if q.Minute != nil {
		nextMinute = q.Minute.Add(time.Minute)
	}
	add := func(name LimitName, limit, used, held, of int64, end time.Time) {
		if limit > 0 {
			all = append(all, Window{name, limit, rule.Saturated(used, held), of, end})
		}
	}
	minute, day := &q.Held.Minute, &q.Held.Day
	add(Concurrency, q.Concurrency, q.InFlight(), 0, 1, time.Time{})
	add(RequestsPerMinute, q.RequestsPerMinute, q.MinuteRequests, minute.Requests, a.Requests, nextMinute)
	add(TokensPerMinute, q.TokensPerMinute, q.MinuteTokens, minute.Tokens, max(1, a.Tokens), nextMinute)
	add(RequestsPerDay, q.RequestsPerDay, q.DayRequests, day.Requests, a.Requests, nextDay)
	add(TokensPerDay, q.TokensPerDay, q.DayTokens, day.Tokens, max(1, a.Tokens), nextDay)
	add(CostPerDay, int64(q.CostPerDay), int64(q.DayCost), int64(day.Cost), max(1, int64(a.Cost)), nextDay)
	if len(q.Observed) == 0 {
		return all
	}
	for _, o := range [...]struct {
		name  LimitName
		meter upstream.Meter
	}{{ObservedRequests, upstream.Requests}, {ObservedTokens, upstream.Tokens}} {
		seen, ok := q.Observed[o.meter]
		if !ok || seen.Remaining < 0 || !seen.Reset.After(now) {
			continue
		}
		of, limit := max(1, a.of(o.meter)), max(seen.Limit, seen.Remaining)
		if limit > 0 {
			of = min(of, limit) // an estimate may be more than the provider ever grants
		}
		limit = max(limit, of)
		left := rule.Saturated(seen.Remaining, -q.Held.observed.of(o.meter))
		all = append(all, Window{o.name, limit, limit - left, of, seen.Reset})
	}
	return all
}

// InFlight returns how many leases are open.
func (q *Quota) InFlight() int64 { return int64(len(q.Open)) }

// noLimits reports whether nothing can close the quota.
func (q *Quota) noLimits() bool { return q.Limits == Limits{} && len(q.Observed) == 0 }

// LimitsCost reports whether a live key of the pool, or its group, has a limit of cost.
func (p *Pool) LimitsCost() bool {
	for _, k := range p.Keys {
		if k.CostPerDay > 0 || k.Account != nil && k.Account.CostPerDay > 0 {
			return true
		}
	}
	return false
}

// QuotaColumns are the columns of a quota, in the order of Cells.
var QuotaColumns = []string{
	"requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_day", "concurrency", "cost_per_day",
	"minute", "requests_this_minute", "tokens_this_minute", "requests_today", "tokens_today", "cost_today",
	"last_reset",
	"observed",
}

// Cells returns where QuotaColumns are scanned to. The observations are JSON, which Read decodes.
func (q *Quota) Cells(observed *[]byte) []any {
	return []any{
		&q.RequestsPerMinute, &q.TokensPerMinute, &q.RequestsPerDay, &q.TokensPerDay, &q.Concurrency,
		(*int64)(&q.CostPerDay),
		&q.Minute, &q.MinuteRequests, &q.MinuteTokens, &q.DayRequests, &q.DayTokens, (*int64)(&q.DayCost), &q.LastReset,
		observed,
	}
}

// Read decodes the observations that were scanned, or returns fault.ErrCorrupt.
func (q *Quota) Read(observed []byte) error {
	q.Observed = nil
	return Decode("observed", observed, &q.Observed)
}

// Decode decodes JSON that was scanned; empty text leaves the value as it is. It returns fault.ErrCorrupt.
func Decode(what string, text []byte, to any) error {
	if len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("%w: %s: %w", fault.ErrCorrupt, what, err)
	}
	return nil
}

// Counters returns the values that change when a lease ends: of QuotaColumns from minute on.
func (q *Quota) Counters() ([]any, error) {
	var observed any
	if len(q.Observed) > 0 {
		text, err := json.Marshal(q.Observed)
		if err != nil {
			return nil, err
		}
		observed = string(text)
	}
	return []any{
		q.Minute, q.MinuteRequests, q.MinuteTokens, q.DayRequests, q.DayTokens, int64(q.DayCost), q.LastReset, observed,
	}, nil
}
