package registry_test

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// keyOperations are those of keys and quota groups.
var keyOperations = map[string]func(inputs) op{
	"CreateQuotaGroup": func(in inputs) op {
		return op1((*reg).CreateQuotaGroup, (*world).createQuotaGroup,
			registry.QuotaGroupInput{ProviderID: in.provider(), Name: in.name(), Limits: in.limits()})
	},
	"UpdateQuotaGroup": func(in inputs) op {
		return op2((*reg).UpdateQuotaGroup, (*world).updateQuotaGroup, in.group(), registry.QuotaGroupUpdate{
			Name: maybe(in, "name", in.name()), Limits: maybe(in, "limits", in.limits()),
		})
	},
	"DeleteQuotaGroup": func(in inputs) op {
		return do1((*reg).DeleteQuotaGroup, (*world).deleteQuotaGroup, in.group())
	},
	"AddAPIKey": func(in inputs) op {
		key := in.secret()
		k := registry.KeyInput{
			ProviderID: in.provider(), APIKey: key, Keyless: (key == "") != in.rarely("wrong keyless"),
			Label: in.text(), Limits: in.limits(), Priority: in.priority(), Weight: draw(in.T, "weight", 0, 1, 3),
			AllowedModels: in.modelNames("allowed"), DeniedModels: in.modelNames("denied"),
		}
		if in.bool("of a group") {
			k.QuotaGroupID = in.groupOf(k.ProviderID)
		}
		return op1((*reg).AddAPIKey, (*world).addAPIKey, k)
	},
	"FindAPIKey": func(in inputs) op { return op2((*reg).FindAPIKey, (*world).findAPIKey, in.provider(), in.secret()) },
	"ListAPIKeys": func(in inputs) op {
		return op1(func(r *reg, ctx context.Context, id uuid.UUID) ([]*ent.APIKey, error) {
			return r.ListAPIKeys(ctx, registry.KeyFilter{ProviderID: id, Limit: registry.MaxLimit})
		}, (*world).listAPIKeys, in.provider())
	},
	"UpdateAPIKey": func(in inputs) op {
		id := in.key()
		return op2((*reg).UpdateAPIKey, (*world).updateAPIKey, id, registry.KeyUpdate{
			Label: maybe(in, "label", in.text()), Disabled: maybe(in, "disabled", in.rarely("is disabled")),
			Limits: maybe(in, "limits", in.limits()), Priority: maybe(in, "priority", in.priority()),
			QuotaGroupID:  maybe(in, "group", in.groupOfKey(id)),
			AllowedModels: maybe(in, "allowed", in.modelNames("allowed")),
		})
	},
	"DeleteAPIKey":   func(in inputs) op { return do1((*reg).DeleteAPIKey, (*world).deleteAPIKey, in.key()) },
	"GetAPIKey":      func(in inputs) op { return op1((*reg).GetAPIKey, (*world).getAPIKey, in.key()) },
	"UndeleteAPIKey": func(in inputs) op { return op1((*reg).UndeleteAPIKey, (*world).undeleteAPIKey, in.key()) },
	"PurgeAPIKey":    func(in inputs) op { return do1((*reg).PurgeAPIKey, (*world).purgeAPIKey, in.key()) },
	"GetLeastUsedKey": func(in inputs) op {
		return op1((*reg).GetLeastUsedKey, (*world).getLeastUsedKey, in.provider())
	},
	"DegradeKey": func(in inputs) op {
		return do3((*reg).DegradeKey, (*world).degradeKey, in.key(), in.prose(), draw(in.T, "duration",
			time.Minute, time.Minute, time.Hour, time.Hour, 12*time.Hour, 12*time.Hour, 30*24*time.Hour,
			3650*24*time.Hour, time.Nanosecond, 1999*time.Nanosecond, 0, -1, 3650*24*time.Hour+1))
	},
	"RestoreKey": func(in inputs) op { return do1((*reg).RestoreKey, (*world).restoreKey, in.key()) },
	"IncrementUsage": func(in inputs) op {
		return do3((*reg).IncrementUsage, (*world).incrementUsage,
			in.key(), in.quantity("input"), in.quantity("output"))
	},
	"ResetDailyUsage": func(inputs) op { return op0((*reg).ResetDailyUsage, (*world).resetDailyUsage) },
}

// Inputs of them.

func (in inputs) limits() registry.Limits {
	l := registry.Limits{
		RequestsPerMinute: draw[int64](in.T, "requests per minute", 0, 0, 0, 1, 3),
		TokensPerMinute:   draw[int64](in.T, "tokens per minute", 0, 0, 0, 200, 1000),
		RequestsPerDay:    draw[int64](in.T, "requests per day", 0, 0, 0, 2, 5),
		TokensPerDay:      draw[int64](in.T, "tokens per day", 0, 0, 0, 500, 1_000_000),
		Concurrency:       draw[int64](in.T, "at once", 0, 0, 0, 1, 2),
		CostPerDay:        draw[money.USD](in.T, "cost per day", 0, 0, 0, 600_000),
	}
	if in.rarely("bad limit") {
		l.TokensPerDay = -1
	}
	return l
}

func (in inputs) priority() int {
	if in.rarely("bad priority") {
		return 1001
	}
	return draw(in.T, "priority", 0, 0, 0, 1, 2, -1)
}

// modelNames draws a list of models for a key, mostly none.
func (in inputs) modelNames(label string) []string {
	return draw(in.T, label, nil, nil, nil, nil, nil, nil, nil, []string{"gpt*"}, []string{"a", "B"}, []string{"a\x00"})
}

func (in inputs) group() uuid.UUID {
	var ids []uuid.UUID
	for _, g := range in.world.groups {
		ids = append(ids, g.ID)
	}
	return in.id("group", ids)
}

// groupOf returns a group, rarely one of another provider.
func (in inputs) groupOf(providerID uuid.UUID) uuid.UUID {
	other := in.rarely("group of another provider")
	ids := []uuid.UUID{}
	for _, g := range in.world.groups {
		if (g.ProviderID == providerID) != other {
			ids = append(ids, g.ID)
		}
	}
	if len(ids) == 0 {
		return uuid.Nil
	}
	return draw(in.T, "group", append(ids, uuid.Nil)...)
}

func (in inputs) groupOfKey(id uuid.UUID) uuid.UUID {
	if k := in.world.key(id); k != nil {
		return in.groupOf(k.ProviderID)
	}
	return uuid.Nil
}
