package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/accesskey"
	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/policy"
)

// Caller is who has shown the secret of an access key.
type Caller struct {
	AccessKeyID uuid.UUID
	ConsumerID  uuid.UUID // for whom it acts
	ExpiresAt   time.Time // the first instant the access key is not accepted any more; zero: it does not expire
}

// ForbiddenReason says why a caller is refused.
type ForbiddenReason string

// The reasons.
const (
	UnknownSecret     = ForbiddenReason(policy.UnknownSecret) // no access key has the secret
	AccessKeyDeleted  = ForbiddenReason(policy.AccessKeyDeleted)
	AccessKeyDisabled = ForbiddenReason(policy.AccessKeyDisabled)
	AccessKeyExpired  = ForbiddenReason(policy.AccessKeyExpired) // or another one has replaced it
	ConsumerDeleted   = ForbiddenReason(policy.ConsumerDeleted)
	ConsumerDisabled  = ForbiddenReason(policy.ConsumerDisabled) // or one above it
	ModelDenied       = ForbiddenReason(policy.ModelDenied)      // to the consumer, or to one above it
)

// ForbiddenError says who is refused, and why. It matches [ErrForbidden].
type ForbiddenError struct {
	Reason      ForbiddenReason
	AccessKeyID uuid.UUID // zero: no access key has the secret
	Label       string    // of the access key
	ConsumerID  uuid.UUID // whose access key it is; for a reason that is a consumer's, that consumer, perhaps above it
	Name        string    // of the consumer
	ExpiredAt   time.Time // if it is the reason
	Model       string    // if it is denied: the provider's name of it
}

// Error names the access key or the consumer, and the reason. It never has the secret.
func (e *ForbiddenError) Error() string {
	key := fmt.Sprintf("%s: access key %s", ErrForbidden, e.AccessKeyID)
	if e.Label != "" {
		key = fmt.Sprintf("%s: access key %q", ErrForbidden, e.Label)
	}
	switch e.Reason {
	case AccessKeyDeleted:
		return key + " is deleted"
	case AccessKeyDisabled:
		return key + " is disabled"
	case AccessKeyExpired:
		return key + " has expired at " + e.ExpiredAt.Format(time.RFC3339)
	case ConsumerDeleted:
		return fmt.Sprintf("%s: consumer %q is deleted", ErrForbidden, e.Name)
	case ConsumerDisabled:
		return fmt.Sprintf("%s: consumer %q is disabled", ErrForbidden, e.Name)
	case ModelDenied:
		return fmt.Sprintf("%s: consumer %q may not use model %q", ErrForbidden, e.Name, e.Model)
	}
	return fmt.Sprintf("%s: no access key has this secret", ErrForbidden)
}

// Unwrap returns [ErrForbidden].
func (*ForbiddenError) Unwrap() error { return ErrForbidden }

// Authenticate says who shows a secret. Access keys and consumers are remembered, so it takes less than a microsecond
// for a secret that was shown before. A secret of no access key is looked up each time.
//
// A change of an access key or a consumer, such as its end, is effective in this process at once and in all others
// within a second: once a second a process asks the database whether something has changed. Within [Registry.InTx] it
// sees what the transaction has changed.
//
// It returns [ErrForbidden], as a [*ForbiddenError], if no access key has the secret; if the access key has expired, or
// is disabled or deleted; or if its consumer, or one above it, is.
func (r *Registry) Authenticate(ctx context.Context, presented string) (Caller, error) {
	const op = "authenticate"
	if err := ctx.Err(); err != nil {
		return Caller{}, translate(ctx, op, err)
	}
	now, hash := r.now(), sha256.Sum256([]byte(presented))
	var key *policy.AccessKey
	if !r.inTx {
		key = r.policy.Remembered(hash, now)
	}
	if key == nil {
		var err error
		if key, err = r.accessKey(ctx, hash); err != nil {
			return Caller{}, translate(ctx, op, err)
		}
	}
	reason, of := key.Refused(now)
	if reason == "" {
		return Caller{AccessKeyID: key.ID, ConsumerID: key.Consumer, ExpiresAt: key.ExpiresAt}, nil
	}
	if of == nil {
		of = &key.Consumers[len(key.Consumers)-1]
	}
	return Caller{}, translate(ctx, op, &ForbiddenError{
		Reason: ForbiddenReason(reason), AccessKeyID: key.ID, Label: key.Label,
		ConsumerID: of.ID, Name: of.Name, ExpiredAt: key.ExpiresAt,
	})
}

// accessKey returns the access key of a secret that is not remembered.
func (r *Registry) accessKey(ctx context.Context, hash policy.Hash) (*policy.AccessKey, error) {
	if r.inTx {
		return readAccessKey(ctx, r.client, hash)
	}
	return r.policy.AccessKey(ctx, hash, func(ctx context.Context) (*policy.AccessKey, error) {
		return readAccessKey(ctx, r.fresh, hash)
	})
}

// readAccessKey reads an access key and the consumers that it depends on.
func readAccessKey(ctx context.Context, client *ent.Client, hash policy.Hash) (*policy.AccessKey, error) {
	row, err := client.AccessKey.Query().Where(accesskey.KeyHash(hex.EncodeToString(hash[:]))).
		WithConsumer().Only(ctx)
	if ent.IsNotFound(err) {
		return nil, &ForbiddenError{Reason: UnknownSecret}
	}
	if err != nil {
		return nil, err
	}
	if row.Edges.Consumer == nil { // it has been purged since
		return nil, &ForbiddenError{Reason: UnknownSecret}
	}
	consumers, err := consumersOf(ctx, client, row.Edges.Consumer.Path)
	if err != nil {
		return nil, err
	}
	return &policy.AccessKey{
		ID: row.ID, Consumer: row.ConsumerID, Label: row.Label, ExpiresAt: value(row.ExpiresAt),
		Disabled: row.Disabled, Deleted: row.DeletedAt != nil, Consumers: consumers,
	}, nil
}

// consumersOf reads the consumers of a path, the root first.
func consumersOf(ctx context.Context, client *ent.Client, path string) ([]policy.Consumer, error) {
	ids, err := commit.PathIDs(path)
	if err != nil {
		return nil, err
	}
	rows, err := client.Consumer.Query().Where(consumer.IDIn(ids...)).All(ctx)
	if err != nil {
		return nil, err
	}
	if len(rows) < len(ids) { // they have been purged since
		return nil, &ForbiddenError{Reason: UnknownSecret}
	}
	consumers := make([]policy.Consumer, len(ids))
	for _, c := range rows {
		consumers[slices.Index(ids, c.ID)] = policy.Consumer{
			ID: c.ID, Name: c.Name, Disabled: c.Disabled, Deleted: c.DeletedAt != nil,
		}
	}
	return consumers, nil
}

// policyVersion returns the number of changes of what processes remember.
func (r *Registry) policyVersion(ctx context.Context) (int64, error) {
	row, err := r.fresh.PolicyVersion.Query().Only(ctx)
	if ent.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return row.Version, nil
}

// forbidden returns the error for a request that a batch forbids.
func forbidden(why commit.Refusal) error {
	e := &ForbiddenError{Reason: ForbiddenReason(why.Reason), Model: why.Model}
	if key := why.AccessKey; key != nil {
		e.AccessKeyID, e.Label, e.ConsumerID, e.ExpiredAt = key.ID, key.Label, key.Consumer, key.ExpiresAt
	}
	if who := why.Consumer; who != nil {
		e.ConsumerID, e.Name = who.ID, who.Name
	}
	return e
}
