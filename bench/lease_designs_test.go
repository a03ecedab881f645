package bench_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// leaseImpls are the designs of key leases. To record a request they lease a key for it, whatever key the request
// names, and end the lease with what the request took.
var leaseImpls = []struct {
	name string
	open func(leaseDatabase, *testing.B) design
}{
	{"registry", leaseDatabase.ours},
	{"per-call", leaseDatabase.perCall},
	{"per-call-1-conn", leaseDatabase.perCallOnOne},
}

const (
	leaseTTL      = time.Minute
	leaseEstimate = 4096 // tokens that are reserved for a request, more than any takes
)

// leaseLimits are such that every key is compared with them, and none ever reaches them.
var leaseLimits = registry.Limits{
	RequestsPerMinute: 1_000_000_000, RequestsPerDay: 1_000_000_000, TokensPerMinute: 1_000_000_000_000,
	Concurrency: 10_000,
}

// leaseDatabase has one provider, with one model and some keys.
type leaseDatabase struct {
	database
	provider uuid.UUID
}

func newLeaseDatabase(b *testing.B, engine string, keys int) leaseDatabase {
	b.Helper()
	d := leaseDatabase{database: newWarmDatabase(b, engine, 1, keys)}
	reg, err := registry.Open(b.Context(), d.name)
	require.NoError(b, err)
	p, err := reg.FindProvider(b.Context(), "p0")
	require.NoError(b, err)
	d.provider = p.ID
	require.NoError(b, reg.InTx(b.Context(), func(tx *registry.Registry) error {
		for _, id := range d.keys[0] {
			if _, err := tx.UpdateAPIKey(b.Context(), id, registry.KeyUpdate{Limits: &leaseLimits}); err != nil {
				return err
			}
		}
		return nil
	}))
	require.NoError(b, reg.Close())
	db := d.raw(b, 1)
	// The other designs count in the key's row what is under way, too.
	_, err = db.ExecContext(b.Context(), "ALTER TABLE api_keys ADD COLUMN in_flight bigint NOT NULL DEFAULT 0")
	require.NoError(b, err)
	require.NoError(b, db.Close())
	return d
}

// requireAtRest requires that all leases have ended, and that the keys were used as often as the designs said.
func (d leaseDatabase) requireAtRest(b *testing.B, recorded int) {
	b.Helper()
	db := d.raw(b, 1)
	defer func() { require.NoError(b, db.Close()) }()
	var inFlight, leases, uses, events int
	require.NoError(b,
		db.QueryRowContext(b.Context(), `SELECT CAST(SUM(in_flight) AS bigint), (SELECT COUNT(*) FROM key_leases),
 CAST(SUM(usage_count) AS bigint), (SELECT COUNT(*) FROM usage_events) FROM api_keys`).
			Scan(&inFlight, &leases, &uses, &events))
	require.Zero(b, inFlight)
	require.Zero(b, leases)
	recorded++ // by newWarmDatabase
	require.Equal(b, recorded, uses)
	require.Equal(b, recorded, events)
}

// ourLeases are those of this project.
type ourLeases struct {
	*registry.Registry
	provider uuid.UUID
}

func (d leaseDatabase) ours(b *testing.B) design {
	b.Helper()
	reg, err := registry.Open(b.Context(), d.name)
	require.NoError(b, err)
	return ourLeases{reg, d.provider}
}

func (o ourLeases) acquire(ctx context.Context, r request) (*registry.Lease, error) {
	return o.AcquireKey(
		ctx,
		registry.AcquireInput{ProviderID: o.provider, ModelID: r.model, EstimatedTokens: leaseEstimate, TTL: leaseTTL},
	)
}

func (o ourLeases) record(ctx context.Context, r request) error {
	lease, err := o.acquire(ctx, r)
	if err != nil {
		return err
	}
	return lease.Settle(ctx, registry.UsageInput{Tokens: r.tokens, Latency: r.latency})
}

// giveBack leases a key and does nothing with it.
func (o ourLeases) giveBack(ctx context.Context, r request) error {
	lease, err := o.acquire(ctx, r)
	if err != nil {
		return err
	}
	return lease.Release(ctx)
}

func (o ourLeases) close() error { return o.Close() }

// perCallLeases has a transaction for each call: one leases a key, one ends the lease. It frees nothing that a lease
// has reserved which nobody ended.
type perCallLeases struct {
	perCall
	leaseDatabase
}

// setTriggers has the tables of leases tell the registry that they were changed past it, or not. Other designs remember
// nothing, and do without.
func (d leaseDatabase) setTriggers(b *testing.B, how string) {
	b.Helper()
	if d.engine != "postgres" {
		return
	}
	db := d.raw(b, 1)
	defer func() { require.NoError(b, db.Close()) }()
	for _, table := range []string{"api_keys", "key_leases"} {
		_, err := db.ExecContext(b.Context(), "ALTER TABLE "+table+" "+how+" TRIGGER USER")
		require.NoError(b, err)
	}
	_, err := db.ExecContext(b.Context(), "DELETE FROM pool_states")
	require.NoError(b, err)
}

