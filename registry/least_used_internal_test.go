package registry

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// TestLeastUsedKey compares the row that least_used.go reads with Ent's, field by field, where no column has its
// default, a new one neither.
func TestLeastUsedKey(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return filepath.Join(t.TempDir(), "db") }, //nolint:thelper // one line
		"postgres": func(t *testing.T) string { return pgtest.Database(t, "", nil) },      //nolint:thelper // one line
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, err := Open(t.Context(), open(t))
			require.NoError(t, err)
			defer func() { require.NoError(t, reg.Close()) }()
			full, bare := fullAndBareKey(t, reg)
			now := reg.now()
			for range 2 { // the first row is Ent's, from which least_used.go takes nothing but the client
				_, err := reg.leastUsedKey(t.Context(), full.ProviderID, now)
				require.NoError(t, err)
			}
			for _, want := range []*ent.APIKey{full, bare} {
				blank := *reg.blank.Load()
				got, err := readLeastUsed(t.Context(), reg.fresh, &blank, want.ProviderID, now)
				require.NoError(t, err)
				requireSameFields(t, want, got)
			}
			for _, field := range defaultFields(full, bare) {
				require.Contains(
					t, []string{"DeletedAt", "Disabled", "Edges"}, field, "a row with its default here tests nothing",
				)
			}
			requireNullIsZero(t, reg, full)
			provider, err := reg.blank.Load().QueryProvider().Only(t.Context())
			require.True(t, ent.IsNotFound(err), "%v %v", provider, err)
		})
	}
}

// requireNullIsZero scans a row in which every column is NULL over a key: a new column may be NULL whose field is no
// pointer.
func requireNullIsZero(t *testing.T, reg *Registry, over *ent.APIKey) {
	t.Helper()
	row := "SELECT NULL" + strings.Repeat(", NULL", len(apikey.Columns)-1)
	got := *over
	err := bulk.Scan(
		t.Context(), reg.client, row, nil, func(scan func(...any) error) error { return scan(cellsOf(&got)...) },
	)
	require.NoError(t, err)
	got.ID, got.ProviderID = uuid.Nil, uuid.Nil // a uuid.UUID lets NULL be
	requireSameFields(t, new(ent.APIKey), &got)
}

// fullAndBareKey returns, as Ent reads them, a key in which nothing has its default but what keeps a key from being
// used, and the only key of another provider, in which all has.
func fullAndBareKey(t *testing.T, reg *Registry) (full, bare *ent.APIKey) {
	t.Helper()
	ctx := t.Context()
	add := func(provider string) *ent.APIKey {
		p, err := reg.CreateProvider(ctx, ProviderInput{Name: provider})
		require.NoError(t, err)
		k, err := reg.AddAPIKey(ctx, KeyInput{ProviderID: p.ID, APIKey: provider + "-sk-" + uuid.NewString()})
		require.NoError(t, err)
		return k
	}
	full, bare = add("full"), add("bare")
	g, err := reg.CreateQuotaGroup(ctx, QuotaGroupInput{ProviderID: full.ProviderID, Name: "g"})
	require.NoError(t, err)
	then := utc.Of(time.Now().Add(-time.Hour))
	dataKey := reg.Past().DataKey.Create().SetWrappedBy("x").SetWrapped([]byte("12345678")).SetCreatedAt(then).
		SaveX(ctx)
	reg.Past().APIKey.UpdateOneID(full.ID).
		SetLabel("label").SetUsageCount(12).SetTokenCount(13).SetExtraRequests(2).SetExtraTokens(3).
		SetDegraded(true).SetDegradedUntil(then).SetDegradedReason("reason").SetDegradedBy("auth").SetDegradedAt(then).
		SetFailures(4).SetCountedClass("auth").SetCountedAt(then).SetFailureClass("auth").SetFailedAt(then).
		SetSucceededAt(then).
		SetPass(5).SetWeight(6).SetPriority(7).SetAllowedModels([]string{"a"}).SetDeniedModels([]string{"b", "c"}).
		SetQuotaGroupID(g.ID).
		SetRequestsPerMinute(21).SetTokensPerMinute(22).SetRequestsPerDay(23).SetTokensPerDay(24).SetConcurrency(25).
		SetCostPerDay(26).
		SetMinute(then).SetRequestsThisMinute(31).SetTokensThisMinute(32).SetRequestsToday(33).SetTokensToday(34).
		SetCostToday(35).
		SetLastReset(then).SetObserved([]byte(`{"requests":{}}`)).SetLastUsedAt(then).
		SetExpiresAt(then.AddDate(1, 0, 0)).
		SetSealed([]byte("sealed")).SetDataKeyID(dataKey.ID).ExecX(ctx)
	full, bare = reg.client.APIKey.GetX(ctx, full.ID), reg.client.APIKey.GetX(ctx, bare.ID)
	for _, name := range defaultFields(full, bare) {
		fillNew(t, reg, full, name, then)
	}
	return reg.client.APIKey.GetX(ctx, full.ID), bare
}

