package commit

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
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

// ModelName returns the provider's name of a model, or "" for a zero id. It returns fault.ErrForeignKey if there is no
// such model, and fault.ErrInvalidData if it is another provider's.
func (m *Committer) ModelName(ctx context.Context, from bulk.Querier, id, provider uuid.UUID) (string, error) {
	b := batch{env: &m.env, snapshot: newSnapshot(m.Strategy, m.Clock())}
	if id != uuid.Nil {
		b.from = b.now
		if err := b.readModels(ctx, from, []uuid.UUID{id}); err != nil {
			return "", err
		}
	}
	return b.modelName(id, provider)
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
