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

// maxOverlap is how long a key that is rotated may stay in use.
const maxOverlap = 90 * utc.Day

// KeyRotationInput describes the key that follows another one.
type KeyRotationInput struct {
	APIKey string // the new key itself, as in KeyInput
	// Overlap is how long the old key is used beside the new one, up to 90 days. 0: not at all.
	Overlap time.Duration
}

// RotateAPIKey replaces a live key by another one of the same provider, label, limits, group, priority, weight and
// models, and returns that. The old key expires when the overlap is over: it stays in lists, and calls that were made
// with it are recorded as its own. A key that expires already is replaced too, and expires at the earlier instant of
// the two; it does not count among the [MaxKeysPerProvider].
//
// It returns [ErrNotFound], and the errors of AddAPIKey; [ErrInvalidData] also for a keyless key and for an overlap
// that is negative or too long.
func (r *Registry) RotateAPIKey(ctx context.Context, id uuid.UUID, in KeyRotationInput) (key *ent.APIKey, err error) {
	op := fmt.Sprintf("rotate API key %s", id)
	var f fault.List
	checkAPIKey(&f, in.APIKey)
	f.Check(in.Overlap >= 0 && in.Overlap <= maxOverlap, "overlap %s is not between 0 and %s", in.Overlap, maxOverlap)
	if err := f.Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	err = r.writeAlone(ctx, op, func(tx *ent.Client) error {
		old, err := r.lockedKey(ctx, tx, id, apikey.DeletedAtIsNil())
		if err != nil {
			return err
		}
		if isKeyless(old) {
			return fmt.Errorf("%w: it is keyless", ErrInvalidData)
		}
		now := timeOf(tx)
		expires := now.Add(in.Overlap)
		if old.ExpiresAt != nil {
			expires = utc.Min(expires, *old.ExpiresAt)
		}
		expiring, err := old.Update().SetExpiresAt(expires).Save(ctx)
		if err != nil {
			return err
		}
		if err := r.audit(ctx, tx, now, auditKey(ActionRotate, old, expiring)); err != nil {
			return err
		}
		next := KeyInput{APIKey: in.APIKey}
		copyFields(&next, old)
		copyFields(&next.Limits, old)
		if key, err = r.createKey(ctx, tx, next, now); err != nil {
			return taken(err, "the provider has the new key already")
		}
		return r.audit(ctx, tx, now, auditKey(ActionCreate, nil, key))
	})
	if err != nil {
		return nil, err
	}
	return key.Unwrap(), nil
}

// KeyringRotationInput says what RotateKeyring changes beside the owner's key.
type KeyringRotationInput struct {
	DataKey bool // seal all API keys anew, by another data key
}

// KeyringResult says what RotateKeyring did.
type KeyringResult struct {
	Rewrapped int // data keys that were wrapped by another key of the keyring than its current one
	Resealed  int // API keys that were sealed by another data key than the newest
	Removed   int // data keys that sealed nothing any more
	Left      int // API keys that are still sealed by another data key than the newest
}

// resealBatch is how many API keys a transaction of RotateKeyring seals.
const resealBatch = 100

// RotateKeyring wraps the data keys with the keyring's current key, so that its other keys are needed no more; give
// all processes the new keyring before. With DataKey it also seals the API keys anew, in small transactions, by a new
// data key, or, if an earlier call was interrupted, by the one it had made: call it again until Left is 0. Everything
// else goes on meanwhile, in other processes too: while the keyring unwraps data keys nobody waits; while it wraps one
// again or a new one, those who change the catalogue or keys do, on SQLite all who write. A transaction that seals
// holds back those who use keys of its providers.
//
// It returns [ErrKeyring] when there is no keyring or it lacks a key, and [ErrCorrupt], with the rest done, for an API
// key that does not open, which is left as it is; the report says what was done before an error.
func (r *Registry) RotateKeyring(ctx context.Context, in KeyringRotationInput) (report KeyringResult, err error) {
	const op = "rotate keyring"
	var newest uuid.UUID
	err = r.writeAlone(ctx, op, func(tx *ent.Client) error {
		report = KeyringResult{}
		if r.vault.ring == nil {
			return fmt.Errorf("%w: open the registry WithKeyring", ErrKeyring)
		}
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
		if err := r.auditRotation(ctx, tx, "rewrapped", report.Rewrapped); err != nil {
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
		newest, err = r.vault.newDataKey(ctx, tx, r.now())
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
	err = r.writeAlone(ctx, op, func(tx *ent.Client) error {
		newest, err := newestDataKey(ctx, tx) // another rotation may have begun, whose data key has sealed nothing yet
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
		return r.auditRotation(ctx, tx, "removed", report.Removed)
	})
	return report, errors.Join(err, translate(ctx, op, errors.Join(failed...)))
}

// auditRotation records how many keys a transaction of RotateKeyring has changed, and how.
func (r *Registry) auditRotation(ctx context.Context, tx *ent.Client, how string, n int) error {
	if n == 0 {
		return nil
	}
	return r.audit(
		ctx, tx, timeOf(tx), auditEntry{action: ActionRotate, entity: EntityKeyring, after: map[string]int{how: n}},
	)
}

// reseal seals API keys by a data key that others have sealed. It returns why some do not open.
func (r *Registry) reseal(ctx context.Context, by uuid.UUID, report *KeyringResult) (failed []error, err error) {
	const op = "seal API keys"
	if err := r.unwrapBefore(ctx, by); err != nil {
		return nil, translate(ctx, op, err)
	}
	last := uuid.Nil
	err = r.pieces(ctx, op, func() (more bool, err error) {
		var p resealed
		err = r.writeAlone(ctx, op, func(tx *ent.Client) error {
			p = resealed{}
			newest, err := newestDataKey(ctx, tx)
			if err != nil || newest.ID != by { // another rotation has begun since, and does the rest
				return err
			}
			if p, err = r.resealPiece(ctx, tx, by, last); err != nil {
				return err
			}
			return r.auditRotation(ctx, tx, "resealed", p.done)
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

// unwrapBefore unwraps the data keys that reseal needs, so that it asks no service while others wait for it.
func (r *Registry) unwrapBefore(ctx context.Context, by uuid.UUID) error {
	ids, err := r.fresh.DataKey.Query().Where(datakey.Or(datakey.ID(by), datakey.HasKeys())).IDs(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		// another rotation has removed it
		if _, err := r.vault.dataKey(ctx, r.fresh, id); err != nil && !ent.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// resealed is a piece of what reseal does.
type resealed struct {
	ids   []uuid.UUID // of the API keys, in their order
	done  int
	wrong []error // why others do not open
}

// resealPiece seals API keys after an id. It keeps others from the pools of these keys alone.
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
