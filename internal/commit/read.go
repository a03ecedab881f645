package commit

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/accesskey"
	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/policy"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// read locks the ledger and the pools, and reads what the calls refer to and the snapshot lacks.
func (b *batch) read(ctx context.Context, calls []Call) error {
	n := needsOf(calls)
	if err := b.learnOwners(ctx, n, calls); err != nil {
		return err
	}
	var held map[uuid.UUID]bool
	if b.engine == dialect.Postgres {
		var err error
		if held, err = b.lockPools(ctx, n); err != nil {
			return err
		}
	}
	keys, pools := bulk.Unknown(n.keys, b.keys), bulk.Unknown(n.pools, b.pools)
	if err := b.readPools(ctx, b.tx, keys, pools); err != nil {
		return err
	}
	for id := range n.keys {
		if k := b.keys[id]; held != nil && k != nil && !held[k.Provider] {
			return bulk.ErrStale // the key was another provider's when the pools were taken
		}
	}
	before := b.now
	b.now = b.Clock() // after all waiting
	for i := range calls {
		b.now = utc.Max(b.now, calls[i].Now)
	}
	if b.now.Before(before) { // leases that have expired are open again
		clear(b.accounts)
	}
	if err := b.readOpen(ctx, b.tx, pools); err != nil {
		return err
	}
	if err := b.readProviders(ctx, b.tx, bulk.Unknown(n.providers, b.providers)); err != nil {
		return err
	}
	slices.SortFunc(n.ending, compareIDs) // two calls may end one lease
	n.ending = slices.Compact(n.ending)
	if err := b.takeLeases(ctx, b.tx, n.ending, n.asked); err != nil {
		return err
	}
	if err := b.learnModels(ctx, n); err != nil {
		return err
	}
	if err := b.readRequests(ctx, b.tx, b.engine, n.requests); err != nil {
		return err
	}
	for _, id := range n.ending {
		if l := b.leases[id]; l != nil {
			b.free(l)
		}
	}
	return b.readSpent(ctx, b.tx, append(b.asked(n), b.askedAgain(n)...))
}

// learnModels reads unknown models. Prices are read only for models that requests are recorded for, and for those of
// leases that must be priced.
func (b *batch) learnModels(ctx context.Context, n needs) error {
	if len(b.models) == 0 || n.from.Before(b.from) {
		clear(b.models)
		clear(b.prices)
		b.from = utc.StartOfDay(n.from) // the requests of leases began at other times
	}
	for id := range n.models {
		if named, ok := b.known.Load(id); ok {
			b.names[id] = named.(namedModel)
		} else {
			n.ledger[id] = true
		}
	}
	for _, a := range n.acquires {
		if b.mustPrice(a) {
			n.ledger[a.Model] = true
		}
	}
	for _, r := range n.renews {
		if b.mustPriceMore(r) {
			n.ledger[r.Model] = true
		}
	}
	return b.readModels(ctx, b.tx, bulk.Unknown(n.ledger, b.models))
}

// The numbers of placeholders ascend, because SQLite takes them for names and counts by itself.
const readModelsSQL = "SELECT m.id, m.provider_id, m.model_id, p.id, COALESCE(p.service_tier, '')," +
	" COALESCE(p.min_context_tokens, 0), " + ledger.RateColumns + "," +
	" p.effective_from, p.effective_to, " + ledger.FoldedTo +
	" FROM (SELECT id, provider_id, model_id FROM models WHERE id IN %s) AS m" +
	" LEFT JOIN usage_folds AS f ON f.model_id = m.id" +
	" LEFT JOIN prices AS p ON p.model_id = m.id AND p.superseded_at IS NULL" +
	" AND (p.effective_to IS NULL OR p.effective_to > $%d)"

// readModels reads models and their prices in force.
func (b *batch) readModels(ctx context.Context, tx bulk.Querier, models []uuid.UUID) error {
	return bulk.ScanIn(ctx, tx, readModelsSQL, models, func(scan func(...any) error) error {
		var (
			model, provider, id uuid.UUID
			folded              uuid.UUID
			name                string
			p                   ent.Price
			effectiveFrom       *time.Time // NULL: there is no price
		)
		cells := append(
			[]any{&model, &provider, &name, &id, &p.ServiceTier, &p.MinContextTokens}, ledger.RateCells(&p)...,
		)
		if err := scan(append(cells, &effectiveFrom, &p.EffectiveTo, &folded)...); err != nil {
			return err
		}
		b.models[model], b.folded[model] = namedModel{provider, name}, folded
		b.known.Store(model, b.models[model])
		if effectiveFrom == nil {
			return nil
		}
		p.ID, p.ModelID, p.EffectiveFrom = id, model, *effectiveFrom
		b.prices[model] = append(b.prices[model], &p)
		return nil
	}, b.from)
}

