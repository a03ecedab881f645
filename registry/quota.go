package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Limits bound what is asked of a key, or of a quota group. A limit of zero is none.
type Limits struct {
	RequestsPerMinute int64     // in a UTC minute
	TokensPerMinute   int64     // in a UTC minute, all meters
	RequestsPerDay    int64     // on a UTC day
	TokensPerDay      int64     // on a UTC day, all meters
	Concurrency       int64     // requests at once
	CostPerDay        money.USD `json:"CostPerDayUSD"` // on a UTC day
}

func (l Limits) faults() fault.List {
	var f fault.List
	for _, limit := range []struct {
		name LimitName
		n    int64
	}{
		{RequestsPerMinute, l.RequestsPerMinute}, {TokensPerMinute, l.TokensPerMinute}, {RequestsPerDay, l.RequestsPerDay},
		{TokensPerDay, l.TokensPerDay}, {Concurrency, l.Concurrency}, {CostPerDay, int64(l.CostPerDay)},
	} {
		f.Check(limit.n >= 0 && limit.n <= maxAmount, "the limit of %s is not within 0 and %d", limit.name, int64(maxAmount))
	}
	return f
}

// limitSetter is a mutation of a row with limits.
type limitSetter interface {
	SetRequestsPerMinute(n int64)
	SetTokensPerMinute(n int64)
	SetRequestsPerDay(n int64)
	SetTokensPerDay(n int64)
	SetConcurrency(n int64)
	SetCostPerDay(usd money.USD)
}

func (l Limits) set(m limitSetter) {
	m.SetRequestsPerMinute(l.RequestsPerMinute)
	m.SetTokensPerMinute(l.TokensPerMinute)
	m.SetRequestsPerDay(l.RequestsPerDay)
	m.SetTokensPerDay(l.TokensPerDay)
	m.SetConcurrency(l.Concurrency)
	m.SetCostPerDay(l.CostPerDay)
}

// LimitName names a limit.
type LimitName string

// The limits. Those that are observed are the provider's own, as its answers tell: see [Registry.ObserveHeaders].
const (
	RequestsPerMinute LimitName = "requests_per_minute"
	TokensPerMinute   LimitName = "tokens_per_minute"
	RequestsPerDay    LimitName = "requests_per_day"
	TokensPerDay      LimitName = "tokens_per_day"
	Concurrency       LimitName = "concurrency"
	CostPerDay        LimitName = "cost_per_day"
	ObservedRequests  LimitName = "observed_requests"
	ObservedTokens    LimitName = "observed_tokens"
)

// LimitState is a limit and its counter.
type LimitState struct {
	Name    LimitName
	Group   string    // name of the quota group that it is a limit of; empty: the key's own
	Limit   int64     // requests, tokens or nano-dollars; of one that is observed, of which the provider did not say it: what was left
	Used    int64     // in the window of now, with the estimates of what is under way
	Closed  bool      // what is asked for does not fit
	OpensAt time.Time // when it fits, of one that is closed; zero: never, or when another request ends
}

// MarshalJSON shows the amounts of CostPerDay as LimitUSD and UsedUSD, in dollars, as money is shown everywhere.
func (s LimitState) MarshalJSON() ([]byte, error) {
	type plain LimitState
	if s.Name != CostPerDay {
		return json.Marshal(plain(s))
	}
	return json.Marshal(struct {
		plain
		Limit, Used       *struct{} `json:",omitempty"` // in the places of the plain ones
		LimitUSD, UsedUSD money.USD
	}{plain: plain(s), LimitUSD: money.USD(s.Limit), UsedUSD: money.USD(s.Used)})
}

// quota are limits, and what they are compared with: counters of what has ended, as the row has them, and leases.
type quota struct {
	Limits

	minute                 *time.Time
	minuteRequests         int64
	minuteTokens           int64
	lastReset              time.Time
	dayRequests, dayTokens int64
	dayCost                money.USD
	observed               observations

	open map[uuid.UUID]*openLease // those that count in it; nil: they have not been read
	held reserved                 // what they reserve
}

// reserved is what leases reserve of the windows that are counted now.
type reserved struct {
	minute, day amount
	observed    amount // since the provider said what was left
}

