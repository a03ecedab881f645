package registry

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// FailureClass says whose fault it is that a call failed, and how long a key is out of use for it:
//
//	class             the key is out                                            the least and the most, doubling
//	rate_limited      until the provider's Retry-After; else for                2 s, 5 min
//	quota_exhausted   until the quota's reset; else for; then one request       15 min, 6 h
//	                  tries it, and others follow when that has succeeded
//	auth              for, or a Retry-After within that; then one request       10 min, 6 h
//	                  tries it, likewise
//	server, timeout, bad_request   not at all
//
// Where the provider does not say how long, it is that long and up to a quarter more, twice as long with each failure
// of the same class that follows the last one's end, until a request succeeds. A failure of server, timeout or
// bad_request in between does not end the counting. A failure of another class that counts begins a new one. A key
// that one request tries is out for all others until that request has ended or its lease expires. Where the provider
// does say, it is a day at the most, see [WithMaxRetryAfter]; [Registry.RestoreKey] ends it. A quota group is out with
// its key, but for auth.
//
// When at least three accounts, and at least half of those that are in use, fail alike within ten seconds and none has
// succeeded since, it is the provider's incident: the provider cools down for 5 s, up to 5 min and a quarter more, and
// no key is out for it. A key without a group is an account.
type FailureClass string

// The classes.
const (
	RateLimited    = FailureClass(upstream.RateLimited)
	QuotaExhausted = FailureClass(upstream.QuotaExhausted)
	AuthFailed     = FailureClass(upstream.Auth)
	ServerFailed   = FailureClass(upstream.Server)
	TimedOut       = FailureClass(upstream.Timeout)
	BadRequest     = FailureClass(upstream.BadRequest)
)

// Failure describes a call that failed: an HTTP answer, or an error where there was none.
type Failure struct {
	Status int
	Header http.Header
	Body   []byte // of it, the beginning is enough; nothing of it is kept or shown
	Err    error

	// Usage is what is known of the request; as in Settle, but that it is recorded as one that failed, by its class and
	// status. Defaults to no tokens.
	Usage UsageInput
}

// Diagnosis is what a failure says of a key.
type Diagnosis struct {
	Class  FailureClass
	Until  time.Time // when the provider says the key may be used again; zero: it does not say
	Reason string    // for people; it is stored, cleaned and cut as [Registry.DegradeKey] does, and must not hold a secret
}

// Classifier tells what a failure says of a key. It must be safe for concurrent use.
type Classifier func(f Failure, now time.Time) Diagnosis

// Classify is the [Classifier] that is used unless [WithClassifier] sets another: by status, headers, and the error
// codes of OpenAI, Anthropic, Google, AWS and those that speak like them. Its Reason holds the status and the code,
// and nothing else of the answer: providers repeat keys in their messages. Its Until is at most a day ahead;
// [WithMaxRetryAfter] changes that for the registry.
func Classify(f Failure, now time.Time) Diagnosis {
	return classifyWithin(maxRetryAfter)(f, now)
}

// classifyWithin is Classify for answers that take a key out for no longer than most.
func classifyWithin(most time.Duration) Classifier {
	return func(f Failure, now time.Time) Diagnosis {
		d := upstream.Diagnose(upstream.Answer{Status: f.Status, Header: f.Header, Body: f.Body, Err: f.Err}, now)
		until := utc.Min(d.Until, now.Add(most)) // zero stays zero
		return Diagnosis{Class: FailureClass(d.Class), Until: until, Reason: d.Reason}
	}
}

// maxRetryAfter is the default of WithMaxRetryAfter, and longestRetryAfter what it takes at the most.
const (
	maxRetryAfter     = utc.Day
	longestRetryAfter = 365 * utc.Day
)

// WithMaxRetryAfter sets for how long at the most a provider's answer takes a key out of use, whatever its Retry-After
// and other headers and its body say: a second to 365 days. It does not bound what a [Classifier] of yours returns.
// Defaults to a day.
func WithMaxRetryAfter(most time.Duration) Option {
	return func(c *config) error {
		if most < time.Second || most > longestRetryAfter {
			return fmt.Errorf("WithMaxRetryAfter: %s is not within 1s and %s", most, longestRetryAfter)
		}
		c.mostRetryAfter = most
		return nil
	}
}

// WithClassifier sets what tells failures apart. Defaults to [Classify], which another one can call for what it does
// not know. What it returns is refused with [ErrInvalidData] unless the class is one of the six.
func WithClassifier(classify Classifier) Option {
	return func(c *config) error {
		if classify == nil {
			return fmt.Errorf("WithClassifier: the classifier is nil")
		}
		c.classify = classify
		return nil
	}
}

func (d Diagnosis) faults() fault.List {
	var f fault.List
	_, known := backoffs[d.Class]
	f.Check(known || d.Class == ServerFailed || d.Class == TimedOut || d.Class == BadRequest, "the failure's class is not one of the six")
	return f
}

