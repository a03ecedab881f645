package commit

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
)

// Look returns the pools of providers at an instant.
func (m *Committer) Look(
	ctx context.Context, from bulk.Querier, now time.Time, providers []uuid.UUID,
) (map[uuid.UUID]*pool.Pool, error) {
	s := newSnapshot(m.Strategy, now)
	if err := s.readPools(ctx, from, nil, providers); err != nil {
		return nil, err
	}
	return s.pools, s.readOpen(ctx, from, providers)
}

// Wanted returns what a request for a key wants of a pool at an instant, with the provider's name of its model, and
// what it costs if that matters. It returns fault.ErrForeignKey if there is no such model, and fault.ErrInvalidData if
// it is another provider's.
func (m *Committer) Wanted(
	ctx context.Context, from bulk.Querier, now time.Time, p *pool.Pool, a *Acquire,
) (pool.Want, error) {
	b := batch{env: &m.env, snapshot: newSnapshot(m.Strategy, now)}
	b.from, b.pools[a.Provider] = now, p
	want := a.Want
	if a.Model != uuid.Nil {
		if err := b.readModels(ctx, from, []uuid.UUID{a.Model}); err != nil {
			return want, err
		}
	}
	var err error
	want.Model, err = b.modelName(a.Model, a.Provider)
	if err == nil && b.mustPrice(a) {
		estimate := ledger.Estimate{Tokens: want.Tokens, Output: a.Output}
		want.Cost = b.priced(a.Model, now, estimate, want.Cost).Asked.Cost
	}
	return want, err
}

// CountUse adds a request to the counters of a live key, and to no period. It returns fault.ErrNotFound if there is no
// such key.
func (m *Committer) CountUse(
	ctx context.Context, tx *ent.Client, key uuid.UUID, took pool.Amount, now time.Time,
) error {
	if err := Hold(ctx, tx, m.engine, PoolOfKey, key); err != nil {
		return err
	}
	s := newSnapshot(m.Strategy, now)
	if err := s.readPools(ctx, tx, []uuid.UUID{key}, nil); err != nil {
		return err
	}
	k := s.keys[key]
	if k == nil || k.Deleted {
		return fault.ErrNotFound
	}
	if k.Uses >= fault.MaxAmount || k.Tokens > fault.MaxAmount-took.Tokens {
		return fault.ErrOverflow
	}
	k.AddUse(took, now)
	k.ExtraRequests, k.ExtraTokens = k.ExtraRequests+took.Requests, k.ExtraTokens+took.Tokens
	k.Use(now, now, took)
	return s.writePools(ctx, tx, tx, m.engine)
}
