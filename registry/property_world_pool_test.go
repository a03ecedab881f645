package registry_test

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// Quota groups, limits, and which key may be used.

func (w *world) group(id uuid.UUID) *ent.QuotaGroup {
	return first(w.groups, func(g *ent.QuotaGroup) bool { return g.ID == id && w.liveProvider(g.ProviderID) != nil })
}

func (w *world) checkGroup(id, providerID uuid.UUID) error {
	if id == uuid.Nil {
		return nil
	}
	g := first(w.groups, func(g *ent.QuotaGroup) bool { return g.ID == id })
	switch {
	case g == nil:
		return errMissing
	case g.ProviderID != providerID:
		return registry.ErrInvalidData
	}
	return nil
}

func (w *world) createQuotaGroup(in registry.QuotaGroupInput) (*ent.QuotaGroup, error) {
	if !okText(in.Name, 1, 128) || !okLimits(in.Limits) {
		return nil, registry.ErrInvalidData
	}
	if w.liveProvider(in.ProviderID) == nil {
		return nil, errMissing
	}
	if w.groupNamed(in.ProviderID, in.Name) != nil {
		return nil, registry.ErrConflict
	}
	g := &ent.QuotaGroup{
		ID: w.newID(), ProviderID: in.ProviderID, Name: in.Name, LastReset: w.now, CreatedAt: w.now, UpdatedAt: w.now,
	}
	groupQuota(g).set(in.Limits)
	w.groups = append(w.groups, g)
	return g, nil
}

func (w *world) groupNamed(providerID uuid.UUID, name string) *ent.QuotaGroup {
	return first(w.groups, func(g *ent.QuotaGroup) bool { return g.ProviderID == providerID && g.Name == name })
}

func (w *world) updateQuotaGroup(id uuid.UUID, up registry.QuotaGroupUpdate) (*ent.QuotaGroup, error) {
	if up.Name != nil && !okText(*up.Name, 1, 128) || up.Limits != nil && !okLimits(*up.Limits) {
		return nil, registry.ErrInvalidData
	}
	g := w.group(id)
	if g == nil {
		return nil, registry.ErrNotFound
	}
	if up.Name != nil {
		if other := w.groupNamed(g.ProviderID, *up.Name); other != nil && other != g {
			return nil, registry.ErrConflict
		}
	}
	put(&g.Name, up.Name)
	if up.Limits != nil {
		groupQuota(g).set(*up.Limits)
	}
	return g, nil
}

func (w *world) deleteQuotaGroup(id uuid.UUID) error {
	if w.group(id) == nil {
		return registry.ErrNotFound
	}
	isIn := func(k *ent.APIKey) bool { return k.QuotaGroupID != nil && *k.QuotaGroupID == id }
	if first(w.keys, func(k *ent.APIKey) bool { return isIn(k) && k.DeletedAt == nil }) != nil {
		return registry.ErrForeignKey
	}
	w.groups = where(w.groups, func(g *ent.QuotaGroup) bool { return g.ID != id })
	for _, k := range where(w.keys, isIn) {
		k.QuotaGroupID = nil
	}
	for _, l := range w.leases {
		if l.QuotaGroupID != nil && *l.QuotaGroupID == id {
			l.QuotaGroupID = nil
		}
	}
	return nil
}

// quota are the limits of a key or of a group, and what has been counted for them.
type quota struct {
	key, group                    uuid.UUID // of one of them
	name                          string    // of the group
	minute                        **time.Time
	requestsMinute, tokensMinute  *int64
	lastReset                     *time.Time
	requestsToday, tokensToday    *int64
	costToday                     *money.USD
	perMinute, tokensPerMinute    *int64
	perDay, tokensPerDay, at1Time *int64
	costPerDay                    *money.USD
}

func (*world) quotaOf(k *ent.APIKey) quota {
	return quota{
		key: k.ID, minute: &k.Minute, requestsMinute: &k.RequestsThisMinute, tokensMinute: &k.TokensThisMinute,
		lastReset: &k.LastReset, requestsToday: &k.RequestsToday, tokensToday: &k.TokensToday, costToday: &k.CostToday,
		perMinute: &k.RequestsPerMinute, tokensPerMinute: &k.TokensPerMinute, perDay: &k.RequestsPerDay,
		tokensPerDay: &k.TokensPerDay, at1Time: &k.Concurrency, costPerDay: &k.CostPerDay,
	}
}

