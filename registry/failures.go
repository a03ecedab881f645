package registry

import (
	"net/http"
	"slices"
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// FailureClass says what kind of failure a call had, and with it how long its key is out of use:
//
//	class             out until the provider's   otherwise out for          afterwards
//	rate_limited      Retry-After                2 s, doubling up to 5 min  in use
//	quota_exhausted   reset of the quota         15 min, doubling up to 6 h on probation
//	auth              Retry-After                10 min, doubling up to 6 h on probation
//	server, timeout, bad_request: not out of use
//
// If the provider says how long, the key is out for at most a day, see [WithMaxRetryAfter]; for auth, for at most 6 h
// and a quarter of that.
//
// If the provider does not say how long:
//
//   - Up to a quarter is added at random.
//   - The time doubles with each further failure of the same class, if its request began after the last one had failed,
//     until a request succeeds. A failure of another class in the table begins a new count; a failure of server,
//     timeout or bad_request does not.
//
// A key on probation gets one request, which tries it. Other requests cannot use the key until that one has ended or
// its lease has expired. If it succeeds, the key is back in use. [Registry.RestoreKey] puts a key back into use at
// once.
//
// A quota group is out together with its key, except for auth.
//
// An incident is a failure of the provider: at least three accounts, and at least half of those in use, fail alike
// within ten seconds, and no request succeeds in between. Then no key is out; the provider cools down for 5 s, doubling
// up to 5 min, and up to a quarter more. A key without a group counts as an account.
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

// Failure describes a failed call: by its HTTP answer, or by an error if there was no answer.
type Failure struct {
	Status int
	Header http.Header
	Body   []byte // its beginning is enough; nothing of it is stored or shown
	Err    error

	// Usage is what is known of the request, as for Settle. It is recorded as failed, with the class and status of the
	// failure. Defaults to no tokens.
	Usage UsageInput
}

// Diagnosis is what a failure means for a key.
type Diagnosis struct {
	Class FailureClass
	Until time.Time // when the key can be used again, if the provider says so; else zero
	// Reason is for people. It is stored, cleaned and cut as by [Registry.DegradeKey], and must not contain a secret.
	Reason string
}

// Classifier diagnoses a failure. It must be safe for concurrent use.
type Classifier func(f Failure, now time.Time) Diagnosis

// Classify is the default [Classifier]; [WithClassifier] sets another one. It goes by status, headers, and the error
// codes of OpenAI, Anthropic, Google, AWS and of providers with compatible answers.
//
// Reason contains the status and the code, and nothing else of the answer, because providers repeat keys in their
// messages. Until is at most a day ahead; [WithMaxRetryAfter] changes that for a registry.
func Classify(f Failure, now time.Time) Diagnosis {
	return classifyWithin(maxRetryAfter)(f, now)
}

// classifyWithin returns Classify with most as the longest time that an answer can take a key out of use.
func classifyWithin(most time.Duration) Classifier {
	return func(f Failure, now time.Time) Diagnosis {
		d := upstream.Diagnose(upstream.Answer{Status: f.Status, Header: f.Header, Body: f.Body, Err: f.Err}, now)
		until := utc.Min(d.Until, now.Add(most)) // zero stays zero
		return Diagnosis{Class: FailureClass(d.Class), Until: until, Reason: d.Reason}
	}
}

func (d Diagnosis) faults() (f fault.List) {
	f.Check(slices.Contains([]FailureClass{
		FailureRateLimited, FailureQuotaExhausted, FailureAuth, FailureServer, FailureTimeout, FailureBadRequest,
	}, d.Class), "the failure's class is not one of the six FailureClass constants")
	return f
}
