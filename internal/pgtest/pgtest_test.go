package pgtest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
)

// roleVariable makes the test binary a process of a test.
const roleVariable = "MODELSCAN_PGTEST_ROLE"

// TestMain plays a role until its standard input ends, or runs the tests.
func TestMain(m *testing.M) {
	role, process, _ := strings.Cut(os.Getenv(roleVariable), " ")
	var text string
	var err error
	switch role {
	case "":
		os.Exit(m.Run())
	case "wait":
	case "share":
		var life int
		if life, err = strconv.Atoi(process); err == nil {
			text, err = pgtest.Share(context.Background(), life)
		}
	case "start":
		var c *pgtest.Cluster
		if c, err = pgtest.Start(context.Background()); err == nil {
			text = c.URL("postgres")
		}
	}
	fmt.Println(text, err)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	var fills atomic.Int32
	fill := func(_ context.Context, url string) error {
		fills.Add(1)
		return run(url, "CREATE TABLE a (id int)", "INSERT INTO a VALUES (1)")
	}
	empty := pgtest.Database(t, "", nil)
	require.Zero(t, one[int](t, empty, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"))
	exists := func(url string) bool {
		name := url[strings.LastIndex(url, "/")+1:]
		name, _, _ = strings.Cut(name, "?")
		return one[bool](t, empty, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = '"+name+"')")
	}

	t.Run("OK", func(t *testing.T) {
		urls := make([]string, 3)
		t.Run("copies", func(t *testing.T) {
			var wg sync.WaitGroup
			for i := range urls {
				wg.Go(func() {
					urls[i] = pgtest.Database(t, "TestDatabase", fill)
					require.NoError(t, run(urls[i], fmt.Sprintf("INSERT INTO a VALUES (%d)", 10+i)))
				})
			}
			wg.Wait()
			for i, url := range urls {
				require.Equal(t, 11+i, one[int](t, url, "SELECT sum(id) FROM a"))
				require.True(t, exists(url))
			}
		})
		for _, url := range urls {
			require.False(t, exists(url))
		}
		if os.Getenv(pgtest.Variable) == "" {
			require.Equal(t, int32(1), fills.Load())
		}
	})
	t.Run("OK/another key", func(t *testing.T) {
		url := pgtest.Database(t, "TestDatabase/another", func(_ context.Context, url string) error {
			return run(url, "CREATE TABLE b (id int)")
		})
		require.Zero(t, one[int](t, url, "SELECT count(*) FROM b"))
	})
	t.Run("OK/open connections", func(t *testing.T) {
		var db *sql.DB
		t.Run("", func(t *testing.T) {
			var err error
			db, err = sql.Open("pgx", pgtest.Database(t, "", nil))
			require.NoError(t, err)
			require.NoError(t, db.PingContext(t.Context()))
		})
		require.Error(t, db.PingContext(t.Context()))
		require.NoError(t, db.Close())
	})
	t.Run("ErrFill", func(t *testing.T) {
		var draft string
		fails := func(_ context.Context, url string) error {
			draft = url
			return errors.New("filled too much")
		}
		tb := observe("TestDatabase/ErrFill", fails)
		require.Contains(t, tb.failed, "filled too much")
		require.Empty(t, tb.skipped)
		require.False(t, exists(draft))
	})
}
