package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/accesskey"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

const (
	minAccessSecret    = 16 // characters
	accessPrefix       = "msk-"
	accessPrefixLength = 12
)

// AccessKeyInput describes an access key to be created: by its secret, a caller shows for which consumer it acts.
type AccessKeyInput struct {
	ConsumerID uuid.UUID // a live consumer
	Label      string    // name for people, up to 128 characters
	ExpiresAt  time.Time // the first instant it is not accepted any more. Defaults to never
	// Secret is the secret itself: 16 to 4,096 printable ASCII characters without spaces. Stored are its SHA-256 and
	// its first 12 characters, at most half of it. A hash does not protect a secret that can be guessed. By default one
	// is made, of 256 random bits, which begins with msk-.
	Secret Secret
}

// AccessKeyUpdate changes the fields of an access key that are not nil, under the rules of [AccessKeyInput].
type AccessKeyUpdate struct {
	Label     *string
	ExpiresAt *time.Time // zero: never
	Disabled  *bool      // a disabled access key is not accepted until a person enables it
}

// newAccessSecret makes a secret.
func newAccessSecret() (Secret, error) {
	var bits [32]byte
	if _, err := rand.Read(bits[:]); err != nil {
		return Secret{}, err
	}
	return NewSecret(accessPrefix + base64.RawURLEncoding.EncodeToString(bits[:])), nil
}

// checkAccessSecret adds the faults of a secret to f, and shows no character of it.
func checkAccessSecret(f *fault.List, secret Secret) {
	key := secret.key()
	f.Check(bytes.IndexFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }) < 0,
		"the secret has spaces, or characters that are not printable ASCII")
	f.Check(len(key) >= minAccessSecret && len(key) <= maxKeyLength, "the secret has %d characters, not %d to %d",
		len(key), minAccessSecret, maxKeyLength)
}

// CreateAccessKey creates an access key for a consumer, and returns it with its secret. The secret is not stored: it is
// returned once.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule
//   - [ErrForeignKey]: the consumer is unknown
//   - [ErrConflict]: an access key has the secret already, perhaps a deleted one: a secret that was revoked never comes
//     back
func (r *Registry) CreateAccessKey(ctx context.Context, in AccessKeyInput) (*ent.AccessKey, Secret, error) {
	f := judge(draft.AccessKey.Create(), in)
	op := fmt.Sprintf("create access key for consumer %s", in.ConsumerID)
	if in.Secret.IsZero() {
		var err error
		if in.Secret, err = newAccessSecret(); err != nil {
			return nil, Secret{}, translate(ctx, op, err)
		}
	} else {
		checkAccessSecret(&f, in.Secret)
	}
	key, err := change(ctx, r.writeAlone, op, f, func(tx *ent.Client) (*ent.AccessKey, error) {
		if _, err := liveConsumer(ctx, tx, in.ConsumerID); ent.IsNotFound(err) {
			return nil, fault.Missing("consumer", in.ConsumerID)
		} else if err != nil {
			return nil, err
		}
		return createAccessKey(ctx, tx, tx.AccessKey.Create(), in)
	})
	if err != nil {
		return nil, Secret{}, err
	}
	return key, in.Secret, nil
}

// createAccessKey fills a builder from an input, and creates the row.
func createAccessKey(
	ctx context.Context, tx *ent.Client, create *ent.AccessKeyCreate, in AccessKeyInput,
) (*ent.AccessKey, error) {
	secret := in.Secret.key()
	key, err := save(ctx, tx, ActionCreate, nil, filled(create, in).
		SetKeyHash(hash(secret)).SetKeyPrefix(string(secret[:min(accessPrefixLength, len(secret)/2)])))
	return key, taken(err, "an access key has the secret, or had it until it was deleted")
}

// GetAccessKey returns an access key. A deleted one is returned too, with its DeletedAt set. It returns [ErrNotFound]
// if there is no such access key.
func (r *Registry) GetAccessKey(ctx context.Context, id uuid.UUID) (*ent.AccessKey, error) {
	key, err := r.client.AccessKey.Get(ctx, id)
	return tied(r, key), translate(ctx, fmt.Sprintf("get access key %s", id), err)
}

func liveAccessKey(ctx context.Context, client *ent.Client, id uuid.UUID) (*ent.AccessKey, error) {
	return client.AccessKey.Query().Where(accesskey.ID(id), accesskey.DeletedAtIsNil()).Only(ctx)
}

