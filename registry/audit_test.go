package registry_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/auditentry"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// trail returns all entries, in the order in which they were made.
func trail(tb testing.TB, reg *registry.Registry) []*ent.AuditEntry {
	tb.Helper()
	all, err := reg.Client().AuditEntry.Query().Order(auditentry.ByID()).All(tb.Context())
	require.NoError(tb, err)
	return all
}

// audited returns the entries that a call adds, as they are to be read, and as words.
func audited(tb testing.TB, reg *registry.Registry, call func()) (entries []*ent.AuditEntry, words []string) {
	tb.Helper()
	trail := reg.Client().AuditEntry.Query()
	before, err := trail.Clone().Count(tb.Context())
	require.NoError(tb, err)
	call()
	entries, err = trail.Order(auditentry.ByID()).Offset(before).All(tb.Context())
	require.NoError(tb, err)
	for _, e := range entries {
		words = append(words, e.Action+" "+e.Entity)
	}
	return entries, words
}

// rows returns all rows that the audit trail is about, in JSON, by id.
func rows(tb testing.TB, reg *registry.Registry) map[string]string {
	tb.Helper()
	ctx, c := tb.Context(), reg.Client()
	byID := map[string]string{}
	add := func(rows any, err error) {
		require.NoError(tb, err)
		text, err := json.Marshal(rows)
		require.NoError(tb, err)
		var all []json.RawMessage
		require.NoError(tb, json.Unmarshal(text, &all))
		for _, row := range all {
			id, fields := fieldsOf(tb, row)
			delete(fields, "edges")
			text, err := json.Marshal(fields)
			require.NoError(tb, err)
			byID[id] = string(text)
		}
	}
	add(c.Provider.Query().All(ctx))
	add(c.ModelFamily.Query().All(ctx))
	add(c.Model.Query().All(ctx))
	add(c.Price.Query().All(ctx))
	add(c.APIKey.Query().All(ctx))
	add(c.Consumer.Query().All(ctx))
	add(c.AccessKey.Query().All(ctx))
	add(c.Budget.Query().All(ctx))
	add(c.BudgetGrant.Query().All(ctx))
	add(c.Dimension.Query().All(ctx))
	add(c.Setting.Query().All(ctx))
	return byID
}

// fieldsOf returns the id and the fields of a row in JSON.
func fieldsOf(tb testing.TB, row json.RawMessage) (id string, fields map[string]any) {
	tb.Helper()
	require.NoError(tb, json.Unmarshal(row, &fields))
	return fields["id"].(string), fields
}

// follow checks that entries lead from rows to other rows: that before is the row as it was, and
// after as it became. A changed price leads to the price that it ends, and to the model, too.
func follow(tb testing.TB, name string, from map[string]string, entries []*ent.AuditEntry, to map[string]string) {
	tb.Helper()
	from = maps.Clone(from)
	for _, e := range entries {
		if e.Action == registry.ActionReset {
			continue
		}
		var before, after string
		if e.Before != nil {
			before, _ = fieldsOf(tb, e.Before)
			require.JSONEq(tb, from[before], string(e.Before), name)
		}
		if e.After != nil {
			after, _ = fieldsOf(tb, e.After)
		}
		if before == "" {
			require.NotContains(tb, from, after, name)
		}
		delete(from, before)
		if e.Entity == registry.EntityPrice && e.Action == registry.ActionUpdate && before != after {
			from[e.EntityID] = to[e.EntityID]
			require.Contains(tb, to[before], "effective_to", name)
			from[before] = to[before]
		}
		if after != "" {
			from[after] = string(e.After)
		}
	}
	// What is not audited.
	for _, all := range []map[string]string{from, to} {
		for id, row := range all {
			_, fields := fieldsOf(tb, json.RawMessage(row))
			for _, counter := range []string{
				"updated_at", "usage_count", "token_count", "extra_requests", "extra_tokens", "requests_today",
				"tokens_today",
				"last_reset", "last_used_at", "minute", "requests_this_minute", "tokens_this_minute", "cost_today_usd",
			} {
				delete(fields, counter)
			}
			all[id] = fmt.Sprint(fields)
		}
	}
	require.Equal(tb, from, to, name)
}

// clearAllOf deletes all rows of tables.
func clearAllOf(tb testing.TB, reg *registry.Registry, tables ...string) {
	tb.Helper()
	for _, table := range tables {
		_, err := reg.Client().ExecContext(tb.Context(), "DELETE FROM "+table)
		require.NoError(tb, err)
	}
}

// TestAuditOfNothing shows that what is undone or fails leaves no entry.
func TestAuditOfNothing(t *testing.T) { eachEngine(t, testAuditOfNothing) }

