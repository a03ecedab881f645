package registry

// These tests read the plans of queries of many sources, and have no source of their own.

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// recorder is a driver that notes what it is asked.
type recorder struct {
	store.DB
	mu      sync.Mutex
	queries []recorded
}

type recorded struct {
	text string
	args []any
}

func (r *recorder) note(query string, args []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queries = append(r.queries, recorded{query, args})
}

func (r *recorder) Query(ctx context.Context, query string, args, v any) error {
	r.note(query, args.([]any))
	return r.DB.Query(ctx, query, args, v)
}

func (r *recorder) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	r.note(query, args)
	return r.DB.QueryContext(ctx, query, args...)
}

// hotQuery is an operation, and what is in one of the plans of its statements.
type hotQuery struct {
	call func(*Registry) error
	want []string
}

// hotQueries are those of keys, models and lists, and those of [usageQueries].
func hotQueries(t *testing.T, p *ent.Provider, m *ent.Model, k *ent.APIKey) map[string]hotQuery {
	t.Helper()
	start := time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)
	all := map[string]hotQuery{

		"GetLeastUsedKey": {call: func(r *Registry) error {
			_, err := r.GetLeastUsedKey(t.Context(), p.ID)
			if err == nil {
				_, err = r.GetLeastUsedKey(t.Context(), p.ID) // the first one asks Ent
			}
			return err
		}, want: []string{"api_keys USING INDEX apikey_provider_id_usage_count_last_used_at_id (provider_id=?)"}},
		"ListModels, cheapest first": {call: func(r *Registry) error {
			most := 5 * money.Dollar
			_, err := r.ListModels(t.Context(), ModelFilter{MaxInputCost: &most, Order: OrderByInputCost})
			return err
		}, want: []string{"models USING INDEX model_cost_per_1m_input_model_id_id (cost_per_1m_input<?)"}},
		"FindModel": {call: func(r *Registry) error {
			_, err := r.FindModel(t.Context(), p.ID, "gpt-5")
			return err
		}, want: []string{"models USING INDEX model_provider_id_model_id (provider_id=? AND model_id=?)"}},
		"PriceAt": {
			call: func(r *Registry) error {
				_, err := r.PriceAt(t.Context(), m.ID, start)
				return err
			},
			want: []string{
				"prices USING INDEX price_model_id_service_tier_min_context_tokens_effective_from (model_id=?",
			},
		},
		"GetRecentDiscoveries": {call: func(r *Registry) error {
			_, err := r.GetRecentDiscoveries(t.Context(), DiscoveryFilter{Limit: 5})
			return err
		}, want: []string{"discovery_logs USING INDEX discoverylog_started_at"}},
		"ListAudit": {call: func(r *Registry) error {
			_, err := r.ListAudit(t.Context(), AuditFilter{})
			return err
		}, want: []string{"audit_log USING INDEX auditentry_at"}},
		"ListAudit, the next page": {call: func(r *Registry) error {
			page, err := r.ListAudit(t.Context(), AuditFilter{})
			if err == nil {
				_, err = r.ListAudit(t.Context(), AuditFilter{After: page[len(page)-1].ID})
			}
			return err
		}, want: []string{"audit_log USING INDEX auditentry_at (at<?)"}},
		"ListAudit, the history of one thing": {call: func(r *Registry) error {
			page, err := r.ListAudit(t.Context(), AuditFilter{Entity: EntityModel, EntityID: m.ID.String()})
			if err == nil {
				_, err = r.ListAudit(
					t.Context(), AuditFilter{Entity: EntityModel, EntityID: m.ID.String(), After: page[0].ID},
				)
			}
			return err
		}, want: []string{
			"audit_log USING INDEX auditentry_entity_entity_id_at (entity=? AND entity_id=?)",
			"audit_log USING INDEX auditentry_entity_entity_id_at (entity=? AND entity_id=? AND at<?)",
		}},
	}
	maps.Copy(all, usageQueries(t, p, m, k))
	return all
}

