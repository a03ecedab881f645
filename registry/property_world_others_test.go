package registry_test

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/ent/sdkversion"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// Discoveries, SDKs and settings.

func (w *world) createDiscoveryLog(in registry.DiscoveryInput) (*ent.DiscoveryLog, error) {
	if !okText(in.Identifier, 1, 2048) || !okText(in.Source, 0, 128) || !okText(in.LLMModel, 0, 256) {
		return nil, registry.ErrInvalidData
	}
	l := &ent.DiscoveryLog{
		ID: w.newID(), Identifier: in.Identifier, Status: "pending", Source: in.Source, LlmModel: in.LLMModel,
		CacheHit: in.CacheHit, StartedAt: w.now,
	}
	if in.ProviderID != uuid.Nil {
		if w.liveProvider(in.ProviderID) == nil {
			return nil, errMissing
		}
		l.ProviderID = &in.ProviderID
	}
	w.logs = append(w.logs, l)
	return l, nil
}

// result is what a discovery can have found, and what becomes of it.
type result struct {
	data          any
	json, message string
	invalid       bool
}

func (w *world) updateDiscoveryResult(id uuid.UUID, r result, status discoverylog.Status) (*ent.DiscoveryLog, error) {
	if r.invalid || !slices.Contains([]discoverylog.Status{"pending", "success", "failed"}, status) {
		return nil, registry.ErrInvalidData
	}
	l := first(w.logs, func(l *ent.DiscoveryLog) bool { return l.ID == id })
	if l == nil {
		return nil, registry.ErrNotFound
	}
	l.AttemptCount++
	l.Status, l.ErrorMessage, l.DiscoveredData, l.CompletedAt = status, r.message, json.RawMessage(r.json), nil
	if status != discoverylog.StatusPending {
		now := w.now
		l.CompletedAt = &now
	}
	return l, nil
}

func (w *world) getRecentDiscoveries(limit int) ([]*ent.DiscoveryLog, error) {
	if limit < 0 || limit > 1000 {
		return nil, registry.ErrInvalidData
	}
	all := slices.Clone(w.logs)
	slices.Reverse(all)
	slices.SortStableFunc(all, func(a, b *ent.DiscoveryLog) int { return b.StartedAt.Compare(a.StartedAt) })
	return all[:min(cmp.Or(limit, 100), len(all))], nil
}

func (w *world) createSDKVersion(in registry.SDKVersionInput) (*ent.SDKVersion, error) {
	at := micro(in.GeneratedAt)
	if in.GeneratedAt.IsZero() {
		at = w.now
	}
	status := cmp.Or(in.CompilationStatus, "pending")
	if !okText(in.Version, 1, 128) || !okText(in.SDKPath, 0, 2048) || !okProse(in.TestResults, 1<<20) ||
		!slices.Contains([]sdkversion.CompilationStatus{"pending", "success", "failed"}, status) ||
		!within(at, firstTime, lastTime) ||
		in.CodeHash != "" && (len(in.CodeHash) != 64 || strings.Trim(in.CodeHash, "0123456789abcdef") != "") {
		return nil, registry.ErrInvalidData
	}
	if w.liveProvider(in.ProviderID) == nil {
		return nil, errMissing
	}
	if first(w.sdks, func(s *ent.SDKVersion) bool {
		return s.ProviderID == in.ProviderID && s.Version == in.Version
	}) != nil {
		return nil, registry.ErrConflict
	}
	s := &ent.SDKVersion{
		ID: w.newID(), ProviderID: in.ProviderID, Version: in.Version, SdkPath: in.SDKPath, GeneratedAt: at,
		CompilationStatus: status, TestResults: in.TestResults, CodeHash: in.CodeHash,
	}
	w.sdks = append(w.sdks, s)
	return s, nil
}

func (w *world) listSDKVersions(providerID uuid.UUID) ([]*ent.SDKVersion, error) {
	all := where(w.sdks, func(s *ent.SDKVersion) bool { return w.listed(s.ProviderID, providerID) })
	slices.Reverse(all)
	slices.SortStableFunc(all, func(a, b *ent.SDKVersion) int { return b.GeneratedAt.Compare(a.GeneratedAt) })
	return all, nil
}

func (w *world) latestSDKVersion(providerID uuid.UUID) (*ent.SDKVersion, error) {
	if providerID == uuid.Nil {
		return nil, registry.ErrNotFound
	}
	all, err := w.listSDKVersions(providerID)
	if len(all) == 0 {
		return nil, cmp.Or(err, registry.ErrNotFound)
	}
	return all[0], nil
}

func (w *world) setting(key string) *ent.Setting {
	return first(w.settings, func(s *ent.Setting) bool { return s.ID == key })
}

func (w *world) getSetting(key string) (string, error) {
	if s := w.setting(key); s != nil {
		return s.Value, nil
	}
	return "", registry.ErrNotFound
}

func (w *world) setSetting(key, value string) error {
	if !okText(key, 1, 256) || !okProse(value, 1<<20) {
		return registry.ErrInvalidData
	}
	s := w.setting(key)
	if s == nil {
		s = &ent.Setting{ID: key}
		w.settings = append(w.settings, s)
	}
	s.Value, s.UpdatedAt = value, w.now
	return nil
}

func (w *world) deleteSetting(key string) error {
	if w.setting(key) == nil {
		return registry.ErrNotFound
	}
	w.settings = where(w.settings, func(s *ent.Setting) bool { return s.ID != key })
	return nil
}

func (w *world) listSettings() ([]*ent.Setting, error) {
	return slices.SortedFunc(slices.Values(w.settings),
		func(a, b *ent.Setting) int { return strings.Compare(a.ID, b.ID) }), nil
}
