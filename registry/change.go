package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"entgo.io/ent/dialect"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// write makes a change: an operation that checks its input, begins a transaction, writes rows and writes the audit
// trail. It returns the faults of the input, or runs the body in a transaction, and then records what the body has
// noted with save, noteRow or note. On PostgreSQL the body may run several times, each time in a new transaction after
// the last one was rolled back.
func (r *Registry) write(ctx context.Context, op string, f fault.List, body func(tx *ent.Client) error) error {
	if err := f.Err(); err != nil {
		return translate(ctx, op, err)
	}
	return r.writeOn(ctx, r.db, op, func(tx *ent.Client) error {
		if err := body(tx); err != nil {
			return err
		}
		return r.audit(ctx, tx, timeOf(tx), tx.Scope().(*operation).noted...)
	})
}

// catalogueLock is the number of PostgreSQL's advisory lock for changes of the catalogue ("MSrc").
const catalogueLock = 0x4d537263

// writeAlone is write for a change that reads what others could change before it writes. Such changes run one at a
// time, across all processes. SQLite has only one writer anyway.
func (r *Registry) writeAlone(ctx context.Context, op string, f fault.List, body func(tx *ent.Client) error) error {
	return r.write(ctx, op, f, func(tx *ent.Client) error {
		if r.db.Dialect() == dialect.Postgres {
			if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", catalogueLock); err != nil {
				return err
			}
		}
		return body(tx)
	})
}

// writePolicy is writeAlone for a change of what processes remember of access keys and consumers.
func (r *Registry) writePolicy(ctx context.Context, op string, f fault.List, body func(tx *ent.Client) error) error {
	defer r.policy.Expire() // also if it is uncertain whether it was committed
	return r.writeAlone(ctx, op, f, func(tx *ent.Client) error {
		if err := r.lockPolicy(ctx, tx); err != nil {
			return err
		}
		if err := body(tx); err != nil {
			return err
		}
		return r.raisePolicy(ctx, tx)
	})
}

// lockPolicy keeps requests for consumers, and changes of consumers and budgets, waiting until a transaction ends. It
// comes before any row and any other lock but that of the catalogue: batches share it before they take theirs. SQLite
// has one writer.
func (r *Registry) lockPolicy(ctx context.Context, tx *ent.Client) error {
	if r.db.Dialect() != dialect.Postgres {
		return nil
	}
	_, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", commit.PolicyLock)
	return err
}

// raisePolicy counts a change of what processes remember.
func (r *Registry) raisePolicy(ctx context.Context, tx *ent.Client) error {
	n, err := tx.PolicyVersion.Update().AddVersion(1).Save(ctx)
	if err == nil && n == 0 { // the first change
		err = tx.PolicyVersion.Create().SetNumber(1).SetVersion(1).Exec(ctx)
	}
	return err
}

// writer is Registry.write or Registry.writeAlone.
type writer func(ctx context.Context, op string, f fault.List, body func(tx *ent.Client) error) error