// observation is what a provider last said of one of its own limits. What was used since is taken off.
type observation struct {
	Limit     int64     `json:"limit"`     // -1: it did not say
	Remaining int64     `json:"remaining"` // -1: it did not say
	Reset     time.Time `json:"reset"`     // when it is whole again; zero: it did not say
	Seen      time.Time `json:"seen"`      // when it said so
}

// observations are by what is limited. They are never changed, but replaced.
type observations map[upstream.Meter]observation

// amount is what a request asks of a quota, or what it turned out to take.
type amount struct {
	requests, tokens int64
	cost             money.USD
}

// How far the windows that are counted may be ahead of the clock, for clocks that differ: beyond that, one was wrong. What a
// process begins whose clock is behind counts in those windows. Limits of a day must not be lost to a clock that is wrong by
// more than minutes; and nobody is to wait an hour for a minute to end.
const (
	maxMinuteAhead = 5 * time.Minute
	maxDayAhead    = time.Hour
)

// roll begins the windows of now, unless those of later are counted already: by another process, whose clock is ahead.
func (q *quota) roll(now time.Time) {
	minute, day := q.rollMinute(now), q.rollDay(now)
	if minute || day {
		q.recount()
	}
}

func (q *quota) rollMinute(now time.Time) bool {
	minute := now.Truncate(time.Minute)
	if q.minute != nil && !q.minute.Before(minute) && !q.minute.After(now.Add(maxMinuteAhead)) {
		return false
	}
	begun := minute // which needs no memory otherwise
	q.minute, q.minuteRequests, q.minuteTokens = &begun, 0, 0
	return true
}

func (q *quota) rollDay(now time.Time) bool {
	today := utc.StartOfDay(now)
	if !q.lastReset.Before(today) && !q.lastReset.After(now.Add(maxDayAhead)) {
		return false
	}
	q.lastReset, q.dayRequests, q.dayTokens, q.dayCost = today, 0, 0, 0
	return true
}

// rollTo begins the windows of now, or those of an instant after it, at which a process began something whose clock is ahead.
func (q *quota) rollTo(at, now time.Time) {
	q.roll(now)
	if !at.After(now) {
		return
	}
	minute := !at.After(now.Add(maxMinuteAhead)) && q.rollMinute(at)
	day := !at.After(now.Add(maxDayAhead)) && q.rollDay(at)
	if minute || day {
		q.recount()
	}
}

// inMinute and inDay tell whether an instant is in the windows that are counted now. A lease that begins in a later minute, to
// count in a day that another process began, counts in this minute too.
func (q *quota) inMinute(at time.Time) bool {
	return q.minute != nil && !at.Before(*q.minute) && at.Before(q.minute.Add(time.Minute+maxDayAhead))
}

func (q *quota) inDay(at time.Time) bool {
	return utc.StartOfDay(q.lastReset).Equal(utc.StartOfDay(at))
}

// countMinute and countDay add what was used at an instant, if it is in the window that is counted now.
func (q *quota) countMinute(at time.Time, a amount) {
	if q.inMinute(at) {
		q.minuteRequests = saturated(q.minuteRequests, a.requests)
		q.minuteTokens = saturated(q.minuteTokens, a.tokens)
	}
}

func (q *quota) countDay(at time.Time, a amount) {
	if q.inDay(at) {
		q.dayRequests = saturated(q.dayRequests, a.requests)
		q.dayTokens = saturated(q.dayTokens, a.tokens)
		q.dayCost = money.USD(saturated(int64(q.dayCost), int64(a.cost)))
	}
}

// saturated is a sum within what a column takes.
func saturated(a, b int64) int64 {
	if b > 0 && a > maxAmount-b {
		return maxAmount
	}
	return max(0, a+b)
}

// reserve has a lease count.
func (q *quota) reserve(l *openLease) {
	q.open[l.id] = l
	q.hold(l, 1)
}

