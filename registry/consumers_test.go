package registry_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// mustConsumer creates a consumer below another one, or at the root; of a kind, if one is given.
func mustConsumer(
	tb testing.TB, reg *registry.Registry, name string, parentID uuid.UUID, kind ...string,
) *ent.Consumer {
	tb.Helper()
	in := registry.ConsumerInput{Name: name, ParentID: parentID, Kind: strings.Join(kind, "")}
	c, err := reg.CreateConsumer(tb.Context(), in)
	require.NoError(tb, err)
	return c
}

// mustLevels returns a consumer of each level, the root first.
func mustLevels(tb testing.TB, reg *registry.Registry, n int) (levels []*ent.Consumer) {
	tb.Helper()
	parent := uuid.Nil
	for i := range n {
		levels = append(levels, mustConsumer(tb, reg, fmt.Sprint("level ", i+1), parent))
		parent = levels[i].ID
	}
	return levels
}

// requirePaths requires that the path of every consumer is that of its parent and its own id.
func requirePaths(tb testing.TB, reg *registry.Registry) {
	tb.Helper()
	all := reg.Client().Consumer.Query().AllX(tb.Context())
	paths := map[uuid.UUID]string{}
	for _, c := range all {
		paths[c.ID] = c.Path
	}
	for _, c := range all {
		want := c.ID.String()
		if c.ParentID != nil {
			want = paths[*c.ParentID] + "/" + want
		}
		require.Equal(tb, want, c.Path, c.Name)
	}
}

func consumerNames(tb testing.TB, all []*ent.Consumer, err error) (names []string) {
	tb.Helper()
	require.NoError(tb, err)
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names
}

// TestConsumers creates a tree of all levels, and finds and changes what is in it.
func TestConsumers(t *testing.T) { eachEngine(t, testConsumers) }

func testConsumers(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	levels := mustLevels(t, reg, registry.MaxConsumerLevels)
	requirePaths(t, reg)
	for i, c := range levels {
		require.Equal(t, i, strings.Count(c.Path, "/"))
	}
	_, err := reg.CreateConsumer(ctx, registry.ConsumerInput{Name: "ninth", ParentID: levels[7].ID})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.ErrorContains(t, err, "9 levels, more than 8")

	p := mustProvider(t, reg, "openai")
	mustModel(t, reg, p.ID, "gpt-4", nil)
	permissions := []registry.Permission{
		{ProviderID: p.ID, Models: []string{"gpt-4", "o*"}}, {ProviderID: p.ID, Deny: true, Models: []string{"o1*"}},
	}
	other, err := reg.CreateConsumer(ctx, registry.ConsumerInput{
		Name: "other", ParentID: levels[0].ID, Kind: "user", ExternalID: "u-1", Permissions: permissions,
	})
	require.NoError(t, err)
	got := must(reg.GetConsumer(ctx, other.ID))
	require.Equal(t, permissions, got.Permissions)
	require.Equal(t, []any{"user", "u-1", false}, []any{got.Kind, *got.ExternalID, got.Disabled})
	require.Equal(t, other.ID, must(reg.FindConsumer(ctx, "u-1")).ID)
	for _, id := range []string{"u-2", "", "u\x00"} {
		_, err = reg.FindConsumer(ctx, id)
		require.ErrorIs(t, err, registry.ErrNotFound)
	}

	changed, err := reg.UpdateConsumer(ctx, other.ID, registry.ConsumerUpdate{
		Name: ptr("renamed"), Kind: ptr("team"), ExternalID: ptr(""), Permissions: &[]registry.Permission{},
		Disabled: ptr(true),
	})
	require.NoError(t, err)
	require.Equal(t, []any{"renamed", "team", true}, []any{changed.Name, changed.Kind, changed.Disabled})
	require.Nil(t, changed.ExternalID)
	require.Nil(t, changed.Permissions)
	_, err = reg.FindConsumer(ctx, "u-1")
	require.ErrorIs(t, err, registry.ErrNotFound)
	mustConsumer(t, reg, "other", levels[0].ID) // the name is free
}

// refusedConsumer is an input that is refused.
type refusedConsumer struct {
	in   registry.ConsumerInput
	want error
	says string
}

