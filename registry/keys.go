package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/ent/quotagroup"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
)

const (
	// MaxKeysPerProvider is how many live keys a provider may have.
	MaxKeysPerProvider = 100

	maxKeyLength = 4096
	prefixLength = 8
)

// KeyInput describes an API key to be added.
type KeyInput struct {
	ProviderID uuid.UUID // a live provider
	// APIKey is the key itself: 1 to 4,096 printable ASCII characters without spaces. Its SHA-256 and its first 8
	// characters, at most half of it, are stored, and the key only [WithKeyring], sealed. The SHA-256 of a key that can
	// be guessed protects nothing, and a short key can be: who reads the database tries them all.
	APIKey string
	// Keyless adds a stand-in for a provider that takes no key, such as a local server, so that
	// usage can be recorded there too. APIKey must be empty. A provider has at most one.
	Keyless bool
	Label   string // name for people, up to 128 characters

	// AcquireKey goes by these:

	Limits       Limits
	QuotaGroupID uuid.UUID // the account at the provider whose limits it shares. Defaults to none
	Priority     int       // keys of a higher one are used first, -1,000 to 1,000
	Weight       int       // its share of the requests beside keys of the same priority, 1 to 1,000. Defaults to 1
	// AllowedModels are the models that it is for, by the provider's names, of which one that ends with * stands for
	// all that begin so; up to 1,000. Defaults to all.
	AllowedModels []string
	DeniedModels  []string // the models that it is not for, likewise
}

// KeyUpdate changes the fields of a key that are not nil.
type KeyUpdate struct {
	Label    *string
	Disabled *bool // a disabled key is not used until a person enables it

	Limits        *Limits    // all of them
	QuotaGroupID  *uuid.UUID // the zero UUID: none
	Priority      *int
	Weight        *int
	AllowedModels *[]string // an empty list: all
	DeniedModels  *[]string

	// APIKey is the key itself, the same as before, to be sealed where only its hash is kept; WithKeyring alone.
	APIKey *string
}

func (in KeyInput) faults() fault.List {
	f := judge(draft.APIKey.Create(), in)
	if in.Keyless {
		f.Check(in.APIKey == "", "a keyless key has an API key")
	} else {
		checkAPIKey(&f, in.APIKey)
	}
	return f
}

// checkAPIKey notes what is wrong with an API key, without a character of it.
func checkAPIKey(f *fault.List, key string) {
	if key == "" {
		f.Check(false, "the API key is empty")
		return
	}
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' {
			f.Check(false, "the API key has characters other than printable ASCII, or spaces")
			break
		}
	}
	f.Check(len(key) <= maxKeyLength, "the API key has %d characters, more than %d", len(key), maxKeyLength)
}

// prefixOf returns what is stored of a key to tell it from others: its first characters, at most half of it.
func prefixOf(key string) string { return key[:min(prefixLength, len(key)/2)] }

// isKeyless tells whether it stands in for no key.
func isKeyless(key *ent.APIKey) bool { return key.KeyHash == hash("") }

// hash returns the SHA-256 of a key in lower-case hex.
func hash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// AddAPIKey adds an API key to a provider. It returns [ErrInvalidData], also for the key past
// [MaxKeysPerProvider]; [ErrForeignKey] for an unknown provider; or [ErrConflict] when the
// provider has the key already; or [ErrKeyring] where API keys are sealed and the keyring is missing or lacks its key.
func (r *Registry) AddAPIKey(ctx context.Context, in KeyInput) (key *ent.APIKey, err error) {
	op := fmt.Sprintf("add API key to provider %s", in.ProviderID)
	in.Weight = cmp.Or(in.Weight, 1)
	f := in.faults()
	if err := f.Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	err = r.writeAlone(ctx, op, func(tx *ent.Client) error {
		if err := requireProvider(ctx, tx, in.ProviderID); err != nil {
			return err
		}
		now := timeOf(tx)
		if key, err = r.createKey(ctx, tx, in, now); err != nil {
			return err
		}
		return r.audit(ctx, tx, now, auditKey(ActionCreate, nil, key))
	})
	if err != nil {
		return nil, err
	}
	return key.Unwrap(), nil
}

