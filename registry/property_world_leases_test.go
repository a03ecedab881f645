package registry_test

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// Leases.

// lease is one that nobody has ended, though it may have expired.
type lease struct {
	ent.KeyLease
	provider uuid.UUID
	away     bool // it has expired, and been put away
}

// handle is a lease as its caller knows it, for ever.
type handle struct {
	id, provider, key, model uuid.UUID
	acquired, expires        time.Time
	ended                    bool // through it, as it knows
}

// errChoice is for a key that may not be handed out while others may.
var errChoice = errors.New("a key was handed out, or kept back, against the specification")

// errOther is for a lease that ends with a request whose id is another request's.
var errOther = fmt.Errorf("%w: and the lease ends", registry.ErrConflict)

// usable returns the verdicts on all live keys of a provider, and which of them may be handed out: those of the highest
// priority.
func (w *world) usable(in registry.AcquireInput) (all []registry.KeyVerdict, usable map[uuid.UUID]bool) {
	usable = map[uuid.UUID]bool{}
	highest := math.MinInt
	for _, k := range w.liveKeys(in.ProviderID) {
		v := w.verdict(k, in)
		all = append(all, v)
		if v.Reason != "" || v.Priority < highest {
			continue
		}
		if v.Priority > highest {
			clear(usable)
		}
		highest, usable[v.ID] = v.Priority, true
	}
	return all, usable
}

// checkAsked returns what is wrong with what a key is asked for.
func (w *world) checkAsked(in registry.AcquireInput) error {
	if in.EstimatedTokens < 0 || in.EstimatedCost < 0 || in.TTL < time.Millisecond || in.TTL > 12*time.Hour ||
		in.EstimatedOutputTokens > in.EstimatedTokens || in.Attempt < 0 || !okText(in.AttemptGroup, 0, 128) {
		return registry.ErrInvalidData
	}
	return nil
}

func (w *world) checkModel(model, provider uuid.UUID) error {
	m := w.model(model)
	switch {
	case model == uuid.Nil:
		return nil
	case m == nil:
		return errMissing
	case m.ProviderID != provider:
		return registry.ErrInvalidData
	}
	return nil
}

// estimatedCost returns what is reserved for a request: what it is said to cost, or else its estimate, if a limit asks.
func (w *world) estimatedCost(in registry.AcquireInput, at time.Time) money.USD {
	limited := false
	for _, k := range w.liveKeys(in.ProviderID) {
		for _, q := range w.quotas(k) {
			limited = limited || *q.costPerDay > 0
		}
	}
	if in.EstimatedCost > 0 || in.EstimatedTokens == 0 || w.model(in.ModelID) == nil || !limited {
		return in.EstimatedCost
	}
	p := w.priceOf(in.ModelID, "standard", in.EstimatedTokens-in.EstimatedOutputTokens, at)
	if p == nil {
		return 0
	}
	rates := registry.RatesOf(p)
	l := &lease{KeyLease: ent.KeyLease{
		ReservedTokens: in.EstimatedTokens, ReservedOutput: in.EstimatedOutputTokens,
	}}
	cost, priced := costOf(registry.UsageInput{Tokens: estimated(l, rates)}, rates)
	if !priced {
		return 0
	}
	return money.USD(cost.Int64())
}

