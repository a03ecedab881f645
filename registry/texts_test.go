package registry_test

// These tests write texts in every way there is, and have no source of their own.

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// peoplesTexts are texts for people that are not names.
var peoplesTexts = map[string]string{
	"a zero-width non-joiner":  "می\u200cخواهم",
	"a soft hyphen":            "Sprach\u00admodell",
	"a right-to-left mark":     "שלום\u200f!",
	"an isolated run":          "\u2067עברית\u2069 and English",
	"a flag of tag characters": "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
	"a byte order mark":        "\ufefftext",
	"separators of lines":      "one\u2028two\u2029three\r\nfour\vfive\u0085six",
	"terminal codes":           "\x1b[31mred\x1b[0m\x07\x7f",
	"noncharacters":            "\ufffe\uffff\U0010ffff",
}

// unstorable are texts that no column takes.
var unstorable = map[string]string{
	"NUL": "a\x00b", "a lone byte": "a\xffb", "a surrogate": "a\xed\xa0\x80b", "an overlong form": "a\xc0\xafb",
	"half a character": "a\xe2\x82",
}

// texts are the rows that texts are written to.
type texts struct {
	*registry.Registry
	t        *testing.T
	n        int
	provider *ent.Provider
	model    *ent.Model
	key      *ent.APIKey
	group    *ent.QuotaGroup
	consumer *ent.Consumer
	log      *ent.DiscoveryLog
	family   *ent.ModelFamily
	sdk      *ent.SDKVersion
}

// unique returns a name that is not taken.
func (x *texts) unique() string {
	x.n++
	return fmt.Sprint("n", x.n)
}

// textInput is an operation that writes a text, and returns what is stored of it.
type textInput struct {
	column string
	prose  bool // it is for people
	write  func(ctx context.Context, x *texts, text string) (stored string, err error)
}

// of returns what is stored of a row, if it could be written.
func of[T any](row *T, err error, column func(*T) string) (string, error) {
	if err != nil {
		return "", err
	}
	return column(row), nil
}