// createKey creates a key of a live provider.
func (r *Registry) createKey(ctx context.Context, tx *ent.Client, in KeyInput, now time.Time) (*ent.APIKey, error) {
	if err := requireRoom(ctx, tx, in.ProviderID); err != nil {
		return nil, err
	}
	id, hash := apikey.DefaultID(), hash(in.APIKey)
	create := filled(tx.APIKey.Create().SetID(id), in).
		SetKeyHash(hash).SetKeyPrefix(prefixOf(in.APIKey)).
		SetLastReset(now)
	if in.QuotaGroupID != uuid.Nil {
		if err := requireGroup(ctx, tx, in.ProviderID, in.QuotaGroupID); err != nil {
			return nil, err
		}
	}
	if !in.Keyless {
		s, err := r.vault.sealKey(ctx, tx, &ent.APIKey{ID: id, ProviderID: in.ProviderID, KeyHash: hash}, in.APIKey)
		if err != nil {
			return nil, err
		}
		if s.blob != nil {
			create.SetSealed(s.blob).SetDataKeyID(s.by)
		}
	}
	return create.Save(ctx)
}

// UpdateAPIKey changes a live key and returns it as it is now. It returns [ErrInvalidData], also for an API key that is
// not the same; [ErrNotFound]; or [ErrKeyring].
func (r *Registry) UpdateAPIKey(ctx context.Context, id uuid.UUID, up KeyUpdate) (key *ent.APIKey, err error) {
	op := fmt.Sprintf("update API key %s", id)
	f := judge(draft.APIKey.UpdateOneID(id), up)
	if up.APIKey != nil {
		checkAPIKey(&f, *up.APIKey)
		f.Check(r.vault.ring != nil, "the API key cannot be kept without a keyring")
	}
	if err := f.Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	write := r.write
	if up.APIKey != nil || up.QuotaGroupID != nil {
		// RotateKeyring makes another data key meanwhile, and removes the old one; DeleteQuotaGroup finds nobody in the
		// group.
		write = r.writeAlone
	}
	err = write(ctx, op, func(tx *ent.Client) error {
		old, err := r.lockedKey(ctx, tx, id, apikey.DeletedAtIsNil())
		if err != nil {
			return err
		}
		now := timeOf(tx)
		update := filled(old.Update(), up)
		if err := up.change(ctx, tx, old, update); err != nil {
			return err
		}
		if up.APIKey != nil {
			if !NewSecret(*up.APIKey).is(old) {
				return fmt.Errorf("%w: it is another API key: RotateAPIKey replaces one", ErrInvalidData)
			}
			s, err := r.vault.sealKey(ctx, tx, old, *up.APIKey)
			if err != nil {
				return err
			}
			update.SetSealed(s.blob).SetDataKeyID(s.by)
		}
		key, err = update.Save(ctx)
		if err != nil {
			return err
		}
		action := ActionUpdate
		if key.Disabled != old.Disabled {
			action = ActionEnable
			if key.Disabled {
				action = ActionDisable
			}
		}
		err = r.audit(ctx, tx, now, auditKey(action, old, key))
		asOf(key, now)
		return err
	})
	if err != nil {
		return nil, err
	}
	return key.Unwrap(), nil
}

// change checks what the key refers to, and sets what follows from the update. What is under way when a key changes its
// group counts in the old one to its end.
func (up KeyUpdate) change(ctx context.Context, tx *ent.Client, old *ent.APIKey, update *ent.APIKeyUpdateOne) error {
	if up.Priority != nil && *up.Priority != old.Priority {
		update.SetPass(0) // its turns were among others
		if err := tx.KeyLease.Update().Where(keylease.APIKeyID(old.ID)).SetPass(0).Exec(ctx); err != nil {
			return err
		}
	}
	id := value(up.QuotaGroupID)
	if id == uuid.Nil || id == value(old.QuotaGroupID) {
		return nil
	}
	return requireGroup(ctx, tx, old.ProviderID, id)
}

