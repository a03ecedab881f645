package registry_test

import (
	"context"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// catalogueOperations are those of providers, families, models and prices.
var catalogueOperations = map[string]func(inputs) op{
	"CreateProvider": func(in inputs) op {
		return op1((*reg).CreateProvider, (*world).createProvider, in.newProvider())
	},
	"GetProvider":  func(in inputs) op { return op1((*reg).GetProvider, (*world).getProvider, in.provider()) },
	"FindProvider": func(in inputs) op { return op1((*reg).FindProvider, (*world).findProvider, in.lookup()) },
	"ListProviders": func(inputs) op {
		return op0(func(r *reg, ctx context.Context) ([]*ent.Provider, error) {
			return r.ListProviders(ctx, registry.ProviderFilter{Limit: registry.MaxLimit})
		}, (*world).listProviders)
	},
	"UpdateProvider": func(in inputs) op {
		p := in.newProvider()
		return op2((*reg).UpdateProvider, (*world).updateProvider, in.provider(), registry.ProviderUpdate{
			Name: maybe(in, "name", p.Name), DisplayName: maybe(in, "display name", p.DisplayName),
			BaseURL: maybe(in, "URL", p.BaseURL), AuthMethod: maybe(in, "auth", p.AuthMethod),
			Description: maybe(in, "description", p.Description),
		})
	},
	"DeleteProvider": func(in inputs) op { return do1((*reg).DeleteProvider, (*world).deleteProvider, in.provider()) },
	"UndeleteProvider": func(in inputs) op {
		return op1((*reg).UndeleteProvider, (*world).undeleteProvider, in.provider())
	},
	"PurgeProvider": func(in inputs) op { return do1((*reg).PurgeProvider, (*world).purgeProvider, in.provider()) },
	"CreateFamily": func(in inputs) op {
		return op1((*reg).CreateFamily, (*world).createFamily,
			registry.FamilyInput{ProviderID: in.provider(), Name: in.name(), Description: in.prose()})
	},
	"ListFamilies": func(in inputs) op {
		return op1(func(r *reg, ctx context.Context, id uuid.UUID) ([]*ent.ModelFamily, error) {
			return r.ListFamilies(ctx, registry.FamilyFilter{ProviderID: id, Limit: registry.MaxLimit})
		}, (*world).listFamilies, in.provider())
	},

	"CreateModel": func(in inputs) op { return op1((*reg).CreateModel, (*world).createModel, in.newModel()) },
	"CreateModels": func(in inputs) op {
		models := make([]registry.ModelInput, draw(in.T, "models", 2, 0, 1, 3))
		for i := range models {
			models[i] = in.newModel()
		}
		return op1((*reg).CreateModels, (*world).createModels, models)
	},
	"GetModel": func(in inputs) op { return op1((*reg).GetModel, (*world).getModel, in.model()) },
	"FindModel": func(in inputs) op {
		return op2((*reg).FindModel, (*world).findModel, in.provider(), in.lookup())
	},
	"GetModelsByProvider": func(in inputs) op {
		return op1(func(r *reg, ctx context.Context, id uuid.UUID) ([]*ent.Model, error) {
			return r.GetModelsByProvider(ctx, id, registry.Page{Limit: registry.MaxLimit})
		}, (*world).getModelsByProvider, in.provider())
	},
	"ListModels": func(in inputs) op { return op1((*reg).ListModels, (*world).listModels, in.filter()) },
	"UpdateModel": func(in inputs) op {
		m := in.newModel()
		return op2((*reg).UpdateModel, (*world).updateModel, in.model(), registry.ModelUpdate{
			FamilyID: maybe(in, "family", m.FamilyID), Deprecated: maybe(in, "deprecated", in.bool("is deprecated")),
			Name: maybe(in, "name", m.Name), Description: maybe(in, "description", m.Description),
			ContextWindow:   maybe(in, "window", m.ContextWindow),
			MaxOutputTokens: maybe(in, "output", m.MaxOutputTokens),
			SupportsImages:  maybe(in, "images", m.SupportsImages), SupportsAudio: maybe(in, "audio", m.SupportsAudio),
			SupportsTools:            maybe(in, "tools", m.SupportsTools),
			SupportsStructuredOutput: maybe(in, "structured", m.SupportsStructuredOutput),
			CanReason:                maybe(in, "reason", m.CanReason), CanStream: maybe(in, "stream", m.CanStream),
		})
	},
	"DeprecateModel": func(in inputs) op {
		return do2((*reg).DeprecateModel, (*world).deprecateModel, in.model(), in.time())
	},
	"DeleteModel":   func(in inputs) op { return do1((*reg).DeleteModel, (*world).deleteModel, in.model()) },
	"UndeleteModel": func(in inputs) op { return op1((*reg).UndeleteModel, (*world).undeleteModel, in.model()) },
	"PurgeModel":    func(in inputs) op { return do1((*reg).PurgeModel, (*world).purgeModel, in.model()) },
	"UpdateModelPricing": func(in inputs) op {
		rates := in.rates()
		return op2((*reg).UpdateModelPricing, (*world).updateModelPricing, in.model(), registry.PriceInput{
			Rates: rates, Unknown: (len(rates) == 0) != in.rarely("wrong unknown"), ServiceTier: in.tier(),
			MinContextTokens: draw[int64](in.T, "min context", 0, 0, 0, 0, 0, 0, 100, 100, 200_000, 200_000, -1,
				1_000_000_000_001),
			Source: in.text(),
		})
	},
	"PriceAt": func(in inputs) op { return op2((*reg).PriceAt, (*world).priceAt, in.model(), in.time()) },
}
