// Package pool decides which key of a provider a request gets, when a key may be used again, and what a failure does to
// it. It works on rows that were read: it runs no SQL and takes the time as an argument. What is to be written is
// marked as changed, and what is to be told is returned as events.
package pool

import (
	"bytes"
	"cmp"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Key is a key as the database has it, with what the choice, the counters and failures need.
type Key struct {
	ID, Provider uuid.UUID
	Group        *uuid.UUID
	Quota

	Prefix, Label              string
	Uses, Tokens               int64 // ever recorded
	ExtraRequests, ExtraTokens int64
	LastUsed                   *time.Time

	Weight, Priority int
	Pass             int64 // start tag of the last lease, open ones included
	Allowed, Denied  []string

	Deleted, Disabled bool
	Expires           *time.Time

	DegradedUntil  *time.Time // nil: it is not
	DegradedAt     *time.Time // having not been
	DegradedReason string
	DegradedBy     upstream.Class
	Failures       int
	CountedClass   upstream.Class // of those failures
	CountedAt      *time.Time     // when the last of them was
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
	ChangedCounters Change = 1 << iota // what was counted of requests that have ended, and the pass
	ChangedUses                        // what the key was ever used for
	ChangedState                       // whether it is out, and why
)

// Group is a quota group.
type Group struct {
	ID, Provider uuid.UUID
	Name         string
	Quota
	Changed Change
}

// Provider is what the pool has to know of a provider.
type Provider struct {
	ID            uuid.UUID
	CoolingUntil  *time.Time
	CoolingReason upstream.Class
	Incidents     int
	Changed       bool
}

// Pool are the live keys of a provider, in the order of their ids.
type Pool struct {
	Keys []*Key
	*Provider
	Strategy Strategy
	Turns    map[int]int64 // by priority: start tag of the last lease of any key
}

// stride is the distance of two turns of a key of weight 1.
const stride = 1 << 20

// Open counts the leases that have not expired. Leases are all of the provider's, also those of deleted keys, because
// these may count in a group.
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

// next is the start tag that a key would get now, as in start-time fair queueing (Goyal, Vin, Cheng 1996): its last one
// and its stride, but not before that of the lease of its priority that began last.
func (p *Pool) next(k *Key, turn int64) int64 {
	if p.Strategy == RoundRobin {
		return k.Pass
	}
	return max(turn, k.Pass+stride/int64(k.Weight))
}

// candidate is a key with what it is chosen by.
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
	// Of those that were away, who was away longest.
	return cmp.Or(cmp.Compare(a.Pass, b.Pass), cmp.Compare(a.Uses, b.Uses), compareTimes(a.LastUsed, b.LastUsed),
		bytes.Compare(a.ID[:], b.ID[:])) < 0
}

// compareTimes puts nil first.
func compareTimes(a, b *time.Time) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return a.Compare(*b)
}

// headroom is the fraction that is free of the scarcest limit.
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

// AllWindows appends those of the key and of its group.
func (k *Key) AllWindows(want Amount, now time.Time, all []Window) []Window {
	all = k.Windows(want, now, all)
	if k.Account != nil {
		all = k.Account.Windows(want, now, all)
	}
	return all
}

// Want is what a request asks of a key.
type Want struct {
	Model   string // the provider's name of it; empty: none was given
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
		// Whether it may be used is asked of those alone that would be taken.
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

// Blocked returns why a key may not be leased, empty if it may, and when it opens by itself; zero: it does not, or when
// is not known.
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
	return model == "" || (k.Allowed == nil || matchesModel(k.Allowed, model)) && !matchesModel(k.Denied, model)
}

// limited is Blocked by limits alone. If several limits are closed, the one that opens last decides.
func (k *Key) limited(want Amount, now time.Time) (reason Reason, opens time.Time) {
	if k.noLimits() && (k.Account == nil || k.Account.noLimits()) {
		return "", time.Time{}
	}
	var buffer [16]Window // for all that there can be
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

// OnProbation reports whether the key was out for a reason that time alone does not mend: it is tried with one request,
// and others follow when that has succeeded.
func (k *Key) OnProbation() bool {
	return k.DegradedUntil != nil && (k.DegradedBy == upstream.Auth || k.DegradedBy == upstream.QuotaExhausted)
}

// isTried reports whether a request is under way that tries the key. What began before the key was back does not.
func (k *Key) isTried() bool {
	for _, l := range k.Open {
		if !l.Acquired.Before(*k.DegradedUntil) {
			return true
		}
	}
	return false
}

// Lease takes the key for a request. It begins now, or as late as what another process has noted whose clock is ahead:
// the minute that is counted, when the day was begun, and when the provider said what is left.
func (p *Pool) Lease(k *Key, l *Lease, now time.Time) {
	l.Acquired = now
	for _, q := range k.quotas() {
		q.Roll(now)
		l.Acquired = utc.Max(l.Acquired, *q.Minute)
		l.Acquired = utc.Max(l.Acquired, q.LastReset)
		for _, o := range q.Observed {
			if !o.Seen.After(now.Add(maxMinuteAhead)) {
				l.Acquired = utc.Max(l.Acquired, o.Seen)
			}
		}
	}
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

// Use counts what was used at an instant without a lease.
func (k *Key) Use(at, now time.Time, a Amount) {
	for _, q := range k.quotas() {
		q.Roll(now)
		q.countMinute(at, a)
		q.countDay(at, a)
	}
	k.touch()
}

// AddUse adds to what the key has ever been used for.
func (k *Key) AddUse(took Amount, at time.Time) {
	k.Uses += took.Requests
	k.Tokens += took.Tokens
	if k.LastUsed == nil || k.LastUsed.Before(at) {
		k.LastUsed = &at
	}
	k.Changed |= ChangedUses
}

// quotas are that of the key and that of its group.
func (k *Key) quotas() []*Quota {
	if k.Account == nil {
		return []*Quota{&k.Quota}
	}
	return []*Quota{&k.Quota, &k.Account.Quota}
}

// Observes takes what the provider said: of the account, if the key shares one.
func (k *Key) Observes(said []upstream.Quota, now time.Time) {
	q := &k.Quota
	if k.Account != nil {
		q = &k.Account.Quota
	}
	q.observe(said, now)
	k.touch()
}

// touch notes that the counters of the key and of its group are to be written.
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
	Group    *uuid.UUID // in which it counts; nil: none
	Tokens   int64
	Cost     money.USD
	Pass     int64
	Probe    bool
	Acquired time.Time
	Expires  time.Time
}
