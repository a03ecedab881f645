package upstream_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

const year = 365 * 24 * time.Hour

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		header http.Header
		in     time.Duration
	}{
		{"nothing", nil, never},
		{"empty", headers("Retry-After", ""), never},
		{"seconds", headers("Retry-After", "120"), 2 * time.Minute},
		{"spaces", headers("Retry-After", " 7 "), 7 * time.Second},
		{"zero", headers("Retry-After", "0"), 0},
		{"fraction", headers("Retry-After", "0.25"), 250 * time.Millisecond},
		{"date", headers("Retry-After", "Mon, 21 Sep 2026 12:00:30 GMT"), 30 * time.Second},
		{"date in the past", headers("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"), 0},
		{"date far ahead", headers("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"), year},
		{"negative", headers("Retry-After", "-5"), never},
		{"not a number", headers("Retry-After", "NaN"), never},
		{"words", headers("Retry-After", "soon"), never},
		{"absurd", headers("Retry-After", "99999999999"), year},
		{"too large for a float", headers("Retry-After", "1e999"), year},
		{"milliseconds", headers("Retry-After-Ms", "1500"), 1500 * time.Millisecond},
		{"milliseconds win", headers("Retry-After", "2", "Retry-After-Ms", "1234.5"), 1234500 * time.Microsecond},
		{"bad milliseconds do not", headers("Retry-After", "2", "Retry-After-Ms", "-1"), 2 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, ok := upstream.RetryAfter(test.header, now)
			require.Equal(t, test.in != never, ok)
			if ok {
				require.Equal(t, now.Add(test.in), got)
			} else {
				require.Zero(t, got)
			}
		})
	}
}

func quota(meter upstream.Meter, limit, remaining int64, in time.Duration) upstream.Quota {
	q := upstream.Quota{Meter: meter, Limit: limit, Remaining: remaining}
	if in != never {
		q.Reset = now.Add(in)
	}
	return q
}

