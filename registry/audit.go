package registry

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/auditentry"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// The actions of an [ent.AuditEntry].
const (
	ActionCreate   = "create"
	ActionUpdate   = "update"    // for a price: one ends and the next begins, unless the rates are the same
	ActionDelete   = "delete"    // hidden, its name available again; a family, a quota group or a setting: removed
	ActionUndelete = "undelete"  // live again
	ActionPurge    = "purge"     // removed for good
	ActionDisable  = "disable"   // a key, a consumer or an access key, by a person
	ActionEnable   = "enable"    // likewise
	ActionMove     = "move"      // a consumer, and each below it
	ActionDegrade  = "degrade"   // a key
	ActionRestore  = "restore"   // a key
	ActionProbe    = "probe"     // a key on probation: one request tries it
	ActionCoolDown = "cool_down" // a provider: many of its keys failed alike
	ActionReset    = "reset"     // the daily counters of all keys
	ActionReprice  = "reprice"   // past usage of a model
	ActionRotate   = "rotate"    // a key that was replaced; or the keyring: After counts the changed keys by kind
	ActionRepair   = "repair"    // the ledger: After counts the changed rows by kind
)

// The entities of an [ent.AuditEntry]. EntityID is the id of the row; for a price it is the id of the model, for a
// setting its key. It is empty if several rows changed.
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
	EntityConsumer   = "consumer"
	EntityAccessKey  = "access_key"
	EntityBudget     = "budget"
	EntityDimension  = "dimension"
	EntityGrant      = "budget_grant"
)

// As returns the same registry with an actor: changes made through it are recorded as the actor's. An actor has up to
// 128 characters, without control characters or invisible ones; an empty actor is nobody.
//
// The two registries share everything else: closing one closes both. As works within a transaction too. A transaction
// has the actor of the registry that InTx was called on.
//
// As does not check the actor. If it breaks the rules, every change that would be recorded in the audit trail returns
// [ErrInvalidData] and is not made.
func (r *Registry) As(actor string) *Registry {
	as := *r
	as.actor = actor
	return &as
}

// AuditFilter selects audit entries. All conditions must hold; a zero condition is ignored.
type AuditFilter struct {
	Actor    string
	Action   string // such as ActionCreate
	Entity   string // such as EntityModel
	EntityID string
	Start    time.Time // the first instant
	End      time.Time // the first instant after it

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last entry of the page before; older ones follow. Zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl AuditFilter) Next(last *ent.AuditEntry) (AuditFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

func (fl AuditFilter) faults() (f fault.List) {
	f.Text("actor", fl.Actor, 0, rule.MaxName)
	f.Text("action", fl.Action, 0, rule.MaxWord)
	f.Text("entity", fl.Entity, 0, rule.MaxWord)
	f.Text("entity_id", fl.EntityID, 0, rule.MaxKey)
	if !fl.Start.IsZero() && !fl.End.IsZero() {
		f.Span(utc.Clamp(fl.Start), utc.Clamp(fl.End))
	}
	return f
}

// ListAudit returns a page of the audit trail, newest first: who changed which provider, family, model, price, API key,
// quota group, consumer, access key or setting, when, and from what to what.
//
// Before and After of an entry are the row in JSON, with all columns except secrets:
//
//   - Money is in dollars, under names that end with _usd.
//   - Before is nil for a new row, After is nil for a removed one.
//   - For what AcquireKey and the ends of leases do to keys and providers, they are what changed, and why.
//   - They never contain an API key, a secret or a hash of one. Values of settings appear as they are.
//
// These have no entry:
//
//   - a change that changes only the row's updated_at
//   - recorded usage, discovery logs and SDK versions
//   - the current costs of a model, which follow a change of its standard price
//
// Entries of people's changes are kept for ever. Automatic entries are the key pool's: it takes keys out of use, tries
// them and puts them back. [Registry.Prune] removes them when they are old. While a key is rate-limited, its first,
// second, fourth, eighth and so on consecutive failures have an entry. The end of such a limit has none, because the
// entry that took the key out of use says until when.
//
// It returns [ErrInvalidData] if the filter breaks a rule, or its end is not after its start, and [ErrNotFound] if the
// entry that After names does not exist any more.
func (r *Registry) ListAudit(ctx context.Context, filter AuditFilter) ([]*ent.AuditEntry, error) {
	l := listing[uuid.UUID]{newestFirst(auditentry.FieldAt, auditentry.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	return list(ctx, r, "list audit", filter.faults(), l, c.AuditEntry.Get,
		c.AuditEntry.Query().Where(filter.predicates()...))
}

func (fl AuditFilter) predicates() []predicate.AuditEntry {
	return append(matching[predicate.AuditEntry](fl), wanted([]condition[predicate.AuditEntry]{
		{!fl.Start.IsZero(), auditentry.AtGTE(utc.Clamp(fl.Start))},
		{!fl.End.IsZero(), auditentry.AtLT(utc.Clamp(fl.End))},
	})...)
}
