package registry_test

import (
	"bytes"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/auditentry"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/ent/expiredlease"
	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/modelfamily"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/ent/quotagroup"
	"github.com/jeffersonwarrior/modelscan/ent/sdkversion"
	"github.com/jeffersonwarrior/modelscan/ent/setting"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// shown leaves out of what was returned what no user counts on: turns, what the provider said, when a row was last
// written, and windows in which nothing was counted.
func shown(now time.Time, value any) any {
	switch v := value.(type) {
	case *ent.APIKey:
		return plainKey(now, v)
	case []*ent.APIKey:
		return mapped(v, func(k *ent.APIKey) *ent.APIKey { return plainKey(now, k) })
	case *ent.QuotaGroup:
		return plainGroup(now, v)
	case []*ent.QuotaGroup:
		return mapped(v, func(g *ent.QuotaGroup) *ent.QuotaGroup { return plainGroup(now, g) })
	case []registry.KeyVerdict:
		return mapped(v, plainVerdict)
	case *registry.NoKeyError:
		own := *v
		own.Keys = mapped(own.Keys, plainVerdict)
		return &own
	case registry.PruneResult:
		v.Freed, v.KeyEvents = 0, 0 // which dump and others show
		return v
	}
	return value
}

func mapped[T any](all []T, to func(T) T) []T {
	out := make([]T, len(all))
	for i, one := range all {
		out[i] = to(one)
	}
	return out
}

func plainKey(now time.Time, k *ent.APIKey) *ent.APIKey {
	k = asOf(now, k)
	if k == nil {
		return nil
	}
	k.Pass, k.Observed, k.UpdatedAt = 0, nil, time.Time{}
	if k.RequestsThisMinute == 0 && k.TokensThisMinute == 0 {
		k.Minute = nil
	}
	return k
}

func plainGroup(now time.Time, g *ent.QuotaGroup) *ent.QuotaGroup {
	if g == nil {
		return nil
	}
	own := *g
	if own.LastReset.Before(dayOf(now)) {
		own.RequestsToday, own.TokensToday, own.CostToday, own.LastReset = 0, 0, 0, dayOf(now)
	}
	if own.Minute != nil && own.Minute.Before(minuteOf(now)) {
		own.RequestsThisMinute, own.TokensThisMinute = 0, 0
	}
	if own.RequestsThisMinute == 0 && own.TokensThisMinute == 0 {
		own.Minute = nil
	}
	own.Observed, own.UpdatedAt = nil, time.Time{}
	return &own
}

// plainVerdict leaves out what the provider said of its own limits, but that they are closed.
func plainVerdict(v registry.KeyVerdict) registry.KeyVerdict {
	v.Detail = ""
	v.Limits = slices.DeleteFunc(slices.Clone(v.Limits), func(l registry.LimitState) bool {
		return l.Name == registry.LimitObservedRequests || l.Name == registry.LimitObservedTokens
	})
	return v
}

// asOf returns a key as it is at an instant: counters of an earlier window are none, and a degradation that is over is
// none.
func asOf(now time.Time, k *ent.APIKey) *ent.APIKey {
	if k == nil {
		return nil
	}
	own := *k
	if midnight := dayOf(now); own.LastReset.Before(midnight) {
		own.RequestsToday, own.TokensToday, own.CostToday, own.LastReset = 0, 0, 0, midnight
	}
	if own.Minute != nil && own.Minute.Before(minuteOf(now)) {
		own.RequestsThisMinute, own.TokensThisMinute, own.Minute = 0, 0, nil
	}
	if own.DegradedUntil != nil && !now.Before(*own.DegradedUntil) {
		own.Degraded, own.DegradedUntil, own.DegradedAt, own.DegradedReason, own.DegradedBy = false, nil, nil, "", ""
	}
	return &own
}

// tables are all that the world says of a database.
type tables struct {
	providers     []*ent.Provider
	families      []*ent.ModelFamily
	models        []*ent.Model
	prices        []*ent.Price
	groups        []*ent.QuotaGroup
	keys          []*ent.APIKey
	leases        []*ent.KeyLease // that have not expired
	expired       []uuid.UUID     // within a day, and not ended
	quarters      []*ent.Usage    // of an hour, in the columns of days
	usage         []*ent.Usage
	totalQuarters []*ent.UsageTotal
	totals        []*ent.UsageTotal
	events        []*ent.UsageEvent
	logs          []*ent.DiscoveryLog
	sdks          []*ent.SDKVersion
	settings      []*ent.Setting
}

// text returns all columns of all rows, one row a line.
func (r *tables) text(now time.Time) string {
	slices.SortFunc(r.events, compareEvents)
	keys := mapped(r.keys, func(k *ent.APIKey) *ent.APIKey { return plainKey(now, k) })
	groups := mapped(r.groups, func(g *ent.QuotaGroup) *ent.QuotaGroup { return plainGroup(now, g) })
	return render([]any{
		r.providers, r.families, r.models, r.prices, groups, keys, r.leases, r.expired, r.quarters, r.usage,
		r.totalQuarters,
		r.totals, r.events, r.logs, r.sdks, r.settings,
	})
}

// dump returns all columns of all rows as text, one row a line; of what is random in events, of turns, and of
// histograms and digests nothing. In others is what the world does not say: histograms of periods, pools as they are
// stored, and what is new in the audit trail.
func (s *side) dump(t *rapid.T, now time.Time) (text, others string) {
	ctx, c := t.Context(), s.reg.Client()
	var r tables
	read(t, &r.providers)(c.Provider.Query().Order(provider.ByID()).All(ctx))
	read(t, &r.families)(c.ModelFamily.Query().Order(modelfamily.ByID()).All(ctx))
	read(t, &r.models)(c.Model.Query().Order(model.ByID()).All(ctx))
	read(t, &r.prices)(c.Price.Query().Order(price.ByID()).All(ctx))
	read(t, &r.groups)(c.QuotaGroup.Query().Order(quotagroup.ByID()).All(ctx))
	read(t, &r.keys)(c.APIKey.Query().Order(apikey.ByID()).All(ctx))
	read(t, &r.usage)(c.Usage.Query().Order(usage.ByID()).All(ctx))
	read(t, &r.totals)(c.UsageTotal.Query().Order(usagetotal.ByID()).All(ctx))
	read(t, &r.events)(c.UsageEvent.Query().All(ctx))
	read(t, &r.logs)(c.DiscoveryLog.Query().Order(discoverylog.ByID()).All(ctx))
	read(t, &r.sdks)(c.SDKVersion.Query().Order(sdkversion.ByID()).All(ctx))
	read(t, &r.settings)(c.Setting.Query().Order(setting.ByID()).All(ctx))
	var quarters []*ent.UsageQuarter
	read(t, &quarters)(c.UsageQuarter.Query().Order(usagequarter.ByID()).All(ctx))
	r.quarters = like[ent.Usage](t, quarters)
	var totals []*ent.UsageTotalQuarter
	read(t, &totals)(c.UsageTotalQuarter.Query().Order(usagetotalquarter.ByID()).All(ctx))
	r.totalQuarters = like[ent.UsageTotal](t, totals)
	var open []*ent.KeyLease
	read(t, &open)(c.KeyLease.Query().Order(keylease.ByID()).All(ctx))
	var away []*ent.ExpiredLease
	read(t, &away)(c.ExpiredLease.Query().Order(expiredlease.ByID()).All(ctx))
	others = s.others(t, &r, open, away)
	for _, e := range r.events {
		withoutID(e)
	}
	r.addLeases(now, open, away)
	s.open, s.away = open, away
	return r.text(now), others
}

// others takes histograms and digests off the periods, and returns what the world does not say.
func (s *side) others(t *rapid.T, r *tables, open []*ent.KeyLease, away []*ent.ExpiredLease) string {
	var histograms [][]byte
	for _, u := range slices.Concat(r.usage, r.quarters) {
		histograms = append(histograms, u.LatencyHistogram, u.TtftHistogram)
		u.LatencyHistogram, u.TtftHistogram, u.Digest = nil, nil, nil
	}
	for _, u := range slices.Concat(r.totals, r.totalQuarters) {
		histograms = append(histograms, u.LatencyHistogram, u.TtftHistogram)
		u.LatencyHistogram, u.TtftHistogram, u.Digest = nil, nil, nil
	}
	for _, k := range r.keys { // its turn is the last that it had, as the row or a lease has it
		for _, l := range open {
			if l.APIKeyID == k.ID {
				k.Pass = max(k.Pass, l.Pass)
			}
		}
	}
	return render([]any{histograms, r.keys, r.groups, open, away}) + s.trail(t, s.lastEntry)
}

// trail returns the audit trail after an entry.
func (s *side) trail(t *rapid.T, last uuid.UUID) string {
	var entries []*ent.AuditEntry
	read(t, &entries)(s.reg.Client().AuditEntry.Query().Where(auditentry.IDGT(last)).
		Order(auditentry.ByID()).All(t.Context()))
	for _, e := range entries {
		s.lastEntry, e.ID = e.ID, uuid.Nil
	}
	return turns.ReplaceAllString(render(entries), "")
}

// turns are those of keys as the audit trail tells them. Whether those of open leases are in a key's row by then
// depends on what an engine remembers.
var turns = regexp.MustCompile(`"pass":\d+,`)

// withoutID leaves out of an event what is random.
func withoutID(e *ent.UsageEvent) {
	if e.RequestID == e.ID.String() {
		e.RequestID = ""
	}
	e.ID, e.Fingerprint = uuid.Nil, nil // a fingerprint has the model's id
}

// read takes what a query returns.
func read[T any](t *rapid.T, to *[]T) func([]T, error) {
	return func(all []T, err error) {
		require.NoError(t, err)
		*to = all
	}
}

// addLeases adds those that are open, and those that expired within a day and have not been ended, whether they have
// been put away or not.
func (r *tables) addLeases(now time.Time, open []*ent.KeyLease, away []*ent.ExpiredLease) {
	for _, l := range open {
		l.Pass = 0
		switch {
		case l.ExpiresAt.After(now):
			r.leases = append(r.leases, l)
		case l.ExpiresAt.After(now.Add(-24 * time.Hour)):
			r.expired = append(r.expired, l.ID)
		}
	}
	for _, l := range away {
		if l.ExpiresAt.After(now.Add(-24 * time.Hour)) {
			r.expired = append(r.expired, l.ID)
		}
	}
	slices.SortFunc(r.expired, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
}

// putAway tells the world which leases that expired are put away, and which are gone after a day: when that is done is
// left to the registry.
func (m *machine) putAway() {
	s := m.sides[0]
	m.world.leases = where(m.world.leases, func(l *lease) bool {
		id := s.id(l.ID)
		l.away = slices.ContainsFunc(s.away, func(row *ent.ExpiredLease) bool { return row.ID == id })
		return l.away || slices.ContainsFunc(s.open, func(row *ent.KeyLease) bool { return row.ID == id })
	})
}
