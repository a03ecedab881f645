package registry_test

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// What failures and successes do to keys.

// said is a failure of which the test says what it is.
type said struct {
	class registry.FailureClass
	after time.Duration // when the provider says that the key may be used again; zero: it does not
}

func (s said) Error() string { return string(s.class) }

// classifySaid is the registries' classifier.
func classifySaid(f registry.Failure, now time.Time) registry.Diagnosis {
	var s said
	errors.As(f.Err, &s)
	d := registry.Diagnosis{Class: s.class, Reason: "said"}
	if s.after > 0 {
		d.Until = now.Add(s.after)
	}
	return d
}

// rest is how long something is out for a failure of its provider's or its own: the first time, and at the most.
type rest struct{ first, most time.Duration }

var (
	rests = map[registry.FailureClass]rest{
		registry.FailureRateLimited:    {first: 2 * time.Second, most: 5 * time.Minute},
		registry.FailureQuotaExhausted: {first: 15 * time.Minute, most: 6 * time.Hour},
		registry.FailureAuth:           {first: 10 * time.Minute, most: 6 * time.Hour},
	}
	coolingRest = rest{first: 5 * time.Second, most: 5 * time.Minute}
)

// after is when the n-th rest in a row is over: up to a quarter is added by chance.
func (r rest) after(now time.Time, n int) span {
	d := r.first
	for range n - 1 {
		d = min(2*d, r.most)
	}
	return span{from: now.Add(d), to: now.Add(d + d/4)}
}

// errChance is for a rest that is shorter or longer than chance may make it.
var errChance = errors.New("it is out for a time that chance cannot make")

func isOut(k *ent.APIKey, now time.Time) bool {
	return k.DegradedUntil != nil && k.DegradedUntil.After(now)
}

func cools(p *ent.Provider, now time.Time) bool {
	return p.CoolingUntil != nil && p.CoolingUntil.After(now)
}

// onProbation reports whether one request has to try the key before others follow.
func onProbation(k *ent.APIKey) bool {
	return k.DegradedUntil != nil && slices.Contains([]string{"auth", "quota_exhausted"}, k.DegradedBy)
}

// restore has a key be out no more.
func (*world) restore(k *ent.APIKey) {
	k.Degraded, k.DegradedUntil, k.DegradedAt, k.DegradedReason, k.DegradedBy = false, nil, nil, "", ""
}

func forgetFailures(k *ent.APIKey) { k.Failures, k.CountedClass, k.CountedAt = 0, "", nil }

// succeed notes that a request has succeeded that began at an instant: what failed before then is forgotten.
func (w *world) succeed(k *ent.APIKey, began time.Time) {
	now := w.now
	k.SucceededAt = &now
	since := func(t *time.Time) bool { return t != nil && !began.Before(*t) }
	if since(k.FailedAt) {
		k.FailureClass, k.FailedAt = "", nil
	}
	if since(k.CountedAt) {
		forgetFailures(k)
	}
	if onProbation(k) && since(k.DegradedUntil) {
		w.restore(k)
	}
	if p := w.provider(k.ProviderID); p != nil && since(p.CoolingUntil) {
		p.CoolingUntil, p.CoolingReason, p.Incidents, p.UpdatedAt = nil, "", 0, now
	}
}

