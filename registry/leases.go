package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/batch"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

const (
	minTTL = time.Millisecond
	maxTTL = 12 * time.Hour

	maxExclude = MaxKeysPerProvider

	// poll is how long AcquireKey waits before it asks again: other processes end leases too.
	poll = 250 * time.Millisecond
)

// AcquireInput says what a key is wanted for.
type AcquireInput struct {
	ProviderID uuid.UUID
	// ModelID is a model of the provider. Settle records usage of it, and keys that are not for it are passed over.
	// Zero: keys are not asked what models they are for, and Settle has to be told the model.
	ModelID uuid.UUID

	EstimatedTokens int64     // what the request may take, all meters; reserved until it is known. Defaults to none
	EstimatedCost   money.USD // reserved likewise. Defaults to none

	Exclude []uuid.UUID // keys that the caller does not want, such as those that failed him, up to 100
	// Wait waits until a key can be used, or the context ends; it is not for transactions. It does not wait for what
	// does not come by itself, such as a key that is disabled, nor when no key can open before the context's deadline.
	Wait bool
	// TTL is after what time the lease expires and what it reserved is free again, a millisecond to twelve hours:
	// longer than the slowest request. It must be given: too short, and more is under way than the limits say; too
	// long, and what a crashed process held is gone for that long.
	TTL time.Duration
}

func (in AcquireInput) faults(inTx bool) fault.List {
	var f fault.List
	f.Check(
		in.EstimatedTokens >= 0 && in.EstimatedTokens <= fault.MaxAmount, "estimated tokens %d are not within 0 and %d",
		in.EstimatedTokens, int64(fault.MaxAmount),
	)
	f.Check(
		in.EstimatedCost >= 0 && in.EstimatedCost <= fault.MaxAmount,
		"the estimated cost is not within 0 and %d nano-dollars", int64(fault.MaxAmount),
	)
	f.Check(len(in.Exclude) <= maxExclude, "%d keys to exclude are more than %d", len(in.Exclude), maxExclude)
	f.Check(!in.Wait || !inTx, "wait is not for transactions: others could not end their leases")
	f.Check(in.TTL >= minTTL && in.TTL <= maxTTL, "TTL %s is not within %s and %s", in.TTL, minTTL, maxTTL)
	return f
}

// releaseUnclaimed ends a lease whose caller did not wait to learn whether he has it. If that fails too, the lease
// expires.
func (r *Registry) releaseUnclaimed(ctx context.Context, provider, id uuid.UUID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commit.Patience)
	defer cancel()
	end := &commit.End{Lease: id, Provider: provider, Outcome: commit.Released}
	_ = r.commits.Do(ctx, commit.Call{Now: r.now(), Actor: r.actor, End: end}) // else it expires
}

// wanted is what the pool has to know of the input, but for the model's name.
func (in AcquireInput) wanted() pool.Want {
	w := pool.Want{Amount: pool.Amount{Requests: 1, Tokens: in.EstimatedTokens, Cost: in.EstimatedCost}}
	if len(in.Exclude) > 0 {
		w.Exclude = make(map[uuid.UUID]bool, len(in.Exclude))
		for _, id := range in.Exclude {
			w.Exclude[id] = true
		}
	}
	return w
}

// Lease is a key that may be used for one request, until it is ended by Settle, Fail or Release, or expires. It is safe
// for concurrent use; the first end counts.
type Lease struct {
	ID         uuid.UUID
	ProviderID uuid.UUID
	ModelID    uuid.UUID // zero: none was given
	KeyID      uuid.UUID
	KeyPrefix  string // of the API key
	KeyLabel   string
	AcquiredAt time.Time
	ExpiresAt  time.Time
	// Probe tells that the key was out of use and this request tries it: others wait for how it ends.
	Probe bool

	state  atomic.Int32
	unsure atomic.Bool // an attempt to end it may have ended it

	mu   sync.Mutex
	reg  *Registry        // see registry
	said []upstream.Quota // by the provider's headers
}

// The states of a Lease.
const (
	leaseOpen int32 = iota
	leaseEnding
	leaseEnded
)

