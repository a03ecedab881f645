package registry

import (
	"net/http"
	"slices"
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// FailureClass says whose fault it is that a call failed, and how long a key is out of use for it:
//
//	class             the key is out                                            the least and the most, doubling
//	rate_limited      until the provider's Retry-After; else for                2 s, 5 min
//	quota_exhausted   until the quota's reset; else for; then one request       15 min, 6 h
//	                  tries it, and others follow when that has succeeded
//	auth              for, or a Retry-After within that; then one request       10 min, 6 h
//	                  tries it, likewise
//	server, timeout, bad_request   not at all
//
// Where the provider does not say how long, it is that long and up to a quarter more, twice as long with each failure
// of the same class that follows the last one's end, until a request succeeds. A failure of server, timeout or
// bad_request in between does not end the counting. A failure of another class that counts begins a new one. A key that
// one request tries is out for all others until that request has ended or its lease expires. Where the provider does
// say, it is a day at the most, see [WithMaxRetryAfter]; [Registry.RestoreKey] ends it. A quota group is out with its
// key, but for auth.
//
// An incident is the provider's: at least three accounts, and at least half of those in use, fail alike within ten
// seconds, and no request succeeds in between. The provider then cools down for 5 s, up to 5 min and a quarter more,
// and no key is out. A key without a group is an account.
type FailureClass string

// The classes.
const (
	FailureRateLimited    = FailureClass(upstream.RateLimited)
	FailureQuotaExhausted = FailureClass(upstream.QuotaExhausted)
	FailureAuth           = FailureClass(upstream.Auth)
	FailureServer         = FailureClass(upstream.Server)
	FailureTimeout        = FailureClass(upstream.Timeout)
	FailureBadRequest     = FailureClass(upstream.BadRequest)
)

// Failure describes a call that failed: an HTTP answer, or an error where there was none.
type Failure struct {
	Status int
	Header http.Header
	Body   []byte // of it, the beginning is enough; nothing of it is kept or shown
	Err    error

	// Usage is what is known of the request; as in Settle, but that it is recorded as one that failed, by its class and
	// status. Defaults to no tokens.
	Usage UsageInput
}

// Diagnosis is what a failure says of a key.
type Diagnosis struct {
	Class  FailureClass
	Until  time.Time // when the provider says the key may be used again; zero: it does not say
	Reason string    // for people; it is stored, cleaned and cut as [Registry.DegradeKey] does, and must not hold a secret
}

// Classifier tells what a failure says of a key. It must be safe for concurrent use.
type Classifier func(f Failure, now time.Time) Diagnosis

// Classify is the [Classifier] that is used unless [WithClassifier] sets another: by status, headers, and the error
// codes of OpenAI, Anthropic, Google, AWS and those that speak like them. Its Reason holds the status and the code,
// and nothing else of the answer: providers repeat keys in their messages. Its Until is at most a day ahead;
// [WithMaxRetryAfter] changes that for the registry.
func Classify(f Failure, now time.Time) Diagnosis {
	return classifyWithin(maxRetryAfter)(f, now)
}

// classifyWithin is Classify for answers that take a key out for no longer than most.
func classifyWithin(most time.Duration) Classifier {
	return func(f Failure, now time.Time) Diagnosis {
		d := upstream.Diagnose(upstream.Answer{Status: f.Status, Header: f.Header, Body: f.Body, Err: f.Err}, now)
		until := utc.Min(d.Until, now.Add(most)) // zero stays zero
		return Diagnosis{Class: FailureClass(d.Class), Until: until, Reason: d.Reason}
	}
}

func (d Diagnosis) faults() fault.List {
	var f fault.List
	classes := []FailureClass{
		FailureRateLimited, FailureQuotaExhausted, FailureAuth, FailureServer, FailureTimeout, FailureBadRequest,
	}
	f.Check(slices.Contains(classes, d.Class), "the failure's class is not one of the six")
	return f
}
