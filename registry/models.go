package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/modelfamily"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// ModelInput describes a model to be created.
type ModelInput struct {
	ProviderID  uuid.UUID // a live provider
	FamilyID    uuid.UUID // a family of the provider; zero: no family
	ModelID     string    // the provider's name for it, 1 to 256 characters; unique among the provider's live models
	Name        string    // name for people, up to 128 characters. Defaults to ModelID
	Description string    // up to 4,096 characters

	// Rates are the standard rates, USD per one million tokens by meter name, none negative. They hold for all times
	// until the first UpdateModelPricing. A free model has rates of 0. Nil: unknown; usage is counted without a cost.
	Rates       money.Rates
	PriceSource string // where the rates come from, up to 128 characters; empty: set by hand

	ContextWindow   int64 // tokens; 0: unknown
	MaxOutputTokens int64 // tokens; 0: unknown

	SupportsImages           bool
	SupportsAudio            bool
	SupportsTools            bool
	SupportsStructuredOutput bool
	CanReason                bool
	CanStream                bool
}

// ModelUpdate changes the fields of a model that are not nil, under the rules of [ModelInput]. UpdateModelPricing
// changes prices.
type ModelUpdate struct {
	FamilyID    *uuid.UUID // zero: no family
	Deprecated  *bool      // true: deprecated from now on; false: not deprecated any more
	Name        *string
	Description *string

	ContextWindow   *int64
	MaxOutputTokens *int64

	SupportsImages           *bool
	SupportsAudio            *bool
	SupportsTools            *bool
	SupportsStructuredOutput *bool
	CanReason                *bool
	CanStream                *bool
}

func (in ModelInput) withDefaults() ModelInput {
	in.Name = cmp.Or(in.Name, fault.Cut(in.ModelID, rule.MaxName))
	return in
}

func (in ModelInput) faults() fault.List {
	f := judge(draft.Model.Create(), in)
	checkRates(&f, in.Rates)
	f.Text("price source", in.PriceSource, 0, rule.MaxName)
	return f
}

// CreateModel creates a model with its first price and returns it.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule, or the family belongs to another provider
//   - [ErrForeignKey]: the provider or the family is unknown
//   - [ErrConflict]: the provider has a live model of this name
func (r *Registry) CreateModel(ctx context.Context, in ModelInput) (*ent.Model, error) {
	models, err := r.CreateModels(ctx, []ModelInput{in})
	if err != nil {
		return nil, err
	}
	return models[0], nil
}

// CreateModels creates models, all or none, and returns them in the order of the inputs. On SQLite others wait to write
// meanwhile, about 0.3 ms for each model; [Registry.ImportCatalog] does not keep them waiting as long.
//
// Its errors are those of [Registry.CreateModel]. [ErrInvalidData] names the faults of all inputs.
func (r *Registry) CreateModels(ctx context.Context, inputs []ModelInput) (models []*ent.Model, err error) {
	var f fault.List
	complete := make([]ModelInput, len(inputs))
	for i, in := range inputs {
		complete[i] = in.withDefaults()
		prefix := ""
		if len(inputs) > 1 {
			prefix = fmt.Sprintf("model %d: ", i)
		}
		f.In(prefix, complete[i].faults())
	}
	op := fmt.Sprintf("create %d models", len(inputs))
	if len(inputs) == 1 {
		op = named("create model", inputs[0].ModelID, rule.MaxModelID)
	}
	err = r.writeAlone(ctx, op, f, func(tx *ent.Client) error {
		if err := checkOwners(ctx, tx, complete); err != nil {
			return err
		}
		models, err = insertModels(ctx, tx, complete)
		return err
	})
	if err != nil {
		return nil, r.nameTaken(ctx, err, complete)
	}
	for _, m := range models {
		m.Unwrap()
	}
	return models, nil
}

