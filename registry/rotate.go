package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/datakey"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/seal"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// maxOverlap is how long a rotated key may stay in use.
const maxOverlap = 90 * utc.Day

// KeyRotationInput describes the key that replaces another one.
type KeyRotationInput struct {
	APIKey string // the new key itself, as in KeyInput
	// Overlap is how long the old key stays in use beside the new one, up to 90 days. 0: it expires at once.
	Overlap time.Duration
}

// RotateAPIKey replaces a live key by a new one with the same provider, label, limits, group, priority, weight and
// models, and returns the new key. The old key expires when the overlap is over. It stays in lists, and requests made
// with it are still recorded as its own.
//
// A key that already expires can be replaced too; it expires at the earlier of the two times. A key that expires does
// not count among the [MaxKeysPerProvider].
//
// Errors:
//
//   - [ErrInvalidData]: the new key breaks a rule, the overlap is negative or too long, the old key is keyless, or the
//     provider has too many keys
//   - [ErrNotFound]: there is no such live key
//   - [ErrConflict]: the provider has the new key already
//   - [ErrKeyring]: API keys are sealed, and the keyring is missing or lacks a key
func (r *Registry) RotateAPIKey(ctx context.Context, id uuid.UUID, in KeyRotationInput) (*ent.APIKey, error) {
	var f fault.List
	checkAPIKey(&f, in.APIKey)
	f.Check(in.Overlap >= 0 && in.Overlap <= maxOverlap, "overlap %s is not between 0 and %s", in.Overlap, maxOverlap)
	op := fmt.Sprintf("rotate API key %s", id)
	return change(ctx, r.writeAlone, op, f, func(tx *ent.Client) (*ent.APIKey, error) {
		old, err := r.lockedKey(ctx, tx, id, apikey.DeletedAtIsNil())
		if err != nil {
			return nil, err
		}
		if isKeyless(old) {
			return nil, fmt.Errorf("%w: a keyless key cannot be rotated", ErrInvalidData)
		}
		expires := timeOf(tx).Add(in.Overlap)
		if old.ExpiresAt != nil {
			expires = utc.Min(expires, *old.ExpiresAt)
		}
		if _, err := save(ctx, tx, ActionRotate, old, old.Update().SetExpiresAt(expires)); err != nil {
			return nil, err
		}
		next := KeyInput{APIKey: in.APIKey}
		copyFields(&next, old)
		copyFields(&next.Limits, old)
		key, err := r.createKey(ctx, tx, next)
		return key, taken(err, "the provider has the new key already")
	})
}

// KeyringRotationInput says what RotateKeyring does besides wrapping data keys.
type KeyringRotationInput struct {
	DataKey bool // seal all API keys anew with a new data key
}

// KeyringResult says what RotateKeyring has done.
type KeyringResult struct {
	Rewrapped int // data keys that were wrapped anew, with the keyring's current key
	Resealed  int // API keys that were sealed anew, with the newest data key
	Removed   int // data keys that were removed, because they sealed nothing any more
	Left      int // API keys that are still sealed with an older data key
}

// resealBatch is how many API keys RotateKeyring seals in one transaction.
const resealBatch = 100

// RotateKeyring wraps all data keys with the keyring's current key, so that its other keys are not needed any more.
// Give all processes the new keyring before.
//
// With DataKey it also seals the API keys anew, in small transactions, with a new data key; or with the data key of an
// earlier call that was interrupted. Call it until Left is 0.
//
// Everything else goes on meanwhile, in other processes too. Nobody waits while the keyring unwraps data keys. While it
// wraps one, changes of the catalogue and of keys wait; on SQLite all writers do. A transaction that seals API keys
// holds back those who use keys of the same providers.
//
// It returns [ErrKeyring] if there is no keyring or it lacks a key, and [ErrCorrupt] if an API key does not open. That
// key is left as it is, and the rest is done. The result says what was done, also with an error.
func (r *Registry) RotateKeyring(ctx context.Context, in KeyringRotationInput) (report KeyringResult, err error) {
	const op = "rotate keyring"
	var newest uuid.UUID
	err = r.writeAlone(ctx, op, nil, func(tx *ent.Client) error {
		report = KeyringResult{}
		if r.vault.ring == nil {
			return fmt.Errorf("%w: open the registry WithKeyring", ErrKeyring)
		}
		if err := r.rewrap(ctx, tx, &report); err != nil {
			return err
		}
		last, err := newestDataKey(ctx, tx)
		if err != nil || !in.DataKey {
			return err
		}
		newest = last.ID
		older, err := tx.APIKey.Query().Where(apikey.DataKeyIDNEQ(newest)).Exist(ctx)
		if err != nil || older {
			return err
		}
		newest, err = r.vault.newDataKey(ctx, tx, timeOf(tx))
		return err
	})
	if err != nil {
		return report, err
	}
	var failed []error
	if in.DataKey {
		if failed, err = r.reseal(ctx, newest, &report); err != nil {
			return report, err
		}
	}
	err = r.writeAlone(ctx, op, nil, func(tx *ent.Client) error {
		newest, err := newestDataKey(ctx, tx) // it may be another rotation's, and have sealed nothing yet
		if err != nil {
			return err
		}
		if report.Removed, err = tx.DataKey.Delete().Where(datakey.IDNEQ(newest.ID), datakey.Not(datakey.HasKeys())).
			Exec(ctx); err != nil {
			return err
		}
		if report.Left, err = tx.APIKey.Query().Where(apikey.DataKeyIDNEQ(newest.ID)).Count(ctx); err != nil {
			return err
		}
		noteKeys(tx, "removed", report.Removed)
		return nil
	})
	return report, errors.Join(err, translate(ctx, op, errors.Join(failed...)))
}

