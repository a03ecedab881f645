package bench_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// request is what is recorded. All designs get the same ones.
type request struct {
	model, key uuid.UUID
	tokens     meter.Tokens
	latency    time.Duration
	at         time.Time
}

// design records requests. Record returns when the request is durable.
type design interface {
	record(ctx context.Context, r request) error
	close() error
}

// database is a database with the registry's schema and a catalogue, on which any design can work.
type database struct {
	engine, name string
	models       []uuid.UUID
	keys         [][]uuid.UUID // by model
}

// newDatabase makes a database with providers of some models and keys each.
func newDatabase(b *testing.B, engine string, providers, models, keys int) database {
	b.Helper()
	name := filepath.Join(b.TempDir(), "bench.db")
	if engine == "postgres" {
		name = registrytest.PostgresURL(b)
	}
	return newCatalogue(b, engine, name, providers, models, keys)
}

// newCatalogue makes the providers in a database of that name.
func newCatalogue(b *testing.B, engine, name string, providers, models, keys int) database {
	b.Helper()
	d := database{engine: engine, name: name}
	reg, err := registry.Open(b.Context(), d.name)
	require.NoError(b, err)
	require.NoError(b, reg.InTx(b.Context(), func(tx *registry.Registry) error {
		for i := range providers {
			p, err := tx.CreateProvider(b.Context(), registry.ProviderInput{Name: fmt.Sprint("p", i)})
			if err != nil {
				return err
			}
			var ids []uuid.UUID
			for k := range keys {
				key, err := tx.AddAPIKey(
					b.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: fmt.Sprintf("sk-bench-%04d-%020d", i, k)},
				)
				if err != nil {
					return err
				}
				ids = append(ids, key.ID)
			}
			for m := range models {
				model, err := tx.CreateModel(b.Context(),
					registry.ModelInput{ProviderID: p.ID, ModelID: fmt.Sprint("m", m), Rates: money.Rates{
						meter.Input: 3 * money.Dollar, meter.Output: 15 * money.Dollar,
						meter.CacheRead: 30 * money.Cent,
					}})
				if err != nil {
					return err
				}
				d.models, d.keys = append(d.models, model.ID), append(d.keys, ids)
			}
		}
		return nil
	}))
	require.NoError(b, reg.Close())
	return d
}

// nth returns the n-th of many requests, over all models and keys.
func (d database) nth(n int) request {
	model := n % len(d.models)
	return request{
		model: d.models[model], key: d.keys[model][n/len(d.models)%len(d.keys[model])],
		tokens: meter.Tokens{
			InputTokens: int64(100 + n%1900), OutputTokens: int64(20 + n%777), CacheReadTokens: int64(n % 512),
		},
		latency: time.Duration(200+n*7919%30_000) * time.Millisecond,
	}
}

// ours is this project's design.
type ours struct{ *registry.Registry }

func (d database) ours(b *testing.B) design {
	b.Helper()
	reg, err := registry.Open(b.Context(), d.name)
	require.NoError(b, err)
	return ours{reg}
}

func (o ours) record(ctx context.Context, r request) error {
	return o.RecordUsage(
		ctx, registry.UsageInput{ModelID: r.model, APIKeyID: r.key, Tokens: r.tokens, Latency: r.latency, At: r.at},
	)
}

func (o ours) close() error { return o.Close() }

// perCall is the design of the brief: database/sql, and a transaction for each call that does the same writes. It
// keeps neither histograms nor digests.
type perCall struct{ db *sql.DB }

func (d database) raw(b *testing.B, conns int) *sql.DB {
	b.Helper()
	db, err := d.connect(conns)
	require.NoError(b, err)
	return db
}

