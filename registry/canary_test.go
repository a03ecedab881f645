package registry_test

// These tests look for a secret in all that the registry writes and says, and have no source of their own.

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/accesskey"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

func init() { faultChildren["canary"] = canaryChild }

// whereFound returns which files of a folder, and which texts, have the key in one of its forms.
func whereFound(t *testing.T, dir string, texts []string, key string) (where []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	haystacks := map[string][]byte{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		haystacks[e.Name()] = content
	}
	for i, text := range texts {
		haystacks[fmt.Sprint("text ", i)] = []byte(text)
	}
	for name, content := range haystacks {
		for _, form := range forms(key) {
			if bytes.Contains(content, []byte(form)) {
				where = append(where, name)
			}
		}
	}
	return where
}

// TestNoPlaintextKey searches for a key, its hex and its base64 in all files of a database in
// use, in the rows, and in the errors of all calls that it is given to.
func TestNoPlaintextKey(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	t.Run("hashed", func(t *testing.T) { testNoPlaintextKey(t) })
	t.Run("sealed", func(t *testing.T) { testNoPlaintextKey(t, registry.WithKeyring(ring(t, "a"))) })
}

func testNoPlaintextKey(t *testing.T, options ...registry.Option) {
	t.Parallel()
	const canary = "sk-canary-9f8e7d6c5b4a39281706"
	dir := t.TempDir()
	reg, err := registry.Open(t.Context(), filepath.Join(dir, "canary.db"), options...)
	require.NoError(t, err)
	p := mustProvider(t, reg, "openai")
	in := registry.KeyInput{ProviderID: p.ID, APIKey: canary}
	key, err := reg.AddAPIKey(t.Context(), in)
	require.NoError(t, err)
	require.NoError(t, reg.DegradeKey(t.Context(), key.ID, "429", 1e9))

	texts := []string{fmt.Sprintf("%v %+v %#v", key, key, key), dump(t, reg)}
	note := func(err error) {
		require.Error(t, err)
		for err != nil {
			texts = append(texts, fmt.Sprintf("%v %+v %#v", err, err, err))
			err = errors.Unwrap(err)
		}
	}
	_, err = reg.AddAPIKey(t.Context(), in)
	note(err)
	for _, bad := range []string{canary + "\n", canary + "é"} {
		_, err = reg.AddAPIKey(t.Context(), registry.KeyInput{ProviderID: p.ID, APIKey: bad})
		note(err)
		_, err = reg.FindAPIKey(t.Context(), p.ID, bad)
		note(err)
	}
	_, err = reg.FindAPIKey(t.Context(), key.ID, canary)
	note(err)
	_, err = reg.GetLeastUsedKey(t.Context(), p.ID)
	note(err)

	// A provider repeats the key in its answer, in every way that it can.
	require.NoError(t, reg.RestoreKey(t.Context(), key.ID))
	m := mustModel(t, reg, p.ID, "m", gpt4())
	acquire := registry.AcquireInput{ProviderID: p.ID, ModelID: m.ID, TTL: time.Minute}
	lease, err := reg.AcquireKey(t.Context(), acquire)
	require.NoError(t, err)
	failure := registry.Failure{
		Status: 401, Err: errors.New(canary),
		Header: http.Header{"Retry-After": {canary}, "X-Ratelimit-Remaining-Requests": {canary}},
		Body: []byte(`{"error":{"message":"Incorrect API key provided: ` + canary + `","code":"` + canary +
			`","type":"` + canary + `"}}`),
	}
	texts = append(texts, fmt.Sprintf("%v %+v", registry.Classify(failure, registrytest.Start), lease))
	require.NoError(t, errOf(lease.Fail(t.Context(), failure)))
	note(errOf(lease.Fail(t.Context(), failure)))
	_, err = reg.AcquireKey(t.Context(), acquire)
	note(err)
	verdicts, err := reg.ExplainKeys(t.Context(), acquire)
	require.NoError(t, err)
	texts = append(texts, fmt.Sprintf("%+v", verdicts), dump(t, reg))
	_, err = reg.Client().ExecContext(t.Context(), "VACUUM INTO '"+filepath.Join(dir, "backup.db")+"'")
	require.NoError(t, err)

	if len(options) > 0 {
		requireReveals(t, reg, key.ID, canary)
		got, err := reg.RevealAPIKey(t.Context(), key.ID)
		require.NoError(t, err)
		texts = append(texts, fmt.Sprintf("%v %+v %#v", got, got, got))
		_, err = reg.RotateKeyring(t.Context(), registry.KeyringRotationInput{DataKey: true})
		require.NoError(t, err)
		_, err = reg.RotateAPIKey(t.Context(), key.ID, registry.KeyRotationInput{APIKey: canary})
		note(err)
		row, err := reg.Client().APIKey.Get(t.Context(), key.ID)
		require.NoError(t, err)
		require.NoError(t, reg.Past().APIKey.UpdateOne(row).SetSealed(row.Sealed[:50]).Exec(t.Context()))
		_, err = reg.RevealAPIKey(t.Context(), key.ID)
		note(err)
		require.NoError(t, reg.Past().APIKey.UpdateOne(row).SetSealed(row.Sealed).Exec(t.Context()))
		texts = append(texts, dump(t, reg))
	}

	require.Empty(t, whereFound(t, dir, texts, canary))
	// The search is able to find: a setting holds what it is given.
	require.NoError(t, reg.SetSetting(t.Context(), "leak", canary))
	require.NotEmpty(t, whereFound(t, dir, texts, canary))
	require.NoError(t, reg.Close())
}

