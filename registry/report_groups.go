package registry

import (
	"context"
	"slices"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
)

// reportModels returns the group of each model, by the model's id as text. It sets only the ids that the report is
// grouped by.
func reportModels(ctx context.Context, client *ent.Client, in ReportInput) (map[string]group, error) {
	query := client.Model.Query().Where(wanted([]condition[predicate.Model]{
		{in.ProviderID != uuid.Nil, model.ProviderID(in.ProviderID)},
		{in.FamilyID != uuid.Nil, model.FamilyID(in.FamilyID)},
		{in.ModelID != uuid.Nil, model.ID(in.ModelID)},
		{in.APIKeyID != uuid.Nil, ofKey(in.APIKeyID)},
	})...)
	all, err := query.Select(model.FieldID, model.FieldProviderID, model.FieldFamilyID).All(ctx)
	groups := make(map[string]group, len(all))
	for _, m := range all {
		var g group // add sets the key: a model has many
		if slices.Contains(in.By, ByProvider) {
			g.provider = m.ProviderID
		}
		if slices.Contains(in.By, ByFamily) {
			g.family = value(m.FamilyID)
		}
		if slices.Contains(in.By, ByModel) {
			g.model = m.ID
		}
		groups[m.ID.String()] = g
	}
	return groups, err
}

// ofKey selects the models of a key's provider.
func ofKey(id uuid.UUID) predicate.Model {
	return func(s *sql.Selector) {
		keys := sql.Table(apikey.Table)
		s.Where(sql.In(
			s.C(model.FieldProviderID),
			sql.Select(keys.C(apikey.FieldProviderID)).From(keys).Where(sql.EQ(keys.C(apikey.FieldID), id)),
		))
	}
}

// group has the ids that a row is grouped by.
type group struct{ provider, family, model, key uuid.UUID }
