package main

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// fixture is a gateway before a provider that fails as it is told.
type fixture struct {
	*gateway
	clock    *registrytest.Clock
	provider *upstream
	users    map[string]user // by their names
	secret   string          // of the access key that calls show: ada's
}

// trialRequests is how many requests a day the trial user of a fixture has.
const trialRequests = 2

func newFixture(t *testing.T, f faults) *fixture {
	t.Helper()
	ctx := t.Context()
	keyring, err := loadKeyring(filepath.Join(t.TempDir(), "key"))
	require.NoError(t, err)
	clock := registrytest.NewClock(registrytest.Start)
	reg := registrytest.New(t, registry.WithClock(clock.Now), registry.WithKeyring(keyring))
	for name, models := range routes {
		provider, err := reg.CreateProvider(ctx, registry.ProviderInput{Name: name})
		require.NoError(t, err)
		for _, model := range models {
			_, err := reg.CreateModel(ctx, registry.ModelInput{
				ProviderID: provider.ID, ModelID: model,
				Rates: money.Rates{meter.Input: money.Dollar, meter.Output: 2 * money.Dollar},
			})
			require.NoError(t, err)
		}
	}
	keys := demoKeys()
	provider := newUpstream(keys, f, clock.Now)
	t.Cleanup(provider.Close)
	client := &http.Client{Timeout: 300 * time.Millisecond, Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	g := &gateway{reg: reg, client: client, now: clock.Now, upstream: provider.URL, routes: map[string]*ent.Model{}}
	require.NoError(t, g.setUp(ctx, keys))
	users, err := g.setUpConsumers(ctx, trialRequests)
	require.NoError(t, err)
	byName := map[string]user{}
	for _, u := range users {
		byName[u.Name] = u
	}
	return &fixture{g, clock, provider, byName, reveal(t, byName["ada"].secret)}
}

func reveal(t *testing.T, secret registry.Secret) (text string) {
	t.Helper()
	require.NoError(t, secret.Use(func(key []byte) error {
		text = string(key)
		return nil
	}))
	return text
}

// newCall makes a call by the access key.
func (f *fixture) newCall(ctx context.Context, url, body string) *http.Request {
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	request.RequestURI = "" // so that a client may send it
	request.Header.Set("Authorization", "Bearer "+f.secret)
	return request
}

const hello = `{"model": "openai/gpt-5.4", "messages": [{"role": "user", "content": "Say hello."}]}`

// chat makes a call.
func (f *fixture) chat(ctx context.Context, body string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	f.ServeHTTP(answer, f.newCall(ctx, "/", body))
	return answer
}

// requireServed makes so many calls, all of which succeed.
func (f *fixture) requireServed(t *testing.T, calls int) {
	t.Helper()
	for range calls {
		answer := f.chat(t.Context(), hello)
		require.Equal(t, http.StatusOK, answer.Code, answer.Body)
	}
}

// verdicts are what the registry says of the keys, by their labels.
func (f *fixture) verdicts(t *testing.T) map[string]registry.KeyVerdict {
	t.Helper()
	all, err := f.reg.ExplainKeys(t.Context(), registry.AcquireInput{ProviderID: f.routes["openai/gpt-5.4"].ProviderID})
	require.NoError(t, err)
	require.Len(t, all, keysPerProvider)
	verdicts := map[string]registry.KeyVerdict{}
	for _, v := range all {
		require.Zero(t, v.InFlight)
		verdicts[v.Label] = v
	}
	return verdicts
}

// usable counts the keys that may be used.
func (f *fixture) usable(t *testing.T) (n int) {
	t.Helper()
	for _, v := range f.verdicts(t) {
		if v.Reason == "" {
			n++
		}
	}
	return n
}

// failures counts the requests that were recorded as failed, by their class.
func (f *fixture) failures(t *testing.T) map[string]int {
	t.Helper()
	events, err := f.reg.ListUsageEvents(t.Context(), registry.EventFilter{Failed: true, Limit: registry.MaxLimit})
	require.NoError(t, err)
	failures := map[string]int{}
	for _, event := range events {
		failures[event.ErrorClass]++
	}
	return failures
}

// TestRevokedKey: a key that the provider does not accept is asked once, and the others serve.
func TestRevokedKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{revoked: "openai 2"})
	f.requireServed(t, 10)
	require.Equal(t, tally{answers: map[int]int{http.StatusOK: 10, http.StatusUnauthorized: 1}}, f.provider.counted())
	require.Equal(t, map[string]int{string(registry.FailureAuth): 1}, f.failures(t))
	key := f.verdicts(t)["openai 2"]
	require.Equal(t, registry.KeyDegraded, key.Reason)
	require.Equal(t, "auth: 401 invalid_api_key", key.Detail)
	require.True(t, key.Probation)
	require.Equal(t, 3, f.usable(t))
}

