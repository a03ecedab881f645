package registry_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// idsOf returns the ids of rows as text.
func idsOf[R any](rows []R, err error) ([]string, error) {
	var ids []string
	for _, row := range rows {
		ids = append(ids, fmt.Sprint(reflect.ValueOf(row).Elem().FieldByName("ID")))
	}
	return ids, err
}

// aList reads a page of a list, or the whole list in pages of a size.
type aList struct {
	page func(limit int, after string) ([]string, error)
	all  func(limit int) ([]string, error)
	more func(n int) // creates one more row
}

// afterID returns the id of a text, zero for none.
func afterID(text string) uuid.UUID {
	if text == "" {
		return uuid.Nil
	}
	return uuid.MustParse(text)
}

// lists returns every list, with a provider and a model of which more can be made.
func lists(t *testing.T, reg *registry.Registry, p *ent.Provider, m *ent.Model) map[string]aList {
	t.Helper()
	all := catalogLists(t, reg, p, m)
	maps.Copy(all, modelLists(t, reg, p))
	maps.Copy(all, otherLists(t, reg, p, m))
	maps.Copy(all, consumerLists(t, reg))
	maps.Copy(all, budgetLists(t, reg))
	maps.Copy(all, dimensionLists(t, reg))
	return all
}

// catalogLists are those of providers, and of what is of a provider.
func catalogLists(t *testing.T, reg *registry.Registry, p *ent.Provider, m *ent.Model) map[string]aList {
	t.Helper()
	ctx := t.Context()
	price := func(n int) {
		must(reg.UpdateModelPricing(ctx, m.ID, registry.PriceInput{
			Rates: money.Rates{"input": money.USD(n)}, ServiceTier: fmt.Sprint("tier", n%3),
		}))
	}
	return map[string]aList{
		"ListProviders": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListProviders(ctx, registry.ProviderFilter{Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListProviders, registry.ProviderFilter{Limit: limit})))
			},
			more: func(n int) { mustProvider(t, reg, fmt.Sprint("p", n*7919%1000, "-", n)) },
		},
		"ListFamilies": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListFamilies(ctx,
					registry.FamilyFilter{ProviderID: p.ID, Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListFamilies,
					registry.FamilyFilter{ProviderID: p.ID, Limit: limit})))
			},
			more: func(n int) {
				name := fmt.Sprint(n*7919%1000, "-", n)
				must(reg.CreateFamily(ctx, registry.FamilyInput{ProviderID: p.ID, Name: name}))
			},
		},
		"PriceHistory": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.PriceHistory(ctx,
					registry.PriceFilter{ModelID: m.ID, Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.PriceHistory,
					registry.PriceFilter{ModelID: m.ID, Limit: limit})))
			},
			more: price,
		},
		"ListAPIKeys": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListAPIKeys(ctx,
					registry.KeyFilter{ProviderID: p.ID, Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListAPIKeys,
					registry.KeyFilter{ProviderID: p.ID, Limit: limit})))
			},
			more: func(n int) { mustKey(t, reg, p.ID, n) },
		},
		"ListQuotaGroups": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListQuotaGroups(ctx,
					registry.QuotaGroupFilter{ProviderID: p.ID, Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListQuotaGroups,
					registry.QuotaGroupFilter{ProviderID: p.ID, Limit: limit})))
			},
			more: func(n int) {
				name := fmt.Sprint(n*7919%1000, "-", n)
				must(reg.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: p.ID, Name: name}))
			},
		},
	}
}