// TestNoPlaintextSecret searches likewise for secrets of access keys: one that was given, and those that were made.
func TestNoPlaintextSecret(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	const canary = "gateway-canary-1c5d8e7f20a9b34612"
	dir, ctx := t.TempDir(), t.Context()
	reg, err := registry.Open(ctx, filepath.Join(dir, "canary.db"))
	require.NoError(t, err)
	c := mustConsumer(t, reg, "c", uuid.Nil)
	in := registry.AccessKeyInput{ConsumerID: c.ID, Secret: registry.NewSecret(canary)}
	key, given, err := reg.CreateAccessKey(ctx, in)
	require.NoError(t, err)
	made, fresh, err := reg.CreateAccessKey(ctx, registry.AccessKeyInput{ConsumerID: c.ID})
	require.NoError(t, err)
	next, rotated, err := reg.RotateAccessKey(ctx, made.ID, registry.AccessKeyRotation{})
	require.NoError(t, err)
	texts := []string{fmt.Sprintf("%v %+v %#v", in, in, in)}
	secrets := []string{canary, revealed(t, fresh), revealed(t, rotated)}
	for _, shown := range []any{key, made, next, given, fresh, rotated} {
		texts = append(texts, fmt.Sprintf("%v %+v %#v", shown, shown, shown))
	}
	note := func(err error) {
		require.Error(t, err)
		for ; err != nil; err = errors.Unwrap(err) {
			texts = append(texts, fmt.Sprintf("%v %+v %#v", err, err, err))
		}
	}
	_, _, err = reg.CreateAccessKey(ctx, in)
	note(err)
	for _, bad := range []string{canary + "\n", strings.Repeat(canary, 200)} {
		_, _, err = reg.CreateAccessKey(
			ctx, registry.AccessKeyInput{ConsumerID: c.ID, Secret: registry.NewSecret(bad)},
		)
		note(err)
	}
	for i, secret := range secrets {
		caller, err := reg.Authenticate(ctx, secret)
		texts = append(texts, fmt.Sprintf("%+v", caller))
		require.Equal(t, i != 1, err == nil, "the second one was replaced")
		_, err = reg.Authenticate(ctx, secret+"x")
		note(err)
	}
	require.NoError(t, reg.DeleteConsumer(ctx, c.ID))
	for _, secret := range secrets {
		_, err := reg.Authenticate(ctx, secret)
		note(err)
	}
	texts = append(texts, dump(t, reg))
	_, err = reg.Client().ExecContext(ctx, "VACUUM INTO '"+filepath.Join(dir, "backup.db")+"'")
	require.NoError(t, err)
	for _, secret := range secrets {
		require.Empty(t, whereFound(t, dir, texts, secret))
	}
	require.NoError(t, reg.SetSetting(ctx, "leak", canary)) // the search is able to find
	require.NotEmpty(t, whereFound(t, dir, texts, canary))
	require.NoError(t, reg.Close())
}

// TestNoPlaintextKeyInLogs searches the output of a process that logs every statement with its arguments, and panics in
// the end.
func TestNoPlaintextKeyInLogs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const canary = "sk-canary-0a1b2c3d4e5f60718293"
	cmd := faultChild(t, "canary", filepath.Join(dir, "canary.db"), canary)
	output, err := cmd.CombinedOutput()
	require.Error(t, err)
	text := string(output)
	for _, part := range []string{
		"sealed", "UPDATE `api_keys`", "FROM `access_keys`", "key_hash", "panic: ", "goroutine ",
		"registry_test.canaryChild",
	} {
		require.Contains(t, text, part)
	}
	for _, form := range forms(canary) {
		require.NotContains(t, text, form)
	}
}

func canaryChild(ctx context.Context, args ...string) error {
	name, canary := args[0], args[1]
	owner := make([]byte, registry.KeyringKeySize)
	if _, err := rand.Read(owner); err != nil {
		return err
	}
	keyring, err := registry.NewKeyring("a", map[string][]byte{"a": owner})
	if err != nil {
		return err
	}
	reg, err := registry.Open(ctx, name, registry.WithKeyring(keyring))
	if err != nil {
		return err
	}
	p, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: "p"})
	if err != nil {
		return err
	}
	key, err := reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: canary})
	if err != nil {
		return err
	}
	debug := reg.Past().Debug()
	row, err := debug.APIKey.Query().WithProvider().Only(ctx)
	if err != nil {
		return err
	}
	if err := debug.APIKey.UpdateOne(row).SetSealed(row.Sealed).SetLabel("logged").Exec(ctx); err != nil {
		return err
	}
	lease, err := reg.AcquireKey(ctx, registry.AcquireInput{ProviderID: p.ID, TTL: time.Minute})
	if err != nil {
		return err
	}
	secret, err := lease.Reveal(ctx)
	if err != nil {
		return err
	}
	consumer, err := reg.CreateConsumer(ctx, registry.ConsumerInput{Name: "c"})
	if err != nil {
		return err
	}
	input := registry.AccessKeyInput{ConsumerID: consumer.ID, Secret: registry.NewSecret("access-" + canary)}
	access, shown, err := reg.CreateAccessKey(ctx, input)
	if err != nil {
		return err
	}
	if _, err := debug.AccessKey.Query().Where(accesskey.KeyHash(access.KeyHash)).Only(ctx); err != nil {
		return err
	}
	log.Println(input, access, shown)
	log.Println(key, row, lease, secret, &secret, []any{secret, map[string]any{"s": secret}})
	slog.Info("all", "key", key, "lease", lease, "secret", secret)
	panic(fmt.Sprintf("%+v %#v %+v %#v", lease, secret, secret, key))
}