// checkOwners returns an error unless each provider and family exists, and each family belongs to its provider.
func checkOwners(ctx context.Context, tx *ent.Client, inputs []ModelInput) error {
	providers, families := map[uuid.UUID]bool{}, map[uuid.UUID]uuid.UUID{}
	for _, in := range inputs {
		providers[in.ProviderID] = false
		if in.FamilyID != uuid.Nil {
			families[in.FamilyID] = uuid.Nil
		}
	}
	for ids := range slices.Chunk(slices.Collect(maps.Keys(providers)), chunk) {
		live, err := tx.Provider.Query().Where(provider.IDIn(ids...), provider.DeletedAtIsNil()).IDs(ctx)
		if err != nil {
			return err
		}
		for _, id := range live {
			providers[id] = true
		}
	}
	for ids := range slices.Chunk(slices.Collect(maps.Keys(families)), chunk) {
		found, err := tx.ModelFamily.Query().Where(modelfamily.IDIn(ids...)).All(ctx)
		if err != nil {
			return err
		}
		for _, family := range found {
			families[family.ID] = family.ProviderID
		}
	}
	for _, in := range inputs {
		if !providers[in.ProviderID] {
			return fault.Missing("provider", in.ProviderID)
		}
		if err := checkFamily(in.FamilyID, families[in.FamilyID], in.ProviderID); err != nil {
			return err
		}
	}
	return nil
}

// checkFamily returns an error unless a model of a provider can be in a family. Owner is the family's provider, or zero
// if the family does not exist.
func checkFamily(family, owner, providerID uuid.UUID) error {
	switch {
	case family == uuid.Nil || owner == providerID:
		return nil
	case owner == uuid.Nil:
		return fault.Missing("family", family)
	default:
		return fmt.Errorf("%w: family %s belongs to another provider", ErrInvalidData, family)
	}
}

// insertModels creates models with their first prices.
func insertModels(ctx context.Context, tx *ent.Client, inputs []ModelInput) ([]*ent.Model, error) {
	models := make([]*ent.Model, 0, len(inputs))
	for some := range slices.Chunk(inputs, chunk) {
		rows := make([]*ent.ModelCreate, len(some))
		for i, in := range some {
			rows[i] = filled(tx.Model.Create(), in).
				SetNillableCostPer1mInput(rate(in.Rates, meter.Input)).
				SetNillableCostPer1mOutput(rate(in.Rates, meter.Output))
		}
		created, err := tx.Model.CreateBulk(rows...).Save(ctx)
		if err != nil {
			return nil, err
		}
		prices := make([]*ent.PriceCreate, len(some))
		for i, in := range some {
			prices[i] = newPrice(tx, created[i].ID, PriceInput{Rates: in.Rates, Source: in.PriceSource}.withDefaults()).
				SetEffectiveFrom(utc.Beginning).SetRecordedAt(timeOf(tx))
		}
		priced, err := tx.Price.CreateBulk(prices...).Save(ctx)
		if err != nil {
			return nil, err
		}
		for i, m := range created {
			noteRow(tx, ActionCreate, nil, m)
			noteRow(tx, ActionCreate, nil, priced[i])
		}
		models = append(models, created...)
	}
	return models, nil
}

// GetModel returns a model. A deleted model is returned too, with its DeletedAt set. It returns [ErrNotFound] if there
// is no such model.
func (r *Registry) GetModel(ctx context.Context, id uuid.UUID) (*ent.Model, error) {
	m, err := r.client.Model.Get(ctx, id)
	return tied(r, m), translate(ctx, fmt.Sprintf("get model %s", id), err)
}

func liveModel(ctx context.Context, client *ent.Client, id uuid.UUID) (*ent.Model, error) {
	return client.Model.Query().Where(model.ID(id), model.DeletedAtIsNil()).Only(ctx)
}

// FindModel returns the live model that a provider calls modelID. It returns [ErrNotFound] if it does not exist.
func (r *Registry) FindModel(ctx context.Context, providerID uuid.UUID, modelID string) (*ent.Model, error) {
	op := fmt.Sprintf("find model %.*q of provider %s", rule.MaxModelID, modelID, providerID)
	return found(ctx, r, op, modelID, r.client.Model.Query().
		Where(model.ProviderID(providerID), model.ModelID(modelID), model.DeletedAtIsNil()).Only)
}