// refusedConsumers are inputs that are refused for new consumers and for those there are.
func refusedConsumers(openai, gone uuid.UUID) map[string]refusedConsumer {
	permit := func(models ...string) []registry.Permission {
		return []registry.Permission{{ProviderID: openai, Models: models}}
	}
	long := strings.Repeat("é", 129)
	return map[string]refusedConsumer{
		"no name":          {registry.ConsumerInput{}, registry.ErrInvalidData, "name is empty"},
		"long name":        {registry.ConsumerInput{Name: long}, registry.ErrInvalidData, "name has 129 characters"},
		"name of controls": {registry.ConsumerInput{Name: "a\nb"}, registry.ErrInvalidData, "name has control"},
		"long kind": {
			registry.ConsumerInput{Name: "x", Kind: strings.Repeat("k", 33)}, registry.ErrInvalidData,
			"kind has 33 characters",
		},
		"long external id": {
			registry.ConsumerInput{Name: "x", ExternalID: long}, registry.ErrInvalidData, "external_id has 129",
		},
		"no provider": {
			registry.ConsumerInput{Name: "x", Permissions: []registry.Permission{{}}}, registry.ErrInvalidData,
			"permissions has an entry without a provider",
		},
		"unknown provider": {
			registry.ConsumerInput{Name: "x", Permissions: []registry.Permission{{ProviderID: uuid.Max}}},
			registry.ErrForeignKey, "provider " + uuid.Max.String() + ": not found",
		},
		"deleted provider": {
			registry.ConsumerInput{Name: "x", Permissions: []registry.Permission{{ProviderID: gone}}},
			registry.ErrForeignKey, "provider " + gone.String() + ": not found",
		},
		"unknown model": {
			registry.ConsumerInput{Name: "x", Permissions: permit("deleted*", "nope")}, registry.ErrForeignKey,
			`model "nope" of provider`,
		},
		"deleted model": {
			registry.ConsumerInput{Name: "x", Permissions: permit("deleted")}, registry.ErrForeignKey,
			`model "deleted" of provider`,
		},
		"a model without a name": {
			registry.ConsumerInput{Name: "x", Permissions: permit("")}, registry.ErrInvalidData,
			"permissions has an entry whose list of models has a name that is empty",
		},
		"too many permissions": {
			registry.ConsumerInput{Name: "x", Permissions: make([]registry.Permission, 101)}, registry.ErrInvalidData,
			"permissions has 101 entries, more than 100",
		},
		"too many models": {
			registry.ConsumerInput{Name: "x", Permissions: append(
				permit(strings.Split(strings.Repeat("*,", 999), ",")[:999]...), permit("a*", "b*")...,
			)}, registry.ErrInvalidData, "permissions has 1001 names of models, more than 1000",
		},
	}
}

// TestConsumersRefused gives operations on consumers what they refuse, each by its name, and sees nothing written.
func TestConsumersRefused(t *testing.T) { eachEngine(t, testConsumersRefused) }

func testConsumersRefused(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	gone := mustProvider(t, reg, "gone")
	require.NoError(t, reg.DeleteProvider(ctx, gone.ID))
	deleted := mustModel(t, reg, p.ID, "deleted", nil)
	require.NoError(t, reg.DeleteModel(ctx, deleted.ID))
	org := mustConsumer(t, reg, "org", uuid.Nil)
	team, err := reg.CreateConsumer(ctx, registry.ConsumerInput{Name: "team", ParentID: org.ID, ExternalID: "t-1"})
	require.NoError(t, err)
	removed := mustConsumer(t, reg, "removed", uuid.Nil)
	require.NoError(t, reg.DeleteConsumer(ctx, removed.ID))
	before := dump(t, reg)
	for name, test := range refusedConsumers(p.ID, gone.ID) {
		_, err := reg.CreateConsumer(ctx, test.in)
		require.ErrorIs(t, err, test.want, name)
		require.ErrorContains(t, err, test.says, name)
		_, err = reg.UpdateConsumer(ctx, team.ID, registry.ConsumerUpdate{
			Name: &test.in.Name, Permissions: &test.in.Permissions, Kind: &test.in.Kind,
			ExternalID: &test.in.ExternalID,
		})
		require.ErrorIs(t, err, test.want, name)
		require.ErrorContains(t, err, test.says, name)
	}
	for name, test := range map[string]refusedConsumer{
		"same name, no parent": {registry.ConsumerInput{Name: "org"}, registry.ErrConflict, `called "org"`},
		"same name, same parent": {
			registry.ConsumerInput{Name: "team", ParentID: org.ID}, registry.ErrConflict, `called "team"`,
		},
		"same external id": {
			registry.ConsumerInput{Name: "x", ExternalID: "t-1"}, registry.ErrConflict, `the external id "t-1"`,
		},
		"unknown parent": {registry.ConsumerInput{Name: "x", ParentID: p.ID}, registry.ErrForeignKey, "parent"},
		"deleted parent": {registry.ConsumerInput{Name: "x", ParentID: removed.ID}, registry.ErrForeignKey, "parent"},
	} {
		_, err := reg.CreateConsumer(ctx, test.in)
		require.ErrorIs(t, err, test.want, name)
		require.ErrorContains(t, err, test.says, name)
	}
	_, err = reg.EnsureConsumer(ctx, registry.ConsumerInput{Name: "x"})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.ErrorContains(t, err, "external_id is empty")
	_, err = reg.EnsureConsumer(ctx, registry.ConsumerInput{Name: "org", ExternalID: "new"})
	require.ErrorIs(t, err, registry.ErrConflict)
	_, err = reg.UpdateConsumer(ctx, org.ID, registry.ConsumerUpdate{ExternalID: ptr("t-1")})
	require.ErrorIs(t, err, registry.ErrConflict)
	_, err = reg.UpdateConsumer(ctx, org.ID, registry.ConsumerUpdate{Name: ptr("")})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	for name, err := range map[string]error{
		"GetConsumer":      second(reg.GetConsumer(ctx, p.ID)),
		"UpdateConsumer":   second(reg.UpdateConsumer(ctx, removed.ID, registry.ConsumerUpdate{Kind: ptr("x")})),
		"MoveConsumer":     second(reg.MoveConsumer(ctx, removed.ID, org.ID)),
		"DeleteConsumer":   reg.DeleteConsumer(ctx, removed.ID),
		"UndeleteConsumer": second(reg.UndeleteConsumer(ctx, p.ID)),
		"PurgeConsumer":    reg.PurgeConsumer(ctx, p.ID),
		"ListConsumers":    second(reg.ListConsumers(ctx, registry.ConsumerFilter{Subtree: p.ID})),
	} {
		require.ErrorIs(t, err, registry.ErrNotFound, name)
	}
	for _, filter := range []registry.ConsumerFilter{{Limit: 1001}, {Kind: "\n"}} {
		require.ErrorIs(t, second(reg.ListConsumers(ctx, filter)), registry.ErrInvalidData)
	}
	require.Equal(t, before, dump(t, reg))
}