// TestSpentKey: a key whose quota is exhausted is out until the provider says that it is back, and is tried then.
func TestSpentKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{spent: "openai 2", spentFor: time.Minute})
	f.requireServed(t, 10)
	require.Equal(
		t, tally{answers: map[int]int{http.StatusOK: 10, http.StatusTooManyRequests: 1}}, f.provider.counted(),
	)
	require.Equal(t, map[string]int{string(registry.FailureQuotaExhausted): 1}, f.failures(t))
	key := f.verdicts(t)["openai 2"]
	require.Equal(t, registry.KeyDegraded, key.Reason)
	require.Equal(t, f.clock.Now().Add(time.Minute), key.Until)

	f.clock.Advance(time.Minute)
	f.requireServed(t, 10)
	require.Equal(
		t, tally{answers: map[int]int{http.StatusOK: 20, http.StatusTooManyRequests: 1}}, f.provider.counted(),
	)
	require.False(t, f.verdicts(t)["openai 2"].Probation)
	for _, action := range []string{registry.ActionProbe, registry.ActionRestore} {
		events, err := f.reg.ListAudit(t.Context(), registry.AuditFilter{Action: action, EntityID: key.ID.String()})
		require.NoError(t, err)
		require.Len(t, events, 1, action)
	}
}

// TestProviderFails: what is the provider's fault is tried with another key, and no key is out for it.
func TestProviderFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{broken: 3, lost: 7})
	f.requireServed(t, 12)
	// Of 19 requests, the 3rd, 6th, 9th, 12th, 15th and 18th; the 1st and the 8th.
	require.Equal(
		t, tally{answers: map[int]int{http.StatusOK: 12, http.StatusInternalServerError: 6, statusOfLost: 2}},
		f.provider.counted(),
	)
	require.Equal(
		t, map[string]int{string(registry.FailureServer): 6, string(registry.FailureTimeout): 2}, f.failures(t),
	)
	require.Equal(t, keysPerProvider, f.usable(t))
}

// TestAttempts: what a request tries is recorded as attempts of one group, which no other request has.
func TestAttempts(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{broken: 2})
	f.requireServed(t, 3)
	attempts := map[string][]bool{} // by their group: whether each succeeded
	for _, event := range slices.SortedFunc(slices.Values(f.events(t)), func(a, b *ent.UsageEvent) int {
		return cmp.Compare(a.Attempt, b.Attempt)
	}) {
		attempts[event.AttemptGroup] = append(attempts[event.AttemptGroup], event.Success)
		require.Len(t, attempts[event.AttemptGroup], event.Attempt)
		require.Nil(t, event.TtftMs, "it is no stream")
	}
	require.ElementsMatch(t, [][]bool{{true}, {false, true}, {false, true}}, slices.Collect(maps.Values(attempts)))
}

// TestProviderDown: when the provider fails with several keys, it is left alone for a while.
func TestProviderDown(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{broken: 1})
	down := f.chat(t.Context(), hello)
	require.Equal(t, http.StatusBadGateway, down.Code)
	require.Contains(t, down.Body.String(), "server: 500")
	require.Equal(t, map[string]int{string(registry.FailureServer): 3}, f.failures(t))
	cooling := f.chat(t.Context(), hello)
	require.Equal(t, http.StatusServiceUnavailable, cooling.Code)
	requireRetryAfter(t, 5, 7, cooling)
}

// TestLastKey: a request does not get the key again that the provider failed it with, and says so when there is no
// other.
func TestLastKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{broken: 1})
	ctx := t.Context()
	keys, err := f.reg.ListAPIKeys(ctx, registry.KeyFilter{ProviderID: f.routes["openai/gpt-5.4"].ProviderID})
	require.NoError(t, err)
	for _, key := range keys[1:] {
		require.NoError(t, f.reg.DegradeKey(ctx, key.ID, "by hand", time.Hour))
	}
	for requests := range 2 {
		answer := f.chat(ctx, hello)
		require.Equal(t, http.StatusBadGateway, answer.Code)
		require.Contains(t, answer.Body.String(), "server: 500")
		require.Equal(
			t, tally{answers: map[int]int{http.StatusInternalServerError: requests + 1}}, f.provider.counted(),
		)
	}
}

