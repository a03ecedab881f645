package registry

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/jeffersonwarrior/modelscan/internal/seal"
)

// Keyring holds the owner's keys, outside of the database. They wrap the data keys, by which API keys are sealed; the
// database keeps a data key wrapped, with the id of the key that wrapped it. [NewKeyring] and [ParseKeyring] return
// keyrings whose keys are in memory. An adapter for a key management service implements Keyring by two calls of the
// service, which wraps and unwraps there and never gives its key away:
//
//	func (k adapter) Wrap(ctx context.Context, id string, dataKey []byte, to registry.KeyringBinding) ([]byte, error) {
//		return k.service.Encrypt(ctx, id, dataKey, to) // to: additional authenticated data, or an encryption context
//	}
//
// A keyring is used by [Open], by RotateKeyring, and when another process has made a data key, which is rare: data keys
// stay in memory once they are unwrapped. It must be safe for concurrent use. Its methods return [ErrKeyring], perhaps
// wrapped, where they say so; the operation that called returns any other error, such as one of the network, as it is.
type Keyring interface {
	// CurrentID names the key that wraps from now on, in 1 to 128 characters. It is the same until the registry is
	// opened anew with another keyring.
	CurrentID() string
	// Wrap returns a data key of 32 bytes, wrapped by the key of that id, in up to 65,536 bytes. It authenticates the
	// binding together with it, and does not keep dataKey. It returns [ErrKeyring] for an unknown id.
	Wrap(ctx context.Context, id string, dataKey []byte, to KeyringBinding) (wrapped []byte, err error)
	// Unwrap returns the data key that Wrap was given with the same id and binding, in a slice of the caller's own: the
	// registry overwrites it with zeros. It returns [ErrKeyring] for an unknown id, and for what that key did not wrap,
	// or wrapped with another binding.
	Unwrap(ctx context.Context, id string, wrapped []byte, to KeyringBinding) (dataKey []byte, err error)
}

// KeyringBinding names what a wrapped data key belongs to: its database and its row. A keyring authenticates it, so
// that a data key that was moved elsewhere does not unwrap, and need not look into it: it is some hundred bytes, not
// text, and the same at each call for the same data key and id. A service that takes text only can be given its hash or
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

// KeyringKeySize is the length of a key of [NewKeyring], in bytes.
const KeyringKeySize = seal.KeySize

// NewKeyring returns a keyring of keys by their ids, of which current wraps from now on and the others still unwrap. A
// key is [KeyringKeySize] random bytes, such as those of `openssl rand 32`, and not a passphrase; an id has up to 128
// characters. It returns [ErrInvalidData].
func NewKeyring(current string, keys map[string][]byte) (Keyring, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf(
			"new keyring: %w: there is no key in it: is the file or the variable of the environment empty?",
			ErrInvalidData,
		)
	}
	ring, err := seal.NewStaticKeyring(current, keys)
	if err != nil {
		return nil, fmt.Errorf("new keyring: %w: %w", ErrInvalidData, err)
	}
	return memoryKeyring{ring}, nil
}

// ParseKeyring returns the keyring that a text says, such as the content of a file or of a variable of the environment:
// lines of an id, "=" and the key in base64, of which the first is current. Empty lines and those that begin with # say
// nothing. It returns [ErrInvalidData].
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
			return nil, fmt.Errorf("parse keyring: %w: line %d has an id that came before", ErrInvalidData, n+1)
		}
		keys[id] = key
		if current == "" {
			current = id
		}
	}
	return NewKeyring(current, keys)
}
