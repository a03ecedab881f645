package upstream_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

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