// DeleteAPIKey deletes a live key: it is gone from lists and may be added again, while the
// ledger keeps pointing at it. [Registry.UndeleteAPIKey] takes it back. It returns [ErrNotFound].
func (r *Registry) DeleteAPIKey(ctx context.Context, id uuid.UUID) error {
	return r.write(ctx, fmt.Sprintf("delete API key %s", id), func(tx *ent.Client) error {
		old, err := r.lockedKey(ctx, tx, id, apikey.DeletedAtIsNil())
		if err != nil {
			return err
		}
		now := timeOf(tx)
		key, err := old.Update().SetDeletedAt(now).Save(ctx)
		if err != nil {
			return err
		}
		return r.audit(ctx, tx, now, auditKey(ActionDelete, old, key))
	})
}

// PurgeAPIKey removes a key, live or deleted, from the database. It returns [ErrNotFound], or
// [ErrForeignKey], changing nothing, when usage was ever recorded.
func (r *Registry) PurgeAPIKey(ctx context.Context, id uuid.UUID) error {
	return r.write(ctx, fmt.Sprintf("purge API key %s", id), func(tx *ent.Client) error {
		key, err := r.lockedKey(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := tx.APIKey.DeleteOne(key).Exec(ctx); err != nil {
			return err
		}
		return r.audit(ctx, tx, timeOf(tx), auditKey(ActionPurge, key, nil))
	})
}

// GetLeastUsedKey returns the key of a provider that has served the fewest requests, as it is
// now. It passes over keys that are disabled or expired, and over keys that are degraded until their
// degraded_until; among equals the key that was used longest ago comes first, a key that was
// never used before all others. It reserves nothing: until usage is recorded, the next caller
// gets the same key.
//
// It returns [ErrNoKeyAvailable], as a [*NoKeyError] that says why for each key; for an unknown
// provider too, which has no key.
func (r *Registry) GetLeastUsedKey(ctx context.Context, providerID uuid.UUID) (*ent.APIKey, error) {
	now := r.now()
	key, err := r.leastUsedKey(ctx, providerID, now)
	if ent.IsNotFound(err) {
		key, err = r.explain(ctx, providerID, now)
		err = r.sayProvider(ctx, err)
	}
	if err != nil {
		return nil, translate(ctx, "get least used key", err)
	}
	return tied(r, asOf(key, now)), nil
}

// DegradeKey takes a live key out of use for a while; it is usable again by itself after that. Of two degradations the
// one that ends later counts. The reason is for people, and may be any text, such as a provider's message: what cannot
// be printed is left out, and all after 1,024 characters. It returns [ErrInvalidData] for a duration that is not
// positive or above ten years, or [ErrNotFound].
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
			SetDegradedReason(fault.Clean(reason, pool.MaxReason)).SetDegradedBy("").
			ClearDegradedAt().Save(ctx)
		if err != nil {
			return err
		}
		return r.audit(ctx, tx, now, auditKey(ActionDegrade, old, key))
	})
}

// RestoreKey ends the degradation of a live key, whatever it was for, and forgets its failures and what the provider
// said of its limits, or of those of its quota group. It leaves a disabled key disabled. It returns [ErrNotFound].
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

// IncrementUsage adds one request and its tokens to the counters of a key, and nothing to the
// ledger: RecordUsage does both. It returns [ErrInvalidData] for negative or absurd tokens, or
// [ErrNotFound].
func (r *Registry) IncrementUsage(ctx context.Context, keyID uuid.UUID, inputTokens, outputTokens int64) error {
	op := fmt.Sprintf("increment usage of key %s", keyID)
	tokens := meter.Tokens{InputTokens: inputTokens, OutputTokens: outputTokens}
	if err := tokens.Validate(); err != nil {
		return translate(ctx, op, fmt.Errorf("%w: %w", ErrInvalidData, err))
	}
	return r.write(ctx, op, func(tx *ent.Client) error {
		return r.commits.CountUse(ctx, tx, keyID, pool.Amount{Requests: 1, Tokens: tokens.Total()}, timeOf(tx))
	})
}

