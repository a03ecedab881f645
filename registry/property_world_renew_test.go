package registry_test

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// Renewals of leases.

// renewOperation renews a lease, and returns when it expires then.
func renewOperation(in inputs) op {
	e := in.ending()
	asked := registry.RenewInput{
		TTL:             draw(in.T, "TTL", time.Second, time.Minute, 10*time.Minute, time.Hour),
		EstimatedTokens: draw[int64](in.T, "estimated tokens", 0, 0, 50, 100, 400, 800, 1001),
		EstimatedCost:   draw[money.USD](in.T, "estimated cost", 0, 0, 0, 2, 300_000, 600_001),
	}
	if in.bool("output") {
		asked.EstimatedOutputTokens = draw[int64](in.T, "estimated output", 1, 50, 400)
	}
	if in.rarely("bad input") {
		asked.EstimatedCost = -1
	}
	return op{
		input: fmt.Sprintf("%s, another handle %t: %+v", e.id, e.another, asked),
		onSide: func(ctx context.Context, s *side) (any, error) {
			l := s.handle(e.id)
			if e.another || l == nil {
				var err error
				if l, err = s.reg.GetLease(ctx, s.id(e.id)); err != nil {
					return nil, err
				}
			}
			err := l.Renew(ctx, asked)
			return l.ExpiresAt, err
		},
		onWorld: func(w *world) (any, error) { return w.renew(e, asked) },
	}
}

func (w *world) renew(e ending, in registry.RenewInput) (time.Time, error) {
	bad := in.EstimatedCost < 0 || in.EstimatedTokens > 0 && in.EstimatedOutputTokens > in.EstimatedTokens
	if bad && !e.another {
		return time.Time{}, registry.ErrInvalidData
	}
	_, l, err := w.begin(e)
	switch {
	case err != nil:
		return time.Time{}, err
	case bad:
		return time.Time{}, registry.ErrInvalidData
	case l == nil || l.away || !l.ExpiresAt.After(w.now):
		return time.Time{}, registry.ErrLeaseEnded
	}
	next := *l
	next.ReservedTokens = max(l.ReservedTokens, in.EstimatedTokens)
	next.ReservedOutput = max(l.ReservedOutput, in.EstimatedOutputTokens)
	if next.ReservedOutput > next.ReservedTokens {
		return time.Time{}, registry.ErrInvalidData
	}
	cost := in.EstimatedCost
	if l.ModelID != nil && (in.EstimatedTokens > 0 || in.EstimatedOutputTokens > 0) {
		cost = w.estimatedCost(registry.AcquireInput{
			ProviderID: l.provider, ModelID: *l.ModelID, EstimatedTokens: next.ReservedTokens,
			EstimatedOutputTokens: next.ReservedOutput, EstimatedCost: cost,
		}, l.AcquiredAt)
	}
	next.ReservedCost = max(l.ReservedCost, cost)
	next.ExpiresAt = latest(l.ExpiresAt, w.now.Add(in.TTL))
	if err := w.fits(l, next.ReservedTokens-l.ReservedTokens, next.ReservedCost-l.ReservedCost); err != nil {
		return time.Time{}, err
	}
	*l = next
	for _, h := range w.handles {
		if h.id == l.ID {
			h.expires = l.ExpiresAt
		}
	}
	return l.ExpiresAt, nil
}

// fits returns why a lease may not reserve more.
func (w *world) fits(l *lease, tokens int64, cost money.USD) error {
	var windows []registry.LimitState
	k := w.key(l.APIKeyID)
	for _, q := range w.boundBy(l) {
		limits, _ := w.limits(q, registry.AcquireInput{EstimatedTokens: tokens, EstimatedCost: cost})
		today := !l.AcquiredAt.Before(dayOf(w.now)) && !l.AcquiredAt.Before(*q.lastReset)
		for _, s := range limits {
			switch s.Name {
			case registry.LimitTokensPerMinute:
				if tokens > 0 && !l.AcquiredAt.Before(minuteOf(w.now)) {
					s.OpensAt = minuteOf(w.now).Add(time.Minute)
					windows = append(windows, s)
				}
			case registry.LimitTokensPerDay, registry.LimitCostPerDay:
				asks := tokens > 0
				if s.Name == registry.LimitCostPerDay {
					asks = cost > 0
				}
				if asks && today {
					s.OpensAt = dayOf(w.now).AddDate(0, 0, 1)
					windows = append(windows, s)
				}
			default: // it is one request, as before
			}
		}
	}
	why := &registry.NoKeyError{ProviderID: l.provider}
	for i := range windows {
		if !windows[i].Closed {
			windows[i].OpensAt = time.Time{}
		}
		why.OpensAt = latest(why.OpensAt, windows[i].OpensAt)
	}
	if why.OpensAt.IsZero() {
		return nil
	}
	why.Keys = []registry.KeyVerdict{{
		ID: k.ID, Prefix: k.KeyPrefix, Label: k.Label, Priority: k.Priority, Weight: k.Weight,
		InFlight: int64(len(w.open(w.quotaOf(k)))), Reason: registry.KeyLimited, Until: why.OpensAt,
		Probation: onProbation(k), Limits: windows,
	}}
	return why
}

// boundBy returns the quotas that a lease counts in, if somebody may still lease by them: of its key, and of its group.
func (w *world) boundBy(l *lease) (all []quota) {
	live := w.liveKeys(l.provider)
	if k := first(live, func(k *ent.APIKey) bool { return k.ID == l.APIKeyID }); k != nil {
		all = append(all, w.quotaOf(k))
	}
	in := func(id uuid.UUID) func(k *ent.APIKey) bool {
		return func(k *ent.APIKey) bool { return k.QuotaGroupID != nil && *k.QuotaGroupID == id }
	}
	for _, g := range w.groups {
		if l.QuotaGroupID != nil && g.ID == *l.QuotaGroupID && first(live, in(g.ID)) != nil {
			all = append(all, groupQuota(g))
		}
	}
	return all
}