func groupQuota(g *ent.QuotaGroup) quota {
	return quota{
		group: g.ID, name: g.Name,
		minute: &g.Minute, requestsMinute: &g.RequestsThisMinute, tokensMinute: &g.TokensThisMinute,
		lastReset: &g.LastReset, requestsToday: &g.RequestsToday, tokensToday: &g.TokensToday, costToday: &g.CostToday,
		perMinute: &g.RequestsPerMinute, tokensPerMinute: &g.TokensPerMinute, perDay: &g.RequestsPerDay,
		tokensPerDay: &g.TokensPerDay, at1Time: &g.Concurrency, costPerDay: &g.CostPerDay,
	}
}

func (q quota) set(l registry.Limits) {
	*q.perMinute, *q.tokensPerMinute, *q.perDay = l.RequestsPerMinute, l.TokensPerMinute, l.RequestsPerDay
	*q.tokensPerDay, *q.at1Time, *q.costPerDay = l.TokensPerDay, l.Concurrency, l.CostPerDay
}

// quotas are that of a key, and that of its group.
func (w *world) quotas(k *ent.APIKey) []quota {
	all := []quota{w.quotaOf(k)}
	for _, g := range w.groups {
		if k.QuotaGroupID != nil && g.ID == *k.QuotaGroupID {
			all = append(all, groupQuota(g))
		}
	}
	return all
}

// open are the leases that count in a quota now.
func (w *world) open(q quota) []*lease {
	return where(w.leases, func(l *lease) bool {
		in := l.APIKeyID == q.key || l.QuotaGroupID != nil && *l.QuotaGroupID == q.group
		return in && l.ExpiresAt.After(w.now)
	})
}

// count counts a request of an instant in the windows of a quota, if they are those of then.
func (w *world) count(q quota, at time.Time, tokens int64, cost money.USD) {
	if at.After(w.now) {
		at = w.now
	}
	w.roll(q)
	q.countMinute(at, tokens)
	q.countDay(at, tokens, cost)
}

// roll begins the windows of now.
func (w *world) roll(q quota) {
	if today := dayOf(w.now); q.lastReset.Before(today) || q.lastReset.After(w.now.Add(time.Hour)) {
		*q.requestsToday, *q.tokensToday, *q.costToday, *q.lastReset = 0, 0, 0, today
	}
	minute := minuteOf(w.now)
	if m := *q.minute; m == nil || m.Before(minute) || m.After(w.now.Add(5*time.Minute)) {
		*q.requestsMinute, *q.tokensMinute, *q.minute = 0, 0, &minute
	}
}

func (q quota) countMinute(at time.Time, tokens int64) {
	if (*q.minute).Equal(minuteOf(at)) {
		*q.requestsMinute++
		*q.tokensMinute += tokens
	}
}

func (q quota) countDay(at time.Time, tokens int64, cost money.USD) {
	if dayOf(*q.lastReset).Equal(dayOf(at)) {
		*q.requestsToday++
		*q.tokensToday += tokens
		*q.costToday = min(*q.costToday+cost, mostCost)
	}
}

