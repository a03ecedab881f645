package commit

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// foldEvents is how many requests to a model a process records before it folds them. More are cheaper to fold and
	// dearer to report.
	foldEvents = 1024
	// foldAge is after how long it folds fewer.
	foldAge = time.Hour
	// foldAgain is after how long it tries again what it could not fold.
	foldAgain = time.Minute
	// foldAtOnce is how many requests are folded in one transaction.
	foldAtOnce = 2048
)

// folder folds the requests that this process has recorded, in the background: it counts them, and says when a model is
// due. What is not folded stays in the tail, which reports add.
type folder struct {
	mu     sync.Mutex
	models map[uuid.UUID]tally
	due    chan dueModels // one list at most waits
	closed bool

	cancel context.CancelFunc
	ended  chan struct{}
}

// tally is what was recorded of a model since it was last folded.
type tally struct {
	events int
	since  time.Time
}

// dueModels are models to be folded, as of an instant.
type dueModels struct {
	models []uuid.UUID
	now    time.Time
}

// newFolder returns a folder that calls fold for the models that are due. Fold returns those that are to be tried
// again.
func newFolder(fold func(ctx context.Context, due dueModels) (failed []uuid.UUID)) *folder {
	ctx, cancel := context.WithCancel(context.Background())
	f := &folder{
		models: map[uuid.UUID]tally{}, due: make(chan dueModels, 1), cancel: cancel, ended: make(chan struct{}),
	}
	go func() {
		defer close(f.ended)
		for due := range f.due {
			f.postpone(fold(ctx, due), due.now)
		}
	}()
	return f
}

// count counts requests to models, and has the models folded that are due. A model is due when it is first seen.
func (f *folder) count(requests []uuid.UUID, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range requests {
		t, known := f.models[id]
		if !known {
			t = tally{events: foldEvents, since: now}
		}
		t.events++
		f.models[id] = t
	}
	if f.closed || len(f.due) > 0 {
		return
	}
	var due []uuid.UUID
	for id, t := range f.models {
		if t.events >= foldEvents || t.events > 0 && now.Sub(t.since) >= foldAge {
			due = append(due, id)
			f.models[id] = tally{since: now}
		}
	}
	if len(due) > 0 {
		f.due <- dueModels{due, now} // nobody else sends
	}
}

// postpone has models folded again some time after an instant.
func (f *folder) postpone(failed []uuid.UUID, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range failed {
		f.models[id] = tally{events: f.models[id].events + 1, since: now.Add(foldAgain - foldAge)}
	}
}

// close ends a fold that is under way, and begins none.
func (f *folder) close() {
	f.mu.Lock()
	if !f.closed {
		f.closed = true
		f.cancel()
		close(f.due)
	}
	f.mu.Unlock()
	<-f.ended
}
