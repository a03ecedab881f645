package registry

import (
	"cmp"
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/modelfamily"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
)

// ReportNames are the current names for the ids of a row. They are empty where the id is zero. A deleted row keeps its
// name, which a live row may have taken since; the ids tell them apart.
type ReportNames struct {
	Provider  string // its name, not the display name
	Family    string
	Model     string // the provider's name for it, model_id
	KeyLabel  string // empty for a key without a label
	KeyPrefix string
}

// namesAtOnce is the most names that one statement reads.
const namesAtOnce = 1000

// nameRows sets the names of rows.
func (r *Registry) nameRows(ctx context.Context, rows []ReportRow) error {
	names := map[uuid.UUID]ReportNames{}
	err := cmp.Or(
		readNamesOf(ctx, rows, func(row *ReportRow) uuid.UUID { return row.ProviderID }, r.nameProviders, names),
		readNamesOf(ctx, rows, func(row *ReportRow) uuid.UUID { return row.FamilyID }, r.nameFamilies, names),
		readNamesOf(ctx, rows, func(row *ReportRow) uuid.UUID { return row.ModelID }, r.nameModels, names),
		readNamesOf(ctx, rows, func(row *ReportRow) uuid.UUID { return row.APIKeyID }, r.nameKeys, names),
	)
	if err != nil {
		return err
	}
	for i := range rows {
		row := &rows[i]
		key := names[row.APIKeyID]
		row.ReportNames = ReportNames{
			Provider: names[row.ProviderID].Provider, Family: names[row.FamilyID].Family,
			Model:    names[row.ModelID].Model,
			KeyLabel: key.KeyLabel, KeyPrefix: key.KeyPrefix,
		}
	}
	return nil
}

// nameDifferences adds the names of the models and keys that differences are at.
func (r *Registry) nameDifferences(ctx context.Context, all []Difference) error {
	names := map[uuid.UUID]ReportNames{}
	err := cmp.Or(
		readNamesOf(ctx, all, func(d *Difference) uuid.UUID { return d.ModelID }, r.nameModels, names),
		readNamesOf(ctx, all, func(d *Difference) uuid.UUID { return d.APIKeyID }, r.nameKeys, names),
	)
	for i := range all {
		d := &all[i]
		key := names[d.APIKeyID]
		d.Model, d.KeyLabel, d.KeyPrefix = names[d.ModelID].Model, key.KeyLabel, key.KeyPrefix
	}
	return err
}

// readNamesOf reads the names for an id of each row, once per id.
func readNamesOf[Row any](
	ctx context.Context, rows []Row, id func(*Row) uuid.UUID,
	read func(context.Context, []uuid.UUID, map[uuid.UUID]ReportNames) error, names map[uuid.UUID]ReportNames,
) error {
	var ids []uuid.UUID
	for i := range rows {
		id := id(&rows[i])
		if _, ok := names[id]; !ok && id != uuid.Nil {
			names[id] = ReportNames{}
			ids = append(ids, id)
		}
	}
	for some := range slices.Chunk(ids, namesAtOnce) {
		if err := read(ctx, some, names); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) nameProviders(ctx context.Context, ids []uuid.UUID, names map[uuid.UUID]ReportNames) error {
	all, err := r.client.Provider.Query().Where(provider.IDIn(ids...)).Select(provider.FieldName).All(ctx)
	for _, p := range all {
		names[p.ID] = ReportNames{Provider: p.Name}
	}
	return err
}

func (r *Registry) nameFamilies(ctx context.Context, ids []uuid.UUID, names map[uuid.UUID]ReportNames) error {
	all, err := r.client.ModelFamily.Query().Where(modelfamily.IDIn(ids...)).Select(modelfamily.FieldName).All(ctx)
	for _, f := range all {
		names[f.ID] = ReportNames{Family: f.Name}
	}
	return err
}

func (r *Registry) nameModels(ctx context.Context, ids []uuid.UUID, names map[uuid.UUID]ReportNames) error {
	all, err := r.client.Model.Query().Where(model.IDIn(ids...)).Select(model.FieldModelID).All(ctx)
	for _, m := range all {
		names[m.ID] = ReportNames{Model: m.ModelID}
	}
	return err
}

func (r *Registry) nameKeys(ctx context.Context, ids []uuid.UUID, names map[uuid.UUID]ReportNames) error {
	all, err := r.client.APIKey.Query().Where(apikey.IDIn(ids...)).
		Select(apikey.FieldLabel, apikey.FieldKeyPrefix).All(ctx)
	for _, k := range all {
		names[k.ID] = ReportNames{KeyLabel: k.Label, KeyPrefix: k.KeyPrefix}
	}
	return err
}