// registry returns the registry that ends the lease: within InTx the transaction's, and after it the one that InTx was
// called on.
func (l *Lease) registry() *Registry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.reg; r.inTx && r.over.Load() {
		l.reg = r.outer.As(r.actor)
		l.state.CompareAndSwap(leaseEnded, leaseOpen) // if the transaction was undone, it has not ended
	}
	return l.reg
}

// AcquireKey reserves a key of a provider for a request, in one transaction with what others ask for at the same time:
// no key is used beyond its limits, from any number of goroutines or processes. Among the keys that may be used it
// takes those of the highest priority, and among them by the registry's [KeyStrategy]. Counters are of UTC minutes and
// days; the request and its estimates count in those of now, whenever it ends.
//
// End the lease: with [Lease.Settle] when the request has succeeded, [Lease.Fail] when not, [Lease.Release] when it was
// not made. One that is not ended expires, and what it reserved is free again.
//
// It returns [ErrInvalidData], [ErrForeignKey] for an unknown model, [ErrUncertain] as RecordUsage does, or
// [ErrNoKeyAvailable], as a [*NoKeyError] that says why for each key; for an unknown provider too, which has no key.
func (r *Registry) AcquireKey(ctx context.Context, in AcquireInput) (*Lease, error) {
	const op = "acquire key"
	f := in.faults(r.inTx)
	f.Text("actor", r.actor, 0, rule.MaxName)
	if err := f.Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	acquire := r.acquireOnce
	if in.Wait {
		acquire = r.acquireOrWait
	}
	lease, err := acquire(ctx, in)
	return lease, translate(ctx, op, r.sayProvider(ctx, err))
}

// acquireOrWait tries until there is a key, none is worth waiting for, or the context ends.
func (r *Registry) acquireOrWait(ctx context.Context, in AcquireInput) (*Lease, error) {
	var last *NoKeyError // that it waited for
	for {
		wake := r.waiters.enter(in.ProviderID) // before it looks: a lease may end meanwhile
		lease, err := r.acquireOnce(ctx, in)
		var none *NoKeyError
		if !errors.As(err, &none) || !none.passes {
			r.waiters.leave(in.ProviderID, wake, false)
			if last != nil && ctx.Err() != nil && err != nil {
				err = fmt.Errorf("%w: %w", err, last)
			}
			return lease, err
		}
		if deadline, ok := ctx.Deadline(); ok && none.earliest.Sub(r.now()) > time.Until(deadline) {
			r.waiters.leave(in.ProviderID, wake, false)
			return nil, fmt.Errorf("%w: none of those asked for can open before the context's deadline", none)
		}
		last = none
		wait := r.waiters.poll
		if !none.OpensAt.IsZero() {
			wait = min(wait, max(time.Millisecond, none.OpensAt.Sub(r.now())))
		}
		timer, told := time.NewTimer(wait), false
		select {
		case <-wake:
			told = true
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		r.waiters.leave(in.ProviderID, wake, told && ctx.Err() == nil)
		if ctx.Err() != nil {
			return nil, ended(ctx, none)
		}
	}
}

func (r *Registry) acquireOnce(ctx context.Context, in AcquireInput) (*Lease, error) {
	a := &commit.Acquire{
		ID: uuid.Must(uuid.NewV7()), Provider: in.ProviderID, Model: in.ModelID, TTL: in.TTL, Want: in.wanted(),
	}
	if err := r.commit(ctx, commit.Call{Now: r.now(), Actor: r.actor, Acquire: a}); err != nil {
		// nobody would know of the lease
		if !r.inTx && (errors.Is(err, batch.ErrUncertain) || errors.Is(err, ErrUncertain)) {
			go r.releaseUnclaimed(ctx, a.Provider, a.ID)
		}
		return nil, err
	}
	l := a.Leased
	return &Lease{
		ID: l.ID, ProviderID: in.ProviderID, ModelID: in.ModelID, KeyID: l.Key, KeyPrefix: l.Prefix, KeyLabel: l.Label,
		AcquiredAt: l.Acquired, ExpiresAt: l.Expires, Probe: l.Probe, reg: r,
	}, nil
}

// GetLease returns a lease that is open, for a process that is to end what another one has begun. It returns
// [ErrNotFound] for one that has ended, or has expired and reserves nothing any more.
func (r *Registry) GetLease(ctx context.Context, id uuid.UUID) (*Lease, error) {
	op := fmt.Sprintf("get lease %s", id)
	row, err := r.fresh.KeyLease.Get(ctx, id)
	if err != nil {
		return nil, translate(ctx, op, err)
	}
	key, err := r.fresh.APIKey.Get(ctx, row.APIKeyID)
	if err != nil {
		return nil, translate(ctx, op, err)
	}
	return &Lease{
		ID: row.ID, ProviderID: key.ProviderID, ModelID: value(row.ModelID), KeyID: key.ID, KeyPrefix: key.KeyPrefix,
		KeyLabel:   key.Label,
		AcquiredAt: row.AcquiredAt, ExpiresAt: row.ExpiresAt, Probe: row.Probe, reg: r,
	}, nil
}

// Reveal returns the API key itself, as [Registry.RevealAPIKey] does.
func (l *Lease) Reveal(ctx context.Context) (Secret, error) {
	return l.registry().RevealAPIKey(ctx, l.KeyID)
}

// ObserveHeaders takes the limits that the headers of an answer tell. They are stored with Settle or Fail. See
// [Registry.ObserveHeaders].
func (l *Lease) ObserveHeaders(header http.Header) {
	r := l.registry()
	said := r.quotasOf(header, r.now())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, said...)
}

