// Package pool decides which key of a provider a request gets, when a key may be used again, and what a failure does to
// it. It works on rows that others have read, runs no SQL and takes the time as an argument. It marks rows as changed
// that must be written, and returns events for the audit trail.
package pool

import (
	"bytes"
	"cmp"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Key is a row of a key, as far as the choice, the counters and failures need it.
type Key struct {
	ID, Provider uuid.UUID
	Group        *uuid.UUID
	Quota

	Prefix, Label              string
	Uses, Tokens               int64 // ever recorded
	ExtraRequests, ExtraTokens int64
	LastUsed                   *time.Time

	Weight, Priority int
	Pass             int64 // start tag of the last lease, open or ended
	Allowed, Denied  []string

	Deleted, Disabled bool
	Expires           *time.Time

	DegradedUntil  *time.Time // nil: not degraded
	DegradedAt     *time.Time // when it was degraded, having not been
	DegradedReason string
	DegradedBy     upstream.Class
	Failures       int
	CountedClass   upstream.Class // class of the counted Failures
	CountedAt      *time.Time     // when the last counted failure was
	FailureClass   upstream.Class // of the last failure, whether it counts or not
	FailedAt       *time.Time
	SucceededAt    *time.Time
	Changed        Change
	Account        *Group // nil: it is in no group
}

// Change says which columns of a row are to be written.
type Change uint8

// The columns that are written together.
const (
	ChangedCounters Change = 1 << iota // counters of ended requests, and the pass
	ChangedUses                        // the key's total use
	ChangedState                       // whether it is out, and why
)

// Group is a quota group.
type Group struct {
	ID, Provider uuid.UUID
	Name         string
	Quota
	Changed Change
}

// Provider is what the pool needs to know of a provider.
type Provider struct {
	ID            uuid.UUID
	CoolingUntil  *time.Time
	CoolingReason upstream.Class
	Incidents     int
	Changed       bool
}

// Pool has the live keys of a provider, in the order of their ids.
type Pool struct {
	Keys []*Key
	*Provider
	Strategy Strategy
	Turns    map[int]int64 // by priority: start tag of the last lease of any key
}

// stride is the distance between two turns of a key of weight 1.
const stride = 1 << 20

// Open counts the leases that have not expired. It is given all leases of the provider, including leases of deleted
// keys, which may count in a group.
func (p *Pool) Open(leases []*Lease, groups map[uuid.UUID]*Group, now time.Time) {
	keys := make(map[uuid.UUID]*Key, len(p.Keys))
	for _, k := range p.Keys {
		keys[k.ID] = k
		for _, q := range k.quotas() {
			q.Open = map[uuid.UUID]*Lease{}
			q.Roll(now)
		}
	}
	for _, l := range leases {
		var counts []*Quota
		if k := keys[l.Key]; k != nil {
			k.Pass = max(k.Pass, l.Pass)
			counts = append(counts, &k.Quota)
		}
		if !l.Expires.After(now) {
			continue
		}
		if l.Group != nil {
			if g := groups[*l.Group]; g != nil && g.Open != nil {
				counts = append(counts, &g.Quota)
			}
		}
		for _, q := range counts {
			q.rollTo(l.Acquired, now)
			q.reserve(l)
		}
	}
	clear(p.Turns)
	for _, k := range p.Keys {
		p.Turns[k.Priority] = max(p.Turns[k.Priority], k.Pass)
	}
}

// next returns the start tag that a key would get now, as in start-time fair queueing (Goyal, Vin, Cheng 1996): its
// last tag plus its stride, but not before the last tag of its priority.
func (p *Pool) next(k *Key, turn int64) int64 {
	if p.Strategy == RoundRobin {
		return k.Pass
	}
	return max(turn, k.Pass+stride/int64(k.Weight))
}

// candidate is a key with the values that it is chosen by.
type candidate struct {
	*Key
	headroom float64
	next     int64 // start tag that it would get
}

// before reports whether a key comes before another of the same priority.
func (a *candidate) before(b *candidate) bool {
	if a.headroom != b.headroom {
		return a.headroom > b.headroom
	}
	if a.next != b.next {
		return a.next < b.next
	}
	// Among keys that were away, the longest away comes first.
	return cmp.Or(cmp.Compare(a.Pass, b.Pass), cmp.Compare(a.Uses, b.Uses),
		valueOf(a.LastUsed).Compare(valueOf(b.LastUsed)), bytes.Compare(a.ID[:], b.ID[:])) < 0
}

// valueOf returns a time, or zero, which is before all of ours.
func valueOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// headroom returns the free fraction of the scarcest limit.
func (k *Key) headroom(want Amount, now time.Time) float64 {
	for _, q := range k.quotas() {
		q.Roll(now)
	}
	free := 1.0
	var buffer [16]Window
	for _, w := range k.AllWindows(want, now, buffer[:0]) {
		free = min(free, float64(w.Limit-w.Used)/float64(w.Limit))
	}
	return free
}

// AllWindows appends the windows of the key and its group.
func (k *Key) AllWindows(want Amount, now time.Time, all []Window) []Window {
	all = k.Windows(want, now, all)
	if k.Account != nil {
		all = k.Account.Windows(want, now, all)
	}
	return all
}

// Want says what a request asks of a key.
type Want struct {
	Model   string // the provider's name for the model; empty: none was given
	Exclude map[uuid.UUID]bool
	Amount
}

// Choose returns the key to hand out, or nil if no key may be used.
func (p *Pool) Choose(want Want, now time.Time) *Key {
	if p.Cools(now) {
		return nil
	}
	var best candidate
	var turn int64 // of the priority
	for i, k := range p.Keys {
		if i == 0 || k.Priority != p.Keys[i-1].Priority {
			turn = p.Turns[k.Priority]
		}
		if best.Key != nil && k.Priority < best.Priority {
			continue
		}
		c := candidate{Key: k, next: p.next(k, turn)}
		if p.Strategy == MostHeadroom {
			c.headroom = k.headroom(want.Amount, now)
		}
		// Blocked is asked only for keys that would be taken.
		if best.Key != nil && k.Priority == best.Priority && !c.before(&best) {
			continue
		}
		if reason, _ := k.Blocked(want, now); reason == "" {
			best = c
		}
	}
	return best.Key
}

// Cools reports whether the provider has an incident.
func (p *Provider) Cools(now time.Time) bool {
	return p.CoolingUntil != nil && p.CoolingUntil.After(now)
}

// Blocked returns why a key may not be leased, empty if it may, and when it opens by itself: zero if it does not, or if
// that is not known.
func (k *Key) Blocked(want Want, now time.Time) (Reason, time.Time) {
	for _, q := range k.quotas() {
		q.Roll(now)
	}
	switch {
	case k.Disabled:
		return Disabled, time.Time{}
	case k.Expires != nil && !k.Expires.After(now):
		return Expired, time.Time{}
	case !k.allows(want.Model):
		return Denied, time.Time{}
	case k.DegradedUntil != nil && k.DegradedUntil.After(now):
		_, opens := k.limited(want.Amount, now)
		return Degraded, utc.Max(*k.DegradedUntil, opens)
	case k.OnProbation() && k.isTried():
		return Probed, time.Time{}
	}
	reason, opens := k.limited(want.Amount, now)
	if reason == "" && want.Exclude[k.ID] {
		reason = Excluded
	}
	return reason, opens
}

// allows reports whether the key is for a model; an empty name is any.
func (k *Key) allows(model string) bool {
	return model == "" || (k.Allowed == nil || rule.InModels(k.Allowed, model)) && !rule.InModels(k.Denied, model)
}

// limited is Blocked by limits alone. If several limits are closed, the one that opens last decides.
func (k *Key) limited(want Amount, now time.Time) (reason Reason, opens time.Time) {
	if k.noLimits() && (k.Account == nil || k.Account.noLimits()) {
		return "", time.Time{}
	}
	var buffer [16]Window // enough for all windows
	for _, w := range k.AllWindows(want, now, buffer[:0]) {
		switch {
		case !w.Closed():
		case w.of > w.Limit:
			return TooSmall, time.Time{}
		case reason == "" && w.Name == Concurrency:
			reason = Busy
		case w.Name != Concurrency:
			reason = Limited
			if w.end.After(opens) {
				opens = w.end
			}
		}
	}
	return reason, opens
}

// OnProbation reports whether the key was out for a reason that time alone does not mend. One request then tries it,
// and others follow when that one has succeeded.
func (k *Key) OnProbation() bool {
	return k.DegradedUntil != nil && (k.DegradedBy == upstream.Auth || k.DegradedBy == upstream.QuotaExhausted)
}

// isTried reports whether a request under way tries the key. Requests that began before the key was back do not.
func (k *Key) isTried() bool {
	for _, l := range k.Open {
		if !l.Acquired.Before(*k.DegradedUntil) {
			return true
		}
	}
	return false
}

// Begins returns when a lease of the key would begin: now. If another process has a clock that is ahead, it begins as
// late as that process's notes: the counted minute, the begin of the day, and the provider's last answer.
func (k *Key) Begins(now time.Time) time.Time {
	at := now
	for _, q := range k.quotas() {
		q.Roll(now)
		at = utc.Max(at, utc.Max(*q.Minute, q.LastReset))
		for _, o := range q.Observed {
			if !o.Seen.After(now.Add(maxMinuteAhead)) {
				at = utc.Max(at, o.Seen)
			}
		}
	}
	return at
}

// Lease takes the key for a request.
func (p *Pool) Lease(k *Key, l *Lease, now time.Time) {
	l.Acquired = k.Begins(now)
	for _, q := range k.quotas() {
		q.rollTo(l.Acquired, now)
		q.reserve(l)
	}
	turn := p.Turns[k.Priority]
	if p.Strategy == RoundRobin {
		l.Pass = turn + 1
	} else {
		l.Pass = p.next(k, turn)
	}
	k.Pass, p.Turns[k.Priority] = l.Pass, l.Pass
}

// Use counts what was used without a lease at an instant.
func (k *Key) Use(at, now time.Time, a Amount) {
	for _, q := range k.quotas() {
		q.Roll(now)
		q.countMinute(at, a)
		q.countDay(at, a)
	}
	k.touch()
}

// AddUse adds to the key's total use.
func (k *Key) AddUse(took Amount, at time.Time) {
	k.Uses += took.Requests
	k.Tokens += took.Tokens
	if k.LastUsed == nil || k.LastUsed.Before(at) {
		k.LastUsed = &at
	}
	k.Changed |= ChangedUses
}

// quotas returns the quotas of the key and its group.
func (k *Key) quotas() []*Quota {
	if k.Account == nil {
		return []*Quota{&k.Quota}
	}
	return []*Quota{&k.Quota, &k.Account.Quota}
}

// Observes notes the limits that the provider stated: in the group, if the key has one.
func (k *Key) Observes(said []upstream.Quota, now time.Time) {
	q := &k.Quota
	if k.Account != nil {
		q = &k.Account.Quota
	}
	q.observe(said, now)
	k.touch()
}

// touch marks the counters of the key and its group as changed.
func (k *Key) touch() {
	k.Changed |= ChangedCounters
	if k.Account != nil {
		k.Account.Changed |= ChangedCounters
	}
}

// Lease is a lease that has not ended.
type Lease struct {
	ID, Key  uuid.UUID
	Model    *uuid.UUID // nil: none was given
	Group    *uuid.UUID // the group in which it counts; nil: none
	For      *uuid.UUID // the consumer that it is for; nil: nobody
	Path     string     // of that consumer
	By       *uuid.UUID // the access key of the caller; nil: none
	Tokens   int64
	Output   int64 // of Tokens; 0: it was not said
	Cost     money.USD
	Pass     int64
	Probe    bool
	Acquired time.Time
	Expires  time.Time

	Tags         string // JSON; empty: none
	AttemptGroup string
	Attempt      int
}