// UpdateModel changes a live model and returns it.
//
// Errors:
//
//   - [ErrInvalidData]: the update breaks a rule, or the family belongs to another provider
//   - [ErrForeignKey]: the family is unknown
//   - [ErrNotFound]: there is no such live model
func (r *Registry) UpdateModel(ctx context.Context, id uuid.UUID, up ModelUpdate) (*ent.Model, error) {
	f := judge(draft.Model.UpdateOneID(id), up)
	f.Check(up.Name == nil || *up.Name != "", "name is empty")
	op := fmt.Sprintf("update model %s", id)
	return change(ctx, r.writeAlone, op, f, func(tx *ent.Client) (*ent.Model, error) {
		old, err := liveModel(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		if up.FamilyID != nil {
			in := ModelInput{ProviderID: old.ProviderID, FamilyID: *up.FamilyID}
			if err := checkOwners(ctx, tx, []ModelInput{in}); err != nil {
				return nil, err
			}
		}
		update := filled(old.Update(), up)
		if up.Deprecated != nil {
			if *up.Deprecated {
				update.SetDeprecatedAt(timeOf(tx))
			} else {
				update.ClearDeprecatedAt()
			}
		}
		return save(ctx, tx, ActionUpdate, old, update)
	})
}

// DeprecateModel marks a live model as deprecated from a time on; a zero time means now. Lists leave the model out from
// this call on, even if the time is in the future, unless their filter asks for deprecated models. UpdateModel takes
// the deprecation back.
//
// It returns [ErrInvalidData] if the time is outside of the years 1970 to 9999, and [ErrNotFound] if there is no such
// live model.
func (r *Registry) DeprecateModel(ctx context.Context, id uuid.UUID, at time.Time) error {
	var f fault.List
	if !at.IsZero() {
		f.Time("at", at)
	}
	return r.writeAlone(ctx, fmt.Sprintf("deprecate model %s", id), f, func(tx *ent.Client) error {
		old, err := liveModel(ctx, tx, id)
		if err != nil {
			return err
		}
		from := at
		if at.IsZero() {
			from = timeOf(tx)
		}
		_, err = save(ctx, tx, ActionUpdate, old, old.Update().SetDeprecated(true).SetDeprecatedAt(from))
		return err
	})
}

// DeleteModel deletes a live model. It disappears from lists, and its name can be used again; the ledger keeps pointing
// at it. [Registry.UndeleteModel] takes the deletion back. It returns [ErrNotFound] if there is no such live model.
func (r *Registry) DeleteModel(ctx context.Context, id uuid.UUID) error {
	return r.writeAlone(ctx, fmt.Sprintf("delete model %s", id), nil, func(tx *ent.Client) error {
		old, err := liveModel(ctx, tx, id)
		if err != nil {
			return err
		}
		_, err = save(ctx, tx, ActionDelete, old, old.Update().SetDeletedAt(timeOf(tx)))
		return err
	})
}

// PurgeModel removes a model, live or deleted, and its prices from the database for good. It returns [ErrNotFound] if
// there is no such model, and [ErrForeignKey], changing nothing, if usage was ever recorded for it.
func (r *Registry) PurgeModel(ctx context.Context, id uuid.UUID) error {
	return r.writeAlone(ctx, fmt.Sprintf("purge model %s", id), nil, func(tx *ent.Client) error {
		if err := r.holdPools(ctx, tx, commit.PoolOfModel, id); err != nil {
			return err
		}
		m, err := tx.Model.Get(ctx, id)
		if err != nil {
			return err
		}
		noteRow(tx, ActionPurge, m, nil)
		if err := notePurged(ctx, tx, tx.Price.Query().Where(price.ModelID(id)).Order(price.ByID())); err != nil {
			return err
		}
		return tx.Model.DeleteOne(m).Exec(ctx)
	})
}
