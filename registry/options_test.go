package registry_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx, to prepare servers
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

func TestWithBusyTimeout(t *testing.T) {
	t.Parallel()
	holding := func(t *testing.T, reg *registry.Registry, do func()) {
		t.Helper()
		require.NoError(t, reg.InTx(t.Context(), func(*registry.Registry) error {
			do()
			return nil
		}))
	}
	path := func(t *testing.T) string {
		t.Helper()
		return filepath.Join(t.TempDir(), "registry.db")
	}
	t.Run("OK_waits", func(t *testing.T) {
		t.Parallel()
		reg := mustOpen(t, path(t), registry.WithBusyTimeout(time.Minute))
		m, k, err := faultFixture(t.Context(), reg)
		require.NoError(t, err)
		var all sync.WaitGroup
		errs := make([]error, 40)
		holding(t, reg, func() {
			for i := range errs {
				all.Go(func() {
					if i%2 == 0 {
						errs[i] = reg.SetSetting(t.Context(), "a", "b")
					} else {
						errs[i] = reg.RecordUsage(t.Context(), registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID})
					}
				})
			}
		})
		all.Wait()
		require.NoError(t, errors.Join(errs...))
		require.NoError(t, reg.Close())
	})
	t.Run("ErrDeadlineExceeded", func(t *testing.T) {
		t.Parallel()
		reg := mustOpen(t, path(t), registry.WithBusyTimeout(time.Hour))
		m, k, err := faultFixture(t.Context(), reg)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		holding(t, reg, func() {
			for _, err := range []error{
				reg.SetSetting(ctx, "a", "b"), reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}),
			} {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, registry.ErrBusy)
			}
		})
		require.NoError(t, reg.Close())
	})
	t.Run("ErrBusy_by_name", func(t *testing.T) {
		t.Parallel()
		reg := mustOpen(t, path(t)+"?_busy_timeout=1")
		holding(t, reg, func() { require.ErrorIs(t, reg.SetSetting(t.Context(), "a", "b"), registry.ErrBusy) })
		require.NoError(t, reg.Close())
	})
	t.Run("ErrBusy_at_once", func(t *testing.T) {
		t.Parallel()
		file := path(t)
		reg := mustOpen(t, file+"?_busy_timeout=60000", registry.WithBusyTimeout(0))
		other := mustOpen(t, file+"?_busy_timeout=0")
		holding(t, reg, func() {
			require.ErrorIs(t, reg.SetSetting(t.Context(), "a", "b"), registry.ErrBusy)
			require.ErrorIs(
				t, other.SetSetting(t.Context(), "a", "b"), registry.ErrBusy, "as another process would be told",
			)
		})
		require.NoError(t, other.SetSetting(t.Context(), "a", "b"))
		require.NoError(t, errors.Join(reg.Close(), other.Close()))
	})
	t.Run("ErrInvalidData", func(t *testing.T) {
		t.Parallel()
		_, err := registry.Open(t.Context(), ":memory:", registry.WithBusyTimeout(-1))
		require.ErrorIs(t, err, registry.ErrInvalidData)
		require.ErrorContains(t, err, "WithBusyTimeout")
	})
}

// WithMaxConns is kept, whatever 64 goroutines want.
func TestWithMaxConns(t *testing.T) {
	t.Parallel()
	for limit, options := range map[int][]registry.Option{
		16: nil, 1: {registry.WithMaxConns(1)}, 3: {registry.WithMaxConns(3)},
	} {
		t.Run(fmt.Sprint("OK_", limit), func(t *testing.T) {
			t.Parallel()
			name := registrytest.PostgresURL(t)
			watch := must(sql.Open("pgx", name))
			defer func() { require.NoError(t, watch.Close()) }()
			watch.SetMaxOpenConns(1)
			marked := fmt.Sprint("max_conns_", limit)
			reg := must(registry.Open(t.Context(), name+"&application_name="+marked, options...))
			defer func() { require.NoError(t, reg.Close()) }()
			p := mustProvider(t, reg, "openai")
			m, k := mustModel(t, reg, p.ID, "gpt-4", gpt4()), mustKey(t, reg, p.ID, 1)
			var all sync.WaitGroup
			errs := make([]error, 64)
			for i := range errs {
				all.Go(func() {
					for range 8 {
						errs[i] = errors.Join(errs[i], openSecond(
							reg.GetProvider(t.Context(), p.ID),
						), reg.RecordUsage(t.Context(), registry.UsageInput{
							ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 1},
						}))
					}
				})
			}
			done := make(chan struct{})
			go func() { all.Wait(); close(done) }()
			most := 0
			for running := true; running; {
				select {
				case <-done:
					running = false
				default:
				}
				var n int
				require.NoError(t, watch.QueryRowContext(t.Context(),
					"SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", marked).Scan(&n))
				most = max(most, n)
			}
			require.NoError(t, errors.Join(errs...))
			require.Equal(t, limit, most)
			stats := must(reg.ListAPIKeys(t.Context(), registry.KeyFilter{ProviderID: p.ID}))
			require.EqualValues(t, 64*8, stats[0].UsageCount)
		})
	}
}
