package registry

import (
	"encoding/json"
	"time"

	"github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Limits limit the use of a key or of a quota group. Zero means no limit.
type Limits struct {
	RequestsPerMinute int64     // in a UTC minute
	TokensPerMinute   int64     // tokens of all meters in a UTC minute
	RequestsPerDay    int64     // on a UTC day
	TokensPerDay      int64     // tokens of all meters on a UTC day
	Concurrency       int64     // requests under way at once
	CostPerDay        money.USD `json:"CostPerDayUSD"` // on a UTC day
}

// Ceilings bound what may be spent. Zero means no ceiling.
type Ceilings struct {
	Cost        money.USD `json:"CostUSD"` // in a window
	Tokens      int64     // of all meters in a window
	Requests    int64     // in a window
	Concurrency int64     // leases that are open at once, in any window
}

// Window says over what a budget counts. Its zero value is a month of UTC, from its first day.
type Window struct {
	Per       budget.Per // Defaults to budget.PerMonth
	Zone      string     // a time zone such as Europe/Berlin. Defaults to UTC
	AnchorDay int        // on which day a week begins, 1 to 7 from Monday, or a month, 1 to 31. Defaults to 1
	// AnchorHour is the hour at which a day, week or month begins, 0 to 23. If the clocks skip it, the window begins
	// when they are set; if they show it twice, at the first time.
	AnchorHour int
}

// LimitName names a limit.
type LimitName string

// The limits. The observed ones are the provider's own, read from its answers: see [Registry.ObserveHeaders].
const (
	LimitRequestsPerMinute = LimitName(pool.RequestsPerMinute)
	LimitTokensPerMinute   = LimitName(pool.TokensPerMinute)
	LimitRequestsPerDay    = LimitName(pool.RequestsPerDay)
	LimitTokensPerDay      = LimitName(pool.TokensPerDay)
	LimitConcurrency       = LimitName(pool.Concurrency)
	LimitCostPerDay        = LimitName(pool.CostPerDay)
	LimitObservedRequests  = LimitName(pool.ObservedRequests)
	LimitObservedTokens    = LimitName(pool.ObservedTokens)
)

// LimitState is a limit and its counter.
type LimitState struct {
	Name    LimitName
	Group   string    // the name of the quota group that has the limit; empty: the key has it
	Limit   int64     // requests, tokens or nano-dollars; what was left if the provider has named no limit
	Used    int64     // in the current window, with the estimates of requests under way
	Closed  bool      // the request does not fit
	OpensAt time.Time // when the request fits, if the limit is closed; zero: never, or when another request ends
}

// MarshalJSON shows the amounts of CostPerDay as LimitUSD and UsedUSD, in dollars, as all money is shown.
func (s LimitState) MarshalJSON() ([]byte, error) {
	type plain LimitState
	if s.Name != LimitCostPerDay {
		return json.Marshal(plain(s))
	}
	return json.Marshal(struct {
		plain
		Limit, Used       *struct{} `json:",omitempty"` // hide the plain ones
		LimitUSD, UsedUSD money.USD
	}{plain: plain(s), LimitUSD: money.USD(s.Limit), UsedUSD: money.USD(s.Used)})
}
