package registry_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// quotaHeader tells of 60 requests and 1000 tokens, and of how many requests remain.
func quotaHeader(remaining string) http.Header {
	return http.Header{
		"X-Ratelimit-Limit-Requests": {"60"}, "X-Ratelimit-Remaining-Requests": {remaining},
		"X-Ratelimit-Reset-Requests": {"30s"},
		"X-Ratelimit-Limit-Tokens":   {"1000"}, "X-Ratelimit-Remaining-Tokens": {"500"},
		"X-Ratelimit-Reset-Tokens": {"10s"},
	}
}

// TestObserveHeaders learns a provider's own limits.
func TestObserveHeaders(t *testing.T) { eachEngine(t, testObserveHeaders) }

func testObserveHeaders(t *testing.T, e engine) {
	t.Run("of a key", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		lease := p.acquire(t, 1)
		lease.ObserveHeaders(quotaHeader("2"))
		require.NoError(t, lease.Settle(t.Context(), used(1)))
		now := p.clock.Now()
		require.Equal(t, []registry.LimitState{
			{Name: registry.LimitObservedRequests, Limit: 60, Used: 58},
			{Name: registry.LimitObservedTokens, Limit: 1000, Used: 500},
		}, p.explain(t, 1)[0].Limits)
		require.Equal(t, now.Add(10*time.Second), p.refused(t, p.want(501)).OpensAt)
		p.acquire(t, 400)
		require.Equal(
			t, registry.KeyLimited, p.refused(t, p.want(101)).Keys[0].Reason, "what was asked for since is taken off",
		)
		p.acquire(t, 100)
		require.Equal(t, now.Add(30*time.Second), p.refused(t, p.want(1)).OpensAt)
		p.clock.Advance(30 * time.Second)
		p.acquire(t, 5000)
	})
	t.Run("of a group", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, nil)
		g, err := p.CreateQuotaGroup(t.Context(), registry.QuotaGroupInput{ProviderID: p.provider.ID, Name: "account"})
		require.NoError(t, err)
		for i := range 2 {
			key, err := p.AddAPIKey(
				t.Context(), registry.KeyInput{ProviderID: p.provider.ID, APIKey: secret(i), QuotaGroupID: g.ID},
			)
			require.NoError(t, err)
			p.keys = append(p.keys, key)
		}
		require.NoError(t, p.ObserveHeaders(t.Context(), p.keys[0].ID, quotaHeader("0")))
		for _, v := range p.refused(t, p.want(1)).Keys {
			require.Equal(t, registry.KeyLimited, v.Reason)
			require.Equal(t, "account observed_requests", v.Detail)
		}
		p.clock.Advance(30 * time.Second)
		p.fail(t, 0, retryAfter(limited, 60)) // the account is
		require.Equal(
			t, []registry.KeyReason{registry.KeyDegraded, registry.KeyLimited},
			[]registry.KeyReason{p.explain(t, 1)[0].Reason, p.explain(t, 1)[1].Reason},
		)
		p.clock.Advance(time.Minute)
		p.acquire(t, 1)
		p.fail(t, 0, exhausted) // for hours
		require.NoError(t, p.RestoreKey(t.Context(), p.keys[0].ID))
		require.Empty(t, p.explain(t, 1)[0].Reason)
		require.Empty(t, p.explain(t, 1)[1].Reason, "the account is restored, too")
	})
	t.Run("Retry-After of a quota that is not used up", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		f := retryAfter(limited, 2)
		for name, values := range quotaHeader("45") {
			f.Header[name] = values
		}
		p.fail(t, 0, f)
		require.Equal(t, p.clock.Now().Add(2*time.Second), p.refused(t, p.want(1)).OpensAt)
		p.clock.Advance(2 * time.Second)
		p.acquire(t, 1)
	})
}

// TestObserveRetryAfter learns when a provider wants to be asked again.
func TestObserveRetryAfter(t *testing.T) { eachEngine(t, testObserveRetryAfter) }

