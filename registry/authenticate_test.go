package registry_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// openTwo opens two registries on one database, as two processes have them.
func (e engine) openTwo(t *testing.T) (one, two *registry.Registry, clock *registrytest.Clock) {
	t.Helper()
	clock = registrytest.NewClock(registrytest.Start)
	name := filepath.Join(t.TempDir(), "registry.db")
	if e.name == onPostgres.name {
		name = serviceURL(t)
	}
	one = mustOpen(t, name, registry.WithClock(clock.Now))
	two = mustOpen(t, name, registry.WithClock(clock.Now))
	t.Cleanup(func() {
		require.NoError(t, one.Close())
		require.NoError(t, two.Close())
	})
	return one, two, clock
}

// TestAuthenticate lets access keys in and refuses them, each for its reason.
func TestAuthenticate(t *testing.T) { eachEngine(t, testAuthenticate) }

func testAuthenticate(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	levels := mustLevels(t, reg, 3)
	key, secret := mustAccessKey(t, reg, levels[2].ID)
	caller := registry.Caller{AccessKeyID: key.ID, ConsumerID: levels[2].ID}
	for range 2 { // read, and remembered
		require.Equal(t, caller, must(reg.Authenticate(ctx, secret)))
	}
	for _, unknown := range []string{
		"", "short", secret + "x", secret[:len(secret)-1], strings.Repeat("x", 1<<16), "\x00",
	} {
		why := refused(t, reg, unknown, registry.UnknownSecret)
		require.Equal(t, registry.ForbiddenError{Reason: registry.UnknownSecret}, why)
	}
	for i, c := range levels {
		must(reg.UpdateConsumer(ctx, c.ID, registry.ConsumerUpdate{Disabled: ptr(true)}))
		why := refused(t, reg, secret, registry.ConsumerDisabled)
		require.Equal(t, []any{key.ID, c.ID, c.Name}, []any{why.AccessKeyID, why.ConsumerID, why.Name})
		require.Equal(t, fmt.Sprintf(`forbidden: consumer "level %d" is disabled`, i+1), why.Error())
		must(reg.UpdateConsumer(ctx, c.ID, registry.ConsumerUpdate{Disabled: ptr(false)}))
		require.Equal(t, caller, must(reg.Authenticate(ctx, secret)))
	}
	must(reg.UpdateAccessKey(ctx, key.ID, registry.AccessKeyUpdate{Disabled: ptr(true)}))
	why := refused(t, reg, secret, registry.AccessKeyDisabled)
	require.Equal(t, "forbidden: access key "+key.ID.String()+" is disabled", why.Error())
	must(reg.UpdateAccessKey(ctx, key.ID, registry.AccessKeyUpdate{
		Disabled: ptr(false), Label: ptr("laptop"), ExpiresAt: ptr(clock.Now().Add(time.Millisecond)),
	}))
	must(reg.Authenticate(ctx, secret))
	clock.Advance(time.Millisecond)
	refused(t, reg, secret, registry.AccessKeyExpired)
	must(reg.UpdateAccessKey(ctx, key.ID, registry.AccessKeyUpdate{ExpiresAt: &time.Time{}}))
	must(reg.Authenticate(ctx, secret))

	require.NoError(t, reg.DeleteAccessKey(ctx, key.ID))
	why = refused(t, reg, secret, registry.AccessKeyDeleted)
	require.Equal(t, `forbidden: access key "laptop" is deleted`, why.Error())
	_, err := reg.Authenticate(ctx, secret)
	require.EqualError(t, err, `authenticate: forbidden: access key "laptop" is deleted`)
	// A live access key of a deleted consumer: no operation leaves one.
	_, secret = mustAccessKey(t, reg, levels[2].ID)
	require.NoError(t, reg.Past().Consumer.UpdateOne(levels[0]).SetDeletedAt(clock.Now()).Exec(ctx))
	why = refused(t, reg, secret, registry.ConsumerDeleted)
	require.Equal(t, `forbidden: consumer "level 1" is deleted`, why.Error())
}

// TestAuthenticateInTx shows secrets within a transaction, which sees what it has changed; others see it afterwards.
func TestAuthenticateInTx(t *testing.T) { eachEngine(t, testAuthenticateInTx) }

func testAuthenticateInTx(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	c := mustConsumer(t, reg, "c", uuid.Nil)
	key, secret := mustAccessKey(t, reg, c.ID)
	must(reg.Authenticate(ctx, secret))
	remove := func(tx *registry.Registry) error {
		if err := tx.DeleteAccessKey(ctx, key.ID); err != nil {
			return err
		}
		refused(t, tx, secret, registry.AccessKeyDeleted)
		_, fresh := mustAccessKey(t, tx, c.ID)
		must(tx.Authenticate(ctx, fresh))
		must(reg.Authenticate(ctx, secret)) // nothing is committed yet, and this is remembered
		refused(t, tx, secret, registry.AccessKeyDeleted)
		return nil
	}
	require.ErrorIs(t, reg.InTx(ctx, func(tx *registry.Registry) error {
		require.NoError(t, remove(tx))
		return errRollback
	}), errRollback)
	must(reg.Authenticate(ctx, secret))
	require.NoError(t, reg.InTx(ctx, remove))
	refused(t, reg, secret, registry.AccessKeyDeleted)
}

