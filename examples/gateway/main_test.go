package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestRun runs the demo twice on one database. The second run goes on with what the first one
// left.
func TestRun(t *testing.T) {
	t.Parallel()
	cfg := config{db: filepath.Join(t.TempDir(), "gateway.db"), calls: 150, clients: 16, limit: 6, rest: time.Second}
	for n := range 2 {
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), cfg, &out))
		text := out.String()
		for _, part := range []string{
			"Catalogue: catwalk", "Served 150 calls", "cheapest first", "Key health",
			"Cost by model", "provider → family → model", "deepseek-v4-flash", cfg.db,
		} {
			require.Contains(t, text, part)
		}
		if n == 0 {
			require.Contains(t, text, "│ models    │    1506 │       0 │         0 │")
		} else {
			require.Contains(t, text, "│ models    │       0 │       0 │      1506 │")
		}
	}
	reg, err := registry.Open(t.Context(), cfg.db)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	rows, err := reg.Client().Usage.Query().Where(usage.GrainEQ(usage.GrainDay)).All(t.Context())
	require.NoError(t, err)
	var served, failed int64
	for _, row := range rows {
		served += row.RequestCount - row.ErrorCount
		failed += row.ErrorCount
		require.Zero(t, row.UnpricedCount)
	}
	require.EqualValues(t, 2*cfg.calls, served, "each call is recorded once")
	require.NotZero(t, failed, "and each 429 as a failed one")
}

// TestAllLimited: a request that is rate limited with every key it may try is told when to come
// back, like one that found no key at all.
func TestAllLimited(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	keyring, err := loadKeyring(filepath.Join(t.TempDir(), "key"))
	require.NoError(t, err)
	reg, err := registry.Open(ctx, ":memory:", registry.WithKeyring(keyring))
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	_, err = reg.ImportCatalog(ctx, catalog.Catwalk(), nil)
	require.NoError(t, err)
	g := &gateway{reg: reg, client: http.DefaultClient, routes: map[string]*ent.Model{}}
	keys, err := g.setUp(ctx)
	require.NoError(t, err)
	provider := newUpstream(keys, 1, time.Minute)
	defer provider.Close()
	g.upstream = provider.URL

	for _, message := range []string{"rate limited for 1m0s", "no key available"} {
		answer := httptest.NewRecorder()
		g.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(`{"model": "xai/grok-4.5"}`)))
		require.Equal(t, http.StatusServiceUnavailable, answer.Code)
		require.Contains(t, answer.Body.String(), message)
		seconds, err := strconv.Atoi(answer.Header().Get("Retry-After"))
		require.NoError(t, err)
		require.InDelta(t, 60, seconds, 10)
	}
}