// failed notes that a request has failed that began at an instant.
func (w *world) failed(k *ent.APIKey, d registry.Diagnosis, began time.Time) error {
	if d.Class == registry.FailureBadRequest {
		return nil // it is the caller's fault
	}
	now, p := w.now, w.provider(k.ProviderID)
	k.FailedAt, k.FailureClass = &now, string(d.Class)
	if w.isIncident(p.ID, d.Class) || cools(p, now) && p.CoolingReason == string(d.Class) {
		return w.coolDown(p, d)
	}
	rest, counts := rests[d.Class]
	if !counts {
		return nil
	}
	// Of requests that were under way together the first one counts.
	fresh := k.CountedAt == nil || !began.Before(*k.CountedAt)
	if fresh {
		if k.CountedClass != string(d.Class) {
			k.Failures = 0
		}
		k.Failures++
		k.CountedClass, k.CountedAt = string(d.Class), &now
	}
	until := micro(d.Until)
	if d.Until.IsZero() {
		if isOut(k, now) && !fresh {
			return nil
		}
		n := k.Failures
		if k.CountedClass != string(d.Class) {
			n = 1
		}
		may := rest.after(now, n)
		w.chance = append(w.chance, may)
		if until = w.drawn(k, d.Class, may); until.IsZero() {
			return errChance
		}
	}
	if most := now.Add(rest.most + rest.most/4); d.Class == registry.FailureAuth && until.After(most) {
		until = most
	}
	if d.Class != registry.FailureAuth && k.QuotaGroupID != nil {
		if w.accounts == nil {
			w.accounts = map[uuid.UUID]time.Time{}
		}
		w.accounts[*k.QuotaGroupID] = until
	}
	if isOut(k, now) && k.DegradedUntil.After(until) {
		return nil
	}
	if !isOut(k, now) {
		k.DegradedAt = &now
	}
	if d.Class != registry.FailureRateLimited || !onProbation(k) { // else it is still to be tried
		k.DegradedBy, k.DegradedReason = string(d.Class), string(d.Class)+": "+d.Reason
	}
	k.Degraded, k.DegradedUntil = true, &until
	return nil
}

// drawn returns until when a key is out for a failure, as chance had it; zero, if that cannot be.
func (w *world) drawn(k *ent.APIKey, class registry.FailureClass, may span) time.Time {
	until := w.seen.instants.key
	if class != registry.FailureAuth && k.QuotaGroupID != nil {
		until = w.seen.group
	} else if isOut(k, w.now) && until.Equal(*k.DegradedUntil) && !until.Before(may.from) {
		return may.from // it was out for longer, and stays so
	}
	if !within(until, may.from, may.to) {
		return time.Time{}
	}
	return until
}

// isIncident reports whether the provider is at fault: three accounts or more, and at least half of the accounts in
// use, failed alike within ten seconds, and no request has succeeded since.
func (w *world) isIncident(providerID uuid.UUID, class registry.FailureClass) bool {
	since := w.now.Add(-10 * time.Second)
	keys := w.liveKeys(providerID)
	for _, k := range keys {
		if k.SucceededAt != nil {
			since = latest(since, *k.SucceededAt)
		}
	}
	failed, inUse := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	for _, k := range keys {
		account := *cmp.Or(k.QuotaGroupID, &k.ID)
		alike := k.FailureClass == string(class) && k.FailedAt.After(since)
		if alike {
			failed[account] = true
		}
		if alike || !k.Disabled && !isOut(k, w.now) {
			inUse[account] = true
		}
	}
	return len(failed) >= 3 && 2*len(failed) >= len(inUse)
}

// coolDown has a provider cool down, and takes back what its incident did to keys.
func (w *world) coolDown(p *ent.Provider, d registry.Diagnosis) error {
	now, since := w.now, w.now.Add(-10*time.Second)
	until := micro(d.Until)
	if most := now.Add(coolingRest.most + coolingRest.most/4); until.After(most) {
		until = most
	}
	if !cools(p, now) {
		p.Incidents++
		may := coolingRest.after(now, p.Incidents)
		w.chance = append(w.chance, may)
		if drawn := w.seen.provider; within(drawn, may.from, may.to) {
			until = latest(until, drawn)
		} else if until.Before(may.from) || !until.Equal(drawn) {
			return errChance
		}
	}
	p.UpdatedAt = now
	if p.CoolingUntil == nil || p.CoolingUntil.Before(until) {
		p.CoolingUntil, p.CoolingReason = &until, string(d.Class)
	}
	for _, k := range w.liveKeys(p.ID) {
		if k.FailureClass != string(d.Class) || !k.FailedAt.After(since) {
			continue
		}
		if k.DegradedUntil != nil && k.DegradedBy == string(d.Class) && k.DegradedAt != nil &&
			k.DegradedAt.After(since) {
			w.restore(k)
		}
		k.FailureClass, k.FailedAt = "", nil
		if k.CountedClass == string(d.Class) {
			forgetFailures(k)
		}
		if k.QuotaGroupID != nil {
			delete(w.accounts, *k.QuotaGroupID)
		}
	}
	return nil
}
