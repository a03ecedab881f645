package pool

import (
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Strategy is how Choose chooses among the keys of the highest priority that may be used.
type Strategy int

// The strategies.
const (
	FairTurns    Strategy = iota // in turn, each key as often as its weight says
	RoundRobin                   // the key that was handed out longest ago
	MostHeadroom                 // the key whose scarcest limit is the least used
)

// Reason says why a key may not be used.
type Reason string

// The reasons.
const (
	Disabled Reason = "disabled"
	Expired  Reason = "expired"
	Excluded Reason = "excluded"
	Denied   Reason = "model_denied"
	TooSmall Reason = "too_small"
	Degraded Reason = "degraded"
	Probed   Reason = "probed"
	Limited  Reason = "limited"
	Busy     Reason = "busy"
	Cooling  Reason = "cooling"
)

// Passes reports whether the reason ends by time or with a lease.
func (r Reason) Passes() bool {
	return r == Degraded || r == Probed || r == Limited || r == Busy || r == Cooling
}

// LimitName names a limit.
type LimitName string

// The limits. Observed limits are the provider's own.
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

// Limits bound the use of a key or a group. Zero means no limit.
type Limits struct {
	RequestsPerMinute int64
	TokensPerMinute   int64
	RequestsPerDay    int64
	TokensPerDay      int64
	Concurrency       int64
	CostPerDay        money.USD
}

// Diagnosis is what a failure says of a key.
type Diagnosis = upstream.Diagnosis

// EventKind is what happened to a key or a provider.
type EventKind string

// The kinds.
const (
	KeyDegraded       EventKind = "key degraded"
	KeyRestored       EventKind = "key restored"
	KeyProbed         EventKind = "key probed"
	ProviderCoolsDown EventKind = "provider cools down"
)

// Event is a change that the pool made by itself, for the audit trail.
type Event struct {
	Kind          EventKind
	ID            uuid.UUID // of the key or the provider
	Before, After map[string]any
}
