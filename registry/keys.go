package registry

import (
	"cmp"
	"context"
	"fmt"
	"strings"
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
	// MaxKeysPerProvider is the most live keys that a provider may have. Keys that expire do not count.
	MaxKeysPerProvider = 100

	maxKeyLength = 4096
	prefixLength = 8
)

// KeyInput describes an API key to be added.
type KeyInput struct {
	ProviderID uuid.UUID // a live provider
	// APIKey is the key itself: 1 to 4,096 printable ASCII characters without spaces. Stored are its SHA-256 and its
	// first 8 characters, at most half of it; the key itself only [WithKeyring], sealed. A hash does not protect a key
	// that can be guessed, such as a short one: whoever reads the database can try all of them.
	APIKey string
	// Keyless adds a stand-in for a provider that takes no key, such as a local server, so that usage can be recorded
	// there too. APIKey must be empty. A provider has at most one keyless key.
	Keyless bool
	Label   string // name for people, up to 128 characters

	// AcquireKey uses the fields below.

	Limits       Limits
	QuotaGroupID uuid.UUID // the account whose limits it shares. Defaults to none
	Priority     int       // keys of a higher priority are used first, -1,000 to 1,000
	Weight       int       // its share of the requests among keys of its priority, 1 to 1,000. Defaults to 1
	// AllowedModels are the models that the key is for, by the provider's names, up to 1,000. A name that ends with *
	// stands for all names that begin like it. Defaults to all models.
	AllowedModels []string
	DeniedModels  []string // the models that the key is not for, in the same form
}

// KeyUpdate changes the fields of a key that are not nil.
type KeyUpdate struct {
	Label    *string
	Disabled *bool // a disabled key is not used until a person enables it

	Limits        *Limits    // replaces all limits
	QuotaGroupID  *uuid.UUID // zero: no group
	Priority      *int
	Weight        *int
	AllowedModels *[]string // empty: all models
	DeniedModels  *[]string

	// APIKey is the same key as before, to be sealed where only its hash is stored. It needs a keyring.
	APIKey *string
}

func (in KeyInput) faults() fault.List {
	f := judge(draft.APIKey.Create(), in)
	if in.Keyless {
		f.Check(in.APIKey == "", "Keyless is set, but APIKey is not empty")
	} else {
		checkAPIKey(&f, in.APIKey)
	}
	return f
}

// checkAPIKey adds the faults of an API key to f, and shows no character of it.
func checkAPIKey(f *fault.List, key string) {
	if key == "" {
		f.Check(false, "the API key is empty")
		return
	}
	f.Check(!strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }),
		"the API key has spaces, or characters that are not printable ASCII")
	f.Check(len(key) <= maxKeyLength, "the API key has %d characters, more than %d", len(key), maxKeyLength)
}

// prefixOf returns the part of a key that is stored to tell it from others: its first characters, at most half of it.
func prefixOf(key string) string { return key[:min(prefixLength, len(key)/2)] }

// isKeyless reports whether a key is a stand-in for a provider without keys.
func isKeyless(key *ent.APIKey) bool { return key.KeyHash == hash("") }

// AddAPIKey adds an API key to a provider and returns its row.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule, the quota group belongs to another provider, or the provider has
//     [MaxKeysPerProvider] keys already
//   - [ErrForeignKey]: the provider or the quota group is unknown
//   - [ErrConflict]: the provider has the key already
//   - [ErrKeyring]: API keys are sealed in this database, and the keyring is missing or lacks a key
func (r *Registry) AddAPIKey(ctx context.Context, in KeyInput) (*ent.APIKey, error) {
	in.Weight = cmp.Or(in.Weight, 1)
	op := fmt.Sprintf("add API key to provider %s", in.ProviderID)
	return change(ctx, r.writeAlone, op, in.faults(), func(tx *ent.Client) (*ent.APIKey, error) {
		if err := requireProvider(ctx, tx, in.ProviderID); err != nil {
			return nil, err
		}
		return r.createKey(ctx, tx, in)
	})
}

