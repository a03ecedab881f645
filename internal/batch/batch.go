// Package batch commits the calls of many callers together: one transaction and one sync to disk for all calls that
// arrive while the last one is under way. No caller is answered before the commit.
package batch

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// grace is how long Do waits for a batch that has begun, after its context has ended. Most batches end in time, and
// their callers learn the outcome.
const grace = 150 * time.Millisecond

// errLate is returned when an item's batch has not begun in time. Nothing was done.
var errLate = fmt.Errorf("%w: those before have not ended in time; %s", fault.ErrBusy, fault.Mistake)

// Queue collects items of concurrent callers. Its zero value is not usable; see [New].
type Queue[T any] struct {
	most   int
	wait   time.Duration // for a batch to begin; 0: without a limit
	commit func(ctx context.Context, items []T) []error
	slots  chan struct{} // holds a token for each caller that is in the queue

	mu      sync.Mutex
	waiting []*entry[T]
	running bool // a goroutine commits
	closing chan struct{}
	runs    sync.WaitGroup
}

type entry[T any] struct {
	item  T
	done  chan error // of capacity 1
	group *group     // its batch; nil until that begins
}

// group is a batch under way.
type group struct {
	callers int // who wait for it
	cancel  context.CancelFunc
}

// New returns a queue that commits up to most items at a time. It holds up to limit items, including those of the batch
// under way; further callers wait. An item waits at most that long for its batch to begin; 0 is no limit. Commit is
// called from one goroutine at a time and returns an error, or nil, for each item. Its context ends when nobody waits
// for the batch any more. A goroutine runs only while there is work.
func New[T any](most, limit int, wait time.Duration, commit func(ctx context.Context, items []T) []error) *Queue[T] {
	return &Queue[T]{
		most: most, wait: wait, commit: commit, slots: make(chan struct{}, limit), closing: make(chan struct{}),
	}
}

// Do puts an item into the next batch and returns its verdict. If the context ends before the batch begins, the item is
// taken back and the context's error is returned. If the batch has begun, Do waits a little longer, and then returns
// fault.ErrUncertain and the context's error. It returns fault.ErrBusy if the batch does not begin in time, and
// fault.ErrClosed after Close.
func (q *Queue[T]) Do(ctx context.Context, item T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var tooLong <-chan time.Time
	if q.wait > 0 {
		tooLong = time.After(q.wait)
	}
	select {
	case q.slots <- struct{}{}:
	case <-q.closing:
		return fault.ErrClosed
	case <-tooLong:
		return errLate
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-q.slots }()
	e := &entry[T]{item: item, done: make(chan error, 1)}
	if !q.enter(e) {
		return fault.ErrClosed
	}
	for {
		select {
		case err := <-e.done:
			return err
		case <-tooLong: // once; what has begun has its own limits
			if q.takeBack(e) {
				return errLate
			}
		case <-ctx.Done():
			if q.takeBack(e) {
				return ctx.Err()
			}
			return q.lateAnswer(ctx, e)
		}
	}
}

// lateAnswer waits a little for the end of a batch.
func (q *Queue[T]) lateAnswer(ctx context.Context, e *entry[T]) error {
	select {
	case err := <-e.done:
		return err
	case <-time.After(grace):
		q.leave(e)
		return fmt.Errorf("%w: the context ended while the commit was under way: %w", fault.ErrUncertain, ctx.Err())
	}
}

func (q *Queue[T]) enter(e *entry[T]) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-q.closing:
		return false
	default:
	}
	q.waiting = append(q.waiting, e)
	if !q.running {
		q.running = true
		q.runs.Go(func() {
			for q.runOnce() {
			}
		})
	}
	return true
}

// takeBack removes an entry whose batch has not begun.
func (q *Queue[T]) takeBack(e *entry[T]) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, e)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return true
}

// leave notes that a caller no longer waits for its batch.
func (q *Queue[T]) leave(e *entry[T]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e.group.callers--; e.group.callers == 0 {
		e.group.cancel()
	}
}

// runOnce commits a batch. There is no more to do if nobody waits.
func (q *Queue[T]) runOnce() (more bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	batch := q.next(cancel)
	items := make([]T, len(batch))
	for i, e := range batch {
		items[i] = e.item
	}
	if len(items) == 0 {
		return false
	}
	began := time.Now() //nolint:forbidigo // how long the machine takes
	errs := q.commit(ctx, items)
	took := time.Since(began)
	waiting := q.waits()
	for i, err := range errs {
		batch[i].done <- err
	}
	if len(items) == 1 { // a single caller is not waited for
		runtime.Gosched()
	} else {
		q.gather(waiting+len(items), took)
	}
	return true
}

// gather waits this long, and yields this often, for the next caller to come back. A commit takes hundreds of
// microseconds. Both bounds are needed: yielding takes a while on a busy machine, and time may stand still in a test.
const (
	patience = 100 * time.Microsecond
	rounds   = 500
)

// gather waits until the expected number of callers wait: the answered ones, many of whom come back at once, and the
// ones who arrived meanwhile. This makes batches larger and fewer. It waits while callers arrive, but no longer than a
// quarter of the commit's time.
func (q *Queue[T]) gather(expected int, took time.Duration) {
	began := time.Now() //nolint:forbidigo // how long the machine takes
	came, last := 0, began
	for range rounds {
		runtime.Gosched()
		n, now := q.waits(), time.Now() //nolint:forbidigo // likewise
		if n > came {
			came, last = n, now
		}
		if n >= expected || now.Sub(last) >= patience || now.Sub(began) >= max(patience, took/4) {
			return
		}
	}
}

// waits returns how many callers wait.
func (q *Queue[T]) waits() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

func (q *Queue[T]) next(cancel context.CancelFunc) []*entry[T] {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(q.most, len(q.waiting))
	if n == 0 {
		q.running = false
		return nil
	}
	batch := slices.Clone(q.waiting[:n])
	q.waiting = slices.Delete(q.waiting, 0, n)
	g := &group{n, cancel}
	for _, e := range batch {
		e.group = g
	}
	return batch
}

// Close refuses new items and waits until the items in the queue have been committed. A second Close waits too.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	select {
	case <-q.closing:
	default:
		close(q.closing)
	}
	q.mu.Unlock() // nobody enters any more
	q.runs.Wait()
}
