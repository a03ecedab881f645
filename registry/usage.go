package registry

import (
	"context"
	"fmt"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

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