func testAuditOfNothing(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	m := mustModel(t, reg, p.ID, "m", gpt4())
	k := mustKey(t, reg, p.ID, 0)
	record(t, reg, m, k, 1, 1)
	for name, call := range map[string]func(*registry.Registry) error{
		"create": func(r *registry.Registry) error {
			_, err := r.CreateProvider(ctx, registry.ProviderInput{Name: "p"})
			return err
		},
		"update": func(r *registry.Registry) error {
			_, err := r.UpdateProvider(ctx, m.ID, registry.ProviderUpdate{})
			return err
		},
		"delete provider": func(r *registry.Registry) error { return r.DeleteProvider(ctx, m.ID) },
		"purge provider":  func(r *registry.Registry) error { return r.PurgeProvider(ctx, p.ID) },
		"purge model":     func(r *registry.Registry) error { return r.PurgeModel(ctx, m.ID) },
		"purge key":       func(r *registry.Registry) error { return r.PurgeAPIKey(ctx, k.ID) },
		"purge no model":  func(r *registry.Registry) error { return r.PurgeModel(ctx, p.ID) },
		"purge no key":    func(r *registry.Registry) error { return r.PurgeAPIKey(ctx, p.ID) },
		"deprecate":       func(r *registry.Registry) error { return r.DeprecateModel(ctx, p.ID, time.Time{}) },
		"degrade":         func(r *registry.Registry) error { return r.DegradeKey(ctx, p.ID, "", 1) },
		"restore":         func(r *registry.Registry) error { return r.RestoreKey(ctx, p.ID) },
		"key": func(r *registry.Registry) error {
			_, err := r.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: secret(0)})
			return err
		},
		"setting": func(r *registry.Registry) error { return r.DeleteSetting(ctx, "k") },
		"price": func(r *registry.Registry) error {
			_, err := r.UpdateModelPricing(ctx, p.ID, registry.PriceInput{Unknown: true})
			return err
		},
		"models": func(r *registry.Registry) error {
			_, err := r.CreateModels(
				ctx, []registry.ModelInput{{ProviderID: p.ID, ModelID: "new"}, {ProviderID: p.ID, ModelID: "m"}},
			)
			return err
		},
		"rollback": func(r *registry.Registry) error {
			return r.InTx(ctx, func(tx *registry.Registry) error {
				require.NoError(t, tx.SetSetting(ctx, "k", "v"))
				require.NoError(t, tx.DeleteProvider(ctx, p.ID))
				require.NotEmpty(t, trail(t, tx))
				return errRollback
			})
		},
	} {
		before := dump(t, reg)
		require.Error(t, call(reg), name)
		require.Equal(t, before, dump(t, reg), name)
		_, words := audited(t, reg, func() { // within a transaction that goes on
			require.NoError(t, reg.InTx(ctx, func(tx *registry.Registry) error {
				require.Error(t, call(tx), name)
				return tx.SetSetting(ctx, name, "")
			}))
		})
		require.Equal(t, []string{"create setting"}, words, name)
	}
}

// TestAs names actors, in and around transactions.
func TestAs(t *testing.T) { eachEngine(t, testAs) }

func testAs(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	longest := strings.Repeat("é", 128)
	entries, _ := audited(t, reg, func() {
		set := func(r *registry.Registry, key string) { require.NoError(t, r.SetSetting(ctx, key, "")) }
		alice := reg.As("alice")
		set(reg, "nobody")
		set(alice, "alice")
		set(alice.As("bob"), "bob")
		set(alice, "alice, still")
		set(alice.As(""), "nobody again")
		set(reg.As(longest), "longest")
		require.NoError(t, alice.InTx(ctx, func(tx *registry.Registry) error {
			set(tx, "alice, in a transaction")
			set(tx.As("bob"), "bob, in alice's")
			require.NoError(t, tx.As("carol").InTx(ctx, func(tx *registry.Registry) error {
				set(tx, "carol, in a transaction within")
				return nil
			}))
			set(tx, "alice, after it")
			require.ErrorIs(t, tx.As("bob").Close(), registry.ErrInvalidData)
			return nil
		}))
	})
	var actors []string
	for _, e := range entries {
		actors = append(actors, e.Actor)
	}
	require.Equal(t, []string{"", "alice", "bob", "alice", "", longest, "alice", "bob", "carol", "alice"}, actors)

	p := mustProvider(t, reg, "p")
	m := mustModel(t, reg, p.ID, "m", nil)
	k := mustKey(t, reg, p.ID, 0)
	for name, bad := range badTexts {
		if bad == "" {
			continue
		}
		before := dump(t, reg)
		as := reg.As(bad)
		for what, call := range map[string]func() error{
			"provider": func() error {
				_, err := as.CreateProvider(ctx, registry.ProviderInput{Name: "x"})
				return err
			},
			"model": func() error { return as.DeleteModel(ctx, m.ID) },
			"price": func() error {
				_, err := as.UpdateModelPricing(ctx, m.ID, registry.PriceInput{Rates: gpt4()})
				return err
			},
			"key":     func() error { return as.PurgeAPIKey(ctx, k.ID) },
			"setting": func() error { return as.SetSetting(ctx, "x", "y") },
			"import":  func() error { _, err := as.ImportCatalog(ctx, smallCatalog("src", 1), nil); return err },
			"InTx": func() error {
				return as.InTx(ctx, func(tx *registry.Registry) error { return tx.DeleteProvider(ctx, p.ID) })
			},
		} {
			err := call()
			require.ErrorIs(t, err, registry.ErrInvalidData, "%s %s", name, what)
			require.ErrorContains(t, err, ": actor ", name)
		}
		require.Equal(t, before, dump(t, reg), name)
		_, err := as.ListProviders(ctx, registry.ProviderFilter{})
		require.NoError(t, err, "what is not audited goes on")
		record(t, as, m, k, 0, 0)
		clearAllOf(t, reg, "usage_quarters", "usage_tracking", "usage_total_quarters", "usage_totals",
			"usage_by_value", "usage_by_value_quarters")
	}

	// One is closed with the other.
	require.NoError(t, reg.As("alice").Close())
	require.ErrorIs(t, reg.SetSetting(ctx, "k", "v"), registry.ErrClosed)
}