// change is for a change that returns a row: it runs the body by write and returns the body's row.
func change[T entRow[T]](
	ctx context.Context, write writer, op string, f fault.List, body func(tx *ent.Client) (T, error),
) (row T, err error) {
	err = write(ctx, op, f, func(tx *ent.Client) error {
		row, err = body(tx)
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return row.Unwrap(), nil
}

// named adds the name of a row to an operation. Most is the length of the longest name.
func named(op, name string, most int) string {
	if name == "" {
		return op
	}
	return fmt.Sprintf("%s %.*q", op, most, name)
}

// save writes a row, notes it and returns it. Old is the row as it was, or nil if the builder creates it.
func save[T any](
	ctx context.Context, tx *ent.Client, action string, old *T, builder interface {
		Save(ctx context.Context) (*T, error)
	},
) (*T, error) {
	row, err := builder.Save(ctx)
	if err == nil {
		noteRow(tx, action, old, row)
	}
	return row, err
}

// noteRow notes the change of a row: before is nil if it was created, after if it was removed. Until the body has
// ended, the rows must stay as the database has them.
func noteRow[T any](tx *ent.Client, action string, before, after *T) {
	e := auditEntry{action: action}
	if before != nil { // a nil *T in an any is not nil
		e.before = before
		e.entity, e.id = entityOf(before)
	}
	if after != nil {
		e.after = after
		e.entity, e.id = entityOf(after)
	}
	note(tx, e)
}

// noteRows notes that one statement changes several rows. Become makes of a copy of each what the row is afterwards.
func noteRows[T any](tx *ent.Client, action string, rows []*T, become func(row *T)) {
	for _, before := range rows {
		after := *before
		become(&after)
		noteRow(tx, action, before, &after)
	}
}

// notePurged notes the rows of a query, which are purged together with another row.
func notePurged[T any](
	ctx context.Context, tx *ent.Client, query interface {
		All(ctx context.Context) ([]*T, error)
	},
) error {
	rows, err := query.All(ctx)
	for _, row := range rows {
		noteRow(tx, ActionPurge, row, nil)
	}
	return err
}

// note adds an entry to those that the change records when its body has ended without an error.
func note(tx *ent.Client, e auditEntry) {
	o := tx.Scope().(*operation)
	o.noted = append(o.noted, e)
}

// entityOf returns the entity and the id of a row, as an audit entry names them.
func entityOf(row any) (entity, id string) {
	switch row := row.(type) {
	case *ent.Provider:
		return EntityProvider, row.ID.String()
	case *ent.ModelFamily:
		return EntityFamily, row.ID.String()
	case *ent.Model:
		return EntityModel, row.ID.String()
	case *ent.Price: // of one history, in which no price is overwritten
		return EntityPrice, row.ModelID.String()
	case *ent.APIKey:
		return EntityAPIKey, row.ID.String()
	case *ent.QuotaGroup:
		return EntityQuotaGroup, row.ID.String()
	case *ent.Consumer:
		return EntityConsumer, row.ID.String()
	case *ent.AccessKey:
		return EntityAccessKey, row.ID.String()
	case *ent.Budget:
		return EntityBudget, row.ID.String()
	case *ent.Dimension:
		return EntityDimension, row.ID.String()
	case *ent.BudgetGrant:
		return EntityGrant, row.ID.String()
	case *ent.Setting:
		return EntitySetting, row.ID
	}
	panic(fmt.Sprintf("%T has no audit trail", row))
}

// audit records changes in their order, in the transaction that makes them. It leaves out changes of updated_at alone.
// Rows must be as the database has them, not as asOf shows them. It returns [ErrInvalidData] if the actor breaks a
// rule.
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
		same, err := sameButTime(before, after)
		if err != nil {
			return err
		}
		if same {
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

// rowJSON returns a row in JSON, or nil for nil. Ent marshals the edges, which are not loaded, as the last field, and
// leaves out sensitive fields.
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

// sameButTime reports whether two rows differ in nothing but updated_at.
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

// auditPool records what the pool did to keys and providers by itself, during the call of an actor.
func (r *Registry) auditPool(
	ctx context.Context, tx *ent.Client, now time.Time, actor string, events []pool.Event,
) error {
	entries := make([]auditEntry, len(events))
	for i, e := range events {
		is := poolActions[e.Kind]
		entries[i] = auditEntry{is.action, is.entity, e.ID.String(), e.Before, e.After, true}
	}
	return r.As(actor).audit(ctx, tx, now, entries...)
}

// poolActions are the actions of what the pool does, and whom it does it to.
var poolActions = map[pool.EventKind]struct{ action, entity string }{
	pool.KeyDegraded:       {ActionDegrade, EntityAPIKey},
	pool.KeyRestored:       {ActionRestore, EntityAPIKey},
	pool.KeyProbed:         {ActionProbe, EntityAPIKey},
	pool.ProviderCoolsDown: {ActionCoolDown, EntityProvider},
}
