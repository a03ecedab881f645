package registry_test

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// Keys.

func (w *world) liveKey(id uuid.UUID) *ent.APIKey {
	return first(w.keys, func(k *ent.APIKey) bool { return k.ID == id && k.DeletedAt == nil })
}

func (w *world) liveKeys(providerID uuid.UUID) []*ent.APIKey {
	return where(w.keys, func(k *ent.APIKey) bool { return k.ProviderID == providerID && k.DeletedAt == nil })
}

func okKey(key string) bool {
	return key != "" && len(key) <= 4096 && strings.IndexFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

func hashOf(key string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(key))) }

func okLimits(l registry.Limits) bool {
	return min(l.RequestsPerMinute, l.TokensPerMinute, l.RequestsPerDay, l.TokensPerDay, l.Concurrency) >= 0
}

func okModels(names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return !okText(name, 1, 256) })
}

func (w *world) addAPIKey(in registry.KeyInput) (*ent.APIKey, error) {
	if in.Keyless != (in.APIKey == "") || !in.Keyless && !okKey(in.APIKey) || !okLabel(in.Label, 0, 128) ||
		!okLimits(in.Limits) || in.Priority > 1000 || in.Weight < 0 || !okModels(in.AllowedModels) ||
		!okModels(in.DeniedModels) {
		return nil, registry.ErrInvalidData
	}
	if w.liveProvider(in.ProviderID) == nil {
		return nil, errMissing
	}
	live := w.liveKeys(in.ProviderID)
	if len(live) >= 100 {
		return nil, registry.ErrInvalidData
	}
	if err := w.checkGroup(in.QuotaGroupID, in.ProviderID); err != nil {
		return nil, err
	}
	if first(live, func(k *ent.APIKey) bool { return k.KeyHash == hashOf(in.APIKey) }) != nil {
		return nil, registry.ErrConflict
	}
	k := &ent.APIKey{
		ID: w.newID(), ProviderID: in.ProviderID, KeyHash: hashOf(in.APIKey), Label: in.Label, Priority: in.Priority,
		Weight: cmp.Or(in.Weight, 1), AllowedModels: in.AllowedModels, DeniedModels: in.DeniedModels, LastReset: w.now,
		CreatedAt: w.now, UpdatedAt: w.now,
	}
	w.quotaOf(k).set(in.Limits)
	if in.QuotaGroupID != uuid.Nil {
		k.QuotaGroupID = &in.QuotaGroupID
	}
	if !in.Keyless {
		k.KeyPrefix = in.APIKey[:min(8, len(in.APIKey)/2)]
	}
	w.keys = append(w.keys, k)
	return k, nil
}

// today returns a key as it is now.
func (w *world) today(k *ent.APIKey) *ent.APIKey { return asOf(w.now, k) }

func (w *world) findAPIKey(providerID uuid.UUID, key string) (*ent.APIKey, error) {
	if !okKey(key) {
		return nil, registry.ErrInvalidData
	}
	k := first(w.liveKeys(providerID), func(k *ent.APIKey) bool { return k.KeyHash == hashOf(key) })
	return one(w.today(k))
}

func (w *world) listAPIKeys(providerID uuid.UUID) (all []*ent.APIKey, err error) {
	for _, k := range w.keys {
		if k.DeletedAt == nil && w.listed(k.ProviderID, providerID) {
			all = append(all, w.today(k))
		}
	}
	return all, nil
}

func (w *world) updateAPIKey(id uuid.UUID, up registry.KeyUpdate) (*ent.APIKey, error) {
	if up.Label != nil && !okLabel(*up.Label, 0, 128) || up.Limits != nil && !okLimits(*up.Limits) ||
		up.Priority != nil && *up.Priority > 1000 || up.AllowedModels != nil && !okModels(*up.AllowedModels) {
		return nil, registry.ErrInvalidData
	}
	k := w.liveKey(id)
	if k == nil {
		return nil, registry.ErrNotFound
	}
	if up.QuotaGroupID != nil {
		if err := w.checkGroup(*up.QuotaGroupID, k.ProviderID); err != nil {
			return nil, err
		}
		k.QuotaGroupID = up.QuotaGroupID
		if *up.QuotaGroupID == uuid.Nil {
			k.QuotaGroupID = nil
		}
	}
	if up.Limits != nil {
		w.quotaOf(k).set(*up.Limits)
	}
	if up.AllowedModels != nil {
		if k.AllowedModels = *up.AllowedModels; len(k.AllowedModels) == 0 {
			k.AllowedModels = nil
		}
	}
	put(&k.Label, up.Label)
	put(&k.Disabled, up.Disabled)
	put(&k.Priority, up.Priority)
	k.UpdatedAt = w.now
	return w.today(k), nil
}

func (w *world) deleteAPIKey(id uuid.UUID) error {
	k := w.liveKey(id)
	if k == nil {
		return registry.ErrNotFound
	}
	now := w.now
	k.DeletedAt, k.UpdatedAt = &now, now
	return nil
}

func (w *world) purgeAPIKey(id uuid.UUID) error {
	if w.key(id) == nil {
		return registry.ErrNotFound
	}
	if first(w.usage, func(u *ent.Usage) bool { return u.APIKeyID == id }) != nil {
		return registry.ErrForeignKey
	}
	w.keys = where(w.keys, func(k *ent.APIKey) bool { return k.ID != id })
	w.leases = where(w.leases, func(l *lease) bool { return l.APIKeyID != id })
	return nil
}

