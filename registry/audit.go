package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/auditentry"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// What was done, as an [ent.AuditEntry] says it.
const (
	ActionCreate   = "create"
	ActionUpdate   = "update"    // of a price: one ends and the next begins, unless the rates are the same
	ActionDelete   = "delete"    // hidden, its name free again; of a family, a quota group or a setting: removed
	ActionUndelete = "undelete"  // live again
	ActionPurge    = "purge"     // removed for good
	ActionDisable  = "disable"   // a key, by a person
	ActionEnable   = "enable"    // a key, by a person
	ActionDegrade  = "degrade"   // a key
	ActionRestore  = "restore"   // a key
	ActionProbe    = "probe"     // a key: one request tries it, after what time alone does not mend
	ActionCoolDown = "cool_down" // a provider: many of its keys failed alike
	ActionReset    = "reset"     // the daily counters of all keys
	ActionReprice  = "reprice"   // past usage of a model
	ActionRotate   = "rotate"    // an API key: another one follows it; or the keyring: After says how many keys of which kind were changed
	ActionRepair   = "repair"    // the ledger: After says how many rows of which kind were changed
)

// What it was done to. The entry's EntityID is the id of the row, but that of the model for a price,
// the key for a setting, and empty for what is not one alone.
const (
	EntityProvider   = "provider"
	EntityFamily     = "family"
	EntityModel      = "model"
	EntityPrice      = "price"
	EntityAPIKey     = "api_key"
	EntitySetting    = "setting"
	EntityLedger     = "ledger"
	EntityKeyring    = "keyring"
	EntityQuotaGroup = "quota_group"
)

// As returns the same registry for somebody: the changes made through it are recorded as the
// actor's, up to 128 characters without control characters or invisible ones. An empty actor is
// nobody. The two share everything else: closing one closes both. As works within a transaction
// too; what a registry's InTx does is its actor's.
//
// The actor is not checked here: with one that breaks the rules, every change that is recorded in
// the audit trail returns [ErrInvalidData] and is not made.
func (r *Registry) As(actor string) *Registry {
	as := *r
	as.actor = actor
	return &as
}

// AuditFilter selects entries of the audit trail. Conditions that are zero are none; the others must
// all hold.
type AuditFilter struct {
	Actor    string
	Action   string // such as ActionCreate
	Entity   string // such as EntityModel
	EntityID string
	Start    time.Time // the first instant
	End      time.Time // the first instant after it

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last entry of the page before, all that follow are older; zero: from the newest
}

