package registry_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestContextsAndMemory ends contexts in the middle of writes: a database in memory is its
// connection, and must outlive them.
func TestContextsAndMemory(t *testing.T) {
	t.Parallel()
	reg, err := registry.Open(t.Context(), ":memory:")
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	mustProvider(t, reg, "openai")
	written := 0
	for i := range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Microsecond)
		if err := reg.SetSetting(ctx, "k", "v"); err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		} else {
			written++
		}
		cancel()
	}
	t.Logf("%d of 300 writes came through", written)
	all, err := reg.ListProviders(t.Context(), registry.ProviderFilter{})
	require.NoError(t, err)
	require.Len(t, all, 1)
}

// TestInTxInterrupted ends the context of one operation of a transaction, in the middle of a large
// write, which SQLite answers by rolling the whole transaction back: nothing of it may remain,
// however the caller goes on.
func TestInTxInterrupted(t *testing.T) { eachEngine(t, testInTxInterrupted) }

func testInTxInterrupted(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	for _, timeout := range []time.Duration{
		time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond,
	} {
		interrupted := false
		err := reg.InTx(t.Context(), func(tx *registry.Registry) error {
			mustProvider(t, tx, "before")
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			_, err := tx.ImportCatalog(ctx, catalog.Catwalk(), nil)
			interrupted = err != nil
			// The error is ignored: what follows must not be committed without what came before.
			_, _ = tx.CreateProvider(t.Context(), registry.ProviderInput{Name: "after"})
			return nil
		})
		require.True(t, interrupted)
		all, listErr := reg.ListProviders(t.Context(), registry.ProviderFilter{})
		require.NoError(t, listErr)
		if err != nil {
			require.Empty(t, all, "all or nothing")
			continue
		}
		require.Len(t, all, 2, "the import alone was undone")
		for _, p := range all {
			require.NoError(t, reg.PurgeProvider(t.Context(), p.ID))
		}
	}
}

// TestInTxCancelledAtTheEnd ends the context of an operation of a transaction when its work is
// done: the operation failed, so nothing of it remains.
func TestInTxCancelledAtTheEnd(t *testing.T) { eachEngine(t, testInTxCancelledAtTheEnd) }

func testInTxCancelledAtTheEnd(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
		ctx, cancel := context.WithCancel(t.Context())
		err := tx.InTx(ctx, func(tx *registry.Registry) error {
			_, err := tx.CreateProvider(ctx, registry.ProviderInput{Name: "gone"})
			cancel()
			return err
		})
		require.ErrorIs(t, err, context.Canceled)

		ctx, cancel = context.WithCancel(t.Context())
		_, err = tx.ImportCatalog(ctx, catalog.Catwalk(), func(done, total int) {
			if done == total {
				cancel()
			}
		})
		require.ErrorIs(t, err, context.Canceled)
		mustProvider(t, tx, "kept")
		return nil
	}))
	all, err := reg.ListProviders(t.Context(), registry.ProviderFilter{})
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, "kept", all[0].Name)
}

// TestInTxNotUndone fails a part of a transaction in a way that keeps it from being undone: nothing of the whole
// transaction remains, though its function says that all is well.
func TestInTxNotUndone(t *testing.T) { eachEngine(t, testInTxNotUndone) }

func testInTxNotUndone(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	failed := errors.New("failed")
	for name, part := range map[string]func(tx *registry.Registry) error{
		"returns": func(*registry.Registry) error { return failed },
		"panics":  func(*registry.Registry) error { panic(failed) },
	} {
		err := reg.InTx(t.Context(), func(tx *registry.Registry) error {
			defer func() { _ = recover() }()
			err := tx.As("somebody").InTx(t.Context(), func(tx *registry.Registry) error {
				mustProvider(t, tx, "torn")
				_, err := tx.Client().ExecContext(t.Context(), "RELEASE op") // what it would be undone to
				require.NoError(t, err)
				return part(tx)
			})
			require.ErrorIs(t, err, failed)
			return nil
		})
		require.Error(t, err, name)
		all, err := reg.ListProviders(t.Context(), registry.ProviderFilter{})
		require.NoError(t, err)
		require.Empty(t, all, name)
	}
}

// TestInTxOfAnEndedContext asks a transaction for more after its context has ended.
func TestInTxOfAnEndedContext(t *testing.T) { eachEngine(t, testInTxOfAnEndedContext) }

