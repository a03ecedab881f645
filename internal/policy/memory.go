package policy

import (
	"context"
	"sync"
	"time"
)

// Trust is how long what is remembered is believed after its version was seen.
const Trust = time.Second

// most is how many access keys are remembered: tens of megabytes.
const most = 100_000

// Memory remembers what was read of a database under one version. The version counts all changes of what may be
// remembered, each in the transaction that makes it; so what is read after a version was seen is at least as new. If
// another version is seen, everything is forgotten. What is not there is never remembered.
type Memory struct {
	clock func() time.Time
	look  func(ctx context.Context) (version int64, err error)

	mu      sync.RWMutex
	version int64
	seen    time.Time // when the last look at the version began; zero: look again
	expired int       // how often Expire was called
	keys    map[Hash]*AccessKey
	looking *look // nil: nobody looks
}

// look is one look at the version, which concurrent callers share.
type look struct {
	began   time.Time
	expired int           // Memory.expired when it began
	done    chan struct{} // closed when it has ended, and the rest is set
	version int64
	err     error
	gaveUp  bool // the context of the caller who looks has ended
}

// New returns a memory that goes by a clock. Look returns the version that the database has now.
func New(clock func() time.Time, look func(ctx context.Context) (int64, error)) *Memory {
	return &Memory{clock: clock, look: look, keys: map[Hash]*AccessKey{}}
}

// Expire makes the next caller look at the version again. This process has changed something.
func (m *Memory) Expire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = time.Time{}
	m.expired++
}

// Remembered returns the access key of a secret, or nil if it is to be read: see AccessKey.
func (m *Memory) Remembered(hash Hash, now time.Time) *AccessKey {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.isFresh(now) {
		return nil
	}
	return m.keys[hash]
}

// AccessKey returns the access key of a secret. It reads the key unless it is remembered. An error of read is returned
// and nothing is remembered.
func (m *Memory) AccessKey(
	ctx context.Context, hash Hash, read func(ctx context.Context) (*AccessKey, error),
) (*AccessKey, error) {
	version, err := m.current(ctx)
	if err != nil {
		return nil, err
	}
	m.mu.RLock()
	key, known := m.keys[hash]
	m.mu.RUnlock()
	if known {
		return key, nil
	}
	if key, err = read(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.version == version { // else it may be older than what is remembered now
		if len(m.keys) >= most {
			clear(m.keys)
		}
		m.keys[hash] = key
	}
	return key, nil
}

// isFresh reports whether the version was seen recently. The clock may have gone back.
func (m *Memory) isFresh(now time.Time) bool {
	age := now.Sub(m.seen)
	return !m.seen.IsZero() && age >= 0 && age < Trust
}

// current returns the version. It looks, or waits for somebody else's look, if the last one is too old.
func (m *Memory) current(ctx context.Context) (version int64, err error) {
	for waited := false; ; waited = true {
		m.mu.Lock()
		if m.isFresh(m.clock()) {
			defer m.mu.Unlock()
			return m.version, nil
		}
		if m.looking == nil {
			mine := &look{began: m.clock(), expired: m.expired, done: make(chan struct{})}
			m.looking = mine
			m.mu.Unlock()
			return m.lead(ctx, mine)
		}
		others := m.looking
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-others.done:
		}
		switch {
		case others.gaveUp: // which says nothing of the database
		case others.err != nil:
			return 0, others.err
		case waited: // it began after this call, however long it took
			return others.version, nil
		}
	}
}

// lead looks at the version, for all who wait for it.
func (m *Memory) lead(ctx context.Context, mine *look) (int64, error) {
	defer func() {
		m.mu.Lock()
		m.looking = nil
		m.mu.Unlock()
		close(mine.done)
	}()
	mine.gaveUp = true // if it panics
	mine.version, mine.err = m.look(ctx)
	mine.gaveUp = ctx.Err() != nil
	if mine.err != nil {
		return 0, mine.err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if mine.version != m.version {
		m.version = mine.version
		clear(m.keys)
	}
	if mine.expired == m.expired {
		m.seen = mine.began
	}
	return mine.version, nil
}
