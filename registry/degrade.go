package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// DegradeKey takes a live key out of use for a duration, at most ten years. After that it is usable again by itself. If
// the key is degraded already, the degradation that ends later counts.
//
// The reason is for people. It may be any text, such as a provider's message: characters that cannot be printed are
// left out, and the text is cut after 1,024 characters.
//
// It returns [ErrInvalidData] if the duration is not positive or is too long, and [ErrNotFound] if there is no such
// live key.
func (r *Registry) DegradeKey(ctx context.Context, keyID uuid.UUID, reason string, duration time.Duration) error {
	op := fmt.Sprintf("degrade key %s", keyID)
	var f fault.List
	f.Check(
		duration > 0 && duration <= pool.MaxDegradation, "duration %s is not between 1ns and %s", duration,
		pool.MaxDegradation,
	)
	if err := f.Err(); err != nil {
		return translate(ctx, op, err)
	}
	return r.write(ctx, op, func(tx *ent.Client) error {
		now := timeOf(tx)
		until := now.Add(duration)
		old, err := r.lockedKey(ctx, tx, keyID, apikey.DeletedAtIsNil())
		if err != nil {
			return err
		}
		if old.DegradedUntil != nil && old.DegradedUntil.After(until) {
			return nil
		}
		key, err := old.Update().SetDegraded(true).SetDegradedUntil(until).
			SetDegradedReason(fault.Clean(reason, rule.MaxReason)).SetDegradedBy("").
			ClearDegradedAt().Save(ctx)
		if err != nil {
			return err
		}
		return r.audit(ctx, tx, now, auditKey(ActionDegrade, old, key))
	})
}

// RestoreKey ends the degradation of a live key, for whatever reason it was degraded. It also forgets the key's
// failures, and what the provider has said of the limits of the key or of its quota group. A disabled key stays
// disabled. It returns [ErrNotFound] if there is no such live key.
func (r *Registry) RestoreKey(ctx context.Context, keyID uuid.UUID) error {
	return r.write(ctx, fmt.Sprintf("restore key %s", keyID), func(tx *ent.Client) error {
		old, err := r.lockedKey(ctx, tx, keyID, apikey.DeletedAtIsNil())
		if err != nil {
			return err
		}
		key, err := old.Update().
			SetDegraded(false).ClearDegradedUntil().ClearDegradedAt().SetDegradedReason("").SetDegradedBy("").
			SetFailures(0).SetCountedClass("").ClearCountedAt().SetFailureClass("").ClearFailedAt().ClearObserved().
			Save(ctx)
		if err != nil {
			return err
		}
		entries := []auditEntry{auditKey(ActionRestore, old, key)}
		if id := old.QuotaGroupID; id != nil {
			group, err := tx.QuotaGroup.Get(ctx, *id)
			if err != nil {
				return err
			}
			restored, err := group.Update().ClearObserved().Save(ctx)
			if err != nil {
				return err
			}
			entries = append(entries, auditGroup(ActionRestore, group, restored))
		}
		return r.audit(ctx, tx, timeOf(tx), entries...)
	})
}