func testInTxOfAnEndedContext(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := reg.InTx(ctx, func(tx *registry.Registry) error {
		mustProvider(t, tx, "gone")
		cancel()
		for {
			if _, err := tx.ListProviders(t.Context(), registry.ProviderFilter{}); err != nil {
				return err
			}
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	all, err := reg.ListProviders(t.Context(), registry.ProviderFilter{})
	require.NoError(t, err)
	require.Empty(t, all)
}

// TestDeadlineWhileLocked has another registry, as another process would, hold the write lock.
func TestDeadlineWhileLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	one, err := registry.Open(t.Context(), path)
	require.NoError(t, err)
	defer func() { require.NoError(t, one.Close()) }()
	other, err := registry.Open(t.Context(), path)
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()

	require.NoError(t, other.InTx(t.Context(), func(tx *registry.Registry) error {
		mustProvider(t, tx, "other")
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, one.SetSetting(ctx, "k", "v"), context.DeadlineExceeded)
		require.Less(t, time.Since(start), 5*time.Second)
		return nil
	}))
	require.NoError(t, one.SetSetting(t.Context(), "k", "v"))
}

// Whoever uses within InTx the registry that it was called on waits for himself. He is told so.
func TestRegistryWithinInTx(t *testing.T) {
	t.Parallel()
	// Long enough for a busy machine to make the fixture; all operations wait at the same time.
	soon := registry.WithBusyTimeout(2 * time.Second)
	for name, test := range map[string]struct {
		open  func(t *testing.T, options ...registry.Option) *registry.Registry
		reads error // what reads return
	}{
		"file": {open: func(t *testing.T, options ...registry.Option) *registry.Registry {
			t.Helper()
			return mustOpen(t, filepath.Join(t.TempDir(), "registry.db"), options...)
		}},
		"memory": {open: func(t *testing.T, options ...registry.Option) *registry.Registry {
			t.Helper()
			return mustOpen(t, ":memory:", options...)
		}, reads: registry.ErrBusy},
		"one_connection": {open: func(t *testing.T, options ...registry.Option) *registry.Registry {
			t.Helper()
			return registrytest.NewPostgres(t, append(options, registry.WithMaxConns(1))...)
		}, reads: registry.ErrBusy},
	} {
		t.Run("ErrBusy_"+name, func(t *testing.T) {
			t.Parallel()
			reg := test.open(t, soon, registry.WithKeyring(ring(t, "a")))
			operations := openOperations(t, reg)
			before := dump(t, reg)
			require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
				var (
					all  sync.WaitGroup
					errs sync.Map
				)
				for name, operate := range operations {
					all.Go(func() { errs.Store(name, operate(t.Context(), reg)) })
				}
				all.Wait()
				for name := range operations {
					got, _ := errs.Load(name)
					err, _ := got.(error)
					if openReads(name) && test.reads == nil {
						require.NoError(t, err, name)
						continue
					}
					require.ErrorIs(t, err, registry.ErrBusy, name)
					require.ErrorContains(t, err, "within InTx use the registry that it gives to its function", name)
					require.NotErrorIs(t, err, registry.ErrUncertain, name)
				}
				require.Equal(t, before, dump(t, tx))
				return tx.SetSetting(t.Context(), "and", "goes on")
			}))
			require.NoError(t, reg.SetSetting(t.Context(), "and", "after"))
			require.NoError(t, reg.Close())
		})
	}
	t.Run("ErrBusy_the_same_row", func(t *testing.T) {
		t.Parallel()
		reg := registrytest.NewPostgres(t, registry.WithBusyTimeout(20*time.Millisecond))
		require.NoError(t, reg.InTx(t.Context(), func(tx *registry.Registry) error {
			require.NoError(t, tx.SetSetting(t.Context(), "a", "b"))
			err := reg.SetSetting(t.Context(), "a", "c")
			require.ErrorIs(t, err, registry.ErrBusy)
			require.ErrorContains(t, err, "within InTx use the registry that it gives to its function")
			return reg.SetSetting(t.Context(), "another", "does not wait")
		}))
	})
}

// TestRowsLeftOpen writes while rows that were read are left open: the write would wait for their connection for ever.
func TestRowsLeftOpen(t *testing.T) {
	t.Parallel()
	const returning = "INSERT INTO settings (key, value, updated_at)" +
		" VALUES ('x', '', '2026-01-01'), ('y', '', '2026-01-01') RETURNING key"
	for what, of := range map[string]struct{ name, query string }{
		"read_in_memory":    {":memory:", "SELECT 1"},
		"written_in_memory": {":memory:", returning},
		"written_in_a_file": {filepath.Join(t.TempDir(), "registry.db"), returning},
	} {
		t.Run("ErrBusy_"+what, func(t *testing.T) {
			t.Parallel()
			ctx := context.WithoutCancel(t.Context()) // which has no deadline
			reg := mustOpen(t, of.name, registry.WithBusyTimeout(time.Second))
			m, k, err := faultFixture(ctx, reg)
			require.NoError(t, err)
			rows, err := reg.Client().QueryContext(ctx, of.query)
			require.NoError(t, err)
			require.True(t, rows.Next())
			for _, err := range []error{
				reg.SetSetting(ctx, "a", "b"),
				reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}),
				reg.InTx(ctx, func(*registry.Registry) error { return nil }),
			} {
				require.ErrorIs(t, err, registry.ErrBusy)
				require.ErrorContains(t, err, "rows that nobody has closed")
			}
			require.NoError(t, errors.Join(rows.Close(), rows.Err()))
			require.NoError(t, reg.SetSetting(ctx, "a", "b"))
			require.NoError(t, reg.Close())
		})
	}
}
