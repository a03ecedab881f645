package registry_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestMoveConsumer moves subtrees: their paths follow, the deleted ones' too.
func TestMoveConsumer(t *testing.T) { eachEngine(t, testMoveConsumer) }

func testMoveConsumer(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	levels := mustLevels(t, reg, 4)
	gone := mustConsumer(t, reg, "gone", levels[2].ID)
	require.NoError(t, reg.DeleteConsumer(ctx, gone.ID))
	beside := mustConsumer(t, reg, "beside", levels[0].ID)
	other := mustConsumer(t, reg, "other", uuid.Nil)
	clock.Advance(time.Minute)

	moved, err := reg.MoveConsumer(ctx, levels[1].ID, other.ID)
	require.NoError(t, err)
	require.Equal(t, other.ID, *moved.ParentID)
	require.Equal(t, other.Path+"/"+levels[1].ID.String(), moved.Path)
	requirePaths(t, reg)
	require.Equal(t, inJSON(t, beside), inJSON(t, must(reg.GetConsumer(ctx, beside.ID))), "it is not below")
	list, err := reg.ListConsumers(ctx, registry.ConsumerFilter{Subtree: other.ID})
	require.Equal(t, []string{"other", "level 2", "level 3", "level 4"}, consumerNames(t, list, err))
	require.True(t, list[3].UpdatedAt.Equal(clock.Now()))

	moved, err = reg.MoveConsumer(ctx, levels[2].ID, uuid.Nil)
	require.NoError(t, err)
	require.Nil(t, moved.ParentID)
	require.Equal(t, levels[2].ID.String(), moved.Path)
	requirePaths(t, reg)
	must(reg.MoveConsumer(ctx, levels[2].ID, levels[1].ID))
	place := must(reg.GetConsumer(ctx, levels[2].ID))
	clock.Advance(time.Minute)
	stays := must(reg.MoveConsumer(ctx, levels[2].ID, levels[1].ID))
	require.Equal(t, inJSON(t, place), inJSON(t, stays), "it is there")

	before := dump(t, reg)
	twin := levels[3].Name
	for name, test := range map[string]struct {
		id, parent uuid.UUID
		want       error
		says       string
	}{
		"below itself":     {other.ID, other.ID, registry.ErrInvalidData, "is the one to be moved, or below it"},
		"below its child":  {other.ID, levels[2].ID, registry.ErrInvalidData, "is the one to be moved, or below it"},
		"unknown parent":   {other.ID, uuid.New(), registry.ErrForeignKey, "parent"},
		"deleted parent":   {beside.ID, gone.ID, registry.ErrForeignKey, "parent"},
		"deleted consumer": {gone.ID, beside.ID, registry.ErrNotFound, "not found"},
	} {
		_, err := reg.MoveConsumer(ctx, test.id, test.parent)
		require.ErrorIs(t, err, test.want, name)
		require.ErrorContains(t, err, test.says, name)
	}
	require.Equal(t, before, dump(t, reg))
	mustConsumer(t, reg, twin, other.ID)
	_, err = reg.MoveConsumer(ctx, levels[3].ID, other.ID)
	require.ErrorIs(t, err, registry.ErrConflict)
	require.ErrorContains(t, err, `another consumer of the parent is called "level 4"`)
	mustConsumer(t, reg, twin, uuid.Nil)
	_, err = reg.MoveConsumer(ctx, levels[3].ID, uuid.Nil)
	require.ErrorIs(t, err, registry.ErrConflict)
}

// TestMoveConsumerLevels moves subtrees to where a ninth level would be; a deleted consumer counts.
func TestMoveConsumerLevels(t *testing.T) { eachEngine(t, testMoveConsumerLevels) }

func testMoveConsumerLevels(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	levels := mustLevels(t, reg, registry.MaxConsumerLevels)
	top := mustConsumer(t, reg, "top", uuid.Nil)
	child := mustConsumer(t, reg, "child", top.ID)
	_, err := reg.MoveConsumer(ctx, top.ID, levels[6].ID)
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.ErrorContains(t, err, "9 levels, more than 8")
	require.NoError(t, reg.DeleteConsumer(ctx, child.ID))
	_, err = reg.MoveConsumer(ctx, top.ID, levels[6].ID)
	require.ErrorIs(t, err, registry.ErrInvalidData)
	require.NoError(t, reg.PurgeConsumer(ctx, child.ID))
	must(reg.MoveConsumer(ctx, top.ID, levels[6].ID))
	requirePaths(t, reg)
}

// TestMoveConsumerAtOnce moves consumers below each other and creates some below them, from many goroutines: the tree
// stays one.
func TestMoveConsumerAtOnce(t *testing.T) { eachEngineAtOnce(t, testMoveConsumerAtOnce) }

