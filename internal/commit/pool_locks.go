package commit

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"entgo.io/ent/dialect"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/poolstate"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/ent/quotagroup"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
)

// A pool is a provider's keys, quota groups, open leases and incident. On PostgreSQL its lock is the provider's row in
// pool_states, and nobody changes the pool without it: operations take it by Hold, batches by lockPools, and
// everybody else by triggers. A batch leaves the name of a new state in the row, and remembers the pool under that
// name. Everybody else leaves no name. As long as the name is there, the pool is as the batch has left it.

// holdSQL takes the pools of some providers and leaves a state. It takes them in the order of the providers' ids, so
// that two transactions do not wait for each other. Row ids are new: if two insert a row at once, the second must find
// provider_id taken, not id.
const holdSQL = "INSERT INTO " + poolstate.Table + " AS p (id, provider_id, state)" +
	" SELECT gen_random_uuid(), id, CAST(%s AS uuid) FROM " + provider.Table + " WHERE %s ORDER BY id" +
	" ON CONFLICT (provider_id) DO UPDATE SET previous = p.state, state = excluded.state"

// Pools says which pools are held, in SQL with parameters.
type Pools string

// The pools for Hold.
const (
	AllPools    Pools = "true"
	PoolOf      Pools = "id = $1" // of a provider
	PoolOfKey   Pools = "id IN (SELECT provider_id FROM " + apikey.Table + " WHERE id = $1)"
	PoolOfGroup Pools = "id IN (SELECT provider_id FROM " + quotagroup.Table + " WHERE id = $1)"
	PoolOfModel Pools = "id IN (SELECT provider_id FROM " + model.Table + " WHERE id = $1)"
	PoolsOfKeys Pools = "id IN (SELECT provider_id FROM " + apikey.Table + // by Texts
		" WHERE id = ANY(CAST(CAST($1 AS text[]) AS uuid[])))"
)

// Hold keeps others from changing pools until the transaction ends. Call it before taking any row of theirs: a batch
// that holds a pool waits for no row in it. On SQLite the transaction has locked everything.
func Hold(ctx context.Context, tx *ent.Client, engine string, which Pools, args ...any) error {
	if engine != dialect.Postgres {
		return nil
	}
	_, err := tx.ExecContext(ctx, fmt.Sprintf(holdSQL, "NULL", which), args...)
	return err
}

// lockPoolsSQL takes the locks of models, then the pools of providers and keys. It tells the triggers that this
// transaction takes pools by itself. When all are held, it bounds how long the transaction waits for rows.
var lockPoolsSQL = "WITH held AS (" + fmt.Sprintf(holdSQL, "$1", "("+ledger.LockModelsSQL("$2")+") >= 0"+
	" AND (SELECT set_config('modelscan.pools', $3, true)) IS NOT NULL"+
	" AND (id = ANY(CAST(CAST($4 AS text[]) AS uuid[]))"+
	" OR id IN (SELECT provider_id FROM "+apikey.Table+" WHERE id = ANY(CAST(CAST($5 AS text[]) AS uuid[]))))") +
	" RETURNING provider_id, previous)" +
	" SELECT provider_id, previous, patience FROM held, (SELECT set_config('lock_timeout'," +
	" COALESCE($6, current_setting('lock_timeout')), true) AS patience" +
	" FROM (SELECT count(*) FROM held) AS all_of_them) AS rows"

// rowPatience bounds two waits of a batch: for a row while it holds the pool, and for the pool while it holds rows. An
// update through Ent takes the row first, and then the pool. The batch gives way to it and begins anew with lockRows.
const rowPatience = "20ms"

// lockRows takes the rows of the pools that calls need before the pools themselves, in the order of a change past the
// registry, so that the batch queues with it. Every other attempt does so; the rest take the pool first.
func lockRows(ctx context.Context, tx *ent.Client, calls []Call) error {
	n := needsOf(calls)
	maps.Copy(n.pools, n.providers)
	for _, table := range []string{apikey.Table, quotagroup.Table} {
		_, err := tx.ExecContext(ctx, "SELECT 1 FROM "+table+
			" WHERE provider_id = ANY(CAST(CAST($1 AS text[]) AS uuid[])) OR provider_id IN"+
			" (SELECT provider_id FROM "+apikey.Table+" WHERE id = ANY(CAST(CAST($2 AS text[]) AS uuid[])))"+
			" ORDER BY id FOR NO KEY UPDATE", Texts(n.pools), Texts(n.keys))
		if err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, "SELECT set_config('lock_timeout', $1, true)", rowPatience)
	return err
}

// lockPools keeps others from changing the periods and pools that the calls need, until the transaction ends. Models
// have locks of their own, so that the catalogue may change meanwhile. The snapshot forgets pools that somebody else
// has changed, and pools of providers that are gone. lockPools returns the providers whose pools are held.
func (b *batch) lockPools(ctx context.Context, n needs) (map[uuid.UUID]bool, error) {
	held, keys := maps.Clone(n.pools), map[uuid.UUID]bool{}
	maps.Copy(held, n.providers)
	for id := range n.keys {
		if k := b.keys[id]; k != nil {
			held[k.Provider] = true
		} else {
			keys[id] = true
		}
	}
	state, setting, patience := uuid.New(), "held", new(rowPatience)
	if b.inTx { // other operations may follow, and change other pools
		setting, patience = "", nil
	}
	models := ledger.ModelLocks(slices.Concat(slices.Collect(maps.Keys(n.ledger)), b.subjects(n)))
	args := []any{state, models, setting, Texts(held), Texts(keys), patience}
	got := map[uuid.UUID]bool{}
	err := bulk.Scan(ctx, b.tx, lockPoolsSQL, args, func(scan func(...any) error) error {
		var id uuid.UUID
		var found *uuid.UUID
		var patience string
		if err := scan(&id, &found, &patience); err != nil {
			return err
		}
		if found == nil || b.states[id] != *found {
			b.forget(id)
		}
		b.states[id], got[id] = state, true
		return nil
	})
	for id := range held {
		if !got[id] {
			b.forget(id)
			delete(b.states, id)
		}
	}
	return got, err
}

// Texts returns ids in a form that needs no type known to the server or a pooler.
func Texts(ids map[uuid.UUID]bool) []string {
	all := make([]string, 0, len(ids))
	for id := range ids {
		all = append(all, id.String())
	}
	return all
}
