package registry

import (
	"cmp"
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/modelfamily"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/ent/quotagroup"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// ProviderInput describes a provider to be created.
type ProviderInput struct {
	// Name is a slug of lower-case letters, digits and . _ -, 1 to 128 characters; unique among live providers.
	Name        string
	DisplayName string              // name for people, up to 128 characters. Defaults to Name
	BaseURL     string              // http or https, a host, and optionally a port and a path; empty: unknown
	AuthMethod  provider.AuthMethod // Defaults to provider.AuthMethodBearer
	Description string              // up to 4,096 characters
}

// ProviderUpdate changes the fields of a provider that are not nil, under the rules of [ProviderInput].
type ProviderUpdate struct {
	Name        *string
	DisplayName *string
	BaseURL     *string
	AuthMethod  *provider.AuthMethod
	Description *string
}

func (in ProviderInput) withDefaults() ProviderInput {
	in.DisplayName = cmp.Or(in.DisplayName, in.Name)
	in.AuthMethod = cmp.Or(in.AuthMethod, provider.DefaultAuthMethod)
	return in
}

// CreateProvider creates a provider and returns it. It returns [ErrInvalidData] if the input breaks a rule, and
// [ErrConflict] if a live provider has the name.
func (r *Registry) CreateProvider(ctx context.Context, in ProviderInput) (*ent.Provider, error) {
	in = in.withDefaults()
	op, f := named("create provider", in.Name, rule.MaxName), judge(draft.Provider.Create(), in)
	return change(ctx, r.writeAlone, op, f, func(tx *ent.Client) (*ent.Provider, error) {
		return save(ctx, tx, ActionCreate, nil, filled(tx.Provider.Create(), in))
	})
}

// GetProvider returns a provider. A deleted provider is returned too, with its DeletedAt set. It returns [ErrNotFound]
// if there is no such provider.
func (r *Registry) GetProvider(ctx context.Context, id uuid.UUID) (*ent.Provider, error) {
	p, err := r.client.Provider.Get(ctx, id)
	return tied(r, p), translate(ctx, fmt.Sprintf("get provider %s", id), err)
}

func liveProvider(ctx context.Context, client *ent.Client, id uuid.UUID) (*ent.Provider, error) {
	return client.Provider.Query().Where(provider.ID(id), provider.DeletedAtIsNil()).Only(ctx)
}

// FindProvider returns the live provider with this name. It returns [ErrNotFound] if it does not exist.
func (r *Registry) FindProvider(ctx context.Context, name string) (*ent.Provider, error) {
	op := fmt.Sprintf("find provider %.*q", rule.MaxName, name)
	return found(ctx, r, op, name,
		r.client.Provider.Query().Where(provider.Name(name), provider.DeletedAtIsNil()).Only)
}

// ProviderFilter selects providers.
type ProviderFilter struct {
	Deleted bool // select deleted providers instead of live ones

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last provider of the page before; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl ProviderFilter) Next(last *ent.Provider) (ProviderFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListProviders returns a page of providers, by name. It returns [ErrInvalidData] if the limit is out of range, and
// [ErrNotFound] if the provider that After names was purged.
func (r *Registry) ListProviders(ctx context.Context, filter ProviderFilter) ([]*ent.Provider, error) {
	l := listing[uuid.UUID]{ascending(provider.FieldName, provider.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	return list(ctx, r, "list providers", nil, l, c.Provider.Get,
		c.Provider.Query().Where(matching[predicate.Provider](filter)...))
}

// UpdateProvider changes a live provider and returns it.
//
// Errors:
//
//   - [ErrInvalidData]: the update breaks a rule
//   - [ErrConflict]: another live provider has the new name
//   - [ErrNotFound]: there is no such live provider
func (r *Registry) UpdateProvider(ctx context.Context, id uuid.UUID, up ProviderUpdate) (*ent.Provider, error) {
	f := judge(draft.Provider.UpdateOneID(id), up)
	f.Check(up.DisplayName == nil || *up.DisplayName != "", "display_name is empty")
	op := fmt.Sprintf("update provider %s", id)
	return change(ctx, r.writeAlone, op, f, func(tx *ent.Client) (*ent.Provider, error) {
		old, err := liveProvider(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		p, err := save(ctx, tx, ActionUpdate, old, filled(old.Update(), up))
		return p, taken(err, "another provider is called %q", value(up.Name))
	})
}

// DeleteProvider deletes a live provider together with its models and keys. They disappear from lists, and their names
// can be used again; the ledger keeps pointing at them. [Registry.UndeleteProvider] brings back everything that was
// deleted at this instant.
//
// It is one transaction, in which others wait to write: about 0.7 s for a provider with 5,000 models. It returns
// [ErrNotFound] if there is no such live provider.
func (r *Registry) DeleteProvider(ctx context.Context, id uuid.UUID) error {
	return r.writeAlone(ctx, fmt.Sprintf("delete provider %s", id), nil, func(tx *ent.Client) error {
		if err := r.holdPools(ctx, tx, commit.PoolOf, id); err != nil {
			return err
		}
		p, err := liveProvider(ctx, tx, id)
		if err != nil {
			return err
		}
		now := timeOf(tx)
		if _, err := save(ctx, tx, ActionDelete, p, p.Update().SetDeletedAt(now)); err != nil {
			return err
		}
		ofModels := model.And(model.ProviderID(id), model.DeletedAtIsNil())
		models, err := tx.Model.Query().Where(ofModels).Order(model.ByID()).All(ctx)
		if err != nil {
			return err
		}
		noteRows(tx, ActionDelete, models, func(m *ent.Model) { m.DeletedAt, m.UpdatedAt = &now, now })
		if err := tx.Model.Update().Where(ofModels).SetDeletedAt(now).Exec(ctx); err != nil {
			return err
		}
		ofKeys := apikey.And(apikey.ProviderID(id), apikey.DeletedAtIsNil())
		keys, err := tx.APIKey.Query().Where(ofKeys).Order(apikey.ByID()).All(ctx)
		if err != nil {
			return err
		}
		noteRows(tx, ActionDelete, keys, func(k *ent.APIKey) { k.DeletedAt, k.UpdatedAt = &now, now })
		return tx.APIKey.Update().Where(ofKeys).SetDeletedAt(now).Exec(ctx)
	})
}

// PurgeProvider removes a provider, live or deleted, from the database for good, with its families, models, prices,
// keys, quota groups and SDK versions. Its discovery logs stay, without their provider.
//
// It is one transaction, because usage of any model keeps the whole provider; others wait to write, about 0.7 s for a
// provider with 5,000 models. It returns [ErrNotFound] if there is no such provider, and [ErrForeignKey], changing
// nothing, if usage was ever recorded for it.
func (r *Registry) PurgeProvider(ctx context.Context, id uuid.UUID) error {
	return r.writeAlone(ctx, fmt.Sprintf("purge provider %s", id), nil, func(tx *ent.Client) error {
		if err := r.holdPools(ctx, tx, commit.PoolOf, id); err != nil {
			return err
		}
		p, err := tx.Provider.Get(ctx, id)
		if err != nil {
			return err
		}
		noteRow(tx, ActionPurge, p, nil)
		ofProvider := price.HasModelWith(model.ProviderID(id))
		err = cmp.Or(
			notePurged(ctx, tx, tx.ModelFamily.Query().Where(modelfamily.ProviderID(id)).Order(modelfamily.ByID())),
			notePurged(ctx, tx, tx.Model.Query().Where(model.ProviderID(id)).Order(model.ByID())),
			notePurged(ctx, tx, tx.Price.Query().Where(ofProvider).Order(price.ByID())),
			notePurged(ctx, tx, tx.APIKey.Query().Where(apikey.ProviderID(id)).Order(apikey.ByID())),
			notePurged(ctx, tx, tx.QuotaGroup.Query().Where(quotagroup.ProviderID(id)).Order(quotagroup.ByID())),
		)
		if err != nil {
			return err
		}
		return tx.Provider.DeleteOne(p).Exec(ctx)
	})
}
