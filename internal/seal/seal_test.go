package seal_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/seal"
)

var (
	database = seal.Bind([]byte("database"))
	row      = seal.Bind([]byte("modelscan/apikey/v1"), []byte("database"), []byte("provider"), []byte("key"))
	secret   = []byte("sk-ant-api03-correct-horse-battery-staple")
	keyID    = uuid.MustParse("0192f5aa-0000-7000-8000-000000000001")
)

func random(seed byte) []byte {
	key := make([]byte, seal.KeySize)
	for i := range key {
		key[i] = seed + byte(i)*7
	}
	return key
}

func keyring(t *testing.T, current string, ids ...string) *seal.StaticKeyring {
	t.Helper()
	keys := map[string][]byte{}
	for _, id := range append(ids, current) {
		keys[id] = random(id[0])
	}
	ring, err := seal.NewStaticKeyring(current, keys)
	require.NoError(t, err)
	return ring
}

func dataKey(t *testing.T, ring seal.Keyring) (k *seal.DataKey, by string, wrapped []byte) {
	t.Helper()
	k, by, wrapped, err := seal.NewDataKey(t.Context(), keyID, ring, database)
	require.NoError(t, err)
	require.Equal(t, keyID, k.ID())
	return k, by, wrapped
}

func TestSeal(t *testing.T) {
	t.Parallel()
	ring := keyring(t, "a")
	k, by, wrapped := dataKey(t, ring)
	for _, plain := range [][]byte{secret, {}, bytes.Repeat([]byte{0}, 4096)} {
		blob := k.Seal(plain, row)
		require.Len(t, blob, 19+12+len(plain)+16)
		require.NotEqual(t, blob, k.Seal(plain, row), "the nonce is random")
		id, err := seal.KeyID(blob)
		require.NoError(t, err)
		require.Equal(t, keyID, id)
		again, err := seal.UnwrapDataKey(t.Context(), keyID, ring, by, wrapped, database)
		require.NoError(t, err)
		opened, err := again.Open(blob, row)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plain, opened))
	}
	blob := k.Seal(secret, row)
	for name, form := range map[string]string{
		"clear": string(secret), "hex": hex.EncodeToString(secret), "base64": base64.StdEncoding.EncodeToString(secret),
	} {
		require.NotContains(t, string(blob), form, name)
	}
}

// Every bit of a blob, every length of it, and every part of what it is bound to is protected.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	k, _, _ := dataKey(t, keyring(t, "a"))
	blob := k.Seal(secret, row)
	refused := func(b []byte, to seal.Binding) error {
		opened, err := k.Open(b, to)
		require.Nil(t, opened)
		require.NotContains(t, fmt.Sprint(err), string(secret))
		return err
	}
	for i := range len(blob) * 8 {
		changed := slices.Clone(blob)
		changed[i/8] ^= 1 << (i % 8)
		want := seal.ErrAuthentic
		switch {
		case i/8 < 3:
			want = seal.ErrFormat
		case i/8 < 19:
			want = seal.ErrKey
		}
		require.ErrorIs(t, refused(changed, row), want, "bit %d", i)
	}
	for n := range blob {
		want := seal.ErrAuthentic
		if n < 19+12+16 {
			want = seal.ErrFormat
		}
		require.ErrorIs(t, refused(blob[:n], row), want, "%d bytes", n)
	}
	require.ErrorIs(t, refused(append(slices.Clone(blob), 0), row), seal.ErrAuthentic)
	require.ErrorIs(t, refused(nil, row), seal.ErrFormat)
	for _, to := range []seal.Binding{
		nil, seal.Bind(), database,
		seal.Bind([]byte("modelscan/apikey/v1"), []byte("database"), []byte("provider"), []byte("kez")),
		seal.Bind([]byte("modelscan/apikey/v1"), []byte("database"), []byte("providerk"), []byte("ey")),
		seal.Bind([]byte("modelscan/apikey/v1"), []byte("databas"), []byte("provider"), []byte("key")),
		seal.Bind([]byte("modelscan/apikey/v1"), []byte("databaseprovider"), []byte("key")),
	} {
		require.ErrorIs(t, refused(blob, to), seal.ErrAuthentic)
	}
	// A key of the same id is still another key.
	other, _, _ := dataKey(t, keyring(t, "a"))
	_, err := other.Open(blob, row)
	require.ErrorIs(t, err, seal.ErrAuthentic)
}

// A wrapped data key is protected likewise.
func TestUnwrapRefuses(t *testing.T) {
	t.Parallel()
	ring := keyring(t, "a", "b")
	_, by, wrapped := dataKey(t, ring)
	unwrap := func(id uuid.UUID, ring seal.Keyring, by string, wrapped []byte, to seal.Binding) error {
		k, err := seal.UnwrapDataKey(t.Context(), id, ring, by, wrapped, to)
		require.Nil(t, k)
		return err
	}
	for i := range len(wrapped) * 8 {
		changed := slices.Clone(wrapped)
		changed[i/8] ^= 1 << (i % 8)
		require.ErrorIs(t, unwrap(keyID, ring, by, changed, database), seal.ErrAuthentic, "bit %d", i)
	}
	for n := range wrapped {
		require.ErrorIs(t, unwrap(keyID, ring, by, wrapped[:n], database), seal.ErrAuthentic, "%d bytes", n)
	}
	require.ErrorIs(t, unwrap(uuid.New(), ring, by, wrapped, database), seal.ErrAuthentic, "of another id")
	require.ErrorIs(t, unwrap(keyID, ring, by, wrapped, row), seal.ErrAuthentic, "of another database")
	require.ErrorIs(t, unwrap(keyID, ring, "b", wrapped, database), seal.ErrAuthentic, "by another key")
	require.ErrorIs(t, unwrap(keyID, keyring(t, "b"), by, wrapped, database), seal.ErrKey, "by a key that was retired")
	wrong, err := seal.NewStaticKeyring("a", map[string][]byte{"a": random('z')})
	require.NoError(t, err)
	require.ErrorIs(t, unwrap(keyID, wrong, by, wrapped, database), seal.ErrAuthentic, "by another key of the same id")
}