// connect opens the database with a pool of so many connections.
func (d database) connect(conns int) (*sql.DB, error) {
	driver, dsn := "sqlite3", "file:"+d.name+
		"?_journal=WAL&_fk=true&_txlock=immediate&_sync=FULL&_busy_timeout=120000&_stmt_cache_size=64"
	if d.engine == "postgres" {
		driver, dsn = "pgx", d.name
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

func (d database) perCall(b *testing.B) design {
	b.Helper()
	return perCall{d.raw(b, 25)}
}

func (d database) perCallOnOne(b *testing.B) design {
	b.Helper()
	return perCall{d.raw(b, 1)}
}

func (p perCall) close() error { return p.db.Close() }

func (p perCall) record(ctx context.Context, r request) error {
	return inTx(ctx, p.db, func(tx *sql.Tx) error { return write(ctx, tx, r, map[uuid.UUID]price{}) })
}

// inTx calls a function in a transaction of its own.
func inTx(ctx context.Context, db *sql.DB, do func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

type price struct {
	id    uuid.UUID
	rates money.Rates
}

const usageSQL = `INSERT INTO %[1]s (id, model_id, api_key_id, price_id, period_start, period_end,
 request_count, error_count, unpriced_count, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
 reasoning_tokens,
 total_cost, latency_ms_sum, average_latency_ms) VALUES ($1, $2, $3, $4, $5, $6, 1, 0, 0, $7, $8, $9, $10, $11, $12,
 $13, $14)
 ON CONFLICT (price_id, api_key_id, period_start) DO UPDATE SET ` + sets

const totalSQL = `INSERT INTO %[1]s (id, model_id, period_start, period_end,
 request_count, error_count, unpriced_count, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
 reasoning_tokens,
 total_cost, latency_ms_sum, average_latency_ms) VALUES ($1, $2, $3, $4, 1, 0, 0, $5, $6, $7, $8, $9, $10, $11, $12)
 ON CONFLICT (model_id, period_start) DO UPDATE SET `

const sets = `request_count = T.request_count + 1, input_tokens = T.input_tokens + excluded.input_tokens,
 output_tokens = T.output_tokens + excluded.output_tokens, cache_read_tokens = T.cache_read_tokens +
 excluded.cache_read_tokens,
 cache_write_tokens = T.cache_write_tokens + excluded.cache_write_tokens, reasoning_tokens = T.reasoning_tokens +
 excluded.reasoning_tokens,
 total_cost = COALESCE(T.total_cost, 0) + excluded.total_cost, latency_ms_sum = T.latency_ms_sum +
 excluded.latency_ms_sum,
 average_latency_ms = CAST(T.latency_ms_sum + excluded.latency_ms_sum AS double precision) / (T.request_count + 1)`

var (
	upsertUsage = func(table string) string { return strings.ReplaceAll(fmt.Sprintf(usageSQL, table), "T.", table+".") }
	upsertTotal = func(table string) string {
		return strings.ReplaceAll(fmt.Sprintf(totalSQL+sets, table), "T.", table+".")
	}
	// The statements of both lengths of periods.
	upserts = []struct {
		usage, total string
		length       time.Duration
	}{
		{upsertUsage("usage_quarters"), upsertTotal("usage_total_quarters"), 15 * time.Minute},
		{upsertUsage("usage_tracking"), upsertTotal("usage_totals"), 24 * time.Hour},
	}
)

// write does what recording a request writes, in hand-written SQL.
func write(ctx context.Context, tx *sql.Tx, r request, prices map[uuid.UUID]price) error {
	if r.at.IsZero() {
		r.at = time.Now()
	}
	r.at = stored(r.at)
	if _, err := writeLedger(ctx, tx, r, prices); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `UPDATE api_keys SET usage_count = usage_count + 1, token_count = token_count + $1,
 requests_today = requests_today + 1, tokens_today = tokens_today + $1, last_used_at = $2, updated_at = $2 WHERE id =
 $3`, r.tokens.Total(), r.at, r.key)
	return err
}

// stored is a time as the registry stores it.
func stored(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// priceOf returns the price of a request, from the map if it is there.
func priceOf(ctx context.Context, tx *sql.Tx, r request, prices map[uuid.UUID]price) (price, error) {
	p, ok := prices[r.model]
	if ok {
		return p, nil
	}
	names := []string{meter.Input, meter.Output, meter.CacheRead, meter.CacheWrite, meter.Reasoning}
	rates, cells := make([]*int64, len(names)), []any{&p.id}
	for i := range rates {
		cells = append(cells, &rates[i])
	}
	err := tx.QueryRowContext(ctx, `SELECT id, cost_per_1m_input, cost_per_1m_output, cost_per_1m_cache_read,
 cost_per_1m_cache_write, cost_per_1m_reasoning
 FROM prices WHERE model_id = $1 AND service_tier = 'standard' AND superseded_at IS NULL
 AND min_context_tokens <= $2 AND effective_from <= $3 AND (effective_to IS NULL OR effective_to > $3) ORDER BY
 min_context_tokens DESC LIMIT 1`,
		r.model, r.tokens.TotalInput(), r.at).Scan(cells...)
	if err != nil {
		return price{}, err
	}
	p.rates = money.Rates{}
	for i, rate := range rates {
		if rate != nil {
			p.rates[names[i]] = money.USD(*rate)
		}
	}
	prices[r.model] = p
	return p, nil
}

// writeLedger writes the request and its periods, all but the counters of the key, and returns what the request costs.
func writeLedger(ctx context.Context, tx *sql.Tx, r request, prices map[uuid.UUID]price) (money.USD, error) {
	p, err := priceOf(ctx, tx, r, prices)
	if err != nil {
		return 0, err
	}
	cost, err := r.tokens.Cost(p.rates)
	if err != nil {
		return 0, err
	}
	id := uuid.Must(uuid.NewV7())
	t, ms := r.tokens, r.latency.Milliseconds()
	_, err = tx.ExecContext(ctx,
		`INSERT INTO usage_events (id, request_id, at, model_id, api_key_id, price_id, cost, cost_status, latency_ms,
		success,
 error_class, http_status, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens)
 VALUES ($1, $2, $3, $4, $5, $6, $7, 'priced', $8, true, '', 0, $9, $10, $11, $12, $13)`,
		id, id.String(), r.at, r.model, r.key, p.id, int64(cost), ms, t.InputTokens, t.OutputTokens, t.CacheReadTokens,
		t.CacheWriteTokens, t.ReasoningTokens)
	if err != nil {
		return 0, err
	}
	for _, g := range upserts {
		start := r.at.Truncate(g.length)
		if _, err := tx.ExecContext(ctx, g.usage, uuid.Must(uuid.NewV7()), r.model, r.key, p.id, start,
			start.Add(g.length),
			t.InputTokens, t.OutputTokens, t.CacheReadTokens, t.CacheWriteTokens, t.ReasoningTokens, int64(cost), ms,
			float64(ms)); err != nil {
			return 0, err
		}
		if _, err := tx.ExecContext(ctx, g.total, uuid.Must(uuid.NewV7()), r.model, start, start.Add(g.length),
			t.InputTokens, t.OutputTokens, t.CacheReadTokens, t.CacheWriteTokens, t.ReasoningTokens, int64(cost), ms,
			float64(ms)); err != nil {
			return 0, err
		}
	}
	return cost, nil
}

// rawGroup is group commit by hand: one goroutine, one connection, the same statements.
type rawGroup struct {
	db    *sql.DB
	queue chan rawEntry
	done  chan struct{}
}

type rawEntry struct {
	request
	verdict chan error
}

const rawBatch = 256

func (d database) rawGroup(b *testing.B) design {
	b.Helper()
	g := rawGroup{d.raw(b, 1), make(chan rawEntry, 4096), make(chan struct{})}
	go func() {
		defer close(g.done)
		for first := range g.queue {
			batch := []rawEntry{first}
			for len(batch) < rawBatch && len(g.queue) > 0 {
				batch = append(batch, <-g.queue)
			}
			err := g.commit(batch)
			for _, e := range batch {
				e.verdict <- err
			}
		}
	}()
	return g
}

func (g rawGroup) commit(batch []rawEntry) error {
	ctx, prices := context.Background(), map[uuid.UUID]price{}
	return inTx(ctx, g.db, func(tx *sql.Tx) error {
		for _, e := range batch {
			if err := write(ctx, tx, e.request, prices); err != nil {
				return err
			}
		}
		return nil
	})
}

func (g rawGroup) record(_ context.Context, r request) error {
	e := rawEntry{r, make(chan error, 1)}
	g.queue <- e
	return <-e.verdict
}

func (g rawGroup) close() error {
	close(g.queue)
	<-g.done
	return g.db.Close()
}