func testMoveConsumerAtOnce(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	var tops []*ent.Consumer
	for i := range 3 {
		tops = append(tops, mustConsumer(t, reg, fmt.Sprint("top ", i), uuid.Nil))
	}
	var all sync.WaitGroup
	errs := make(chan error, 100)
	for i := range 12 {
		all.Go(func() {
			from, to := tops[i%3], tops[(i+1+i/3%2)%3]
			_, err := reg.MoveConsumer(t.Context(), from.ID, to.ID) // may be refused: it would be a cycle
			if err == nil {
				_, err = reg.CreateConsumer(t.Context(), registry.ConsumerInput{
					Name: fmt.Sprint(i), ParentID: from.ID,
				})
				errs <- err
				_, err = reg.MoveConsumer(t.Context(), from.ID, uuid.Nil)
				errs <- err
				return
			}
			if !strings.Contains(err.Error(), "is the one to be moved, or below it") {
				errs <- err
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	requirePaths(t, reg)
}

// TestDeleteConsumer deletes, undeletes and purges subtrees with their access keys.
func TestDeleteConsumer(t *testing.T) { eachEngine(t, testDeleteConsumer) }

func testDeleteConsumer(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	org := mustConsumer(t, reg, "org", uuid.Nil)
	team, err := reg.CreateConsumer(ctx, registry.ConsumerInput{Name: "team", ParentID: org.ID, ExternalID: "t"})
	require.NoError(t, err)
	user, before := mustConsumer(t, reg, "user", team.ID), mustConsumer(t, reg, "before", team.ID)
	apart := mustConsumer(t, reg, "apart", org.ID)
	key, secret := mustAccessKey(t, reg, user.ID)
	early, _ := mustAccessKey(t, reg, team.ID)
	of, _ := mustAccessKey(t, reg, apart.ID)
	require.NoError(t, reg.DeleteConsumer(ctx, before.ID))
	require.NoError(t, reg.DeleteAccessKey(ctx, early.ID))
	clock.Advance(time.Minute)

	require.NoError(t, reg.DeleteConsumer(ctx, team.ID))
	live, err := reg.ListConsumers(ctx, registry.ConsumerFilter{})
	require.Equal(t, []string{"org", "apart"}, consumerNames(t, live, err))
	keys := must(reg.ListAccessKeys(ctx, registry.AccessKeyFilter{}))
	require.Len(t, keys, 1)
	require.Equal(t, of.ID, keys[0].ID)
	require.True(t, must(reg.GetAccessKey(ctx, key.ID)).DeletedAt.Equal(clock.Now()))
	refused(t, reg, secret, registry.AccessKeyDeleted)
	clock.Advance(time.Minute)

	again, err := reg.EnsureConsumer(ctx, registry.ConsumerInput{Name: "new", ExternalID: "t"})
	require.NoError(t, err)
	_, err = reg.UndeleteConsumer(ctx, team.ID)
	require.ErrorIs(t, err, registry.ErrConflict)
	require.ErrorContains(t, err, `another consumer is called "team" now, or has an external id`)
	require.NoError(t, reg.PurgeConsumer(ctx, again.ID))
	require.NoError(t, reg.DeleteConsumer(ctx, org.ID))
	_, err = reg.UndeleteConsumer(ctx, team.ID)
	require.ErrorIs(t, err, registry.ErrForeignKey)
	require.ErrorContains(t, err, "undelete the parent first")
	must(reg.UndeleteConsumer(ctx, org.ID))
	live, err = reg.ListConsumers(ctx, registry.ConsumerFilter{})
	require.Equal(t, []string{"org", "apart"}, consumerNames(t, live, err), "what was deleted then")

	refused(t, reg, secret, registry.AccessKeyDeleted) // and remembered
	back, err := reg.UndeleteConsumer(ctx, team.ID)
	require.NoError(t, err)
	require.Nil(t, back.DeletedAt)
	live, err = reg.ListConsumers(ctx, registry.ConsumerFilter{})
	require.Equal(t, []string{"org", "team", "user", "apart"}, consumerNames(t, live, err))
	require.Equal(t, user.ID, must(reg.Authenticate(ctx, secret)).ConsumerID)
	require.NotNil(t, must(reg.GetAccessKey(ctx, early.ID)).DeletedAt)
	require.Equal(t, inJSON(t, back), inJSON(t, must(reg.UndeleteConsumer(ctx, team.ID))), "it is live")

	require.NoError(t, reg.PurgeConsumer(ctx, org.ID))
	require.Zero(t, reg.Client().Consumer.Query().CountX(ctx))
	require.Zero(t, reg.Client().AccessKey.Query().CountX(ctx))
	refused(t, reg, secret, registry.UnknownSecret)
}

// TestUndeleteConsumerOnce deletes consumers of one name at one instant: the last one comes back, and what is below it.
func TestUndeleteConsumerOnce(t *testing.T) { eachEngine(t, testUndeleteConsumerOnce) }

func testUndeleteConsumerOnce(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	org := mustConsumer(t, reg, "org", uuid.Nil)
	makeTeam := func(child string) *ent.Consumer {
		team, err := reg.CreateConsumer(ctx, registry.ConsumerInput{Name: "team", ParentID: org.ID, ExternalID: "t"})
		require.NoError(t, err)
		must(reg.CreateConsumer(ctx, registry.ConsumerInput{Name: child, ParentID: team.ID, ExternalID: child}))
		return team
	}
	first := makeTeam("first's")
	require.NoError(t, reg.DeleteConsumer(ctx, first.ID))
	makeTeam("second's")
	require.NoError(t, reg.DeleteConsumer(ctx, org.ID))
	must(reg.UndeleteConsumer(ctx, org.ID))
	live, err := reg.ListConsumers(ctx, registry.ConsumerFilter{})
	require.Equal(t, []string{"org", "team", "second's"}, consumerNames(t, live, err))
}