var catalogTexts = []textInput{
	{column: "providers.name", write: func(ctx context.Context, x *texts, text string) (string, error) {
		p, err := x.CreateProvider(ctx, registry.ProviderInput{Name: text})
		return of(p, err, func(p *ent.Provider) string { return p.Name })
	}},
	{
		column: "providers.display_name", prose: true,
		write: func(ctx context.Context, x *texts, text string) (string, error) {
			p, err := x.CreateProvider(ctx, registry.ProviderInput{Name: x.unique(), DisplayName: text})
			return of(p, err, func(p *ent.Provider) string { return p.DisplayName })
		},
	},
	{
		column: "providers.display_name", prose: true,
		write: func(ctx context.Context, x *texts, text string) (string, error) {
			p, err := x.UpdateProvider(ctx, x.provider.ID, registry.ProviderUpdate{DisplayName: &text})
			return of(p, err, func(p *ent.Provider) string { return p.DisplayName })
		},
	},
	{column: "providers.base_url", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.UpdateProvider(
			ctx, x.provider.ID, registry.ProviderUpdate{BaseURL: ptr("https://x.example/" + text)},
		)
		return "", err
	}},
	{
		column: "providers.description", prose: true,
		write: func(ctx context.Context, x *texts, text string) (string, error) {
			p, err := x.UpdateProvider(ctx, x.provider.ID, registry.ProviderUpdate{Description: &text})
			return of(p, err, func(p *ent.Provider) string { return p.Description })
		},
	},
	{column: "providers.name", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.ImportCatalog(ctx, catalog.Snapshot{Source: "s", Providers: []catalog.Provider{{Name: text}}}, nil)
		return "", err
	}},
	{column: "prices.source", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.ImportCatalog(ctx, catalog.Snapshot{Source: text}, nil)
		return "", err
	}},
	{column: "models.name", prose: true, write: func(ctx context.Context, x *texts, text string) (string, error) {
		id := x.unique()
		_, err := x.ImportCatalog(ctx, catalog.Snapshot{Source: "s", Providers: []catalog.Provider{{
			Name: x.provider.Name, Models: []catalog.Model{{ModelID: id, Name: text}},
		}}}, nil)
		if err != nil {
			return "", err
		}
		m, err := x.FindModel(ctx, x.provider.ID, id)
		return of(m, err, func(m *ent.Model) string { return m.Name })
	}},
	{column: "model_families.name", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.ImportCatalog(ctx, catalog.Snapshot{Source: "s", Providers: []catalog.Provider{{
			Name: x.provider.Name, Models: []catalog.Model{{ModelID: x.unique(), Family: text}},
		}}}, nil)
		return "", err
	}},
	{column: "model_families.name", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.CreateFamily(ctx, registry.FamilyInput{ProviderID: x.provider.ID, Name: text})
		return "", err
	}},
	{
		column: "model_families.description", prose: true,
		write: func(ctx context.Context, x *texts, text string) (string, error) {
			f, err := x.CreateFamily(
				ctx, registry.FamilyInput{ProviderID: x.provider.ID, Name: x.unique(), Description: text},
			)
			return of(f, err, func(f *ent.ModelFamily) string { return f.Description })
		},
	},
	{column: "model_families.name", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.UpdateFamily(ctx, x.family.ID, registry.FamilyUpdate{Name: &text})
		return "", err
	}},
	{
		column: "model_families.description", prose: true,
		write: func(ctx context.Context, x *texts, text string) (string, error) {
			f, err := x.UpdateFamily(ctx, x.family.ID, registry.FamilyUpdate{Description: &text})
			return of(f, err, func(f *ent.ModelFamily) string { return f.Description })
		},
	},
	{column: "models.model_id", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.CreateModel(ctx, registry.ModelInput{ProviderID: x.provider.ID, ModelID: text})
		return "", err
	}},
	{column: "models.name", prose: true, write: func(ctx context.Context, x *texts, text string) (string, error) {
		m, err := x.CreateModel(ctx, registry.ModelInput{ProviderID: x.provider.ID, ModelID: x.unique(), Name: text})
		return of(m, err, func(m *ent.Model) string { return m.Name })
	}},
	{
		column: "models.description", prose: true,
		write: func(ctx context.Context, x *texts, text string) (string, error) {
			m, err := x.UpdateModel(ctx, x.model.ID, registry.ModelUpdate{Name: &text, Description: &text})
			return of(m, err, func(m *ent.Model) string { return m.Description })
		},
	},
	{column: "prices.source", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.CreateModel(
			ctx, registry.ModelInput{ProviderID: x.provider.ID, ModelID: x.unique(), PriceSource: text},
		)
		return "", err
	}},
	{column: "prices.source", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.UpdateModelPricing(ctx, x.model.ID, registry.PriceInput{Rates: gpt4(), Source: text})
		return "", err
	}},
	{column: "prices.service_tier", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.UpdateModelPricing(ctx, x.model.ID, registry.PriceInput{Rates: gpt4(), ServiceTier: text})
		return "", err
	}},
	{column: "prices.rates", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.UpdateModelPricing(ctx, x.model.ID, registry.PriceInput{Rates: money.Rates{text: 1}})
		return "", err
	}},
}

