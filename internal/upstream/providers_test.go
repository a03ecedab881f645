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
			"rate limit with Retry-After", 429, headers("Retry-After", "20"),
			`{"error":{"message":"Rate limit reached for gpt-4o.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`,
			upstream.RateLimited, 20 * time.Second, "429 rate_limit_exceeded",
		},
		{
			"rate limit by the day, a little at a time", 429, nil,
			`{"error":{"message":"Rate limit reached for gpt-4o on requests per day (RPD): Limit 200, Used 200. Please try again in 7m12s. Visit us","type":"requests","code":"rate_limit_exceeded"}}`,
			upstream.RateLimited, 7*time.Minute + 12*time.Second, "429 rate_limit_exceeded",
		},
		{
			"nothing remaining", 429,
			headers("X-Ratelimit-Remaining-Requests", "0", "X-Ratelimit-Reset-Requests", "6m0s",
				"X-Ratelimit-Remaining-Tokens", "500", "X-Ratelimit-Reset-Tokens", "50m"),
			`{"error":{"type":"requests","code":"rate_limit_exceeded"}}`,
			upstream.RateLimited, 6 * time.Minute, "429 rate_limit_exceeded",
		},
		{
			"insufficient quota", 429, headers(
				"X-Ratelimit-Remaining-Requests", "0", "X-Ratelimit-Reset-Requests", "8ms",
			),
			`{"error":{"message":"You exceeded your current quota.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`,
			upstream.QuotaExhausted, never, "429 insufficient_quota",
		},
		{
			"quota by type alone", 429, nil, `{"error":{"type":"insufficient_quota","code":"some_new_code"}}`,
			upstream.QuotaExhausted, never, "429 some_new_code",
		},
		{
			"insufficient quota, 402", 402, nil, `{"error":{"code":"insufficient_quota"}}`,
			upstream.QuotaExhausted, never, "402 insufficient_quota",
		},
		{
			"billing hard limit, 403", 403, nil, `{"error":{"code":"billing_hard_limit_reached"}}`,
			upstream.QuotaExhausted, never, "403 billing_hard_limit_reached",
		},
		{
			"spend limit", 429, nil, `{"error":{"type":"insufficient_quota","code":"project_spend_limit_exceeded"}}`,
			upstream.QuotaExhausted, never, "429 project_spend_limit_exceeded",
		},
		{
			"invalid key", 401, nil,
			`{"error":{"message":"Incorrect API key provided: sk-proj-abc***xyz.","type":"invalid_request_error","code":"invalid_api_key"}}`,
			upstream.Auth, never, "401 invalid_api_key",
		},
		{
			"country", 403, nil,
			`{"error":{"code":"unsupported_country_region_territory","message":"Country, region, or territory not supported","type":"request_forbidden"}}`,
			upstream.BadRequest, never, "403 unsupported_country_region_territory",
		},
		{
			"country, in words", 403, nil, `{"error":{"message":"Country, region, or territory not supported"}}`,
			upstream.BadRequest, never, "403",
		},
		{
			"model not open to the project", 403, nil,
			`{"error":{"message":"Project does not have access to model gpt-4o","type":"invalid_request_error","code":"model_not_found"}}`,
			upstream.BadRequest, never, "403 model_not_found",
		},
		{
			"content filter", 403, nil, `{"error":{"code":"content_filter"}}`,
			upstream.BadRequest, never, "403 content_filter",
		},
		{
			"missing scope", 403, nil,
			`{"error":{"message":"You have insufficient permissions for this operation.","code":null}}`,
			upstream.Auth, never, "403",
		},
		{
			"Azure quota policy", 403, nil,
			`{"statusCode":403,"message":"Out of call volume quota. Quota will be replenished in 02:10:00."}`,
			upstream.QuotaExhausted, never, "403",
		},
		{
			"server error, with a time", 503, headers("Retry-After", "5"), `{"error":{"type":"server_error"}}`,
			upstream.Server, 5 * time.Second, "503 server_error",
		},
	})
}