// release has a lease count no more, but what it took.
func (q *quota) release(l *openLease, took amount, now time.Time) {
	q.rollTo(l.acquired, now)
	if own := q.open[l.id]; own != nil {
		delete(q.open, l.id)
		if q.held.saturated() {
			q.recount()
		} else {
			q.hold(own, -1)
		}
	}
	q.countMinute(l.acquired, took)
	if !l.acquired.Before(q.lastReset) { // else the day was begun anew meanwhile, without the request
		q.countDay(l.acquired, took)
	}
	q.takeObserved(l.acquired, took)
}

// saturated tells that the sums are less than what is reserved.
func (h *reserved) saturated() bool {
	return max(h.minute.tokens, h.day.tokens, int64(h.day.cost), h.observed.tokens) == maxAmount
}

// hold adds what a lease reserves, or takes it off.
func (q *quota) hold(l *openLease, sign int64) {
	a := amount{sign, sign * l.tokens, money.USD(sign) * l.cost}
	if q.inMinute(l.acquired) {
		q.held.minute = q.held.minute.plus(a)
	}
	if q.inDay(l.acquired) && !l.acquired.Before(q.lastReset) {
		q.held.day = q.held.day.plus(a)
	}
	if o, ok := q.observed[upstream.Requests]; ok && !o.Seen.After(l.acquired) {
		q.held.observed.requests += a.requests
	}
	if o, ok := q.observed[upstream.Tokens]; ok && !o.Seen.After(l.acquired) {
		q.held.observed.tokens = saturated(q.held.observed.tokens, a.tokens)
	}
}

// recount holds what all leases reserve now.
func (q *quota) recount() {
	q.held = reserved{}
	for _, l := range q.open {
		q.hold(l, 1)
	}
}

// takeObserved takes off what is left of the provider's limits, if that was said before an instant.
func (q *quota) takeObserved(at time.Time, a amount) {
	if len(q.observed) == 0 {
		return
	}
	left := make(observations, len(q.observed))
	for meter, o := range q.observed {
		if o.Remaining >= 0 && !o.Seen.After(at) {
			o.Remaining = max(0, saturated(o.Remaining, -a.of(meter)))
		}
		left[meter] = o
	}
	q.observed = left
}

// observe notes what the provider says.
func (q *quota) observe(said []upstream.Quota, now time.Time) {
	all := make(observations, len(q.observed)+len(said))
	maps.Copy(all, q.observed)
	for _, s := range said {
		all[s.Meter] = observation{s.Limit, s.Remaining, s.Reset, now}
	}
	q.observed = all
	q.recount()
}

// plus is a sum of two amounts, within what a column takes.
func (a amount) plus(b amount) amount {
	return amount{a.requests + b.requests, saturated(a.tokens, b.tokens), money.USD(saturated(int64(a.cost), int64(b.cost)))}
}

func (a amount) of(meter upstream.Meter) int64 {
	if meter == upstream.Tokens {
		return a.tokens
	}
	return a.requests
}

// window is a limit, what it has been used for, and when its window ends; zero: it has none.
type window struct {
	name            LimitName
	limit, used, of int64 // of: what a request asks for
	end             time.Time
}

// closed tells that a request does not fit.
func (w window) closed() bool { return w.used > w.limit-w.of || w.of > w.limit }

// opens returns when a request fits that does not fit now, zero: it is not known, or never.
func (w window) opens() time.Time {
	if w.of > w.limit {
		return time.Time{}
	}
	return w.end
}

