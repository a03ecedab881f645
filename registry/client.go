package registry

import (
	"context"
	stdsql "database/sql"
	"fmt"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// operation is the scope of the client that an operation writes with. Rows keep the client that read them, and callers
// get some of these rows: they can write only as long as the operation runs.
type operation struct {
	clock func() time.Time
	at    time.Time
	noted []auditEntry
	over  atomic.Bool
}

// auditEntry is a change to record.
type auditEntry struct {
	action, entity string
	id             string // empty: several rows
	before, after  any    // Ent's row, or another value to show as JSON; nil: none
	automatic      bool   // the key pool did it by itself
}

// step names a step of a transaction in errors. Those of an operation have the operation's name.
func (o *operation) step(name string) string {
	if o != nil {
		return ""
	}
	return name
}

func (o *operation) now() time.Time {
	if o.at.IsZero() {
		o.at = utc.Of(o.clock())
	}
	return o.at
}

// timeOf returns the time of the operation that a client writes for. The clock is read at the first call, after the
// operation has waited for its turn.
func timeOf(tx *ent.Client) time.Time { return tx.Scope().(*operation).now() }

// guard lets only operations write rows, and sets their created_at and updated_at.
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

// writers name the operations that write an entity.
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
	ent.TypeConsumer: "CreateConsumer, EnsureConsumer, UpdateConsumer, MoveConsumer, DeleteConsumer, " +
		"UndeleteConsumer and PurgeConsumer",
	ent.TypeAccessKey:     "CreateAccessKey, UpdateAccessKey, RotateAccessKey and DeleteAccessKey",
	ent.TypePolicyVersion: "UpdateConsumer, UpdateAccessKey and others",
	ent.TypeAuditEntry:    "As, or rather by what is changed through it",

	ent.TypeBudget:            "CreateBudget, UpdateBudget and DeleteBudget",
	ent.TypeBudgetGrant:       "GrantBudget and RevokeGrant",
	ent.TypeBudgetWindow:      "RecordUsage and Settle",
	ent.TypeBudgetCrossing:    "AckBudgetCrossings, or RecordUsage and AcquireKey",
	ent.TypeKeyLease:          "AcquireKey",
	ent.TypeExpiredLease:      "AcquireKey",
	ent.TypePoolState:         "AcquireKey",
	ent.TypeUsageEvent:        "RecordUsage and RecordUsageBatch",
	ent.TypeUsage:             "RecordUsage and RecordUsageBatch",
	ent.TypeUsageQuarter:      "RecordUsage and RecordUsageBatch",
	ent.TypeUsageTotal:        "RecordUsage and RecordUsageBatch",
	ent.TypeUsageTotalQuarter: "RecordUsage and RecordUsageBatch",
	ent.TypeUsageHorizon:      "Prune",
	ent.TypeDimension:         "CreateDimension, UpdateDimension and RetireDimension",
	ent.TypeDimensionValue:    "RecordUsage and CreateConsumer",
	ent.TypeUsageByValue:      "RecordUsage and RecordUsageBatch",

	ent.TypeUsageByValueQuarter: "RecordUsage and RecordUsageBatch",
	ent.TypeUsageFold:           "RecordUsage and RecordUsageBatch",
	ent.TypeConsumerDay:         "RecordUsage and RecordUsageBatch",
	ent.TypeDataKey:             "RotateKeyring",
	ent.TypeInstallation:        "RotateKeyring, or rather by Open WithKeyring",
}

// walking is the driver of the client that Registry.Client returns, over the database or a transaction. Close does
// nothing. Ent writes by Exec and Tx, as its Schema.Create does: neither is for this client.
type walking struct{ walked }

// walked runs the queries of a walking client.
type walked interface {
	dialect.Driver
	sql.ExecQuerier
}

func (walking) Close() error { return nil }

// errWalking is the error of what a walking client does not do.
var errWalking = fmt.Errorf(
	"%w client: Registry.InTx begins transactions, and Open brings the schema up to date", ErrReadOnly,
)

func (walking) Exec(context.Context, string, any, any) error { return errWalking }

func (walking) Tx(context.Context) (dialect.Tx, error) { return nil, errWalking }

func (w walking) BeginTx(ctx context.Context, _ *stdsql.TxOptions) (dialect.Tx, error) {
	return w.Tx(ctx)
}

// rowDriver is the driver of the rows that the operations of a transaction return. It is the transaction until that has
// ended, and the database afterwards. So a caller can walk on from a row, or from a copy of it, at any time.
type rowDriver struct {
	dialect.Driver // the database's
	tx             dialect.Tx
	ended          atomic.Bool
}

// Tx begins the transaction.
func (d *rowDriver) Tx(ctx context.Context) (dialect.Tx, error) {
	tx, err := d.Driver.Tx(ctx)
	d.tx = tx
	return tx, err
}

// Query runs a query. Rows write nothing: guard prevents it.
func (d *rowDriver) Query(ctx context.Context, query string, args, v any) error {
	if d.ended.Load() {
		return d.Driver.Query(ctx, query, args, v)
	}
	return d.tx.Query(ctx, query, args, v)
}

// ExecContext runs a statement in the transaction, and fails after its end.
func (d *rowDriver) ExecContext(ctx context.Context, query string, args ...any) (stdsql.Result, error) {
	return d.tx.(sql.ExecQuerier).ExecContext(ctx, query, args...)
}

// QueryContext runs a query in the transaction, and fails after its end.
func (d *rowDriver) QueryContext(ctx context.Context, query string, args ...any) (*stdsql.Rows, error) {
	return d.tx.(sql.ExecQuerier).QueryContext(ctx, query, args...)
}

// entRow is a row of Ent's.
type entRow[T any] interface {
	comparable
	Unwrap() T // unties it from its transaction; panics if it has none
}

// tied returns a row that an operation has read. Within a transaction it ties the row to the driver that outlives the
// transaction. A row that a write returns always has a transaction, and is unwrapped by the operation.
func tied[T entRow[T]](r *Registry, read T) T {
	var none T
	if r.inTx && read != none {
		read.Unwrap()
	}
	return read
}

// allTied is tied for several rows.
func allTied[T entRow[T]](r *Registry, read []T) []T {
	for _, row := range read {
		tied(r, row)
	}
	return read
}
