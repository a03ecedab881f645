package registry_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// movedSource is a database that is moved to the other engine, and a registry that writes to it.
type movedSource struct {
	from, to string
	reg      *registry.Registry
	input    registry.UsageInput
}

func newMovedSource(t *testing.T, engine string) *movedSource {
	t.Helper()
	s := &movedSource{from: filepath.Join(t.TempDir(), "a.db"), to: registrytest.PostgresURL(t)}
	if engine == "postgres" {
		s.from, s.to = s.to, s.from
	}
	s.reg = s.open(t)
	p := mustProvider(t, s.reg, "p")
	s.input = registry.UsageInput{
		ModelID: mustModel(t, s.reg, p.ID, "m", gpt4()).ID, APIKeyID: mustKey(t, s.reg, p.ID, 1).ID,
		Tokens: meter.Tokens{InputTokens: 1},
	}
	require.NoError(t, s.reg.RecordUsage(t.Context(), s.input))
	require.NoError(t, s.reg.SetSetting(t.Context(), "k", "v"))
	return s
}

func (s *movedSource) open(t *testing.T) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(t.Context(), s.from, registry.WithDurability(registry.DurabilityRelaxed),
		registry.WithClock(func() time.Time { return registrytest.Start }))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	return reg
}

// noticed requires that a move has noticed what was written, that its target is of no use, and that the next one comes
// through with everything.
func (s *movedSource) noticed(t *testing.T, err error) {
	t.Helper()
	require.ErrorIs(t, err, registry.ErrConflict)
	require.ErrorContains(t, err, "stop what writes to it")
	_, err = registry.Open(t.Context(), s.to)
	require.ErrorIs(t, err, registry.ErrSchema)
	_, err = registry.Move(t.Context(), s.from, s.to, nil)
	require.NoError(t, err)
	moved, err := registry.Open(t.Context(), s.to, registry.WithClock(func() time.Time { return registrytest.Start }))
	require.NoError(t, err)
	require.Equal(t, dump(t, s.reg), dump(t, moved))
	require.NoError(t, moved.Close())
}

// isLast reports whether nearly all rows are copied.
func isLast(table string, done, total int64) bool { return table == "settings" && done == total }

// TestMoveWhileWriting writes to the source while it is moved: Move notices, whatever is written and whenever.
func TestMoveWhileWriting(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		for name, write := range map[string]func(context.Context, *movedSource) error{
			"a new row": func(ctx context.Context, s *movedSource) error { return s.reg.RecordUsage(ctx, s.input) },
			"a change":  func(ctx context.Context, s *movedSource) error { return s.reg.SetSetting(ctx, "k", "w") },
		} {
			for _, stage := range []string{"first", "last"} {
				t.Run(fmt.Sprintf("ErrConflict %s %s at the %s step", engine, name, stage), func(t *testing.T) {
					t.Parallel()
					s, once := newMovedSource(t, engine), sync.Once{}
					_, err := registry.Move(t.Context(), s.from, s.to, func(table string, done, total int64) {
						if stage == "first" || isLast(table, done, total) {
							once.Do(func() { require.NoError(t, write(t.Context(), s)) })
						}
					})
					s.noticed(t, err)
				})
			}
		}
		t.Run("ErrConflict "+engine+" a transaction that is open in the end", func(t *testing.T) {
			t.Parallel()
			s := newMovedSource(t, engine)
			server := must(sql.Open("pgx", map[string]string{"sqlite": s.to, "postgres": s.from}[engine]))
			defer func() { require.NoError(t, server.Close()) }()
			var done atomic.Bool
			result := make(chan error, 1)
			require.NoError(t, s.reg.InTx(t.Context(), func(tx *registry.Registry) error {
				if err := tx.RecordUsage(t.Context(), s.input); err != nil {
					return err
				}
				go func() {
					_, err := registry.Move(t.Context(), s.from, s.to, nil)
					done.Store(true)
					result <- err
				}()
				for polls := 0; polls < 100 && !done.Load(); { // a while longer than it takes to get there
					if s.isHeldUp(t, server) {
						polls++
					}
				}
				require.False(t, done.Load(), "it waits for the transaction")
				return nil
			}))
			s.noticed(t, <-result)
		})
	}
}

// isHeldUp reports whether a move waits for the writers of its source.
func (s *movedSource) isHeldUp(t *testing.T, server *sql.DB) (heldUp bool) {
	t.Helper()
	state := "wait_event_type = 'Lock'"
	if strings.HasPrefix(s.to, "postgres") {
		state = "state = 'idle' AND query = 'ANALYZE'" // its last statement to the target
	}
	require.NoError(t, server.QueryRowContext(t.Context(), "SELECT EXISTS (SELECT 1 FROM pg_stat_activity"+
		" WHERE datname = current_database() AND "+state+")").Scan(&heldUp))
	return heldUp
}

// TestMoveWriters has several goroutines of two registries record without a pause while a database is moved: every
// request that was acknowledged is in the target, or the move has failed.
func TestMoveWriters(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			s := newMovedSource(t, engine)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var (
				writers sync.WaitGroup
				mu      sync.Mutex
				acked   []string
			)
			writing, written := make(chan struct{}, 4), make(chan struct{})
			for g, reg := range []*registry.Registry{s.reg, s.reg, s.open(t), s.open(t)} {
				writers.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						in := s.input
						in.RequestID = fmt.Sprint("r", g, "-", i)
						if err := reg.RecordUsage(t.Context(), in); err != nil {
							t.Errorf("%s: %v", in.RequestID, err)
							cancel()
							return
						}
						mu.Lock()
						acked = append(acked, in.RequestID)
						mu.Unlock()
						if i == 0 {
							writing <- struct{}{}
						}
						select {
						case written <- struct{}{}:
						default:
						}
					}
				})
			}
			for range 4 {
				<-writing
			}
			var copying sync.Once
			_, err := registry.Move(t.Context(), s.from, s.to, func(string, int64, int64) {
				copying.Do(func() { // the fifth was begun after the move has begun to copy
					for range 5 {
						select {
						case <-written:
						case <-ctx.Done():
						}
					}
				})
			})
			cancel()
			writers.Wait()
			s.noticed(t, err)
			moved, err := registry.Open(t.Context(), s.to)
			require.NoError(t, err)
			defer func() { require.NoError(t, moved.Close()) }()
			there := must(moved.Client().UsageEvent.Query().Where(usageevent.RequestIDIn(acked...)).Count(t.Context()))
			require.Equal(t, len(acked), there, "every acknowledged request")
			t.Logf("%d requests", there)
		})
	}
}
