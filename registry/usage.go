package registry

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// RecordUsage records a request: as an event, in the quarter of an hour and the UTC day of its time, and in the
// counters of its key. All of that is one transaction, shared with the requests that are recorded at the same time;
// RecordUsage returns nil once it is committed. If the context ends before the transaction has begun, nothing is
// recorded.
//
// A request id counts once: if it was recorded before, RecordUsage changes nothing and returns nil. So after an error,
// call it again with the same id, from another process if need be. That works until Prune removes the event. If the
// input is another request than the one that was recorded, RecordUsage changes nothing either, and returns
// [ErrConflict]: if it has another model, another consumer, other tokens, another Usage, another outcome (Failed,
// ErrorClass, HTTPStatus) or another ProviderCost.
//
// The request costs what the price in effect at its time says:
//
//   - of its service tier, or of the standard tier if the model has no price in that tier
//   - of the largest context size that its total input reaches
//   - exactly, rounded once to a nano-dollar
//
// If a rate is missing, the request is counted and its cost stays unknown.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule, the key belongs to another provider, or a sum would overflow
//   - [ErrForeignKey]: the model, the key, the consumer or the access key is unknown
//   - [ErrConflict]: another request was recorded under the request id
//   - [ErrUncertain]: the context ended while the transaction was under way, and the transaction did not end soon after
func (r *Registry) RecordUsage(ctx context.Context, in UsageInput) error {
	now := r.now()
	request, f := newRequest(in, now)
	r.checkOwner(&f, in.ConsumerID, in.AccessKeyID)
	if err := f.Err(); err != nil {
		return translate(ctx, "record usage", err)
	}
	return translate(ctx, "record usage", r.commit(ctx, commit.Call{Now: now, Request: request}))
}

// MaxUsageBatch is the most requests that one call of RecordUsageBatch takes.
const MaxUsageBatch = 10_000

// RecordUsageBatch records up to [MaxUsageBatch] requests in one transaction of their own, all or none. Use it for
// requests that were collected elsewhere. If they have request ids, it can be called again after an error and records
// what is missing.
//
// On SQLite others wait to write meanwhile: half a second for 10,000 requests of one hour, three seconds if each is of
// another day. Smaller batches keep them waiting for less.
//
// Its errors are those of [Registry.RecordUsage]. For invalid inputs, the text names the first one by its index.
func (r *Registry) RecordUsageBatch(ctx context.Context, inputs []UsageInput) error {
	const op = "record usage batch"
	var f fault.List
	f.Check(len(inputs) <= MaxUsageBatch, "%d requests are more than %d", len(inputs), MaxUsageBatch)
	now, calls := r.now(), make([]commit.Call, len(inputs))
	for i := range min(len(inputs), MaxUsageBatch) {
		var wrong fault.List
		calls[i].Now = now
		calls[i].Request, wrong = newRequest(inputs[i], now)
		r.checkOwner(&wrong, inputs[i].ConsumerID, inputs[i].AccessKeyID)
		if len(wrong) > 0 {
			f.In(fmt.Sprintf("request %d: ", i), wrong)
			break
		}
	}
	if err := f.Err(); err != nil || len(inputs) == 0 {
		return translate(ctx, op, err)
	}
	return translate(ctx, op, r.commitAll(ctx, calls))
}

// commit runs a call in a batch, together with the calls of others, or within the registry's transaction.
func (r *Registry) commit(ctx context.Context, c commit.Call) error {
	if r.inTx {
		return r.commitAll(ctx, []commit.Call{c})
	}
	return r.commits.Do(ctx, c)
}

// commitAll runs calls, all or none: in a transaction of their own, or within the registry's.
func (r *Registry) commitAll(ctx context.Context, calls []commit.Call) error {
	if !r.inTx {
		return r.commits.DoAll(ctx, calls)
	}
	write := func(body func(tx *ent.Client) error) error { return r.writeOn(ctx, r.db, "", body) }
	return r.commits.DoWithin(ctx, write, calls)
}

// checkOwner adds a fault if nobody is named for whom something is done, and the registry requires somebody.
func (r *Registry) checkOwner(f *fault.List, consumer, accessKey uuid.UUID) {
	f.Check(!r.requireConsumer || consumer != uuid.Nil || accessKey != uuid.Nil,
		"neither a consumer nor an access key is named, and the registry was opened WithRequiredConsumer")
}
