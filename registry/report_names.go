package registry

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/modelfamily"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
)

// ReportNames are the current names for the ids of a row. They are empty where the id is zero. A deleted row keeps its
// name, which a live row may have taken since; the ids tell them apart.
type ReportNames struct {
	Provider  string // its name, not the display name
	Family    string
	Model     string // the provider's name for it, model_id
	Consumer  string
	KeyLabel  string // empty for a key without a label
	KeyPrefix string
}

// namesAtOnce is the most names that one statement reads.
const namesAtOnce = 1000

// nameColumns are the two columns of a table that name its rows.
var nameColumns = map[string]string{
	provider.Table: "name, ''", modelfamily.Table: "name, ''", model.Table: "model_id, ''",
	apikey.Table: "label, key_prefix", consumer.Table: "name, ''",
}

// nameRows sets the names of rows.
func (r *Registry) nameRows(ctx context.Context, rows []ReportRow) error {
	return cmp.Or(
		nameBy(ctx, r, provider.Table, rows,
			func(w *ReportRow) naming { return naming{w.ProviderID, &w.Provider, nil} }),
		nameBy(ctx, r, modelfamily.Table, rows,
			func(w *ReportRow) naming { return naming{w.FamilyID, &w.Family, nil} }),
		nameBy(ctx, r, model.Table, rows, func(w *ReportRow) naming { return naming{w.ModelID, &w.Model, nil} }),
		nameBy(ctx, r, apikey.Table, rows, func(w *ReportRow) naming {
			return naming{w.APIKeyID, &w.KeyLabel, &w.KeyPrefix}
		}),
		nameBy(ctx, r, consumer.Table, rows,
			func(w *ReportRow) naming { return naming{w.ConsumerID, &w.Consumer, nil} }),
	)
}

// nameDifferences adds the names of the models and keys that differences are at.
func (r *Registry) nameDifferences(ctx context.Context, all []Difference) error {
	return cmp.Or(
		nameBy(ctx, r, model.Table, all, func(d *Difference) naming { return naming{d.ModelID, &d.Model, nil} }),
		nameBy(ctx, r, apikey.Table, all, func(d *Difference) naming {
			return naming{d.APIKeyID, &d.KeyLabel, &d.KeyPrefix}
		}),
	)
}

// naming says where the names for an id go.
type naming struct {
	id           uuid.UUID // zero: the row has no such id
	name, second *string   // the second one may be nil
}

// nameBy reads the names of rows of a table, once for each id, and writes them where of says.
func nameBy[Row any](ctx context.Context, r *Registry, table string, rows []Row, of func(*Row) naming) error {
	names := map[uuid.UUID][2]string{}
	for i := range rows {
		names[of(&rows[i]).id] = [2]string{}
	}
	delete(names, uuid.Nil)
	for ids := range slices.Chunk(slices.Collect(maps.Keys(names)), namesAtOnce) {
		list, args := bulk.In(ids)
		query := "SELECT id, " + nameColumns[table] + " FROM " + table + " WHERE id IN " + list
		err := bulk.Scan(ctx, r.client, query, args, func(scan func(...any) error) error {
			var id uuid.UUID
			var name [2]string
			err := scan(&id, &name[0], &name[1])
			names[id] = name
			return err
		})
		if err != nil {
			return err
		}
	}
	for i := range rows {
		to := of(&rows[i])
		*to.name = names[to.id][0]
		if to.second != nil {
			*to.second = names[to.id][1]
		}
	}
	return nil
}

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