// createKey creates a key of a live provider.
func (r *Registry) createKey(ctx context.Context, tx *ent.Client, in KeyInput) (*ent.APIKey, error) {
	id, hash := apikey.DefaultID(), hash(in.APIKey)
	if err := requireRoom(ctx, tx, in.ProviderID, id); err != nil {
		return nil, err
	}
	create := filled(tx.APIKey.Create().SetID(id), in).
		SetKeyHash(hash).SetKeyPrefix(prefixOf(in.APIKey)).
		SetLastReset(timeOf(tx))
	if in.QuotaGroupID != uuid.Nil {
		if err := requireGroup(ctx, tx, in.ProviderID, in.QuotaGroupID); err != nil {
			return nil, err
		}
	}
	if !in.Keyless {
		row := &ent.APIKey{ID: id, ProviderID: in.ProviderID, KeyHash: hash}
		if err := r.vault.sealKey(ctx, tx, row, in.APIKey, create.Mutation()); err != nil {
			return nil, err
		}
	}
	return save(ctx, tx, ActionCreate, nil, create)
}

// UpdateAPIKey changes a live key and returns it as it is now.
//
// Errors:
//
//   - [ErrInvalidData]: the input breaks a rule, the quota group belongs to another provider, or the API key is not the
//     key's own
//   - [ErrForeignKey]: the quota group is unknown
//   - [ErrNotFound]: there is no such live key
//   - [ErrKeyring]: the API key cannot be sealed, because the keyring lacks a key
func (r *Registry) UpdateAPIKey(ctx context.Context, id uuid.UUID, up KeyUpdate) (*ent.APIKey, error) {
	f := judge(draft.APIKey.UpdateOneID(id), up)
	if up.APIKey != nil {
		checkAPIKey(&f, *up.APIKey)
		f.Check(r.vault.ring != nil, "the API key cannot be stored without a keyring")
	}
	write := r.write
	if up.APIKey != nil || up.QuotaGroupID != nil {
		// Meanwhile RotateKeyring could make another data key and remove the old one, or DeleteQuotaGroup find the
		// group without keys.
		write = r.writeAlone
	}
	var now time.Time
	key, err := change(ctx, write, fmt.Sprintf("update API key %s", id), f, func(tx *ent.Client) (*ent.APIKey, error) {
		old, err := r.lockedKey(ctx, tx, id, apikey.DeletedAtIsNil())
		if err != nil {
			return nil, err
		}
		now = timeOf(tx)
		update := filled(old.Update(), up)
		if err := r.changeKey(ctx, tx, old, up, update); err != nil {
			return nil, err
		}
		action := ActionUpdate
		if up.Disabled != nil && *up.Disabled != old.Disabled {
			action = ActionEnable
			if *up.Disabled {
				action = ActionDisable
			}
		}
		return save(ctx, tx, action, old, update)
	})
	return asOf(key, now), err
}

// changeKey checks the key's new group, seals the key, and resets its turns if its priority changes. Requests under way
// count in the old group until they end.
func (r *Registry) changeKey(
	ctx context.Context, tx *ent.Client, old *ent.APIKey, up KeyUpdate, update *ent.APIKeyUpdateOne,
) error {
	if up.Priority != nil && *up.Priority != old.Priority {
		update.SetPass(0) // its turns were among other keys
		if err := tx.KeyLease.Update().Where(keylease.APIKeyID(old.ID)).SetPass(0).Exec(ctx); err != nil {
			return err
		}
	}
	if id := value(up.QuotaGroupID); id != uuid.Nil && id != value(old.QuotaGroupID) {
		if err := requireGroup(ctx, tx, old.ProviderID, id); err != nil {
			return err
		}
	}
	if up.APIKey == nil {
		return nil
	}
	if !NewSecret(*up.APIKey).is(old) {
		return fmt.Errorf("%w: it is another API key; use RotateAPIKey to replace one", ErrInvalidData)
	}
	return r.vault.sealKey(ctx, tx, old, *up.APIKey, update.Mutation())
}

// DeleteAPIKey deletes a live key. It disappears from lists and can be added again; the ledger keeps pointing at it.
// [Registry.UndeleteAPIKey] takes the deletion back. It returns [ErrNotFound] if there is no such live key.
func (r *Registry) DeleteAPIKey(ctx context.Context, id uuid.UUID) error {
	return r.write(ctx, fmt.Sprintf("delete API key %s", id), nil, func(tx *ent.Client) error {
		old, err := r.lockedKey(ctx, tx, id, apikey.DeletedAtIsNil())
		if err != nil {
			return err
		}
		_, err = save(ctx, tx, ActionDelete, old, old.Update().SetDeletedAt(timeOf(tx)))
		return err
	})
}

