package registry

import (
	"context"
	stdsql "database/sql"
	"fmt"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// operation is the scope of the client that an operation writes with. Rows keep the client that read them, and the
// caller gets some: so they can write as long as the operation runs.
type operation struct {
	clock func() time.Time
	at    time.Time
	over  atomic.Bool
}

func (o *operation) now() time.Time {
	if o.at.IsZero() {
		o.at = utc.Of(o.clock())
	}
	return o.at
}

// timeOf returns the time of the operation that writes with a client. It is read when it is first asked for: what the
// operation waits for comes before.
func timeOf(tx *ent.Client) time.Time { return tx.Scope().(*operation).now() }

// guard has operations alone write rows, and puts their time into those.
func guard(next ent.Mutator) ent.Mutator {
	return ent.MutateFunc(func(ctx context.Context, m ent.Mutation) (ent.Value, error) {
		o, _ := m.(interface{ Scope() any }).Scope().(*operation)
		if o == nil || o.over.Load() {
			return nil, fmt.Errorf("%w client: %s is written by Registry.%s", ErrReadOnly, m.Type(), writers[m.Type()])
		}
		if row, ok := m.(interface{ SetUpdatedAt(at time.Time) }); ok && !m.Op().Is(ent.OpDelete|ent.OpDeleteOne) {
			row.SetUpdatedAt(o.now())
			if created, ok := m.(interface{ SetCreatedAt(at time.Time) }); ok && m.Op().Is(ent.OpCreate) {
				created.SetCreatedAt(o.now())
			}
		}
		return next.Mutate(ctx, m)
	})
}

// writers are the operations that write an entity.
var writers = map[string]string{
	ent.TypeProvider:     "CreateProvider, UpdateProvider, DeleteProvider, UndeleteProvider and PurgeProvider",
	ent.TypeModelFamily:  "CreateFamily, UpdateFamily and DeleteFamily",
	ent.TypeModel:        "CreateModel, UpdateModel, DeprecateModel, DeleteModel, UndeleteModel and PurgeModel",
	ent.TypePrice:        "UpdateModelPricing",
	ent.TypeAPIKey:       "AddAPIKey, UpdateAPIKey, RotateAPIKey, DeleteAPIKey, UndeleteAPIKey and PurgeAPIKey",
	ent.TypeQuotaGroup:   "CreateQuotaGroup, UpdateQuotaGroup and DeleteQuotaGroup",
	ent.TypeSDKVersion:   "CreateSDKVersion, UpdateSDKVersion and DeleteSDKVersion",
	ent.TypeDiscoveryLog: "CreateDiscoveryLog, UpdateDiscoveryResult and DeleteDiscoveryLog",
	ent.TypeSetting:      "SetSetting and DeleteSetting",
	ent.TypeAuditEntry:   "As, or rather by what is changed through it",

	ent.TypeKeyLease:          "AcquireKey",
	ent.TypeExpiredLease:      "AcquireKey",
	ent.TypePoolState:         "AcquireKey",
	ent.TypeUsageEvent:        "RecordUsage and RecordUsageBatch",
	ent.TypeUsage:             "RecordUsage and RecordUsageBatch",
	ent.TypeUsageQuarter:      "RecordUsage and RecordUsageBatch",
	ent.TypeUsageTotal:        "RecordUsage and RecordUsageBatch",
	ent.TypeUsageTotalQuarter: "RecordUsage and RecordUsageBatch",
	ent.TypeUsageHorizon:      "Prune",
	ent.TypeDataKey:           "RotateKeyring",
	ent.TypeInstallation:      "RotateKeyring, or rather by Open WithKeyring",
}

// walking is the driver of the client that a Registry shows. Closing that closes nothing. It begins no transaction,
// which Ent's Schema.Create would change tables in.
type walking struct{ store.DB }

func (walking) Close() error { return nil }

func (walking) Tx(context.Context) (dialect.Tx, error) {
	return nil, fmt.Errorf(
		"%w client: Registry.InTx begins transactions, and Open brings the schema up to date", ErrReadOnly,
	)
}

func (w walking) BeginTx(ctx context.Context, _ *stdsql.TxOptions) (dialect.Tx, error) {
	return w.Tx(ctx)
}
