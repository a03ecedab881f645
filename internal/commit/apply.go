package commit

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// apply does a call that records a request or ends a lease, or returns why it cannot.
func (b *batch) apply(c *Call) error {
	end := c.End
	if end == nil {
		if err := b.checkAccessKey(&c.Request); err != nil {
			return err
		}
		return b.record(&c.Request, c.Now, nil)
	}
	lease, expired := b.leases[end.Lease], b.expired[end.Lease]
	delete(b.leases, end.Lease)
	delete(b.expired, end.Lease)
	if end.Key == uuid.Nil {
		if lease != nil {
			b.release(lease, pool.Amount{})
		}
		return nil
	}
	k, ok := b.keys[end.Key]
	if !ok || end.Outcome == Observed && k.Deleted {
		return fault.Missing("API key", end.Key)
	}
	recorded, differs := b.isRecorded(&c.Request)
	switch {
	case end.Outcome == Observed:
	case lease == nil && expired == nil:
		if differs != nil {
			return fmt.Errorf("%w: %w", fault.ErrLeaseEnded, differs)
		}
		return end.again(c.records(), recorded)
	case recorded: // under another lease
		if lease != nil {
			b.release(lease, pool.Amount{})
		}
	case c.records():
		if err := b.record(&c.Request, c.Now, lease); err != nil { // the lease stays open, unless somebody else ends it
			if lease != nil {
				b.leases[lease.ID] = lease
			} else {
				b.expired[expired.ID] = expired
			}
			if !slices.Contains(b.refused, end.Lease) {
				b.refused = append(b.refused, end.Lease)
			}
			return err
		}
	case lease == nil: // what it reserved is released already
	case end.Outcome == Released:
		b.release(lease, pool.Amount{})
	case end.Unknown:
		b.release(lease, lease.Reserved())
	default:
		b.release(lease, pool.Amount{Requests: 1, Tokens: end.Tokens})
	}
	b.learnFrom(k, end, c.Actor)
	return differs
}

// isRecorded reports whether the id of a request is recorded, and returns fault.ErrConflict if that was another
// request. Requests from before there were fingerprints count as the same.
func (s *snapshot) isRecorded(req *Request) (recorded bool, differs error) {
	was, recorded := s.recorded[req.RequestID]
	if recorded && was != 0 && req.Fingerprint != 0 && was != req.Fingerprint {
		differs = fmt.Errorf("%w: request %.40q was recorded with other contents", fault.ErrConflict, req.RequestID)
	}
	return recorded, differs
}

// learnFrom notes what the end of a lease says of its key.
func (b *batch) learnFrom(k *pool.Key, end *End, actor string) {
	if len(end.Said) > 0 {
		k.Observes(end.Said, b.now)
	}
	o := pool.Outcome{Acquired: end.Acquired, Now: b.now}
	switch {
	case end.Outcome == Succeeded:
		b.audit(actor, k.NoteSuccess(o, b.providers[k.Provider]))
	case end.Outcome == Failed && end.Failure.Class != upstream.BadRequest:
		b.audit(actor, b.pools[k.Provider].NoteFailure(k, end.Failure, o))
	}
}

// again ends a lease that has ended already. It returns nil after an attempt whose answer was lost, and if the request
// is recorded; otherwise fault.ErrLeaseEnded.
func (end *End) again(records, recorded bool) error {
	if recorded && (end.Repeated || end.Outcome != Failed) || end.Repeated && !records {
		return nil
	}
	return fault.ErrLeaseEnded
}

// record adds a request to the changes, or returns why it cannot be recorded. If a lease ends with it, the request
// counts in place of the reservation.
func (b *batch) record(req *Request, now time.Time, lease *pool.Lease) error {
	of, ok := b.models[req.Model]
	if !ok {
		return fault.Missing("model", req.Model)
	}
	k, ok := b.keys[req.Key]
	if !ok {
		return fault.Missing("API key", req.Key)
	}
	if of.provider != k.Provider {
		return fmt.Errorf("%w: the key belongs to another provider than the model", fault.ErrInvalidData)
	}
	if recorded, differs := b.isRecorded(req); recorded {
		return differs
	}
	chain, err := b.chainOf(req.Consumer)
	if err != nil {
		return err
	}
	event := req.Event
	if err := b.checkTags(event.Tags, event.At); err != nil {
		return err
	}
	took, err := b.price(&event, req, lease)
	if err != nil {
		return err
	}
	if k.Uses >= fault.MaxAmount || k.Tokens > fault.MaxAmount-took.Tokens {
		return fault.ErrOverflow
	}
	if err := b.addToPeriods(&event); err != nil {
		return err
	}
	at := utc.Min(req.At, now) // a clock that is ahead must not begin the key's next day too early
	if chain != nil {
		b.spend(chain, of, event.At, tookOf(&event), counts(event.At))
	}
	k.AddUse(took, at)
	if lease != nil {
		if req.unknown() { // to break off evades no limit
			took = took.AtLeast(lease.Reserved())
		}
		b.release(lease, took)
	} else {
		k.Use(at, b.now, took)
	}
	b.events = append(b.events, event)
	if event.IsFolded(b.folded[event.Model]) {
		b.late = append(b.late, event)
	}
	b.recorded[req.RequestID] = req.Fingerprint
	return nil
}

