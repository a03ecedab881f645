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

// GetSetting returns the value of a setting. It returns [ErrNotFound] if there is no such setting.
func (r *Registry) GetSetting(ctx context.Context, key string) (string, error) {
	op := fmt.Sprintf("get setting %.*q", rule.MaxKey, key)
	s, err := found(ctx, r, op, key, r.client.Setting.Query().Where(setting.ID(key)).Only)
	if err != nil {
		return "", err
	}
	return s.Value, nil
}

// SetSetting creates or changes a setting. The audit trail keeps its values, former ones included; do not store
// secrets. It returns [ErrInvalidData] unless the key has 1 to 256 characters and the value at most 1,048,576.
func (r *Registry) SetSetting(ctx context.Context, key, value string) error {
	f := faultsOf(draft.Setting.Create().SetValue(value).Mutation())
	f.Text("key", key, 1, rule.MaxKey)
	return r.write(ctx, named("set setting", key, rule.MaxKey), f, func(tx *ent.Client) error {
		old, err := lockedSetting(ctx, tx, key)
		for ent.IsNotFound(err) {
			err = tx.Setting.Create().SetID(key).SetValue(value).
				OnConflictColumns(setting.FieldID).DoNothing().Exec(ctx)
			if err == nil {
				noteRow(tx, ActionCreate, nil, &ent.Setting{ID: key, Value: value, UpdatedAt: timeOf(tx)})
				return nil
			}
			if errors.Is(err, sql.ErrNoRows) { // somebody else has created it meanwhile
				old, err = lockedSetting(ctx, tx, key)
			}
		}
		if err == nil {
			_, err = save(ctx, tx, ActionUpdate, old, old.Update().SetValue(value))
		}
		return err
	})
}

// lockedSetting returns a setting that nobody else changes until the transaction ends.
func lockedSetting(ctx context.Context, tx *ent.Client, key string) (*ent.Setting, error) {
	query := tx.Setting.Query().Where(setting.ID(key))
	query.Modify(func(s *entsql.Selector) {
		if s.Dialect() == dialect.Postgres { // SQLite has only one writer
			s.For(entsql.LockNoKeyUpdate)
		}
	})
	return query.Only(ctx)
}

// DeleteSetting removes a setting for good; the audit trail keeps its value. It returns [ErrNotFound] if there is no
// such setting.
func (r *Registry) DeleteSetting(ctx context.Context, key string) error {
	op := fmt.Sprintf("delete setting %.*q", rule.MaxKey, key)
	if !fault.Storable(key) {
		return translate(ctx, op, ErrNotFound)
	}
	return r.write(ctx, op, nil, func(tx *ent.Client) error {
		old, err := lockedSetting(ctx, tx, key)
		if err != nil {
			return err
		}
		noteRow(tx, ActionDelete, old, nil)
		return tx.Setting.DeleteOne(old).Exec(ctx)
	})
}

// SettingFilter selects a page of all settings.
type SettingFilter struct {
	Limit int    // up to MaxLimit. Defaults to DefaultLimit
	After string // the key of the last setting of the page before; empty: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl SettingFilter) Next(last *ent.Setting) (SettingFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

// ListSettings returns a page of settings, by key. The ID of an [ent.Setting] is its key. The setting that After names
// need not exist any more. It returns [ErrInvalidData] if the limit is out of range.
func (r *Registry) ListSettings(ctx context.Context, filter SettingFilter) ([]*ent.Setting, error) {
	var f fault.List
	f.Text("after", filter.After, 0, rule.MaxKey)
	l := listing[string]{ascending(setting.FieldID), filter.Limit, filter.After}
	place := func(_ context.Context, key string) (*ent.Setting, error) { return &ent.Setting{ID: key}, nil }
	return list(ctx, r, "list settings", f, l, place, l.client(r).Setting.Query())
}