// usageQueries are those that read usage.
func usageQueries(t *testing.T, p *ent.Provider, m *ent.Model, k *ent.APIKey) map[string]hotQuery {
	t.Helper()
	start := time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)
	return map[string]hotQuery{
		"GetUsageStats": {call: func(r *Registry) error {
			_, err := r.GetUsageStats(t.Context(), m.ID, start, start.AddDate(0, 1, 0))
			return err
		}, want: []string{"t USING PRIMARY KEY (model_id=? AND period_start>? AND period_start<?)"}},
		"GetCostBreakdown": {call: func(r *Registry) error {
			_, err := r.GetCostBreakdown(t.Context(), p.ID)
			return err
		}, want: []string{"usage_totals USING PRIMARY KEY (model_id=?)"}},
		"UsageReport": {call: func(r *Registry) error {
			_, err := r.UsageReport(
				t.Context(), ReportInput{Start: start, End: start.AddDate(0, 1, 0), ProviderID: p.ID, Step: StepDay},
			)
			return err
		}, want: []string{"t USING PRIMARY KEY (model_id=? AND period_start>? AND period_start<?)"}},
		"UsageReport, by key": {
			call: func(r *Registry) error {
				_, err := r.UsageReport(
					t.Context(), ReportInput{Start: start, End: start.AddDate(0, 1, 0), By: []Dimension{ByKey}},
				)
				return err
			},
			want: []string{
				"t USING INDEX usage_model_id_period_start (model_id=? AND period_start>? AND period_start<?)",
			},
		},
		"UsageReport, of a key": {call: func(r *Registry) error {
			_, err := r.UsageReport(t.Context(), ReportInput{Start: start, End: start.AddDate(0, 1, 0), APIKeyID: p.ID})
			return err
		}, want: []string{
			"t USING INDEX usage_api_key_id_period_start (api_key_id=? AND period_start>? AND period_start<?)",
		}},
		"ListUsageEvents": {call: func(r *Registry) error {
			_, err := r.ListUsageEvents(
				t.Context(), EventFilter{Start: start, End: start.AddDate(0, 1, 0), After: p.ID},
			)
			return err
		}, want: []string{"usage_events USING PRIMARY KEY (id>? AND id<?)"}},
		"ListUsageEvents, of a model": {call: func(r *Registry) error {
			_, err := r.ListUsageEvents(t.Context(), EventFilter{ModelID: m.ID, After: p.ID})
			return err
		}, want: []string{"usage_events USING INDEX usageevent_model_id_id (model_id=? AND id<?)"}},
		"ListUsageEvents, of a key": {call: func(r *Registry) error {
			_, err := r.ListUsageEvents(t.Context(), EventFilter{APIKeyID: k.ID})
			return err
		}, want: []string{
			"usage_quarters USING INDEX usagequarter_api_key_id_period_start (api_key_id=? AND period_start<?)",
			"usage_events USING PRIMARY KEY (id>? AND id<?)",
		}},
		"ListUsageEvents, of a request": {call: func(r *Registry) error {
			_, err := r.ListUsageEvents(t.Context(), EventFilter{RequestID: "r"})
			return err
		}, want: []string{"usage_events USING INDEX usageevent_request_id (request_id=?)"}},
	}
}

// consumerQueries are those of consumers and access keys.
func consumerQueries(t *testing.T, top *ent.Consumer) map[string]hotQuery {
	t.Helper()
	list := func(filter ConsumerFilter) func(r *Registry) error {
		return func(r *Registry) error {
			_, err := r.ListConsumers(t.Context(), filter)
			return err
		}
	}
	return map[string]hotQuery{
		"Authenticate": {call: func(r *Registry) error {
			_, err := r.Authenticate(t.Context(), "sixteen-letters-")
			return err
		}, want: []string{
			"access_keys USING INDEX accesskey_key_hash (key_hash=?)",
			"consumers USING INDEX sqlite_autoindex_consumers_1 (id=?)",
		}},
		"FindConsumer": {call: func(r *Registry) error {
			_, err := r.FindConsumer(t.Context(), "x")
			return err
		}, want: []string{"consumers USING INDEX consumer_external_id (external_id=?)"}},
		"ListConsumers": {call: list(ConsumerFilter{}), want: []string{"consumers USING INDEX consumer_path"}},
		"ListConsumers, of a subtree": {
			call: list(ConsumerFilter{Subtree: top.ID}),
			want: []string{"consumers USING INDEX consumer_path (path>? AND path<?)"},
		},
		"ListConsumers, the next page": {
			call: list(ConsumerFilter{After: top.ID}), want: []string{"consumers USING INDEX consumer_path (path>?)"},
		},
		"ListConsumers, of a parent": {
			call: list(ConsumerFilter{ParentID: top.ID}),
			want: []string{"consumers USING INDEX consumer_parent_id_path (parent_id=?)"},
		},
		"ListAccessKeys": {call: func(r *Registry) error {
			_, err := r.ListAccessKeys(t.Context(), AccessKeyFilter{ConsumerID: top.ID})
			return err
		}, want: []string{"access_keys USING INDEX accesskey_consumer_id (consumer_id=?)"}},
	}
}