// readRequests reads which request ids have been recorded, as far back as events are kept, and as what.
func (s *snapshot) readRequests(ctx context.Context, tx *ent.Client, engine string, ids []string) error {
	each := func(scan func(...any) error) error {
		var id string
		var fingerprint int64
		err := scan(&id, &fingerprint)
		s.recorded[id] = fingerprint
		return err
	}
	if engine == dialect.Postgres && len(ids) > 0 {
		return bulk.Scan(ctx, tx, recordedPostgres, []any{ids}, each)
	}
	const query = "SELECT request_id, COALESCE(fingerprint, 0) FROM usage_events WHERE request_id IN %s"
	return bulk.ScanIn(ctx, tx, query, ids, each)
}

// recordedPostgres looks up one id at a time, by the index. With a list, PostgreSQL would compare all ids with each row
// of a partition that was empty when the statement was planned: with those of a new day, until they are analyzed.
const recordedPostgres = "SELECT e.request_id, COALESCE(e.fingerprint, 0) FROM unnest(CAST($1 AS text[])) AS v(id)" +
	" CROSS JOIN LATERAL (SELECT * FROM usage_events AS e WHERE e.request_id = v.id OFFSET 0) AS e"

// sharePolicy keeps changes of what processes remember waiting until a transaction ends, and returns the number of
// changes so far. On SQLite it does nothing, and returns nil.
func (e *env) sharePolicy(ctx context.Context, tx bulk.Querier) (version *int64, err error) {
	if e.engine != dialect.Postgres {
		return nil, nil //nolint:nilnil // see above
	}
	err = bulk.Scan(ctx, tx, "SELECT share_policy()", nil, func(scan func(...any) error) error {
		return scan(&version)
	})
	return version, err
}

// learnOwners takes the policy's lock and finds the consumers that calls name, with all above them.
func (b *batch) learnOwners(ctx context.Context, n needs, calls []Call) error {
	if len(n.owners)+len(n.accessKeys) == 0 && !n.tagged {
		return nil
	}
	if version, err := b.sharePolicy(ctx, b.tx); err != nil {
		return err
	} else if version != nil {
		b.version = version
	}
	if n.tagged {
		if err := b.openBook(ctx); err != nil {
			return err
		}
	}
	if len(n.owners)+len(n.accessKeys) == 0 {
		return nil
	}
	if err := b.findOwners(ctx, b.tx, n.owners, n.accessKeys); err != nil {
		return err
	}
	for i := range calls {
		c := &calls[i]
		if a := c.Acquire; a != nil && a.For.Consumer == uuid.Nil {
			if key := b.accessKeys[a.For.AccessKey]; key != nil {
				a.For.Consumer = key.Consumer
			}
		}
		if r := &c.Request; r.Consumer == nil && r.AccessKey != nil {
			if key := b.accessKeys[*r.AccessKey]; key != nil {
				r.Consumer = &key.Consumer
				r.Fingerprint = r.Print()
			}
		}
	}
	return nil
}

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

// policyVersion reads the version of the policy, once.
func (b *batch) policyVersion(ctx context.Context, tx bulk.Querier) (int64, error) {
	if b.version != nil {
		return *b.version, nil
	}
	b.version = new(int64)
	err := bulk.Scan(ctx, tx, "SELECT COALESCE((SELECT version FROM policy_version), 0)", nil,
		func(scan func(...any) error) error { return scan(b.version) })
	return *b.version, err
}

// findOwners finds consumers and access keys, with their consumers and all above them: those that are remembered, and
// the others in the database.
func (b *batch) findOwners(ctx context.Context, tx bulk.Querier, owners, accessKeys map[uuid.UUID]bool) error {
	b.makeRoom()
	version, err := b.policyVersion(ctx, tx)
	if err != nil {
		return err
	}
	if !b.inTx { // else the transaction may have changed them
		b.remembered.remember(version, nil, accessKeys, &b.spending)
	}
	unknown := bulk.Unknown(accessKeys, b.accessKeys)
	read := len(unknown) > 0
	if err := b.readAccessKeys(ctx, tx, unknown); err != nil {
		return err
	}
	want := maps.Clone(owners)
	for id := range accessKeys {
		if key := b.accessKeys[id]; key != nil {
			want[key.Consumer] = true
		}
	}
	for len(want) > 0 { // the second time for those above
		if !b.inTx {
			b.remembered.remember(version, want, nil, &b.spending)
		}
		unknown := bulk.Unknown(want, b.owners)
		read = read || len(unknown) > 0
		if err := b.readOwners(ctx, tx, unknown); err != nil {
			return err
		}
		want = b.above(want)
	}
	if !read {
		return nil
	}
	for _, o := range b.owners {
		if o.chain == nil {
			o.link(b.owners)
		}
	}
	if !b.inTx {
		b.remembered.keep(version, &b.spending)
	}
	return nil
}

