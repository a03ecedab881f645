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
			name: "an hour", status: 429, header: headers("Retry-After", "3600"), body: limited,
			class: upstream.RateLimited, in: time.Hour, reason: "429 rate_limit_exceeded",
		},
		{
			name: "more, Retry-After", status: 429, header: headers("Retry-After", "3601"), body: limited,
			class: upstream.QuotaExhausted, in: 3601 * time.Second, reason: "429 rate_limit_exceeded",
		},
		{
			name: "more, reset", status: 429,
			header: headers("X-Ratelimit-Remaining-Requests-Day", "0", "X-Ratelimit-Reset-Requests-Day", "33011.5"),
			body:   limited, class: upstream.QuotaExhausted, in: 33011500 * time.Millisecond,
			reason: "429 rate_limit_exceeded",
		},
		{
			name: "the last of two resets", status: 429,
			header: headers(
				"Ratelimit-Remaining", "0", "Ratelimit-Reset", "10", "X-Ratelimit-Remaining-Tokens", "0",
				"X-Ratelimit-Reset-Tokens", "30s",
			),
			body: limited, class: upstream.RateLimited, in: 30 * time.Second, reason: "429 rate_limit_exceeded",
		},
		{
			name: "Retry-After before a reset", status: 429,
			header: headers("Retry-After", "3", "X-Ratelimit-Remaining", "0", "X-Ratelimit-Reset", "7200"),
			body:   limited, class: upstream.RateLimited, in: 3 * time.Second, reason: "429 rate_limit_exceeded",
		},
		{
			name: "a reset of what is not used up", status: 429,
			header: headers("X-Ratelimit-Remaining", "1", "X-Ratelimit-Reset", "7200"), body: limited,
			class: upstream.RateLimited, in: never, reason: "429 rate_limit_exceeded",
		},
		{
			name: "other statuses", status: 503, header: headers("Retry-After", "7200"), class: upstream.Server,
			in: 2 * time.Hour, reason: "503",
		},
	})
}

func TestDiagnoseOddBodies(t *testing.T) {
	t.Parallel()
	filler := strings.Repeat(" ", 64<<10)
	runDiagnose(t, []diagnoseTest{
		{
			name: "text", status: 403, body: "Key limit exceeded", class: upstream.QuotaExhausted, in: never,
			reason: "403",
		},
		{name: "HTML", status: 502, body: "<html>Bad Gateway</html>", class: upstream.Server, in: never, reason: "502"},
		{
			name: "broken off", status: 429, body: `{"error":{"code":"rate_limit_exceeded","message":"on all avail`,
			class: upstream.RateLimited, in: never, reason: "429",
		},
		{
			name: "more after it", status: 429, body: `{"error":{"code":"insufficient_quota"}} trailing`,
			class: upstream.QuotaExhausted, in: never, reason: "429 insufficient_quota",
		},
		{
			name: "beyond the limit", status: 429, body: filler + `{"error":{"code":"insufficient_quota"}}`,
			class: upstream.RateLimited, in: never, reason: "429",
		},
		{
			name: "other types", status: 429,
			body:  `{"error":{"code":{"a":1},"type":[],"status":7,"details":{"reason":1},"metadata":[]},"detail":4}`,
			class: upstream.RateLimited, in: never, reason: "429",
		},
		{
			name: "other types in details", status: 429,
			body: `{"error":{"details":[1,{"violations":[2,{"quotaId":3}],"retryDelay":4}],"metadata":{` +
				`"headers":[]}}}`,
			class: upstream.RateLimited, in: never, reason: "429",
		},
		{name: "empty array", status: 429, body: `[]`, class: upstream.RateLimited, in: never, reason: "429"},
		{name: "null", status: 429, body: `null`, class: upstream.RateLimited, in: never, reason: "429"},
		{
			name: "deep", status: 429, body: strings.Repeat("[", 64<<10), class: upstream.RateLimited, in: never,
			reason: "429",
		},
		{
			name: "code out of range", status: 200, body: `{"error":{"code":1e300}}`, class: upstream.Server, in: never,
			reason: "200",
		},
		{
			name: "FastAPI", status: 401, body: `{"detail":{"status":"needs_authorization","message":"no"}}`,
			class: upstream.Auth, in: never, reason: "401 needs_authorization",
		},
		{
			name: "no error in the error", status: 429, body: `{"type":"error","message":"no"}`,
			class: upstream.RateLimited, in: never, reason: "429",
		},
		{
			name: "negative delay", status: 429, body: `{"error":{"details":[{"retryDelay":"-3s"}]}}`,
			class: upstream.RateLimited, in: never, reason: "429",
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
		{
			name: "deadline of a context", err: wrap(context.DeadlineExceeded), class: upstream.Timeout,
			reason: "timeout",
		},
		{
			name: "deadline of a connection", err: wrap(os.ErrDeadlineExceeded), class: upstream.Timeout,
			reason: "timeout",
		},
		{
			name: "time-out of the network", err: wrap(timeoutError{errors.New("slow")}), class: upstream.Timeout,
			reason: "timeout",
		},
		{
			name: "time-out of the name look-up", err: wrap(&net.DNSError{IsTimeout: true}), class: upstream.Timeout,
			reason: "timeout",
		},
		{name: "caller went away", err: wrap(context.Canceled), class: upstream.BadRequest, reason: "canceled"},
		{
			name: "refused", err: wrap(&net.OpError{Op: "dial", Err: errors.New("connection refused")}),
			class: upstream.Server, reason: "connection failed",
		},
		{name: "nil in an interface", err: none, class: upstream.Server, reason: "connection failed"},
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
