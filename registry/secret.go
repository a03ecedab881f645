package registry

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/jeffersonwarrior/modelscan/ent"
)

// redacted is what a Secret prints as.
const redacted = "[redacted]"

// Secret is an API key that does not reveal itself by accident. Printing, logging or encoding it, or a struct that
// contains it, yields "[redacted]", or an error where that text would be taken for the key. The zero value contains no
// key.
//
// It cannot keep the key out of memory, nor out of the function that [Secret.Use] calls.
type Secret struct {
	reveal func() []byte // a closure, because fmt prints unexported fields
}

// NewSecret returns a secret with a key. It is for the function of [WithSecretResolver].
func NewSecret(key string) Secret { return secretOf([]byte(key)) }

func secretOf(key []byte) Secret { return Secret{func() []byte { return key }} }

// Use calls fn with a copy of the API key, clears the copy when fn returns, and returns the error of fn. If fn makes a
// string of it, as headers require, the string stays in memory until it is garbage-collected.
func (s Secret) Use(fn func(key []byte) error) error {
	key := bytes.Clone(s.key())
	defer clear(key)
	return fn(key)
}

// key returns the API key itself, which must not be changed.
func (s Secret) key() []byte {
	if s.reveal == nil {
		return nil
	}
	return s.reveal()
}

// IsZero reports whether the secret contains no key. That of a keyless key does not.
func (s Secret) IsZero() bool { return len(s.key()) == 0 }

// Equal reports whether two secrets contain the same key. It compares in constant time, except for lengths.
func (s Secret) Equal(o Secret) bool { return subtle.ConstantTimeCompare(s.key(), o.key()) == 1 }

// Format implements [fmt.Formatter], for all verbs.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements [fmt.Stringer].
func (Secret) String() string { return redacted }

// GoString implements [fmt.GoStringer].
func (Secret) GoString() string { return redacted }

// LogValue implements [slog.LogValuer].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler], and with it JSON and XML.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Errors for what must not be done with a secret.
var (
	errStored  = errors.New("an API key must not be stored")
	errEncoded = errors.New("an API key must not be encoded")
)

// Value implements [driver.Valuer]. It returns an error: a secret cannot be an argument of SQL.
func (Secret) Value() (driver.Value, error) { return nil, errStored }

// GobEncode implements [gob.GobEncoder]. It returns an error.
func (Secret) GobEncode() ([]byte, error) { return nil, errEncoded }

// is reports, in constant time, whether the secret is the key of a row.
func (s Secret) is(key *ent.APIKey) bool {
	return subtle.ConstantTimeCompare([]byte(hash(s.key())), []byte(key.KeyHash)) == 1
}

// hash returns the SHA-256 of a key in lower-case hex.
func hash[Key string | []byte](key Key) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
