package commit

import (
	"sync"
	"time"

	"github.com/google/uuid"
)

// namedModel is what the pool and the ledger need to know of a model.
type namedModel struct {
	provider uuid.UUID
	name     string
}

// modelNames remembers the providers and names of models. Neither ever changes.
type modelNames struct {
	mu    sync.Mutex
	known map[uuid.UUID]namedModel
}

// of copies the known models to a map, and returns the unknown ones.
func (m *modelNames) of(models map[uuid.UUID]bool, to map[uuid.UUID]namedModel) (unknown []uuid.UUID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range models {
		if named, ok := m.known[id]; ok {
			to[id] = named
		} else {
			unknown = append(unknown, id)
		}
	}
	return unknown
}

// forget forgets all: one may have been purged.
func (m *modelNames) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.known)
}

// learn remembers models that have been read.
func (m *modelNames) learn(models []uuid.UUID, from map[uuid.UUID]namedModel) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known)+len(models) > maxRemembered {
		m.known = make(map[uuid.UUID]namedModel, len(models))
	}
	for _, id := range models {
		if named, ok := from[id]; ok {
			m.known[id] = named
		}
	}
}

// expiries notes when each pool was last searched for leases that have expired.
type expiries struct {
	mu   sync.Mutex
	last map[uuid.UUID]time.Time
}

// due reports whether it is time to search a pool, and notes that it is searched now.
func (x *expiries) due(provider uuid.UUID, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if last, ok := x.last[provider]; ok && now.Sub(last) < time.Second && !now.Before(last) {
		return false
	}
	if x.last == nil || len(x.last) > maxRemembered {
		x.last = map[uuid.UUID]time.Time{}
	}
	x.last[provider] = now
	return true
}
