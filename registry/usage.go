package registry

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
)

const (
	maxLatency    = latency.Max * time.Millisecond // of one request: a week
	maxRequestID  = 128                            // characters
	maxErrorClass = 64                             // characters
	maxAhead      = time.Hour                      // how far a request's time may lie before the clock, for skewed clocks
)

// UsageInput describes one request to a model.
type UsageInput struct {
	ModelID  uuid.UUID // the model's id, live or deleted
	APIKeyID uuid.UUID // the id of a key of the model's provider, live or deleted

	// RequestID is the caller's name for the request, up to 128 characters: recorded again under the same name, it
	// is not counted again, as long as its event is kept. Empty: each call is another request.
	RequestID string

	meter.Tokens // what it used, by disjoint meters

	At          time.Time     // when it happened, from 1970 up to an hour ahead. Defaults to now
	Latency     time.Duration // up to a week, kept in whole milliseconds
	Failed      bool          // it ended with an error
	ErrorClass  string        // of one that failed: what kind of error, such as rate_limited, up to 64 characters
	HTTPStatus  int           // status of the provider's answer, 100 to 599; 0: none, or not known
	ServiceTier string        // the tier it was served in, up to 64 characters. Defaults to StandardTier
}

func (in UsageInput) withDefaults(now time.Time) UsageInput {
	if in.At.IsZero() {
		in.At = now
	}
	in.At = utc.Of(in.At)
	if in.ServiceTier == "" {
		in.ServiceTier = StandardTier
	}
	return in
}

func (in UsageInput) faults(now time.Time) fault.List {
	var f fault.List
	if err := in.Validate(); err != nil {
		f.Check(false, "%s", err)
	}
	f.Check(!in.At.Before(utc.Beginning), "at %s is before 1970", in.At.Format(time.RFC3339))
	f.Check(!in.At.After(now.Add(maxAhead)), "at %s is in the future", in.At.Format(time.RFC3339))
	f.Check(in.Latency >= 0 && in.Latency <= maxLatency, "latency %s is not within 0 and %s", in.Latency, maxLatency)
	f.Text("service_tier", in.ServiceTier, 1, maxTier)
	f.Text("request_id", in.RequestID, 0, maxRequestID)
	f.Text("error_class", in.ErrorClass, 0, maxErrorClass)
	f.Check(in.Failed || in.ErrorClass == "", "error_class is given of a request that did not fail")
	f.Check(in.HTTPStatus == 0 || in.HTTPStatus >= 100 && in.HTTPStatus <= 599, "http_status %d is not within 100 and 599", in.HTTPStatus)
	return f
}

// newRequest returns a request that can be recorded, or what is wrong with it.
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
		},
		ServiceTier: in.ServiceTier, Named: in.RequestID != "",
	}, nil
}

// RecordUsage records a request: as an event, in the quarter of an hour and the UTC day it falls into, and
// in the counters of its key. All of that is one transaction, which requests that are recorded at the same
// time share: it returns nil when that is committed. When the context ends before the transaction has
// begun, the request is not recorded.
//
// A request id that was recorded before is not counted again, whatever else is said of the request: RecordUsage
// returns nil. So it may be called again by whoever did not learn how it ended, in another process too, as
// long as Prune has not removed the event.
//
// Its cost is that of the price in effect at its time: of its service tier, or of the standard
// tier if the model has no price in that; for the largest context that its total input reaches.
// It is exact, rounded once to a nano-dollar. Where a rate is missing, the request is counted
// and its cost stays unknown.
//
// It returns [ErrInvalidData], also for a key of another provider and for a sum that does not
// fit; [ErrForeignKey] for an unknown model or key; or [ErrUncertain] when the context ended while the
// transaction was under way and did not end soon.
func (r *Registry) RecordUsage(ctx context.Context, in UsageInput) error {
	now := r.now()
	request, f := newRequest(in, now)
	if err := f.Err(); err != nil {
		return translate(ctx, "record usage", err)
	}
	return translate(ctx, "record usage", r.commit(ctx, commit.Call{Now: now, Request: request}))
}

// MaxUsageBatch is how many requests RecordUsageBatch takes.
const MaxUsageBatch = 10_000

// RecordUsageBatch records up to [MaxUsageBatch] requests in one transaction of their own: all of them, or none. It is
// for what was collected elsewhere: with request ids, it can be called again after an error, and goes on where it was.
// On SQLite others wait to write meanwhile: half a second for 10,000 requests of an hour, but three seconds if each is
// of another day; smaller batches keep them waiting for less. It returns the errors of [Registry.RecordUsage], which
// name the first faulty request by its index.
func (r *Registry) RecordUsageBatch(ctx context.Context, inputs []UsageInput) error {
	const op = "record usage batch"
	var f fault.List
	f.Check(len(inputs) <= MaxUsageBatch, "%d requests are more than %d", len(inputs), MaxUsageBatch)
	now, calls := r.now(), make([]commit.Call, len(inputs))
	for i := range min(len(inputs), MaxUsageBatch) {
		var wrong fault.List
		calls[i].Now = now
		if calls[i].Request, wrong = newRequest(inputs[i], now); len(wrong) > 0 {
			f.In(fmt.Sprintf("request %d: ", i), wrong)
			break
		}
	}
	if err := f.Err(); err != nil || len(inputs) == 0 {
		return translate(ctx, op, err)
	}
	return translate(ctx, op, r.commitAll(ctx, calls))
}

// commit does a call in one batch with those of others, or within the registry's transaction.
func (r *Registry) commit(ctx context.Context, c commit.Call) error {
	if r.inTx {
		return r.commitAll(ctx, []commit.Call{c})
	}
	return r.commits.Do(ctx, c)
}

// commitAll does calls in one transaction of their own, or within the registry's: all of them, or none.
func (r *Registry) commitAll(ctx context.Context, calls []commit.Call) error {
	if !r.inTx {
		return r.commits.DoAll(ctx, calls)
	}
	return r.commits.DoWithin(ctx, func(body func(tx *ent.Client) error) error { return r.write(ctx, "", body) }, calls)
}