// windows returns the limits that there are. The quota has been rolled. Those that were observed count what remains
// as a limit of which nothing is used.
func (q *quota) windows(a amount, now time.Time, all []window) []window {
	nextDay, nextMinute := utc.StartOfDay(q.lastReset).Add(utc.Day), now
	if q.minute != nil {
		nextMinute = q.minute.Add(time.Minute)
	}
	for _, w := range [...]window{
		{Concurrency, q.Concurrency, q.inFlight(), 1, time.Time{}},
		{RequestsPerMinute, q.RequestsPerMinute, saturated(q.minuteRequests, q.held.minute.requests), a.requests, nextMinute},
		{TokensPerMinute, q.TokensPerMinute, saturated(q.minuteTokens, q.held.minute.tokens), max(1, a.tokens), nextMinute},
		{RequestsPerDay, q.RequestsPerDay, saturated(q.dayRequests, q.held.day.requests), a.requests, nextDay},
		{TokensPerDay, q.TokensPerDay, saturated(q.dayTokens, q.held.day.tokens), max(1, a.tokens), nextDay},
		{CostPerDay, int64(q.CostPerDay), saturated(int64(q.dayCost), int64(q.held.day.cost)), max(1, int64(a.cost)), nextDay},
	} {
		if w.limit > 0 {
			all = append(all, w)
		}
	}
	if len(q.observed) == 0 {
		return all
	}
	for _, o := range [...]struct {
		name  LimitName
		meter upstream.Meter
	}{{ObservedRequests, upstream.Requests}, {ObservedTokens, upstream.Tokens}} {
		seen, ok := q.observed[o.meter]
		if !ok || seen.Remaining < 0 || !seen.Reset.After(now) {
			continue
		}
		of, limit := max(1, a.of(o.meter)), max(seen.Limit, seen.Remaining)
		if limit > 0 {
			of = min(of, limit) // an estimate may be above what the provider ever grants
		}
		limit = max(limit, of)
		left := saturated(seen.Remaining, -q.held.observed.of(o.meter))
		all = append(all, window{o.name, limit, limit - left, of, seen.Reset})
	}
	return all
}

// inFlight is how many leases are open.
func (q *quota) inFlight() int64 { return int64(len(q.open)) }

// noLimits tells that nothing of the quota can close it.
func (q *quota) noLimits() bool { return q.Limits == Limits{} && len(q.observed) == 0 }

// columns of the quota as they are read, in the order of cells.
var quotaColumns = []string{
	"requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_day", "concurrency", "cost_per_day",
	"minute", "requests_this_minute", "tokens_this_minute", "requests_today", "tokens_today", "cost_today", "last_reset", "observed",
}

func (q *quota) cells(observed *[]byte) []any {
	return []any{
		&q.RequestsPerMinute, &q.TokensPerMinute, &q.RequestsPerDay, &q.TokensPerDay, &q.Concurrency, (*int64)(&q.CostPerDay),
		&q.minute, &q.minuteRequests, &q.minuteTokens, &q.dayRequests, &q.dayTokens, (*int64)(&q.dayCost), &q.lastReset, observed,
	}
}

// read takes the observations that were scanned.
func (q *quota) read(observed []byte) error {
	q.observed = nil
	if len(observed) == 0 {
		return nil
	}
	if err := json.Unmarshal(observed, &q.observed); err != nil {
		return fmt.Errorf("%w: observed: %w", ErrCorrupt, err)
	}
	return nil
}

// counterColumns are what leases change when they end.
var counterColumns = []bulk.Column{
	{Name: "minute", Postgres: "timestamptz"}, {Name: "requests_this_minute", Postgres: "bigint"},
	{Name: "tokens_this_minute", Postgres: "bigint"}, {Name: "requests_today", Postgres: "bigint"},
	{Name: "tokens_today", Postgres: "bigint"}, {Name: "cost_today", Postgres: "bigint"}, {Name: "last_reset", Postgres: "timestamptz"}, {Name: "observed", Postgres: "json"},
}

func (q *quota) counters() ([]any, error) {
	var observed any
	if len(q.observed) > 0 {
		text, err := json.Marshal(q.observed)
		if err != nil {
			return nil, err
		}
		observed = string(text)
	}
	return []any{q.minute, q.minuteRequests, q.minuteTokens, q.dayRequests, q.dayTokens, int64(q.dayCost), q.lastReset, observed}, nil
}

// limitsOf are those of a row that Ent has read.
func limitsOf(k *ent.APIKey) Limits {
	return Limits{k.RequestsPerMinute, k.TokensPerMinute, k.RequestsPerDay, k.TokensPerDay, k.Concurrency, k.CostPerDay}
}

// matchesModel tells whether a model is in a list of names, of which those that end with * stand for all that begin so.
func matchesModel(list []string, model string) bool {
	return slices.ContainsFunc(list, func(name string) bool {
		if n := len(name) - 1; n >= 0 && name[n] == '*' {
			return len(model) >= n && model[:n] == name[:n]
		}
		return name == model
	})
}