func (d leaseDatabase) perCall(b *testing.B) design {
	b.Helper()
	d.setTriggers(b, "DISABLE")
	return perCallLeases{perCall{d.raw(b, 25)}, d}
}

func (d leaseDatabase) perCallOnOne(b *testing.B) design {
	b.Helper()
	d.setTriggers(b, "DISABLE")
	return perCallLeases{perCall{d.raw(b, 1)}, d}
}

// rawLease is a lease by hand-written SQL.
type rawLease struct {
	id, key uuid.UUID
	at      time.Time // when it began: the windows of then count it
}

func (l rawLease) minute() time.Time { return l.at.Truncate(time.Minute) }
func (l rawLease) today() time.Time  { return l.at.Truncate(24 * time.Hour) }

// Numbers of placeholders ascend, because SQLite takes them for names and counts for itself.
const (
	// usableSQL reads the key that may be used and was used least: $1 is the minute, $2 what is reserved, $3 the day,
	// $4 now and $5 the provider.
	usableSQL = `SELECT id FROM api_keys WHERE (requests_per_minute = 0 OR CASE WHEN minute = $1 THEN
	requests_this_minute ELSE 0 END < requests_per_minute)
 AND (tokens_per_minute = 0 OR CASE WHEN minute = $1 THEN tokens_this_minute ELSE 0 END + $2 <= tokens_per_minute)
 AND (requests_per_day = 0 OR CASE WHEN last_reset >= $3 THEN requests_today ELSE 0 END < requests_per_day)
 AND (tokens_per_day = 0 OR CASE WHEN last_reset >= $3 THEN tokens_today ELSE 0 END + $2 <= tokens_per_day)
 AND (cost_per_day = 0 OR CASE WHEN last_reset >= $3 THEN cost_today ELSE 0 END < cost_per_day)
 AND (concurrency = 0 OR in_flight < concurrency)
 AND (degraded_until IS NULL OR degraded_until <= $4) AND (expires_at IS NULL OR expires_at > $4)
 AND provider_id = $5 AND deleted_at IS NULL AND NOT disabled
 ORDER BY usage_count, last_used_at NULLS FIRST, id LIMIT 1`

	// reserveSQL counts a request: $1 is the minute, $2 what is reserved and $3 the day.
	reserveSQL = `UPDATE api_keys SET minute = $1, requests_this_minute = CASE WHEN minute = $1 THEN
	requests_this_minute ELSE 0 END + 1,
 tokens_this_minute = CASE WHEN minute = $1 THEN tokens_this_minute ELSE 0 END + $2,
 requests_today = CASE WHEN last_reset >= $3 THEN requests_today ELSE 0 END + 1,
 tokens_today = CASE WHEN last_reset >= $3 THEN tokens_today ELSE 0 END + $2,
 cost_today = CASE WHEN last_reset >= $3 THEN cost_today ELSE 0 END,
 last_reset = CASE WHEN last_reset >= $3 THEN last_reset ELSE $3 END, in_flight = in_flight + 1`

	insertLeaseSQL = `INSERT INTO key_leases (id, api_key_id, model_id, reserved_tokens, reserved_cost, probe,
	acquired_at, expires_at)
 VALUES ($1, $2, $3, $4, 0, false, $5, $6)`

	// settleSQL has what a request took count in place of what was reserved, in the windows in which that was: $1 is
	// their minute, $2 the difference and $3 the end of their day.
	settleSQL = `UPDATE api_keys SET tokens_this_minute = CASE WHEN minute = $1 THEN tokens_this_minute + $2 ELSE
	tokens_this_minute END,
 tokens_today = CASE WHEN last_reset < $3 THEN tokens_today + $2 ELSE tokens_today END,
 cost_today = CASE WHEN last_reset < $3 THEN cost_today + $4 ELSE cost_today END, in_flight = in_flight - 1,
 token_count = token_count + $5, last_used_at = $6, succeeded_at = $6, updated_at = $6`
)

func (p perCallLeases) record(ctx context.Context, r request) error {
	var l rawLease
	err := inTx(ctx, p.db, func(tx *sql.Tx) (err error) {
		l, err = p.lease(ctx, tx, r.model)
		return err
	})
	if err != nil {
		return err
	}
	return inTx(ctx, p.db, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, "DELETE FROM key_leases WHERE id = $1", l.id)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		if err == nil && n != 1 {
			err = fmt.Errorf("%d leases have ended, not one", n)
		}
		if err != nil {
			return err
		}
		return l.settle(ctx, tx, r, settleSQL+", usage_count = usage_count + 1 WHERE id = $7")
	})
}

