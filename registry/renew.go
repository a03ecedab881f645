package registry

import (
	"context"
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// RenewInput says how long a lease is to last, and what its request is now thought to use: the whole of it, not what
// is added. An estimate that is zero, or lower than before, stays as it is.
type RenewInput struct {
	// TTL is how long the lease lasts from now on, one millisecond to twelve hours. Required. A lease never expires
	// earlier than it would have.
	TTL time.Duration

	EstimatedTokens       int64 // tokens of all meters
	EstimatedOutputTokens int64 // how many of these are output, reasoning included
	// EstimatedCost defaults to what the estimated tokens cost, as in AcquireInput, if tokens are given.
	EstimatedCost money.USD
}

func (in RenewInput) faults() (f fault.List) {
	checkEstimate(&f, in.EstimatedTokens, in.EstimatedCost, in.TTL)
	most := in.EstimatedTokens
	if most == 0 { // the batch compares it with the lease's
		most = fault.MaxAmount
	}
	f.Check(in.EstimatedOutputTokens >= 0 && in.EstimatedOutputTokens <= max(0, most),
		"estimated output tokens %d are not between 0 and the estimated tokens", in.EstimatedOutputTokens)
	return f
}

// Renew lets the lease last longer, and raises what it reserves. Call it while a long answer is streamed, before the
// lease expires, as often as need be. ExpiresAt is then the new end: do not read it while another goroutine renews.
//
// What is added must fit into two things, in the windows in which the lease began:
//
//   - the limits of the key and of the group in which the lease counts, the provider's own included, until their
//     windows are over
//   - the budgets of the consumer and of all above it
//
// A renewal that raises nothing is refused by none of them. A key that is disabled, degraded or deleted meanwhile
// refuses nothing either: the request is under way.
//
// After an error the lease is as it was, and the request may go on: it counts in full when it is settled. Only after
// [ErrUncertain] it may have been renewed; Renew may be called again, and raises nothing twice.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule
//   - [ErrLeaseEnded]: the lease has expired, or was ended, through any handle and by any process
//   - [ErrForbidden], as a [*ForbiddenError]: the access key may not be used any more, the consumer or one above it is
//     disabled or deleted, or it may not use the model any more. The lease stays as it is, and can be settled
//   - [ErrBudget], as a [*BudgetError]: what is added does not fit into a budget. OpensAt is zero, because the lease
//     counts in the window in which it began
//   - [ErrNoKeyAvailable], as a [*NoKeyError] about the lease's key: what is added does not fit into a limit. OpensAt
//     is when the windows of these limits end: they bind the lease no longer
//   - [ErrForeignKey]: the lease is for a consumer, and its model has been purged
//   - [ErrUncertain], as for RecordUsage
func (l *Lease) Renew(ctx context.Context, in RenewInput) error {
	op := "renew lease " + l.ID.String()
	r := l.registry()
	f := in.faults()
	f.Text("actor", r.actor, 0, rule.MaxName)
	if err := f.Err(); err != nil {
		return translate(ctx, op, err)
	}
	renew := &commit.Renew{
		Lease: l.ID, Key: l.KeyID, Provider: l.ProviderID, Model: l.ModelID, Acquired: l.AcquiredAt, TTL: in.TTL,
		For:    commit.For{Consumer: l.ConsumerID, AccessKey: l.AccessKeyID},
		Tokens: in.EstimatedTokens, Output: in.EstimatedOutputTokens, Cost: in.EstimatedCost,
	}
	if err := r.commit(ctx, commit.Call{Now: r.now(), Actor: r.actor, Renew: renew}); err != nil {
		return translate(ctx, op, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	is := renew.Renewed // another goroutine may have renewed it since
	l.ExpiresAt = utc.Max(l.ExpiresAt, is.Expires)
	l.estimate = ledger.Estimate{
		Tokens: max(l.estimate.Tokens, is.Tokens), Output: max(l.estimate.Output, is.Output),
	}
	return nil
}

// overLimit returns the error for a lease that may not reserve more, because of the limits of its key, own, or of its
// group, shared. They bind the lease until their windows end.
func overLimit(k *pool.Key, g *pool.Group, own, shared []pool.Window) error {
	v := KeyVerdict{
		ID: k.ID, Prefix: k.Prefix, Label: k.Label, Priority: k.Priority, Weight: k.Weight, InFlight: k.InFlight(),
		Reason: KeyLimited, Probation: k.OnProbation(),
	}
	add := func(group string, windows []pool.Window) {
		for _, w := range windows {
			s := limitState(group, w)
			if s.Closed {
				s.OpensAt = w.End()
				v.Until = utc.Max(v.Until, w.End())
			}
			v.Limits = append(v.Limits, s)
		}
	}
	add("", own)
	if g != nil {
		add(g.Name, shared)
	}
	v.Detail = closedLimits(v.Limits)
	why := &NoKeyError{ProviderID: k.Provider, renewal: true}
	why.add(v)
	return why
}