// modelLists are those of models, in each order.
func modelLists(t *testing.T, reg *registry.Registry, p *ent.Provider) map[string]aList {
	t.Helper()
	ctx := t.Context()
	made := 0 // by several lists
	costly := func(n int) {
		made++
		rates := gpt4()
		if n%3 == 0 {
			rates = nil // comes last
		}
		must(reg.CreateModel(ctx, registry.ModelInput{
			ProviderID: p.ID, ModelID: fmt.Sprintf("%d-%d", made*7919%1000, made),
			Rates: rates, ContextWindow: int64(n % 4),
		}))
	}
	models := func(order registry.ModelOrder) aList {
		filter := registry.ModelFilter{Order: order}
		return aList{
			page: func(limit int, after string) ([]string, error) {
				filter := filter
				filter.Limit, filter.After = limit, afterID(after)
				return idsOf(reg.ListModels(ctx, filter))
			},
			all: func(limit int) ([]string, error) {
				filter := filter
				filter.Limit = limit
				return idsOf(collect(registry.All(ctx, reg.ListModels, filter)))
			},
			more: costly,
		}
	}
	return map[string]aList{
		"ListModels":                models(registry.OrderByModelID),
		"ListModels by input cost":  models(registry.OrderByInputCost),
		"ListModels by output cost": models(registry.OrderByOutputCost),
		"ListModels by window":      models(registry.OrderByContextWindow),
		"GetModelsByProvider": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.GetModelsByProvider(ctx, p.ID, registry.Page{Limit: limit, After: afterID(after)}))
			},
			more: costly,
		},
	}
}

// otherLists are those of logs, settings and what happened.
func otherLists(t *testing.T, reg *registry.Registry, p *ent.Provider, m *ent.Model) map[string]aList {
	t.Helper()
	ctx := t.Context()
	log := func(n int) {
		l := must(reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: fmt.Sprint("x", n%2)}))
		must(reg.UpdateDiscoveryResult(ctx, l.ID, nil, discoverylog.StatusFailed))
	}
	return map[string]aList{
		"ListSDKVersions": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListSDKVersions(ctx,
					registry.SDKVersionFilter{ProviderID: p.ID, Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListSDKVersions,
					registry.SDKVersionFilter{ProviderID: p.ID, Limit: limit})))
			},
			more: func(n int) {
				must(reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: p.ID, Version: fmt.Sprint(n)}))
			},
		},
		"GetRecentDiscoveries": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.GetRecentDiscoveries(ctx,
					registry.DiscoveryFilter{Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.GetRecentDiscoveries,
					registry.DiscoveryFilter{Limit: limit})))
			},
			more: log,
		},
		"ListSettings": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListSettings(ctx, registry.SettingFilter{Limit: limit, After: after}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListSettings, registry.SettingFilter{Limit: limit})))
			},
			more: func(n int) { require.NoError(t, reg.SetSetting(ctx, fmt.Sprint(n*7919%1000, "-", n), "")) },
		},
		"ListAudit": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListAudit(ctx, registry.AuditFilter{Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListAudit, registry.AuditFilter{Limit: limit})))
			},
			more: func(n int) { require.NoError(t, reg.SetSetting(ctx, fmt.Sprint("audited ", n), "")) },
		},
		"ListUsageEvents": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListUsageEvents(ctx, registry.EventFilter{Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListUsageEvents, registry.EventFilter{Limit: limit})))
			},
			more: func(int) {
				record(t, reg, m, must(reg.ListAPIKeys(ctx, registry.KeyFilter{ProviderID: p.ID}))[0], 1, 1)
			},
		},
	}
}

// consumerLists are those of consumers and access keys.
func consumerLists(t *testing.T, reg *registry.Registry) map[string]aList {
	t.Helper()
	ctx := t.Context()
	org := mustConsumer(t, reg, "lists", uuid.Nil)
	last := org.ID
	return map[string]aList{
		"ListConsumers": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListConsumers(ctx, registry.ConsumerFilter{Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListConsumers, registry.ConsumerFilter{Limit: limit})))
			},
			more: func(n int) {
				parent := org.ID
				if n%2 == 0 { // a child comes before the siblings of its parent
					parent = last
				}
				if c := mustConsumer(t, reg, fmt.Sprint("c", n), parent); n%2 == 1 {
					last = c.ID
				}
			},
		},
		"ListAccessKeys": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListAccessKeys(ctx, registry.AccessKeyFilter{Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListAccessKeys, registry.AccessKeyFilter{Limit: limit})))
			},
			more: func(int) { mustAccessKey(t, reg, org.ID) },
		},
	}
}

// TestLists pages through every list while rows are created.
func TestLists(t *testing.T) { eachEngine(t, testLists) }

