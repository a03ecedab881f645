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
	var f fault.List
	f.Check(duration > 0 && duration <= pool.MaxDegradation,
		"duration %s is not between 1ns and %s", duration, pool.MaxDegradation)
	return r.write(ctx, fmt.Sprintf("degrade key %s", keyID), f, func(tx *ent.Client) error {
		old, err := r.lockedKey(ctx, tx, keyID, apikey.DeletedAtIsNil())
		if err != nil {
			return err
		}
		until := timeOf(tx).Add(duration)
		if old.DegradedUntil != nil && old.DegradedUntil.After(until) {
			return nil
		}
		_, err = save(ctx, tx, ActionDegrade, old, old.Update().SetDegraded(true).SetDegradedUntil(until).
			SetDegradedReason(fault.Clean(reason, rule.MaxReason)).SetDegradedBy("").ClearDegradedAt())
		return err
	})
}

// RestoreKey ends the degradation of a live key, for whatever reason it was degraded. It also forgets the key's
// failures, and what the provider has said of the limits of the key or of its quota group. A disabled key stays
// disabled. It returns [ErrNotFound] if there is no such live key.
func (r *Registry) RestoreKey(ctx context.Context, keyID uuid.UUID) error {
	return r.write(ctx, fmt.Sprintf("restore key %s", keyID), nil, func(tx *ent.Client) error {
		old, err := r.lockedKey(ctx, tx, keyID, apikey.DeletedAtIsNil())
		if err != nil {
			return err
		}
		_, err = save(ctx, tx, ActionRestore, old, old.Update().
			SetDegraded(false).ClearDegradedUntil().ClearDegradedAt().SetDegradedReason("").SetDegradedBy("").
			SetFailures(0).SetCountedClass("").ClearCountedAt().SetFailureClass("").ClearFailedAt().ClearObserved())
		if err != nil || old.QuotaGroupID == nil {
			return err
		}
		group, err := tx.QuotaGroup.Get(ctx, *old.QuotaGroupID)
		if err != nil {
			return err
		}
		_, err = save(ctx, tx, ActionRestore, group, group.Update().ClearObserved())
		return err
	})
}
