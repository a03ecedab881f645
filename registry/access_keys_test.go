package registry_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// mustAccessKey returns an access key of a consumer, and its secret in plain text.
func mustAccessKey(tb testing.TB, reg *registry.Registry, consumerID uuid.UUID) (*ent.AccessKey, string) {
	tb.Helper()
	key, secret, err := reg.CreateAccessKey(tb.Context(), registry.AccessKeyInput{ConsumerID: consumerID})
	require.NoError(tb, err)
	return key, revealed(tb, secret)
}

// revealed returns what a secret contains.
func revealed(tb testing.TB, secret registry.Secret) (text string) {
	tb.Helper()
	require.NoError(tb, secret.Use(func(key []byte) error {
		text = string(key)
		return nil
	}))
	return text
}

// refused requires that a secret is refused for a reason, and returns the error.
func refused(
	tb testing.TB, reg *registry.Registry, secret string, want registry.ForbiddenReason,
) registry.ForbiddenError {
	tb.Helper()
	caller, err := reg.Authenticate(tb.Context(), secret)
	require.ErrorIs(tb, err, registry.ErrForbidden)
	var why *registry.ForbiddenError
	require.ErrorAs(tb, err, &why)
	require.Equal(tb, want, why.Reason)
	require.Zero(tb, caller)
	if len(secret) >= 16 {
		require.NotContains(tb, err.Error(), secret)
	}
	return *why
}

// TestAccessKeys creates, changes and lists access keys.
func TestAccessKeys(t *testing.T) { eachEngine(t, testAccessKeys) }

func testAccessKeys(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	c, other := mustConsumer(t, reg, "c", uuid.Nil), mustConsumer(t, reg, "other", uuid.Nil)
	made, secret := mustAccessKey(t, reg, c.ID)
	require.Regexp(t, `^msk-[A-Za-z0-9_-]{43}$`, secret)
	require.Equal(t, secret[:12], made.KeyPrefix)
	_, another := mustAccessKey(t, reg, c.ID)
	require.NotEqual(t, secret, another)

	expires := clock.Now().Add(time.Hour)
	given, returned, err := reg.CreateAccessKey(ctx, registry.AccessKeyInput{
		ConsumerID: c.ID, Label: "laptop", ExpiresAt: expires, Secret: registry.NewSecret("exactly-16-chars"),
	})
	require.NoError(t, err)
	require.Equal(t, "exactly-16-chars", revealed(t, returned))
	require.Equal(t, "exactly-", given.KeyPrefix, "half of it")
	require.Equal(t, "laptop", given.Label)
	caller, err := reg.Authenticate(ctx, "exactly-16-chars")
	require.NoError(t, err)
	require.Equal(t, registry.Caller{AccessKeyID: given.ID, ConsumerID: c.ID, ExpiresAt: expires}, caller)
	of, _ := mustAccessKey(t, reg, other.ID)

	list := must(reg.ListAccessKeys(ctx, registry.AccessKeyFilter{ConsumerID: c.ID}))
	require.Len(t, list, 3)
	require.Equal(t, inJSON(t, given), inJSON(t, list[2]))
	list, err = collect(registry.All(ctx, reg.ListAccessKeys, registry.AccessKeyFilter{Limit: 1}))
	require.NoError(t, err)
	require.Len(t, list, 4)
	require.Equal(t, of.ID, list[3].ID)

	changed, err := reg.UpdateAccessKey(
		ctx, given.ID, registry.AccessKeyUpdate{Label: ptr("phone"), ExpiresAt: &time.Time{}},
	)
	require.NoError(t, err)
	require.Equal(t, "phone", changed.Label)
	require.Nil(t, changed.ExpiresAt)
	require.Zero(t, must(reg.Authenticate(ctx, "exactly-16-chars")).ExpiresAt)
	require.NoError(t, reg.DeleteAccessKey(ctx, given.ID))
	require.NotNil(t, must(reg.GetAccessKey(ctx, given.ID)).DeletedAt)
	list = must(reg.ListAccessKeys(ctx, registry.AccessKeyFilter{Deleted: true}))
	require.Equal(t, given.ID, list[0].ID)
	require.Len(t, list, 1)
}

// TestAccessKeysRefused gives operations on access keys what they refuse, and sees nothing written.
func TestAccessKeysRefused(t *testing.T) { eachEngine(t, testAccessKeysRefused) }