// Settle ends the lease and records the request, in one transaction: as RecordUsage does, and what was used takes the
// place of what was reserved. The model and the key default to those of the lease, the request id to the lease's id. It
// counts once, however often it is tried: after an error it may be called again. A lease that has expired can be ended
// for a day, and is recorded too. Under a request id that was recorded before, by another attempt say, the lease ends
// and nothing is recorded.
//
// It returns [ErrLeaseEnded] when the lease has been ended, or is being ended, through whatever handle and by whatever
// process, unless the request is recorded; and the errors of RecordUsage.
func (l *Lease) Settle(ctx context.Context, in UsageInput) error {
	e := commit.End{Outcome: commit.Succeeded}
	if in.Failed {
		e.Outcome = commit.Used
	}
	return l.end(ctx, "settle lease", e, in, nil)
}

// Fail ends the lease of a call that failed, and returns what it made of the failure, by which a caller decides whether
// to try another key. The failure is classified, the key is out of use or not as [FailureClass] says, and the request
// is recorded, as in Settle, as one that failed: by its class and its status. A lease without a model records nothing
// unless Usage has one. The limits that its headers tell are stored, in place of what ObserveHeaders took.
//
// It returns the diagnosis with an error too: those of Settle, and [ErrInvalidData] for what a [Classifier] may not
// return.
func (l *Lease) Fail(ctx context.Context, failure Failure) (Diagnosis, error) {
	r, in := l.registry(), failure.Usage
	now := r.now()
	d := r.classify(failure, now)
	d.Reason = fault.Clean(d.Reason, pool.MaxReason)
	in.Failed, in.ErrorClass = true, string(d.Class)
	if in.HTTPStatus == 0 && failure.Status >= 100 && failure.Status <= 599 {
		in.HTTPStatus = failure.Status
	}
	if failure.Header != nil { // of which a Retry-After is the diagnosis'
		l.mu.Lock()
		l.said = r.limitsSaid(failure.Header, now)
		l.mu.Unlock()
	}
	e := commit.End{
		Outcome: commit.Failed, Failure: pool.Diagnosis{
			Class: upstream.Class(d.Class), Until: d.Until, Reason: d.Reason,
		},
	}
	return d, l.end(ctx, "fail lease", e, in, d.faults())
}

// Release ends the lease of a request that was not made: nothing is recorded, and what was reserved is free again. It
// returns [ErrLeaseEnded] as Settle does. After [ErrUncertain] it may be called again.
func (l *Lease) Release(ctx context.Context) error {
	return l.end(ctx, "release lease", commit.End{Outcome: commit.Released}, UsageInput{}, nil)
}

