package registry

import (
	"encoding/json"
	"time"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
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

func (l Limits) faults() fault.List {
	var f fault.List
	for _, limit := range []struct {
		name LimitName
		n    int64
	}{
		{RequestsPerMinute, l.RequestsPerMinute}, {TokensPerMinute, l.TokensPerMinute}, {RequestsPerDay, l.RequestsPerDay},
		{TokensPerDay, l.TokensPerDay}, {Concurrency, l.Concurrency}, {CostPerDay, int64(l.CostPerDay)},
	} {
		f.Check(limit.n >= 0 && limit.n <= fault.MaxAmount, "the limit of %s is not within 0 and %d", limit.name, int64(fault.MaxAmount))
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
	RequestsPerMinute = LimitName(pool.RequestsPerMinute)
	TokensPerMinute   = LimitName(pool.TokensPerMinute)
	RequestsPerDay    = LimitName(pool.RequestsPerDay)
	TokensPerDay      = LimitName(pool.TokensPerDay)
	Concurrency       = LimitName(pool.Concurrency)
	CostPerDay        = LimitName(pool.CostPerDay)
	ObservedRequests  = LimitName(pool.ObservedRequests)
	ObservedTokens    = LimitName(pool.ObservedTokens)
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
	if s.Name != CostPerDay {
		return json.Marshal(plain(s))
	}
	return json.Marshal(struct {
		plain
		Limit, Used       *struct{} `json:",omitempty"` // in the places of the plain ones
		LimitUSD, UsedUSD money.USD
	}{plain: plain(s), LimitUSD: money.USD(s.Limit), UsedUSD: money.USD(s.Used)})
}

// limitsOf are those of a row that Ent has read.
func limitsOf(k *ent.APIKey) Limits {
	return Limits{k.RequestsPerMinute, k.TokensPerMinute, k.RequestsPerDay, k.TokensPerDay, k.Concurrency, k.CostPerDay}
}
