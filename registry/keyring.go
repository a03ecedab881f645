package registry

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/jeffersonwarrior/modelscan/internal/seal"
)

// Keyring holds the owner's keys, outside of the database. They wrap data keys, and data keys seal API keys. The
// database stores each data key wrapped, with the id of the key that wrapped it.
//
// [NewKeyring] and [ParseKeyring] return keyrings with their keys in memory. For a key management service, write an
// adapter with two calls of the service, which wraps and unwraps there and never reveals its key:
//
//	func (a adapter) Wrap(ctx context.Context, id string, key []byte, to registry.KeyringBinding) ([]byte, error) {
//		return a.service.Encrypt(ctx, id, key, to) // to: additional authenticated data, or an encryption context
//	}
//
// A keyring is used by [Open], by RotateKeyring, and when another process has made a data key, which is rare: once
// unwrapped, data keys stay in memory. It must be safe for concurrent use. Its methods return [ErrKeyring], which may
// be wrapped, where their comments say so. Any other error, such as a network error, is returned unchanged by the
// operation that called.
type Keyring interface {
	// CurrentID returns the id, 1 to 128 characters, of the key that wraps from now on. It must not change until the
	// registry is opened with another keyring.
	CurrentID() string
	// Wrap wraps a data key of 32 bytes with the key of an id, in up to 65,536 bytes. It authenticates the binding with
	// it, and must not keep dataKey. It returns [ErrKeyring] for an unknown id.
	Wrap(ctx context.Context, id string, dataKey []byte, to KeyringBinding) (wrapped []byte, err error)
	// Unwrap returns the data key that Wrap was given with the same id and binding. The slice belongs to the caller:
	// the registry overwrites it with zeros. It returns [ErrKeyring] for an unknown id, and for bytes that this key did
	// not wrap with this binding.
	Unwrap(ctx context.Context, id string, wrapped []byte, to KeyringBinding) (dataKey []byte, err error)
}

// KeyringBinding names the database and the row that a wrapped data key belongs to. A keyring authenticates it, so that
// a data key that was moved elsewhere does not unwrap. It need not interpret it: a binding is some hundred bytes that
// are not text, the same at each call for the same data key and id. For a service that takes only text, use its hash or
// its base64.
type KeyringBinding = []byte

var _ seal.Keyring = Keyring(nil)

// memoryKeyring is the keyring of [NewKeyring].
type memoryKeyring struct{ *seal.StaticKeyring }

// Wrap implements [Keyring].
func (k memoryKeyring) Wrap(ctx context.Context, id string, dataKey []byte, to KeyringBinding) ([]byte, error) {
	wrapped, err := k.StaticKeyring.Wrap(ctx, id, dataKey, to)
	return wrapped, ofKeyring(err)
}

// Unwrap implements [Keyring].
func (k memoryKeyring) Unwrap(ctx context.Context, id string, wrapped []byte, to KeyringBinding) ([]byte, error) {
	dataKey, err := k.StaticKeyring.Unwrap(ctx, id, wrapped, to)
	return dataKey, ofKeyring(err)
}

// KeyringKeySize is the length in bytes of a key of [NewKeyring].
const KeyringKeySize = seal.KeySize

// NewKeyring returns a keyring with keys by their ids. The key of the id current wraps from now on; the others still
// unwrap. A key is [KeyringKeySize] random bytes, such as those of `openssl rand 32`, and not a passphrase. An id has
// up to 128 characters. It returns [ErrInvalidData] if a key or an id breaks these rules, there are no keys, or current
// is not among them.
func NewKeyring(current string, keys map[string][]byte) (Keyring, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf(
			"new keyring: %w: there are no keys: is the file or the environment variable empty?",
			ErrInvalidData,
		)
	}
	ring, err := seal.NewStaticKeyring(current, keys)
	if err != nil {
		return nil, fmt.Errorf("new keyring: %w: %w", ErrInvalidData, err)
	}
	return memoryKeyring{ring}, nil
}

// ParseKeyring parses a keyring from text, such as the content of a file or of an environment variable. Each line has
// an id, "=" and a key in base64; the first key is the current one. Empty lines and lines that begin with # are
// ignored. It returns [ErrInvalidData] if a line cannot be parsed or repeats an id, and for the reasons of
// [NewKeyring].
func ParseKeyring(text string) (Keyring, error) {
	keys, current := map[string][]byte{}, ""
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		id, encoded, found := strings.Cut(line, "=")
		id = strings.TrimSpace(id)
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
		if !found || err != nil { // the error of base64 would quote the key
			return nil, fmt.Errorf(
				"parse keyring: %w: line %d is not an id, = and a key in base64", ErrInvalidData, n+1,
			)
		}
		if _, twice := keys[id]; twice {
			return nil, fmt.Errorf("parse keyring: %w: line %d repeats an id", ErrInvalidData, n+1)
		}
		keys[id] = key
		if current == "" {
			current = id
		}
	}
	return NewKeyring(current, keys)
}
