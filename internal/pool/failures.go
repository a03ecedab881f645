package pool

import (
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// MaxDegradation is how long a key can be out of use.
const MaxDegradation = 10 * 365 * utc.Day

// restPeriod is how long something is out of use, at first and at most.
type restPeriod struct{ first, most time.Duration }

// backoffs has the classes that count against a key.
var backoffs = map[upstream.Class]restPeriod{
	upstream.RateLimited:    {2 * time.Second, 5 * time.Minute},
	upstream.QuotaExhausted: {15 * time.Minute, 6 * time.Hour},
	upstream.Auth:           {10 * time.Minute, 6 * time.Hour},
}

// cooling is a provider's rest period.
var cooling = restPeriod{5 * time.Second, 5 * time.Minute}

// It is an incident if so many accounts fail alike within so long.
const (
	incidentAccounts = 3
	incidentWithin   = 10 * time.Second
)

// after returns when the rest period of the n-th consecutive failure ends. Up to a quarter is added at random, so that
// not all come back at once.
func (b restPeriod) after(now time.Time, n int) time.Time {
	d := b.most
	if n = max(1, n); n < 20 {
		d = min(b.most, b.first<<(n-1))
	}
	return utc.Of(now.Add(d + rand.N(d/4+1)))
}

// Outcome says when the use of a key under a lease began and ended.
type Outcome struct{ Acquired, Now time.Time }

// NoteSuccess notes a successful request in the key and its provider, and returns the resulting events.
func (k *Key) NoteSuccess(o Outcome, p *Provider) (events []Event) {
	if k.SucceededAt == nil || k.SucceededAt.Before(o.Now) {
		k.SucceededAt = &o.Now
		k.Changed |= ChangedUses
	}
	if k.FailedAt != nil && !o.Acquired.Before(*k.FailedAt) {
		k.FailureClass, k.FailedAt = "", nil
		k.Changed |= ChangedState
	}
	if k.CountedAt != nil && !o.Acquired.Before(*k.CountedAt) {
		k.forgetFailures()
	}
	if k.OnProbation() && !k.DegradedUntil.After(o.Now) && !o.Acquired.Before(*k.DegradedUntil) {
		events = append(events, k.restore("a request succeeded"))
	}
	if p.CoolingUntil != nil && !p.CoolingUntil.After(o.Acquired) && !p.CoolingUntil.After(o.Now) {
		p.CoolingUntil, p.CoolingReason, p.Incidents, p.Changed = nil, "", 0, true
	}
	return events
}

// NoteFailure notes a failed request in the key and its provider, and returns the resulting events.
func (p *Pool) NoteFailure(k *Key, d Diagnosis, o Outcome) []Event {
	k.FailedAt, k.FailureClass = &o.Now, d.Class
	k.Changed |= ChangedState
	if p.isIncident(d.Class, o.Now) || p.Cools(o.Now) && p.CoolingReason == d.Class {
		return p.coolDown(d, o.Now)
	}
	rest, counts := backoffs[d.Class]
	if !counts {
		return nil
	}
	n, fresh := k.countFailure(d.Class, o)
	isOut := k.DegradedUntil != nil && k.DegradedUntil.After(o.Now)
	until := d.Until
	if !until.After(o.Now) {
		if !fresh && isOut {
			return nil
		}
		until = rest.after(o.Now, n)
	}
	until = utc.Min(utc.Of(until), o.Now.Add(MaxDegradation))
	if d.Class == upstream.Auth {
		until = utc.Min(until, o.Now.Add(rest.most+rest.most/4))
	} else if g := k.Account; g != nil { // the account is out, with all its keys
		g.observe([]upstream.Quota{{Meter: upstream.Requests, Limit: -1, Remaining: 0, Reset: until}}, o.Now)
		g.Changed |= ChangedCounters
	}
	if isOut && k.DegradedUntil.After(until) {
		return nil // it never moves back
	}
	return k.degrade(d, until, fresh, o.Now)
}

// countFailure counts a failure of a class that puts keys out, and returns how many of that class have come in a row.
// Of several requests under way together, only the first failure is fresh and counts.
func (k *Key) countFailure(class upstream.Class, o Outcome) (n int, fresh bool) {
	fresh = k.CountedAt == nil || !o.Acquired.Before(*k.CountedAt)
	if k.CountedClass == class {
		n = k.Failures
	}
	if fresh {
		n = min(n+1, 1_000_000)
		k.Failures, k.CountedClass, k.CountedAt = n, class, &o.Now
	}
	return n, fresh
}

// forgetFailures makes the next failure the first one.
func (k *Key) forgetFailures() {
	k.Failures, k.CountedClass, k.CountedAt = 0, "", nil
	k.Changed |= ChangedState
}

// degrade takes the key out until an instant.
func (k *Key) degrade(d Diagnosis, until time.Time, fresh bool, now time.Time) []Event {
	before, longer := k.state(), time.Duration(0)
	if k.DegradedUntil != nil && k.DegradedBy == d.Class && !fresh {
		longer = until.Sub(*k.DegradedUntil)
	}
	if k.DegradedUntil == nil || !k.DegradedUntil.After(now) {
		k.DegradedAt = &now
	}
	if d.Class != upstream.RateLimited || !k.OnProbation() { // the key is still to be tried
		k.DegradedBy, k.DegradedReason = d.Class, string(d.Class)
		if d.Reason != "" {
			k.DegradedReason = fault.Cut(k.DegradedReason+": "+d.Reason, rule.MaxReason)
		}
	}
	k.DegradedUntil = &until
	switch {
	case longer > 0 && longer < time.Second:
		return nil // requests under way together are told the same: one event is enough
	case fresh && d.Class == upstream.RateLimited && k.Failures&(k.Failures-1) != 0:
		return nil // a key that is refused every second makes events the 1st, 2nd, 4th, 8th time and so on
	}
	return []Event{{Kind: KeyDegraded, ID: k.ID, Before: before, After: k.state()}}
}

// isIncident reports whether the provider is at fault: many accounts have failed alike since the last success of any
// key. The keys of a group are one account.
func (p *Pool) isIncident(class upstream.Class, now time.Time) bool {
	since := now.Add(-incidentWithin)
	for _, k := range p.Keys {
		if k.SucceededAt != nil && k.SucceededAt.After(since) {
			since = *k.SucceededAt
		}
	}
	inUse, alike := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	for _, k := range p.Keys {
		account := k.ID
		if k.Group != nil {
			account = *k.Group
		}
		hit := k.FailedAt != nil && k.FailureClass == class && k.FailedAt.After(since)
		if hit {
			alike[account] = true
		}
		if hit || k.inUse(now) {
			inUse[account] = true
		}
	}
	return len(alike) >= incidentAccounts && 2*len(alike) >= len(inUse)
}

// inUse reports whether the key could be handed out now, apart from limits and probation.
func (k *Key) inUse(now time.Time) bool {
	isOut := k.DegradedUntil != nil && k.DegradedUntil.After(now)
	return !k.Disabled && !isOut && (k.Expires == nil || k.Expires.After(now))
}

// coolDown begins the provider's incident, or extends it, and undoes what its failures did to keys. Earlier
// degradations stay.
func (p *Pool) coolDown(d Diagnosis, now time.Time) (events []Event) {
	until := utc.Min(utc.Of(d.Until), now.Add(cooling.most+cooling.most/4))
	if !p.Cools(now) {
		p.Incidents = min(p.Incidents+1, 1_000_000)
		until = utc.Max(until, cooling.after(now, p.Incidents))
	}
	if p.CoolingUntil == nil || p.CoolingUntil.Before(until) {
		before := p.state()
		p.CoolingUntil, p.CoolingReason = &until, d.Class
		events = append(events, Event{Kind: ProviderCoolsDown, ID: p.ID, Before: before, After: p.state()})
	}
	p.Changed = true
	since := now.Add(-incidentWithin)
	for _, k := range p.Keys {
		if k.FailureClass != d.Class || k.FailedAt == nil || !k.FailedAt.After(since) {
			continue
		}
		if k.DegradedUntil != nil && k.DegradedBy == d.Class && k.DegradedAt != nil && k.DegradedAt.After(since) {
			events = append(events, k.restore("it is the provider's incident"))
		}
		k.FailureClass, k.FailedAt = "", nil
		k.Changed |= ChangedState
		if k.CountedClass == d.Class {
			k.forgetFailures()
		}
		for _, q := range k.quotas() { // the answers of an incident say nothing about the account
			q.Observed, q.Held.observed = nil, Amount{}
		}
		k.touch()
	}
	return events
}

// restore ends the degradation of a key.
func (k *Key) restore(why string) Event {
	before := k.state()
	k.DegradedUntil, k.DegradedAt, k.DegradedBy, k.DegradedReason = nil, nil, "", ""
	k.Changed |= ChangedState
	after := k.state()
	after["why"] = why
	return Event{Kind: KeyRestored, ID: k.ID, Before: before, After: after}
}

// state returns what the audit trail says of a key.
func (k *Key) state() map[string]any {
	s := map[string]any{"degraded": k.DegradedUntil != nil}
	if k.DegradedUntil != nil {
		s["degraded_until"], s["degraded_by"], s["degraded_reason"] = *k.DegradedUntil, k.DegradedBy, k.DegradedReason
	}
	return s
}

// state returns what the audit trail says of a provider's incident.
func (p *Provider) state() map[string]any {
	if p.CoolingUntil == nil {
		return map[string]any{}
	}
	return map[string]any{"cooling_until": *p.CoolingUntil, "cooling_reason": p.CoolingReason, "incidents": p.Incidents}
}

// Begin notes that a key is leased. A degradation whose time is over ends; on probation, the lease becomes the probe.
func (k *Key) Begin(lease uuid.UUID) (probe bool, events []Event) {
	limited := k.DegradedBy == upstream.RateLimited
	switch {
	case k.DegradedUntil == nil:
	case k.OnProbation():
		after := k.state()
		after["lease"] = lease
		return true, []Event{{Kind: KeyProbed, ID: k.ID, Before: k.state(), After: after}}
	default:
		over := k.restore("its time is over")
		if limited {
			break // the event that took it out said until when
		}
		events = append(events, over)
	}
	return false, events
}