// quotaTests are the headers of providers, and the quotas that they tell of.
var quotaTests = []struct {
	name   string
	header http.Header
	want   []upstream.Quota
}{
	{name: "nothing"},
	{
		name: "no limits",
		header: headers(
			"Date", "Mon, 21 Sep 2026 12:00:00 GMT", "Ratelimit-Policy", "100;w=60", "X-Ratelimit-Reset-After", "3",
		),
	},
	{
		name: "OpenAI",
		header: headers("x-ratelimit-limit-requests", "60", "x-ratelimit-remaining-requests", "59",
			"x-ratelimit-reset-requests", "1s",
			"x-ratelimit-limit-tokens", "150000", "x-ratelimit-remaining-tokens", "149984",
			"x-ratelimit-reset-tokens", "6m0s"),
		want: []upstream.Quota{
			quota(upstream.Requests, 60, 59, time.Second), quota(upstream.Tokens, 150000, 149984, 6*time.Minute),
		},
	},
	{
		name: "Azure, unknown",
		header: headers(
			"x-ratelimit-limit-tokens", "-1", "x-ratelimit-remaining-tokens", "-1", "x-ratelimit-reset-tokens", "0",
		),
	},
	{
		name:   "Azure, without the limits",
		header: headers("x-ratelimit-remaining-requests", "9", "x-ratelimit-remaining-tokens", "900"),
		want:   []upstream.Quota{quota(upstream.Requests, -1, 9, never), quota(upstream.Tokens, -1, 900, never)},
	},
	{
		name: "Cerebras",
		header: headers("x-ratelimit-limit-requests-day", "14400", "x-ratelimit-remaining-requests-day", "14399",
			"x-ratelimit-reset-requests-day", "33011.5",
			"x-ratelimit-limit-tokens-minute", "60000", "x-ratelimit-remaining-tokens-minute", "0",
			"x-ratelimit-reset-tokens-minute", "11.25"),
		want: []upstream.Quota{
			quota(upstream.Requests, 14400, 14399, 33011500*time.Millisecond),
			quota(upstream.Tokens, 60000, 0, 11250*time.Millisecond),
		},
	},
	{
		name: "Mistral",
		header: headers(
			"x-ratelimit-limit-req-minute", "720", "x-ratelimit-remaining-req-minute", "717",
			"x-ratelimit-tokens-query-cost", "52",
		),
		want: []upstream.Quota{quota(upstream.Requests, 720, 717, never)},
	},
	{
		name: "Fireworks",
		header: headers("x-ratelimit-limit-tokens-prompt", "100", "x-ratelimit-remaining-tokens-prompt", "90",
			"x-ratelimit-limit-tokens-generated", "50", "x-ratelimit-remaining-tokens-generated", "10"),
		want: []upstream.Quota{quota(upstream.Tokens, 50, 10, never)},
	},
	{
		name: "Anthropic",
		header: headers("anthropic-ratelimit-requests-limit", "50", "anthropic-ratelimit-requests-remaining", "49",
			"anthropic-ratelimit-requests-reset", "2026-09-21T12:00:01Z",
			"anthropic-ratelimit-tokens-limit", "100", "anthropic-ratelimit-tokens-remaining", "50",
			"anthropic-ratelimit-tokens-reset", "2026-09-21T12:00:02Z",
			"anthropic-ratelimit-input-tokens-limit", "80", "anthropic-ratelimit-input-tokens-remaining", "79",
			"anthropic-ratelimit-input-tokens-reset", "2026-09-21T12:00:03Z",
			"anthropic-ratelimit-output-tokens-limit", "20", "anthropic-ratelimit-output-tokens-remaining", "2",
			"anthropic-ratelimit-output-tokens-reset", "2026-09-21T14:00:04+02:00",
			"anthropic-ratelimit-unified-reset", "1790000000", "anthropic-ratelimit-limit", "1"),
		want: []upstream.Quota{
			quota(upstream.Requests, 50, 49, time.Second), quota(upstream.Tokens, 20, 2, 4*time.Second),
		},
	},
	{
		name:   "generic",
		header: headers("X-RateLimit-Limit", "50", "X-RateLimit-Remaining", "10", "X-RateLimit-Reset", "30"),
		want:   []upstream.Quota{quota(upstream.Requests, 50, 10, 30*time.Second)},
	},
	{
		name:   "IETF",
		header: headers("RateLimit-Limit", "100, 100;w=60", "RateLimit-Remaining", "98", "RateLimit-Reset", "3"),
		want:   []upstream.Quota{quota(upstream.Requests, 100, 98, 3*time.Second)},
	},
	{
		name: "used up is scarcest, the longest first",
		header: headers("x-ratelimit-limit-requests-day", "100", "x-ratelimit-remaining-requests-day", "0",
			"x-ratelimit-reset-requests-day", "7200",
			"x-ratelimit-limit-requests-minute", "10", "x-ratelimit-remaining-requests-minute", "0",
			"x-ratelimit-reset-requests-minute", "20",
			"x-ratelimit-limit-requests", "1000", "x-ratelimit-remaining-requests", "1", "ratelimit-remaining", "1",
			"x-ratelimit-limit", "1"),
		want: []upstream.Quota{quota(upstream.Requests, 100, 0, 2*time.Hour)},
	},
	{
		name: "the same share, the smaller first",
		header: headers(
			"x-ratelimit-limit-requests", "60", "x-ratelimit-remaining-requests", "60", "ratelimit-limit", "30",
			"ratelimit-remaining", "30",
		),
		want: []upstream.Quota{quota(upstream.Requests, 30, 30, never)},
	},
	{
		name: "used up alike, the smaller first",
		header: headers(
			"x-ratelimit-limit-requests", "60", "x-ratelimit-remaining-requests", "0", "ratelimit-limit", "30",
			"ratelimit-remaining", "0",
		),
		want: []upstream.Quota{quota(upstream.Requests, 30, 0, never)},
	},
	{
		name: "two families side by side",
		header: headers(
			"X-RateLimit-Limit", "50", "X-RateLimit-Remaining", "10", "RateLimit-Limit", "100",
			"RateLimit-Remaining", "98",
		),
		want: []upstream.Quota{quota(upstream.Requests, 50, 10, never)},
	},
	{
		name:   "a known share before a bare number",
		header: headers("X-RateLimit-Limit", "50", "X-RateLimit-Remaining", "10", "RateLimit-Remaining", "5"),
		want:   []upstream.Quota{quota(upstream.Requests, 50, 10, never)},
	},
	{
		name: "a limit beyond all numbers", header: headers("X-RateLimit-Limit", "1e19", "X-RateLimit-Remaining", "5"),
		want: []upstream.Quota{quota(upstream.Requests, -1, 5, never)},
	},
	{
		name:   "nonsense",
		header: headers("x-ratelimit-limit", "many", "x-ratelimit-remaining", "1e400", "x-ratelimit-reset", "30"),
	},
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	for _, test := range quotaTests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, upstream.Quotas(test.header, now))
		})
	}
}

func TestQuotaReset(t *testing.T) {
	t.Parallel()
	for value, in := range map[string]time.Duration{
		"":                              never,
		"soon":                          never,
		"-1":                            never,
		"-5s":                           never,
		"NaN":                           never,
		"d":                             never,
		"1d2x":                          never,
		"1e15":                          never,
		"0":                             0,
		"60":                            time.Minute,
		" 1.5 ":                         1500 * time.Millisecond,
		"40000000":                      year,
		"20ms":                          20 * time.Millisecond,
		"1s":                            time.Second,
		"6m0s":                          6 * time.Minute,
		"2m59.56s":                      2*time.Minute + 59560*time.Millisecond,
		"1d":                            24 * time.Hour,
		"1d2h":                          26 * time.Hour,
		"1d2h3m4.5s":                    26*time.Hour + 3*time.Minute + 4500*time.Millisecond,
		"4000d":                         year,
		fmt.Sprint(now.Unix() + 90):     90 * time.Second,
		fmt.Sprint(now.Unix() - 90):     0,
		fmt.Sprint(now.UnixMilli() + 9): 9 * time.Millisecond,
		"99999999999999":                year,
		"2026-09-21T12:01:00Z":          time.Minute,
		"2020-01-01T00:00:00Z":          0,
		"9999-01-01T00:00:00Z":          year,
		"Mon, 21 Sep 2026 12:00:30 GMT": 30 * time.Second,
	} {
		got := upstream.Quotas(headers("X-Ratelimit-Remaining", "1", "X-Ratelimit-Reset", value), now)
		require.Equal(t, []upstream.Quota{quota(upstream.Requests, -1, 1, in)}, got, value)
	}
}
