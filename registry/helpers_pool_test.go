package registry_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/poolstate"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// poolTest is a provider with a model and some keys.
type poolTest struct {
	*registry.Registry
	clock    *registrytest.Clock
	provider *ent.Provider
	model    *ent.Model
	keys     []*ent.APIKey
}

// newPoolTest adds a key for each input.
func (e engine) newPoolTest(tb testing.TB, inputs []registry.KeyInput, options ...registry.Option) *poolTest {
	tb.Helper()
	clock := registrytest.NewClock(registrytest.Start)
	p := &poolTest{Registry: e.new(tb, append(options, registry.WithClock(clock.Now))...), clock: clock}
	p.provider = mustProvider(tb, p.Registry, "pool")
	p.model = mustModel(tb, p.Registry, p.provider.ID, "gpt-4", gpt4())
	for i, in := range inputs {
		in.ProviderID, in.APIKey = p.provider.ID, secret(i)
		key, err := p.AddAPIKey(tb.Context(), in)
		require.NoError(tb, err)
		p.keys = append(p.keys, key)
	}
	return p
}

// acquire returns a lease, whose estimate is of some tokens.
func (p *poolTest) acquire(tb testing.TB, tokens int64) *registry.Lease {
	tb.Helper()
	lease, err := p.AcquireKey(tb.Context(), p.want(tokens))
	require.NoError(tb, err)
	return lease
}

func (p *poolTest) want(tokens int64) registry.AcquireInput {
	return registry.AcquireInput{
		ProviderID: p.provider.ID, ModelID: p.model.ID, EstimatedTokens: tokens, TTL: time.Minute,
	}
}

// refused returns why there is no key.
func (p *poolTest) refused(tb testing.TB, in registry.AcquireInput) *registry.NoKeyError {
	tb.Helper()
	_, err := p.AcquireKey(tb.Context(), in)
	require.ErrorIs(tb, err, registry.ErrNoKeyAvailable)
	var why *registry.NoKeyError
	require.ErrorAs(tb, err, &why)
	return why
}

func (p *poolTest) key(tb testing.TB, i int) *ent.APIKey {
	tb.Helper()
	key, err := p.Client().APIKey.Get(tb.Context(), p.keys[i].ID)
	require.NoError(tb, err)
	return key
}

// explain returns the verdict on each key.
func (p *poolTest) explain(tb testing.TB, tokens int64) []registry.KeyVerdict {
	tb.Helper()
	verdicts, err := p.ExplainKeys(tb.Context(), p.want(tokens))
	require.NoError(tb, err)
	return verdicts
}

// openLeases returns how many leases there are, of some only.
func (p *poolTest) openLeases(tb testing.TB, of ...predicate.KeyLease) int {
	tb.Helper()
	n, err := p.Client().KeyLease.Query().Where(of...).Count(tb.Context())
	require.NoError(tb, err)
	return n
}

// counters are those of a key's row: of what has ended.
func (p *poolTest) counters(tb testing.TB, i int) []int64 {
	tb.Helper()
	key := p.key(tb, i)
	return []int64{
		key.RequestsThisMinute, key.TokensThisMinute, key.RequestsToday, key.TokensToday, key.UsageCount,
		key.TokenCount,
	}
}

// counted returns the counters of a key's limits, running requests included.
func (p *poolTest) counted(tb testing.TB, i int) map[registry.LimitName]int64 {
	tb.Helper()
	used := map[registry.LimitName]int64{}
	for _, l := range p.explain(tb, 0)[i].Limits {
		used[l.Name] += l.Used
	}
	return used
}

func used(input int64) registry.UsageInput {
	return registry.UsageInput{Tokens: meter.Tokens{InputTokens: input}}
}

var (
	limited   = registry.Failure{Status: 429}
	exhausted = registry.Failure{Status: 429, Body: []byte(`{"error":{"code":"insufficient_quota"}}`)}
	denied    = registry.Failure{Status: 401}
)

func retryAfter(f registry.Failure, seconds int) registry.Failure {
	f.Header = http.Header{"Retry-After": {fmt.Sprint(seconds)}}
	return f
}

// errOf is the error of a Fail of which the diagnosis does not matter.
func errOf(_ registry.Diagnosis, err error) error { return err }

// fail fails the next lease of a key, which must be the one that is handed out.
func (p *poolTest) fail(tb testing.TB, i int, f registry.Failure) {
	tb.Helper()
	in := p.want(1)
	for k, key := range p.keys {
		if k != i {
			in.Exclude = append(in.Exclude, key.ID)
		}
	}
	lease, err := p.AcquireKey(tb.Context(), in)
	require.NoError(tb, err)
	require.Equal(tb, p.keys[i].ID, lease.KeyID)
	require.NoError(tb, errOf(lease.Fail(tb.Context(), f)))
}