// price gives the event of a request its price and its cost, and returns what it took. Unknown usage is supposed to be
// what was estimated, if anything was.
func (b *batch) price(event *ledger.Event, req *Request, lease *pool.Lease) (took pool.Amount, err error) {
	estimate, input := req.estimate(lease), event.Meters().TotalInput()
	if estimate.Tokens > 0 {
		input = estimate.TotalInput()
	}
	p := ledger.BestPrice(b.prices[req.Model], req.At, req.ServiceTier, input)
	if p == nil {
		return took, fault.Missing("price of model", req.Model)
	}
	if estimate.Tokens > 0 {
		event.Suppose(estimate, p)
	}
	event.Price = p.ID
	if event.Cost, err = event.CostAt(p); err != nil {
		return took, err
	}
	took = pool.Amount{Requests: 1, Tokens: event.Meters().Total()}
	if event.Cost != nil {
		took.Cost = *event.Cost
	}
	return took, nil
}

// acquire leases a key, or returns why none may be used now.
func (b *batch) acquire(c *Call) error {
	a, p := c.Acquire, b.pools[c.Acquire.Provider]
	a.Leased = nil // left by an attempt that was undone
	var err error
	if a.Want.Model, err = b.modelName(a.Model, a.Provider); err != nil {
		return err
	}
	if l := b.leases[a.ID]; l != nil { // the attempt whose answer was lost
		a.Leased = &Leased{*l, b.keys[l.Key].Prefix, b.keys[l.Key].Label}
		return nil
	}
	if err := b.checkTags(a.Tags, b.now); err != nil {
		return err
	}
	of := namedModel{a.Provider, a.Want.Model}
	l := &pool.Lease{
		ID: a.ID, Tokens: a.Want.Tokens, Output: a.Output, Cost: a.Want.Cost, AttemptGroup: a.AttemptGroup,
		Attempt: a.Attempt, Tags: a.Tags,
	}
	chain, by, err := b.admit(a.For, of)
	if err != nil {
		return err
	}
	if chain != nil {
		l.For, l.Path = &chain.consumer().ID, chain.consumer().Path
	}
	if by != nil {
		l.By = &by.ID
	}
	var asked budget.Request
	want := a.Want
	if b.mustPrice(a) {
		asked = b.priced(a.Model, b.now, ledger.Estimate{Tokens: l.Tokens, Output: l.Output}, l.Cost)
		l.Cost, want.Cost = asked.Asked.Cost, asked.Asked.Cost
	}
	k := p.Choose(want, b.now)
	if k != nil {
		asked.At = k.Begins(b.now)
	}
	bound := chain.bindings(of, asked.At)
	if err := b.fits(bound, a.For.Consumer, asked); err != nil {
		return err
	}
	if k == nil {
		return b.NoKey(p, want, b.now)
	}
	l.Key, l.Group = k.ID, k.Group
	var events []pool.Event
	l.Probe, events = k.Begin(a.ID)
	b.audit(c.Actor, events)
	p.Lease(k, l, b.now)
	l.Expires = utc.Of(l.Acquired.Add(a.TTL))
	if a.Model != uuid.Nil {
		l.Model = &a.Model
	}
	b.hold(bound, l)
	b.opened = append(b.opened, l)
	a.Leased = &Leased{*l, k.Prefix, k.Label}
	return nil
}

// mustPrice reports whether a request for a key must be priced: budgets ask what it costs; and the pool's limits of
// cost ask, unless the caller has said it.
func (s *snapshot) mustPrice(a *Acquire) bool {
	return a.For != (For{}) ||
		a.Model != uuid.Nil && a.Want.Cost == 0 && a.Want.Tokens > 0 && s.pools[a.Provider].LimitsCost()
}
