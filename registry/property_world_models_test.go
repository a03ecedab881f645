package registry_test

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// Models.

func (w *world) model(id uuid.UUID) *ent.Model {
	return first(w.models, func(m *ent.Model) bool { return m.ID == id })
}

func (w *world) liveModel(id uuid.UUID) *ent.Model {
	return first(w.models, func(m *ent.Model) bool { return m.ID == id && m.DeletedAt == nil })
}

func (w *world) modelNamed(providerID uuid.UUID, modelID string) *ent.Model {
	return first(w.models, func(m *ent.Model) bool {
		return m.ProviderID == providerID && m.ModelID == modelID && m.DeletedAt == nil
	})
}

func (w *world) createModel(in registry.ModelInput) (*ent.Model, error) {
	models, err := w.createModels([]registry.ModelInput{in})
	if err != nil {
		return nil, err
	}
	return models[0], nil
}

func (w *world) createModels(inputs []registry.ModelInput) (created []*ent.Model, err error) {
	for i, in := range inputs {
		if in.Name == "" {
			runes := []rune(in.ModelID)
			inputs[i].Name = string(runes[:min(128, len(runes))])
		}
		if !okText(in.ModelID, 1, 256) || !okLabel(inputs[i].Name, 1, 128) || !okProse(in.Description, 4096) ||
			!okRates(in.Rates) || !okText(in.PriceSource, 0, 128) || !okTokens(in.ContextWindow, in.MaxOutputTokens) {
			return nil, registry.ErrInvalidData
		}
	}
	for _, in := range inputs {
		if w.liveProvider(in.ProviderID) == nil {
			return nil, errMissing
		}
		if err := w.checkFamily(in.FamilyID, in.ProviderID); err != nil {
			return nil, err
		}
	}
	for _, in := range inputs {
		if w.modelNamed(in.ProviderID, in.ModelID) != nil {
			return nil, registry.ErrConflict
		}
		m := &ent.Model{
			ID: w.newID(), ProviderID: in.ProviderID, ModelID: in.ModelID, Name: in.Name, Description: in.Description,
			CostPer1mInput: known(in.Rates, "input"), CostPer1mOutput: known(in.Rates, "output"),
			ContextWindow: in.ContextWindow, MaxOutputTokens: in.MaxOutputTokens,
			SupportsImages: in.SupportsImages, SupportsAudio: in.SupportsAudio, SupportsTools: in.SupportsTools,
			SupportsStructuredOutput: in.SupportsStructuredOutput, CanReason: in.CanReason, CanStream: in.CanStream,
			CreatedAt: w.now, UpdatedAt: w.now,
		}
		if in.FamilyID != uuid.Nil {
			m.FamilyID = &in.FamilyID
		}
		w.models = append(w.models, m)
		created = append(created, m)
	}
	for i, in := range inputs { // their ids come after those of the models
		w.prices = append(w.prices, withRates(&ent.Price{
			ID: w.newID(), ModelID: created[i].ID, ServiceTier: "standard", Source: in.PriceSource,
			EffectiveFrom: firstTime, RecordedAt: w.now,
		}, in.Rates))
	}
	return created, nil
}

func withRates(p *ent.Price, rates money.Rates) *ent.Price {
	p.CostPer1mInput, p.CostPer1mOutput = known(rates, "input"), known(rates, "output")
	p.CostPer1mReasoning = known(rates, "reasoning")
	p.CostPer1mCacheRead, p.CostPer1mCacheWrite = known(rates, "cache_read"), known(rates, "cache_write")
	return p
}

func known(rates money.Rates, name string) *money.USD {
	if usd, ok := rates[name]; ok {
		return &usd
	}
	return nil
}

func (w *world) checkFamily(id, providerID uuid.UUID) error {
	if id == uuid.Nil {
		return nil
	}
	f := first(w.families, func(f *ent.ModelFamily) bool { return f.ID == id })
	switch {
	case f == nil:
		return errMissing
	case f.ProviderID != providerID:
		return registry.ErrInvalidData
	}
	return nil
}

func (w *world) getModel(id uuid.UUID) (*ent.Model, error) { return one(w.model(id)) }

func (w *world) findModel(providerID uuid.UUID, modelID string) (*ent.Model, error) {
	return one(w.modelNamed(providerID, modelID))
}

