package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/ent/schema"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// MaxConsumerLevels is the most levels of the tree of consumers.
const MaxConsumerLevels = 8

// Permission says which models of a provider a consumer may use, or may not:
//
//   - ProviderID is the provider.
//   - Models are the provider's names of the models. A name that ends with * stands for all names that begin like it.
//     Empty: all models of the provider.
//   - Deny takes these models away, whatever other permissions say.
type Permission = schema.Permission

// ConsumerInput describes a consumer to be created: whom cost is charged to, such as an organisation, a team or a user.
type ConsumerInput struct {
	Name     string    // 1 to 128 characters; unique among the live consumers of the same parent
	ParentID uuid.UUID // a live consumer; zero: none. The tree has up to MaxConsumerLevels levels
	Kind     string    // what it is, in words of your own, such as team or user, up to 32 characters
	// ExternalID is its id in a system of yours, up to 128 characters; unique among live consumers. Defaults to none.
	ExternalID string
	// Permissions are the models that it, and all below it, may use, up to 100 entries with 1,000 models. A consumer
	// may use what every level permits. Without entries, or with entries that only deny, a level permits all others.
	Permissions []Permission
}

// ConsumerUpdate changes the fields of a consumer that are not nil, under the rules of [ConsumerInput].
type ConsumerUpdate struct {
	Name        *string
	Kind        *string
	ExternalID  *string       // empty: none
	Disabled    *bool         // nobody acts for a disabled consumer, nor for those below it
	Permissions *[]Permission // replaces all permissions; empty: all models
}

// CreateConsumer creates a consumer and returns it.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule, or the tree would get a ninth level
//   - [ErrForeignKey]: the parent, or the provider or a model of a permission, is unknown
//   - [ErrConflict]: a live consumer has the external id, or one of the same parent the name
func (r *Registry) CreateConsumer(ctx context.Context, in ConsumerInput) (*ent.Consumer, error) {
	op, f := named("create consumer", in.Name, rule.MaxName), judge(draft.Consumer.Create(), in)
	return change(ctx, r.writeAlone, op, f, func(tx *ent.Client) (*ent.Consumer, error) {
		return r.createConsumer(ctx, tx, in)
	})
}

// EnsureConsumer finds the live consumer that has the input's external id, and returns it unchanged. Otherwise it
// creates the consumer. Callers who do so at once get the same consumer.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule, the external id is empty, or the tree would get a ninth level
//   - [ErrForeignKey]: the parent, or the provider or a model of a permission, is unknown
//   - [ErrConflict]: a live consumer of the same parent has the name, under another external id
func (r *Registry) EnsureConsumer(ctx context.Context, in ConsumerInput) (*ent.Consumer, error) {
	f := judge(draft.Consumer.Create(), in)
	f.Check(in.ExternalID != "", "external_id is empty")
	op := named("ensure consumer", in.ExternalID, rule.MaxName)
	if err := f.Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	c, err := externalConsumer(ctx, r.fresh, in.ExternalID)
	if !ent.IsNotFound(err) {
		return tied(r, c), translate(ctx, op, err)
	}
	return change(ctx, r.writeAlone, op, nil, func(tx *ent.Client) (*ent.Consumer, error) {
		c, err := externalConsumer(ctx, tx, in.ExternalID)
		if !ent.IsNotFound(err) { // somebody else was faster
			return c, err
		}
		return r.createConsumer(ctx, tx, in)
	})
}

// createConsumer creates a consumer. The catalogue's lock must be held.
func (r *Registry) createConsumer(ctx context.Context, tx *ent.Client, in ConsumerInput) (*ent.Consumer, error) {
	id := consumer.DefaultID()
	path, err := pathBelow(ctx, tx, in.ParentID, id)
	if err != nil {
		return nil, err
	}
	if err := requirePermitted(ctx, tx, in.Permissions); err != nil {
		return nil, err
	}
	if err := requireExternalID(ctx, tx, in.ExternalID, id); err != nil {
		return nil, err
	}
	c, err := save(ctx, tx, ActionCreate, nil, filled(tx.Consumer.Create().SetID(id).SetPath(path), in))
	if err != nil {
		return nil, taken(err, "another consumer of the same parent is called %q", in.Name)
	}
	return c, r.giveValue(ctx, tx, c.ID)
}

