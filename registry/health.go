package registry

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
)

// ProviderHealth is the current state of a provider's keys.
type ProviderHealth struct {
	ProviderID uuid.UUID
	Name       string

	Keys      int               // live keys
	Usable    int               // live keys that AcquireKey could hand out for a request without estimates
	Unusable  map[KeyReason]int // the other live keys, by reason
	Probation int               // keys on probation, usable or not
	InFlight  int64             // open leases
	OpensAt   time.Time         // when the first key opens by itself, if no key is usable; zero: no key does

	CoolingUntil  time.Time    // when the provider's incident is over; zero: there is no incident
	CoolingReason FailureClass // the class of the incident's failures
	// Unreadable are sealed keys that do not open, [WithKeyring]. RevealAPIKey returns [ErrCorrupt] for them.
	Unreadable []UnreadableKey
}

// UnreadableKey names a sealed key that does not open.
type UnreadableKey struct {
	ID     uuid.UUID
	Label  string
	Prefix string
}

// Alert reports whether somebody should look: there are keys, but none is usable or will be by itself; or some keys do
// not open.
func (h ProviderHealth) Alert() bool {
	return h.Keys > 0 && h.Usable == 0 && h.OpensAt.IsZero() && h.Unusable[KeyBusy]+h.Unusable[KeyProbed] == 0 ||
		len(h.Unreadable) > 0
}

// PoolHealth returns the current state of the keys of every live provider, by name. It changes nothing. It is a report,
// not a list with pages: it has one row for each live provider, to see whether any of them needs attention.
func (r *Registry) PoolHealth(ctx context.Context) ([]ProviderHealth, error) {
	const op = "pool health"
	providers, err := r.fresh.Provider.Query().Where(provider.DeletedAtIsNil()).Order(provider.ByName()).All(ctx)
	if err != nil {
		return nil, translate(ctx, op, err)
	}
	all, now := make([]ProviderHealth, 0, len(providers)), r.now()
	for some := range slices.Chunk(providers, 64) {
		ids := make([]uuid.UUID, len(some))
		for i, p := range some {
			ids[i] = p.ID
		}
		pools, err := r.look(ctx, now, ids...)
		if err != nil {
			return nil, translate(ctx, op, err)
		}
		unreadable, err := r.unreadable(ctx, ids)
		if err != nil {
			return nil, translate(ctx, op, err)
		}
		for _, p := range some {
			h := healthOf(pools[p.ID], now)
			h.ProviderID, h.Name, h.Unreadable = p.ID, p.Name, unreadable[p.ID]
			all = append(all, h)
		}
	}
	return all, nil
}

func healthOf(p *pool.Pool, now time.Time) ProviderHealth {
	h := ProviderHealth{Keys: len(p.Keys), Unusable: map[KeyReason]int{}}
	if p.Cools(now) {
		h.CoolingUntil, h.CoolingReason = *p.CoolingUntil, FailureClass(p.CoolingReason)
	}
	var why NoKeyError
	for _, k := range p.Keys {
		v := verdictOn(p, k, pool.Want{Amount: pool.Amount{Requests: 1}}, now)
		h.InFlight += v.InFlight
		if v.Probation {
			h.Probation++
		}
		if v.Reason == "" {
			h.Usable++
			continue
		}
		h.Unusable[v.Reason]++
		why.add(v)
	}
	if h.Usable == 0 {
		h.OpensAt = why.OpensAt
	}
	return h
}

// unreadable returns the live sealed keys of providers that do not open. Without a keyring it tries none.
func (r *Registry) unreadable(ctx context.Context, providers []uuid.UUID) (map[uuid.UUID][]UnreadableKey, error) {
	found := map[uuid.UUID][]UnreadableKey{}
	if r.vault.ring == nil {
		return found, nil
	}
	keys, err := r.fresh.APIKey.Query().
		Where(apikey.ProviderIDIn(providers...), apikey.DeletedAtIsNil(), apikey.SealedNotNil()).Order(apikey.ByID()).
		All(ctx)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		text, err := r.vault.unseal(ctx, r.fresh, key)
		clear(text)
		switch {
		case errors.Is(err, ErrCorrupt):
			found[key.ProviderID] = append(found[key.ProviderID], UnreadableKey{key.ID, key.Label, key.KeyPrefix})
		case err != nil:
			return nil, err
		}
	}
	return found, nil
}