// TestAuditHoldsNoSecret searches the rows of the audit trail, as the database has them, for a key
// and its hash.
func TestAuditHoldsNoSecret(t *testing.T) { eachEngine(t, testAuditHoldsNoSecret) }

func testAuditHoldsNoSecret(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	k := mustKey(t, reg, p.ID, 0)
	must(reg.UpdateAPIKey(ctx, k.ID, registry.KeyUpdate{Label: ptr("label")}))
	require.NoError(t, reg.DegradeKey(ctx, k.ID, "429", time.Hour))
	require.NoError(t, reg.RestoreKey(ctx, k.ID))
	require.NoError(t, reg.DeleteAPIKey(ctx, k.ID))
	require.NoError(t, reg.PurgeAPIKey(ctx, k.ID))
	mustKey(t, reg, p.ID, 0)
	require.NoError(t, reg.DeleteProvider(ctx, p.ID))
	require.NoError(t, reg.PurgeProvider(ctx, p.ID))
	raw := func() string {
		rows, err := reg.Client().QueryContext(ctx, "SELECT * FROM audit_log")
		require.NoError(t, err)
		defer func() { require.NoError(t, rows.Close()) }()
		var b strings.Builder
		for rows.Next() {
			values := make([]any, len(must(rows.Columns())))
			for i := range values {
				values[i] = new(any)
			}
			require.NoError(t, rows.Scan(values...))
			for _, v := range values {
				fmt.Fprintf(&b, "%s\n", *v.(*any))
			}
		}
		require.NoError(t, rows.Err())
		return b.String()
	}
	text := raw()
	require.Contains(t, text, "label", "the rows are searched")
	require.Contains(t, text, k.KeyPrefix)
	for _, form := range []string{
		secret(0), secret(0)[9:], hashOf(secret(0)), strings.ToUpper(hashOf(secret(0))), "hash",
	} {
		require.NotContains(t, text, form)
	}
	require.NoError(t, reg.SetSetting(ctx, "leak", secret(0)))
	require.Contains(t, raw(), secret(0), "a setting is kept as it is")
}

// TestAuditTogether changes the same rows from many goroutines: of each row, every entry begins with
// what another one ended with.
func TestAuditTogether(t *testing.T) { eachEngineAtOnce(t, testAuditTogether) }

func testAuditTogether(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "p")
	k := mustKey(t, reg, p.ID, 0)
	m := mustModel(t, reg, p.ID, "m", nil)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 6 {
				text := fmt.Sprint(worker, "-", i)
				if reg.SetSetting(ctx, "k", text) != nil {
					t.Error("set")
				}
				if _, err := reg.UpdateAPIKey(ctx, k.ID, registry.KeyUpdate{Label: &text}); err != nil {
					t.Error(err)
				}
				if err := reg.IncrementUsage(ctx, k.ID, 1, 1); err != nil {
					t.Error(err)
				}
				if _, err := reg.UpdateModel(ctx, m.ID, registry.ModelUpdate{Description: &text}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for entity, field := range map[string]string{
		registry.EntitySetting: "value", registry.EntityAPIKey: "label", registry.EntityModel: "description",
	} {
		next, first := map[any]any{}, any(nil)
		for _, e := range must(reg.ListAudit(ctx, registry.AuditFilter{Entity: entity, Limit: registry.MaxLimit})) {
			_, is := fieldsOf(t, e.After)
			if e.Before == nil {
				require.Nil(t, first, "two creations of the same %s", entity)
				first = struct{ is any }{is[field]}
				continue
			}
			_, was := fieldsOf(t, e.Before)
			require.NotContains(t, next, was[field], "two changes of the same %s", entity)
			next[was[field]] = is[field]
		}
		require.NotNil(t, first, entity)
		at := first.(struct{ is any }).is
		for n := len(next); n > 0; n-- {
			require.Contains(t, next, at, "the chain of %s breaks", entity)
			at = next[at]
		}
		require.GreaterOrEqual(t, len(next), 47, entity)
	}
	require.EqualValues(t, 48, must(reg.Client().APIKey.Get(ctx, k.ID)).UsageCount)
}
