package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/accesskey"
	"github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
)

// MoveConsumer moves a live consumer, with all below it, to another live parent, and returns it. If parentID is zero,
// it has no parent any more. Other processes act by it within a second; see [Registry.Authenticate].
//
// What they spent in the present windows of budgets, and in later ones, moves with them: out of the budgets above the
// old place, into those above the new one. Windows that have ended stay as they are.
//
// It is one transaction, in which others wait to write. Errors:
//
//   - [ErrInvalidData]: the parent is the consumer itself or below it, or the tree would get a ninth level; deleted
//     consumers count
//   - [ErrForeignKey]: the parent is unknown
//   - [ErrConflict]: another live consumer of the parent has the name
//   - [ErrNotFound]: there is no such live consumer
func (r *Registry) MoveConsumer(ctx context.Context, id, parentID uuid.UUID) (*ent.Consumer, error) {
	op := fmt.Sprintf("move consumer %s", id)
	return change(ctx, r.writePolicy, op, nil, func(tx *ent.Client) (*ent.Consumer, error) {
		// The leases that move are rows of pools: see commit.Hold.
		if err := r.holdPools(ctx, tx, commit.AllPools); err != nil {
			return nil, err
		}
		old, err := liveConsumer(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		path, err := pathBelow(ctx, tx, parentID, id)
		if err != nil || path == old.Path {
			return old, err
		}
		if strings.HasPrefix(path, old.Path+"/") {
			return nil, fmt.Errorf("%w: consumer %s is the one to be moved, or below it", ErrInvalidData, parentID)
		}
		below, err := tx.Consumer.Query().Where(isBelow(old)).Order(consumer.ByPath()).All(ctx)
		if err != nil {
			return nil, err
		}
		for _, c := range below {
			if err := checkLevel(path + c.Path[len(old.Path):]); err != nil {
				return nil, err
			}
		}
		from, err := budgetsAbove(ctx, tx, old.Path)
		if err != nil {
			return nil, err
		}
		to, err := budgetsAbove(ctx, tx, path)
		if err != nil {
			return nil, err
		}
		if err := r.commits.Leave(ctx, tx, timeOf(tx), old.Path, from); err != nil {
			return nil, err
		}
		moved, err := moveTree(ctx, tx, old, below, parentID, path)
		if err != nil {
			return nil, err
		}
		return moved, r.commits.Enter(ctx, tx, timeOf(tx), path, to)
	})
}

// moveTree gives a consumer a parent and a path, and those below it their paths, also in their open leases.
func moveTree(
	ctx context.Context, tx *ent.Client, top *ent.Consumer, below []*ent.Consumer, parentID uuid.UUID, path string,
) (*ent.Consumer, error) {
	update := top.Update().SetPath(path).ClearParentID()
	if parentID != uuid.Nil {
		update.SetParentID(parentID)
	}
	moved, err := save(ctx, tx, ActionMove, top, update)
	if err != nil {
		return nil, taken(err, "another consumer of the parent is called %q", top.Name)
	}
	noteRows(tx, ActionMove, below, func(c *ent.Consumer) {
		c.Path, c.UpdatedAt = path+c.Path[len(top.Path):], timeOf(tx)
	})
	moveTo := func(field string) func(*sql.UpdateBuilder) {
		return func(u *sql.UpdateBuilder) {
			u.Set(field, sql.ExprFunc(func(b *sql.Builder) {
				b.Arg(path).WriteString(" || substr(").Ident(field).Comma().Arg(len(top.Path) + 1).WriteByte(')')
			}))
		}
	}
	if err := tx.Consumer.Update().Where(isBelow(top)).Modify(moveTo(consumer.FieldPath)).Exec(ctx); err != nil {
		return nil, err
	}
	return moved, tx.KeyLease.Update().
		Where(keylease.ConsumerPathGTE(top.Path), keylease.ConsumerPathLT(top.Path+"0")).
		Modify(moveTo(keylease.FieldConsumerPath)).Exec(ctx)
}

// DeleteConsumer deletes a live consumer, with all below it and all their access keys. They disappear from lists, and
// nobody can act for them any more: other processes know it within a second; see [Registry.Authenticate]. Their names
// and external ids can be used again. [Registry.UndeleteConsumer] brings back everything that was deleted at this
// instant.
//
// It is one transaction, in which others wait to write. It returns [ErrNotFound] if there is no such live consumer.
func (r *Registry) DeleteConsumer(ctx context.Context, id uuid.UUID) error {
	return r.writePolicy(ctx, fmt.Sprintf("delete consumer %s", id), nil, func(tx *ent.Client) error {
		top, err := liveConsumer(ctx, tx, id)
		if err != nil {
			return err
		}
		now := timeOf(tx)
		ofTree := consumer.And(inSubtree(top), consumer.DeletedAtIsNil())
		consumers, err := tx.Consumer.Query().Where(ofTree).Order(consumer.ByPath()).All(ctx)
		if err != nil {
			return err
		}
		ofKeys := accesskey.And(accesskey.HasConsumerWith(inSubtree(top)), accesskey.DeletedAtIsNil())
		keys, err := tx.AccessKey.Query().Where(ofKeys).Order(accesskey.ByID()).All(ctx)
		if err != nil {
			return err
		}
		noteRows(tx, ActionDelete, consumers, func(c *ent.Consumer) { c.DeletedAt, c.UpdatedAt = &now, now })
		noteRows(tx, ActionDelete, keys, func(k *ent.AccessKey) { k.DeletedAt, k.UpdatedAt = &now, now })
		if err := tx.AccessKey.Update().Where(ofKeys).SetDeletedAt(now).Exec(ctx); err != nil {
			return err
		}
		return tx.Consumer.Update().Where(ofTree).SetDeletedAt(now).Exec(ctx)
	})
}

// UndeleteConsumer takes DeleteConsumer back and returns the consumer, with the consumers below it and the access keys
// that were deleted with it, at the same instant. Those deleted before stay deleted. A live consumer is left as it is.
//
// It is one transaction, in which others wait to write. Errors:
//
//   - [ErrConflict]: another live consumer of the parent has the name, or another live consumer has an external id
//   - [ErrForeignKey]: the parent is deleted
//   - [ErrNotFound]: there is no such consumer
func (r *Registry) UndeleteConsumer(ctx context.Context, id uuid.UUID) (*ent.Consumer, error) {
	op := fmt.Sprintf("undelete consumer %s", id)
	return change(ctx, r.writePolicy, op, nil, func(tx *ent.Client) (*ent.Consumer, error) {
		old, err := tx.Consumer.Get(ctx, id)
		if err != nil || old.DeletedAt == nil {
			return old, err
		}
		if _, err := pathBelow(ctx, tx, value(old.ParentID), id); err != nil {
			return nil, fmt.Errorf("%w: undelete the parent first", err)
		}
		if err := undeleteTree(ctx, tx, old); err != nil {
			return nil, taken(err, "another consumer is called %q now, or has an external id of one of these:"+
				" change that one first", old.Name)
		}
		return tx.Consumer.Get(ctx, id)
	})
}

// undeleteTree brings back a consumer and what was deleted with it.
func undeleteTree(ctx context.Context, tx *ent.Client, top *ent.Consumer) error {
	deleted := *top.DeletedAt
	consumers, err := tx.Consumer.Query().Where(inSubtree(top), consumer.DeletedAt(deleted)).
		Order(consumer.ByPath()).All(ctx)
	if err != nil {
		return err
	}
	consumers = lastDeleted(consumers, top.ID)
	ids := make([]uuid.UUID, len(consumers))
	for i, c := range consumers {
		ids[i] = c.ID
	}
	noteRows(tx, ActionUndelete, consumers, func(c *ent.Consumer) { c.DeletedAt, c.UpdatedAt = nil, timeOf(tx) })
	for some := range slices.Chunk(ids, chunk) {
		if err := tx.Consumer.Update().Where(consumer.IDIn(some...)).ClearDeletedAt().Exec(ctx); err != nil {
			return err
		}
		if err := undeleteAccessKeys(ctx, tx, some, deleted); err != nil {
			return err
		}
	}
	return nil
}

// lastDeleted returns the consumers that UndeleteConsumer brings back, of all that were deleted at one instant. If some
// share a name or an external id, they were deleted one after the other: it keeps the last. It drops a consumer whose
// parent it drops.
func lastDeleted(consumers []*ent.Consumer, top uuid.UUID) []*ent.Consumer {
	names, externals := map[string]uuid.UUID{}, map[string]uuid.UUID{}
	name := func(c *ent.Consumer) string { return value(c.ParentID).String() + c.Name }
	for _, c := range consumers { // siblings are in the order in which they were created
		names[name(c)] = c.ID
		if last := externals[value(c.ExternalID)]; strings.Compare(last.String(), c.ID.String()) < 0 {
			externals[value(c.ExternalID)] = c.ID
		}
	}
	live := map[uuid.UUID]bool{}
	return slices.DeleteFunc(consumers, func(c *ent.Consumer) bool {
		live[c.ID] = c.ID == top || live[value(c.ParentID)] && names[name(c)] == c.ID &&
			(c.ExternalID == nil || externals[*c.ExternalID] == c.ID)
		return !live[c.ID]
	})
}

// undeleteAccessKeys brings back the access keys of consumers that were deleted at an instant.
func undeleteAccessKeys(ctx context.Context, tx *ent.Client, consumers []uuid.UUID, deleted time.Time) error {
	which := accesskey.And(accesskey.ConsumerIDIn(consumers...), accesskey.DeletedAt(deleted))
	keys, err := tx.AccessKey.Query().Where(which).Order(accesskey.ByID()).All(ctx)
	if err != nil {
		return err
	}
	noteRows(tx, ActionUndelete, keys, func(k *ent.AccessKey) { k.DeletedAt, k.UpdatedAt = nil, timeOf(tx) })
	return tx.AccessKey.Update().Where(which).ClearDeletedAt().Exec(ctx)
}

// PurgeConsumer removes a consumer, live or deleted, from the database for good, with all below it and all their access
// keys and budgets. A secret of theirs could be given to another access key then.
//
// It is one transaction, in which others wait to write. It returns [ErrNotFound] if there is no such consumer, and
// [ErrForeignKey], changing nothing, if other rows refer to one of them, as its usage does.
func (r *Registry) PurgeConsumer(ctx context.Context, id uuid.UUID) error {
	return r.writePolicy(ctx, fmt.Sprintf("purge consumer %s", id), nil, func(tx *ent.Client) error {
		top, err := tx.Consumer.Get(ctx, id)
		if err != nil {
			return err
		}
		err = notePurged(ctx, tx, tx.Consumer.Query().Where(inSubtree(top)).Order(consumer.ByPath()))
		if err != nil {
			return err
		}
		ofBudgets := budget.HasConsumerWith(inSubtree(top))
		if err := notePurged(ctx, tx, tx.Budget.Query().Where(ofBudgets).Order(budget.ByID())); err != nil {
			return err
		}
		ofKeys := accesskey.HasConsumerWith(inSubtree(top))
		if err := notePurged(ctx, tx, tx.AccessKey.Query().Where(ofKeys).Order(accesskey.ByID())); err != nil {
			return err
		}
		ids, err := tx.Consumer.Query().Where(inSubtree(top)).IDs(ctx)
		if err == nil {
			err = noValues(ctx, tx, r.db.Dialect(), ids)
		}
		if err != nil {
			return err
		}
		for level := MaxConsumerLevels; level >= levelOf(top.Path); level-- { // children keep their parents
			if _, err := tx.Consumer.Delete().Where(inSubtree(top), ofLevel(level)).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// idLength is the length of an id in a path.
const idLength = 36

// ofLevel selects consumers whose paths have a number of ids.
func ofLevel(n int) predicate.Consumer {
	return func(s *sql.Selector) {
		s.Where(sql.P(func(b *sql.Builder) {
			b.WriteString("length(").Ident(s.C(consumer.FieldPath)).WriteString(") = ").Arg(n*(idLength+1) - 1)
		}))
	}
}
