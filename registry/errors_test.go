package registry_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestErrorTexts reads errors as a caller does: each is one line, names the thing by the caller's words, and names no
// inner package.
func TestErrorTexts(t *testing.T) { eachEngine(t, testErrorTexts) }

func testErrorTexts(t *testing.T, e engine) {
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "gpt-4", gpt4()), mustKey(t, reg, p.ID, 1)
	keyless := mustProvider(t, reg, "local")
	unknown := uuid.MustParse("01900000-0000-7000-8000-000000000001")
	acquire := func(providerID uuid.UUID) error {
		_, err := reg.AcquireKey(ctx, registry.AcquireInput{ProviderID: providerID, TTL: time.Minute})
		return err
	}
	of := func(_ any, err error) error { return err }
	other := mustModel(t, reg, keyless.ID, "llama", nil)
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	record(t, reg, m, k, 1, 1)
	for text, err := range map[string]error{
		`create provider "openai": already exists`: of(reg.CreateProvider(ctx, registry.ProviderInput{Name: "openai"})),
		`create model "gpt-4": already exists`: of(
			reg.CreateModel(ctx, registry.ModelInput{ProviderID: p.ID, ModelID: "gpt-4"}),
		),
		"add API key to provider " + p.ID.String() + ": already exists": of(reg.AddAPIKey(ctx, registry.KeyInput{
			ProviderID: p.ID, APIKey: secret(1),
		})),
		`create provider "x": context canceled`: of(reg.CreateProvider(canceled, registry.ProviderInput{Name: "x"})),
		`set setting "x": context canceled`:     reg.SetSetting(canceled, "x", ""),
		"record usage batch: context canceled": reg.RecordUsageBatch(canceled, []registry.UsageInput{
			{ModelID: m.ID, APIKeyID: k.ID},
		}),
		"record usage batch: request 1: foreign key violation: model " + unknown.String() +
			": not found": reg.RecordUsageBatch(ctx,
			[]registry.UsageInput{{ModelID: m.ID, APIKeyID: k.ID}, {ModelID: unknown, APIKeyID: k.ID}}),
		"acquire key: invalid data: model " + other.ID.String() +
			`, "llama", is another provider's`: of(reg.AcquireKey(ctx,
			registry.AcquireInput{ProviderID: p.ID, ModelID: other.ID, TTL: time.Minute})),
		`find provider "nope": not found`: of(reg.FindProvider(ctx, "nope")),
		`get setting "nope": not found`:   of(reg.GetSetting(ctx, "nope")),
		"record usage: foreign key violation: no model is given: its id is zero: not found": reg.RecordUsage(ctx,
			registry.UsageInput{APIKeyID: k.ID}),
		"acquire key: no API key available: no provider is given:" +
			" ProviderID is zero": acquire(uuid.Nil),
		"acquire key: no API key available: there is no provider " + unknown.String() +
			", or it is deleted": acquire(unknown),
		"acquire key: no API key available: provider " + keyless.ID.String() +
			" has no keys: AddAPIKey adds one": acquire(keyless.ID),
		"get least used key: no API key available: there is no provider " + unknown.String() + ", or it is deleted": of(
			reg.GetLeastUsedKey(ctx, unknown)),
		"purge API key " + k.ID.String() +
			": foreign key violation: usage or other rows refer to it, or a row that it refers" +
			" to is gone": reg.PurgeAPIKey(ctx, k.ID),
	} {
		require.EqualError(t, err, text)
	}
	require.ErrorIs(t, of(reg.CreateProvider(canceled, registry.ProviderInput{Name: "x"})), context.Canceled)
	err := of(reg.RevealAPIKey(ctx, k.ID))
	require.ErrorIs(t, err, registry.ErrNoSecret)
	require.ErrorContains(t, err, "WithKeyring")

	var gone *registry.Registry // of a transaction that has ended
	require.NoError(t, reg.InTx(ctx, func(tx *registry.Registry) error {
		gone = tx
		return nil
	}))
	require.NoError(t, reg.Close())
	require.EqualError(t, of(reg.FindProvider(ctx, "openai")), `find provider "openai": registry closed`)
	require.EqualError(
		t, reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}), "record usage: registry closed",
	)
	require.EqualError(t, reg.SetSetting(ctx, "a", "b"), `set setting "a": registry closed`)
	require.EqualError(
		t, reg.InTx(ctx, func(*registry.Registry) error { return nil }), "begin transaction: registry closed",
	)
	require.EqualError(
		t, gone.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}), "record usage: registry closed",
	)
}

