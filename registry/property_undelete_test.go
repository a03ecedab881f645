package registry_test

import (
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// listed tells what a list shows of what belongs to a provider: that of one live provider, or for a zero id of all of them.
func (w *world) listed(of, filter uuid.UUID) bool {
	return (filter == uuid.Nil || of == filter) && w.liveProvider(of) != nil
}

// What the world takes back.

func (w *world) undeleteProvider(id uuid.UUID) (*ent.Provider, error) {
	p := w.provider(id)
	switch {
	case p == nil:
		return nil, registry.ErrNotFound
	case p.DeletedAt == nil:
		return p, nil
	case w.providerNamed(p.Name) != nil:
		return nil, registry.ErrConflict
	}
	with := func(providerID uuid.UUID, deleted *time.Time) bool {
		return providerID == id && deleted != nil && deleted.Equal(*p.DeletedAt)
	}
	models, keys := map[string]*ent.Model{}, map[string]*ent.APIKey{}
	for _, m := range w.models { // of one name the last, for the others were deleted before
		if with(m.ProviderID, m.DeletedAt) {
			models[m.ModelID] = m
		}
	}
	for _, k := range w.keys {
		if with(k.ProviderID, k.DeletedAt) {
			keys[k.KeyHash] = k
		}
	}
	p.DeletedAt, p.UpdatedAt = nil, w.now
	for _, m := range models {
		m.DeletedAt, m.UpdatedAt = nil, w.now
	}
	for _, k := range keys {
		k.DeletedAt, k.UpdatedAt = nil, w.now
	}
	return p, nil
}

func (w *world) undeleteModel(id uuid.UUID) (*ent.Model, error) {
	m := w.model(id)
	switch {
	case m == nil:
		return nil, registry.ErrNotFound
	case m.DeletedAt == nil:
		return m, nil
	case w.liveProvider(m.ProviderID) == nil:
		return nil, errMissing
	case w.modelNamed(m.ProviderID, m.ModelID) != nil:
		return nil, registry.ErrConflict
	}
	m.DeletedAt, m.UpdatedAt = nil, w.now
	return m, nil
}

func (w *world) key(id uuid.UUID) *ent.APIKey {
	return first(w.keys, func(k *ent.APIKey) bool { return k.ID == id })
}

func (w *world) getAPIKey(id uuid.UUID) (*ent.APIKey, error) { return one(w.today(w.key(id))) }

func (w *world) undeleteAPIKey(id uuid.UUID) (*ent.APIKey, error) {
	k := w.key(id)
	switch {
	case k == nil:
		return nil, registry.ErrNotFound
	case k.DeletedAt == nil:
		return w.today(k), nil
	case w.liveProvider(k.ProviderID) == nil:
		return nil, errMissing
	case first(w.liveKeys(k.ProviderID), func(other *ent.APIKey) bool { return other.KeyHash == k.KeyHash }) != nil:
		return nil, registry.ErrConflict
	}
	k.DeletedAt, k.UpdatedAt = nil, w.now
	return w.today(k), nil
}
