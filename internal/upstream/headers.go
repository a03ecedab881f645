package upstream

import (
	"cmp"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// year is how far ahead a provider's time may be. Later times are cut to it.
const year = 365 * 24 * time.Hour

// RetryAfter reads when to come back. It skips values that make no sense. A past time is now, and a time more than a
// year ahead is a year ahead.
func RetryAfter(h http.Header, now time.Time) (time.Time, bool) {
	// Azure and OpenAI send it along with Retry-After, which it makes more exact.
	if ms, ok := number(h.Get("Retry-After-Ms")); ok {
		return after(now, ms/1000), true
	}
	// RFC 9110, 10.2.3: whole seconds or a date. Some send fractions.
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, ok := number(value); ok {
		return after(now, seconds), true
	}
	if t, err := http.ParseTime(value); err == nil {
		return within(t, now), true
	}
	return time.Time{}, false
}

// Quotas reads the limits in headers, at most one for each meter: the scarcest, with the lowest share remaining.
// Requests come before Tokens.
func Quotas(h http.Header, now time.Time) []Quota {
	limits := make(map[string]*Quota)
	for name, values := range h {
		meter, limit, field := limitHeader(strings.ToLower(name))
		if meter == "" || len(values) == 0 {
			continue
		}
		q := limits[limit]
		if q == nil {
			q = &Quota{Meter: meter, Limit: -1, Remaining: -1}
			limits[limit] = q
		}
		switch field {
		case "limit":
			q.Limit = count(values[0])
		case "remaining":
			q.Remaining = count(values[0])
		case "reset":
			q.Reset = resetAt(values[0], now)
		}
	}
	var quotas []Quota
	for _, meter := range []Meter{Requests, Tokens} {
		var all []*Quota
		for _, q := range limits {
			// Limits with only a reset do not count: Azure sends -1 for what it does not know.
			if q.Meter == meter && (q.Limit >= 0 || q.Remaining >= 0) {
				all = append(all, q)
			}
		}
		if len(all) > 0 {
			quotas = append(quotas, *slices.MinFunc(all, scarcity))
		}
	}
	return quotas
}

// limitHeader parses the name of a header: what it counts, which limit it is about, and whether it has "limit",
// "remaining" or "reset". The meter is "" for all other headers.
//
//   - OpenAI, Azure, Groq, xAI: x-ratelimit-remaining-requests, -tokens.
//   - Cerebras: x-ratelimit-remaining-requests-day, -tokens-minute; Mistral: -req-minute;
//     Fireworks: -tokens-prompt, -tokens-generated.
//   - OpenRouter and others: x-ratelimit-remaining; IETF draft-ietf-httpapi-ratelimit-headers-06:
//     ratelimit-remaining.
//   - Anthropic: anthropic-ratelimit-input-tokens-remaining.
func limitHeader(name string) (meter Meter, limit, field string) {
	var subject string
	if rest, ok := strings.CutPrefix(name, "anthropic-ratelimit-"); ok {
		i := max(strings.LastIndex(rest, "-"), 0)
		subject, field = rest[:i], strings.TrimPrefix(rest[i:], "-")
		limit = "anthropic " + subject
	} else if rest, ok := strings.CutPrefix(name, "x-ratelimit-"); ok {
		field, subject, _ = strings.Cut(rest, "-")
		limit = "x " + subject
	} else if rest, ok := strings.CutPrefix(name, "ratelimit-"); ok {
		field, subject, _ = strings.Cut(rest, "-")
		limit = subject
	}
	if field != "limit" && field != "remaining" && field != "reset" {
		return "", "", ""
	}
	return meterOf(subject), limit, field
}

// meterOf returns what a limit of this name counts, or "". The words after the first narrow it down to a span of time
// or a kind of token.
func meterOf(subject string) Meter {
	if subject == "input-tokens" || subject == "output-tokens" {
		return Tokens
	}
	word, _, _ := strings.Cut(strings.ReplaceAll(subject, "_", "-"), "-")
	switch word {
	case "", "requests", "req":
		return Requests
	case "tokens":
		return Tokens
	}
	return ""
}

// scarcity orders limits by the share that remains. Among limits that are used up, the one with the latest reset is the
// scarcest.
func scarcity(a, b *Quota) int {
	return cmp.Or(cmp.Compare(share(a), share(b)), cmp.Compare(a.Remaining, b.Remaining), b.Reset.Compare(a.Reset),
		cmp.Compare(a.Limit, b.Limit))
}

// share returns how much of a limit remains. Limits without that number come last.
func share(q *Quota) float64 {
	switch {
	case q.Remaining == 0:
		return 0
	case q.Remaining < 0:
		return math.Inf(1)
	case q.Limit <= 0:
		return math.MaxFloat64
	}
	return float64(q.Remaining) / float64(q.Limit)
}

// count reads a limit, or its remainder. It returns -1 for no number. In the IETF draft, policies follow the number:
// "100, 100;w=60".
func count(value string) int64 {
	if i := strings.IndexAny(value, ",;"); i >= 0 {
		value = value[:i]
	}
	n, ok := number(value)
	if !ok || n >= 1<<53 {
		return -1
	}
	return int64(n)
}

// resetAt reads when a limit is whole again; zero where it says nothing. Providers tell it as
// seconds from now (IETF, Cerebras), as a Unix time in seconds or in milliseconds (OpenRouter), as a
// duration (OpenAI: rate limits guide, "6m0s") or as a date (Anthropic: rate limits, RFC 3339).
func resetAt(value string, now time.Time) time.Time {
	value = strings.TrimSpace(value)
	if n, ok := number(value); ok {
		// As seconds from now these would be 30 years or more; as a Unix time, the first ends in
		// 5138 and the second begins in 1973.
		switch {
		case n < 1e9:
			return after(now, n)
		case n < 1e11:
			return within(time.UnixMilli(int64(n*1000)), now)
		case n < 1e14:
			return within(time.UnixMilli(int64(n)), now)
		}
		return time.Time{}
	}
	if seconds, ok := duration(value); ok {
		return after(now, seconds)
	}
	if t, err := time.Parse(time.RFC3339, value); err == nil {
		return within(t, now)
	}
	if t, err := http.ParseTime(value); err == nil {
		return within(t, now)
	}
	return time.Time{}
}

// duration reads a duration as Go writes it, or with days before the rest: "1d2h3m4.5s". The result
// is in seconds.
func duration(value string) (float64, bool) {
	days, rest, ok := strings.Cut(value, "d")
	if !ok {
		days, rest = "0", value
	}
	n, ok := number(days)
	if !ok {
		return 0, false
	}
	if rest == "" && value != "" {
		return n * 24 * 60 * 60, true
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return 0, false
	}
	return n*24*60*60 + d.Seconds(), true
}

// number reads a number that is not negative. A number that is too large is infinite.
func number(value string) (float64, bool) {
	n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, false
	}
	return n, n >= 0
}

// after returns the instant so many seconds from now, a year at most.
func after(now time.Time, seconds float64) time.Time {
	return now.Add(time.Duration(math.Round(min(seconds, year.Seconds()) * float64(time.Second))))
}

// within cuts a time to the year that begins now.
func within(t, now time.Time) time.Time {
	if !t.After(now) {
		return now
	}
	if end := now.Add(year); t.After(end) {
		return end
	}
	return t.In(now.Location())
}