func (w *world) getLeastUsedKey(providerID uuid.UUID) (*ent.APIKey, error) {
	var best *ent.APIKey
	why := &registry.NoKeyError{ProviderID: providerID}
	for _, k := range w.liveKeys(providerID) { // in the order they were added
		k = w.today(k)
		v := registry.KeyVerdict{
			ID: k.ID, Prefix: k.KeyPrefix, Label: k.Label, Priority: k.Priority, Weight: k.Weight,
			InFlight: int64(len(w.open(w.quotaOf(k)))),
		}
		switch {
		case k.Disabled:
			v.Reason = registry.KeyDisabled
			why.Keys = append(why.Keys, v)
		case k.Degraded:
			v.Reason, v.Until = registry.KeyDegraded, *k.DegradedUntil
			why.Keys = append(why.Keys, v)
			if why.OpensAt.IsZero() || k.DegradedUntil.Before(why.OpensAt) {
				why.OpensAt = *k.DegradedUntil
			}
		case best == nil || k.UsageCount < best.UsageCount,
			k.UsageCount == best.UsageCount && usedEarlier(k.LastUsedAt, best.LastUsedAt):
			best = k
		}
	}
	if best == nil {
		return nil, why
	}
	return best, nil
}

func usedEarlier(a, b *time.Time) bool { return b != nil && (a == nil || a.Before(*b)) }

func (w *world) degradeKey(id uuid.UUID, reason string, duration time.Duration) error {
	if duration <= 0 || duration > 3650*24*time.Hour {
		return registry.ErrInvalidData
	}
	k := w.liveKey(id)
	if k == nil {
		return registry.ErrNotFound
	}
	until, reason := micro(w.now.Add(duration)), cleanText(reason, 1024)
	if k.DegradedUntil == nil || !k.DegradedUntil.After(until) {
		k.Degraded, k.DegradedUntil, k.DegradedReason, k.UpdatedAt = true, &until, reason, w.now
		k.DegradedBy, k.DegradedAt = "", nil
	}
	return nil
}

func (w *world) restoreKey(id uuid.UUID) error {
	k := w.liveKey(id)
	if k == nil {
		return registry.ErrNotFound
	}
	w.restore(k)
	k.FailureClass, k.FailedAt = "", nil
	forgetFailures(k)
	if k.QuotaGroupID != nil {
		delete(w.accounts, *k.QuotaGroupID)
	}
	return nil
}

func (w *world) incrementUsage(id uuid.UUID, input, output int64) error {
	if !okTokens(input, output) {
		return registry.ErrInvalidData
	}
	k := w.liveKey(id)
	if k == nil {
		return registry.ErrNotFound
	}
	w.used(k, input+output, w.now)
	for _, q := range w.quotas(k) {
		w.count(q, w.now, input+output, 0)
	}
	k.ExtraRequests++
	k.ExtraTokens += input + output
	return nil
}

// used counts a request of an instant in what the key was ever used for.
func (w *world) used(k *ent.APIKey, tokens int64, at time.Time) {
	if at.After(w.now) {
		at = w.now
	}
	k.UsageCount++
	k.TokenCount += tokens
	if k.LastUsedAt == nil || at.After(*k.LastUsedAt) {
		k.LastUsedAt = &at
	}
}

func (w *world) resetDailyUsage() (n int, err error) {
	today := func(q quota) bool {
		counted := !q.lastReset.Before(dayOf(w.now)) &&
			(*q.requestsToday != 0 || *q.tokensToday != 0 || *q.costToday != 0)
		underWay := first(w.open(q), func(l *lease) bool {
			return !l.AcquiredAt.Before(dayOf(w.now)) && !l.AcquiredAt.Before(*q.lastReset)
		})
		return counted || underWay != nil
	}
	for _, k := range w.keys {
		if q := w.quotaOf(k); k.DeletedAt == nil && today(q) {
			*q.requestsToday, *q.tokensToday, *q.costToday, *q.lastReset = 0, 0, 0, w.now
			n++
		}
	}
	for _, g := range w.groups {
		if q := groupQuota(g); today(q) {
			*q.requestsToday, *q.tokensToday, *q.costToday, *q.lastReset = 0, 0, 0, w.now
		}
	}
	return n, nil
}

func (w *world) key(id uuid.UUID) *ent.APIKey {
	return first(w.keys, func(k *ent.APIKey) bool { return k.ID == id })
}

func (w *world) getAPIKey(id uuid.UUID) (*ent.APIKey, error) { return one(w.today(w.key(id))) }

func (w *world) undeleteAPIKey(id uuid.UUID) (*ent.APIKey, error) {
	k := w.key(id)
	switch {
	case k == nil:
		return nil, registry.ErrNotFound
	case k.DeletedAt == nil:
		return w.today(k), nil
	case w.liveProvider(k.ProviderID) == nil:
		return nil, errMissing
	case first(w.liveKeys(k.ProviderID), func(other *ent.APIKey) bool { return other.KeyHash == k.KeyHash }) != nil:
		return nil, registry.ErrConflict
	}
	k.DeletedAt, k.UpdatedAt = nil, w.now
	return w.today(k), nil
}