var keyTexts = []textInput{
	{column: "quota_groups.name", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: x.provider.ID, Name: text})
		return "", err
	}},
	{column: "quota_groups.name", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.UpdateQuotaGroup(ctx, x.group.ID, registry.QuotaGroupUpdate{Name: &text})
		return "", err
	}},
	{column: "api_keys.label", prose: true, write: func(ctx context.Context, x *texts, text string) (string, error) {
		k, err := x.AddAPIKey(ctx, registry.KeyInput{ProviderID: x.provider.ID, APIKey: x.unique(), Label: text})
		return of(k, err, func(k *ent.APIKey) string { return k.Label })
	}},
	{column: "api_keys.label", prose: true, write: func(ctx context.Context, x *texts, text string) (string, error) {
		k, err := x.UpdateAPIKey(ctx, x.key.ID, registry.KeyUpdate{Label: &text})
		return of(k, err, func(k *ent.APIKey) string { return k.Label })
	}},
	{column: "api_keys.allowed_models", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.UpdateAPIKey(ctx, x.key.ID, registry.KeyUpdate{AllowedModels: &[]string{text}})
		return "", err
	}},
	{column: "api_keys.denied_models", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.AddAPIKey(
			ctx, registry.KeyInput{ProviderID: x.provider.ID, APIKey: x.unique(), DeniedModels: []string{text}},
		)
		return "", err
	}},
	{column: "api_keys.key_prefix", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.AddAPIKey(ctx, registry.KeyInput{ProviderID: x.provider.ID, APIKey: text})
		return "", err
	}},
	{column: "api_keys.key_prefix", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.RotateAPIKey(ctx, x.key.ID, registry.KeyRotationInput{APIKey: text})
		return "", err
	}},
}

var otherTexts = []textInput{
	{column: "discovery_logs.identifier", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: text})
		return "", err
	}},
	{column: "discovery_logs.source", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "x", Source: text})
		return "", err
	}},
	{column: "discovery_logs.llm_model", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "x", LLMModel: text})
		return "", err
	}},
	{column: "discovery_logs.discovered_data", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.UpdateDiscoveryResult(
			ctx, x.log.ID, json.RawMessage(`{"x": "`+text+`}`), discoverylog.StatusSuccess,
		)
		return "", err
	}},
	{column: "sdk_versions.version", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: x.provider.ID, Version: text})
		return "", err
	}},
	{column: "sdk_versions.sdk_path", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.CreateSDKVersion(
			ctx, registry.SDKVersionInput{ProviderID: x.provider.ID, Version: x.unique(), SDKPath: text},
		)
		return "", err
	}},
	{
		column: "sdk_versions.test_results", prose: true,
		write: func(ctx context.Context, x *texts, text string) (string, error) {
			s, err := x.CreateSDKVersion(
				ctx, registry.SDKVersionInput{ProviderID: x.provider.ID, Version: x.unique(), TestResults: text},
			)
			return of(s, err, func(s *ent.SDKVersion) string { return s.TestResults })
		},
	},
	{
		column: "sdk_versions.test_results", prose: true,
		write: func(ctx context.Context, x *texts, text string) (string, error) {
			s, err := x.UpdateSDKVersion(ctx, x.sdk.ID, registry.SDKVersionUpdate{TestResults: &text})
			return of(s, err, func(s *ent.SDKVersion) string { return s.TestResults })
		},
	},
	{column: "sdk_versions.code_hash", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.CreateSDKVersion(
			ctx, registry.SDKVersionInput{ProviderID: x.provider.ID, Version: x.unique(), CodeHash: text},
		)
		return "", err
	}},
	{column: "settings.key", write: func(ctx context.Context, x *texts, text string) (string, error) {
		return "", x.SetSetting(ctx, text, "v")
	}},
	{column: "settings.value", prose: true, write: func(ctx context.Context, x *texts, text string) (string, error) {
		if err := x.SetSetting(ctx, "k", text); err != nil {
			return "", err
		}
		return x.GetSetting(ctx, "k")
	}},
	{column: "usage_events.request_id", write: func(ctx context.Context, x *texts, text string) (string, error) {
		return "", x.RecordUsage(ctx, registry.UsageInput{ModelID: x.model.ID, APIKeyID: x.key.ID, RequestID: text})
	}},
	{column: "usage_events.request_id", write: func(ctx context.Context, x *texts, text string) (string, error) {
		return "", x.RecordUsageBatch(
			ctx, []registry.UsageInput{{ModelID: x.model.ID, APIKeyID: x.key.ID, ServiceTier: text}},
		)
	}},
	{column: "usage_events.error_class", write: func(ctx context.Context, x *texts, text string) (string, error) {
		lease, err := x.AcquireKey(
			ctx, registry.AcquireInput{ProviderID: x.provider.ID, ModelID: x.model.ID, TTL: time.Minute},
		)
		require.NoError(x.t, err)
		return "", lease.Settle(ctx, registry.UsageInput{Failed: true, ErrorClass: text})
	}},
	{column: "audit_log.actor", write: func(ctx context.Context, x *texts, text string) (string, error) {
		return "", x.As(text).SetSetting(ctx, x.unique(), "v")
	}},
}

