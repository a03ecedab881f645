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

// ProviderHealth is how a provider's pool of keys is now.
type ProviderHealth struct {
	ProviderID uuid.UUID
	Name       string

	Keys      int               // live ones
	Usable    int               // of them, by AcquireKey for a request without estimates
	Unusable  map[KeyReason]int // the others, by why
	Probation int               // keys that are tried by one request at a time, usable or not
	InFlight  int64             // leases that are open
	OpensAt   time.Time         // when the first key opens by itself, if none is usable; zero: none does

	CoolingUntil  time.Time    // of an incident; zero: there is none
	CoolingReason FailureClass // of the incident
	// Unreadable are keys that are sealed and do not open, [WithKeyring]: RevealAPIKey returns [ErrCorrupt] for them.
	Unreadable []UnreadableKey
}

// UnreadableKey names a key that does not open.
type UnreadableKey struct {
	ID     uuid.UUID
	Label  string
	Prefix string
}

// Alert tells that somebody should look: there are keys, and none of them is usable or will be by itself; or some
// cannot be read.
func (h ProviderHealth) Alert() bool {
	return h.Keys > 0 && h.Usable == 0 && h.OpensAt.IsZero() && h.Unusable[KeyBusy]+h.Unusable[KeyProbed] == 0 ||
		len(h.Unreadable) > 0
}

// PoolHealth returns how the pools of all live providers are now, by name. It changes nothing. It is a report and no
// page: it has a row for each live provider, and is read as a whole, to see whether any of them needs somebody.
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
		s, err := r.look(ctx, now, ids...)
		if err != nil {
			return nil, translate(ctx, op, err)
		}
		unreadable, err := r.unreadable(ctx, ids)
		if err != nil {
			return nil, translate(ctx, op, err)
		}
		for _, p := range some {
			h := healthOf(s.Pools[p.ID], now)
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

// unreadable returns the live keys of providers that are sealed and do not open. Without a keyring there is nothing to
// try.
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
