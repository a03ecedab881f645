package registry_test

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// Providers and families.

func (w *world) liveProvider(id uuid.UUID) *ent.Provider {
	return first(w.providers, func(p *ent.Provider) bool { return p.ID == id && p.DeletedAt == nil })
}

func (w *world) providerNamed(name string) *ent.Provider {
	return first(w.providers, func(p *ent.Provider) bool { return p.Name == name && p.DeletedAt == nil })
}

func okAuth(method provider.AuthMethod) bool {
	return slices.Contains([]provider.AuthMethod{"bearer", "header", "query", "oauth", "aws_sigv4", "none"}, method)
}

func (w *world) createProvider(in registry.ProviderInput) (*ent.Provider, error) {
	in.DisplayName = cmp.Or(in.DisplayName, in.Name)
	in.AuthMethod = cmp.Or(in.AuthMethod, "bearer")
	if !okText(in.Name, 1, 128) || !okSlug(in.Name) || !okLabel(in.DisplayName, 1, 128) || !urls[in.BaseURL] ||
		!okAuth(in.AuthMethod) || !okProse(in.Description, 4096) {
		return nil, registry.ErrInvalidData
	}
	if w.providerNamed(in.Name) != nil {
		return nil, registry.ErrConflict
	}
	p := &ent.Provider{
		ID: w.newID(), Name: in.Name, DisplayName: in.DisplayName, BaseURL: in.BaseURL, AuthMethod: in.AuthMethod,
		Description: in.Description, CreatedAt: w.now, UpdatedAt: w.now,
	}
	w.providers = append(w.providers, p)
	return p, nil
}

func (w *world) updateProvider(id uuid.UUID, up registry.ProviderUpdate) (*ent.Provider, error) {
	if up.Name != nil && (!okText(*up.Name, 1, 128) || !okSlug(*up.Name)) ||
		up.DisplayName != nil && !okLabel(*up.DisplayName, 1, 128) ||
		up.BaseURL != nil && !urls[*up.BaseURL] ||
		up.AuthMethod != nil && !okAuth(*up.AuthMethod) ||
		up.Description != nil && !okProse(*up.Description, 4096) {
		return nil, registry.ErrInvalidData
	}
	p := w.liveProvider(id)
	if p == nil {
		return nil, registry.ErrNotFound
	}
	if up.Name != nil {
		if other := w.providerNamed(*up.Name); other != nil && other != p {
			return nil, registry.ErrConflict
		}
	}
	put(&p.Name, up.Name)
	put(&p.DisplayName, up.DisplayName)
	put(&p.BaseURL, up.BaseURL)
	put(&p.AuthMethod, up.AuthMethod)
	put(&p.Description, up.Description)
	p.UpdatedAt = w.now
	return p, nil
}

func (w *world) provider(id uuid.UUID) *ent.Provider {
	return first(w.providers, func(p *ent.Provider) bool { return p.ID == id })
}

func (w *world) getProvider(id uuid.UUID) (*ent.Provider, error) { return one(w.provider(id)) }

func (w *world) findProvider(name string) (*ent.Provider, error) { return one(w.providerNamed(name)) }

func (w *world) listProviders() ([]*ent.Provider, error) {
	all := where(w.providers, func(p *ent.Provider) bool { return p.DeletedAt == nil })
	slices.SortFunc(all, func(a, b *ent.Provider) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (w *world) deleteProvider(id uuid.UUID) error {
	p := w.liveProvider(id)
	if p == nil {
		return registry.ErrNotFound
	}
	now := w.now
	p.DeletedAt, p.UpdatedAt = &now, now
	for _, m := range w.models {
		if m.ProviderID == id && m.DeletedAt == nil {
			m.DeletedAt, m.UpdatedAt = &now, now
		}
	}
	for _, k := range w.keys {
		if k.ProviderID == id && k.DeletedAt == nil {
			k.DeletedAt, k.UpdatedAt = &now, now
		}
	}
	return nil
}

func (w *world) purgeProvider(id uuid.UUID) error {
	if first(w.providers, func(p *ent.Provider) bool { return p.ID == id }) == nil {
		return registry.ErrNotFound
	}
	for _, u := range w.usage {
		if w.model(u.ModelID).ProviderID == id {
			return registry.ErrForeignKey
		}
	}
	for _, l := range w.logs {
		if l.ProviderID != nil && *l.ProviderID == id {
			l.ProviderID = nil
		}
	}
	w.prices = where(w.prices, func(p *ent.Price) bool { return w.model(p.ModelID).ProviderID != id })
	w.providers = where(w.providers, func(p *ent.Provider) bool { return p.ID != id })
	w.families = where(w.families, func(f *ent.ModelFamily) bool { return f.ProviderID != id })
	w.models = where(w.models, func(m *ent.Model) bool { return m.ProviderID != id })
	w.leases = where(w.leases, func(l *lease) bool { return l.provider != id })
	w.keys = where(w.keys, func(k *ent.APIKey) bool { return k.ProviderID != id })
	w.groups = where(w.groups, func(g *ent.QuotaGroup) bool { return g.ProviderID != id })
	w.sdks = where(w.sdks, func(s *ent.SDKVersion) bool { return s.ProviderID != id })
	return nil
}

func (w *world) createFamily(in registry.FamilyInput) (*ent.ModelFamily, error) {
	if !okText(in.Name, 1, 128) || !okProse(in.Description, 4096) {
		return nil, registry.ErrInvalidData
	}
	if w.liveProvider(in.ProviderID) == nil {
		return nil, errMissing
	}
	if first(w.families, func(f *ent.ModelFamily) bool {
		return f.ProviderID == in.ProviderID && f.Name == in.Name
	}) != nil {
		return nil, registry.ErrConflict
	}
	f := &ent.ModelFamily{
		ID: w.newID(), ProviderID: in.ProviderID, Name: in.Name, Description: in.Description,
		CreatedAt: w.now, UpdatedAt: w.now,
	}
	w.families = append(w.families, f)
	return f, nil
}

func (w *world) listFamilies(providerID uuid.UUID) ([]*ent.ModelFamily, error) {
	all := where(w.families, func(f *ent.ModelFamily) bool { return w.listed(f.ProviderID, providerID) })
	slices.SortStableFunc(all, func(a, b *ent.ModelFamily) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// listed tells what a list shows of what belongs to a provider: that of one live provider, or for a zero id of all of
// them.
func (w *world) listed(of, filter uuid.UUID) bool {
	return (filter == uuid.Nil || of == filter) && w.liveProvider(of) != nil
}

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