// within demands that a key is out from now on, for at least first and at most a quarter more.
func (p *poolTest) within(tb testing.TB, i int, first time.Duration) {
	tb.Helper()
	v := p.explain(tb, 1)[i]
	require.Equal(tb, registry.KeyDegraded, v.Reason)
	rest := v.Until.Sub(p.clock.Now())
	require.GreaterOrEqual(tb, rest, first)
	require.LessOrEqual(tb, rest, first+first/4)
}

// actions are those of the audit trail on keys and providers, oldest first.
func (p *poolTest) actions(tb testing.TB) (all []string) {
	tb.Helper()
	entries, err := p.ListAudit(tb.Context(), registry.AuditFilter{})
	require.NoError(tb, err)
	for _, e := range entries {
		switch e.Action {
		case registry.ActionDegrade, registry.ActionRestore, registry.ActionProbe, registry.ActionCoolDown:
			all = append([]string{strings.TrimSpace(e.Actor + " " + e.Action)}, all...)
		}
	}
	return all
}

// remembering are registries on one PostgreSQL database, as of many processes, with a provider.
type remembering struct {
	*registry.Registry
	url      string
	other    *registry.Registry
	provider *ent.Provider
	model    *ent.Model
	group    *ent.QuotaGroup
	key      *ent.APIKey // in the group
	keys     int         // that were added
	left     *uuid.UUID  // the state in which the last lease left the pool
}

func newRemembering(t *testing.T) *remembering {
	t.Helper()
	ctx, url := t.Context(), serviceURL(t)
	open := func() *registry.Registry {
		clock := registry.WithClock(func() time.Time { return registrytest.Start })
		return mustOpen(t, url, registry.WithoutMigration(), clock)
	}
	r := &remembering{Registry: open(), other: open(), url: url}
	r.provider = mustProvider(t, r.Registry, "p")
	r.model = mustModel(t, r.Registry, r.provider.ID, "m", gpt4())
	var err error
	r.group, err = r.CreateQuotaGroup(ctx, registry.QuotaGroupInput{ProviderID: r.provider.ID, Name: "g"})
	require.NoError(t, err)
	r.key = r.add(t, r.group.ID)
	return r
}

func (r *remembering) add(t *testing.T, group uuid.UUID) *ent.APIKey {
	t.Helper()
	r.keys++
	in := registry.KeyInput{ProviderID: r.provider.ID, APIKey: secret(r.keys), QuotaGroupID: group}
	key, err := r.AddAPIKey(t.Context(), in)
	require.NoError(t, err)
	return key
}

// elsewhere adds a key of another provider.
func (r *remembering) elsewhere(t *testing.T) *ent.APIKey {
	t.Helper()
	return mustKey(t, r.Registry, mustProvider(t, r.Registry, "elsewhere").ID, 0)
}

// lease leases a key, after which the pool is remembered.
func (r *remembering) lease(t *testing.T) *registry.Lease {
	t.Helper()
	lease, err := r.AcquireKey(
		t.Context(), registry.AcquireInput{ProviderID: r.provider.ID, ModelID: r.model.ID, TTL: time.Hour},
	)
	require.NoError(t, err)
	r.left = r.state(t)
	require.NotNil(t, r.left)
	return lease
}

// state is the name under which the last batch has left the pool, nil if something else has changed it since.
func (r *remembering) state(t *testing.T) *uuid.UUID {
	t.Helper()
	return r.Client().PoolState.Query().Where(poolstate.ProviderID(r.provider.ID)).OnlyX(t.Context()).State
}

// remembers reports whether the process may still use what it remembers of the pool after the last lease.
func (r *remembering) remembers(t *testing.T) bool {
	t.Helper()
	state := r.state(t)
	return state != nil && *state == *r.left
}

// requireKnown requires that what a process remembers of a pool is what the database has: it knows why no key is left
// for somebody who excludes all of them.
func (r *remembering) requireKnown(t *testing.T, reg *registry.Registry, provider uuid.UUID) {
	t.Helper()
	ctx := t.Context()
	in := registry.AcquireInput{
		ProviderID: provider, TTL: time.Hour,
		Exclude: r.Client().APIKey.Query().Where(apikey.ProviderID(provider)).IDsX(ctx),
	}
	_, err := reg.AcquireKey(ctx, in)
	var none *registry.NoKeyError
	require.ErrorAs(t, err, &none)
	verdicts, err := reg.ExplainKeys(ctx, in)
	require.NoError(t, err)
	require.NotEmpty(t, verdicts)
	require.Equal(t, verdicts, none.Keys)
}