// limits returns the limits of a quota with what was used of them, and whether what is asked for fits beside that.
func (w *world) limits(q quota, in registry.AcquireInput) (all []registry.LimitState, tooSmall bool) {
	minute, day := minuteOf(w.now), dayOf(w.now)
	var used struct{ minute, minuteTokens, day, dayTokens, dayCost int64 }
	if m := *q.minute; m != nil && m.Equal(minute) {
		used.minute, used.minuteTokens = *q.requestsMinute, *q.tokensMinute
	}
	if !q.lastReset.Before(day) {
		used.day, used.dayTokens, used.dayCost = *q.requestsToday, *q.tokensToday, int64(*q.costToday)
	}
	open := w.open(q)
	for _, l := range open {
		if !l.AcquiredAt.Before(minute) {
			used.minute++
			used.minuteTokens += l.ReservedTokens
		}
		if !l.AcquiredAt.Before(day) && !l.AcquiredAt.Before(*q.lastReset) {
			used.day++
			used.dayTokens += l.ReservedTokens
			used.dayCost += int64(l.ReservedCost)
		}
	}
	nextMinute, nextDay := minute.Add(time.Minute), day.AddDate(0, 0, 1)
	for _, l := range []struct {
		name             registry.LimitName
		limit, used, ask int64
		opens            time.Time
	}{
		{name: registry.LimitConcurrency, limit: *q.at1Time, used: int64(len(open)), ask: 1},
		{name: registry.LimitRequestsPerMinute, limit: *q.perMinute, used: used.minute, ask: 1, opens: nextMinute},
		{
			name: registry.LimitTokensPerMinute, limit: *q.tokensPerMinute, used: used.minuteTokens,
			ask: max(1, in.EstimatedTokens), opens: nextMinute,
		},
		{name: registry.LimitRequestsPerDay, limit: *q.perDay, used: used.day, ask: 1, opens: nextDay},
		{
			name: registry.LimitTokensPerDay, limit: *q.tokensPerDay, used: used.dayTokens,
			ask: max(1, in.EstimatedTokens), opens: nextDay,
		},
		{
			name: registry.LimitCostPerDay, limit: int64(*q.costPerDay), used: used.dayCost,
			ask: max(1, int64(in.EstimatedCost)), opens: nextDay,
		},
	} {
		if l.limit == 0 {
			continue
		}
		s := registry.LimitState{Name: l.name, Group: q.name, Limit: l.limit, Used: l.used}
		if s.Closed = l.used+l.ask > l.limit; s.Closed && l.ask <= l.limit {
			s.OpensAt = l.opens
		}
		tooSmall = tooSmall || l.ask > l.limit
		all = append(all, s)
	}
	return all, tooSmall
}

// verdict says whether a key may be used now, and why not.
func (w *world) verdict(k *ent.APIKey, in registry.AcquireInput) registry.KeyVerdict {
	v := registry.KeyVerdict{
		ID: k.ID, Prefix: k.KeyPrefix, Label: k.Label, Priority: k.Priority, Weight: k.Weight,
		InFlight: int64(len(w.open(w.quotaOf(k)))), Excluded: slices.Contains(in.Exclude, k.ID),
		Probation: onProbation(k),
	}
	var opens time.Time
	limited, busy, tooSmall := false, false, false
	for _, q := range w.quotas(k) {
		limits, small := w.limits(q, in)
		tooSmall = tooSmall || small
		for _, l := range limits {
			busy = busy || l.Closed && l.Name == registry.LimitConcurrency
			limited = limited || l.Closed && l.Name != registry.LimitConcurrency
			opens = latest(opens, l.OpensAt)
		}
		if until := w.accounts[q.group]; q.group != uuid.Nil && until.After(w.now) {
			limited, opens = true, latest(opens, until)
		}
		v.Limits = append(v.Limits, limits...)
	}
	if tooSmall { // no time opens that
		opens = time.Time{}
	}
	switch {
	case k.Disabled:
		v.Reason = registry.KeyDisabled
	case !w.isFor(k, in.ModelID):
		v.Reason = registry.KeyDenied
	case isOut(k, w.now):
		v.Reason, v.Until = registry.KeyDegraded, latest(*k.DegradedUntil, opens)
	case v.Probation && w.isTried(k):
		v.Reason = registry.KeyProbed
	case tooSmall:
		v.Reason = registry.KeyTooSmall
	case limited:
		v.Reason, v.Until = registry.KeyLimited, opens
	case busy:
		v.Reason = registry.KeyBusy
	case v.Excluded:
		v.Reason = registry.KeyExcluded
	}
	if p := w.provider(k.ProviderID); p != nil && cools(p, w.now) {
		switch {
		case v.Reason == "":
			v.Reason, v.Until = registry.KeyCooling, *p.CoolingUntil
		case !v.Until.IsZero():
			v.Until = latest(v.Until, *p.CoolingUntil)
		}
	}
	return v
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// isFor reports whether a key is for a model.
func (w *world) isFor(k *ent.APIKey, model uuid.UUID) bool {
	m := w.model(model)
	if m == nil {
		return true
	}
	has := func(list []string) bool {
		return slices.ContainsFunc(list, func(name string) bool {
			begins, all := strings.CutSuffix(name, "*")
			return name == m.ModelID || all && strings.HasPrefix(m.ModelID, begins)
		})
	}
	return (k.AllowedModels == nil || has(k.AllowedModels)) && !has(k.DeniedModels)
}

// isTried reports whether a request tries a key that was out.
func (w *world) isTried(k *ent.APIKey) bool {
	return first(w.open(w.quotaOf(k)), func(l *lease) bool { return !l.AcquiredAt.Before(*k.DegradedUntil) }) != nil
}
