package registry

import (
	"encoding/json"
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Limits bound the use of a key or of a quota group. Zero means no limit.
type Limits struct {
	RequestsPerMinute int64     // in a UTC minute
	TokensPerMinute   int64     // in a UTC minute, all meters
	RequestsPerDay    int64     // on a UTC day
	TokensPerDay      int64     // on a UTC day, all meters
	Concurrency       int64     // requests at once
	CostPerDay        money.USD `json:"CostPerDayUSD"` // on a UTC day
}

// LimitName names a limit.
type LimitName string

// The limits. Those that are observed are the provider's own, as its answers tell: see [Registry.ObserveHeaders].
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
	Group   string    // name of the quota group that it is a limit of; empty: the key's own
	Limit   int64     // requests, tokens or nano-dollars; what was left, if the provider stated no limit
	Used    int64     // in the current window, estimates of running requests included
	Closed  bool      // what is asked for does not fit
	OpensAt time.Time // when it fits, of one that is closed; zero: never, or when another request ends
}

// MarshalJSON shows the amounts of CostPerDay as LimitUSD and UsedUSD, in dollars, as money is shown everywhere.
func (s LimitState) MarshalJSON() ([]byte, error) {
	type plain LimitState
	if s.Name != LimitCostPerDay {
		return json.Marshal(plain(s))
	}
	return json.Marshal(struct {
		plain
		Limit, Used       *struct{} `json:",omitempty"` // in the places of the plain ones
		LimitUSD, UsedUSD money.USD
	}{plain: plain(s), LimitUSD: money.USD(s.Limit), UsedUSD: money.USD(s.Used)})
}
