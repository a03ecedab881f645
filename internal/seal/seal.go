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
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

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
	rand.Read(key)
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