// TestAuthenticateElsewhere ends access keys in one process, and has another one that remembers them see it within a
// second of the clock.
func TestAuthenticateElsewhere(t *testing.T) { eachEngine(t, testAuthenticateElsewhere) }

func testAuthenticateElsewhere(t *testing.T, e engine) {
	t.Parallel()
	one, two, clock := e.openTwo(t)
	ctx := t.Context()
	closed := mustConsumer(t, one, "closed", uuid.Nil)
	must(one.UpdateConsumer(ctx, closed.ID, registry.ConsumerUpdate{Disabled: ptr(true)}))
	var org, team *ent.Consumer
	for name, test := range map[string]struct {
		end  func(key uuid.UUID) error
		want registry.ForbiddenReason
	}{
		"DeleteAccessKey": {func(key uuid.UUID) error {
			return one.DeleteAccessKey(ctx, key)
		}, registry.AccessKeyDeleted},
		"UpdateAccessKey": {func(key uuid.UUID) error {
			_, err := one.UpdateAccessKey(ctx, key, registry.AccessKeyUpdate{Disabled: ptr(true)})
			return err
		}, registry.AccessKeyDisabled},
		"RotateAccessKey": {func(key uuid.UUID) error {
			_, _, err := one.RotateAccessKey(ctx, key, registry.AccessKeyRotation{})
			return err
		}, registry.AccessKeyExpired},
		"UpdateConsumer": {func(uuid.UUID) error {
			_, err := one.UpdateConsumer(ctx, org.ID, registry.ConsumerUpdate{Disabled: ptr(true)})
			return err
		}, registry.ConsumerDisabled},
		"MoveConsumer": {func(uuid.UUID) error {
			_, err := one.MoveConsumer(ctx, team.ID, closed.ID)
			return err
		}, registry.ConsumerDisabled},
		"DeleteConsumer": {func(uuid.UUID) error { return one.DeleteConsumer(ctx, org.ID) }, registry.AccessKeyDeleted},
		"PurgeConsumer":  {func(uuid.UUID) error { return one.PurgeConsumer(ctx, team.ID) }, registry.UnknownSecret},
	} {
		org = mustConsumer(t, one, name, uuid.Nil)
		team = mustConsumer(t, one, "team", org.ID)
		key, secret := mustAccessKey(t, one, team.ID)
		must(two.Authenticate(ctx, secret))
		require.NoError(t, test.end(key.ID), name)
		refused(t, one, secret, test.want)
		clock.Advance(time.Second - time.Microsecond)
		_, err := two.Authenticate(ctx, secret)
		require.NoError(t, err, "%s: it asks the database once a second", name)
		clock.Advance(time.Microsecond)
		refused(t, two, secret, test.want)
	}
}

// TestAuthenticateAtOnce shows a secret from many goroutines of two processes, while one of them ends the access key
// and the clock goes on: whoever begins a second later is refused.
func TestAuthenticateAtOnce(t *testing.T) { eachEngineAtOnce(t, testAuthenticateAtOnce) }

func testAuthenticateAtOnce(t *testing.T, e engine) {
	t.Parallel()
	one, two, clock := e.openTwo(t)
	c := mustConsumer(t, one, "c", uuid.Nil)
	key, secret := mustAccessKey(t, one, c.ID)
	var (
		all     sync.WaitGroup
		allowed atomic.Int64 // how often the key was let in
		over    atomic.Bool  // a second has passed since it was ended
	)
	begun := make(chan bool, 8)
	errs := make(chan error, 8)
	for i := range 8 {
		reg := []*registry.Registry{one, two}[i%2]
		all.Go(func() {
			for n := 0; ; n++ {
				late := over.Load()
				caller, err := reg.Authenticate(t.Context(), secret)
				switch {
				case err == nil && (late || caller.AccessKeyID != key.ID):
					errs <- fmt.Errorf("%+v was let in, late: %t", caller, late)
					return
				case err == nil:
					allowed.Add(1)
				case !errors.Is(err, registry.ErrForbidden):
					errs <- err
					return
				case late:
					return
				}
				if n == 0 {
					begun <- true
				}
			}
		})
	}
	for range 8 {
		<-begun
	}
	require.NoError(t, one.DeleteAccessKey(t.Context(), key.ID))
	clock.Advance(time.Second)
	over.Store(true)
	all.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.NotZero(t, allowed.Load())
}

// TestAuthenticateClosed asks a registry that remembers an access key and is closed.
func TestAuthenticateClosed(t *testing.T) { eachEngine(t, testAuthenticateClosed) }

func testAuthenticateClosed(t *testing.T, e engine) {
	t.Parallel()
	one, _, _ := e.openTwo(t)
	_, secret := mustAccessKey(t, one, mustConsumer(t, one, "c", uuid.Nil).ID)
	must(one.Authenticate(t.Context(), secret))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := one.Authenticate(ended, secret)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, one.Close())
	_, err = one.Authenticate(t.Context(), secret)
	require.ErrorIs(t, err, registry.ErrClosed)
}