// fillNew gives a field that fullAndBareKey does not know a value that is not the default.
func fillNew(t *testing.T, reg *Registry, key *ent.APIKey, name string, then time.Time) {
	t.Helper()
	column := slices.IndexFunc(
		apikey.Columns, func(c string) bool { return strings.EqualFold(strings.ReplaceAll(c, "_", ""), name) },
	)
	if column < 0 || slices.Contains([]string{"DeletedAt", "Disabled"}, name) {
		return
	}
	f, _ := reflect.TypeFor[ent.APIKey]().FieldByName(name)
	kind := f.Type.Kind()
	if kind == reflect.Pointer {
		kind = f.Type.Elem().Kind()
	}
	value := map[reflect.Kind]any{
		reflect.String: "x", reflect.Int: 1, reflect.Int64: 1, reflect.Bool: true, reflect.Struct: then,
	}[kind]
	_, err := reg.client.ExecContext(
		t.Context(), "UPDATE api_keys SET "+apikey.Columns[column]+" = $1 WHERE id = $2", value, key.ID,
	)
	require.NoError(t, err, name)
}

// defaultFields are the fields that are the same in both keys.
func defaultFields(a, b *ent.APIKey) (names []string) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[ent.APIKey]()) {
		if f.IsExported() && reflect.DeepEqual(valueOf(a, f), valueOf(b, f)) {
			names = append(names, f.Name)
		}
	}
	return names
}

func valueOf(k *ent.APIKey, f reflect.StructField) any {
	return reflect.ValueOf(k).Elem().FieldByIndex(f.Index).Interface()
}

func requireSameFields(t *testing.T, want, got *ent.APIKey) {
	t.Helper()
	fields := slices.DeleteFunc(
		reflect.VisibleFields(reflect.TypeFor[ent.APIKey]()),
		func(f reflect.StructField) bool { return !f.IsExported() },
	)
	require.Greater(t, len(fields), 40)
	for _, f := range fields {
		require.Equal(t, valueOf(want, f), valueOf(got, f), f.Name)
	}
}

// BenchmarkLeastUsedKey compares the statement of least_used.go with Ent's.
//
//	go test -run '^$' -bench LeastUsedKey$ -count 6 ./registry
func BenchmarkLeastUsedKey(b *testing.B) {
	reg, err := Open(b.Context(), filepath.Join(b.TempDir(), "db"))
	require.NoError(b, err)
	defer func() { require.NoError(b, reg.Close()) }()
	p, err := reg.CreateProvider(b.Context(), ProviderInput{Name: "p"})
	require.NoError(b, err)
	for i := range 10 {
		_, err := reg.AddAPIKey(
			b.Context(), KeyInput{ProviderID: p.ID, APIKey: "sk-test-" + uuid.NewString(), Weight: i + 1},
		)
		require.NoError(b, err)
	}
	now := time.Now().UTC()
	b.Run("impl=hot", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := reg.leastUsedKey(b.Context(), p.ID, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("impl=ent", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := leastUsed(reg.fresh, p.ID, now).First(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