// restPeriod is how long something is out of use: at first, and at the most.
type restPeriod struct{ first, most time.Duration }

// backoffs are those of the classes that count against a key.
var backoffs = map[FailureClass]restPeriod{
	RateLimited:    {2 * time.Second, 5 * time.Minute},
	QuotaExhausted: {15 * time.Minute, 6 * time.Hour},
	AuthFailed:     {10 * time.Minute, 6 * time.Hour},
}

// cooling is that of a provider.
var cooling = restPeriod{5 * time.Second, 5 * time.Minute}

// An incident is when so many keys fail alike within so long.
const (
	incidentAccounts = 3
	incidentWithin   = 10 * time.Second
)

// after returns when the n-th of consecutive failures is over: up to a quarter is added at random, so that not all
// come back at once.
func (b restPeriod) after(now time.Time, n int) time.Time {
	d := b.most
	if n = max(1, n); n < 20 {
		d = min(b.most, b.first<<(n-1))
	}
	return utc.Of(now.Add(d + rand.N(d/4+1)))
}

// leaseOutcome is when the use of a key under a lease began and ended.
type leaseOutcome struct{ acquired, now time.Time }

// noteSuccess takes into the states of the key and its provider that a request has succeeded, and returns what there is
// to record of that.
func (k *poolKey) noteSuccess(o leaseOutcome, p *poolProvider) (entries []auditEntry) {
	if k.succeededAt == nil || k.succeededAt.Before(o.now) {
		k.succeededAt = &o.now
		k.changed |= changedUses
	}
	if k.failedAt != nil && !o.acquired.Before(*k.failedAt) {
		k.failureClass, k.failedAt = "", nil
		k.changed |= changedState
	}
	if k.countedAt != nil && !o.acquired.Before(*k.countedAt) {
		k.forgetFailures()
	}
	if k.onProbation() && !k.degradedUntil.After(o.now) && !o.acquired.Before(*k.degradedUntil) {
		entries = append(entries, k.restore("a request succeeded"))
	}
	if p.coolingUntil != nil && !p.coolingUntil.After(o.acquired) && !p.coolingUntil.After(o.now) {
		p.coolingUntil, p.coolingReason, p.incidents, p.changed = nil, "", 0, true
	}
	return entries
}

// noteFailure takes into the states of the key and its provider that a request has failed, and returns what there is to
// record of that.
func (p *pool) noteFailure(k *poolKey, d Diagnosis, o leaseOutcome) []auditEntry {
	k.failedAt, k.failureClass = &o.now, d.Class
	k.changed |= changedState
	if p.isIncident(d.Class, o.now) || p.cools(o.now) && p.coolingReason == d.Class {
		return p.coolDown(d, o.now)
	}
	rest, counts := backoffs[d.Class]
	if !counts {
		return nil
	}
	n, fresh := k.countFailure(d.Class, o)
	isOut := k.degradedUntil != nil && k.degradedUntil.After(o.now)
	until := d.Until
	if !until.After(o.now) {
		if !fresh && isOut {
			return nil
		}
		until = rest.after(o.now, n)
	}
	until = utc.Min(utc.Of(until), o.now.Add(maxDegradation))
	if d.Class == AuthFailed {
		until = utc.Min(until, o.now.Add(rest.most+rest.most/4))
	} else if g := k.account; g != nil { // the account is out, with all its keys
		g.observe([]upstream.Quota{{Meter: upstream.Requests, Limit: -1, Remaining: 0, Reset: until}}, o.now)
		g.changed |= changedCounters
	}
	if isOut && k.degradedUntil.After(until) {
		return nil // it never moves back
	}
	return k.degrade(d, until, fresh, o.now)
}

// countFailure counts a failure of a class that puts keys out, and returns how many of that class have followed each
// other. Of requests that were under way together, only the first failure is fresh and counts.
func (k *poolKey) countFailure(class FailureClass, o leaseOutcome) (n int, fresh bool) {
	fresh = k.countedAt == nil || !o.acquired.Before(*k.countedAt)
	if k.countedClass == class {
		n = k.failures
	}
	if fresh {
		n = min(n+1, 1_000_000)
		k.failures, k.countedClass, k.countedAt = n, class, &o.now
	}
	return n, fresh
}

// forgetFailures has the next failure be the first one.
func (k *poolKey) forgetFailures() {
	k.failures, k.countedClass, k.countedAt = 0, "", nil
	k.changed |= changedState
}