// filterTexts are those that are looked for.
var filterTexts = []textInput{
	{column: "actor", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.ListAudit(ctx, registry.AuditFilter{Actor: text})
		return "", err
	}},
	{column: "entity_id", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.ListAudit(ctx, registry.AuditFilter{EntityID: text})
		return "", err
	}},
	{column: "kind", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.ListConsumers(ctx, registry.ConsumerFilter{Kind: text})
		return "", err
	}},
	{column: "request_id", write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.ListUsageEvents(ctx, registry.EventFilter{RequestID: text})
		return "", err
	}},
	{column: "search", prose: true, write: func(ctx context.Context, x *texts, text string) (string, error) {
		_, err := x.UpdateModel(ctx, x.model.ID, registry.ModelUpdate{Name: ptr("<" + text + ">")})
		if err != nil {
			return "", err
		}
		found, err := x.ListModels(ctx, registry.ModelFilter{Search: "<" + text + ">"})
		if err != nil {
			return "", err
		}
		require.Len(x.t, found, 1)
		return text, nil
	}},
}

// TestTexts writes texts of people's languages, and what a database cannot hold, to every column of texts by every
// operation: both engines store, or refuse, the same.
func TestTexts(t *testing.T) { eachEngine(t, testTexts) }

func testTexts(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	x := &texts{Registry: reg, t: t, provider: mustProvider(t, reg, "openai")}
	x.model, x.key = mustModel(t, reg, x.provider.ID, "m", gpt4()), mustKey(t, reg, x.provider.ID, 1)
	var err error
	x.group, err = reg.CreateQuotaGroup(t.Context(), registry.QuotaGroupInput{ProviderID: x.provider.ID, Name: "g"})
	require.NoError(t, err)
	x.family, err = reg.CreateFamily(t.Context(), registry.FamilyInput{ProviderID: x.provider.ID, Name: "f"})
	require.NoError(t, err)
	x.sdk, err = reg.CreateSDKVersion(t.Context(), registry.SDKVersionInput{ProviderID: x.provider.ID, Version: "1"})
	require.NoError(t, err)
	x.log, err = reg.CreateDiscoveryLog(t.Context(), registry.DiscoveryInput{Identifier: "x"})
	require.NoError(t, err)
	x.consumer = mustConsumer(t, reg, "c", uuid.Nil)

	for _, inputs := range [][]textInput{catalogTexts, keyTexts, consumerTexts, otherTexts, filterTexts} {
		for _, in := range inputs {
			for name, text := range unstorable {
				_, err := in.write(t.Context(), x, text)
				require.ErrorIs(t, err, registry.ErrInvalidData, "%s with %s", in.column, name)
				require.NotContains(t, err.Error(), text)
			}
			for name, text := range peoplesTexts {
				if !in.prose && name == "noncharacters" { // which are no worse than others
					continue
				}
				stored, err := in.write(t.Context(), x, text)
				if !in.prose {
					require.ErrorIs(t, err, registry.ErrInvalidData, "%s with %s", in.column, name)
					continue
				}
				require.NoError(t, err, "%s with %s", in.column, name)
				require.Equal(t, text, stored, in.column)
			}
		}
	}
}
