package commit

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/accesskey"
	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/policy"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// Owner is a consumer, as far as admission needs it: with its budgets, and with what it may use.
type Owner struct {
	budget.Consumer

	Path, Name  string
	Disabled    bool
	Deleted     bool
	Permissions []Permission
	Budgets     []*budget.Budget
}

// Permission says which models of a provider a consumer may use, or may not.
type Permission struct {
	Provider uuid.UUID `json:"provider_id"`
	Models   []string  `json:"models"` // empty: all
	Deny     bool      `json:"deny"`
}

// AccessKey is a row of an access key.
type AccessKey struct {
	ID, Consumer      uuid.UUID
	Label             string
	Disabled, Deleted bool
	Expires           *time.Time
}

// Refusal says why a request is forbidden: because of its access key, or of its consumer or one above it.
type Refusal struct {
	Reason    policy.Reason
	AccessKey *AccessKey // nil: none was named
	Consumer  *Owner     // nil: the reason is the access key's
	Model     string     // that is denied
}

// forbids returns why nobody may act by an access key; "" if its consumer may.
func (k *AccessKey) forbids(now time.Time) policy.Reason {
	switch {
	case k.Deleted:
		return policy.AccessKeyDeleted
	case k.Disabled:
		return policy.AccessKeyDisabled
	case k.Expires != nil && !now.Before(*k.Expires):
		return policy.AccessKeyExpired
	}
	return ""
}

// ownerMemory is what a process remembers of consumers and access keys, as of a version of the policy. Nobody changes
// what is remembered. That something is not there is not remembered.
type ownerMemory struct {
	mu         sync.Mutex
	version    int64
	owners     map[uuid.UUID]*Owner
	accessKeys map[uuid.UUID]*AccessKey
}

// remember adds what is remembered to what a batch knows, if the version is still that.
func (o *ownerMemory) remember(version int64, owners, accessKeys map[uuid.UUID]bool, s *spending) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.version != version {
		return
	}
	for id := range owners {
		if known := o.owners[id]; known != nil {
			s.owners[id] = known
		}
	}
	for id := range accessKeys {
		if known := o.accessKeys[id]; known != nil {
			s.accessKeys[id] = known
		}
	}
}

// keep remembers what a batch knows, at a version.
func (o *ownerMemory) keep(version int64, s *spending) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owners == nil || o.version < version || len(o.owners)+len(o.accessKeys) > maxOwners {
		o.version, o.owners, o.accessKeys = version, map[uuid.UUID]*Owner{}, map[uuid.UUID]*AccessKey{}
	}
	if o.version == version {
		maps.Copy(o.owners, s.owners)
		maps.Copy(o.accessKeys, s.accessKeys)
	}
}

// maxOwners is how many consumers and access keys are remembered; with more, all are forgotten.
const maxOwners = 100_000

// PolicyLock is the number of PostgreSQL's advisory lock for what processes remember of consumers ("MSpo"). A batch
// shares it; whoever changes consumers or budgets has it alone, so that nothing is admitted by what was before.
const PolicyLock = 0x4d53706f

// learnOwners takes the policy's lock and finds the consumers that calls name, with all above them.
func (b *batch) learnOwners(ctx context.Context, n needs, calls []Call) error {
	if len(n.owners)+len(n.accessKeys) == 0 {
		return nil
	}
	if b.engine == dialect.Postgres {
		if _, err := b.tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock_shared($1)", PolicyLock); err != nil {
			return err
		}
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
			}
		}
	}
	return nil
}

// findOwners finds consumers and access keys, with their consumers and all above them: those that are remembered, and
// the others in the database.
func (b *batch) findOwners(ctx context.Context, tx bulk.Querier, owners, accessKeys map[uuid.UUID]bool) error {
	var version int64
	const current = "SELECT COALESCE((SELECT version FROM policy_version), 0)"
	err := bulk.Scan(ctx, tx, current, nil, func(scan func(...any) error) error { return scan(&version) })
	if err != nil {
		return err
	}
	if !b.inTx { // else the transaction may have changed them
		b.remembered.remember(version, nil, accessKeys, &b.spending)
	}
	if err := b.readAccessKeys(ctx, tx, bulk.Unknown(accessKeys, b.accessKeys)); err != nil {
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
		if err := b.readOwners(ctx, tx, bulk.Unknown(want, b.owners)); err != nil {
			return err
		}
		above := map[uuid.UUID]bool{}
		for id := range want {
			if b.owners[id] == nil {
				continue
			}
			ids, err := idsOf(b.owners[id].Path)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if b.owners[id] == nil {
					above[id] = true
				}
			}
		}
		want = above
	}
	if !b.inTx {
		b.remembered.keep(version, &b.spending)
	}
	return nil
}

func (b *batch) readAccessKeys(ctx context.Context, tx bulk.Querier, ids []uuid.UUID) error {
	const query = "SELECT id, consumer_id, label, disabled, deleted_at, expires_at FROM " + accesskey.Table + " WHERE id IN %s"
	return bulk.ScanIn(ctx, tx, query, ids, func(scan func(...any) error) error {
		k := new(AccessKey)
		var deleted *time.Time
		err := scan(&k.ID, &k.Consumer, &k.Label, &k.Disabled, &deleted, &k.Expires)
		k.Deleted = deleted != nil
		b.accessKeys[k.ID] = k
		return err
	})
}