// The owner's key is changed: the secrets are not.
func TestRewrapDataKey(t *testing.T) {
	t.Parallel()
	k, by, wrapped := dataKey(t, keyring(t, "a"))
	blob := k.Seal(secret, row)
	newBy, rewrapped, err := seal.RewrapDataKey(t.Context(), keyID, keyring(t, "b", "a"), by, wrapped, database)
	require.NoError(t, err)
	require.Equal(t, "b", newBy)
	again, err := seal.UnwrapDataKey(t.Context(), keyID, keyring(t, "b"), newBy, rewrapped, database)
	require.NoError(t, err)
	opened, err := again.Open(blob, row)
	require.NoError(t, err)
	require.Equal(t, secret, opened)
	_, _, err = seal.RewrapDataKey(t.Context(), keyID, keyring(t, "b"), by, wrapped, database)
	require.ErrorIs(t, err, seal.ErrKey)
}

// broken is a key management service that does not answer.
type broken struct{ *seal.StaticKeyring }

func (broken) Wrap(context.Context, string, []byte, seal.Binding) ([]byte, error) {
	return nil, context.DeadlineExceeded
}

func (broken) Unwrap(context.Context, string, []byte, seal.Binding) ([]byte, error) {
	return []byte("short"), nil
}

func TestKeyringFails(t *testing.T) {
	t.Parallel()
	ring := broken{keyring(t, "a")}
	_, _, _, err := seal.NewDataKey(t.Context(), keyID, ring, database)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = seal.UnwrapDataKey(t.Context(), keyID, ring, "a", nil, database)
	require.ErrorIs(t, err, seal.ErrInvalid)
	_, _, err = seal.RewrapDataKey(t.Context(), keyID, ring, "a", nil, database)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = keyring(t, "a").Wrap(t.Context(), "b", random(1), database)
	require.ErrorIs(t, err, seal.ErrKey)
}

func TestNewStaticKeyring(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, current string
		keys          map[string][]byte
		want          error
	}{
		{name: "no_keys", current: "a", want: seal.ErrKey},
		{name: "current_is_missing", current: "b", keys: map[string][]byte{"a": random(1)}, want: seal.ErrKey},
		{name: "short", current: "a", keys: map[string][]byte{"a": random(1)[:31]}, want: seal.ErrInvalid},
		{name: "long", current: "a", keys: map[string][]byte{"a": append(random(1), 0)}, want: seal.ErrInvalid},
		{name: "empty", current: "a", keys: map[string][]byte{"a": nil}, want: seal.ErrInvalid},
		{
			name: "not_random", current: "a", keys: map[string][]byte{"a": make([]byte, seal.KeySize)},
			want: seal.ErrInvalid,
		},
		{name: "no_id", keys: map[string][]byte{"": random(1)}, want: seal.ErrInvalid},
		{
			name: "NUL_id", current: "a", keys: map[string][]byte{"a": random(1), "b\x00": random(2)},
			want: seal.ErrInvalid,
		},
		{
			name: "bytes_id", current: "a", keys: map[string][]byte{"a": random(1), "b\xff": random(2)},
			want: seal.ErrInvalid,
		},
		{
			name: "long_id", current: "a",
			keys: map[string][]byte{"a": random(1), strings.Repeat("x", seal.MaxKeyID+1): random(2)},
			want: seal.ErrInvalid,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ring, err := seal.NewStaticKeyring(tt.current, tt.keys)
			require.Nil(t, ring)
			require.ErrorIs(t, err, tt.want)
		})
	}
}

// Nothing that is printed holds a key.
func TestPrinting(t *testing.T) {
	t.Parallel()
	ring := keyring(t, "a", "b")
	k, _, _ := dataKey(t, ring)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		require.Equal(t, "keyring of 2 keys", fmt.Sprintf(verb, ring))
		require.Equal(t, "data key "+keyID.String(), fmt.Sprintf(verb, k))
	}
}

func BenchmarkSeal(b *testing.B) {
	ring, err := seal.NewStaticKeyring("a", map[string][]byte{"a": random(1)})
	require.NoError(b, err)
	k, _, _, err := seal.NewDataKey(b.Context(), keyID, ring, database)
	require.NoError(b, err)
	b.Run("seal", func(b *testing.B) {
		for b.Loop() {
			k.Seal(secret, row)
		}
	})
	b.Run("open", func(b *testing.B) {
		blob := k.Seal(secret, row)
		for b.Loop() {
			if _, err := k.Open(blob, row); err != nil {
				b.Fatal(err)
			}
		}
	})
}
