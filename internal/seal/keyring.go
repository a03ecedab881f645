package seal

import (
	"bytes"
	"context"
	"crypto/cipher"
	"fmt"
	"strings"
	"unicode/utf8"
)

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