// ResetDailyUsage sets the daily counters of all live keys, and of all quota groups, to zero now, and returns how many
// keys had something to reset. Limits of a day are whole again then. Nobody has to call it: counters of an earlier day
// count as zero.
func (r *Registry) ResetDailyUsage(ctx context.Context) (n int, err error) {
	err = r.write(ctx, "reset daily usage", func(tx *ent.Client) error {
		if err := r.holdPools(ctx, tx, commit.AllPools); err != nil {
			return err
		}
		now := timeOf(tx)
		used := apikey.And(apikey.DeletedAtIsNil(), apikey.Or(apikey.HasLeasesWith(
			countedToday(now, apikey.Table),
		), apikey.And(
			apikey.LastResetGTE(utc.StartOfDay(now)), apikey.Or(
				apikey.RequestsTodayNEQ(0), apikey.TokensTodayNEQ(0), apikey.CostTodayNEQ(0),
			),
		)))
		n, err = tx.APIKey.Update().Where(used).
			SetRequestsToday(0).SetTokensToday(0).SetCostToday(0).SetLastReset(now).Save(ctx)
		if err != nil {
			return err
		}
		usedGroups := quotagroup.Or(quotagroup.HasLeasesWith(countedToday(now, quotagroup.Table)), quotagroup.And(
			quotagroup.LastResetGTE(utc.StartOfDay(now)),
			quotagroup.Or(quotagroup.RequestsTodayNEQ(0), quotagroup.TokensTodayNEQ(0), quotagroup.CostTodayNEQ(0)),
		))
		groups, err := tx.QuotaGroup.Update().Where(usedGroups).SetRequestsToday(0).SetTokensToday(0).SetCostToday(0).
			SetLastReset(now).Save(ctx)
		if err != nil || n+groups == 0 {
			return err
		}
		after := map[string]int{"keys": n}
		if groups > 0 {
			after["quota_groups"] = groups
		}
		return r.audit(ctx, tx, now, auditEntry{action: ActionReset, entity: EntityAPIKey, after: after})
	})
	return n, err
}

// countedToday are leases that count in the day of the key, or group, of which they are asked for.
func countedToday(now time.Time, of string) predicate.KeyLease {
	return keylease.And(keylease.ExpiresAtGT(now), keylease.AcquiredAtGTE(utc.StartOfDay(now)), func(s *sql.Selector) {
		s.Where(sql.ColumnsGTE(s.C(keylease.FieldAcquiredAt), sql.Table(of).C(apikey.FieldLastReset)))
	})
}

// lockedKey returns a key, which nobody else changes until the transaction ends.
func (r *Registry) lockedKey(
	ctx context.Context, tx *ent.Client, id uuid.UUID, also ...predicate.APIKey,
) (*ent.APIKey, error) {
	if err := r.holdPools(ctx, tx, commit.PoolOfKey, id); err != nil {
		return nil, err
	}
	return tx.APIKey.Query().Where(apikey.ID(id)).Where(also...).Only(ctx)
}

// asOf returns the key as it is at an instant: counters of an earlier minute or day are zero, and a
// degradation that is over is none. The row catches up when it is next written.
func asOf(key *ent.APIKey, now time.Time) *ent.APIKey {
	if key == nil {
		return nil
	}
	if key.LastReset.Before(utc.StartOfDay(now)) {
		key.RequestsToday, key.TokensToday, key.CostToday, key.LastReset = 0, 0, 0, utc.StartOfDay(now)
	}
	if key.Minute != nil && key.Minute.Before(now.Truncate(time.Minute)) {
		key.Minute, key.RequestsThisMinute, key.TokensThisMinute = nil, 0, 0
	}
	if key.DegradedUntil != nil && !key.DegradedUntil.After(now) {
		key.Degraded, key.DegradedUntil, key.DegradedAt, key.DegradedReason, key.DegradedBy = false, nil, nil, "", ""
	}
	return key
}
