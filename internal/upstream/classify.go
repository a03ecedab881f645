package upstream

import (
	"net/http"
	"slices"
	"strings"
)

// classes are the error codes and types, in lower case, that say more than the status, or that come
// with a status that says something else.
var classes = map[string]Class{
	// OpenAI: error codes guide, and "Troubleshooting API rate limits and 429 errors".
	"insufficient_quota":                   QuotaExhausted,
	"billing_hard_limit_reached":           QuotaExhausted,
	"billing_not_active":                   QuotaExhausted,
	"credit_balance_exhausted":             QuotaExhausted,
	"organization_usage_limit_exceeded":    QuotaExhausted,
	"organization_spend_limit_exceeded":    QuotaExhausted,
	"project_spend_limit_exceeded":         QuotaExhausted,
	"rate_limit_exceeded":                  RateLimited,
	"invalid_api_key":                      Auth,
	"account_deactivated":                  Auth,
	"unsupported_country_region_territory": BadRequest,
	"model_not_found":                      BadRequest,
	"content_policy_violation":             BadRequest,
	"context_length_exceeded":              BadRequest,
	// Azure OpenAI: content filtering.
	"content_filter": BadRequest,
	// Anthropic: errors. In a stream, they come after the status 200.
	"billing_error":        QuotaExhausted,
	"rate_limit_error":     RateLimited,
	"authentication_error": Auth,
	"overloaded_error":     Server,
	"timeout_error":        Timeout,
	// Google: google.rpc.ErrorInfo, google.api.ErrorReason.
	"billing_disabled": QuotaExhausted,
	"api_key_invalid":  Auth,
	// AWS: common errors, and the errors of Bedrock's InvokeModel.
	"servicequotaexceededexception": QuotaExhausted,
	"throttlingexception":           RateLimited,
	"unrecognizedclientexception":   Auth,
	"accessdeniedexception":         Auth,
	"expiredtokenexception":         Auth,
	"invalidsignatureexception":     Auth,
	"modelnotreadyexception":        Server,
	"modeltimeoutexception":         Timeout,
	// Moonshot: error codes.
	"exceeded_current_quota_error": QuotaExhausted,
	"engine_overloaded_error":      Server,
}

// phrase matches a message, in lower case, that says what no code says.
type phrase struct {
	class    Class
	statuses []int
	has      []string // anywhere in the message
	begins   []string // at its beginning
}

// phrases are looked up in this order. The message of a 400 can repeat what the caller sent, and a caller must not be
// able to put a key out of use: there, only the beginning counts.
var phrases = []phrase{
	{class: QuotaExhausted, statuses: []int{400}, begins: []string{
		"your credit balance is too low",                   // Anthropic
		"you have reached your specified api usage limits", // Anthropic
		"insufficient balance",                             // DeepSeek behind gateways
	}},
	{class: QuotaExhausted, statuses: []int{401, 403, 412, 429}, has: []string{
		"credit balance is too low", // Anthropic behind gateways
		"insufficient balance",      // DeepSeek behind gateways
		"all available credits",     // xAI, 403 and 429
		"out of credits",            // xAI, 403
		"have any credits",          // xAI, 403
		"spending limit",            // xAI, 403 and 429; Fireworks, 412
		"key limit exceeded",        // OpenRouter, 403
		"credits are depleted",      // Google, 429 before it became 402
	}},
	// Azure API Management: quota and llm-token-limit policies. With 429, the same words are used of
	// limits by the minute.
	{class: QuotaExhausted, statuses: []int{403}, has: []string{
		"quota exceeded", "exceeded your", "call volume quota", "insufficient quota",
	}},
	{class: Auth, statuses: []int{400}, begins: []string{
		"incorrect api key provided",          // xAI
		"this organization has been disabled", // Anthropic
	}},
	{class: BadRequest, statuses: []int{403}, has: []string{
		"country, region, or territory", // OpenAI
		"location is not supported",     // Google
		"does not have access to model", // OpenAI
		"requires moderation",           // OpenRouter
		"content policy",
		"content management policy", // Azure
		"max_tokens parameter",      // Together, where others have 400
	}},
}

// daily are the messages of daily limits. Bedrock says no more about them.
var daily = []string{"tokens per day", "requests per day", "models-per-day"}

// has reports whether a message has one of the texts in it.
func (f fault) has(texts []string) bool {
	return f.says(texts, strings.Contains)
}

// says reports whether a message matches one of the texts.
func (f fault) says(texts []string, matches func(message, text string) bool) bool {
	for _, message := range f.messages {
		if slices.ContainsFunc(texts, func(text string) bool { return matches(message, text) }) {
			return true
		}
	}
	return false
}

// classify returns the class of an HTTP answer. An exhausted quota goes before all else, because many providers report
// it with the status and the type of a rate limit or a bad request.
func classify(status int, f fault) Class {
	byCode, byPhrase := f.classOfCode(), f.classOfMessage(status)
	switch {
	case status == http.StatusPaymentRequired || f.perDay || byCode == QuotaExhausted || byPhrase == QuotaExhausted:
		return QuotaExhausted
	case status == http.StatusRequestEntityTooLarge:
		// Groq calls a request that is larger than a minute's tokens rate_limit_exceeded. No wait
		// makes it smaller.
		return BadRequest
	case f.deniesModel():
		return BadRequest
	case byCode != "":
		return byCode
	case byPhrase != "":
		return byPhrase
	case status == http.StatusForbidden && f.flagged:
		return BadRequest
	}
	return classOfStatus(status)
}

// modelDenied are Bedrock's messages for a model that the account may not use. Their code is that of a refused key.
var modelDenied = []string{"access to the model with the specified model id", "model access is denied"}

// deniesModel reports whether the key is fine, but not for this model.
func (f fault) deniesModel() bool {
	isDenied := func(code string) bool { return strings.EqualFold(code, "AccessDeniedException") }
	return slices.ContainsFunc(f.codes, isDenied) && f.has(modelDenied)
}

// classOfCode returns the class of the most telling code that has one, or "".
func (f fault) classOfCode() Class {
	var first Class
	for _, code := range f.codes {
		class := classes[strings.ToLower(code)]
		if class == QuotaExhausted {
			return class
		}
		if first == "" {
			first = class
		}
	}
	return first
}

// classOfMessage returns the class of the first phrase that matches the message, or "".
func (f fault) classOfMessage(status int) Class {
	for _, p := range phrases {
		if slices.Contains(p.statuses, status) && (f.has(p.has) || f.says(p.begins, strings.HasPrefix)) {
			return p.class
		}
	}
	return ""
}

// classOfStatus returns what a status means on its own.
func classOfStatus(status int) Class {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return Auth
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return Timeout
	case http.StatusTooManyRequests:
		return RateLimited
	}
	// RFC 9110, 15: a status that is not known is taken for the first one of its hundred.
	if status >= 400 && status < 500 {
		return BadRequest
	}
	return Server
}