// Next returns the filter of the page after the one that ends with last, and how many rows a full page has.
func (fl AuditFilter) Next(last *ent.AuditEntry) (AuditFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

func (fl AuditFilter) faults() fault.List {
	var f fault.List
	f.Text("actor", fl.Actor, 0, rule.MaxName)
	f.Text("action", fl.Action, 0, rule.MaxWord)
	f.Text("entity", fl.Entity, 0, rule.MaxWord)
	f.Text("entity_id", fl.EntityID, 0, rule.MaxKey)
	if !fl.Start.IsZero() && !fl.End.IsZero() {
		start, end := utc.Clamp(fl.Start), utc.Clamp(fl.End)
		f.Check(end.After(start), "end %s is not after start %s",
			end.Format(time.RFC3339Nano), start.Format(time.RFC3339Nano))
	}
	return f
}

// ListAudit returns a page of the audit trail, newest first: who changed which provider, family, model, price, API key
// or setting, when, from what to what.
//
// An entry's Before and After are the row in JSON, with all its columns but secrets; amounts of money are dollars, and
// their names end with _usd. Nil: there was none, or it is gone. Of what AcquireKey and the ends of leases do to keys
// and providers, they are what changed, and why. They never hold an API key or its hash, but values of settings as they
// are. A change that changes nothing but the row's updated_at has no entry; neither have recorded usage, discovery logs
// and SDK versions. A change of the standard price is one of the price: the model's current costs follow it without an
// entry.
//
// What people do is kept for ever. Automatic entries are those of the key pool, which takes keys out, tries them and
// takes them back; [Registry.Prune] removes them when they are old. Of failures that follow each other while a key is
// rate-limited, the first, second, fourth, eighth and so on have an entry; and none says that such a limit is over,
// because the entry that took the key out says until when.
//
// It returns [ErrInvalidData], also when the end is not after the start, or [ErrNotFound] for an entry of filter.After
// that is not there, such as one that has been removed since.
func (r *Registry) ListAudit(ctx context.Context, filter AuditFilter) ([]*ent.AuditEntry, error) {
	return listing[*ent.AuditEntry, uuid.UUID]{
		order: newestFirst(auditentry.FieldAt, auditentry.FieldID),
		get: func(ctx context.Context, c *ent.Client, id uuid.UUID) (*ent.AuditEntry, error) {
			return c.AuditEntry.Get(ctx, id)
		},
		place: func(e *ent.AuditEntry) []any { return []any{e.At, e.ID} },
		all: func(ctx context.Context, c *ent.Client, page func(*sql.Selector)) ([]*ent.AuditEntry, error) {
			query := c.AuditEntry.Query().Where(filter.predicates()...)
			query.Modify(page)
			return query.All(ctx)
		},
	}.page(ctx, r, "list audit", filter.faults(), filter.Limit, filter.After)
}

func (fl AuditFilter) predicates() (where []predicate.AuditEntry) {
	where = matching[predicate.AuditEntry]("AuditEntry", fl)
	if !fl.Start.IsZero() {
		where = append(where, auditentry.AtGTE(utc.Clamp(fl.Start)))
	}
	if !fl.End.IsZero() {
		where = append(where, auditentry.AtLT(utc.Clamp(fl.End)))
	}
	return where
}

// auditEntry is a change to be recorded.
type auditEntry struct {
	action, entity string
	id             string // empty: not one alone
	before, after  any    // Ent's row, or what else says it in JSON; nil: none
	automatic      bool   // the key pool did it by itself
}

// audit records changes in their order, in the transaction that makes them. It leaves out those by
// which nothing but updated_at changed. Rows must be as the database has them, not as asOf shows
// them. It returns [ErrInvalidData] for an actor that breaks the rules.
func (r *Registry) audit(ctx context.Context, tx *ent.Client, now time.Time, entries ...auditEntry) error {
	if len(entries) == 0 {
		return nil
	}
	var f fault.List
	f.Text("actor", r.actor, 0, rule.MaxName)
	if err := f.Err(); err != nil {
		return err
	}
	rows := make([]*ent.AuditEntryCreate, 0, len(entries))
	for _, e := range entries {
		before, err := rowJSON(e.before)
		if err != nil {
			return err
		}
		after, err := rowJSON(e.after)
		if err != nil {
			return err
		}
		if same, err := sameButTime(before, after); same || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		row := tx.AuditEntry.Create().SetAt(now).SetActor(r.actor).
			SetAction(e.action).SetEntity(e.entity).SetEntityID(e.id).SetAutomatic(e.automatic)
		if before != nil {
			row.SetBefore(before)
		}
		if after != nil {
			row.SetAfter(after)
		}
		rows = append(rows, row)
	}
	for some := range slices.Chunk(rows, chunk) {
		if err := tx.AuditEntry.CreateBulk(some...).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// rowJSON returns a row in JSON, nil for nil. Ent marshals the edges, which are not loaded, as the
// last field, and leaves out what is sensitive.
func rowJSON(row any) (json.RawMessage, error) {
	if row == nil {
		return nil, nil
	}
	text, err := json.Marshal(row)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if fields, ok := bytes.CutSuffix(text, []byte(`,"edges":{}}`)); ok {
		text = append(fields, '}')
	}
	return text, nil
}

// sameButTime tells whether nothing but updated_at differs between two rows.
func sameButTime(before, after json.RawMessage) (bool, error) {
	if before == nil || after == nil {
		return false, nil
	}
	var fields [2]map[string]json.RawMessage
	for i, row := range []json.RawMessage{before, after} {
		if err := json.Unmarshal(row, &fields[i]); err != nil {
			return false, fmt.Errorf("audit: %w", err)
		}
		delete(fields[i], "updated_at")
	}
	return maps.EqualFunc(fields[0], fields[1], func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }), nil
}

// auditPool records what the pool did to keys and providers by itself, when an actor called.
func (r *Registry) auditPool(
	ctx context.Context, tx *ent.Client, now time.Time, actor string, events []pool.Event,
) error {
	entries := make([]auditEntry, len(events))
	for i, event := range events {
		e := auditEntry{
			entity: EntityAPIKey, id: event.ID.String(), before: event.Before, after: event.After, automatic: true,
		}
		switch event.Kind {
		case pool.KeyDegraded:
			e.action = ActionDegrade
		case pool.KeyRestored:
			e.action = ActionRestore
		case pool.KeyProbed:
			e.action = ActionProbe
		case pool.ProviderCoolsDown:
			e.action, e.entity = ActionCoolDown, EntityProvider
		}
		entries[i] = e
	}
	return r.As(actor).audit(ctx, tx, now, entries...)
}

func auditProvider(action string, before, after *ent.Provider) auditEntry {
	return rowEntry(action, EntityProvider, before, after, func(p *ent.Provider) string { return p.ID.String() })
}

func auditFamily(action string, before, after *ent.ModelFamily) auditEntry {
	return rowEntry(action, EntityFamily, before, after, func(f *ent.ModelFamily) string { return f.ID.String() })
}

func auditModel(action string, before, after *ent.Model) auditEntry {
	return rowEntry(action, EntityModel, before, after, func(m *ent.Model) string { return m.ID.String() })
}

// auditPrice names the model: its prices, none of which is ever written over, are one history.
func auditPrice(action string, before, after *ent.Price) auditEntry {
	return rowEntry(action, EntityPrice, before, after, func(p *ent.Price) string { return p.ModelID.String() })
}

func auditKey(action string, before, after *ent.APIKey) auditEntry {
	return rowEntry(action, EntityAPIKey, before, after, func(k *ent.APIKey) string { return k.ID.String() })
}

func auditGroup(action string, before, after *ent.QuotaGroup) auditEntry {
	return rowEntry(action, EntityQuotaGroup, before, after, func(g *ent.QuotaGroup) string { return g.ID.String() })
}

func auditSetting(action string, before, after *ent.Setting) auditEntry {
	return rowEntry(action, EntitySetting, before, after, func(s *ent.Setting) string { return s.ID })
}

// rowEntry is the entry of a row that was or became, or both.
func rowEntry[T any](action, entity string, before, after *T, id func(*T) string) auditEntry {
	e := auditEntry{action: action, entity: entity}
	if before != nil { // a nil *T in an any is not nil
		e.id, e.before = id(before), before
	}
	if after != nil {
		e.id, e.after = id(after), after
	}
	return e
}