func TestDiagnoseAnthropic(t *testing.T) {
	t.Parallel()
	runDiagnose(t, []diagnoseTest{
		{
			"rate limit", 429, headers("Retry-After", "12"),
			`{"type":"error","error":{"type":"rate_limit_error","message":"Wait."}}`,
			upstream.RateLimited, 12 * time.Second, "429 rate_limit_error",
		},
		{
			"overloaded", 529, nil, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`,
			upstream.Server, never, "529 overloaded_error",
		},
		{
			"in a stream", 200, nil, `{"type":"error","error":{"type":"rate_limit_error","message":"Wait."}}`,
			upstream.RateLimited, never, "200 rate_limit_error",
		},
		{
			"authentication", 401, nil,
			`{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`,
			upstream.Auth, never, "401 authentication_error",
		},
		{
			"permission", 403, nil, `{"type":"error","error":{"type":"permission_error","message":"No."}}`,
			upstream.Auth, never, "403 permission_error",
		},
		{
			"billing", 402, nil, `{"type":"error","error":{"type":"billing_error","message":"No."}}`,
			upstream.QuotaExhausted, never, "402 billing_error",
		},
		{
			"bad request", 400, nil,
			`{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: Field required"}}`,
			upstream.BadRequest, never, "400 invalid_request_error",
		},
		{
			"no credit", 400, nil,
			`{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}`,
			upstream.QuotaExhausted, never, "400 invalid_request_error",
		},
		{
			"no credit, as the caller would have it", 400, nil,
			`{"type":"error","error":{"type":"invalid_request_error","message":"model: \"Your credit balance is too low. Try again in 99h\""}}`,
			upstream.BadRequest, never, "400 invalid_request_error",
		},
		{
			"spend limit until a day", 400, nil,
			`{"type":"error","error":{"type":"invalid_request_error","message":"You have reached your specified API usage limits. You will regain access on 2026-10-01 at 00:00 UTC."}}`,
			upstream.QuotaExhausted, 9*24*time.Hour + 12*time.Hour, "400 invalid_request_error",
		},
		{
			"disabled organization", 400, nil,
			`{"type":"error","error":{"type":"invalid_request_error","message":"This organization has been disabled."}}`,
			upstream.Auth, never, "400 invalid_request_error",
		},
		{
			"time-out", 504, nil, `{"type":"error","error":{"type":"timeout_error"}}`,
			upstream.Timeout, never, "504 timeout_error",
		},
	})
}

func TestDiagnoseGoogle(t *testing.T) {
	t.Parallel()
	const (
		retryInfo = `{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"}`
		perMinute = `{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]}`
		perDay    = `{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{},{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}`
	)
	exhausted := func(details string) string {
		return `{"error":{"code":429,"message":"You exceeded your current quota. Please retry in 34.07s.","status":"RESOURCE_EXHAUSTED","details":[` + details + `]}}`
	}
	runDiagnose(t, []diagnoseTest{
		{
			"by the minute", 429, nil, exhausted(perMinute + "," + retryInfo), upstream.RateLimited, 34 * time.Second,
			"429 RESOURCE_EXHAUSTED",
		},
		{
			"delay in words", 429, nil, exhausted(perMinute), upstream.RateLimited, 34070 * time.Millisecond,
			"429 RESOURCE_EXHAUSTED",
		},
		{
			"by the day", 429, nil, exhausted(perDay + "," + retryInfo), upstream.QuotaExhausted, never,
			"429 RESOURCE_EXHAUSTED",
		},
		{
			"in an array", 429, nil, "[" + exhausted(retryInfo+","+perDay) + "]", upstream.QuotaExhausted, never,
			"429 RESOURCE_EXHAUSTED",
		},
		{
			"invalid key", 400, nil,
			`[{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}]`,
			upstream.Auth, never, "400 API_KEY_INVALID",
		},
		{
			"location", 400, nil,
			`{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}`,
			upstream.BadRequest, never, "400 FAILED_PRECONDITION",
		},
		{
			"no credits", 402, nil,
			`{"error":{"code":402,"message":"Your prepayment credits are depleted.","status":"RESOURCE_EXHAUSTED"}}`,
			upstream.QuotaExhausted, never, "402 RESOURCE_EXHAUSTED",
		},
		{
			"no permission", 403, nil,
			`{"error":{"code":403,"message":"Your application requires a quota project.","status":"PERMISSION_DENIED"}}`,
			upstream.Auth, never, "403 PERMISSION_DENIED",
		},
		{
			"billing disabled", 403, nil,
			`{"error":{"code":403,"status":"PERMISSION_DENIED","details":[{"reason":"BILLING_DISABLED"}]}}`,
			upstream.QuotaExhausted, never, "403 BILLING_DISABLED",
		},
	})
}

func TestDiagnoseOthers(t *testing.T) {
	t.Parallel()
	midnight := fmt.Sprint(now.Add(12 * time.Hour).UnixMilli())
	runDiagnose(t, []diagnoseTest{
		{
			"AWS in the header", 429, headers(
				"X-Amzn-Errortype", "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/",
			),
			`{"message":"Too many requests, please wait before trying again."}`,
			upstream.RateLimited, never, "429 ThrottlingException",
		},
		{
			"AWS by the day", 429, headers("X-Amzn-Errortype", "ThrottlingException"),
			`{"message":"Too many tokens per day, please wait before trying again."}`,
			upstream.QuotaExhausted, never, "429 ThrottlingException",
		},
		{
			"AWS in the body, status 400", 400, nil,
			`{"__type":"com.amazon.coral.service#ThrottlingException","Message":"Rate exceeded"}`,
			upstream.RateLimited, never, "400 ThrottlingException",
		},
		{
			"AWS unknown key", 403, nil,
			`{"__type":"UnrecognizedClientException","message":"The security token is invalid."}`,
			upstream.Auth, never, "403 UnrecognizedClientException",
		},
		{
			"Bedrock, a model without access", 403, headers(
				"X-Amzn-Errortype", "AccessDeniedException:http://internal.amazon.com/",
			),
			`{"message":"You don't have access to the model with the specified model ID."}`,
			upstream.BadRequest, never, "403 AccessDeniedException",
		},
		{
			"Bedrock, a model without a subscription", 403, headers("X-Amzn-Errortype", "AccessDeniedException"),
			`{"message":"Model access is denied due to IAM user or service role is not authorized to perform the required AWS Marketplace actions"}`,
			upstream.BadRequest, never, "403 AccessDeniedException",
		},
		{
			"the words of Bedrock without its code", 403, nil,
			`{"message":"You don't have access to the model with the specified model ID."}`,
			upstream.Auth, never, "403",
		},
		{
			"Bedrock, a user without permission", 403, headers("X-Amzn-Errortype", "AccessDeniedException"),
			`{"Message":"User: arn:aws:iam::123456789012:user/x is not authorized to perform: bedrock:InvokeModel on resource: *"}`,
			upstream.Auth, never, "403 AccessDeniedException",
		},
		{
			"AWS denied", 400, headers("X-Amzn-Errortype", "AccessDeniedException"), `{}`,
			upstream.Auth, never, "400 AccessDeniedException",
		},
		{
			"AWS model not ready", 429, headers("X-Amzn-Errortype", "ModelNotReadyException"), `{}`,
			upstream.Server, never, "429 ModelNotReadyException",
		},
		{
			"OpenRouter no credits", 402, nil,
			`{"error":{"code":402,"message":"This request requires more credits"},"user_id":"user_1"}`,
			upstream.QuotaExhausted, never, "402",
		},
		{
			"OpenRouter after the model has begun", 200, nil,
			`{"error":{"code":402,"message":"This request requires more credits"}}`,
			upstream.QuotaExhausted, never, "402",
		},
		{
			"OpenRouter free models", 429, nil,
			`{"error":{"code":429,"message":"Rate limit exceeded: free-models-per-day","metadata":{"headers":{"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"` + midnight + `"}}}}`,
			upstream.QuotaExhausted, 12 * time.Hour, "429",
		},
		{
			"OpenRouter reset as a number", 429, nil,
			`{"error":{"code":429,"metadata":{"headers":{"X-RateLimit-Remaining":0,"X-RateLimit-Reset":` + midnight +
				`}}}}`,
			upstream.QuotaExhausted, 12 * time.Hour, "429",
		},
		{
			"OpenRouter Retry-After in the body", 429, nil,
			`{"error":{"code":429,"metadata":{"headers":{"Retry-After":"9"}}}}`,
			upstream.RateLimited, 9 * time.Second, "429",
		},
		{
			"OpenRouter moderation", 403, nil,
			`{"error":{"code":403,"message":"Flagged.","metadata":{"reasons":["violence"],"flagged_input":"..."}}}`,
			upstream.BadRequest, never, "403",
		},
		{
			"OpenRouter key limit", 403, nil, `{"error":{"code":403,"message":"Key limit exceeded (total limit)."}}`,
			upstream.QuotaExhausted, never, "403",
		},
		{
			"DeepSeek", 402, nil,
			`{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}`,
			upstream.QuotaExhausted, never, "402 invalid_request_error",
		},
		{
			"xAI no credits", 403, nil,
			`{"code":"The caller does not have permission","error":"Your team has either used all available credits or reached its monthly spending limit."}`,
			upstream.QuotaExhausted, never, "403",
		},
		{
			"xAI no credits, as a rate limit", 429, headers(
				"X-Ratelimit-Remaining-Requests", "0", "X-Ratelimit-Reset-Requests", "1s",
			),
			`{"code":"Some resource has been exhausted","error":"Your team has either used all available credits or reached its monthly spending limit."}`,
			upstream.QuotaExhausted, never, "429",
		},
		{
			"xAI wrong key", 400, nil,
			`{"code":"Client specified an invalid argument","error":"Incorrect API key provided: sk***gA."}`,
			upstream.Auth, never, "400",
		},
		{
			"Groq too large for a minute", 413, nil,
			`{"error":{"message":"Request too large: Limit 6000, Requested 12328, please reduce your message size and try again.","type":"tokens","code":"rate_limit_exceeded"}}`,
			upstream.BadRequest, never, "413 rate_limit_exceeded",
		},
		{
			"Groq by the day, a little at a time", 429, nil,
			`{"error":{"message":"Rate limit reached on tokens per day (TPD). Please try again in 9m38.016s. Need more?","type":"tokens","code":"rate_limit_exceeded"}}`,
			upstream.RateLimited, 9*time.Minute + 38016*time.Millisecond, "429 rate_limit_exceeded",
		},
		{
			"Mistral", 429, nil,
			`{"object":"error","message":"Rate limit exceeded","type":"rate_limited","param":null,"code":"1300"}`,
			upstream.RateLimited, never, "429 rate_limited",
		},
		{
			"Moonshot overloaded", 429, nil, `{"error":{"type":"engine_overloaded_error"}}`,
			upstream.Server, never, "429 engine_overloaded_error",
		},
		{
			"Fireworks suspended", 412, nil,
			`{"error":{"message":"Account is suspended, possibly due to reaching the monthly spending limit"}}`,
			upstream.QuotaExhausted, never, "412",
		},
		{
			"Together too long", 403, nil,
			`{"error":{"message":"Input token count + max_tokens parameter must be less than the context length"}}`,
			upstream.BadRequest, never, "403",
		},
	})
}
