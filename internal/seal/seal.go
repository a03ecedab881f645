// Package seal seals secrets. Only the holder of a key can open one, and only for the row that it was sealed for. The
// package knows no database.
//
// A secret is sealed with a data key, by AES-256-GCM with a random nonce:
//
//	"MS" | version 1 | id of the data key (16) | nonce (12) | ciphertext | tag (16)
//
// What names the row is authenticated beside it (see [Binding]), so that a blob that is moved to another row, provider
// or database does not open. Data keys are kept wrapped by a [Keyring], which belongs to the owner: wrapping the few
// data keys anew changes the owner's key, without touching the secrets.
package seal

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Errors. None of them shows a secret or a key.
var (
	// ErrFormat is returned for bytes that are not a sealed blob, or one of a later version.
	ErrFormat = errors.New("not a sealed secret")
	// ErrKey is returned for a missing or retired key.
	ErrKey = errors.New("the keyring has no such key")
	// ErrAuthentic is returned for a blob that was changed, belongs to something else, or was made with another key.
	ErrAuthentic = errors.New("changed, of another row, or of another key")
	// ErrInvalid is returned for a key or an id that cannot be used.
	ErrInvalid = errors.New("invalid key")
)

// KeySize is the length of every key, in bytes: that of AES-256.
const KeySize = 32

const (
	version    = 1
	headerSize = 2 + 1 + 16
)

var magic = [2]byte{'M', 'S'}

// Binding says what a secret or a data key belongs to. It is authenticated, but not stored with it.
type Binding = []byte

// Bind returns a binding to some names. The first says what kind of thing is bound. Each name is prefixed by its
// length, so that different lists are different bindings.
func Bind(names ...[]byte) Binding {
	var b Binding
	for _, name := range names {
		b = binary.BigEndian.AppendUint64(b, uint64(len(name)))
		b = append(b, name...)
	}
	return b
}

// DataKey seals secrets: up to 2^32 of them, see [cipher.NewGCMWithRandomNonce].
type DataKey struct {
	id   uuid.UUID
	aead cipher.AEAD
}

// ID is in every blob that the key has sealed.
func (k *DataKey) ID() uuid.UUID { return k.id }

// String keeps keys out of logs.
func (k *DataKey) String() string { return "data key " + k.id.String() }

