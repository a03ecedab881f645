package registry_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/ent/sdkversion"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// world says what a registry is to do: the doc comments of its operations, written down once more as
// plainly as can be. It shares nothing with the registry but the types of inputs and rows. Its rows
// are in the order they were created. An operation that fails may leave a world half changed.
type world struct {
	now   time.Time // of the operation
	newID func() uuid.UUID

	providers []*ent.Provider
	families  []*ent.ModelFamily
	models    []*ent.Model
	prices    []*ent.Price
	keys      []*ent.APIKey
	usage     []*ent.Usage
	totals    []*ent.UsageTotal
	// Those of quarters of an hour, in the same columns.
	quarters      []*ent.Usage
	totalQuarters []*ent.UsageTotal
	events        []*ent.UsageEvent
	logs          []*ent.DiscoveryLog
	sdks          []*ent.SDKVersion
	settings      []*ent.Setting
}

func (w *world) clone() *world {
	c := *w
	c.providers, c.families, c.models = copies(w.providers), copies(w.families), copies(w.models)
	c.prices, c.keys, c.usage = copies(w.prices), copies(w.keys), copies(w.usage)
	c.totals, c.events = copies(w.totals), copies(w.events)
	c.quarters, c.totalQuarters = copies(w.quarters), copies(w.totalQuarters)
	c.logs, c.sdks, c.settings = copies(w.logs), copies(w.sdks), copies(w.settings)
	return &c
}

// dump returns all rows as dumpRows does.
func (w *world) dump() string {
	settings := slices.SortedFunc(slices.Values(w.settings), func(a, b *ent.Setting) int { return strings.Compare(a.ID, b.ID) })
	events := slices.SortedFunc(slices.Values(w.events), compareEvents)
	return render([]any{w.providers, w.families, w.models, w.prices, w.keys, w.quarters, w.usage, w.totalQuarters, w.totals, events, w.logs, w.sdks, settings})
}

func copies[T any](rows []*T) []*T {
	all := make([]*T, len(rows))
	for i, row := range rows {
		own := *row
		all[i] = &own
	}
	return all
}

// where returns the rows that a condition holds for.
func where[T any](rows []*T, is func(*T) bool) (found []*T) {
	for _, row := range rows {
		if is(row) {
			found = append(found, row)
		}
	}
	return found
}

// first returns the first row that a condition holds for, or nil.
func first[T any](rows []*T, is func(*T) bool) *T {
	for _, row := range rows {
		if is(row) {
			return row
		}
	}
	return nil
}

// one returns a row, or ErrNotFound for none.
func one[T any](row *T) (*T, error) {
	if row == nil {
		return nil, registry.ErrNotFound
	}
	return row, nil
}

// errMissing is for a reference to a row that is not there.
var errMissing = errors.Join(registry.ErrForeignKey, registry.ErrNotFound)

func micro(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

var (
	firstTime = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
)

func within(t, from, to time.Time) bool { return !t.Before(from) && !t.After(to) }

// okText tells whether a text may be a name that identifies something.
func okText(s string, least, most int) bool {
	for _, r := range s {
		if r != '\u200d' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029') {
			return false
		}
	}
	return okLabel(s, least, most)
}

// okLabel tells whether a text may be a name for people.
func okLabel(s string, least, most int) bool {
	return okProse(s, most) && utf8.RuneCountInString(s) >= least && (least == 0 || strings.TrimSpace(s) != "")
}

func okProse(s string, most int) bool {
	return utf8.ValidString(s) && !strings.Contains(s, "\x00") && utf8.RuneCountInString(s) <= most
}

// cleanText is what is stored of a text that may hold anything.
func cleanText(s string, most int) string {
	var clean []rune
	for _, r := range strings.ToValidUTF8(s, "\ufffd") {
		hidden := r != '\n' && r != '\t' && r != '\u200d' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
		if !hidden && len(clean) < most {
			clean = append(clean, r)
		}
	}
	return string(clean)
}

