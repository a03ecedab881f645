package registry

import (
	"bytes"
	"cmp"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// KeyStrategy is how AcquireKey chooses among the keys of the highest priority that may be used.
type KeyStrategy int

// The strategies.
const (
	// LeastUsed hands out keys in turn, each as often as its weight says. A key that was away, or is new, does not
	// make up for what it missed: it takes its turns from then on.
	LeastUsed KeyStrategy = iota
	// RoundRobin hands out the key that was handed out longest ago, whatever its weight.
	RoundRobin
	// MostHeadroom hands out the key whose scarcest limit is the least used, as a fraction of the limit; among equals as
	// LeastUsed.
	MostHeadroom
)

// poolKey is a key as the database has it, with what the choice, the counters and failures need.
type poolKey struct {
	id, provider uuid.UUID
	group        *uuid.UUID
	quota

	prefix, label              string
	uses, tokens               int64 // ever recorded
	extraRequests, extraTokens int64
	lastUsed                   *time.Time

	weight, priority int
	pass             int64 // start tag of the last lease, open ones included
	allowed, denied  []string

	deleted, disabled bool
	expires           *time.Time

	degradedUntil  *time.Time // nil: it is not
	degradedAt     *time.Time // having not been
	degradedReason string
	degradedBy     FailureClass
	failures       int
	countedClass   FailureClass // of those failures
	countedAt      *time.Time   // when the last of them was
	failureClass   FailureClass // of the last failure, whether it counts or not
	failedAt       *time.Time
	succeededAt    *time.Time
	changed        change
	account        *poolGroup // nil: it is in no group
}

// change says which columns of a row are to be written.
type change uint8

const (
	changedCounters change = 1 << iota // of what has ended, and the pass
	changedUses
	changedState
)

// poolGroup is a quota group.
type poolGroup struct {
	id, provider uuid.UUID
	name         string
	quota
	changed change
}

// poolProvider is what the pool has to know of a provider.
type poolProvider struct {
	id            uuid.UUID
	coolingUntil  *time.Time
	coolingReason FailureClass
	incidents     int
	changed       bool
}

// pool are the live keys of a provider, in the order of their ids.
type pool struct {
	keys []*poolKey
	*poolProvider
	strategy KeyStrategy
	turns    map[int]int64 // by priority: start tag of the last lease of any key
}

// stride is the distance of two turns of a key of weight 1.
const stride = 1 << 20

// open has those leases count that have not expired. They are all that there are of the provider's keys, those of keys that are
// deleted too: they may count in a group.
func (p *pool) open(leases []*openLease, groups map[uuid.UUID]*poolGroup, now time.Time) {
	keys := make(map[uuid.UUID]*poolKey, len(p.keys))
	for _, k := range p.keys {
		keys[k.id] = k
		for _, q := range k.quotas() {
			q.open = map[uuid.UUID]*openLease{}
			q.roll(now)
		}
	}
	for _, l := range leases {
		var counts []*quota
		if k := keys[l.key]; k != nil {
			k.pass = max(k.pass, l.pass)
			counts = append(counts, &k.quota)
		}
		if !l.expires.After(now) {
			continue
		}
		if l.group != nil {
			if g := groups[*l.group]; g != nil && g.open != nil {
				counts = append(counts, &g.quota)
			}
		}
		for _, q := range counts {
			q.rollTo(l.acquired, now)
			q.reserve(l)
		}
	}
	clear(p.turns)
	for _, k := range p.keys {
		p.turns[k.priority] = max(p.turns[k.priority], k.pass)
	}
}

// next is the start tag that a key would get now, as in start-time fair queueing (Goyal, Vin, Cheng 1996): its last one
// and its stride, but not before that of the lease of its priority that began last.
func (p *pool) next(k *poolKey, turn int64) int64 {
	if p.strategy == RoundRobin {
		return k.pass
	}
	return max(turn, k.pass+stride/int64(k.weight))
}

// candidate is a key with what it is chosen by.
type candidate struct {
	*poolKey
	headroom float64
	next     int64 // start tag that it would get
}

// before tells whether a key comes before another of the same priority.
func (a *candidate) before(b *candidate) bool {
	if a.headroom != b.headroom {
		return a.headroom > b.headroom
	}
	if a.next != b.next {
		return a.next < b.next
	}
	// Of those that were away, who was away longest.
	return cmp.Or(cmp.Compare(a.pass, b.pass), cmp.Compare(a.uses, b.uses), compareTimes(a.lastUsed, b.lastUsed), bytes.Compare(a.id[:], b.id[:])) < 0
}

// compareTimes puts nil first.
func compareTimes(a, b *time.Time) int {
	if a == nil || b == nil {
		return cmp.Compare(count(a != nil), count(b != nil))
	}
	return a.Compare(*b)
}

// headroom is the fraction that is free of the scarcest limit.
func (k *poolKey) headroom(want amount, now time.Time) float64 {
	for _, q := range k.quotas() {
		q.roll(now)
	}
	free := 1.0
	var buffer [16]window
	for _, w := range k.allWindows(want, now, buffer[:0]) {
		free = min(free, float64(w.limit-w.used)/float64(w.limit))
	}
	return free
}

// allWindows appends those of the key and of its group.
func (k *poolKey) allWindows(want amount, now time.Time, all []window) []window {
	all = k.windows(want, now, all)
	if k.account != nil {
		all = k.account.windows(want, now, all)
	}
	return all
}

// wanted is what an AcquireKey asks for.
type wanted struct {
	model   string // the provider's name of it; empty: none was given
	exclude map[uuid.UUID]bool
	amount
}

// choose returns the key to hand out, nil if there is none.
func (p *pool) choose(want wanted, now time.Time) *poolKey {
	if p.cools(now) {
		return nil
	}
	var best candidate
	var turn int64 // of the priority
	for i, k := range p.keys {
		if i == 0 || k.priority != p.keys[i-1].priority {
			turn = p.turns[k.priority]
		}
		if best.poolKey != nil && k.priority < best.priority {
			continue
		}
		c := candidate{poolKey: k, next: p.next(k, turn)}
		if p.strategy == MostHeadroom {
			c.headroom = k.headroom(want.amount, now)
		}
		// Whether it may be used is asked of those alone that would be taken.
		if best.poolKey != nil && k.priority == best.priority && !c.before(&best) {
			continue
		}
		if reason, _ := k.blocked(want, now); reason == "" {
			best = c
		}
	}
	return best.poolKey
}

// cools tells that the provider has an incident.
func (p *poolProvider) cools(now time.Time) bool {
	return p.coolingUntil != nil && p.coolingUntil.After(now)
}

// blocked returns why a key may not be leased, empty if it may, and when it opens by itself; zero: it does not, or when is not
// known.
func (k *poolKey) blocked(want wanted, now time.Time) (KeyReason, time.Time) {
	for _, q := range k.quotas() {
		q.roll(now)
	}
	switch {
	case k.disabled:
		return KeyDisabled, time.Time{}
	case k.expires != nil && !k.expires.After(now):
		return KeyExpired, time.Time{}
	case want.model != "" && (k.allowed != nil && !matchesModel(k.allowed, want.model) || matchesModel(k.denied, want.model)):
		return KeyDenied, time.Time{}
	case k.degradedUntil != nil && k.degradedUntil.After(now):
		_, opens := k.limited(want.amount, now)
		return KeyDegraded, utc.Max(*k.degradedUntil, opens)
	case k.onProbation() && k.isTried():
		return KeyProbed, time.Time{}
	}
	reason, opens := k.limited(want.amount, now)
	if reason == "" && want.exclude[k.id] {
		reason = KeyExcluded
	}
	return reason, opens
}

// limited is blocked by limits: of those that are closed, the one that opens last.
func (k *poolKey) limited(want amount, now time.Time) (reason KeyReason, opens time.Time) {
	if k.noLimits() && (k.account == nil || k.account.noLimits()) {
		return "", time.Time{}
	}
	var buffer [16]window // for all that there can be
	for _, w := range k.allWindows(want, now, buffer[:0]) {
		switch {
		case !w.closed():
		case w.of > w.limit:
			return KeyTooSmall, time.Time{}
		case reason == "" && w.name == Concurrency:
			reason = KeyBusy
		case w.name != Concurrency:
			reason = KeyLimited
			if w.end.After(opens) {
				opens = w.end
			}
		}
	}
	return reason, opens
}

// onProbation tells that the key was out for a reason that time alone does not mend: it is tried with one request,
// and others follow when that has succeeded.
func (k *poolKey) onProbation() bool {
	return k.degradedUntil != nil && (k.degradedBy == AuthFailed || k.degradedBy == QuotaExhausted)
}

// isTried tells that a request is under way that tries the key. What began before the key was back does not.
func (k *poolKey) isTried() bool {
	for _, l := range k.open {
		if !l.acquired.Before(*k.degradedUntil) {
			return true
		}
	}
	return false
}

// lease takes the key for a request. It begins now, or as late as what another process has noted whose clock is ahead: the minute
// that is counted, when the day was begun, and when the provider said what is left.
func (p *pool) lease(k *poolKey, l *openLease, now time.Time) {
	l.acquired = now
	for _, q := range k.quotas() {
		q.roll(now)
		l.acquired = utc.Max(l.acquired, *q.minute)
		l.acquired = utc.Max(l.acquired, q.lastReset)
		for _, o := range q.observed {
			if !o.Seen.After(now.Add(maxMinuteAhead)) {
				l.acquired = utc.Max(l.acquired, o.Seen)
			}
		}
	}
	for _, q := range k.quotas() {
		q.rollTo(l.acquired, now)
		q.reserve(l)
	}
	turn := p.turns[k.priority]
	if p.strategy == RoundRobin {
		l.pass = turn + 1
	} else {
		l.pass = p.next(k, turn)
	}
	k.pass, p.turns[k.priority] = l.pass, l.pass
}

// use counts what was used at an instant without a lease.
func (k *poolKey) use(at, now time.Time, a amount) {
	for _, q := range k.quotas() {
		q.roll(now)
		q.countMinute(at, a)
		q.countDay(at, a)
	}
	k.touch()
}

// quotas are that of the key and that of its group.
func (k *poolKey) quotas() []*quota {
	if k.account == nil {
		return []*quota{&k.quota}
	}
	return []*quota{&k.quota, &k.account.quota}
}

// observes takes what the provider said: of the account, if the key shares one.
func (k *poolKey) observes(said []upstream.Quota, now time.Time) {
	q := &k.quota
	if k.account != nil {
		q = &k.account.quota
	}
	q.observe(said, now)
	k.touch()
}

// touch notes that the counters of the key and of its group are to be written.
func (k *poolKey) touch() {
	k.changed |= changedCounters
	if k.account != nil {
		k.account.changed |= changedCounters
	}
}

// openLease is a lease that has not ended.
type openLease struct {
	id, key  uuid.UUID
	model    *uuid.UUID // nil: none was given
	group    *uuid.UUID // in which it counts; nil: none
	tokens   int64
	cost     money.USD
	pass     int64
	probe    bool
	acquired time.Time
	expires  time.Time
}