// degrade takes the key out until an instant.
func (k *poolKey) degrade(d Diagnosis, until time.Time, fresh bool, now time.Time) []auditEntry {
	before, longer := k.state(), time.Duration(0)
	if k.degradedUntil != nil && k.degradedBy == d.Class && !fresh {
		longer = until.Sub(*k.degradedUntil)
	}
	if k.degradedUntil == nil || !k.degradedUntil.After(now) {
		k.degradedAt = &now
	}
	if d.Class != RateLimited || !k.onProbation() { // it is still to be tried
		k.degradedBy, k.degradedReason = d.Class, string(d.Class)
		if d.Reason != "" {
			k.degradedReason = fault.Cut(k.degradedReason+": "+d.Reason, maxReason)
		}
	}
	k.degradedUntil = &until
	switch {
	case longer > 0 && longer < time.Second:
		return nil // all that were under way together are told the same: once is enough
	case fresh && d.Class == RateLimited && k.failures&(k.failures-1) != 0:
		return nil // of a key that is tried every second and refused, the 1st, 2nd, 4th, 8th time and so on are
	}
	return []auditEntry{{action: ActionDegrade, entity: EntityAPIKey, id: k.id.String(), before: before, after: k.state()}}
}

// isIncident tells whether so many accounts have failed alike that it is none of them: all failures since the last
// success of any key count. Keys of a group are one account.
func (p *pool) isIncident(class FailureClass, now time.Time) bool {
	since := now.Add(-incidentWithin)
	for _, k := range p.keys {
		if k.succeededAt != nil && k.succeededAt.After(since) {
			since = *k.succeededAt
		}
	}
	inUse, alike := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	for _, k := range p.keys {
		account := k.id
		if k.group != nil {
			account = *k.group
		}
		hit := k.failedAt != nil && k.failureClass == class && k.failedAt.After(since)
		if hit {
			alike[account] = true
		}
		if hit || !k.disabled && (k.expires == nil || k.expires.After(now)) && (k.degradedUntil == nil || !k.degradedUntil.After(now)) {
			inUse[account] = true
		}
	}
	return len(alike) >= incidentAccounts && 2*len(alike) >= len(inUse)
}

// coolDown begins the provider's incident, or goes on with it, and takes back what the failures did to keys. What was
// before stays.
func (p *pool) coolDown(d Diagnosis, now time.Time) (entries []auditEntry) {
	until := utc.Min(utc.Of(d.Until), now.Add(cooling.most+cooling.most/4))
	if !p.cools(now) {
		p.incidents = min(p.incidents+1, 1_000_000)
		until = utc.Max(until, cooling.after(now, p.incidents))
	}
	if p.coolingUntil == nil || p.coolingUntil.Before(until) {
		before := p.state()
		p.coolingUntil, p.coolingReason = &until, d.Class
		entries = append(entries, auditEntry{action: ActionCoolDown, entity: EntityProvider, id: p.id.String(), before: before, after: p.state()})
	}
	p.changed = true
	since := now.Add(-incidentWithin)
	for _, k := range p.keys {
		if k.failureClass != d.Class || k.failedAt == nil || !k.failedAt.After(since) {
			continue
		}
		if k.degradedUntil != nil && k.degradedBy == d.Class && k.degradedAt != nil && k.degradedAt.After(since) {
			entries = append(entries, k.restore("it is the provider's incident"))
		}
		k.failureClass, k.failedAt = "", nil
		k.changed |= changedState
		if k.countedClass == d.Class {
			k.forgetFailures()
		}
		for _, q := range k.quotas() { // what the answers of this incident said is not the account's
			q.observed, q.held.observed = nil, amount{}
		}
		k.touch()
	}
	return entries
}

// restore ends the degradation of a key.
func (k *poolKey) restore(why string) auditEntry {
	before := k.state()
	k.degradedUntil, k.degradedAt, k.degradedBy, k.degradedReason = nil, nil, "", ""
	k.changed |= changedState
	after := k.state()
	after["why"] = why
	return auditEntry{action: ActionRestore, entity: EntityAPIKey, id: k.id.String(), before: before, after: after}
}

// state is what the audit trail says of a key.
func (k *poolKey) state() map[string]any {
	s := map[string]any{"degraded": k.degradedUntil != nil}
	if k.degradedUntil != nil {
		s["degraded_until"], s["degraded_by"], s["degraded_reason"] = *k.degradedUntil, k.degradedBy, k.degradedReason
	}
	return s
}

// state is what the audit trail says of a provider's incident.
func (p *poolProvider) state() map[string]any {
	if p.coolingUntil == nil {
		return map[string]any{}
	}
	return map[string]any{"cooling_until": *p.coolingUntil, "cooling_reason": p.coolingReason, "incidents": p.incidents}
}

// begin notes that a key is leased: a degradation that is over ends, or is tried.
func (k *poolKey) begin(lease uuid.UUID) (probe bool, entries []auditEntry) {
	limited := k.degradedBy == RateLimited
	switch {
	case k.degradedUntil == nil:
	case k.onProbation():
		after := k.state()
		after["lease"] = lease
		return true, []auditEntry{{action: ActionProbe, entity: EntityAPIKey, id: k.id.String(), before: k.state(), after: after}}
	default:
		over := k.restore("its time is over")
		if limited {
			break // what took it out said until when
		}
		entries = append(entries, over)
	}
	return false, entries
}
