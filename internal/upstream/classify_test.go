package upstream_test

import (
	"testing"
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

func TestDiagnoseOpenAI(t *testing.T) {
	t.Parallel()
	runDiagnose(t, []diagnoseTest{
		{
			name: "rate limit with Retry-After", status: 429, header: headers("Retry-After", "20"),
			body: `{"error":{"message":"Rate limit reached for gpt-4o.","type":"tokens","param":null,` +
				`"code":"rate_limit_exceeded"}}`,
			class: upstream.RateLimited, in: 20 * time.Second, reason: "429 rate_limit_exceeded",
		},
		{
			name: "rate limit by the day, a little at a time", status: 429,
			body: `{"error":{"message":"Rate limit reached for gpt-4o on requests per day (RPD): Limit 200, Used` +
				` 200. Please try again in 7m12s. Visit us","type":"requests","code":"rate_limit_exceeded"}}`,
			class: upstream.RateLimited, in: 7*time.Minute + 12*time.Second, reason: "429 rate_limit_exceeded",
		},
		{
			name: "nothing remaining", status: 429,
			header: headers("X-Ratelimit-Remaining-Requests", "0", "X-Ratelimit-Reset-Requests", "6m0s",
				"X-Ratelimit-Remaining-Tokens", "500", "X-Ratelimit-Reset-Tokens", "50m"),
			body: `{"error":{"type":"requests","code":"rate_limit_exceeded"}}`, class: upstream.RateLimited,
			in: 6 * time.Minute, reason: "429 rate_limit_exceeded",
		},
		{
			name: "insufficient quota", status: 429,
			header: headers("X-Ratelimit-Remaining-Requests", "0", "X-Ratelimit-Reset-Requests", "8ms"),
			body: `{"error":{"message":"You exceeded your current quota.","type":"insufficient_quota",` +
				`"param":null,"code":"insufficient_quota"}}`,
			class: upstream.QuotaExhausted, in: never, reason: "429 insufficient_quota",
		},
		{
			name: "quota by type alone", status: 429,
			body: `{"error":{"type":"insufficient_quota","code":"some_new_code"}}`, class: upstream.QuotaExhausted,
			in: never, reason: "429 some_new_code",
		},
		{
			name: "insufficient quota, 402", status: 402, body: `{"error":{"code":"insufficient_quota"}}`,
			class: upstream.QuotaExhausted, in: never, reason: "402 insufficient_quota",
		},
		{
			name: "billing hard limit, 403", status: 403, body: `{"error":{"code":"billing_hard_limit_reached"}}`,
			class: upstream.QuotaExhausted, in: never, reason: "403 billing_hard_limit_reached",
		},
		{
			name: "spend limit", status: 429,
			body:  `{"error":{"type":"insufficient_quota","code":"project_spend_limit_exceeded"}}`,
			class: upstream.QuotaExhausted, in: never, reason: "429 project_spend_limit_exceeded",
		},
		{
			name: "invalid key", status: 401,
			body: `{"error":{"message":"Incorrect API key provided: sk-proj-abc***xyz.",` +
				`"type":"invalid_request_error","code":"invalid_api_key"}}`,
			class: upstream.Auth, in: never, reason: "401 invalid_api_key",
		},
		{
			name: "country", status: 403,
			body: `{"error":{"code":"unsupported_country_region_territory","message":"Country, region, or` +
				` territory not supported","type":"request_forbidden"}}`,
			class: upstream.BadRequest, in: never, reason: "403 unsupported_country_region_territory",
		},
		{
			name: "country, in words", status: 403,
			body: `{"error":{"message":"Country, region, or territory not supported"}}`, class: upstream.BadRequest,
			in: never, reason: "403",
		},
		{
			name: "model not open to the project", status: 403,
			body: `{"error":{"message":"Project does not have access to model gpt-4o",` +
				`"type":"invalid_request_error","code":"model_not_found"}}`,
			class: upstream.BadRequest, in: never, reason: "403 model_not_found",
		},
		{
			name: "content filter", status: 403, body: `{"error":{"code":"content_filter"}}`,
			class: upstream.BadRequest, in: never, reason: "403 content_filter",
		},
		{
			name: "missing scope", status: 403,
			body:  `{"error":{"message":"You have insufficient permissions for this operation.","code":null}}`,
			class: upstream.Auth, in: never, reason: "403",
		},
		{
			name: "Azure quota policy", status: 403,
			body:  `{"statusCode":403,"message":"Out of call volume quota. Quota will be replenished in 02:10:00."}`,
			class: upstream.QuotaExhausted, in: never, reason: "403",
		},
		{
			name: "server error, with a time", status: 503, header: headers("Retry-After", "5"),
			body: `{"error":{"type":"server_error"}}`, class: upstream.Server, in: 5 * time.Second,
			reason: "503 server_error",
		},
	})
}

func TestDiagnoseAnthropic(t *testing.T) {
	t.Parallel()
	runDiagnose(t, []diagnoseTest{
		{
			name: "rate limit", status: 429, header: headers("Retry-After", "12"),
			body: `{"type":"error","error":{"type":"rate_limit_error","message":"Wait."}}`, class: upstream.RateLimited,
			in: 12 * time.Second, reason: "429 rate_limit_error",
		},
		{
			name: "overloaded", status: 529,
			body: `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, class: upstream.Server,
			in: never, reason: "529 overloaded_error",
		},
		{
			name: "in a stream", status: 200,
			body: `{"type":"error","error":{"type":"rate_limit_error","message":"Wait."}}`, class: upstream.RateLimited,
			in: never, reason: "200 rate_limit_error",
		},
		{
			name: "authentication", status: 401,
			body:  `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`,
			class: upstream.Auth, in: never, reason: "401 authentication_error",
		},
		{
			name: "permission", status: 403,
			body: `{"type":"error","error":{"type":"permission_error","message":"No."}}`, class: upstream.Auth,
			in: never, reason: "403 permission_error",
		},
		{
			name: "billing", status: 402, body: `{"type":"error","error":{"type":"billing_error","message":"No."}}`,
			class: upstream.QuotaExhausted, in: never, reason: "402 billing_error",
		},
		{
			name: "bad request", status: 400,
			body:  `{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: Field required"}}`,
			class: upstream.BadRequest, in: never, reason: "400 invalid_request_error",
		},
		{
			name: "no credit", status: 400,
			body: `{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too` +
				` low to access the Anthropic API."}}`,
			class: upstream.QuotaExhausted, in: never, reason: "400 invalid_request_error",
		},
		{
			name: "no credit, as the caller would have it", status: 400,
			body: `{"type":"error","error":{"type":"invalid_request_error","message":"model: \"Your credit balance` +
				` is too low. Try again in 99h\""}}`,
			class: upstream.BadRequest, in: never, reason: "400 invalid_request_error",
		},
		{
			name: "spend limit until a day", status: 400,
			body: `{"type":"error","error":{"type":"invalid_request_error","message":"You have reached your` +
				` specified API usage limits. You will regain access on 2026-10-01 at 00:00 UTC."}}`,
			class: upstream.QuotaExhausted, in: 9*24*time.Hour + 12*time.Hour, reason: "400 invalid_request_error",
		},
		{
			name: "disabled organization", status: 400,
			body: `{"type":"error","error":{"type":"invalid_request_error","message":"This organization has been` +
				` disabled."}}`,
			class: upstream.Auth, in: never, reason: "400 invalid_request_error",
		},
		{
			name: "time-out", status: 504, body: `{"type":"error","error":{"type":"timeout_error"}}`,
			class: upstream.Timeout, in: never, reason: "504 timeout_error",
		},
	})
}

func TestDiagnoseGoogle(t *testing.T) {
	t.Parallel()
	const (
		retryInfo = `{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"}`
		perMinute = `{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{` +
			`"quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]}`
		perDay = `{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{},{` +
			`"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}`
	)
	exhausted := func(details string) string {
		return `{"error":{"code":429,"message":"You exceeded your current quota. Please retry in 34.07s.",` +
			`"status":"RESOURCE_EXHAUSTED","details":[` + details + `]}}`
	}
	runDiagnose(t, []diagnoseTest{
		{
			name: "by the minute", status: 429, body: exhausted(perMinute + "," + retryInfo),
			class: upstream.RateLimited, in: 34 * time.Second, reason: "429 RESOURCE_EXHAUSTED",
		},
		{
			name: "delay in words", status: 429, body: exhausted(perMinute), class: upstream.RateLimited,
			in: 34070 * time.Millisecond, reason: "429 RESOURCE_EXHAUSTED",
		},
		{
			name: "by the day", status: 429, body: exhausted(perDay + "," + retryInfo), class: upstream.QuotaExhausted,
			in: never, reason: "429 RESOURCE_EXHAUSTED",
		},
		{
			name: "in an array", status: 429, body: "[" + exhausted(retryInfo+","+perDay) + "]",
			class: upstream.QuotaExhausted, in: never, reason: "429 RESOURCE_EXHAUSTED",
		},
		{
			name: "invalid key", status: 400,
			body: `[{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{` +
				`"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}]`,
			class: upstream.Auth, in: never, reason: "400 API_KEY_INVALID",
		},
		{
			name: "location", status: 400,
			body: `{"error":{"code":400,"message":"User location is not supported for the API use.",` +
				`"status":"FAILED_PRECONDITION"}}`,
			class: upstream.BadRequest, in: never, reason: "400 FAILED_PRECONDITION",
		},
		{
			name: "no credits", status: 402,
			body: `{"error":{"code":402,"message":"Your prepayment credits are depleted.",` +
				`"status":"RESOURCE_EXHAUSTED"}}`,
			class: upstream.QuotaExhausted, in: never, reason: "402 RESOURCE_EXHAUSTED",
		},
		{
			name: "no permission", status: 403,
			body: `{"error":{"code":403,"message":"Your application requires a quota project.",` +
				`"status":"PERMISSION_DENIED"}}`,
			class: upstream.Auth, in: never, reason: "403 PERMISSION_DENIED",
		},
		{
			name: "billing disabled", status: 403,
			body:  `{"error":{"code":403,"status":"PERMISSION_DENIED","details":[{"reason":"BILLING_DISABLED"}]}}`,
			class: upstream.QuotaExhausted, in: never, reason: "403 BILLING_DISABLED",
		},
	})
}