func (p perCallLeases) close() error { return p.db.Close() }

// lease takes the first key that may be used.
func (p perCallLeases) lease(ctx context.Context, tx *sql.Tx, model uuid.UUID) (l rawLease, err error) {
	l = rawLease{id: uuid.Must(uuid.NewV7()), at: stored(time.Now())}
	if l.key, err = p.choose(ctx, tx, l); err != nil {
		return l, err
	}
	if _, err := tx.ExecContext(
		ctx, reserveSQL+" WHERE id = $4", l.minute(), leaseEstimate, l.today(), l.key,
	); err != nil {
		return l, err
	}
	_, err = tx.ExecContext(ctx, insertLeaseSQL, l.id, l.key, model, leaseEstimate, l.at, l.at.Add(leaseTTL))
	return l, err
}

// choose reads the first key that may be used. On PostgreSQL that is one which nobody else is about to lease, or, if
// all are, the one that is free again first. Those who record usage refer to keys, and a plain FOR UPDATE would keep
// them waiting, or wait for them.
func (p perCallLeases) choose(ctx context.Context, tx *sql.Tx, l rawLease) (key uuid.UUID, err error) {
	locks := []string{""}
	if p.engine == "postgres" {
		locks = []string{" FOR NO KEY UPDATE SKIP LOCKED", " FOR NO KEY UPDATE"}
	}
	for _, lock := range locks {
		err = tx.QueryRowContext(ctx, usableSQL+lock, l.minute(), leaseEstimate, l.today(), l.at, p.provider).Scan(&key)
		if !errors.Is(err, sql.ErrNoRows) {
			break
		}
	}
	return key, err
}

// settle records a request, and writes the key by a statement that begins with settleSQL.
func (l rawLease) settle(ctx context.Context, tx *sql.Tx, r request, statement string) error {
	r.key, r.at = l.key, stored(time.Now())
	cost, err := writeLedger(ctx, tx, r, map[uuid.UUID]price{})
	if err != nil {
		return err
	}
	took := r.tokens.Total()
	_, err = tx.ExecContext(
		ctx, statement, l.minute(), took-leaseEstimate, l.today().AddDate(0, 0, 1), int64(cost), took, r.at, l.key,
	)
	return err
}

// updates are leases of one statement each, for PostgreSQL: it passes over keys that others write to. There are no rows
// of leases, and nothing is free again after a crash.
type updates struct {
	db *sql.DB
	leaseDatabase
}

const (
	// acquireSQL leases a key, with the placeholders of usableSQL.
	acquireSQL = reserveSQL + ", usage_count = usage_count + 1, last_used_at = $4, updated_at = $4 WHERE id = (" +
		usableSQL + " FOR NO KEY UPDATE SKIP LOCKED) RETURNING id"

	// giveBackSQL undoes that: $1 is the minute, $2 what was reserved and $3 the end of the day.
	giveBackSQL = `UPDATE api_keys SET requests_this_minute = CASE WHEN minute = $1 THEN requests_this_minute - 1 ELSE
	requests_this_minute END,
 tokens_this_minute = CASE WHEN minute = $1 THEN tokens_this_minute - $2 ELSE tokens_this_minute END,
 requests_today = CASE WHEN last_reset < $3 THEN requests_today - 1 ELSE requests_today END,
 tokens_today = CASE WHEN last_reset < $3 THEN tokens_today - $2 ELSE tokens_today END,
 in_flight = in_flight - 1, usage_count = usage_count - 1 WHERE id = $4`
)

// acquire leases a key. When others are writing to all of them, it asks again.
func (u updates) acquire(ctx context.Context) (l rawLease, err error) {
	for err = sql.ErrNoRows; errors.Is(err, sql.ErrNoRows); {
		l.at = stored(time.Now())
		err = u.db.QueryRowContext(ctx, acquireSQL, l.minute(), leaseEstimate, l.today(), l.at, u.provider).Scan(&l.key)
	}
	return l, err
}

func (u updates) record(ctx context.Context, r request) error {
	l, err := u.acquire(ctx)
	if err != nil {
		return err
	}
	return inTx(ctx, u.db, func(tx *sql.Tx) error { return l.settle(ctx, tx, r, settleSQL+" WHERE id = $7") })
}

func (u updates) giveBack(ctx context.Context, _ request) error {
	l, err := u.acquire(ctx)
	if err != nil {
		return err
	}
	_, err = u.db.ExecContext(ctx, giveBackSQL, l.minute(), leaseEstimate, l.today().AddDate(0, 0, 1), l.key)
	return err
}
