package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/setting"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// GetSetting returns the value of a setting, or [ErrNotFound].
func (r *Registry) GetSetting(ctx context.Context, key string) (string, error) {
	op := fmt.Sprintf("get setting %.*q", rule.MaxKey, key)
	if !fault.Storable(key) {
		return "", translate(ctx, op, ErrNotFound)
	}
	s, err := r.client.Setting.Get(ctx, key)
	if err != nil {
		return "", translate(ctx, op, err)
	}
	return s.Value, nil
}

// SetSetting creates or changes a setting. The audit trail keeps its values, the former ones too: a
// secret that is put here stays in there. It returns [ErrInvalidData] unless the key has 1 to 256
// characters and the value at most 1,048,576.
func (r *Registry) SetSetting(ctx context.Context, key, value string) error {
	f := faultsOf(draft.Setting.Create().SetValue(value).Mutation())
	f.Text("key", key, 1, rule.MaxKey)
	if err := f.Err(); err != nil {
		return translate(ctx, "set setting", err)
	}
	return r.write(ctx, fmt.Sprintf("set setting %q", key), func(tx *ent.Client) error {
		now := timeOf(tx)
		old, err := lockedSetting(ctx, tx, key)
		for ent.IsNotFound(err) {
			err = tx.Setting.Create().SetID(key).SetValue(value).
				OnConflictColumns(setting.FieldID).DoNothing().Exec(ctx)
			if err == nil {
				created := &ent.Setting{ID: key, Value: value, UpdatedAt: now}
				return r.audit(ctx, tx, now, auditSetting(ActionCreate, nil, created))
			}
			if errors.Is(err, sql.ErrNoRows) { // somebody else has created it meanwhile
				old, err = lockedSetting(ctx, tx, key)
			}
		}
		if err != nil {
			return err
		}
		s, err := old.Update().SetValue(value).Save(ctx)
		if err != nil {
			return err
		}
		return r.audit(ctx, tx, now, auditSetting(ActionUpdate, old, s))
	})
}

// lockedSetting returns a setting, which nobody else changes until the transaction ends.
func lockedSetting(ctx context.Context, tx *ent.Client, key string) (*ent.Setting, error) {
	query := tx.Setting.Query().Where(setting.ID(key))
	query.Modify(func(s *entsql.Selector) {
		if s.Dialect() == dialect.Postgres { // SQLite has locked everything
			s.For(entsql.LockNoKeyUpdate)
		}
	})
	return query.Only(ctx)
}

// DeleteSetting removes a setting for good, or returns [ErrNotFound]. The audit trail keeps its value.
func (r *Registry) DeleteSetting(ctx context.Context, key string) error {
	op := fmt.Sprintf("delete setting %.*q", rule.MaxKey, key)
	if !fault.Storable(key) {
		return translate(ctx, op, ErrNotFound)
	}
	return r.write(ctx, op, func(tx *ent.Client) error {
		old, err := lockedSetting(ctx, tx, key)
		if err != nil {
			return err
		}
		if err := tx.Setting.DeleteOne(old).Exec(ctx); err != nil {
			return err
		}
		return r.audit(ctx, tx, timeOf(tx), auditSetting(ActionDelete, old, nil))
	})
}

// SettingFilter selects settings: all of them.
type SettingFilter struct {
	Limit int    // up to MaxLimit. Defaults to DefaultLimit
	After string // the key of the last setting of the page before; empty: from the first
}

// Next returns the filter of the page after the one that ends with last, and how many rows a full page has.
func (fl SettingFilter) Next(last *ent.Setting) (SettingFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListSettings returns a page of the settings, by key. An [ent.Setting]'s ID is its key. Whether the setting that
// After names is still there does not matter. It returns [ErrInvalidData] for a limit that is out of range.
func (r *Registry) ListSettings(ctx context.Context, filter SettingFilter) ([]*ent.Setting, error) {
	var f fault.List
	f.Text("after", filter.After, 0, rule.MaxKey)
	return listing[*ent.Setting, string]{
		order: ascending(setting.FieldID),
		get: func(_ context.Context, _ *ent.Client, key string) (*ent.Setting, error) {
			return &ent.Setting{ID: key}, nil // its place is its key
		},
		place: func(s *ent.Setting) []any { return []any{s.ID} },
		all: func(ctx context.Context, c *ent.Client, page func(*entsql.Selector)) ([]*ent.Setting, error) {
			query := c.Setting.Query()
			query.Modify(page)
			return query.All(ctx)
		},
	}.page(ctx, r, "list settings", f, filter.Limit, filter.After)
}
