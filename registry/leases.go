package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
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

	// poll is how often AcquireKey asks again while it waits: other processes end leases too.
	poll = 250 * time.Millisecond
)

// AcquireInput describes the request that a key is leased for.
type AcquireInput struct {
	ProviderID uuid.UUID
	// ModelID is a model of the provider. Keys that are not for it are passed over, and Settle records usage of it. If
	// it is zero, the models of keys are ignored, and Settle must be given the model.
	ModelID uuid.UUID

	// ConsumerID is the consumer that the request is for, and AccessKeyID the access key that its caller has shown;
	// zero: nobody. Without a consumer it is the access key's. A request for a consumer names its model.
	ConsumerID  uuid.UUID
	AccessKeyID uuid.UUID

	EstimatedTokens int64 // tokens of all meters, reserved until the lease ends. Defaults to none
	// EstimatedOutputTokens is how many of these are output, reasoning included. Zero: unknown.
	EstimatedOutputTokens int64
	// EstimatedCost is reserved until the lease ends. For a consumer, and if a key or group of the provider has a limit
	// of cost, it defaults to what the estimated tokens cost in the standard tier, all as the dearest meter if the
	// output is not estimated. Otherwise, and if the model has no price, it defaults to none.
	EstimatedCost money.USD

	AttemptGroup string // what Settle and Fail record, unless they are told: see UsageInput
	Attempt      int
	Tags         Tags

	Exclude []uuid.UUID // up to 100 keys not to use, such as those that have just failed
	// Wait makes AcquireKey wait until a key can be used or the context ends. It does not wait for what cannot happen
	// by itself, such as the enabling of a disabled key, nor if no key can open before the context's deadline. It is
	// not allowed within a transaction.
	Wait bool
	// TTL is the lease's lifetime, one millisecond to twelve hours; when the lease expires, its reservation is
	// released. Required. Make it longer than the slowest request: if it is too short, more requests can be under way
	// than the limits allow; if it is too long, what a crashed process has reserved stays blocked for that long.
	TTL time.Duration
}

func (in AcquireInput) faults(inTx bool) (f fault.List) {
	checkEstimate(&f, in.EstimatedTokens, in.EstimatedCost, in.TTL)
	f.Check(in.EstimatedOutputTokens >= 0 && in.EstimatedOutputTokens <= max(0, in.EstimatedTokens),
		"estimated output tokens %d are not between 0 and the estimated tokens", in.EstimatedOutputTokens)
	checkAttempt(&f, in.AttemptGroup, in.Attempt)
	checkTags(&f, in.Tags)
	f.Check(len(in.Exclude) <= maxExclude, "%d keys to exclude are more than %d", len(in.Exclude), maxExclude)
	f.Check(in.ModelID != uuid.Nil || in.ConsumerID == uuid.Nil && in.AccessKeyID == uuid.Nil,
		"a request for a consumer names no model")
	f.Check(!in.Wait || !inTx, "Wait is not allowed within a transaction: others could not end their leases")
	return f
}

// checkEstimate adds the faults of what a lease reserves, and for how long.
func checkEstimate(f *fault.List, tokens int64, cost money.USD, ttl time.Duration) {
	f.Check(tokens >= 0 && tokens <= fault.MaxAmount,
		"estimated tokens %d are not between 0 and %d", tokens, int64(fault.MaxAmount))
	f.Check(cost >= 0 && cost <= fault.MaxAmount,
		"the estimated cost is not between 0 and %d nano-dollars", int64(fault.MaxAmount))
	f.Check(ttl >= minTTL && ttl <= maxTTL, "TTL %s is not between %s and %s", ttl, minTTL, maxTTL)
}

// releaseUnclaimed releases a lease after AcquireKey returned ErrUncertain: its caller does not know the lease. If
// releasing fails too, the lease expires.
func (r *Registry) releaseUnclaimed(ctx context.Context, provider, id uuid.UUID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commit.Patience)
	defer cancel()
	end := &commit.End{Lease: id, Provider: provider, Outcome: commit.Released}
	_ = r.commits.Do(ctx, commit.Call{Now: r.now(), Actor: r.actor, End: end})
}