func (b *batch) readAccessKeys(ctx context.Context, tx bulk.Querier, ids []uuid.UUID) error {
	const query = "SELECT id, consumer_id, label, disabled, deleted_at, expires_at FROM " + accesskey.Table +
		" WHERE id IN %s"
	return bulk.ScanIn(ctx, tx, query, ids, func(scan func(...any) error) error {
		k := new(policy.AccessKey)
		var deleted, expires *time.Time
		err := scan(&k.ID, &k.Consumer, &k.Label, &k.Disabled, &deleted, &expires)
		k.Deleted = deleted != nil
		if expires != nil {
			k.ExpiresAt = *expires
		}
		b.accessKeys[k.ID] = k
		return err
	})
}

// readOwners reads consumers with their budgets.
func (b *batch) readOwners(ctx context.Context, tx bulk.Querier, ids []uuid.UUID) error {
	if len(ids) == 0 {
		return nil
	}
	read := map[uuid.UUID]*Owner{}
	const query = "SELECT id, path, name, kind, disabled, deleted_at, permissions FROM " + consumer.Table +
		" WHERE id IN %s"
	err := bulk.ScanIn(ctx, tx, query, ids, func(scan func(...any) error) error {
		o := new(Owner)
		var deleted *time.Time
		var permissions []byte
		err := scan(&o.ID, &o.Path, &o.Name, &o.Kind, &o.Disabled, &deleted, &permissions)
		if err != nil {
			return err
		}
		o.Deleted, read[o.ID] = deleted != nil, o
		if o.ids, o.err = PathIDs(o.Path); len(permissions) == 0 {
			return nil
		}
		if err := json.Unmarshal(permissions, &o.Permissions); err != nil {
			o.err = fmt.Errorf("%w: permissions of consumer %s: %w", fault.ErrCorrupt, o.ID, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := readBudgets(ctx, tx, b.Clock().Add(-keptGrants), ids, read); err != nil {
		return err
	}
	maps.Copy(b.owners, read)
	return nil
}

const readBudgetsSQL = "SELECT id, consumer_id, name, each, each_kind, per, zone, anchor_day, anchor_hour," +
	" provider_id, models, cost, tokens, requests, concurrency, mode, on_unpriced, thresholds, counts_from" +
	" FROM budgets WHERE consumer_id IN %s ORDER BY consumer_id, id"

// keptGrants is how long a grant is read after its last window. A request of that window may end later: its lease lasts
// half a day at most, and can be settled for a day after that. Its crossings are judged by the grant.
const keptGrants = 2 * utc.Day

// readBudgets reads the budgets of consumers, with the grants for windows that end after an instant.
func readBudgets(
	ctx context.Context, tx bulk.Querier, after time.Time, owners []uuid.UUID, of map[uuid.UUID]*Owner,
) error {
	budgets := map[uuid.UUID]*budget.Budget{}
	var ids []uuid.UUID
	err := bulk.ScanIn(ctx, tx, readBudgetsSQL, owners, func(scan func(...any) error) error {
		bud, wrong, err := scanBudget(scan)
		if err != nil {
			return err
		}
		if owner := of[bud.Owner]; owner != nil {
			owner.Budgets, owner.err = append(owner.Budgets, bud), cmp.Or(owner.err, wrong)
		}
		budgets[bud.ID], ids = bud, append(ids, bud.ID)
		return nil
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	const grants = "SELECT budget_id, subject_id, windows_from, windows_until, cost, tokens, requests" +
		" FROM budget_grants WHERE budget_id IN %s AND windows_until > $%d AND revoked_at IS NULL ORDER BY id"
	return bulk.ScanIn(ctx, tx, grants, ids, func(scan func(...any) error) error {
		var id uuid.UUID
		var subject *uuid.UUID
		var g budget.Grant
		err := scan(
			&id, &subject, &g.From, &g.Until, (*int64)(&g.Ceilings.Cost), &g.Ceilings.Tokens, &g.Ceilings.Requests,
		)
		if subject != nil {
			g.Subject = *subject
		}
		budgets[id].Grants = append(budgets[id].Grants, g)
		return err
	}, after)
}
