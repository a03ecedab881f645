package upstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// maxBody is how much of a body is looked at. An error is far shorter.
const maxBody = 64 << 10

// fault is what the body of an answer says, in the form of any provider.
type fault struct {
	codes    []string    // error codes and types, from the most telling to the least
	number   int         // an error code that is a number: the status, for Google and OpenRouter
	messages []string    // in lower case; to look into, never to show
	delay    string      // google.rpc.RetryInfo: "34s"
	perDay   bool        // google.rpc.QuotaFailure: a limit by the day
	flagged  bool        // OpenRouter: the moderation stopped the prompt
	header   http.Header // OpenRouter: headers repeated in the body
}

// readFault reads the body, and the error code that AWS has in a header as well.
func readFault(a Answer) fault {
	var f fault
	f.readBody(a.Body[:min(len(a.Body), maxBody)])
	// AWS: restJson1 protocol, "ThrottlingException:http://internal.amazon.com/...".
	code, _, _ := strings.Cut(a.Header.Get("X-Amzn-Errortype"), ":")
	f.addCode(code)
	return f
}

func (f *fault) readBody(body []byte) {
	var root any
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&root); err != nil {
		// Plain text, HTML, or JSON that broke off: its words can still be looked into.
		f.addMessage(string(body))
		return
	}
	// Google puts the errors of its streaming methods into an array.
	if list, ok := root.([]any); ok && len(list) > 0 {
		root = list[0]
	}
	object, _ := root.(map[string]any)
	for _, key := range []string{"error", "detail"} {
		switch inner := object[key].(type) {
		case map[string]any:
			f.readObject(inner)
		case string: // xAI, Ollama, FastAPI
			f.addMessage(inner)
		}
	}
	// AWS, Mistral and xAI have the code at the top.
	f.readObject(object)
}

// readObject reads an error object. It skips values of unexpected types.
func (f *fault) readObject(object map[string]any) {
	details, _ := object["details"].([]any)
	for _, detail := range details {
		if detail, ok := detail.(map[string]any); ok {
			f.readDetail(detail)
		}
	}
	for _, key := range []string{"code", "type", "status"} {
		f.addCode(text(object, key))
	}
	// AWS: awsJson1 protocol, "com.amazon.coral.service#ThrottlingException".
	coral := text(object, "__type")
	f.addCode(coral[strings.LastIndex(coral, "#")+1:])
	if number, ok := object["code"].(float64); ok && f.number == 0 && number >= 100 && number < 1000 {
		f.number = int(number)
	}
	f.addMessage(text(object, "message"))
	f.addMessage(text(object, "Message"))
	if metadata, ok := object["metadata"].(map[string]any); ok {
		f.readMetadata(metadata)
	}
}

// readDetail reads one of Google's details, as google/rpc/error_details.proto has them.
func (f *fault) readDetail(detail map[string]any) {
	f.addCode(text(detail, "reason"))
	if delay := text(detail, "retryDelay"); delay != "" {
		f.delay = delay
	}
	violations, _ := detail["violations"].([]any)
	for _, violation := range violations {
		if violation, ok := violation.(map[string]any); ok && strings.Contains(text(violation, "quotaId"), "PerDay") {
			f.perDay = true
		}
	}
}

// readMetadata reads what OpenRouter adds to an error (OpenRouter: errors and debugging).
func (f *fault) readMetadata(metadata map[string]any) {
	if _, ok := metadata["flagged_input"]; ok {
		f.flagged = true
	}
	headers, ok := metadata["headers"].(map[string]any)
	if !ok {
		return
	}
	f.header = make(http.Header, len(headers))
	// In order, so that of two spellings of a name the same one wins each time.
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		value := headers[name]
		if number, ok := value.(float64); ok {
			value = fmt.Sprintf("%.0f", number)
		}
		if value, ok := value.(string); ok {
			f.header.Set(name, value)
		}
	}
}

func (f *fault) addCode(code string) {
	// Anthropic marks errors with the type "error" around the one that tells.
	if code != "" && code != "error" {
		f.codes = append(f.codes, code)
	}
}

func (f *fault) addMessage(message string) {
	if message != "" {
		f.messages = append(f.messages, strings.ToLower(message))
	}
}

// text returns the string that an object has under a key, or "".
func text(object map[string]any, key string) string {
	value, _ := object[key].(string)
	return value
}

var (
	// OpenAI and Groq: "Please try again in 9m38.016s."; Google: "Please retry in 34.07s."
	tryAgain = regexp.MustCompile(`(?:try again|retry) in ([0-9][0-9a-z.]*)`)
	// Anthropic: "You will regain access on 2026-04-01 at 00:00 UTC."
	regain = regexp.MustCompile(`regain access on ([0-9]{4}-[0-9]{2}-[0-9]{2} at [0-9]{2}:[0-9]{2}) utc`)
)

// retryTime returns when the body says to come back, or zero.
func (f fault) retryTime(now time.Time) time.Time {
	if f.perDay {
		// The delay that Google sends with a daily quota is not the end of the day.
		return time.Time{}
	}
	if seconds, ok := duration(f.delay); ok {
		return after(now, seconds)
	}
	for _, message := range f.messages {
		if match := regain.FindStringSubmatch(message); match != nil {
			if t, err := time.Parse("2006-01-02 at 15:04", match[1]); err == nil {
				return within(t, now)
			}
		}
		if match := tryAgain.FindStringSubmatch(message); match != nil {
			if seconds, ok := duration(strings.TrimRight(match[1], ".")); ok {
				return after(now, seconds)
			}
		}
	}
	return time.Time{}
}

var (
	codeForm = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,40}$`)
	letter   = regexp.MustCompile(`[A-Za-z]`)
	// keyLike matches how the keys of providers begin, and many digits.
	keyLike = regexp.MustCompile(`(?i)sk-|sk_|gsk_|xai-|aiza|csk-|hf_|pplx-|nvapi-|akia|eyj|(?:[0-9].*){4}`)
)

// isSafe reports whether a code can go into a reason. A provider could have put a key where the code belongs. Codes are
// words, with letters and at most a few digits; keys have many. To lose a code that only looks like a key matters
// little.
func isSafe(code string) bool {
	return codeForm.MatchString(code) && letter.MatchString(code) && !keyLike.MatchString(code)
}