// pathBelow returns the path of a consumer below a live parent, or of one without a parent.
func pathBelow(ctx context.Context, tx *ent.Client, parentID, id uuid.UUID) (string, error) {
	if parentID == uuid.Nil {
		return id.String(), nil
	}
	parent, err := liveConsumer(ctx, tx, parentID)
	if ent.IsNotFound(err) {
		return "", fault.Missing("parent", parentID)
	}
	if err != nil {
		return "", err
	}
	path := parent.Path + "/" + id.String()
	return path, checkLevel(path)
}

// checkLevel returns ErrInvalidData if a path has too many levels.
func checkLevel(path string) error {
	if n := levelOf(path); n > MaxConsumerLevels {
		return fmt.Errorf("%w: the tree of consumers would have %d levels, more than %d", ErrInvalidData, n,
			MaxConsumerLevels)
	}
	return nil
}

// levelOf returns the level of a path; the root's is 1.
func levelOf(path string) int { return strings.Count(path, "/") + 1 }

// requirePermitted returns ErrForeignKey if a permission names a provider or a model that does not exist.
func requirePermitted(ctx context.Context, tx *ent.Client, permissions []Permission) error {
	for _, p := range permissions {
		if err := requireProvider(ctx, tx, p.ProviderID); err != nil {
			return err
		}
		names := slices.DeleteFunc(slices.Clone(p.Models), func(name string) bool {
			return strings.HasSuffix(name, "*")
		})
		for some := range slices.Chunk(names, chunk) {
			known, err := tx.Model.Query().
				Where(model.ProviderID(p.ProviderID), model.ModelIDIn(some...), model.DeletedAtIsNil()).
				Select(model.FieldModelID).Strings(ctx)
			if err != nil {
				return err
			}
			for _, name := range some {
				if !slices.Contains(known, name) {
					return fmt.Errorf("%w: model %q of provider %s: %w", ErrForeignKey, name, p.ProviderID, ErrNotFound)
				}
			}
		}
	}
	return nil
}

// requireExternalID returns ErrConflict if another live consumer has an external id.
func requireExternalID(ctx context.Context, tx *ent.Client, externalID string, id uuid.UUID) error {
	if externalID == "" {
		return nil
	}
	c, err := externalConsumer(ctx, tx, externalID)
	switch {
	case ent.IsNotFound(err):
		return nil
	case err == nil && c.ID != id:
		return fmt.Errorf("%w: another consumer has the external id %q", ErrConflict, externalID)
	}
	return err
}

// GetConsumer returns a consumer. A deleted one is returned too, with its DeletedAt set. It returns [ErrNotFound] if
// there is no such consumer.
func (r *Registry) GetConsumer(ctx context.Context, id uuid.UUID) (*ent.Consumer, error) {
	c, err := r.client.Consumer.Get(ctx, id)
	return tied(r, c), translate(ctx, fmt.Sprintf("get consumer %s", id), err)
}

func liveConsumer(ctx context.Context, client *ent.Client, id uuid.UUID) (*ent.Consumer, error) {
	return client.Consumer.Query().Where(consumer.ID(id), consumer.DeletedAtIsNil()).Only(ctx)
}

func externalConsumer(ctx context.Context, client *ent.Client, externalID string) (*ent.Consumer, error) {
	return client.Consumer.Query().Where(consumer.ExternalID(externalID), consumer.DeletedAtIsNil()).Only(ctx)
}

// FindConsumer returns the live consumer with this external id. It returns [ErrNotFound] if it does not exist.
func (r *Registry) FindConsumer(ctx context.Context, externalID string) (*ent.Consumer, error) {
	op := fmt.Sprintf("find consumer %.*q", rule.MaxName, externalID)
	return found(ctx, r, op, externalID, func(ctx context.Context) (*ent.Consumer, error) {
		return externalConsumer(ctx, r.client, externalID)
	})
}