func testAccessKeysRefused(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	ctx := t.Context()
	c, gone := mustConsumer(t, reg, "c", uuid.Nil), mustConsumer(t, reg, "gone", uuid.Nil)
	require.NoError(t, reg.DeleteConsumer(ctx, gone.ID))
	key, secret := mustAccessKey(t, reg, c.ID)
	deleted, old := mustAccessKey(t, reg, c.ID)
	require.NoError(t, reg.DeleteAccessKey(ctx, deleted.ID))
	before := dump(t, reg)
	for name, test := range map[string]struct {
		in   registry.AccessKeyInput
		want error
		says string
	}{
		"no consumer": {registry.AccessKeyInput{}, registry.ErrForeignKey, "no consumer is given"},
		"unknown consumer": {
			registry.AccessKeyInput{ConsumerID: key.ID}, registry.ErrForeignKey, "consumer " + key.ID.String(),
		},
		"deleted consumer": {
			registry.AccessKeyInput{ConsumerID: gone.ID}, registry.ErrForeignKey, "consumer " + gone.ID.String(),
		},
		"label": {
			registry.AccessKeyInput{ConsumerID: c.ID, Label: strings.Repeat("x", 129)},
			registry.ErrInvalidData, "label has 129 characters",
		},
		"expiry": {
			registry.AccessKeyInput{ConsumerID: c.ID, ExpiresAt: time.Unix(-1, 0)},
			registry.ErrInvalidData, "expires_at is not between",
		},
		"short secret": {
			registry.AccessKeyInput{ConsumerID: c.ID, Secret: registry.NewSecret("only-15-letters")},
			registry.ErrInvalidData, "the secret has 15 characters, not 16 to 4096",
		},
		"long secret": {
			registry.AccessKeyInput{ConsumerID: c.ID, Secret: registry.NewSecret(strings.Repeat("x", 4097))},
			registry.ErrInvalidData, "the secret has 4097 characters",
		},
		"secret with a space": {
			registry.AccessKeyInput{ConsumerID: c.ID, Secret: registry.NewSecret("sixteen letters and spaces")},
			registry.ErrInvalidData, "the secret has spaces",
		},
		"secret of bytes": {
			registry.AccessKeyInput{ConsumerID: c.ID, Secret: registry.NewSecret(strings.Repeat("\xff", 20))},
			registry.ErrInvalidData, "not printable ASCII",
		},
		"secret in use": {
			registry.AccessKeyInput{ConsumerID: c.ID, Secret: registry.NewSecret(secret)}, registry.ErrConflict,
			"an access key has the secret, or had it",
		},
		"secret of a deleted access key": {
			registry.AccessKeyInput{ConsumerID: c.ID, Secret: registry.NewSecret(old)}, registry.ErrConflict,
			"an access key has the secret, or had it",
		},
	} {
		row, returned, err := reg.CreateAccessKey(ctx, test.in)
		require.ErrorIs(t, err, test.want, name)
		require.ErrorContains(t, err, test.says, name)
		require.Nil(t, row)
		require.True(t, returned.IsZero())
	}
	rotate := func(id uuid.UUID, in registry.AccessKeyRotation) error {
		row, returned, err := reg.RotateAccessKey(ctx, id, in)
		require.Nil(t, row)
		require.True(t, returned.IsZero())
		return err
	}
	for _, in := range []registry.AccessKeyRotation{
		{Overlap: -1}, {Overlap: 90*24*time.Hour + 1}, {ExpiresAt: time.Unix(-1, 0)},
	} {
		require.ErrorIs(t, rotate(key.ID, in), registry.ErrInvalidData)
	}
	_, err := reg.UpdateAccessKey(ctx, key.ID, registry.AccessKeyUpdate{Label: ptr("\xff")})
	require.ErrorIs(t, err, registry.ErrInvalidData)
	for name, err := range map[string]error{
		"RotateAccessKey": rotate(deleted.ID, registry.AccessKeyRotation{}),
		"UpdateAccessKey": second(reg.UpdateAccessKey(ctx, deleted.ID, registry.AccessKeyUpdate{Label: ptr("x")})),
		"DeleteAccessKey": reg.DeleteAccessKey(ctx, deleted.ID),
		"GetAccessKey":    second(reg.GetAccessKey(ctx, c.ID)),
	} {
		require.ErrorIs(t, err, registry.ErrNotFound, name)
	}
	require.Equal(t, before, dump(t, reg))
}