func (w *world) getModelsByProvider(providerID uuid.UUID) ([]*ent.Model, error) {
	all := where(w.models, func(m *ent.Model) bool { return m.ProviderID == providerID && m.DeletedAt == nil })
	slices.SortFunc(all, func(a, b *ent.Model) int { return strings.Compare(a.ModelID, b.ModelID) })
	return all, nil
}

func (w *world) listModels(f registry.ModelFilter) ([]*ent.Model, error) {
	if !okLabel(f.Search, 0, 256) || f.MinContextWindow < 0 || f.Order < 0 || f.Order > 3 ||
		f.Limit < 0 || f.Limit > 1000 {
		return nil, registry.ErrInvalidData
	}
	last := w.model(f.After)
	if f.After != uuid.Nil && last == nil {
		return nil, registry.ErrNotFound
	}
	contains := func(text string) bool { return strings.Contains(lowerASCII(text), lowerASCII(f.Search)) }
	atMost := func(usd, limit *money.USD) bool { return limit == nil || usd != nil && *usd <= *limit }
	page := where(w.models, func(m *ent.Model) bool {
		return (m.DeletedAt != nil) == f.Deleted &&
			(f.ProviderID == uuid.Nil || m.ProviderID == f.ProviderID) &&
			(f.FamilyID == uuid.Nil || m.FamilyID != nil && *m.FamilyID == f.FamilyID) &&
			(contains(m.ModelID) || contains(m.Name)) &&
			(!f.SupportsImages || m.SupportsImages) && (!f.SupportsAudio || m.SupportsAudio) &&
			(!f.SupportsTools || m.SupportsTools) && (!f.SupportsStructuredOutput || m.SupportsStructuredOutput) &&
			(!f.CanReason || m.CanReason) && (!f.CanStream || m.CanStream) &&
			m.ContextWindow >= f.MinContextWindow &&
			atMost(m.CostPer1mInput, f.MaxInputCost) && atMost(m.CostPer1mOutput, f.MaxOutputCost) &&
			(f.WithDeprecated || !m.Deprecated)
	})
	cheapest := func(a, b *money.USD) int { // what is not known comes last
		if a == nil || b == nil {
			return cmp.Compare(count(a == nil), count(b == nil))
		}
		return cmp.Compare(*a, *b)
	}
	order := func(a, b *ent.Model) int {
		var first int
		switch f.Order {
		case registry.OrderByInputCost:
			first = cheapest(a.CostPer1mInput, b.CostPer1mInput)
		case registry.OrderByOutputCost:
			first = cheapest(a.CostPer1mOutput, b.CostPer1mOutput)
		case registry.OrderByContextWindow:
			first = cmp.Compare(b.ContextWindow, a.ContextWindow)
		case registry.OrderByModelID:
		}
		return cmp.Or(first, strings.Compare(a.ModelID, b.ModelID), bytes.Compare(a.ID[:], b.ID[:]))
	}
	slices.SortFunc(page, order)
	if last != nil {
		page = where(page, func(m *ent.Model) bool { return order(m, last) > 0 })
	}
	return page[:min(cmp.Or(f.Limit, 100), len(page))], nil
}

func (w *world) updateModel(id uuid.UUID, up registry.ModelUpdate) (*ent.Model, error) {
	if up.Name != nil && !okLabel(*up.Name, 1, 128) || up.Description != nil && !okProse(*up.Description, 4096) ||
		up.ContextWindow != nil && !okTokens(*up.ContextWindow) ||
		up.MaxOutputTokens != nil && !okTokens(*up.MaxOutputTokens) {
		return nil, registry.ErrInvalidData
	}
	m := w.liveModel(id)
	if m == nil {
		return nil, registry.ErrNotFound
	}
	if up.FamilyID != nil {
		if err := w.checkFamily(*up.FamilyID, m.ProviderID); err != nil {
			return nil, err
		}
		m.FamilyID = up.FamilyID
		if *up.FamilyID == uuid.Nil {
			m.FamilyID = nil
		}
	}
	if up.Deprecated != nil {
		now := w.now
		m.Deprecated, m.DeprecatedAt = *up.Deprecated, nil
		if *up.Deprecated {
			m.DeprecatedAt = &now
		}
	}
	put(&m.Name, up.Name)
	put(&m.Description, up.Description)
	put(&m.ContextWindow, up.ContextWindow)
	put(&m.MaxOutputTokens, up.MaxOutputTokens)
	put(&m.SupportsImages, up.SupportsImages)
	put(&m.SupportsAudio, up.SupportsAudio)
	put(&m.SupportsTools, up.SupportsTools)
	put(&m.SupportsStructuredOutput, up.SupportsStructuredOutput)
	put(&m.CanReason, up.CanReason)
	put(&m.CanStream, up.CanStream)
	m.UpdatedAt = w.now
	return m, nil
}