// TestPlans shows how SQLite reads for the hot queries, as the registry asks them.
func TestPlans(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	reg, err := Open(t.Context(), ":memory:")
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	_, err = reg.ImportCatalog(t.Context(), catalog.Catwalk(), nil)
	require.NoError(t, err)
	p, err := reg.FindProvider(t.Context(), "openai")
	require.NoError(t, err)
	m, err := reg.FindModel(t.Context(), p.ID, "gpt-5")
	require.NoError(t, err)
	k, err := reg.AddAPIKey(t.Context(), KeyInput{ProviderID: p.ID, APIKey: "sk-0123456789abcdef"})
	require.NoError(t, err)
	require.NoError(t, reg.RecordUsage(t.Context(), UsageInput{ModelID: m.ID, APIKeyID: k.ID}))

	c, err := reg.CreateConsumer(t.Context(), ConsumerInput{Name: "c", ExternalID: "x"})
	require.NoError(t, err)
	in := AccessKeyInput{ConsumerID: c.ID, Secret: NewSecret("sixteen-letters-")}
	_, _, err = reg.CreateAccessKey(t.Context(), in)
	require.NoError(t, err)
	queries := hotQueries(t, p, m, k)
	maps.Copy(queries, consumerQueries(t, c))

	rec := &recorder{DB: reg.db}
	recording := *reg
	recording.client = ent.NewClient(ent.Driver(rec))
	recording.fresh = recording.client
	for name, test := range queries {
		rec.queries = nil
		require.NoError(t, test.call(&recording), name)
		var plans []string
		for _, q := range rec.queries {
			plans = append(plans, explain(t, reg, q)...)
		}
		for _, want := range test.want {
			require.True(t, slices.ContainsFunc(plans, func(line string) bool { return strings.Contains(line, want) }),
				"%s: %q is not in %q", name, want, plans)
		}
		for _, line := range plans {
			whole := line == "SCAN usage_horizons" || // which has two rows
				name == "UsageReport, by key" && line == "SCAN models" // of all models
			require.False(
				t, strings.HasPrefix(line, "SCAN ") && !strings.Contains(line, "USING") && !whole, "%s: %s", name, line,
			)
			if name == "GetLeastUsedKey" {
				require.NotContains(t, line, "TEMP B-TREE", name)
			}
			if strings.HasPrefix(name, "ListUsageEvents") {
				require.NotContains(t, line, "TEMP B-TREE", name)
			}
			// Those of one time, or of one path, are sorted by id.
			if strings.HasPrefix(name, "ListAudit") || strings.HasPrefix(name, "ListConsumers") {
				require.NotContains(t, line, "TEMP B-TREE FOR ORDER BY", name)
			}
		}
	}
}

func explain(t *testing.T, reg *Registry, q recorded) (plan []string) {
	t.Helper()
	rows, err := reg.client.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+q.text, q.args...)
	require.NoError(t, err)
	for rows.Next() {
		var id, parent, unused int
		var detail string
		require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
		plan = append(plan, detail)
	}
	require.NoError(t, rows.Err())
	require.NoError(t, rows.Close())
	return plan
}

// TestPostgresPlans shows that PostgreSQL finds the least used key by reading the index until the
// first usable key, however many there are.
func TestPostgresPlans(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	reg, err := Open(t.Context(), pgtest.Database(t, "", nil))
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	var providers []uuid.UUID
	for i := range 10 {
		p, err := reg.CreateProvider(t.Context(), ProviderInput{Name: fmt.Sprint("p", i)})
		require.NoError(t, err)
		providers = append(providers, p.ID)
		err = reg.Past().APIKey.MapCreateBulk(make([]struct{}, 100), func(create *ent.APIKeyCreate, k int) {
			create.SetProviderID(p.ID).SetKeyHash(strings.Repeat("0", 61) + fmt.Sprintf("%03d", k)).SetKeyPrefix("sk").
				SetLastReset(reg.now()).SetCreatedAt(reg.now()).SetUpdatedAt(reg.now())
		}).Exec(t.Context())
		require.NoError(t, err)
	}
	_, err = reg.db.ExecContext(t.Context(), "ANALYZE")
	require.NoError(t, err)
	text := explainPostgres(t, reg, leastUsedKeySQL, providers[7], time.Now())
	require.Contains(t, text, "Index Scan using apikey_provider_id_usage_count_last_used_at_id")
	require.NotContains(t, text, "Sort")
}

// TestPostgresTailPlan shows that PostgreSQL reads the events that are not folded by the index, model by model.
func TestPostgresTailPlan(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	ctx := t.Context()
	reg, err := Open(ctx, pgtest.Database(t, "", nil))
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	p, err := reg.CreateProvider(ctx, ProviderInput{Name: "p"})
	require.NoError(t, err)
	k, err := reg.AddAPIKey(ctx, KeyInput{ProviderID: p.ID, APIKey: "sk-0123456789abcdef"})
	require.NoError(t, err)
	for i := range 20 {
		m, err := reg.CreateModel(ctx, ModelInput{ProviderID: p.ID, ModelID: fmt.Sprint("m", i)})
		require.NoError(t, err)
		all := make([]UsageInput, 500)
		for n := range all {
			all[n] = UsageInput{ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 1}}
		}
		require.NoError(t, reg.RecordUsageBatch(ctx, all))
	}
	_, err = reg.db.ExecContext(ctx, "ANALYZE")
	require.NoError(t, err)
	query := "SELECT sum(e.cost) FROM " + ledger.Tail(dialect.Postgres, " AND e.id < $1")
	plan := explainPostgres(t, reg, query, uuid.Max)
	require.Contains(t, plan, "Index Cond: ((model_id = m.id) AND (id > COALESCE(f.folded_to, m.id))")
}

func explainPostgres(t *testing.T, reg *Registry, query string, args ...any) string {
	t.Helper()
	rows, err := reg.db.QueryContext(t.Context(), "EXPLAIN "+query, args...)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	var plan []string
	for rows.Next() {
		var line string
		require.NoError(t, rows.Scan(&line))
		plan = append(plan, line)
	}
	require.NoError(t, rows.Err())
	return strings.Join(plan, "\n")
}