// end ends the lease once.
func (l *Lease) end(ctx context.Context, op string, e commit.End, in UsageInput, f fault.List) (err error) {
	op += " " + l.ID.String()
	r := l.registry()
	if !l.state.CompareAndSwap(leaseOpen, leaseEnding) {
		return translate(ctx, op, ErrLeaseEnded)
	}
	defer func() {
		if err != nil {
			l.state.Store(leaseOpen)
		} else {
			l.state.Store(leaseEnded)
		}
	}()
	c, f := l.lastCall(r, e, in, f)
	if err := f.Err(); err != nil {
		return translate(ctx, op, err)
	}
	err = translate(ctx, op, r.commit(ctx, c))
	switch {
	case err == nil:
		r.waiters.wake(l.ProviderID)
	case errors.Is(err, ErrUncertain):
		l.unsure.Store(true)
	}
	return err
}

// lastCall is what ends the lease, or what is wrong with it beside what is known.
func (l *Lease) lastCall(r *Registry, e commit.End, in UsageInput, f fault.List) (commit.Call, fault.List) {
	f.Text("actor", r.actor, 0, rule.MaxName)
	e.Lease, e.Key, e.Provider, e.Acquired, e.Repeated = l.ID, l.KeyID, l.ProviderID, l.AcquiredAt, l.unsure.Load()
	l.mu.Lock()
	e.Said = l.said
	l.mu.Unlock()
	c := commit.Call{Now: r.now(), Actor: r.actor, End: &e}
	if in.ModelID == uuid.Nil {
		in.ModelID = l.ModelID
	}
	if in.APIKeyID == uuid.Nil {
		in.APIKeyID = l.KeyID
	}
	f.Check(in.APIKeyID == l.KeyID, "the key is another one than the lease's")
	switch {
	case e.Outcome == commit.Released:
	case in.ModelID == uuid.Nil && e.Outcome == commit.Failed: // nothing to record it under
		if err := in.Validate(); err != nil {
			f.Check(false, "%s", err)
		}
		e.Tokens = in.Total()
	default:
		if in.RequestID == "" {
			in.RequestID = l.ID.String()
		}
		request, wrong := newRequest(in, c.Now)
		c.Request, f = request, append(f, wrong...)
	}
	return c, f
}

// ObserveHeaders learns from the headers of a provider's answer what its own limits are and what is left of them:
// x-ratelimit-*, ratelimit-*, anthropic-ratelimit-* and Retry-After. AcquireKey passes over a key of which nothing is
// left until the provider says that it is whole again, and [KeyVerdict] shows it. Keys of a quota group share what is
// learnt. [Lease.ObserveHeaders] does it with the end of the lease, in one transaction.
//
// It returns [ErrNotFound]. Headers that say nothing, or that cannot be read, change nothing.
func (r *Registry) ObserveHeaders(ctx context.Context, keyID uuid.UUID, header http.Header) error {
	op := fmt.Sprintf("observe headers of key %s", keyID)
	now := r.now()
	said := r.quotasOf(header, now)
	if len(said) == 0 {
		return nil
	}
	e := &commit.End{Key: keyID, Said: said, Outcome: commit.Observed}
	return translate(ctx, op, r.commit(ctx, commit.Call{Now: now, Actor: r.actor, End: e}))
}

// limitsSaid reads the provider's limits.
func (r *Registry) limitsSaid(header http.Header, now time.Time) []upstream.Quota {
	said := upstream.Quotas(header, now)
	for i := range said {
		said[i].Reset = utc.Min(said[i].Reset, now.Add(r.mostRetryAfter)) // zero stays zero
	}
	return said
}

// quotasOf reads the provider's limits. A Retry-After is one of which nothing is left.
func (r *Registry) quotasOf(header http.Header, now time.Time) []upstream.Quota {
	said := r.limitsSaid(header, now)
	until, ok := upstream.RetryAfter(header, now)
	until = utc.Min(until, now.Add(r.mostRetryAfter))
	if !ok || !until.After(now) {
		return said
	}
	for i := range said {
		if said[i].Meter != upstream.Requests {
			continue
		}
		if said[i].Remaining == 0 {
			until = utc.Max(until, said[i].Reset)
		}
		said[i].Remaining, said[i].Reset = 0, until
		return said
	}
	return append(said, upstream.Quota{Meter: upstream.Requests, Limit: -1, Remaining: 0, Reset: until})
}
