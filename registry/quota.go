package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Limits bound what is asked of a key, or of a quota group. A limit of zero is none.
type Limits struct {
	RequestsPerMinute int64     // in a UTC minute
	TokensPerMinute   int64     // in a UTC minute, all meters
	RequestsPerDay    int64     // on a UTC day
	TokensPerDay      int64     // on a UTC day, all meters
	Concurrency       int64     // requests at once
	CostPerDay        money.USD // on a UTC day
}

func (l Limits) faults() faults {
	var f faults
	for _, limit := range []struct {
		name LimitName
		n    int64
	}{
		{RequestsPerMinute, l.RequestsPerMinute}, {TokensPerMinute, l.TokensPerMinute}, {RequestsPerDay, l.RequestsPerDay},
		{TokensPerDay, l.TokensPerDay}, {Concurrency, l.Concurrency}, {CostPerDay, int64(l.CostPerDay)},
	} {
		f.check(limit.n >= 0 && limit.n <= maxAmount, "the limit of %s is not within 0 and %d", limit.name, int64(maxAmount))
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

// quota are limits and the counters that they are compared with, as the database has them.
type quota struct {
	Limits

	minute                 *time.Time
	minuteRequests         int64
	minuteTokens           int64
	lastReset              time.Time
	dayRequests, dayTokens int64
	dayCost                money.USD
	inFlight               int64
	observed               observations
}

// observation is what a provider last said of one of its own limits. What was asked for since is taken off.
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

// How far the windows that are counted may be ahead of the clock, for clocks that differ: beyond that, one was wrong.
const (
	maxMinuteAhead = 5 * time.Minute
	maxDayAhead    = time.Hour
)

// roll begins the windows of now, unless those of later are counted already: by another process, whose clock is ahead.
func (q *quota) roll(now time.Time) {
	minute := now.Truncate(time.Minute)
	if q.minute == nil || q.minute.Before(minute) || q.minute.After(now.Add(maxMinuteAhead)) {
		begun := minute
		q.minute, q.minuteRequests, q.minuteTokens = &begun, 0, 0
	}
	if today := startOfDay(now); q.lastReset.Before(today) || q.lastReset.After(now.Add(maxDayAhead)) {
		q.lastReset, q.dayRequests, q.dayTokens, q.dayCost = today, 0, 0, 0
	}
}

// count adds to those windows of an instant that are counted now.
func (q *quota) count(at time.Time, a amount) {
	q.countMinute(at, a)
	if startOfDay(q.lastReset).Equal(startOfDay(at)) {
		q.dayRequests = saturated(q.dayRequests, a.requests)
		q.dayTokens = saturated(q.dayTokens, a.tokens)
		q.dayCost = money.USD(saturated(int64(q.dayCost), int64(a.cost)))
	}
}

func (q *quota) countMinute(at time.Time, a amount) {
	if q.minute != nil && q.minute.Equal(at.Truncate(time.Minute)) {
		q.minuteRequests = saturated(q.minuteRequests, a.requests)
		q.minuteTokens = saturated(q.minuteTokens, a.tokens)
	}
}

// saturated is a sum within what a column takes.
func saturated(a, b int64) int64 {
	if b > 0 && a > maxAmount-b {
		return maxAmount
	}
	return max(0, a+b)
}

// reserve takes what a request asks for.
func (q *quota) reserve(at time.Time, a amount) {
	q.count(at, a)
	q.inFlight++
	q.takeObserved(at, a)
}

// release takes what a request turned out to need in place of what was reserved for it.
func (q *quota) release(l *openLease, took amount) {
	q.inFlight = max(0, q.inFlight-1)
	diff := amount{took.requests - 1, took.tokens - l.tokens, took.cost - l.cost}
	if l.acquired.Before(q.lastReset) { // the day was begun anew meanwhile, without the request
		q.countMinute(l.acquired, diff)
	} else {
		q.count(l.acquired, diff)
	}
	q.takeObserved(l.acquired, diff)
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
	nextDay, nextMinute := startOfDay(q.lastReset).Add(day), now
	if q.minute != nil {
		nextMinute = q.minute.Add(time.Minute)
	}
	for _, w := range [...]window{
		{Concurrency, q.Concurrency, q.inFlight, 1, time.Time{}},
		{RequestsPerMinute, q.RequestsPerMinute, q.minuteRequests, a.requests, nextMinute},
		{TokensPerMinute, q.TokensPerMinute, q.minuteTokens, max(1, a.tokens), nextMinute},
		{RequestsPerDay, q.RequestsPerDay, q.dayRequests, a.requests, nextDay},
		{TokensPerDay, q.TokensPerDay, q.dayTokens, max(1, a.tokens), nextDay},
		{CostPerDay, int64(q.CostPerDay), int64(q.dayCost), max(1, int64(a.cost)), nextDay},
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
		all = append(all, window{o.name, limit, limit - seen.Remaining, of, seen.Reset})
	}
	return all
}

// noLimits tells that nothing of the quota can close it.
func (q *quota) noLimits() bool { return q.Limits == Limits{} && len(q.observed) == 0 }

// columns of the quota as they are read, in the order of cells.
var quotaColumns = []string{
	"requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_day", "concurrency", "cost_per_day",
	"minute", "requests_this_minute", "tokens_this_minute", "requests_today", "tokens_today", "cost_today", "last_reset", "in_flight", "observed",
}

func (q *quota) cells(observed *[]byte) []any {
	return []any{
		&q.RequestsPerMinute, &q.TokensPerMinute, &q.RequestsPerDay, &q.TokensPerDay, &q.Concurrency, (*int64)(&q.CostPerDay),
		&q.minute, &q.minuteRequests, &q.minuteTokens, &q.dayRequests, &q.dayTokens, (*int64)(&q.dayCost), &q.lastReset, &q.inFlight, observed,
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

// counters of the quota are what leases change.
var counterColumns = []column{
	{"minute", "timestamptz"}, {"requests_this_minute", "bigint"}, {"tokens_this_minute", "bigint"}, {"requests_today", "bigint"},
	{"tokens_today", "bigint"}, {"cost_today", "bigint"}, {"last_reset", "timestamptz"}, {"in_flight", "bigint"}, {"observed", "json"},
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
	return []any{q.minute, q.minuteRequests, q.minuteTokens, q.dayRequests, q.dayTokens, int64(q.dayCost), q.lastReset, q.inFlight, observed}, nil
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
