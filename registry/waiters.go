package registry

import (
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// waiters are the callers of AcquireKey that wait for a key, by provider, in the order in which they came.
type waiters struct {
	poll time.Duration
	mu   sync.Mutex
	list map[uuid.UUID][]chan struct{}
}

// enter adds a caller at the end. The channel is closed when it is the caller's turn: a lease of the provider has
// ended.
func (w *waiters) enter(provider uuid.UUID) chan struct{} {
	wake := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.list == nil {
		w.list = map[uuid.UUID][]chan struct{}{}
	}
	w.list[provider] = append(w.list[provider], wake)
	return wake
}

// leave removes a caller. If it was woken and has not used its turn, the next caller is woken.
func (w *waiters) leave(provider uuid.UUID, wake chan struct{}, used bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.list[provider], wake); i >= 0 {
		w.list[provider] = slices.Delete(w.list[provider], i, i+1)
		if len(w.list[provider]) == 0 {
			delete(w.list, provider)
		}
	} else if !used {
		w.wakeOne(provider)
	}
}

// wake wakes the first caller, because a lease of the provider has ended.
func (w *waiters) wake(provider uuid.UUID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wakeOne(provider)
}

func (w *waiters) wakeOne(provider uuid.UUID) {
	list := w.list[provider]
	if len(list) == 0 {
		return
	}
	close(list[0])
	if w.list[provider] = list[1:]; len(list) == 1 {
		delete(w.list, provider)
	}
}
