package registry

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/ent/quotagroup"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// QuotaGroupInput describes a quota group: an account at a provider, whose keys share its limits.
type QuotaGroupInput struct {
	ProviderID uuid.UUID // a live provider
	Name       string    // name for people, up to 128 characters; unique within the provider
	Limits     Limits    // for all its keys together
}

// QuotaGroupUpdate changes the fields of a quota group that are not nil.
type QuotaGroupUpdate struct {
	Name   *string
	Limits *Limits // replaces all limits
}

// CreateQuotaGroup creates a quota group and returns it. Keys join it through [KeyInput] or [KeyUpdate]. AcquireKey
// keeps to its limits and to those of each key.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule
//   - [ErrForeignKey]: the provider is unknown
//   - [ErrConflict]: the provider has a quota group of this name
func (r *Registry) CreateQuotaGroup(ctx context.Context, in QuotaGroupInput) (*ent.QuotaGroup, error) {
	op, f := named("create quota group", in.Name, rule.MaxName), judge(draft.QuotaGroup.Create(), in)
	return change(ctx, r.writeAlone, op, f, func(tx *ent.Client) (*ent.QuotaGroup, error) {
		if err := requireProvider(ctx, tx, in.ProviderID); err != nil {
			return nil, err
		}
		return save(ctx, tx, ActionCreate, nil, filled(tx.QuotaGroup.Create(), in).SetLastReset(timeOf(tx)))
	})
}

// GetQuotaGroup returns a quota group, also of a deleted provider. Its counters are those of its last windows, which
// may be over. It returns [ErrNotFound] if there is no such group.
func (r *Registry) GetQuotaGroup(ctx context.Context, id uuid.UUID) (*ent.QuotaGroup, error) {
	group, err := r.client.QuotaGroup.Get(ctx, id)
	return tied(r, group), translate(ctx, fmt.Sprintf("get quota group %s", id), err)
}

// FindQuotaGroup returns the quota group with this name of a live provider. It returns [ErrNotFound] if it does not
// exist.
func (r *Registry) FindQuotaGroup(ctx context.Context, providerID uuid.UUID, name string) (*ent.QuotaGroup, error) {
	op := fmt.Sprintf("find quota group %.*q of provider %s", rule.MaxName, name, providerID)
	return found(ctx, r, op, name, r.client.QuotaGroup.Query().
		Where(quotagroup.ProviderID(providerID), quotagroup.Name(name), groupIsShown).Only)
}

// groupIsShown selects groups of live providers.
var groupIsShown = quotagroup.HasProviderWith(provider.DeletedAtIsNil())

// QuotaGroupFilter selects quota groups of live providers.
type QuotaGroupFilter struct {
	ProviderID uuid.UUID // zero: all providers

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last group of the page before; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl QuotaGroupFilter) Next(last *ent.QuotaGroup) (QuotaGroupFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListQuotaGroups returns a page of quota groups, by name. Their counters are those of their last windows, which may be
// over. It returns [ErrInvalidData] if the limit is out of range, and [ErrNotFound] if the group that After names was
// deleted.
func (r *Registry) ListQuotaGroups(ctx context.Context, filter QuotaGroupFilter) ([]*ent.QuotaGroup, error) {
	l := listing[uuid.UUID]{ascending(quotagroup.FieldName, quotagroup.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	return list(ctx, r, "list quota groups", nil, l, c.QuotaGroup.Get,
		c.QuotaGroup.Query().Where(groupIsShown).Where(matching[predicate.QuotaGroup](filter)...))
}

// UpdateQuotaGroup changes a quota group of a live provider and returns it.
//
// Errors:
//
//   - [ErrInvalidData]: the update breaks a rule
//   - [ErrConflict]: another group of the provider has the new name
//   - [ErrNotFound]: there is no such group
func (r *Registry) UpdateQuotaGroup(ctx context.Context, id uuid.UUID, up QuotaGroupUpdate) (*ent.QuotaGroup, error) {
	op, f := fmt.Sprintf("update quota group %s", id), judge(draft.QuotaGroup.UpdateOneID(id), up)
	return change(ctx, r.write, op, f, func(tx *ent.Client) (*ent.QuotaGroup, error) {
		old, err := r.lockedGroup(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		group, err := save(ctx, tx, ActionUpdate, old, filled(old.Update(), up))
		return group, taken(err, "another quota group of the provider is called %q", value(up.Name))
	})
}

// DeleteQuotaGroup removes a quota group of a live provider for good; the ledger does not point at groups. It returns
// [ErrNotFound] if there is no such group, and [ErrForeignKey], changing nothing, if live keys are in it.
func (r *Registry) DeleteQuotaGroup(ctx context.Context, id uuid.UUID) error {
	return r.writeAlone(ctx, fmt.Sprintf("delete quota group %s", id), nil, func(tx *ent.Client) error {
		old, err := r.lockedGroup(ctx, tx, id)
		if err != nil {
			return err
		}
		live, err := tx.APIKey.Query().Where(apikey.QuotaGroupID(id), apikey.DeletedAtIsNil()).Count(ctx)
		if err != nil {
			return err
		}
		if live > 0 {
			return fmt.Errorf("%w: %d live keys are in the group", ErrForeignKey, live)
		}
		noteRow(tx, ActionDelete, old, nil)
		return tx.QuotaGroup.DeleteOne(old).Exec(ctx)
	})
}

// lockedGroup returns a quota group that nobody else changes until the transaction ends.
func (r *Registry) lockedGroup(ctx context.Context, tx *ent.Client, id uuid.UUID) (*ent.QuotaGroup, error) {
	if err := r.holdPools(ctx, tx, commit.PoolOfGroup, id); err != nil {
		return nil, err
	}
	return tx.QuotaGroup.Query().Where(quotagroup.ID(id), groupIsShown).Only(ctx)
}

// requireGroup returns an error if a key of a provider cannot be in a group.
func requireGroup(ctx context.Context, tx *ent.Client, providerID, id uuid.UUID) error {
	group, err := tx.QuotaGroup.Get(ctx, id)
	switch {
	case ent.IsNotFound(err):
		return fault.Missing("quota group", id)
	case err != nil:
		return err
	case group.ProviderID != providerID:
		return fmt.Errorf("%w: the quota group belongs to another provider", ErrInvalidData)
	}
	return nil
}