func okSlug(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

func okRates(rates money.Rates) bool {
	for name, usd := range rates {
		if !slices.Contains([]string{"input", "output", "cache_read", "cache_write", "reasoning"}, name) {
			return false
		}
		if usd < 0 || usd > 1_000_000_000_000_000 {
			return false
		}
	}
	return true
}

func okTokens(all ...int64) bool {
	for _, n := range all {
		if n < 0 || n > 1_000_000_000_000 {
			return false
		}
	}
	return true
}

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

func put[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
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
	w.keys = where(w.keys, func(k *ent.APIKey) bool { return k.ProviderID != id })
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
	if first(w.families, func(f *ent.ModelFamily) bool { return f.ProviderID == in.ProviderID && f.Name == in.Name }) != nil {
		return nil, registry.ErrConflict
	}
	f := &ent.ModelFamily{
		ID: w.newID(), ProviderID: in.ProviderID, Name: in.Name, Description: in.Description, CreatedAt: w.now, UpdatedAt: w.now,
	}
	w.families = append(w.families, f)
	return f, nil
}

func (w *world) listFamilies(providerID uuid.UUID) ([]*ent.ModelFamily, error) {
	all := where(w.families, func(f *ent.ModelFamily) bool { return w.listed(f.ProviderID, providerID) })
	slices.SortStableFunc(all, func(a, b *ent.ModelFamily) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

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
		if !okText(in.ModelID, 1, 256) || !okLabel(inputs[i].Name, 1, 128) || !okProse(in.Description, 4096) || !okRates(in.Rates) ||
			!okText(in.PriceSource, 0, 128) || !okTokens(in.ContextWindow, in.MaxOutputTokens) {
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
	p.CostPer1mInput, p.CostPer1mOutput, p.CostPer1mReasoning = known(rates, "input"), known(rates, "output"), known(rates, "reasoning")
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

func lowerASCII(s string) string {
	lower := []byte(s)
	for i, c := range lower {
		if c >= 'A' && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	return string(lower)
}

func count(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

func (w *world) updateModel(id uuid.UUID, up registry.ModelUpdate) (*ent.Model, error) {
	if up.Name != nil && !okLabel(*up.Name, 1, 128) || up.Description != nil && !okProse(*up.Description, 4096) ||
		up.ContextWindow != nil && !okTokens(*up.ContextWindow) || up.MaxOutputTokens != nil && !okTokens(*up.MaxOutputTokens) {
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
	return nil
}

// Prices.

func (w *world) updateModelPricing(id uuid.UUID, in registry.PriceInput) (*ent.Price, error) {
	tier := cmp.Or(in.ServiceTier, "standard")
	if !okRates(in.Rates) || in.Unknown != (len(in.Rates) == 0) || !okText(tier, 1, 64) || !okTokens(in.MinContextTokens) || !okText(in.Source, 0, 128) {
		return nil, registry.ErrInvalidData
	}
	m := w.liveModel(id)
	if m == nil {
		return nil, registry.ErrNotFound
	}
	from := w.now
	current := first(w.prices, func(p *ent.Price) bool {
		return p.ModelID == id && p.ServiceTier == tier && p.MinContextTokens == in.MinContextTokens && p.EffectiveTo == nil
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

// Keys.

func (w *world) liveKey(id uuid.UUID) *ent.APIKey {
	return first(w.keys, func(k *ent.APIKey) bool { return k.ID == id && k.DeletedAt == nil })
}

func (w *world) liveKeys(providerID uuid.UUID) []*ent.APIKey {
	return where(w.keys, func(k *ent.APIKey) bool { return k.ProviderID == providerID && k.DeletedAt == nil })
}

func okKey(key string) bool {
	return key != "" && len(key) <= 4096 && strings.IndexFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

func hashOf(key string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(key))) }

func (w *world) addAPIKey(in registry.KeyInput) (*ent.APIKey, error) {
	if in.Keyless != (in.APIKey == "") || !in.Keyless && !okKey(in.APIKey) || !okLabel(in.Label, 0, 128) {
		return nil, registry.ErrInvalidData
	}
	if w.liveProvider(in.ProviderID) == nil {
		return nil, errMissing
	}
	live := w.liveKeys(in.ProviderID)
	if len(live) >= 100 {
		return nil, registry.ErrInvalidData
	}
	if first(live, func(k *ent.APIKey) bool { return k.KeyHash == hashOf(in.APIKey) }) != nil {
		return nil, registry.ErrConflict
	}
	k := &ent.APIKey{
		ID: w.newID(), ProviderID: in.ProviderID, KeyHash: hashOf(in.APIKey), Label: in.Label,
		Weight: 1, LastReset: w.now, CreatedAt: w.now, UpdatedAt: w.now,
	}
	if !in.Keyless {
		k.KeyPrefix = in.APIKey[:min(8, len(in.APIKey)/2)]
	}
	w.keys = append(w.keys, k)
	return k, nil
}

// today returns a key as it is now.
func (w *world) today(k *ent.APIKey) *ent.APIKey {
	if k == nil {
		return nil
	}
	own := *k
	if midnight := dayOf(w.now); own.LastReset.Before(midnight) {
		own.RequestsToday, own.TokensToday, own.CostToday, own.LastReset = 0, 0, 0, midnight
	}
	if own.Minute != nil && own.Minute.Before(minuteOf(w.now)) {
		own.RequestsThisMinute, own.TokensThisMinute, own.Minute = 0, 0, nil
	}
	if own.DegradedUntil != nil && !w.now.Before(*own.DegradedUntil) {
		own.Degraded, own.DegradedUntil, own.DegradedReason = false, nil, ""
	}
	return &own
}

func dayOf(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

func quarterOf(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute()/15*15, 0, 0, time.UTC)
}

func (w *world) findAPIKey(providerID uuid.UUID, key string) (*ent.APIKey, error) {
	if !okKey(key) {
		return nil, registry.ErrInvalidData
	}
	k := first(w.liveKeys(providerID), func(k *ent.APIKey) bool { return k.KeyHash == hashOf(key) })
	return one(w.today(k))
}

func (w *world) listAPIKeys(providerID uuid.UUID) (all []*ent.APIKey, err error) {
	for _, k := range w.keys {
		if k.DeletedAt == nil && w.listed(k.ProviderID, providerID) {
			all = append(all, w.today(k))
		}
	}
	return all, nil
}

func (w *world) updateAPIKey(id uuid.UUID, up registry.KeyUpdate) (*ent.APIKey, error) {
	if up.Label != nil && !okLabel(*up.Label, 0, 128) {
		return nil, registry.ErrInvalidData
	}
	k := w.liveKey(id)
	if k == nil {
		return nil, registry.ErrNotFound
	}
	put(&k.Label, up.Label)
	put(&k.Disabled, up.Disabled)
	k.UpdatedAt = w.now
	return w.today(k), nil
}

func (w *world) deleteAPIKey(id uuid.UUID) error {
	k := w.liveKey(id)
	if k == nil {
		return registry.ErrNotFound
	}
	now := w.now
	k.DeletedAt, k.UpdatedAt = &now, now
	return nil
}

func (w *world) purgeAPIKey(id uuid.UUID) error {
	if first(w.keys, func(k *ent.APIKey) bool { return k.ID == id }) == nil {
		return registry.ErrNotFound
	}
	if first(w.usage, func(u *ent.Usage) bool { return u.APIKeyID == id }) != nil {
		return registry.ErrForeignKey
	}
	w.keys = where(w.keys, func(k *ent.APIKey) bool { return k.ID != id })
	return nil
}

func (w *world) getLeastUsedKey(providerID uuid.UUID) (*ent.APIKey, error) {
	var best *ent.APIKey
	why := &registry.NoKeyError{ProviderID: providerID}
	for _, k := range w.liveKeys(providerID) { // in the order they were added
		k = w.today(k)
		switch {
		case k.Disabled:
			why.Keys = append(why.Keys, registry.KeyVerdict{ID: k.ID, Prefix: k.KeyPrefix, Label: k.Label, Weight: 1, Reason: "disabled"})
		case k.Degraded:
			why.Keys = append(why.Keys, registry.KeyVerdict{
				ID: k.ID, Prefix: k.KeyPrefix, Label: k.Label, Weight: 1, Reason: "degraded", Detail: k.DegradedReason, Until: *k.DegradedUntil,
			})
			if why.OpensAt.IsZero() || k.DegradedUntil.Before(why.OpensAt) {
				why.OpensAt = *k.DegradedUntil
			}
		case best == nil || k.UsageCount < best.UsageCount,
			k.UsageCount == best.UsageCount && usedEarlier(k.LastUsedAt, best.LastUsedAt):
			best = k
		}
	}
	if best == nil {
		return nil, why
	}
	return best, nil
}

func usedEarlier(a, b *time.Time) bool { return b != nil && (a == nil || a.Before(*b)) }

func (w *world) degradeKey(id uuid.UUID, reason string, duration time.Duration) error {
	if duration <= 0 || duration > 3650*24*time.Hour {
		return registry.ErrInvalidData
	}
	k := w.liveKey(id)
	if k == nil {
		return registry.ErrNotFound
	}
	until, reason := micro(w.now.Add(duration)), cleanText(reason, 1024)
	if k.DegradedUntil == nil || !k.DegradedUntil.After(until) {
		k.Degraded, k.DegradedUntil, k.DegradedReason, k.UpdatedAt = true, &until, reason, w.now
	}
	return nil
}

func (w *world) restoreKey(id uuid.UUID) error {
	k := w.liveKey(id)
	if k == nil {
		return registry.ErrNotFound
	}
	k.Degraded, k.DegradedUntil, k.DegradedReason, k.UpdatedAt = false, nil, "", w.now
	return nil
}

func (w *world) incrementUsage(id uuid.UUID, input, output int64) error {
	if !okTokens(input, output) {
		return registry.ErrInvalidData
	}
	k := w.liveKey(id)
	if k == nil {
		return registry.ErrNotFound
	}
	w.use(k, input+output, 0, w.now)
	k.ExtraRequests++
	k.ExtraTokens += input + output
	return nil
}

// use counts a request of an instant.
func (w *world) use(k *ent.APIKey, tokens int64, cost money.USD, at time.Time) {
	if at.After(w.now) {
		at = w.now
	}
	k.UsageCount++
	k.TokenCount += tokens
	if today := dayOf(w.now); k.LastReset.Before(today) || k.LastReset.After(w.now.Add(time.Hour)) {
		k.RequestsToday, k.TokensToday, k.CostToday, k.LastReset = 0, 0, 0, today
	}
	if minute := minuteOf(w.now); k.Minute == nil || k.Minute.Before(minute) || k.Minute.After(w.now.Add(5*time.Minute)) {
		k.RequestsThisMinute, k.TokensThisMinute, k.Minute = 0, 0, &minute
	}
	if dayOf(k.LastReset).Equal(dayOf(at)) {
		k.RequestsToday++
		k.TokensToday += tokens
		k.CostToday = min(k.CostToday+cost, mostCost)
	}
	if k.Minute.Equal(minuteOf(at)) {
		k.RequestsThisMinute++
		k.TokensThisMinute += tokens
	}
	if k.LastUsedAt == nil || at.After(*k.LastUsedAt) {
		k.LastUsedAt = &at
	}
	k.UpdatedAt = w.now
}

func minuteOf(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC)
}

func (w *world) resetDailyUsage() (n int, err error) {
	for _, k := range w.keys {
		if k.DeletedAt == nil && !k.LastReset.Before(dayOf(w.now)) && (k.RequestsToday != 0 || k.TokensToday != 0 || k.CostToday != 0) {
			k.RequestsToday, k.TokensToday, k.CostToday, k.LastReset, k.UpdatedAt = 0, 0, 0, w.now, w.now
			n++
		}
	}
	return n, nil
}

// The ledger.

// mostCost is what one row can hold, in nano-dollars.
const mostCost = 9_000_000_000_000_000_000

func (w *world) recordUsage(in registry.UsageInput) error {
	at := micro(in.At)
	if in.At.IsZero() {
		at = w.now
	}
	tier := cmp.Or(in.ServiceTier, "standard")
	if !okTokens(in.InputTokens, in.OutputTokens, in.CacheReadTokens, in.CacheWriteTokens, in.ReasoningTokens) ||
		!within(at, firstTime, w.now.Add(time.Hour)) || in.Latency < 0 || in.Latency > 7*24*time.Hour || !okText(tier, 1, 64) ||
		!okText(in.RequestID, 0, 128) || !okText(in.ErrorClass, 0, 64) || in.ErrorClass != "" && !in.Failed ||
		in.HTTPStatus != 0 && (in.HTTPStatus < 100 || in.HTTPStatus > 599) {
		return registry.ErrInvalidData
	}
	m, k := w.model(in.ModelID), first(w.keys, func(k *ent.APIKey) bool { return k.ID == in.APIKeyID })
	if m == nil || k == nil {
		return errMissing
	}
	if m.ProviderID != k.ProviderID {
		return registry.ErrInvalidData
	}
	if in.RequestID != "" && first(w.events, func(e *ent.UsageEvent) bool { return e.RequestID == in.RequestID }) != nil {
		return nil // recorded before
	}
	input := in.InputTokens + in.CacheReadTokens + in.CacheWriteTokens
	p := cmp.Or(w.priceOf(m.ID, tier, input, at), w.priceOf(m.ID, "standard", input, at))
	cost, priced := costOf(in, registry.RatesOf(p))
	event := &ent.UsageEvent{
		RequestID: in.RequestID, At: at, ModelID: m.ID, APIKeyID: k.ID, PriceID: p.ID, CostStatus: "unpriced",
		InputTokens: in.InputTokens, OutputTokens: in.OutputTokens, CacheReadTokens: in.CacheReadTokens,
		CacheWriteTokens: in.CacheWriteTokens, ReasoningTokens: in.ReasoningTokens,
		LatencyMs: int64(in.Latency / time.Millisecond), Success: !in.Failed, ErrorClass: in.ErrorClass, HTTPStatus: in.HTTPStatus,
	}
	if priced {
		if !cost.IsInt64() {
			return registry.ErrInvalidData
		}
		usd := money.USD(cost.Int64())
		event.Cost, event.CostStatus = &usd, "priced"
	}
	w.events = append(w.events, event)
	for _, total := range []bool{false, true} {
		for _, period := range []struct {
			usage      *[]*ent.Usage
			totals     *[]*ent.UsageTotal
			start, end time.Time
		}{
			{&w.quarters, &w.totalQuarters, quarterOf(at), quarterOf(at).Add(15 * time.Minute)},
			{&w.usage, &w.totals, dayOf(at), dayOf(at).AddDate(0, 0, 1)},
		} {
			u := ent.Usage{
				ModelID: m.ID, APIKeyID: k.ID, PriceID: p.ID,
				PeriodStart: period.start, PeriodEnd: period.end,
			}
			if err := w.addTo(period.usage, period.totals, u, event, total); err != nil {
				return err
			}
		}
	}
	w.use(k, input+in.OutputTokens+in.ReasoningTokens, *cmp.Or(event.Cost, new(money.USD)), at)
	return nil
}

// addTo adds an event to the row for a period, or to the total of all keys and prices.
func (w *world) addTo(rows *[]*ent.Usage, totals *[]*ent.UsageTotal, u ent.Usage, e *ent.UsageEvent, total bool) error {
	row := first(*rows, func(o *ent.Usage) bool {
		return o.ModelID == u.ModelID && o.APIKeyID == u.APIKeyID && o.PriceID == u.PriceID && o.PeriodStart.Equal(u.PeriodStart)
	})
	sum := first(*totals, func(o *ent.UsageTotal) bool {
		return o.ModelID == u.ModelID && o.PeriodStart.Equal(u.PeriodStart)
	})
	switch {
	case !total && row == nil:
		row = &u
		row.ID = w.newID()
		*rows = append(*rows, row)
	case total && sum == nil:
		row = &u
		row.ID = w.newID()
		sum = &ent.UsageTotal{ID: row.ID}
		*totals = append(*totals, sum)
	case total: // the same columns
		row = &ent.Usage{ID: sum.ID, ModelID: sum.ModelID, PeriodStart: sum.PeriodStart, PeriodEnd: sum.PeriodEnd,
			RequestCount: sum.RequestCount, ErrorCount: sum.ErrorCount, UnpricedCount: sum.UnpricedCount, InputTokens: sum.InputTokens,
			OutputTokens: sum.OutputTokens, CacheReadTokens: sum.CacheReadTokens, CacheWriteTokens: sum.CacheWriteTokens,
			ReasoningTokens: sum.ReasoningTokens, TotalCost: sum.TotalCost, LatencyMsSum: sum.LatencyMsSum}
	}
	if e.Cost != nil {
		cost := new(big.Int).Add(big.NewInt(int64(*e.Cost)), big.NewInt(int64(*cmp.Or(row.TotalCost, new(money.USD)))))
		if cost.Cmp(big.NewInt(mostCost)) > 0 {
			return registry.ErrInvalidData
		}
		usd := money.USD(cost.Int64())
		row.TotalCost = &usd
	}
	row.RequestCount++
	row.ErrorCount += count(!e.Success)
	row.UnpricedCount += count(e.Cost == nil)
	row.InputTokens += e.InputTokens
	row.OutputTokens += e.OutputTokens
	row.CacheReadTokens += e.CacheReadTokens
	row.CacheWriteTokens += e.CacheWriteTokens
	row.ReasoningTokens += e.ReasoningTokens
	row.LatencyMsSum += e.LatencyMs
	row.AverageLatencyMs = float64(row.LatencyMsSum) / float64(row.RequestCount)
	if total {
		*sum = ent.UsageTotal{ID: row.ID, ModelID: row.ModelID, PeriodStart: row.PeriodStart, PeriodEnd: row.PeriodEnd,
			RequestCount: row.RequestCount, ErrorCount: row.ErrorCount, UnpricedCount: row.UnpricedCount, InputTokens: row.InputTokens,
			OutputTokens: row.OutputTokens, CacheReadTokens: row.CacheReadTokens, CacheWriteTokens: row.CacheWriteTokens,
			ReasoningTokens: row.ReasoningTokens, TotalCost: row.TotalCost, LatencyMsSum: row.LatencyMsSum, AverageLatencyMs: row.AverageLatencyMs}
	}
	return nil
}

// compareEvents is an order of events that does not depend on what is random in their ids.
func compareEvents(a, b *ent.UsageEvent) int {
	return cmp.Or(a.At.Compare(b.At), strings.Compare(a.RequestID, b.RequestID), strings.Compare(render(*a), render(*b)))
}

// costOf returns what a request costs in nano-dollars, if that is known.
func costOf(in registry.UsageInput, rates money.Rates) (cost *big.Int, priced bool) {
	if len(rates) == 0 {
		return nil, false
	}
	sum := new(big.Int)
	for _, part := range []struct {
		tokens         int64
		name, fallback string
	}{
		{in.InputTokens, "input", "input"},
		{in.OutputTokens, "output", "output"},
		{in.CacheReadTokens, "cache_read", "input"},
		{in.CacheWriteTokens, "cache_write", "input"},
		{in.ReasoningTokens, "reasoning", "output"},
	} {
		if part.tokens == 0 {
			continue
		}
		rate, ok := rates[part.name]
		if !ok {
			rate, ok = rates[part.fallback]
		}
		if !ok {
			return nil, false
		}
		sum.Add(sum, new(big.Int).Mul(big.NewInt(part.tokens), big.NewInt(int64(rate))))
	}
	million := big.NewInt(1_000_000)
	cost, rest := new(big.Int).QuoRem(sum, million, new(big.Int))
	switch twice := rest.Lsh(rest, 1).Cmp(million); {
	case twice > 0, twice == 0 && cost.Bit(0) == 1:
		cost.Add(cost, big.NewInt(1))
	}
	return cost, true
}

func (w *world) getUsageStats(modelID uuid.UUID, start, end time.Time) (stats registry.UsageStats, err error) {
	inRange := func(t time.Time) time.Time {
		switch t = micro(t); {
		case t.Before(firstTime):
			return firstTime
		case t.After(lastTime):
			return lastTime
		}
		return t
	}
	start, end = inRange(start), inRange(end)
	if !start.Before(end) {
		return stats, registry.ErrInvalidData
	}
	if w.model(modelID) == nil {
		return stats, registry.ErrNotFound
	}
	stats.Start, stats.End = quarterOf(start), quarterOf(end)
	if stats.End.Before(end) {
		stats.End = stats.End.Add(15 * time.Minute)
	}
	var took int64
	cost := new(big.Int)
	for _, u := range w.quarters {
		if u.ModelID != modelID || u.PeriodStart.Before(stats.Start) || !u.PeriodStart.Before(stats.End) {
			continue
		}
		stats.Requests += u.RequestCount
		stats.Errors += u.ErrorCount
		stats.UnpricedRequests += u.UnpricedCount
		stats.InputTokens += u.InputTokens
		stats.OutputTokens += u.OutputTokens
		stats.CacheReadTokens += u.CacheReadTokens
		stats.CacheWriteTokens += u.CacheWriteTokens
		stats.ReasoningTokens += u.ReasoningTokens
		took += u.LatencyMsSum
		if u.TotalCost != nil {
			cost.Add(cost, big.NewInt(int64(*u.TotalCost)))
		}
	}
	if !cost.IsInt64() || cost.Cmp(big.NewInt(mostCost)) > 0 {
		return stats, registry.ErrInvalidData
	}
	var histogram latency.Histogram
	for _, e := range w.events {
		if e.ModelID == modelID && !e.At.Before(stats.Start) && e.At.Before(stats.End) {
			histogram.Add(e.LatencyMs)
		}
	}
	for to, q := range map[*time.Duration]float64{&stats.P50: 0.5, &stats.P95: 0.95, &stats.P99: 0.99} {
		*to = time.Duration(histogram.Quantile(q)) * time.Millisecond
	}
	stats.TotalCost = money.USD(cost.Int64())
	if stats.Requests > 0 {
		stats.AverageLatency = time.Duration(float64(took) / float64(stats.Requests) * 1e6)
	}
	return stats, nil
}

func (w *world) getCostBreakdown(providerID uuid.UUID) (map[string]money.USD, error) {
	sums := map[string]*big.Int{}
	for _, u := range w.usage {
		m := w.model(u.ModelID)
		if m.ProviderID != providerID || u.TotalCost == nil {
			continue
		}
		if sums[m.ModelID] == nil {
			sums[m.ModelID] = new(big.Int)
		}
		sums[m.ModelID].Add(sums[m.ModelID], big.NewInt(int64(*u.TotalCost)))
	}
	costs := map[string]money.USD{}
	for name, sum := range sums {
		if !sum.IsInt64() {
			return nil, registry.ErrInvalidData
		}
		costs[name] = money.USD(sum.Int64())
	}
	return costs, nil
}

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
		!slices.Contains([]sdkversion.CompilationStatus{"pending", "success", "failed"}, status) || !within(at, firstTime, lastTime) ||
		in.CodeHash != "" && (len(in.CodeHash) != 64 || strings.Trim(in.CodeHash, "0123456789abcdef") != "") {
		return nil, registry.ErrInvalidData
	}
	if w.liveProvider(in.ProviderID) == nil {
		return nil, errMissing
	}
	if first(w.sdks, func(s *ent.SDKVersion) bool { return s.ProviderID == in.ProviderID && s.Version == in.Version }) != nil {
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
	return slices.SortedFunc(slices.Values(w.settings), func(a, b *ent.Setting) int { return strings.Compare(a.ID, b.ID) }), nil
}