func testLists(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	m := mustModel(t, reg, p.ID, "gpt-4", gpt4())
	mustKey(t, reg, p.ID, 0)
	all := lists(t, reg, p, m)
	var names []string
	for method := range reflect.TypeFor[*registry.Registry]().Methods() {
		if method.Type.NumOut() != 2 || method.Name == "CreateModels" {
			continue
		}
		if rows := method.Type.Out(0); rows.Kind() == reflect.Slice && rows.Elem().Kind() == reflect.Pointer {
			names = append(names, method.Name)
		}
	}
	for _, name := range names {
		require.Contains(t, all, name, "every list is a page")
	}
	for name, list := range all {
		for n := range 8 {
			if n%3 == 1 { // some share an instant
				clock.Advance(time.Second)
			}
			list.more(n + 1)
		}
		whole, err := list.page(registry.MaxLimit, "")
		require.NoError(t, err, name)
		require.GreaterOrEqual(t, len(whole), 8, name)
		for _, limit := range []int{1, 3, 1000} {
			if list.all != nil {
				require.Equal(t, whole, must(list.all(limit)), "%s by %d", name, limit)
			}
		}
		// Rows are created between two pages: those of before come once each, in their order.
		var got []string
		for n, after := 0, ""; ; n++ {
			page := must(list.page(3, after))
			require.LessOrEqual(t, len(page), 3, name)
			if len(page) == 0 {
				break
			}
			got, after = append(got, page...), page[len(page)-1]
			if n < 3 {
				list.more(100 + n)
			}
		}
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(got))), len(got), "%s: none twice", name)
		got = slices.DeleteFunc(got, func(id string) bool { return !slices.Contains(whole, id) })
		require.Equal(t, whole, got, name)

		for _, limit := range []int{-1, registry.MaxLimit + 1} {
			_, err := list.page(limit, "")
			require.ErrorIs(t, err, registry.ErrInvalidData, name)
		}
		if name != "ListSettings" && name != "ListUsageEvents" { // whose ids are their places
			_, err = list.page(1, uuid.NewString())
			require.ErrorIs(t, err, registry.ErrNotFound, name)
			require.ErrorContains(t, err, "begin again without After", name)
		}
	}

	t.Run("OK_default", func(t *testing.T) {
		inputs := make([]registry.ModelInput, registry.DefaultLimit+1)
		for i := range inputs {
			inputs[i] = registry.ModelInput{ProviderID: p.ID, ModelID: fmt.Sprintf("z%04d", i)}
		}
		must(reg.CreateModels(t.Context(), inputs))
		require.Len(t, must(reg.GetModelsByProvider(t.Context(), p.ID, registry.Page{})), registry.DefaultLimit)
	})
	t.Run("OK_after_a_deleted_row", func(t *testing.T) {
		page := must(reg.GetModelsByProvider(t.Context(), p.ID, registry.Page{Limit: 2}))
		require.NoError(t, reg.DeleteModel(t.Context(), page[1].ID))
		next := must(reg.GetModelsByProvider(t.Context(), p.ID, registry.Page{Limit: 1, After: page[1].ID}))
		require.Equal(t, 1, strings.Compare(next[0].ModelID, page[1].ModelID))
	})
	t.Run("Err_of_a_page", func(t *testing.T) {
		failed := errors.New("failed")
		calls := 0
		list := func(context.Context, registry.SettingFilter) ([]*ent.Setting, error) {
			if calls++; calls == 2 {
				return nil, failed
			}
			return []*ent.Setting{{ID: "a"}}, nil
		}
		seen := 0
		for s, err := range registry.All(t.Context(), list, registry.SettingFilter{Limit: 1}) {
			if err != nil {
				require.ErrorIs(t, err, failed)
				continue
			}
			require.Equal(t, "a", s.ID)
			seen++
		}
		require.Equal(t, []int{1, 2}, []int{seen, calls})
		for _, err := range registry.All(t.Context(), list, registry.SettingFilter{Limit: 1}) {
			require.NoError(t, err)
			break
		}
		require.Equal(t, 3, calls)
	})
}