// asking returns the call that asks for a key, without an id.
func (in AcquireInput) asking() *commit.Acquire {
	w := pool.Want{Amount: pool.Amount{Requests: 1, Tokens: in.EstimatedTokens, Cost: in.EstimatedCost}}
	if len(in.Exclude) > 0 {
		w.Exclude = make(map[uuid.UUID]bool, len(in.Exclude))
		for _, id := range in.Exclude {
			w.Exclude[id] = true
		}
	}
	return &commit.Acquire{
		Provider: in.ProviderID, Model: in.ModelID, TTL: in.TTL, Want: w,
		For:    commit.For{Consumer: in.ConsumerID, AccessKey: in.AccessKeyID},
		Output: in.EstimatedOutputTokens, AttemptGroup: in.AttemptGroup, Attempt: in.Attempt,
		Tags: dimension.Marshal(in.Tags),
	}
}

// Lease is the right to use a key for one request. It lasts until Settle, Fail or Release ends it, or until it expires.
// Its methods are safe for concurrent use; the first end counts.
type Lease struct {
	ID         uuid.UUID
	ProviderID uuid.UUID
	ModelID    uuid.UUID // zero: none was given
	KeyID      uuid.UUID
	KeyPrefix  string // of the API key
	KeyLabel   string
	// ConsumerID and AccessKeyID are whom the request is for, and by which access key it is made; zero: nobody.
	ConsumerID  uuid.UUID
	AccessKeyID uuid.UUID
	AcquiredAt  time.Time
	ExpiresAt   time.Time // Renew changes it
	// Probe reports whether the key was out of use and this request tries it. Other requests wait for how this one
	// ends.
	Probe bool

	state  atomic.Int32
	unsure atomic.Bool // an attempt to end it returned ErrUncertain

	mu   sync.Mutex
	reg  *Registry        // read it through registry
	said []upstream.Quota // limits from the provider's headers

	estimate     ledger.Estimate
	attemptGroup string
	attempt      int
	tags         Tags
}

// The states of a Lease.
const (
	leaseOpen int32 = iota
	leaseEnding
	leaseEnded
)

// registry returns the registry that ends the lease. Within InTx that is the transaction's, and afterwards the one that
// InTx was called on.
func (l *Lease) registry() *Registry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.reg; r.inTx && r.over.Load() {
		l.reg = r.outer.As(r.actor)
		l.state.CompareAndSwap(leaseEnded, leaseOpen) // the transaction may have been undone
	}
	return l.reg
}