// PurgeAPIKey removes a key, live or deleted, from the database for good. It returns [ErrNotFound] if there is no such
// key, and [ErrForeignKey], changing nothing, if usage was ever recorded for it.
func (r *Registry) PurgeAPIKey(ctx context.Context, id uuid.UUID) error {
	return r.write(ctx, fmt.Sprintf("purge API key %s", id), nil, func(tx *ent.Client) error {
		key, err := r.lockedKey(ctx, tx, id)
		if err != nil {
			return err
		}
		noteRow(tx, ActionPurge, key, nil)
		return tx.APIKey.DeleteOne(key).Exec(ctx)
	})
}

// IncrementUsage adds one request and its tokens to the counters of a live key, and nothing to the ledger; RecordUsage
// does both. It returns [ErrInvalidData] if the tokens are negative or absurdly many, or a counter would overflow, and
// [ErrNotFound] if there is no such live key.
func (r *Registry) IncrementUsage(ctx context.Context, keyID uuid.UUID, inputTokens, outputTokens int64) error {
	op := fmt.Sprintf("increment usage of key %s", keyID)
	tokens := meter.Tokens{InputTokens: inputTokens, OutputTokens: outputTokens}
	if err := tokens.Validate(); err != nil {
		return translate(ctx, op, fmt.Errorf("%w: %w", ErrInvalidData, err))
	}
	return r.write(ctx, op, nil, func(tx *ent.Client) error {
		return r.commits.CountUse(ctx, tx, keyID, pool.Amount{Requests: 1, Tokens: tokens.Total()}, timeOf(tx))
	})
}

// ResetDailyUsage sets the daily counters of all live keys and of all quota groups to zero now, so that their daily
// limits have all their room again. It returns how many keys had something to reset. Nobody has to call it: counters of
// an earlier day count as zero.
func (r *Registry) ResetDailyUsage(ctx context.Context) (n int, err error) {
	err = r.write(ctx, "reset daily usage", nil, func(tx *ent.Client) error {
		if err := r.holdPools(ctx, tx, commit.AllPools); err != nil {
			return err
		}
		now := timeOf(tx)
		keys := usedToday(now, apikey.Table, apikey.HasLeasesWith)
		n, err = tx.APIKey.Update().Where(apikey.DeletedAtIsNil(), keys).
			SetRequestsToday(0).SetTokensToday(0).SetCostToday(0).SetLastReset(now).Save(ctx)
		if err != nil {
			return err
		}
		groups, err := tx.QuotaGroup.Update().Where(usedToday(now, quotagroup.Table, quotagroup.HasLeasesWith)).
			SetRequestsToday(0).SetTokensToday(0).SetCostToday(0).SetLastReset(now).Save(ctx)
		if err != nil || n+groups == 0 {
			return err
		}
		after := map[string]int{"keys": n}
		if groups > 0 {
			after["quota_groups"] = groups
		}
		note(tx, auditEntry{action: ActionReset, entity: EntityAPIKey, after: after})
		return nil
	})
	return n, err
}

// usedToday selects the keys or groups of a table that count something in the day of an instant, themselves or in a
// lease.
func usedToday[P ~func(*sql.Selector)](
	now time.Time, table string, hasLeasesWith func(...predicate.KeyLease) P,
) P {
	today := utc.StartOfDay(now)
	counted := hasLeasesWith(keylease.ExpiresAtGT(now), keylease.AcquiredAtGTE(today), func(s *sql.Selector) {
		s.Where(sql.ColumnsGTE(s.C(keylease.FieldAcquiredAt), sql.Table(table).C(apikey.FieldLastReset)))
	})
	return sql.OrPredicates(counted, sql.AndPredicates[P](
		sql.FieldGTE(apikey.FieldLastReset, today), sql.OrPredicates[P](
			sql.FieldNEQ(apikey.FieldRequestsToday, 0), sql.FieldNEQ(apikey.FieldTokensToday, 0),
			sql.FieldNEQ(apikey.FieldCostToday, 0),
		),
	))
}

// lockedKey returns a key that nobody else changes until the transaction ends.
func (r *Registry) lockedKey(
	ctx context.Context, tx *ent.Client, id uuid.UUID, also ...predicate.APIKey,
) (*ent.APIKey, error) {
	if err := r.holdPools(ctx, tx, commit.PoolOfKey, id); err != nil {
		return nil, err
	}
	return tx.APIKey.Query().Where(apikey.ID(id)).Where(also...).Only(ctx)
}

// asOf changes a key to what it is at an instant: counters of an earlier minute or day are zero, and a degradation that
// is over is gone. The database catches up when the row is next written.
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