func (w *world) acquireKey(in registry.AcquireInput) (*registry.Lease, error) {
	if err := w.checkAsked(in); err != nil {
		return nil, err
	}
	if err := w.checkModel(in.ModelID, in.ProviderID); err != nil {
		return nil, err
	}
	in.EstimatedCost = w.estimatedCost(in, w.now)
	all, usable := w.usable(in)
	if len(usable) == 0 {
		why := &registry.NoKeyError{ProviderID: in.ProviderID, Keys: all}
		for _, v := range all {
			if !v.Until.IsZero() && (why.OpensAt.IsZero() || v.Until.Before(why.OpensAt)) {
				why.OpensAt = v.Until
			}
			why.Sooner = why.Sooner || v.Reason == registry.KeyBusy || v.Reason == registry.KeyProbed
		}
		return nil, why
	}
	if !usable[w.seen.key] {
		return nil, errChoice
	}
	k := w.key(w.seen.key)
	l := &lease{provider: in.ProviderID, KeyLease: ent.KeyLease{
		ID: w.newID(), APIKeyID: k.ID, QuotaGroupID: k.QuotaGroupID, ReservedTokens: in.EstimatedTokens,
		ReservedCost: in.EstimatedCost, AcquiredAt: w.now, ExpiresAt: micro(w.now.Add(in.TTL)), Probe: onProbation(k),
		ReservedOutput: in.EstimatedOutputTokens, AttemptGroup: in.AttemptGroup, Attempt: in.Attempt,
	}}
	if in.ModelID != uuid.Nil {
		l.ModelID = &in.ModelID
	}
	if !l.Probe {
		w.restore(k) // if it was out, that is over
	}
	w.leases = append(w.leases, l)
	w.handles = append(w.handles, &handle{
		id: l.ID, provider: in.ProviderID, key: k.ID, model: in.ModelID, acquired: l.AcquiredAt, expires: l.ExpiresAt,
	})
	return w.shown(l), nil
}

// shown is what a caller sees of a lease.
func (w *world) shown(l *lease) *registry.Lease {
	k := w.key(l.APIKeyID)
	return &registry.Lease{
		ID: l.ID, ProviderID: l.provider, ModelID: *cmp.Or(l.ModelID,
			new(uuid.UUID)), KeyID: k.ID, KeyPrefix: k.KeyPrefix,
		KeyLabel: k.Label, AcquiredAt: l.AcquiredAt, ExpiresAt: l.ExpiresAt, Probe: l.Probe,
	}
}

func (w *world) explainKeys(in registry.AcquireInput) ([]registry.KeyVerdict, error) {
	in.TTL = time.Minute
	if err := w.checkAsked(in); err != nil {
		return nil, err
	}
	if err := w.checkModel(in.ModelID, in.ProviderID); err != nil {
		return nil, err
	}
	in.EstimatedCost = w.estimatedCost(in, w.now)
	all, usable := w.usable(in)
	if len(usable) > 0 && !usable[w.seen.key] {
		return nil, errChoice
	}
	for i := range all {
		all[i].Next = usable[all[i].ID] && all[i].ID == w.seen.key
	}
	return all, nil
}

func (w *world) lease(id uuid.UUID) *lease {
	return first(w.leases, func(l *lease) bool { return l.ID == id })
}

func (w *world) getLease(id uuid.UUID) (*registry.Lease, error) {
	l := w.lease(id)
	if l == nil || l.away {
		return nil, registry.ErrNotFound
	}
	return w.shown(l), nil
}

// ending is how a lease ends: through the handle that its caller has held since, or through another one.
type ending struct {
	id      uuid.UUID
	another bool
	used    registry.UsageInput
	failed  *said // how; nil: it did not
}

// begin returns what the end of a lease begins with: the handle, and the lease, nil if it is no more.
func (w *world) begin(e ending) (*handle, *lease, error) {
	h, l := first(w.handles, func(h *handle) bool { return h.id == e.id }), w.lease(e.id)
	switch {
	case e.another:
		if _, err := w.getLease(e.id); err != nil {
			return nil, nil, err
		}
		own := *h
		h, own.model = &own, *cmp.Or(l.ModelID, new(uuid.UUID))
	case h.ended:
		return nil, nil, registry.ErrLeaseEnded
	}
	return h, l, nil
}

