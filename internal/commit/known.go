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