// idsOf returns the ids of a path, from the root on.
func idsOf(path string) (ids []uuid.UUID, err error) {
	for part := range strings.SplitSeq(path, "/") {
		id, err := uuid.Parse(part)
		if err != nil {
			return nil, fmt.Errorf("%w: path of a consumer: %w", fault.ErrCorrupt, err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// chainOf returns a consumer that was found and all above it, from the root on; nothing for nobody. It returns
// fault.ErrForeignKey if there is no such consumer.
func (s *spending) chainOf(consumer *uuid.UUID) (chain []*Owner, err error) {
	if consumer == nil {
		return nil, nil
	}
	owner := s.owners[*consumer]
	if owner == nil {
		return nil, fault.Missing("consumer", *consumer)
	}
	ids, err := idsOf(owner.Path)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if s.owners[id] == nil {
			return nil, fmt.Errorf("%w: consumer %s, above %s, is not there", fault.ErrCorrupt, id, owner.ID)
		}
		chain = append(chain, s.owners[id])
	}
	return chain, nil
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
		if len(permissions) == 0 {
			return nil
		}
		if err := json.Unmarshal(permissions, &o.Permissions); err != nil {
			return fmt.Errorf("%w: permissions of consumer %s: %w", fault.ErrCorrupt, o.ID, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := readBudgets(ctx, tx, ids, read); err != nil {
		return err
	}
	maps.Copy(b.owners, read)
	return nil
}

const readBudgetsSQL = "SELECT id, consumer_id, name, each, each_kind, per, zone, anchor_day, anchor_hour, provider_id," +
	" models, cost, tokens, requests, concurrency, mode, on_unpriced, thresholds, counts_from FROM budgets" +
	" WHERE consumer_id IN %s ORDER BY consumer_id, id"

// readBudgets reads the budgets of consumers, with their grants.
func readBudgets(ctx context.Context, tx bulk.Querier, owners []uuid.UUID, of map[uuid.UUID]*Owner) error {
	budgets := map[uuid.UUID]*budget.Budget{}
	var ids []uuid.UUID
	err := bulk.ScanIn(ctx, tx, readBudgetsSQL, owners, func(scan func(...any) error) error {
		bud, err := scanBudget(scan)
		if err != nil {
			return err
		}
		if owner := of[bud.Owner]; owner != nil {
			owner.Budgets = append(owner.Budgets, bud)
		}
		budgets[bud.ID], ids = bud, append(ids, bud.ID)
		return nil
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	const grants = "SELECT budget_id, subject_id, windows_from, windows_until, cost, tokens, requests FROM budget_grants" +
		" WHERE budget_id IN %s AND revoked_at IS NULL ORDER BY id"
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
	})
}

// scanBudget reads a row of readBudgetsSQL.
func scanBudget(scan func(...any) error) (*budget.Budget, error) {
	var (
		b                  budget.Budget
		per, zone          string
		mode, unpriced     string
		provider           *uuid.UUID
		models, thresholds sql.RawBytes
	)
	err := scan(
		&b.ID, &b.Owner, &b.Name, &b.Each, &b.EachKind, &per, &zone, &b.Window.Day, &b.Window.Hour,
		&provider, &models, (*int64)(&b.Ceilings.Cost), &b.Ceilings.Tokens, &b.Ceilings.Requests, &b.Ceilings.Concurrency,
		&mode, &unpriced, &thresholds, &b.CountsFrom,
	)
	if err != nil {
		return nil, err
	}
	for _, cell := range []struct {
		text []byte
		to   any
	}{{models, &b.Models}, {thresholds, &b.Thresholds}} {
		if len(cell.text) == 0 {
			continue
		}
		if err := json.Unmarshal(cell.text, cell.to); err != nil {
			return nil, fmt.Errorf("%w: budget %s: %w", fault.ErrCorrupt, b.ID, err)
		}
	}
	if b.Window, err = windowOf(per, zone, b.Window.Day, b.Window.Hour); err != nil {
		return nil, fmt.Errorf("budget %s: %w", b.ID, err)
	}
	if provider != nil {
		b.Provider = *provider
	}
	b.Shadow, b.AllowUnpriced = mode == "shadow", unpriced == "allow"
	return &b, nil
}

// windowOf returns the windows of a budget's row. It returns fault.ErrUnsupported if this machine does not know the
// zone.
func windowOf(per, zone string, day, hour int) (w budget.Window, err error) {
	w = budget.Window{Per: budget.Unit(per), Day: day, Hour: hour}
	if w.Zone, err = time.LoadLocation(zone); err != nil {
		err = fmt.Errorf("%w: %w", fault.ErrUnsupported, err)
	}
	return w, err
}

// forbids returns why a chain of consumers may not use a model, and which of them may not; "" if they may.
func forbids(chain []*Owner, of namedModel) (policy.Reason, *Owner) {
	for _, o := range chain {
		switch {
		case o.Deleted:
			return policy.ConsumerDeleted, o
		case o.Disabled:
			return policy.ConsumerDisabled, o
		case !o.permits(of.provider, of.name):
			return policy.ModelDenied, o
		}
	}
	return "", nil
}

// permits reports whether a consumer's own permissions let it use a model: one permits it, or there are only denials,
// and no denial is for it.
func (o *Owner) permits(provider uuid.UUID, model string) bool {
	permitted, said := false, false
	for _, p := range o.Permissions {
		is := p.Provider == provider && (len(p.Models) == 0 || rule.InModels(p.Models, model))
		if is && p.Deny {
			return false
		}
		said = said || !p.Deny
		permitted = permitted || is
	}
	return permitted || !said
}
