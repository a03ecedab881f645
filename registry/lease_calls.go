package registry

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

// acquisition is a key that is wanted.
type acquisition struct {
	id              uuid.UUID // of the lease
	provider, model uuid.UUID
	want            pool.Want
	ttl             time.Duration
	repeated        bool   // an attempt whose answer was lost may have acquired it
	lease           *Lease // what came of it
}

// leaseEnd is a lease that ends, or an observation of a key without one.
type leaseEnd struct {
	id, key, provider uuid.UUID
	acquired          time.Time
	said              []upstream.Quota
	failed            *pool.Diagnosis
	succeeded         bool
	release           bool  // nothing was done with it
	observation       bool  // there is no lease
	repeated          bool  // an attempt whose answer was lost may have ended it
	took              int64 // tokens, where nothing is recorded
}

// apply does a call that acquires nothing, or returns why it cannot be done.
func (s *snapshot) apply(c *call, e *changes) error {
	end := c.end
	if end == nil {
		return s.record(&c.record, nil, e)
	}
	lease, expired := s.leases[end.id], s.expired[end.id]
	delete(s.leases, end.id)
	delete(s.expired, end.id)
	if end.key == uuid.Nil { // nobody knows the lease, and it may not have come to be
		if lease != nil {
			s.release(lease, pool.Amount{})
		}
		return nil
	}
	k, ok := s.keys[end.key]
	if !ok || end.observation && k.Deleted {
		return fault.Missing("API key", end.key)
	}
	recorded := c.records() && s.recorded[c.RequestID]
	switch {
	case end.observation:
	case lease == nil && expired == nil:
		return end.again(c.records(), recorded)
	case recorded: // under another lease
		if lease != nil {
			s.release(lease, pool.Amount{})
		}
	case c.records():
		if err := s.record(&c.record, lease, e); err != nil { // it stays open, unless somebody else ends it
			if lease != nil {
				s.leases[lease.ID] = lease
			} else {
				s.expired[expired.ID] = expired
			}
			e.refused = append(e.refused, end.id)
			return err
		}
	case lease == nil: // what it reserved is free already
	case end.release:
		s.release(lease, pool.Amount{})
	default:
		s.release(lease, pool.Amount{Requests: 1, Tokens: end.took})
	}
	if len(end.said) > 0 {
		k.Observes(end.said, s.now)
	}
	o := pool.Outcome{Acquired: end.acquired, Now: s.now}
	switch {
	case end.succeeded:
		e.audit(c.actor, k.NoteSuccess(o, s.providers[k.Provider]))
	case end.failed != nil && end.failed.Class != upstream.BadRequest:
		e.audit(c.actor, s.pools[k.Provider].NoteFailure(k, *end.failed, o))
	}
	return nil
}

// again ends a lease that has ended already. That is acknowledged after an attempt whose answer was lost, and for a
// Settle whose request is recorded.
func (end *leaseEnd) again(records, recorded bool) error {
	if recorded && (end.repeated || end.failed == nil) || end.repeated && !records {
		return nil
	}
	return ErrLeaseEnded
}

// acquire leases a key. It returns a [*NoKeyError] if no key may be used now.
func (s *snapshot) acquire(c *call, e *changes) error {
	a, p := c.acquire, s.pools[c.acquire.provider]
	a.lease = nil // of an attempt that was undone
	if a.model != uuid.Nil {
		var err error
		if a.want.Model, err = s.modelName(a.model, a.provider); err != nil {
			return err
		}
	}
	if l := s.leases[a.id]; l != nil { // the attempt whose answer was lost
		a.lease = newHandle(a, s.keys[l.Key], l)
		return nil
	}
	k := p.Choose(a.want, s.now)
	if k == nil {
		return noKey(p, a.want, s.now)
	}
	l := &pool.Lease{ID: a.id, Key: k.ID, Group: k.Group, Tokens: a.want.Tokens, Cost: a.want.Cost}
	var events []pool.Event
	l.Probe, events = k.Begin(a.id)
	e.audit(c.actor, events)
	p.Lease(k, l, s.now)
	l.Expires = l.Acquired.Add(a.ttl)
	if a.model != uuid.Nil {
		l.Model = &a.model
	}
	e.leases = append(e.leases, l)
	a.lease = newHandle(a, k, l)
	return nil
}

// newHandle is a lease for its caller.
func newHandle(a *acquisition, k *pool.Key, l *pool.Lease) *Lease {
	return &Lease{
		ID: l.ID, ProviderID: a.provider, ModelID: a.model, KeyID: k.ID, KeyPrefix: k.Prefix, KeyLabel: k.Label,
		AcquiredAt: l.Acquired, ExpiresAt: l.Expires, Probe: l.Probe,
	}
}

// modelName returns the provider's name of a model.
func (s *snapshot) modelName(id, provider uuid.UUID) (string, error) {
	m, ok := s.names[id]
	if !ok {
		m, ok = s.models[id]
	}
	if !ok {
		return "", fault.Missing("model", id)
	}
	if m.provider != provider {
		return "", fmt.Errorf("%w: model %s, %q, is another provider's", ErrInvalidData, id, m.name)
	}
	return m.name, nil
}
