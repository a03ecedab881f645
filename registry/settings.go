package registry

import (
	"context"
	"fmt"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/setting"
)

const (
	maxSettingKey   = 256
	maxSettingValue = 1 << 20
)

// GetSetting returns the value of a setting, or [ErrNotFound].
func (r *Registry) GetSetting(ctx context.Context, key string) (string, error) {
	if !storable(key) {
		return "", translate(ctx, "get setting", ErrNotFound)
	}
	s, err := r.client.Setting.Get(ctx, key)
	if err != nil {
		return "", translate(ctx, "get setting", err)
	}
	return s.Value, nil
}

// SetSetting creates or changes a setting. It returns [ErrInvalidData] unless the key has 1 to
// 256 characters and the value at most 1,048,576.
func (r *Registry) SetSetting(ctx context.Context, key, value string) error {
	var f faults
	f.text("key", key, 1, maxSettingKey)
	f.prose("value", value, maxSettingValue)
	if err := f.err(); err != nil {
		return translate(ctx, "set setting", err)
	}
	return r.write(ctx, fmt.Sprintf("set setting %q", key), func(tx *ent.Client) error {
		return tx.Setting.Create().SetID(key).SetValue(value).SetUpdatedAt(r.now()).
			OnConflictColumns(setting.FieldID).UpdateNewValues().Exec(ctx)
	})
}

// DeleteSetting deletes a setting, or returns [ErrNotFound].
func (r *Registry) DeleteSetting(ctx context.Context, key string) error {
	if !storable(key) {
		return translate(ctx, "delete setting", ErrNotFound)
	}
	return r.write(ctx, "delete setting", func(tx *ent.Client) error {
		return tx.Setting.DeleteOneID(key).Exec(ctx)
	})
}

// ListSettings returns all settings by key. An [ent.Setting]'s ID is its key.
func (r *Registry) ListSettings(ctx context.Context) ([]*ent.Setting, error) {
	all, err := r.client.Setting.Query().Order(setting.ByID()).All(ctx)
	return all, translate(ctx, "list settings", err)
}
