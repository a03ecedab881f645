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

// Look returns the pools of providers at an instant. The registry's tests also compare other keys, and what Last and
// HasPartition say a Committer remembers.
func (m *Committer) Look(
	ctx context.Context, from bulk.Querier, now time.Time, keys, providers []uuid.UUID,
) (*Snapshot, error) {
	s := newSnapshot(m.Strategy, now)
	if err := s.readPools(ctx, from, keys, providers); err != nil {
		return nil, err
	}
	return s, s.readOpen(ctx, from, providers)
}

// Last returns the snapshot that the next batch starts from, nil for none. No batch must run meanwhile.
func (m *Committer) Last() *Snapshot {
	m.memory.mu.Lock()
	defer m.memory.mu.Unlock()
	return m.memory.last
}

// HasPartition reports whether a day is known to have a partition of events.
func (m *Committer) HasPartition(day time.Time) bool { return m.partitions.Has(day) }

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
	k := s.Keys[key]
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