// rewrap wraps data keys with the keyring's current key.
func (r *Registry) rewrap(ctx context.Context, tx *ent.Client, report *KeyringResult) error {
	rows, err := tx.DataKey.Query().Order(datakey.ByID()).All(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.WrappedBy == r.vault.ring.CurrentID() {
			continue
		}
		by, wrapped, err := seal.RewrapDataKey(
			ctx, row.ID, r.vault.ring, row.WrappedBy, row.Wrapped, r.vault.binding(),
		)
		if err != nil {
			return ofKeyring(fmt.Errorf("data key %s: %w", row.ID, err))
		}
		if err := tx.DataKey.UpdateOne(row).SetWrappedBy(by).SetWrapped(wrapped).Exec(ctx); err != nil {
			return err
		}
		report.Rewrapped++
	}
	noteKeys(tx, "rewrapped", report.Rewrapped)
	return nil
}

// noteKeys notes how many keys a transaction of RotateKeyring has changed, and how.
func noteKeys(tx *ent.Client, how string, n int) {
	if n > 0 {
		note(tx, auditEntry{action: ActionRotate, entity: EntityKeyring, after: map[string]int{how: n}})
	}
}

// reseal seals API keys with the data key by, if another one sealed them. It returns an error for each key that does
// not open.
func (r *Registry) reseal(ctx context.Context, by uuid.UUID, report *KeyringResult) (failed []error, err error) {
	const op = "seal API keys"
	if err := r.unwrapBefore(ctx, by); err != nil {
		return nil, translate(ctx, op, err)
	}
	last := uuid.Nil
	err = r.pieces(ctx, op, func() (more bool, err error) {
		var p resealed
		err = r.writeAlone(ctx, op, nil, func(tx *ent.Client) error {
			p = resealed{}
			newest, err := newestDataKey(ctx, tx)
			if err != nil || newest.ID != by { // another rotation has begun since; it does the rest
				return err
			}
			p, err = r.resealPiece(ctx, tx, by, last)
			noteKeys(tx, "resealed", p.done)
			return err
		})
		if err != nil {
			return false, err
		}
		failed = append(failed, p.wrong...)
		report.Resealed += p.done
		if len(p.ids) < resealBatch {
			return false, nil
		}
		last = p.ids[len(p.ids)-1]
		return true, nil
	})
	return failed, err
}

// unwrapBefore unwraps the data keys that reseal needs, so that reseal asks no service while others wait for it.
func (r *Registry) unwrapBefore(ctx context.Context, by uuid.UUID) error {
	ids, err := r.fresh.DataKey.Query().Where(datakey.Or(datakey.ID(by), datakey.HasKeys())).IDs(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		// if it is not found, another rotation has removed it
		if _, err := r.vault.dataKey(ctx, r.fresh, id); err != nil && !ent.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// resealed is what a piece of reseal has done.
type resealed struct {
	ids   []uuid.UUID // the ids of the API keys, in order
	done  int
	wrong []error // for the keys that do not open
}

// resealPiece seals the next API keys after an id. It holds only the pools of these keys.
func (r *Registry) resealPiece(ctx context.Context, tx *ent.Client, by, after uuid.UUID) (p resealed, err error) {
	p.ids, err = tx.APIKey.Query().Where(apikey.DataKeyIDNEQ(by), apikey.IDGT(after)).
		Order(apikey.ByID()).Limit(resealBatch).IDs(ctx)
	if err != nil || len(p.ids) == 0 {
		return p, err
	}
	ids := make(map[uuid.UUID]bool, len(p.ids))
	for _, id := range p.ids {
		ids[id] = true
	}
	if err := r.holdPools(ctx, tx, commit.PoolsOfKeys, commit.Texts(ids)); err != nil {
		return p, err
	}
	keys, err := tx.APIKey.Query().Where(apikey.IDIn(p.ids...), apikey.DataKeyIDNEQ(by)).Order(apikey.ByID()).All(ctx)
	if err != nil {
		return p, err
	}
	dataKey, err := r.vault.dataKey(ctx, tx, by)
	if err != nil {
		return p, err
	}
	for _, key := range keys {
		text, err := r.vault.unseal(ctx, tx, key)
		if errors.Is(err, ErrCorrupt) {
			p.wrong = append(p.wrong, fmt.Errorf("API key %s: %w", key.ID, err))
			continue
		}
		if err != nil {
			return p, err
		}
		blob := dataKey.Seal(text, r.vault.bindingOf(key))
		clear(text)
		if err := tx.APIKey.UpdateOne(key).SetSealed(blob).SetDataKeyID(by).Exec(ctx); err != nil {
			return p, err
		}
		p.done++
	}
	return p, nil
}
