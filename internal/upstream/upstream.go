// Package upstream reads what a provider's answer says about an API key: why a call failed, when to try again, and how
// much of a quota is left. It makes no calls and keeps no state.
package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

// Class says why a call failed, by what to do about it.
type Class string

// The classes of failed calls.
const (
	// RateLimited says that the key is fine and has to wait, an hour at most.
	RateLimited Class = "rate_limited"
	// QuotaExhausted says that the key has nothing left to spend: money, or a quota that takes more
	// than an hour to come back.
	QuotaExhausted Class = "quota_exhausted"
	// Auth says that the provider does not accept the key, or not for this.
	Auth Class = "auth"
	// Server says that the provider failed or is overloaded, or that the failure is unknown.
	Server Class = "server"
	// Timeout says that the answer did not come in time.
	Timeout Class = "timeout"
	// BadRequest says that the request is at fault: no other key will do better.
	BadRequest Class = "bad_request"
)

// Answer is a failed call: an HTTP answer, or an error where there was none.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Err    error
}

// Diagnosis is what an Answer means.
type Diagnosis struct {
	Class Class
	// Until is when the provider says that it may be tried again, between now and a year from now.
	// Zero: it does not say.
	Until time.Time
	// Reason is short, for people and logs: the status and the error code, such as "429 rate_limit_exceeded". It has
	// nothing of the message, which can have parts of the key.
	Reason string
}

// Meter is what a limit counts.
type Meter string

// The meters of limits.
const (
	Requests Meter = "requests"
	Tokens   Meter = "tokens"
)

// Quota is what is left of one of a provider's limits.
type Quota struct {
	Meter     Meter
	Limit     int64     // -1: not said
	Remaining int64     // -1: not said
	Reset     time.Time // when it is whole again; zero: not said
}

// lasting is how far ahead the reset of a rate limit can be; later ones are exhausted quotas.
const lasting = time.Hour

// Diagnose says why a call failed. It never panics, whatever the answer. An unknown failure is Server.
func Diagnose(a Answer, now time.Time) Diagnosis {
	// An error after the header of a success is a body that broke off.
	if a.Err != nil && a.Status < http.StatusBadRequest {
		return diagnoseError(a.Err)
	}
	f := readFault(a)
	status := a.Status
	if !isFailure(status) && isFailure(f.number) {
		status = f.number
	}
	d := Diagnosis{Class: classify(status, f), Reason: reason(status, f)}
	d.Until = retryTime(a.Header, f, d.Class, now)
	if d.Class == RateLimited && (d.Until.After(now.Add(lasting)) || d.Until.IsZero() && f.has(daily)) {
		d.Class = QuotaExhausted
	}
	return d
}

func isFailure(status int) bool { return status >= 400 && status <= 599 }

// diagnoseError diagnoses a call that got no answer. The text of the error stays out of the reason: it has the URL, in
// which some providers take the key.
func diagnoseError(err error) (d Diagnosis) {
	d = Diagnosis{Class: Server, Reason: "connection failed"}
	// The methods of an error can panic: those of a nil *url.Error do.
	defer func() { _ = recover() }()

	var network net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return Diagnosis{Class: Timeout, Reason: "timeout"}
	case errors.Is(err, context.Canceled):
		// The caller went away. That is nobody's fault, and must not count against the key or the provider. BadRequest
		// counts against neither.
		return Diagnosis{Class: BadRequest, Reason: "canceled"}
	case errors.As(err, &network) && network.Timeout():
		return Diagnosis{Class: Timeout, Reason: "timeout"}
	}
	return d
}

// retryTime returns when to come back, or zero. It asks the most exact source first.
func retryTime(h http.Header, f fault, class Class, now time.Time) time.Time {
	if t, ok := RetryAfter(h, now); ok {
		return t
	}
	// The message of a refused request can repeat what the caller sent.
	if class == BadRequest || class == Auth {
		return time.Time{}
	}
	if t, ok := RetryAfter(f.header, now); ok {
		return t
	}
	if t := f.retryTime(now); !t.IsZero() {
		return t
	}
	// The windows of rate limits say nothing about an account that has run out of money.
	if class != RateLimited {
		return time.Time{}
	}
	var last time.Time
	for _, q := range append(Quotas(h, now), Quotas(f.header, now)...) {
		if q.Remaining == 0 && q.Reset.After(last) {
			last = q.Reset
		}
	}
	return last
}

// reason returns the status and the first error code that can be shown.
func reason(status int, f fault) string {
	text := "no status"
	if status != 0 {
		text = strconv.Itoa(status)
	}
	for _, code := range f.codes {
		if isSafe(code) {
			return text + " " + code
		}
	}
	return text
}