// TestAllLimited: a request that is rate limited with every key it may try is told when to come
// back, like one that found no key at all.
func TestAllLimited(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{limited: 1, rest: time.Minute})
	for range 2 {
		answer := f.chat(t.Context(), hello)
		require.Equal(t, http.StatusServiceUnavailable, answer.Code)
		require.Contains(t, answer.Body.String(), "no key available")
		requireRetryAfter(t, 60, 60, answer)
	}
	require.Equal(
		t, map[string]int{string(registry.FailureRateLimited): 3}, f.failures(t),
		"the second request finds the provider cooling down",
	)
}

// TestBusy: a request that finds all keys busy is told to come back soon, however long others are out.
func TestBusy(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	ctx := t.Context()
	keys, err := f.reg.ListAPIKeys(ctx, registry.KeyFilter{ProviderID: f.routes["openai/gpt-5.4"].ProviderID})
	require.NoError(t, err)
	require.NoError(t, f.reg.DegradeKey(ctx, keys[0].ID, "by hand", time.Hour))
	in := registry.AcquireInput{ProviderID: keys[0].ProviderID, TTL: time.Hour}
	for range (keysPerProvider - 1) * keyAtOnce {
		_, err := f.reg.AcquireKey(ctx, in)
		require.NoError(t, err)
	}
	answer := f.chat(ctx, hello)
	require.Equal(t, http.StatusServiceUnavailable, answer.Code)
	requireRetryAfter(t, 1, 1, answer)
}

func requireRetryAfter(t *testing.T, least, most int, answer *httptest.ResponseRecorder) {
	t.Helper()
	seconds, err := strconv.Atoi(answer.Header().Get("Retry-After"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, seconds, least)
	require.LessOrEqual(t, seconds, most)
}

// TestBadRequest: what the provider says of a bad request is the client's to know, and no other key is tried.
func TestBadRequest(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	answer := f.chat(t.Context(), `{"model": "openai/gpt-5.4", "messages": []}`)
	require.Equal(t, http.StatusBadRequest, answer.Code)
	require.JSONEq(
		t, `{"error": {"code": "invalid_request_error", "message": "messages: there are none"}}`, answer.Body.String(),
	)
	require.Empty(t, answer.Header().Get("X-Ratelimit-Limit-Requests"), "whose limits are none of the client's")
	require.Equal(t, tally{answers: map[int]int{http.StatusBadRequest: 1}}, f.provider.counted())
	require.Equal(t, map[string]int{string(registry.FailureBadRequest): 1}, f.failures(t))
	require.Equal(t, keysPerProvider, f.usable(t))
}

// TestUnreadableKey: a call that cannot be made leaves no lease behind, and no usage.
func TestUnreadableKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	_, err := f.reg.Client().ExecContext(t.Context(), "UPDATE api_keys SET sealed = $1", []byte("broken"))
	require.NoError(t, err)
	require.Equal(t, http.StatusBadGateway, f.chat(t.Context(), hello).Code)
	require.Empty(t, f.provider.counted().answers)
	require.Zero(t, f.reg.Client().KeyLease.Query().CountX(t.Context()))
	require.Zero(t, f.reg.Client().UsageEvent.Query().CountX(t.Context()))
}

// TestEarlierDemo: keys that an earlier demo has added are sealed, and get their limits, weights and account.
func TestEarlierDemo(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	ctx := t.Context()
	before := f.reg.Client().APIKey.Query().Order(apikey.ByID()).AllX(ctx)
	none, one := registry.Limits{}, 1
	for _, key := range before {
		_, err := f.reg.UpdateAPIKey(
			ctx, key.ID, registry.KeyUpdate{Limits: &none, Weight: &one, QuotaGroupID: &uuid.Nil},
		)
		require.NoError(t, err)
	}
	_, err := f.reg.Client().ExecContext(ctx, "UPDATE api_keys SET sealed = NULL, data_key_id = NULL")
	require.NoError(t, err)

	require.NoError(t, f.setUp(ctx, demoKeys()))
	after := f.reg.Client().APIKey.Query().Order(apikey.ByID()).AllX(ctx)
	require.Len(t, after, len(before))
	for i, key := range after {
		require.Equal(t, keyAtOnce, int(key.Concurrency))
		require.Equal(t, before[i].Weight, key.Weight)
		require.Equal(t, before[i].QuotaGroupID, key.QuotaGroupID)
		_, err := f.reg.RevealAPIKey(ctx, key.ID)
		require.NoError(t, err)
	}
	require.Equal(t, 1, f.reg.Client().QuotaGroup.Query().CountX(ctx))
}