// TestRotateAccessKey replaces access keys, with and without an overlap.
func TestRotateAccessKey(t *testing.T) { eachEngine(t, testRotateAccessKey) }

func testRotateAccessKey(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	ctx := t.Context()
	c := mustConsumer(t, reg, "c", uuid.Nil)
	old, oldSecret, err := reg.CreateAccessKey(ctx, registry.AccessKeyInput{ConsumerID: c.ID, Label: "laptop"})
	require.NoError(t, err)
	must(reg.Authenticate(ctx, revealed(t, oldSecret)))
	next, secret, err := reg.RotateAccessKey(ctx, old.ID, registry.AccessKeyRotation{Overlap: time.Hour})
	require.NoError(t, err)
	require.Equal(t, []any{c.ID, "laptop", old.ID}, []any{next.ConsumerID, next.Label, *next.ReplacesID})
	require.Nil(t, next.ExpiresAt)
	require.False(t, secret.Equal(oldSecret))
	end := clock.Now().Add(time.Hour)
	require.Equal(t, end, must(reg.Authenticate(ctx, revealed(t, oldSecret))).ExpiresAt)
	require.Equal(t, next.ID, must(reg.Authenticate(ctx, revealed(t, secret))).AccessKeyID)
	clock.Advance(time.Hour - time.Microsecond)
	must(reg.Authenticate(ctx, revealed(t, oldSecret)))
	clock.Advance(time.Microsecond)
	why := refused(t, reg, revealed(t, oldSecret), registry.AccessKeyExpired)
	require.Equal(t, registry.ForbiddenError{
		Reason: registry.AccessKeyExpired, AccessKeyID: old.ID, Label: "laptop", ConsumerID: c.ID, Name: "c",
		ExpiredAt: end,
	}, why)
	require.Equal(t, `forbidden: access key "laptop" has expired at `+end.Format(time.RFC3339), why.Error())

	expires := clock.Now().Add(24 * time.Hour)
	last, lastSecret, err := reg.RotateAccessKey(ctx, next.ID, registry.AccessKeyRotation{ExpiresAt: expires})
	require.NoError(t, err)
	require.Equal(t, expires, *last.ExpiresAt)
	refused(t, reg, revealed(t, secret), registry.AccessKeyExpired)
	require.Equal(t, expires, must(reg.Authenticate(ctx, revealed(t, lastSecret))).ExpiresAt)
	_, _, err = reg.RotateAccessKey(ctx, last.ID, registry.AccessKeyRotation{Overlap: 90 * 24 * time.Hour})
	require.NoError(t, err)
	require.Equal(t, expires, *must(reg.GetAccessKey(ctx, last.ID)).ExpiresAt, "the earlier one")

	// The id of the one that replaces comes after, wherever the clock of the ids is.
	ahead := uuid.MustParse("ffffffff-ffff-7fff-bfff-ffffffff00ff")
	require.NoError(t, reg.Past().AccessKey.Create().SetID(ahead).SetConsumerID(c.ID).
		SetKeyHash(strings.Repeat("0", 64)).SetKeyPrefix("").Exec(ctx))
	later, _, err := reg.RotateAccessKey(ctx, ahead, registry.AccessKeyRotation{})
	require.NoError(t, err)
	require.Equal(t, "ffffffff-ffff-7fff-bfff-ffffffff0100", later.ID.String())
}

// TestRotateAccessKeyAtOnce rotates one access key from many goroutines: each gets another secret, and all are good.
func TestRotateAccessKeyAtOnce(t *testing.T) { eachEngineAtOnce(t, testRotateAccessKeyAtOnce) }

func testRotateAccessKeyAtOnce(t *testing.T, e engine) {
	t.Parallel()
	reg, _ := e.setup(t)
	c := mustConsumer(t, reg, "c", uuid.Nil)
	old, secret := mustAccessKey(t, reg, c.ID)
	const callers = 8
	secrets, errs := make([]registry.Secret, callers), make([]error, 2*callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			_, secrets[i], errs[i] = reg.RotateAccessKey(
				t.Context(), old.ID, registry.AccessKeyRotation{Overlap: time.Hour},
			)
		})
		all.Go(func() { _, errs[callers+i] = reg.Authenticate(t.Context(), secret) })
	}
	all.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	for _, s := range secrets {
		require.Equal(t, c.ID, must(reg.Authenticate(t.Context(), revealed(t, s))).ConsumerID)
	}
}
