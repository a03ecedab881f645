package registry

import (
	"cmp"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
)

const (
	maxLatency    = latency.Max * time.Millisecond // of one request: a week
	maxRequestID  = 128                            // characters
	maxErrorClass = 64                             // characters
	maxAhead      = time.Hour                      // how far ahead a request's time may be, for skewed clocks
)

// StandardTier is the service tier in which every model has a price.
const StandardTier = ledger.StandardTier

// UsageInput describes one request to a model.
type UsageInput struct {
	ModelID  uuid.UUID // the model's id, live or deleted
	APIKeyID uuid.UUID // the id of a key of the model's provider, live or deleted

	// ConsumerID is the consumer that it was for, live or deleted, and AccessKeyID the access key by which it was made;
	// zero: nobody. Without a consumer it is the access key's. Nobody is refused: what was spent is counted.
	ConsumerID  uuid.UUID
	AccessKeyID uuid.UUID

	// RequestID is the caller's name for the request, up to 128 characters. A request that is recorded again under the
	// same id is not counted again, as long as its event is kept. Empty: each call is a new request.
	RequestID string

	meter.Tokens // what it used; no token is in two meters

	At          time.Time     // when it happened, from 1970 to an hour ahead. Defaults to now
	Latency     time.Duration // up to a week, stored in whole milliseconds
	Failed      bool          // it ended with an error
	ErrorClass  string        // the kind of error if it failed, such as rate_limited, up to 64 characters
	HTTPStatus  int           // status of the provider's answer, 100 to 599; 0: no answer, or unknown
	ServiceTier string        // the tier that served it, up to 64 characters. Defaults to StandardTier
}

func (in UsageInput) withDefaults(now time.Time) UsageInput {
	if in.At.IsZero() {
		in.At = now
	}
	in.At = utc.Of(in.At)
	in.ServiceTier = cmp.Or(in.ServiceTier, StandardTier)
	return in
}

func (in UsageInput) faults(now time.Time) (f fault.List) {
	if err := in.Validate(); err != nil {
		f.Check(false, "%s", err)
	}
	f.Check(!in.At.Before(utc.Beginning), "at %s is before 1970", in.At.Format(time.RFC3339))
	f.Check(!in.At.After(now.Add(maxAhead)), "at %s is in the future", in.At.Format(time.RFC3339))
	f.Check(in.Latency >= 0 && in.Latency <= maxLatency, "latency %s is not between 0 and %s", in.Latency, maxLatency)
	f.Text("service_tier", in.ServiceTier, 1, rule.MaxWord)
	f.Text("request_id", in.RequestID, 0, maxRequestID)
	f.Text("error_class", in.ErrorClass, 0, maxErrorClass)
	f.Check(in.Failed || in.ErrorClass == "", "error_class is set, but the request did not fail")
	f.Check(in.HTTPStatus == 0 || in.HTTPStatus >= 100 && in.HTTPStatus <= 599,
		"http_status %d is not between 100 and 599", in.HTTPStatus)
	return f
}

// newRequest returns a request to record, or the faults of the input.
func newRequest(in UsageInput, now time.Time) (commit.Request, fault.List) {
	in = in.withDefaults(now)
	if f := in.faults(now); len(f) > 0 {
		return commit.Request{}, f
	}
	id := ledger.NewEventID(in.At)
	return commit.Request{
		Event: ledger.Event{
			ID: id, Model: in.ModelID, Key: in.APIKeyID, RequestID: cmp.Or(in.RequestID, id.String()), At: in.At,
			Tokens: ledger.InColumns(in.Tokens), Latency: in.Latency.Milliseconds(), Success: !in.Failed,
			ErrorClass: in.ErrorClass, HTTPStatus: in.HTTPStatus,
			Consumer: idOrNil(in.ConsumerID), AccessKey: idOrNil(in.AccessKeyID),
		},
		ServiceTier: in.ServiceTier, Named: in.RequestID != "",
	}, nil
}

// checkOwner adds a fault if nobody is named for whom something is done, and the registry requires somebody.
func (r *Registry) checkOwner(f *fault.List, consumer, accessKey uuid.UUID) {
	f.Check(!r.requireConsumer || consumer != uuid.Nil || accessKey != uuid.Nil,
		"neither a consumer nor an access key is named, and the registry was opened WithRequiredConsumer")
}

// idOrNil returns a pointer to an id, or nil for a zero id.
func idOrNil(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}