// Format implements [fmt.Formatter], also for %#v.
func (k *DataKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// newAEAD returns a cipher for a key.
func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("%w: %d bytes instead of %d", ErrInvalid, len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// NewDataKey makes a data key, and returns it together with its wrapped form, which is to be stored with the id of
// the owner's key that it is wrapped by. The binding should name the database.
func NewDataKey(
	ctx context.Context, id uuid.UUID, ring Keyring, to Binding,
) (k *DataKey, by string, wrapped []byte, err error) {
	key := make([]byte, KeySize)
	defer clear(key)
	rand.Read(key) // it never fails
	if by, wrapped, err = wrap(ctx, id, ring, key, to); err != nil {
		return nil, "", nil, err
	}
	aead, err := newAEAD(key)
	return &DataKey{id, aead}, by, wrapped, err
}

// UnwrapDataKey returns a data key from its wrapped form. It returns [ErrKey] if the keyring lacks the owner's key, and
// [ErrAuthentic] if it has another key of that id, or if the wrapped form belongs to another data key.
func UnwrapDataKey(
	ctx context.Context, id uuid.UUID, ring Keyring, by string, wrapped []byte, to Binding,
) (*DataKey, error) {
	key, err := ring.Unwrap(ctx, by, wrapped, wrapping(id, by, to))
	if err != nil {
		return nil, err
	}
	defer clear(key)
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	return &DataKey{id, aead}, nil
}

// RewrapDataKey wraps a data key with the keyring's current key, after it was wrapped by another key of the keyring.
func RewrapDataKey(
	ctx context.Context, id uuid.UUID, ring Keyring, by string, wrapped []byte, to Binding,
) (newBy string, rewrapped []byte, err error) {
	key, err := ring.Unwrap(ctx, by, wrapped, wrapping(id, by, to))
	if err != nil {
		return "", nil, err
	}
	defer clear(key)
	return wrap(ctx, id, ring, key, to)
}

// wrap wraps a data key with the current key of a keyring.
func wrap(
	ctx context.Context, id uuid.UUID, ring Keyring, key []byte, to Binding,
) (by string, wrapped []byte, err error) {
	by = ring.CurrentID()
	if err := checkID(by); err != nil {
		return "", nil, err
	}
	wrapped, err = ring.Wrap(ctx, by, key, wrapping(id, by, to))
	return by, wrapped, err
}

func wrapping(id uuid.UUID, by string, to Binding) Binding {
	return Bind([]byte("modelscan/datakey/v1"), to, id[:], []byte(by))
}

// Seal seals a secret for a binding.
func (k *DataKey) Seal(secret []byte, to Binding) []byte {
	blob := make([]byte, 0, headerSize+len(secret)+k.aead.Overhead())
	blob = append(blob, magic[0], magic[1], version)
	blob = append(blob, k.id[:]...)
	return k.aead.Seal(blob, nil, secret, Bind(blob, to))
}

// Open returns the secret of a blob. It returns [ErrFormat], [ErrKey] if another data key has sealed it, or
// [ErrAuthentic].
func (k *DataKey) Open(blob []byte, to Binding) ([]byte, error) {
	id, err := KeyID(blob)
	if err != nil {
		return nil, err
	}
	if id != k.id {
		return nil, ErrKey
	}
	header := blob[:headerSize]
	if len(blob) < headerSize+k.aead.Overhead() {
		return nil, ErrFormat
	}
	secret, err := k.aead.Open(nil, nil, blob[headerSize:], Bind(header, to))
	if err != nil {
		return nil, ErrAuthentic
	}
	return secret, nil
}

// KeyID returns the id of the data key that has sealed a blob. It returns [ErrFormat].
func KeyID(blob []byte) (uuid.UUID, error) {
	if len(blob) < headerSize || [2]byte(blob) != magic {
		return uuid.Nil, ErrFormat
	}
	if blob[2] != version {
		return uuid.Nil, fmt.Errorf("%w of a version known here: %d", ErrFormat, blob[2])
	}
	return uuid.UUID(blob[3:headerSize]), nil
}

// Keyring holds the owner's keys. An adapter for a key management service wraps and unwraps there, and never sees
// the key that does so. It must be safe for concurrent use.
type Keyring interface {
	// CurrentID names the key that wraps from now on.
	CurrentID() string
	// Wrap returns a data key wrapped by a key, with the binding authenticated. It returns [ErrKey] for an unknown id.
	Wrap(ctx context.Context, id string, dataKey []byte, to Binding) ([]byte, error)
	// Unwrap returns what Wrap was given. It returns [ErrKey] for an unknown id, and [ErrAuthentic].
	Unwrap(ctx context.Context, id string, wrapped []byte, to Binding) ([]byte, error)
}

// MaxKeyID is the longest id of a key, in bytes.
const MaxKeyID = 128

// StaticKeyring is a [Keyring] of keys that are in memory.
type StaticKeyring struct {
	current string
	aeads   map[string]cipher.AEAD
}

var _ Keyring = (*StaticKeyring)(nil)

// NewStaticKeyring returns a keyring of keys by their ids. Each key is [KeySize] random bytes, not a passphrase. It
// returns [ErrInvalid] for a key of another length or one that is all the same byte, for an id that is empty, longer
// than [MaxKeyID] or not valid UTF-8 without NUL, and [ErrKey] if the current key is not among them.
func NewStaticKeyring(current string, keys map[string][]byte) (*StaticKeyring, error) {
	r := &StaticKeyring{current, make(map[string]cipher.AEAD, len(keys))}
	for id, key := range keys {
		if err := checkID(id); err != nil {
			return nil, err
		}
		aead, err := newAEAD(key)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", id, err)
		}
		if bytes.Count(key, key[:1]) == len(key) { // as if nobody had set it
			return nil, fmt.Errorf("key %q: %w: it is not random", id, ErrInvalid)
		}
		r.aeads[id] = aead
	}
	if _, ok := r.aeads[current]; !ok {
		return nil, fmt.Errorf("current key %.40q: %w", current, ErrKey)
	}
	return r, nil
}

// checkID returns an error unless a database can hold an id.
func checkID(id string) error {
	if id == "" || len(id) > MaxKeyID {
		return fmt.Errorf("%w: an id of %d bytes", ErrInvalid, len(id))
	}
	if !utf8.ValidString(id) || strings.ContainsRune(id, 0) {
		return fmt.Errorf("%w: the id %q is not valid UTF-8 without NUL", ErrInvalid, id)
	}
	return nil
}

// CurrentID implements [Keyring].
func (r *StaticKeyring) CurrentID() string { return r.current }

// String keeps keys out of logs.
func (r *StaticKeyring) String() string { return fmt.Sprintf("keyring of %d keys", len(r.aeads)) }

// Format implements [fmt.Formatter], also for %#v.
func (r *StaticKeyring) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(r.String())) }

// Wrap implements [Keyring].
func (r *StaticKeyring) Wrap(_ context.Context, id string, dataKey []byte, to Binding) ([]byte, error) {
	aead, ok := r.aeads[id]
	if !ok {
		return nil, fmt.Errorf("key %.40q: %w", id, ErrKey)
	}
	return aead.Seal(nil, nil, dataKey, to), nil
}

// Unwrap implements [Keyring].
func (r *StaticKeyring) Unwrap(_ context.Context, id string, wrapped []byte, to Binding) ([]byte, error) {
	aead, ok := r.aeads[id]
	if !ok {
		return nil, fmt.Errorf("key %.40q: %w", id, ErrKey)
	}
	key, err := aead.Open(nil, nil, wrapped, to)
	if err != nil {
		return nil, fmt.Errorf("key %.40q: %w", id, ErrAuthentic)
	}
	return key, nil
}
