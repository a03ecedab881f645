package upstream_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

// canary is a key that a provider repeats.
const canary = "sk-proj-canary0123456789"

// requireAhead requires that a time is zero, or in the year from now on.
func requireAhead(t *testing.T, at time.Time) {
	t.Helper()
	require.True(t, at.IsZero() || !at.Before(now) && !at.After(now.Add(year)), at)
}

// FuzzDiagnose gives any answer, and then the same with a key in its message and its headers.
func FuzzDiagnose(f *testing.F) {
	f.Add(
		429, []byte(`{"error":{"code":"rate_limit_exceeded","message":"try again in 7m12s"}}`), "Retry-After", "20", "",
	)
	f.Add(
		429, []byte(`[{"error":{"code":429,"details":[{"retryDelay":"34s"},{"violations":[{"quotaId":"PerDay"}]}]}}]`),
		"X-Amzn-Errortype", "ThrottlingException:x", "a",
	)
	f.Add(
		400, []byte(`{"error":{"message":"You will regain access on 2026-10-01 at 00:00 UTC."}}`), "X-Ratelimit-Reset",
		"1790000000000", "b",
	)
	f.Add(
		200, []byte(`{"error":{"code":429,"metadata":{"headers":{"X-RateLimit-Reset":1e300}}}}`), "Retry-After-Ms",
		"1e400", "",
	)
	f.Fuzz(func(t *testing.T, status int, body []byte, name, value, problem string) {
		h := http.Header{name: {value}}
		h.Set(name, value)
		answer := upstream.Answer{Status: status, Header: h, Body: body}
		if problem != "" {
			answer.Err = errors.New(problem + canary)
		}
		checkDiagnosis(t, answer)

		// The key in the message, and in each of the headers that are read.
		var object map[string]any
		if json.Unmarshal(body, &object) != nil || object == nil {
			object = map[string]any{"type": string(body)}
		}
		inner, ok := object["error"].(map[string]any)
		if !ok {
			inner = make(map[string]any)
		}
		inner["message"], object["message"], object["error"] = value+canary, canary+value, inner
		answer.Body, _ = json.Marshal(object)
		h.Add(name, canary)
		h.Set("X-Amzn-Errortype", value+canary)
		h.Set("Retry-After", canary)
		checkDiagnosis(t, answer)
	})
}

func checkDiagnosis(t *testing.T, answer upstream.Answer) {
	t.Helper()
	got := upstream.Diagnose(answer, now)
	require.Contains(t, []upstream.Class{
		upstream.RateLimited, upstream.QuotaExhausted, upstream.Auth, upstream.Server, upstream.Timeout,
		upstream.BadRequest,
	}, got.Class)
	requireAhead(t, got.Until)
	require.LessOrEqual(t, len(got.Reason), 80)
	require.False(t, strings.ContainsFunc(got.Reason, func(r rune) bool { return r < ' ' || r > '~' }), got.Reason)
	require.NotEmpty(t, got.Reason)
	require.NotContains(t, got.Reason, canary)
	require.Equal(t, got, upstream.Diagnose(answer, now))
}

// FuzzQuotas gives any values to the headers of two limits, and any other header.
func FuzzQuotas(f *testing.F) {
	f.Add("60", "59", "6m0s", "X-Ratelimit-Reset-Tokens", "1d2h")
	f.Add("100, 100;w=60", "-1", "1790000000", "Anthropic-Ratelimit-Tokens-Reset", "2026-09-21T12:00:01Z")
	f.Add("1e400", "NaN", "33011.382867", "Anthropic-Ratelimit-", "Infd")
	f.Fuzz(func(t *testing.T, limit, remaining, reset, name, value string) {
		h := headers("X-Ratelimit-Limit-Requests", limit, "X-Ratelimit-Remaining-Requests", remaining,
			"X-Ratelimit-Reset-Requests", reset,
			"Anthropic-Ratelimit-Tokens-Limit", limit, "Anthropic-Ratelimit-Tokens-Remaining", remaining,
			"Anthropic-Ratelimit-Tokens-Reset", reset)
		h[name] = []string{value}
		got := upstream.Quotas(h, now)

		var meters []upstream.Meter
		for _, q := range got {
			require.False(t, slices.Contains(meters, q.Meter))
			meters = append(meters, q.Meter)
			require.GreaterOrEqual(t, q.Limit, int64(-1))
			require.GreaterOrEqual(t, q.Remaining, int64(-1))
			requireAhead(t, q.Reset)
		}
		require.Subset(t, []upstream.Meter{upstream.Requests, upstream.Tokens}, meters)

		at, ok := upstream.RetryAfter(http.Header{"Retry-After": {value}, "Retry-After-Ms": {reset}}, now)
		require.Equal(t, ok, !at.IsZero())
		requireAhead(t, at)
	})
}
