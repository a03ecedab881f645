package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

var now = time.Date(2026, 9, 21, 12, 0, 0, 0, time.UTC)

// headers makes a header of names and values in turn.
func headers(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// never is the time of an answer that does not say one.
const never = -1 * time.Second

type diagnoseTest struct {
	name   string
	status int
	header http.Header
	body   string
	class  upstream.Class
	in     time.Duration
	reason string
}

func runDiagnose(t *testing.T, tests []diagnoseTest) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := upstream.Diagnose(
				upstream.Answer{Status: test.status, Header: test.header, Body: []byte(test.body)}, now,
			)
			require.Equal(t, test.class, got.Class)
			require.Equal(t, test.reason, got.Reason)
			if test.in == never {
				require.Zero(t, got.Until)
			} else {
				require.Equal(t, now.Add(test.in), got.Until)
			}
		})
	}
}

func TestDiagnoseStatus(t *testing.T) {
	t.Parallel()
	for status, class := range map[int]upstream.Class{
		-1: upstream.Server, 0: upstream.Server, 100: upstream.Server, 200: upstream.Server, 302: upstream.Server,
		400: upstream.BadRequest, 401: upstream.Auth, 402: upstream.QuotaExhausted, 403: upstream.Auth,
		404: upstream.BadRequest, 408: upstream.Timeout, 409: upstream.BadRequest, 413: upstream.BadRequest,
		422: upstream.BadRequest, 429: upstream.RateLimited, 451: upstream.BadRequest, 499: upstream.BadRequest,
		500: upstream.Server, 502: upstream.Server, 503: upstream.Server, 504: upstream.Timeout, 529: upstream.Server,
		600: upstream.Server, 99999: upstream.Server,
	} {
		got := upstream.Diagnose(upstream.Answer{Status: status}, now)
		reason := fmt.Sprint(status)
		if status == 0 {
			reason = "no status"
		}
		require.Equal(t, upstream.Diagnosis{Class: class, Reason: reason}, got, status)
	}
}

func TestDiagnoseLastingLimits(t *testing.T) {
	t.Parallel()
	limited := `{"error":{"code":"rate_limit_exceeded"}}`
	runDiagnose(t, []diagnoseTest{
		{
			"an hour", 429, headers("Retry-After", "3600"), limited, upstream.RateLimited, time.Hour,
			"429 rate_limit_exceeded",
		},
		{
			"more, Retry-After", 429, headers("Retry-After", "3601"), limited, upstream.QuotaExhausted,
			3601 * time.Second, "429 rate_limit_exceeded",
		},
		{
			"more, reset", 429, headers(
				"X-Ratelimit-Remaining-Requests-Day", "0", "X-Ratelimit-Reset-Requests-Day", "33011.5",
			), limited,
			upstream.QuotaExhausted, 33011500 * time.Millisecond, "429 rate_limit_exceeded",
		},
		{
			"the last of two resets", 429,
			headers(
				"Ratelimit-Remaining", "0", "Ratelimit-Reset", "10", "X-Ratelimit-Remaining-Tokens", "0",
				"X-Ratelimit-Reset-Tokens", "30s",
			), limited,
			upstream.RateLimited, 30 * time.Second, "429 rate_limit_exceeded",
		},
		{
			"Retry-After before a reset", 429, headers(
				"Retry-After", "3", "X-Ratelimit-Remaining", "0", "X-Ratelimit-Reset", "7200",
			), limited,
			upstream.RateLimited, 3 * time.Second, "429 rate_limit_exceeded",
		},
		{
			"a reset of what is not used up", 429, headers(
				"X-Ratelimit-Remaining", "1", "X-Ratelimit-Reset", "7200",
			), limited,
			upstream.RateLimited, never, "429 rate_limit_exceeded",
		},
		{"other statuses", 503, headers("Retry-After", "7200"), "", upstream.Server, 2 * time.Hour, "503"},
	})
}