// ConsumerFilter selects consumers. All conditions must hold; a zero condition is ignored.
type ConsumerFilter struct {
	ParentID uuid.UUID // select those directly below a consumer
	Roots    bool      // select those without a parent
	Subtree  uuid.UUID // select a consumer and all below it
	Kind     string
	Deleted  bool // select deleted consumers instead of live ones

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last consumer of the page before; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl ConsumerFilter) Next(last *ent.Consumer) (ConsumerFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListConsumers returns a page of consumers, each parent before those below it, and siblings in the order in which they
// were created. Moving consumers meanwhile moves them in the list.
//
// It returns [ErrInvalidData] if the limit is out of range or the kind breaks a rule, and [ErrNotFound] if the consumer
// that Subtree or After names does not exist.
func (r *Registry) ListConsumers(ctx context.Context, filter ConsumerFilter) ([]*ent.Consumer, error) {
	const op = "list consumers"
	var f fault.List
	f.Text("kind", filter.Kind, 0, rule.MaxKind)
	l := listing[uuid.UUID]{ascending(consumer.FieldPath, consumer.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	where := matching[predicate.Consumer](filter)
	if filter.Roots {
		where = append(where, consumer.ParentIDIsNil())
	}
	if filter.Subtree != uuid.Nil {
		top, err := c.Consumer.Get(ctx, filter.Subtree)
		if err != nil {
			return nil, translate(ctx, op, err)
		}
		where = append(where, inSubtree(top))
	}
	return list(ctx, r, op, f, l, c.Consumer.Get, c.Consumer.Query().Where(where...))
}

// inSubtree selects a consumer and all below it, and isBelow those without itself: their paths go on with /, and 0 is
// the character after it.
func inSubtree(top *ent.Consumer) predicate.Consumer {
	return consumer.And(consumer.PathGTE(top.Path), consumer.PathLT(top.Path+"0"))
}

func isBelow(top *ent.Consumer) predicate.Consumer {
	return consumer.And(consumer.PathGT(top.Path), consumer.PathLT(top.Path+"0"))
}

// UpdateConsumer changes a live consumer and returns it. Other processes act by it within a second; see
// [Registry.Authenticate].
//
// Errors:
//
//   - [ErrInvalidData]: the update breaks a rule
//   - [ErrForeignKey]: the provider or a model of a permission is unknown
//   - [ErrConflict]: another live consumer has the external id, or one of the same parent the name
//   - [ErrNotFound]: there is no such live consumer
func (r *Registry) UpdateConsumer(ctx context.Context, id uuid.UUID, up ConsumerUpdate) (*ent.Consumer, error) {
	op, f := fmt.Sprintf("update consumer %s", id), judge(draft.Consumer.UpdateOneID(id), up)
	return change(ctx, r.writePolicy, op, f, func(tx *ent.Client) (*ent.Consumer, error) {
		old, err := liveConsumer(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		if err := requirePermitted(ctx, tx, value(up.Permissions)); err != nil {
			return nil, err
		}
		if err := requireExternalID(ctx, tx, value(up.ExternalID), id); err != nil {
			return nil, err
		}
		var above []*ent.Budget // whose subject may be another one by the new kind
		if up.Kind != nil && *up.Kind != old.Kind {
			if above, err = budgetsAbove(ctx, tx, old.Path); err != nil {
				return nil, err
			}
		}
		if err := r.commits.Leave(ctx, tx, timeOf(tx), old.Path, above); err != nil {
			return nil, err
		}
		c, err := save(ctx, tx, switched(old.Disabled, up.Disabled), old, filled(old.Update(), up))
		if err != nil {
			return nil, taken(err, "another consumer of the same parent is called %q", value(up.Name))
		}
		return c, r.commits.Enter(ctx, tx, timeOf(tx), c.Path, above)
	})
}

// switched returns the action of an update that may disable or enable a row.
func switched(disabled bool, up *bool) string {
	switch {
	case up == nil || *up == disabled:
		return ActionUpdate
	case *up:
		return ActionDisable
	}
	return ActionEnable
}