// AccessKeyFilter selects access keys.
type AccessKeyFilter struct {
	ConsumerID uuid.UUID // zero: all consumers
	Deleted    bool      // select deleted access keys instead of live ones

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last access key of the page before; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl AccessKeyFilter) Next(last *ent.AccessKey) (AccessKeyFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListAccessKeys returns a page of access keys, in the order in which they were created. It returns [ErrInvalidData] if
// the limit is out of range, and [ErrNotFound] if the access key that After names was purged with its consumer.
func (r *Registry) ListAccessKeys(ctx context.Context, filter AccessKeyFilter) ([]*ent.AccessKey, error) {
	l := listing[uuid.UUID]{ascending(accesskey.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	return list(ctx, r, "list access keys", nil, l, c.AccessKey.Get,
		c.AccessKey.Query().Where(matching[predicate.AccessKey](filter)...))
}

// UpdateAccessKey changes a live access key and returns it. Other processes act by it within a second; see
// [Registry.Authenticate]. It returns [ErrInvalidData] if the update breaks a rule, and [ErrNotFound] if there is no
// such live access key.
func (r *Registry) UpdateAccessKey(ctx context.Context, id uuid.UUID, up AccessKeyUpdate) (*ent.AccessKey, error) {
	op, f := fmt.Sprintf("update access key %s", id), judge(draft.AccessKey.UpdateOneID(id), up)
	return change(ctx, r.writePolicy, op, f, func(tx *ent.Client) (*ent.AccessKey, error) {
		old, err := liveAccessKey(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		return save(ctx, tx, switched(old.Disabled, up.Disabled), old, filled(old.Update(), up))
	})
}

// AccessKeyRotation says how an access key is replaced.
type AccessKeyRotation struct {
	// Overlap is how long the old access key is accepted beside the new one, up to 90 days. 0: it expires at once.
	Overlap   time.Duration
	ExpiresAt time.Time // the first instant the new access key is not accepted any more. Defaults to never
}

// RotateAccessKey replaces a live access key by a new one of the same consumer and label, and returns the new one with
// its secret, once. The old one expires when the overlap is over, or earlier if it expires anyway; it stays in lists.
// Other processes know it within a second; see [Registry.Authenticate].
//
// It returns [ErrInvalidData] if the rotation breaks a rule, and [ErrNotFound] if there is no such live access key.
func (r *Registry) RotateAccessKey(
	ctx context.Context, id uuid.UUID, in AccessKeyRotation,
) (*ent.AccessKey, Secret, error) {
	next := AccessKeyInput{ExpiresAt: in.ExpiresAt}
	f := judge(draft.AccessKey.Create(), next)
	f.Check(in.Overlap >= 0 && in.Overlap <= maxOverlap, "overlap %s is not between 0 and %s", in.Overlap, maxOverlap)
	op := fmt.Sprintf("rotate access key %s", id)
	var err error
	if next.Secret, err = newAccessSecret(); err != nil {
		return nil, Secret{}, translate(ctx, op, err)
	}
	key, err := change(ctx, r.writePolicy, op, f, func(tx *ent.Client) (*ent.AccessKey, error) {
		old, err := liveAccessKey(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		expires := timeOf(tx).Add(in.Overlap)
		if old.ExpiresAt != nil {
			expires = utc.Min(expires, *old.ExpiresAt)
		}
		if _, err := save(ctx, tx, ActionRotate, old, old.Update().SetExpiresAt(expires)); err != nil {
			return nil, err
		}
		next.ConsumerID, next.Label = old.ConsumerID, old.Label
		return createAccessKey(ctx, tx, tx.AccessKey.Create().SetID(idAfter(id)).SetReplacesID(id), next)
	})
	if err != nil {
		return nil, Secret{}, err
	}
	return key, next.Secret, nil
}

// idAfter returns a new id that comes after another one, even if the clock has gone back: Move copies rows in the order
// of their ids.
func idAfter(other uuid.UUID) uuid.UUID {
	id := accesskey.DefaultID()
	if bytes.Compare(id[:], other[:]) > 0 {
		return id
	}
	for i := len(other) - 1; i >= 0; i-- {
		if other[i]++; other[i] != 0 {
			break
		}
	}
	return other
}

// DeleteAccessKey deletes a live access key. It disappears from lists and its secret is not accepted any more, now or
// later: other processes know it within a second; see [Registry.Authenticate]. It returns [ErrNotFound] if there is no
// such live access key.
func (r *Registry) DeleteAccessKey(ctx context.Context, id uuid.UUID) error {
	return r.writePolicy(ctx, fmt.Sprintf("delete access key %s", id), nil, func(tx *ent.Client) error {
		old, err := liveAccessKey(ctx, tx, id)
		if err != nil {
			return err
		}
		_, err = save(ctx, tx, ActionDelete, old, old.Update().SetDeletedAt(timeOf(tx)))
		return err
	})
}
