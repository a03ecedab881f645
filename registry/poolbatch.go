package registry

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

// acquisition is a key that is wanted.
type acquisition struct {
	id              uuid.UUID // of the lease
	provider, model uuid.UUID
	want            wanted
	ttl             time.Duration
	repeated        bool   // an attempt whose answer was lost may have acquired it
	lease           *Lease // what came of it
}

// leaseEnd is a lease that ends, or an observation of a key without one.
type leaseEnd struct {
	id, key, provider uuid.UUID
	acquired          time.Time
	said              []upstream.Quota
	failed            *Diagnosis
	succeeded         bool
	release           bool  // nothing was done with it
	observation       bool  // there is no lease
	repeated          bool  // an attempt whose answer was lost may have ended it
	took              int64 // tokens, where nothing is recorded
}

// finish does a work that acquires nothing, or returns why it cannot be done.
func (b *basis) finish(w *work, e *entries) error {
	end := w.end
	if end == nil {
		return b.add(&w.record, nil, e)
	}
	lease, expired := b.leases[end.id], b.expired[end.id]
	delete(b.leases, end.id)
	delete(b.expired, end.id)
	if end.key == uuid.Nil { // nobody knows the lease, and it may not have come to be
		if lease != nil {
			b.free(lease)
		}
		return nil
	}
	k, ok := b.keys[end.key]
	if !ok || end.observation && k.deleted {
		return fault.Missing("API key", end.key)
	}
	recorded := w.records() && b.recorded[w.RequestID]
	switch {
	case end.observation:
	case lease == nil && expired == nil:
		return end.again(w.records(), recorded)
	case recorded: // under another lease
		if lease != nil {
			b.free(lease)
		}
	case w.records():
		if err := b.add(&w.record, lease, e); err != nil { // it stays open, unless somebody else ends it
			if lease != nil {
				b.leases[lease.id] = lease
			} else {
				b.expired[expired.id] = expired
			}
			e.refused = append(e.refused, end.id)
			return err
		}
	case lease == nil: // what it reserved is free already
	case end.release:
		b.free(lease)
	default:
		b.release(lease, amount{1, end.took, 0})
	}
	if len(end.said) > 0 {
		k.observes(end.said, b.now)
	}
	o := leaseOutcome{acquired: end.acquired, now: b.now}
	switch {
	case end.succeeded:
		e.audit(w.actor, k.noteSuccess(o, b.providers[k.provider]))
	case end.failed != nil && end.failed.Class != BadRequest:
		e.audit(w.actor, b.pools[k.provider].noteFailure(k, *end.failed, o))
	}
	return nil
}

// again ends a lease that has ended already. That is acknowledged after an attempt whose answer was lost, and for a Settle whose
// request is recorded.
func (end *leaseEnd) again(records, recorded bool) error {
	if recorded && (end.repeated || end.failed == nil) || end.repeated && !records {
		return nil
	}
	return ErrLeaseEnded
}

// acquire leases a key, or returns why there is none.
func (b *basis) acquire(w *work, e *entries) error {
	a, p := w.acquire, b.pools[w.acquire.provider]
	a.lease = nil // of an attempt that was undone
	if a.model != uuid.Nil {
		var err error
		if a.want.model, err = b.modelName(a.model, a.provider); err != nil {
			return err
		}
	}
	if l := b.leases[a.id]; l != nil { // the attempt whose answer was lost
		a.lease = newHandle(a, b.keys[l.key], l)
		return nil
	}
	k := p.choose(a.want, b.now)
	if k == nil {
		return p.noKey(a.want, b.now)
	}
	l := &openLease{id: a.id, key: k.id, group: k.group, tokens: a.want.tokens, cost: a.want.cost}
	var entries []auditEntry
	l.probe, entries = k.begin(a.id)
	e.audit(w.actor, entries)
	p.lease(k, l, b.now)
	l.expires = l.acquired.Add(a.ttl)
	if a.model != uuid.Nil {
		l.model = &a.model
	}
	e.leases = append(e.leases, l)
	a.lease = newHandle(a, k, l)
	return nil
}

// newHandle is a lease for its caller.
func newHandle(a *acquisition, k *poolKey, l *openLease) *Lease {
	return &Lease{
		ID: l.id, ProviderID: a.provider, ModelID: a.model, KeyID: k.id, KeyPrefix: k.prefix, KeyLabel: k.label,
		AcquiredAt: l.acquired, ExpiresAt: l.expires, Probe: l.probe,
	}
}

// modelName returns the provider's name of a model.
func (b *basis) modelName(id, provider uuid.UUID) (string, error) {
	m, ok := b.names[id]
	if !ok {
		m, ok = b.models[id]
	}
	if !ok {
		return "", fault.Missing("model", id)
	}
	if m.provider != provider {
		return "", fmt.Errorf("%w: model %s, %q, is another provider's", ErrInvalidData, id, m.name)
	}
	return m.name, nil
}