// TestURLTexts names the parameters of a URL that make no sense, and never a value.
func TestURLTexts(t *testing.T) {
	t.Parallel()
	for url, says := range map[string]string{
		"h/db?sslmode=hunter2": "the value of sslmode cannot be understood",
		"u:hunter2@h/db?connect_timeout=hunter2&sslmode=disable": "the value of connect_timeout cannot be understood",
		"h/db?sslmode=hunter2&connect_timeout=hunter2":           "the value of connect_timeout and of sslmode cannot",
		"h/db?sslmode=require&sslrootcert=/hunter2":              "sslrootcert cannot be understood, or is a file",
		"h:port/db?sslmode=hunter2":                              "not a URL such as postgres://",
	} {
		_, err := registry.Open(t.Context(), "postgres://"+url)
		require.ErrorIs(t, err, registry.ErrInvalidData, url)
		require.ErrorContains(t, err, says)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

// TestTakenTexts reads what is said of a name that is taken already.
func TestTakenTexts(t *testing.T) { eachEngine(t, testTakenTexts) }

func testTakenTexts(t *testing.T, e engine) {
	reg, _ := e.setup(t)
	ctx := t.Context()
	p, other := mustProvider(t, reg, "openai"), mustProvider(t, reg, "local")
	mustModel(t, reg, p.ID, "gpt-4", nil)
	mustKey(t, reg, p.ID, 1)
	of := func(_ any, err error) error { return err }
	family := func(name string) uuid.UUID {
		return must(reg.CreateFamily(ctx, registry.FamilyInput{ProviderID: p.ID, Name: name})).ID
	}
	group := func(name string) uuid.UUID {
		return must(reg.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: p.ID, Name: name})).ID
	}
	two := func(first, second string) error {
		_, err := reg.CreateModels(ctx, []registry.ModelInput{
			{ProviderID: p.ID, ModelID: first}, {ProviderID: p.ID, ModelID: second},
		})
		return err
	}
	renamed, f, g := "openai", family("GPT"), group("account")
	family("o")
	group("other")
	sibling := mustKey(t, reg, p.ID, 2)
	for text, err := range map[string]error{
		"create 2 models: already exists: model 1: \"gpt-4\" of provider " +
			p.ID.String(): two("new", "gpt-4"),
		"create 2 models: already exists: models 0 and 1 are both \"new\" of provider " +
			p.ID.String(): two("new", "new"),
		"update provider " + other.ID.String() +
			`: already exists: another provider is called "openai"`: of(reg.UpdateProvider(
			ctx, other.ID, registry.ProviderUpdate{Name: &renamed})),
		"update family " + f.String() +
			`: already exists: another family of the provider is called "o"`: of(reg.UpdateFamily(
			ctx, f, registry.FamilyUpdate{Name: ptr("o")})),
		"update quota group " + g.String() +
			`: already exists: another quota group of the provider is called "other"`: of(
			reg.UpdateQuotaGroup(ctx, g, registry.QuotaGroupUpdate{Name: ptr("other")})),
		"rotate API key " + sibling.ID.String() +
			": already exists: the provider has the new key already": of(reg.RotateAPIKey(
			ctx, sibling.ID, registry.KeyRotationInput{APIKey: secret(1)})),
	} {
		require.EqualError(t, err, text)
	}
	require.ErrorIs(t, two("new", "gpt-4"), registry.ErrConflict)
	require.NoError(t, reg.InTx(ctx, func(tx *registry.Registry) error {
		_, err := tx.CreateModels(
			ctx, []registry.ModelInput{{ProviderID: p.ID, ModelID: "gpt-4"}, {ProviderID: p.ID, ModelID: "new"}},
		)
		require.EqualError(t, err, "create 2 models: already exists: model 0: \"gpt-4\" of provider "+p.ID.String())
		_, err = tx.UpdateProvider(ctx, other.ID, registry.ProviderUpdate{Name: &renamed})
		require.ErrorIs(t, err, registry.ErrConflict)
		return nil
	}))
}

// TestKeyringTexts says what is missing where a variable of the environment is not set.
func TestKeyringTexts(t *testing.T) {
	t.Parallel()
	_, err := registry.ParseKeyring("")
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.ErrorContains(t, err, "there are no keys")
	_, err = registry.NewKeyring("a", map[string][]byte{"b": []byte(strings.Repeat("ab", 16))})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.NotContains(t, err.Error(), "seal:")
}

// TestMisspelledParameter: the server does not know a parameter of the URL.
func TestMisspelledParameter(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, "", nil)
	with := "?"
	if strings.Contains(url, "?") {
		with = "&"
	}
	_, err := registry.Open(t.Context(), url+with+"sslmod=disable")
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.ErrorContains(t, err, "sslmod")
	require.NotContains(t, err.Error(), "\n")
}

// TestExhausted takes all locks that a server has: others are told which of its settings is too low.
func TestExhausted(t *testing.T) {
	t.Parallel()
	c := pgCluster(t, "max_locks_per_transaction = 10", "max_connections = 20")
	reg := must(registry.Open(t.Context(), c.URL("postgres"), registry.WithMaxConns(4)))
	defer func() { require.NoError(t, reg.Close()) }()
	p := mustProvider(t, reg, "p")
	m, k := mustModel(t, reg, p.ID, "m", gpt4()), mustKey(t, reg, p.ID, 1)
	record(t, reg, m, k, 1, 1)
	db := must(sql.Open("pgx", c.URL("postgres")))
	_, err := db.ExecContext(t.Context(), "SELECT count(pg_advisory_lock(n)) FROM generate_series(1, 1000000) AS n")
	require.ErrorContains(t, err, "53200") // they stay locked
	err = reg.RecordUsage(t.Context(), registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID})
	require.ErrorIs(t, err, registry.ErrExhausted)
	require.ErrorIs(t, err, registry.ErrUnavailable)
	require.ErrorContains(t, err, "max_locks_per_transaction")
	require.NoError(t, db.Close())
	require.Eventually(t, func() bool {
		return reg.RecordUsage(t.Context(), registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID}) == nil
	}, 20*time.Second, 50*time.Millisecond)
	require.EqualValues(t, 2, recorded(t, reg))
}
