package registry

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/modelfamily"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
)

// FamilyInput describes a family of models to be created.
type FamilyInput struct {
	ProviderID  uuid.UUID // a live provider
	Name        string    // such as claude-3, 1 to 128 characters; unique in its provider
	Description string    // up to 4,096 characters
}

func (in FamilyInput) faults() faults {
	var f faults
	f.text("name", in.Name, 1, maxName)
	f.prose("description", in.Description, maxDescription)
	return f
}

// CreateFamily creates a family of models. It returns [ErrInvalidData], [ErrForeignKey] for an
// unknown provider, or [ErrConflict] when the provider has a family of the name.
func (r *Registry) CreateFamily(ctx context.Context, in FamilyInput) (family *ent.ModelFamily, err error) {
	f := in.faults()
	if err := f.err(); err != nil {
		return nil, translate(ctx, "create family", err)
	}
	err = r.writeAlone(ctx, fmt.Sprintf("create family %q", in.Name), func(tx *ent.Client) error {
		if err := requireProvider(ctx, tx, in.ProviderID); err != nil {
			return err
		}
		now := r.now()
		family, err = tx.ModelFamily.Create().
			SetProviderID(in.ProviderID).SetName(in.Name).SetDescription(in.Description).
			SetCreatedAt(now).SetUpdatedAt(now).Save(ctx)
		if err != nil {
			return err
		}
		return r.audit(ctx, tx, now, auditFamily(ActionCreate, nil, family))
	})
	if err != nil {
		return nil, err
	}
	return family.Unwrap(), nil
}

// requireProvider returns ErrForeignKey unless id is a live provider.
func requireProvider(ctx context.Context, client *ent.Client, id uuid.UUID) error {
	_, err := liveProvider(ctx, client, id)
	if ent.IsNotFound(err) {
		return missing("provider", id)
	}
	return err
}

// ListFamilies returns the families of a live provider by name. Another provider has none.
func (r *Registry) ListFamilies(ctx context.Context, providerID uuid.UUID) ([]*ent.ModelFamily, error) {
	all, err := r.client.ModelFamily.Query().
		Where(modelfamily.ProviderID(providerID), modelfamily.HasProviderWith(provider.DeletedAtIsNil())).
		Order(modelfamily.ByName()).All(ctx)
	return allTied(r, all), translate(ctx, "list families", err)
}