func testObserveRetryAfter(t *testing.T, e engine) {
	t.Run("Retry-After", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		require.NoError(t, p.ObserveHeaders(t.Context(), p.keys[0].ID, http.Header{"Retry-After": {"7"}}))
		require.Equal(t, p.clock.Now().Add(7*time.Second), p.refused(t, p.want(1)).OpensAt)
	})
	t.Run("updated_at", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		for _, change := range []func() error{
			func() error { return p.ObserveHeaders(t.Context(), p.keys[0].ID, quotaHeader("2")) },
			func() error { return p.acquire(t, 1).Release(t.Context()) },
			func() error { return errOf(p.acquire(t, 1).Fail(t.Context(), registry.Failure{Status: 400})) },
		} {
			p.clock.Advance(time.Second)
			require.NoError(t, change())
			require.Equal(t, p.clock.Now(), p.key(t, 0).UpdatedAt)
		}
	})
	t.Run("for a day at the most", func(t *testing.T) {
		t.Parallel()
		absurd := http.Header{"Retry-After": {"100000000000"}}
		resets := http.Header{"X-Ratelimit-Remaining-Requests": {"0"}, "X-Ratelimit-Reset-Requests": {"8000000s"}}
		for most, options := range map[time.Duration][]registry.Option{
			24 * time.Hour:       nil,
			time.Hour:            {registry.WithMaxRetryAfter(time.Hour)},
			365 * 24 * time.Hour: {registry.WithMaxRetryAfter(365 * 24 * time.Hour)},
		} {
			p := e.newPoolTest(t, make([]registry.KeyInput, 1), options...)
			observe := func(h http.Header) { require.NoError(t, p.ObserveHeaders(t.Context(), p.keys[0].ID, h)) }
			for name, said := range map[string]func(){
				"Retry-After of a failure": func() { p.fail(t, 0, registry.Failure{Status: 429, Header: absurd}) },
				"resets of a failure":      func() { p.fail(t, 0, registry.Failure{Status: 500, Header: resets}) },
				"Retry-After":              func() { observe(absurd) },
				"resets":                   func() { observe(resets) },
			} {
				said()
				rest := p.refused(t, p.want(1)).OpensAt.Sub(p.clock.Now())
				if name == "resets" || name == "resets of a failure" {
					require.Equal(t, min(most, 8_000_000*time.Second), rest, name)
				} else {
					require.Equal(t, most, rest, name)
				}
				require.NoError(t, p.RestoreKey(t.Context(), p.keys[0].ID))
			}
		}
		for _, wrong := range []time.Duration{0, -1, time.Second - 1, 366 * 24 * time.Hour} {
			_, err := registry.Open(t.Context(), ":memory:", registry.WithMaxRetryAfter(wrong))
			require.ErrorIs(t, err, registry.ErrInvalidData, wrong)
		}
		require.Equal(
			t, registrytest.Start.Add(24*time.Hour),
			registry.Classify(registry.Failure{Status: 429, Header: absurd}, registrytest.Start).Until,
		)
	})
	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		p := e.newPoolTest(t, make([]registry.KeyInput, 1))
		before := dump(t, p.Registry)
		for _, h := range []http.Header{
			nil, {}, {"Retry-After": {"soon"}}, {"X-Ratelimit-Remaining-Requests": {"-5"}},
			{"X-Ratelimit-Remaining-Requests": {"0"}, "X-Ratelimit-Reset-Requests": {"x"}},
		} {
			require.NoError(t, p.ObserveHeaders(t.Context(), p.keys[0].ID, h))
			p.acquire(t, 1)
		}
		require.NotEqual(t, before, dump(t, p.Registry))
		require.NoError(t, p.ObserveHeaders(t.Context(), uuid.New(), nil))
		require.ErrorIs(t, p.ObserveHeaders(t.Context(), uuid.New(), quotaHeader("1")), registry.ErrNotFound)
	})
}