// AcquireKey leases a key of a provider for one request. No key is used beyond its limits, from any number of
// goroutines or processes: a lease reserves one request and the estimates of the input. Callers that ask at the same
// time share one transaction.
//
// Among the usable keys it takes those of the highest priority, and among these it chooses by the registry's
// [KeyStrategy]. Limits are counted per UTC minute and UTC day; the request and its estimates count in those of now,
// whenever the request ends.
//
// End the lease with one of these:
//
//   - [Lease.Settle] when the request has succeeded
//   - [Lease.Fail] when it has failed
//   - [Lease.Release] when it was not made
//
// [Lease.Renew] lets it last longer, while a long answer is streamed.
//
// A lease that is not ended expires, and its reservation is released.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule, the model belongs to another provider, the access key is another
//     consumer's, or more than 64 ceilings bind the request
//   - [ErrForeignKey]: the model, the consumer or the access key is unknown
//   - [ErrForbidden], as a [*ForbiddenError]: the access key may not be used, the consumer or one above it is disabled
//     or deleted, or it may not use the model
//   - [ErrBudget], as a [*BudgetError]: the request does not fit into a budget of the consumer or of one above it. No
//     key is taken, whatever keys there are
//   - [ErrNoKeyAvailable], as a [*NoKeyError] that gives the reason for each key; also for an unknown provider, which
//     has no keys
//   - [ErrUncertain], as for RecordUsage
func (r *Registry) AcquireKey(ctx context.Context, in AcquireInput) (*Lease, error) {
	const op = "acquire key"
	f := in.faults(r.inTx)
	r.checkOwner(&f, in.ConsumerID, in.AccessKeyID)
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

func (r *Registry) acquireOnce(ctx context.Context, in AcquireInput) (*Lease, error) {
	a := in.asking()
	a.ID = uuid.Must(uuid.NewV7())
	if err := r.commit(ctx, commit.Call{Now: r.now(), Actor: r.actor, Acquire: a}); err != nil {
		// the caller does not know the lease
		if !r.inTx && errors.Is(err, ErrUncertain) {
			go r.releaseUnclaimed(ctx, a.Provider, a.ID)
		}
		return nil, err
	}
	l := a.Leased
	return &Lease{
		ID: l.ID, ProviderID: in.ProviderID, ModelID: in.ModelID, KeyID: l.Key, KeyPrefix: l.Prefix, KeyLabel: l.Label,
		ConsumerID: value(l.For), AccessKeyID: value(l.By),
		AcquiredAt: l.Acquired, ExpiresAt: l.Expires, Probe: l.Probe, reg: r,
		estimate: ledger.Estimate{Tokens: l.Tokens, Output: l.Output}, attemptGroup: l.AttemptGroup, attempt: l.Attempt,
		tags: maps.Clone(in.Tags),
	}, nil
}

// GetLease returns an open lease, so that a process can end a lease that another one has begun. It returns
// [ErrNotFound] if the lease has ended, or has expired and reserves nothing any more.
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
		ConsumerID: value(row.ConsumerID), AccessKeyID: value(row.AccessKeyID),
		AcquiredAt: row.AcquiredAt, ExpiresAt: row.ExpiresAt, Probe: row.Probe, reg: r,
		estimate:     ledger.Estimate{Tokens: row.ReservedTokens, Output: row.ReservedOutput},
		attemptGroup: row.AttemptGroup, attempt: row.Attempt, tags: row.Tags,
	}, nil
}

// Reveal returns the API key itself. Its errors are those of [Registry.RevealAPIKey].
func (l *Lease) Reveal(ctx context.Context) (Secret, error) {
	return l.registry().RevealAPIKey(ctx, l.KeyID)
}

// ObserveHeaders reads the provider's limits from the headers of an answer. Settle or Fail stores them. See
// [Registry.ObserveHeaders].
func (l *Lease) ObserveHeaders(header http.Header) {
	r := l.registry()
	said := r.quotasOf(header, r.now())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, said...)
}

// Settle ends the lease and records the request, in one transaction. It records as RecordUsage does; actual usage takes
// the place of the reservation.
//
//   - ModelID, APIKeyID, ConsumerID and AccessKeyID default to the lease's, RequestID to the lease's id, and At to
//     AcquiredAt: the request is counted where its lease was.
//   - The request counts once, however often Settle is called: after an error, call it again.
//   - A lease that has expired can still be settled for a day; its request is recorded too. Once another caller has
//     asked for a key of the provider, the request counts in the limits of its own time, At, and of the key's present
//     group.
//   - If the request id was recorded before, by another attempt for example, the lease ends and nothing is recorded.
//     Settle returns nil if that was the same request, and [ErrConflict] if not: see [Registry.RecordUsage].
//   - If the usage is unknown, the lease's estimate is recorded instead, as [UsageEstimated]: EstimatedOutputTokens as
//     output, or as reasoning if that is dearer, and the rest as input; all as the dearest meter if the output was not
//     estimated. In the limits of the key and its group, what the lease reserves counts as used. Without an estimate
//     the request is recorded as [UsageUnknown].
//
// It returns the errors of RecordUsage, and [ErrLeaseEnded] if the lease was ended, or is being ended, through any
// handle and by any process. It returns nil instead if the request is recorded.
func (l *Lease) Settle(ctx context.Context, in UsageInput) error {
	e := commit.End{Outcome: commit.Succeeded}
	if in.Failed {
		e.Outcome = commit.Used
	}
	return l.end(ctx, "settle lease", e, in, nil)
}

