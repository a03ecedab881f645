package registry

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// acquireOrWait tries until it gets a key, no key is worth waiting for, or the context ends.
func (r *Registry) acquireOrWait(ctx context.Context, in AcquireInput) (*Lease, error) {
	var (
		last *refusal // why it waited
		me   waiter
		told bool
	)
	for {
		r.waiters.enter(in.ProviderID, &me) // before asking: a lease may end meanwhile
		lease, err := r.acquireOnce(ctx, in)
		if told && err != nil && !errors.Is(err, ErrNoKeyAvailable) { // a budget's refusal: a key may be free
			r.waiters.passOn(in.ProviderID, &me)
		}
		none := worthWaiting(err)
		if none == nil {
			r.waiters.leave(in.ProviderID, &me, false)
			if last != nil && ctx.Err() != nil && err != nil {
				err = fmt.Errorf("%w: %w", err, last.error)
			}
			return lease, err
		}
		deadline, ok := ctx.Deadline()
		if left := time.Until(deadline); ok && left > 0 && none.earliest.Sub(r.now()) > left {
			r.waiters.leave(in.ProviderID, &me, false)
			return nil, fmt.Errorf(
				"%w: nothing that is worth waiting for can open before the context's deadline", none.error)
		}
		last = none
		wait := r.waiters.poll
		if !none.opens.IsZero() {
			wait = min(wait, max(time.Millisecond, none.opens.Sub(r.now())))
		}
		told = false
		select {
		case <-me.wake:
			told = true
		case <-time.After(wait):
		case <-ctx.Done():
		}
		r.waiters.leave(in.ProviderID, &me, told && ctx.Err() == nil)
		if ctx.Err() != nil {
			return nil, ended(ctx, none.error)
		}
	}
}

// refusal is an answer to AcquireKey that time, or the end of a lease, may change.
type refusal struct {
	error
	opens    time.Time // when it changes by itself; zero: never
	earliest time.Time // it does not change before this
}

// worthWaiting returns why a key was refused; nil if nothing is worth waiting for.
func worthWaiting(err error) *refusal {
	var none *NoKeyError
	if errors.As(err, &none) && none.passes {
		return &refusal{none, none.OpensAt, none.earliest}
	}
	var over *BudgetError
	if !errors.As(err, &over) || !over.waits {
		return nil
	}
	return &refusal{over, over.OpensAt, over.earliest}
}