// over has a lease reserve nothing any more. What it took counts in the windows in which it began.
func (w *world) over(l *lease, requests, tokens int64, cost money.USD) {
	w.leases = where(w.leases, func(other *lease) bool { return other != l })
	if l.away || requests == 0 {
		return
	}
	var all []quota
	if k := w.key(l.APIKeyID); k != nil {
		all = append(all, w.quotaOf(k))
	}
	for _, g := range w.groups {
		if l.QuotaGroupID != nil && g.ID == *l.QuotaGroupID {
			all = append(all, groupQuota(g))
		}
	}
	for _, q := range all {
		w.roll(q)
		q.countMinute(l.AcquiredAt, tokens)
		if !l.AcquiredAt.Before(*q.lastReset) { // else the day was begun anew meanwhile
			q.countDay(l.AcquiredAt, tokens, cost)
		}
	}
}

func (w *world) release(e ending) error {
	h, l, err := w.begin(e)
	switch {
	case err != nil:
		return err
	case w.key(h.key) == nil:
		return errMissing
	case l == nil:
		return registry.ErrLeaseEnded
	}
	w.over(l, 0, 0, 0)
	h.ended = true
	return nil
}

func (w *world) settle(e ending) error {
	h, l, err := w.begin(e)
	if err != nil {
		return err
	}
	if err = w.settled(h, l, e.used, true); err != nil && !errors.Is(err, errOther) {
		return err
	}
	h.ended = err == nil
	if k := w.key(h.key); l != nil && !e.used.Failed {
		w.succeed(k, h.acquired)
	}
	return err
}

// settled records the request of a lease, and ends it.
func (w *world) settled(h *handle, l *lease, in registry.UsageInput, acknowledged bool) error {
	if in.ModelID == uuid.Nil {
		in.ModelID = h.model
	}
	if in.APIKeyID == uuid.Nil {
		in.APIKeyID = h.key
	}
	in.RequestID = cmp.Or(in.RequestID, h.id.String())
	if in.At.IsZero() {
		in.At = h.acquired
	}
	if l != nil {
		in.AttemptGroup, in.Attempt = cmp.Or(in.AttemptGroup, l.AttemptGroup), cmp.Or(in.Attempt, l.Attempt)
	}
	if err := w.checkUsage(in); err != nil || in.APIKeyID != h.key {
		return registry.ErrInvalidData
	}
	recorded, differs := w.isRecorded(in)
	switch {
	case w.key(h.key) == nil:
		return errMissing
	case l == nil && recorded && acknowledged && differs == nil:
		return nil
	case l == nil:
		return registry.ErrLeaseEnded
	case recorded:
		w.over(l, 0, 0, 0)
		if differs != nil {
			return errOther
		}
		return nil
	}
	return w.addUsage(in, l)
}

func (w *world) fail(e ending) (registry.Diagnosis, error) {
	d := registry.Diagnosis{Class: e.failed.class, Reason: "said"}
	if e.failed.after > 0 {
		d.Until = w.now.Add(e.failed.after)
	}
	h, l, err := w.begin(e)
	if err != nil {
		return d, err
	}
	if d.Class == "unknown" {
		return d, registry.ErrInvalidData
	}
	in := e.used
	in.Failed, in.ErrorClass = true, string(d.Class)
	switch {
	case in.ModelID != uuid.Nil || h.model != uuid.Nil:
		err = w.settled(h, l, in, false)
	case !okTokens(in.InputTokens, in.OutputTokens, in.CacheReadTokens, in.CacheWriteTokens, in.ReasoningTokens):
		err = registry.ErrInvalidData
	case in.APIKeyID != uuid.Nil && in.APIKeyID != h.key:
		err = registry.ErrInvalidData
	case w.key(h.key) == nil:
		err = errMissing
	case l == nil:
		err = registry.ErrLeaseEnded
	case in.Usage == registry.UsageUnknown:
		w.over(l, 1, l.ReservedTokens, l.ReservedCost)
	default: // there is nothing to record it under
		w.over(l, 1, in.Total(), 0)
	}
	if err != nil && !errors.Is(err, errOther) {
		return d, err
	}
	h.ended = err == nil
	return d, cmp.Or(w.failed(w.key(h.key), d, h.acquired), err)
}
