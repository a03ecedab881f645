package commit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
)

// openBook opens the book of dimensions, unless it is open. In a caller's transaction it is read, because the
// transaction may have changed them.
func (b *batch) openBook(ctx context.Context) (err error) {
	switch {
	case b.book != nil:
		return nil
	case b.inTx:
		b.book, err = dimension.Read(ctx, b.tx)
		return err
	}
	version, err := b.policyVersion(ctx, b.tx)
	if err == nil {
		b.book, err = b.dimensions.Open(ctx, b.tx, version)
	}
	return err
}

// remembering returns what the process remembers of dimensions, or nil in a caller's transaction.
func (b *batch) remembering() *dimension.Memory {
	if b.inTx {
		return nil
	}
	return &b.dimensions
}

// checkTags returns fault.ErrInvalidData if a request of an instant may not have some tags.
func (b *batch) checkTags(tags string, at time.Time) error {
	if tags == "" {
		return nil
	}
	return b.book.Check(tags, at)
}

// attribute adds the values that requests are the first ones of. Requests that a fold has passed are added to the
// periods of their values.
func (b *batch) attribute(ctx context.Context) error {
	said := len(b.late) > 0
	for i := range b.events {
		said = said || b.events[i].Tags != "" || b.events[i].Consumer != nil
	}
	if !said {
		return nil
	}
	if err := b.openBook(ctx); err != nil || len(b.book.All) == 0 {
		return err
	}
	if err := b.book.Intern(ctx, b.tx, b.engine, b.remembering(), b.events); err != nil {
		return err
	}
	for i := range b.late {
		if err := b.book.AddTo(b.periods, &b.late[i]); err != nil {
			return err
		}
	}
	return nil
}

const (
	// foldEvents is how many requests to a model a process records before it folds them. More are cheaper to fold and
	// dearer to report.
	foldEvents = 1024
	// foldAge is after how long it folds fewer.
	foldAge = time.Hour
)

// folder folds the requests that this process has recorded, in the background. What it does not fold stays in the tail,
// which reports add.
type folder struct {
	mu      sync.Mutex
	models  map[uuid.UUID]*tally
	running bool
	closed  bool
	all     sync.WaitGroup
}

// tally is what was recorded of a model since it was last folded.
type tally struct {
	events int
	since  time.Time
}

// due counts requests that were recorded, and returns the models to fold. A model is folded first when it is first seen.
func (f *folder) due(calls []Call, errs []error, now time.Time) (models []uuid.UUID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range calls {
		if !calls[i].records() || errs != nil && errs[i] != nil {
			continue
		}
		id := calls[i].Request.Model
		t := f.models[id]
		if t == nil {
			if f.models == nil {
				f.models = map[uuid.UUID]*tally{}
			}
			t = &tally{events: foldEvents, since: now}
			f.models[id] = t
		}
		t.events++
	}
	if f.running || f.closed {
		return nil
	}
	for id, t := range f.models {
		if t.events >= foldEvents || t.events > 0 && now.Sub(t.since) >= foldAge {
			models = append(models, id)
			*t = tally{since: now}
		}
	}
	if f.running = len(models) > 0; f.running {
		f.all.Add(1)
	}
	return models
}

// ended notes that the models have been folded.
func (f *folder) ended() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = false
	f.all.Done()
}

// isClosed reports whether no further model is to be folded.
func (f *folder) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// close waits for folds under way, and begins none.
func (f *folder) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.all.Wait()
}

// foldDue folds models of which many requests have been recorded. An error leaves the requests in the tail: the next
// fold takes them.
func (m *Committer) foldDue(calls []Call, errs []error) {
	models := m.folds.due(calls, errs, m.Clock())
	if len(models) == 0 {
		return
	}
	go func() {
		defer m.folds.ended()
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		client := ent.NewClient(ent.Driver(m.DB.Fresh()))
		if b, err := dimension.Read(ctx, client); err != nil || len(b.All) == 0 { // most registries have none
			return
		}
		for _, id := range models {
			if m.folds.isClosed() {
				return
			}
			_ = m.Fold(ctx, id)
		}
	}()
}

// foldAtOnce is how many requests a fold adds up in one transaction.
const foldAtOnce = 2048

// Fold adds the requests of a model to the periods of their values, but for those that may still be overtaken.
func (m *Committer) Fold(ctx context.Context, model uuid.UUID) error {
	for more := true; more; {
		err := m.Write(ctx, func(tx *ent.Client) (err error) {
			more, err = m.FoldSome(ctx, tx, model)
			return err
		})
		if err != nil {
			return fmt.Errorf("fold model %s: %w", model, err)
		}
	}
	return nil
}

// FoldSome is Fold for the first requests, in a transaction. It reports whether there are more.
func (m *Committer) FoldSome(ctx context.Context, tx *ent.Client, model uuid.UUID) (more bool, err error) {
	b := batch{env: &m.env, tx: tx}
	if err := b.openBook(ctx); err != nil {
		return false, err
	}
	return b.book.Fold(ctx, tx, m.engine, &m.dimensions, dimension.Tail{
		Model: model, Now: m.Clock(), Limit: foldAtOnce,
	})
}
