// Package policy remembers access keys and their consumers, and says whom they let in. It runs no SQL: others look and
// read for it.
package policy

import (
	"crypto/sha256"
	"time"

	"github.com/google/uuid"
)

// Hash is the SHA-256 of a secret.
type Hash = [sha256.Size]byte

// AccessKey is an access key as it was read. It does not change.
type AccessKey struct {
	ID        uuid.UUID
	Consumer  uuid.UUID // that it is for
	Label     string
	ExpiresAt time.Time // zero: it does not expire
	Disabled  bool
	Deleted   bool
	// Consumers are the consumer that it is for, and those above, the root first; nil: its reader knows them.
	Consumers []Consumer
}

// Consumer is a consumer as it was read.
type Consumer struct {
	ID       uuid.UUID
	Name     string
	Disabled bool
	Deleted  bool
}

// Reason says why a caller is not let in.
type Reason string

// The reasons.
const (
	UnknownSecret     Reason = "unknown_secret"
	AccessKeyDeleted  Reason = "access_key_deleted"
	AccessKeyDisabled Reason = "access_key_disabled"
	AccessKeyExpired  Reason = "access_key_expired"
	ConsumerDeleted   Reason = "consumer_deleted"
	ConsumerDisabled  Reason = "consumer_disabled"
	ModelDenied       Reason = "model_denied"
)

// Refused says why the access key does not let its holder in, and for a reason that is a consumer's, which consumer's.
// An empty reason lets in.
func (k *AccessKey) Refused(now time.Time) (Reason, *Consumer) {
	switch {
	case k.Deleted:
		return AccessKeyDeleted, nil
	case k.Disabled:
		return AccessKeyDisabled, nil
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return AccessKeyExpired, nil
	}
	for i := range k.Consumers {
		if reason := k.Consumers[i].Refused(); reason != "" {
			return reason, &k.Consumers[i]
		}
	}
	return "", nil
}

// Refused says why nobody acts for the consumer; those above it are not asked. An empty reason lets in.
func (c *Consumer) Refused() Reason {
	switch {
	case c.Deleted:
		return ConsumerDeleted
	case c.Disabled:
		return ConsumerDisabled
	}
	return ""
}
