package upstream_test

import (
	"fmt"
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

func TestDiagnoseAWS(t *testing.T) {
	t.Parallel()
	runDiagnose(t, []diagnoseTest{
		{
			name: "AWS in the header", status: 429,
			header: headers(
				"X-Amzn-Errortype", "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/",
			),
			body: `{"message":"Too many requests, please wait before trying again."}`, class: upstream.RateLimited,
			in: never, reason: "429 ThrottlingException",
		},
		{
			name: "AWS by the day", status: 429, header: headers("X-Amzn-Errortype", "ThrottlingException"),
			body:  `{"message":"Too many tokens per day, please wait before trying again."}`,
			class: upstream.QuotaExhausted, in: never, reason: "429 ThrottlingException",
		},
		{
			name: "AWS in the body, status 400", status: 400,
			body:  `{"__type":"com.amazon.coral.service#ThrottlingException","Message":"Rate exceeded"}`,
			class: upstream.RateLimited, in: never, reason: "400 ThrottlingException",
		},
		{
			name: "AWS unknown key", status: 403,
			body:  `{"__type":"UnrecognizedClientException","message":"The security token is invalid."}`,
			class: upstream.Auth, in: never, reason: "403 UnrecognizedClientException",
		},
		{
			name: "Bedrock, a model without access", status: 403,
			header: headers("X-Amzn-Errortype", "AccessDeniedException:http://internal.amazon.com/"),
			body:   `{"message":"You don't have access to the model with the specified model ID."}`,
			class:  upstream.BadRequest, in: never, reason: "403 AccessDeniedException",
		},
		{
			name: "Bedrock, a model without a subscription", status: 403,
			header: headers("X-Amzn-Errortype", "AccessDeniedException"),
			body: `{"message":"Model access is denied due to IAM user or service role is not authorized to` +
				` perform the required AWS Marketplace actions"}`,
			class: upstream.BadRequest, in: never, reason: "403 AccessDeniedException",
		},
		{
			name: "the words of Bedrock without its code", status: 403,
			body: `{"message":"You don't have access to the model with the specified model ID."}`, class: upstream.Auth,
			in: never, reason: "403",
		},
		{
			name: "Bedrock, a user without permission", status: 403,
			header: headers("X-Amzn-Errortype", "AccessDeniedException"),
			body: `{"Message":"User: arn:aws:iam::123456789012:user/x is not authorized to perform:` +
				` bedrock:InvokeModel on resource: *"}`,
			class: upstream.Auth, in: never, reason: "403 AccessDeniedException",
		},
		{
			name: "AWS denied", status: 400, header: headers("X-Amzn-Errortype", "AccessDeniedException"), body: `{}`,
			class: upstream.Auth, in: never, reason: "400 AccessDeniedException",
		},
		{
			name: "AWS model not ready", status: 429, header: headers("X-Amzn-Errortype", "ModelNotReadyException"),
			body: `{}`, class: upstream.Server, in: never, reason: "429 ModelNotReadyException",
		},
	})
}

func TestDiagnoseOpenRouter(t *testing.T) {
	t.Parallel()
	midnight := fmt.Sprint(now.Add(12 * time.Hour).UnixMilli())
	runDiagnose(t, []diagnoseTest{
		{
			name: "OpenRouter no credits", status: 402,
			body:  `{"error":{"code":402,"message":"This request requires more credits"},"user_id":"user_1"}`,
			class: upstream.QuotaExhausted, in: never, reason: "402",
		},
		{
			name: "OpenRouter after the model has begun", status: 200,
			body:  `{"error":{"code":402,"message":"This request requires more credits"}}`,
			class: upstream.QuotaExhausted, in: never, reason: "402",
		},
		{
			name: "OpenRouter free models", status: 429,
			body: `{"error":{"code":429,"message":"Rate limit exceeded: free-models-per-day","metadata":{` +
				`"headers":{"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0",` +
				`"X-RateLimit-Reset":"` + midnight + `"}}}}`,
			class: upstream.QuotaExhausted, in: 12 * time.Hour, reason: "429",
		},
		{
			name: "OpenRouter reset as a number", status: 429,
			body: `{"error":{"code":429,"metadata":{"headers":{"X-RateLimit-Remaining":0,"X-RateLimit-Reset":` +
				midnight +
				`}}}}`,
			class: upstream.QuotaExhausted, in: 12 * time.Hour, reason: "429",
		},
		{
			name: "OpenRouter Retry-After in the body", status: 429,
			body: `{"error":{"code":429,"metadata":{"headers":{"Retry-After":"9"}}}}`, class: upstream.RateLimited,
			in: 9 * time.Second, reason: "429",
		},
		{
			name: "OpenRouter moderation", status: 403,
			body: `{"error":{"code":403,"message":"Flagged.","metadata":{"reasons":["violence"],` +
				`"flagged_input":"..."}}}`,
			class: upstream.BadRequest, in: never, reason: "403",
		},
		{
			name: "OpenRouter key limit", status: 403,
			body:  `{"error":{"code":403,"message":"Key limit exceeded (total limit)."}}`,
			class: upstream.QuotaExhausted, in: never, reason: "403",
		},
	})
}

func TestDiagnoseOthers(t *testing.T) {
	t.Parallel()
	runDiagnose(t, []diagnoseTest{
		{
			name: "DeepSeek", status: 402,
			body: `{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,` +
				`"code":"invalid_request_error"}}`,
			class: upstream.QuotaExhausted, in: never, reason: "402 invalid_request_error",
		},
		{
			name: "xAI no credits", status: 403,
			body: `{"code":"The caller does not have permission","error":"Your team has either used all available` +
				` credits or reached its monthly spending limit."}`,
			class: upstream.QuotaExhausted, in: never, reason: "403",
		},
		{
			name: "xAI no credits, as a rate limit", status: 429,
			header: headers("X-Ratelimit-Remaining-Requests", "0", "X-Ratelimit-Reset-Requests", "1s"),
			body: `{"code":"Some resource has been exhausted","error":"Your team has either used all available` +
				` credits or reached its monthly spending limit."}`,
			class: upstream.QuotaExhausted, in: never, reason: "429",
		},
		{
			name: "xAI wrong key", status: 400,
			body:  `{"code":"Client specified an invalid argument","error":"Incorrect API key provided: sk***gA."}`,
			class: upstream.Auth, in: never, reason: "400",
		},
		{
			name: "Groq too large for a minute", status: 413,
			body: `{"error":{"message":"Request too large: Limit 6000, Requested 12328, please reduce your message` +
				` size and try again.","type":"tokens","code":"rate_limit_exceeded"}}`,
			class: upstream.BadRequest, in: never, reason: "413 rate_limit_exceeded",
		},
		{
			name: "Groq by the day, a little at a time", status: 429,
			body: `{"error":{"message":"Rate limit reached on tokens per day (TPD). Please try again in 9m38.016s.` +
				` Need more?","type":"tokens","code":"rate_limit_exceeded"}}`,
			class: upstream.RateLimited, in: 9*time.Minute + 38016*time.Millisecond, reason: "429 rate_limit_exceeded",
		},
		{
			name: "Mistral", status: 429,
			body: `{"object":"error","message":"Rate limit exceeded","type":"rate_limited","param":null,` +
				`"code":"1300"}`,
			class: upstream.RateLimited, in: never, reason: "429 rate_limited",
		},
		{
			name: "Moonshot overloaded", status: 429, body: `{"error":{"type":"engine_overloaded_error"}}`,
			class: upstream.Server, in: never, reason: "429 engine_overloaded_error",
		},
		{
			name: "Fireworks suspended", status: 412,
			body:  `{"error":{"message":"Account is suspended, possibly due to reaching the monthly spending limit"}}`,
			class: upstream.QuotaExhausted, in: never, reason: "412",
		},
		{
			name: "Together too long", status: 403,
			body: `{"error":{"message":"Input token count + max_tokens parameter must be less than the context` +
				` length"}}`,
			class: upstream.BadRequest, in: never, reason: "403",
		},
	})
}
