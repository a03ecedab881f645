package registry

import (
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// waiters are the callers of AcquireKey that wait for a key, by provider, in the order in which they came.
type waiters struct {
	poll  time.Duration
	mu    sync.Mutex
	turns int64 // how many there were
	list  map[uuid.UUID][]*waiter
}

// waiter is a caller that waits.
type waiter struct {
	wake chan struct{} // closed when it is the caller's turn: a lease of the provider has ended
	turn int64         // the last one that the caller was given
}

// enter adds a caller at the end.
func (w *waiters) enter(provider uuid.UUID, c *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.list == nil {
		w.list = map[uuid.UUID][]*waiter{}
	}
	c.wake = make(chan struct{})
	w.list[provider] = append(w.list[provider], c)
}

// leave removes a caller. If it was woken and has not used its turn, the next caller is woken.
func (w *waiters) leave(provider uuid.UUID, c *waiter, used bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.list[provider], c); i >= 0 {
		w.remove(provider, i)
	} else if !used {
		w.give(provider, c.turn)
	}
}

// wake wakes the first caller, because a lease of the provider has ended.
func (w *waiters) wake(provider uuid.UUID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turns++
	w.give(provider, w.turns)
}

// passOn gives a caller's turn to the next one, because the caller cannot use it.
func (w *waiters) passOn(provider uuid.UUID, c *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.give(provider, c.turn)
}

// give wakes the first caller that was not given this turn before, nor a later one. So no turn goes round for ever.
func (w *waiters) give(provider uuid.UUID, turn int64) {
	i := slices.IndexFunc(w.list[provider], func(c *waiter) bool { return c.turn < turn })
	if i < 0 {
		return
	}
	c := w.list[provider][i]
	c.turn = turn
	close(c.wake)
	w.remove(provider, i)
}

func (w *waiters) remove(provider uuid.UUID, i int) {
	w.list[provider] = slices.Delete(w.list[provider], i, i+1)
	if len(w.list[provider]) == 0 {
		delete(w.list, provider)
	}
}