func (w *world) deprecateModel(id uuid.UUID, at time.Time) error {
	if at.IsZero() {
		at = w.now
	}
	if !within(at, firstTime, lastTime) {
		return registry.ErrInvalidData
	}
	m := w.liveModel(id)
	if m == nil {
		return registry.ErrNotFound
	}
	at = micro(at)
	m.Deprecated, m.DeprecatedAt, m.UpdatedAt = true, &at, w.now
	return nil
}

func (w *world) deleteModel(id uuid.UUID) error {
	m := w.liveModel(id)
	if m == nil {
		return registry.ErrNotFound
	}
	now := w.now
	m.DeletedAt, m.UpdatedAt = &now, now
	return nil
}

func (w *world) purgeModel(id uuid.UUID) error {
	if w.model(id) == nil {
		return registry.ErrNotFound
	}
	if first(w.usage, func(u *ent.Usage) bool { return u.ModelID == id }) != nil {
		return registry.ErrForeignKey
	}
	w.models = where(w.models, func(m *ent.Model) bool { return m.ID != id })
	w.prices = where(w.prices, func(p *ent.Price) bool { return p.ModelID != id })
	for _, l := range w.leases {
		if l.ModelID != nil && *l.ModelID == id {
			l.ModelID = nil
		}
	}
	return nil
}

// Prices.

func (w *world) updateModelPricing(id uuid.UUID, in registry.PriceInput) (*ent.Price, error) {
	tier := cmp.Or(in.ServiceTier, "standard")
	if !okRates(in.Rates) || in.Unknown != (len(in.Rates) == 0) || !okText(tier, 1,
		64) || !okTokens(in.MinContextTokens) || !okText(in.Source, 0, 128) {
		return nil, registry.ErrInvalidData
	}
	m := w.liveModel(id)
	if m == nil {
		return nil, registry.ErrNotFound
	}
	from := w.now
	current := first(w.prices, func(p *ent.Price) bool {
		return p.ModelID == id && p.ServiceTier == tier && p.MinContextTokens == in.MinContextTokens &&
			p.EffectiveTo == nil
	})
	if current != nil {
		if render(registry.RatesOf(current)) == render(in.Rates) {
			current.Source = in.Source
			return current, nil
		}
		if earliest := current.EffectiveFrom.Add(time.Microsecond); from.Before(earliest) {
			from = earliest
		}
		current.EffectiveTo = &from
	}
	p := withRates(&ent.Price{
		ID: w.newID(), ModelID: id, ServiceTier: tier, MinContextTokens: in.MinContextTokens,
		EffectiveFrom: from, Source: in.Source, RecordedAt: w.now,
	}, in.Rates)
	w.prices = append(w.prices, p)
	if tier == "standard" && in.MinContextTokens == 0 {
		m.CostPer1mInput, m.CostPer1mOutput, m.UpdatedAt = known(in.Rates, "input"), known(in.Rates, "output"), w.now
	}
	return p, nil
}

func (w *world) priceAt(modelID uuid.UUID, at time.Time) (*ent.Price, error) {
	if !within(at, firstTime, lastTime) {
		return nil, registry.ErrInvalidData
	}
	return one(w.priceOf(modelID, "standard", 0, micro(at)))
}

// priceOf returns the price in effect in a tier for the largest context that is reached, or nil.
func (w *world) priceOf(modelID uuid.UUID, tier string, totalInput int64, at time.Time) (best *ent.Price) {
	for _, p := range w.prices {
		if p.ModelID == modelID && p.ServiceTier == tier && p.MinContextTokens <= totalInput &&
			!at.Before(p.EffectiveFrom) && (p.EffectiveTo == nil || at.Before(*p.EffectiveTo)) &&
			(best == nil || p.MinContextTokens > best.MinContextTokens) {
			best = p
		}
	}
	return best
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