// second returns the error of an operation.
func second(_ any, err error) error { return err }

// TestListConsumers lists consumers by what is above them.
func TestListConsumers(t *testing.T) { eachEngine(t, testListConsumers) }

func testListConsumers(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	one, two := mustConsumer(t, reg, "1", uuid.Nil), mustConsumer(t, reg, "2", uuid.Nil)
	oneB := mustConsumer(t, reg, "1b", one.ID)
	mustConsumer(t, reg, "2a", two.ID)
	mustConsumer(t, reg, "1ba", oneB.ID)
	must(reg.CreateConsumer(ctx, registry.ConsumerInput{Name: "1c", ParentID: one.ID, Kind: "user"}))
	gone := mustConsumer(t, reg, "1d", one.ID)
	require.NoError(t, reg.DeleteConsumer(ctx, gone.ID))
	for _, test := range []struct {
		filter registry.ConsumerFilter
		want   string
	}{
		{registry.ConsumerFilter{}, "1 1b 1ba 1c 2 2a"},
		{registry.ConsumerFilter{Roots: true}, "1 2"},
		{registry.ConsumerFilter{ParentID: one.ID}, "1b 1c"},
		{registry.ConsumerFilter{Subtree: one.ID}, "1 1b 1ba 1c"},
		{registry.ConsumerFilter{Subtree: oneB.ID}, "1b 1ba"},
		{registry.ConsumerFilter{Kind: "user"}, "1c"},
		{registry.ConsumerFilter{Deleted: true}, "1d"},
		{registry.ConsumerFilter{Subtree: two.ID, Deleted: true}, ""},
	} {
		all, err := reg.ListConsumers(ctx, test.filter)
		require.Equal(t, test.want, strings.Join(consumerNames(t, all, err), " "), "%+v", test.filter)
		test.filter.Limit = 1
		all, err = collect(registry.All(ctx, reg.ListConsumers, test.filter))
		require.Equal(t, test.want, strings.Join(consumerNames(t, all, err), " "), "%+v", test.filter)
	}
}

// TestEnsureConsumer ensures consumers from many goroutines at once: each external id has one row.
func TestEnsureConsumer(t *testing.T) { eachEngineAtOnce(t, testEnsureConsumer) }

func testEnsureConsumer(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	org := mustConsumer(t, reg, "org", uuid.Nil)
	const callers, users = 32, 4
	var all sync.WaitGroup
	ids, errs := make([]uuid.UUID, callers), make([]error, callers)
	for i := range callers {
		all.Go(func() {
			name := fmt.Sprint("user ", i%users)
			c, err := reg.EnsureConsumer(t.Context(), registry.ConsumerInput{
				Name: name, ParentID: org.ID, ExternalID: name, Kind: fmt.Sprint("of ", i),
			})
			if errs[i] = err; err == nil {
				ids[i] = c.ID
			}
		})
	}
	all.Wait()
	for i := range callers {
		require.NoError(t, errs[i])
		require.Equal(t, ids[i%users], ids[i])
	}
	require.Equal(t, users+1, reg.Client().Consumer.Query().CountX(t.Context()))
	require.NoError(t, reg.DeleteConsumer(t.Context(), ids[0]))
	again, err := reg.EnsureConsumer(t.Context(), registry.ConsumerInput{Name: "user 0", ExternalID: "user 0"})
	require.NoError(t, err)
	require.NotEqual(t, ids[0], again.ID, "a deleted consumer's external id is free")
}