func TestDiagnoseOddBodies(t *testing.T) {
	t.Parallel()
	filler := strings.Repeat(" ", 64<<10)
	runDiagnose(t, []diagnoseTest{
		{"text", 403, nil, "Key limit exceeded", upstream.QuotaExhausted, never, "403"},
		{"HTML", 502, nil, "<html>Bad Gateway</html>", upstream.Server, never, "502"},
		{
			"broken off", 429, nil, `{"error":{"code":"rate_limit_exceeded","message":"on all avail`,
			upstream.RateLimited, never, "429",
		},
		{
			"more after it", 429, nil, `{"error":{"code":"insufficient_quota"}} trailing`, upstream.QuotaExhausted,
			never, "429 insufficient_quota",
		},
		{
			"beyond the limit", 429, nil, filler + `{"error":{"code":"insufficient_quota"}}`, upstream.RateLimited,
			never, "429",
		},
		{
			"other types", 429, nil,
			`{"error":{"code":{"a":1},"type":[],"status":7,"details":{"reason":1},"metadata":[]},"detail":4}`,
			upstream.RateLimited, never, "429",
		},
		{
			"other types in details", 429, nil,
			`{"error":{"details":[1,{"violations":[2,{"quotaId":3}],"retryDelay":4}],"metadata":{"headers":[]}}}`,
			upstream.RateLimited, never, "429",
		},
		{"empty array", 429, nil, `[]`, upstream.RateLimited, never, "429"},
		{"null", 429, nil, `null`, upstream.RateLimited, never, "429"},
		{"deep", 429, nil, strings.Repeat("[", 64<<10), upstream.RateLimited, never, "429"},
		{"code out of range", 200, nil, `{"error":{"code":1e300}}`, upstream.Server, never, "200"},
		{
			"FastAPI", 401, nil, `{"detail":{"status":"needs_authorization","message":"no"}}`, upstream.Auth, never,
			"401 needs_authorization",
		},
		{"no error in the error", 429, nil, `{"type":"error","message":"no"}`, upstream.RateLimited, never, "429"},
		{
			"negative delay", 429, nil, `{"error":{"details":[{"retryDelay":"-3s"}]}}`, upstream.RateLimited, never,
			"429",
		},
	})
}

func TestReasonHasNoSecret(t *testing.T) {
	t.Parallel()
	for _, code := range []string{
		"sk-proj-AbCdEf", "sk_live_abc", "gsk_abcdef", "xai-abcdef", "AIzaSyAbcdef", "hf_abcdef", "csk-abc", "pplx-abc",
		"nvapi-abc",
		"AKIAABCDEFGHIJKL", "invalid_key_sk-abc", "0123456789abcdef0123456789abcdef", "qN7h6rEWlmjs5iL67Y4r", "12345",
		"1300", "12", "---", "",
		strings.Repeat("a", 41), "two words", "bad\ncode", "sk***gA", "clé", "a{b}",
	} {
		for _, key := range []string{"code", "type", "status", "__type"} {
			body := fmt.Appendf(nil, `{"error":{%q:%q}}`, key, code)
			require.Equal(t, "401", upstream.Diagnose(upstream.Answer{Status: 401, Body: body}, now).Reason, code)
		}
		answer := upstream.Answer{Status: 401, Header: http.Header{"X-Amzn-Errortype": {code}}}
		require.Equal(t, "401", upstream.Diagnose(answer, now).Reason, code)
	}
}

type timeoutError struct{ error }

func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

func TestDiagnoseError(t *testing.T) {
	t.Parallel()
	wrap := func(err error) error {
		return &url.Error{Op: "Post", URL: "https://example.com/?key=AIzaSecret", Err: err}
	}
	var none *url.Error
	for _, test := range []struct {
		name   string
		err    error
		class  upstream.Class
		reason string
	}{
		{"deadline of a context", wrap(context.DeadlineExceeded), upstream.Timeout, "timeout"},
		{"deadline of a connection", wrap(os.ErrDeadlineExceeded), upstream.Timeout, "timeout"},
		{"time-out of the network", wrap(timeoutError{errors.New("slow")}), upstream.Timeout, "timeout"},
		{"time-out of the name look-up", wrap(&net.DNSError{IsTimeout: true}), upstream.Timeout, "timeout"},
		{"caller went away", wrap(context.Canceled), upstream.BadRequest, "canceled"},
		{
			"refused", wrap(&net.OpError{Op: "dial", Err: errors.New("connection refused")}), upstream.Server,
			"connection failed",
		},
		{"nil in an interface", none, upstream.Server, "connection failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			want := upstream.Diagnosis{Class: test.class, Reason: test.reason}
			require.Equal(t, want, upstream.Diagnose(upstream.Answer{Err: test.err}, now))
			// The body broke off after the header of a success.
			require.Equal(t, want, upstream.Diagnose(upstream.Answer{Status: 200, Err: test.err}, now))
			// A failure says more than the error that cut its body short.
			got := upstream.Diagnose(upstream.Answer{Status: 401, Err: test.err}, now)
			require.Equal(t, upstream.Diagnosis{Class: upstream.Auth, Reason: "401"}, got)
		})
	}
}