// Fail ends the lease of a failed call and returns the diagnosis, from which the caller can decide whether to try
// another key. In one transaction it does this:
//
//   - It classifies the failure, and takes the key out of use as [FailureClass] describes.
//   - It records the request as failed, with its class and status, as Settle does. If the lease has no model, it
//     records the request only if failure.Usage has one.
//   - It stores the limits that the failure's headers tell; they replace what ObserveHeaders has read.
//
// It returns the errors of Settle, and [ErrInvalidData] if a [Classifier] has returned an invalid diagnosis. The
// diagnosis is returned with an error too.
func (l *Lease) Fail(ctx context.Context, failure Failure) (Diagnosis, error) {
	r, in := l.registry(), failure.Usage
	now := r.now()
	d := r.classify(failure, now)
	d.Reason = fault.Clean(d.Reason, rule.MaxReason)
	in.Failed, in.ErrorClass = true, string(d.Class)
	if in.HTTPStatus == 0 && failure.Status >= 100 && failure.Status <= 599 {
		in.HTTPStatus = failure.Status
	}
	if failure.Header != nil { // without Retry-After, which is part of the diagnosis
		l.mu.Lock()
		l.said = r.limitsSaid(failure.Header, now)
		l.mu.Unlock()
	}
	e := commit.End{
		Outcome: commit.Failed,
		Failure: pool.Diagnosis{Class: upstream.Class(d.Class), Until: d.Until, Reason: d.Reason},
	}
	return d, l.end(ctx, "fail lease", e, in, d.faults())
}

// Release ends the lease of a request that was not made. It records nothing and releases the reservation. It returns
// [ErrLeaseEnded] as Settle does. After [ErrUncertain] it may be called again.
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
	case err == nil, errors.Is(err, ErrConflict): // it has ended
		r.waiters.wake(l.ProviderID)
	case errors.Is(err, ErrUncertain):
		l.unsure.Store(true)
	}
	return err
}

// lastCall returns the call that ends the lease, and its faults added to f.
func (l *Lease) lastCall(r *Registry, e commit.End, in UsageInput, f fault.List) (commit.Call, fault.List) {
	f.Text("actor", r.actor, 0, rule.MaxName)
	e.Lease, e.Key, e.Provider, e.Acquired, e.Repeated = l.ID, l.KeyID, l.ProviderID, l.AcquiredAt, l.unsure.Load()
	l.mu.Lock()
	e.Said = l.said
	estimate := l.estimate
	l.mu.Unlock()
	c := commit.Call{Now: r.now(), Actor: r.actor, End: &e}
	in.ModelID, in.APIKeyID = cmp.Or(in.ModelID, l.ModelID), cmp.Or(in.APIKeyID, l.KeyID)
	if in.At.IsZero() {
		in.At = utc.Min(l.AcquiredAt, c.Now.Add(maxAhead)) // the clock may have been set back
	}
	f.Check(in.APIKeyID == l.KeyID, "APIKeyID is not the lease's key")
	in.ConsumerID, in.AccessKeyID = cmp.Or(in.ConsumerID, l.ConsumerID), cmp.Or(in.AccessKeyID, l.AccessKeyID)
	f.Check(in.ConsumerID == l.ConsumerID && in.AccessKeyID == l.AccessKeyID,
		"ConsumerID or AccessKeyID is not the lease's")
	switch {
	case e.Outcome == commit.Released:
	case in.ModelID == uuid.Nil && e.Outcome == commit.Failed: // nothing to record it under
		if err := in.Validate(); err != nil {
			f.Check(false, "%s", err)
		}
		e.Tokens, e.Unknown = in.Total(), in.withDefaults(c.Now).Usage == UsageUnknown
	default:
		in.RequestID = cmp.Or(in.RequestID, l.ID.String())
		in.AttemptGroup, in.Attempt = cmp.Or(in.AttemptGroup, l.attemptGroup), cmp.Or(in.Attempt, l.attempt)
		if in.Tags == nil {
			in.Tags = l.tags
		}
		request, wrong := newRequest(in, c.Now)
		request.Estimate = estimate
		c.Request, f = request, append(f, wrong...)
	}
	return c, f
}
