package main

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// upstream is a provider on the loopback interface. It speaks the shape of OpenAI's chat
// completions, knows its keys, and answers 429 once in a while.
type upstream struct {
	*httptest.Server
	limitEvery int           // every how many requests of a key one is answered 429
	rest       time.Duration // what a 429 asks for, in whole seconds
	mu         sync.Mutex
	calls      map[string]int // by key; keys that are not in it are refused
}

const slowest = 15 * time.Millisecond // how long a reply takes at the most

type chatRequest struct {
	Model    string        `json:"model"`
	Messages []chatMessage `json:"messages"`
}

type chatMessage struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type chatResponse struct {
	Model   string       `json:"model"`
	Choices []chatChoice `json:"choices"`
	Usage   chatUsage    `json:"usage"`
}

type chatChoice struct {
	Index        int         `json:"index"`
	Message      chatMessage `json:"message"`
	FinishReason string      `json:"finish_reason"`
}

// chatUsage is what OpenAI reports: prompt_tokens include the cached ones, completion_tokens
// the reasoning.
type chatUsage struct {
	PromptTokens        int64 `json:"prompt_tokens"`
	CompletionTokens    int64 `json:"completion_tokens"`
	TotalTokens         int64 `json:"total_tokens"`
	PromptTokensDetails struct {
		CachedTokens int64 `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionTokensDetails struct {
		ReasoningTokens int64 `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

func newUpstream(keys []string, limitEvery int, rest time.Duration) *upstream {
	u := &upstream{limitEvery: limitEvery, rest: rest, calls: make(map[string]int, len(keys))}
	for _, key := range keys {
		u.calls[key] = 0
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", u.chat)
	u.Server = httptest.NewServer(mux)
	return u
}

func (u *upstream) chat(w http.ResponseWriter, r *http.Request) {
	key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	n, known := u.count(key)
	switch {
	case !ok || !known:
		fail(w, http.StatusUnauthorized, "unknown key")
		return
	case n%u.limitEvery == 0:
		w.Header().Set("Retry-After", strconv.Itoa(int(u.rest.Seconds())))
		fail(w, http.StatusTooManyRequests, "rate limit reached")
		return
	}
	var request chatRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&request); err != nil {
		fail(w, http.StatusBadRequest, "not a chat request")
		return
	}
	select {
	case <-r.Context().Done():
	case <-time.After(rand.N(slowest)):
		writeJSON(w, http.StatusOK, answer(request))
	}
}

// count notes a request of a key and returns how many there were.
func (u *upstream) count(key string) (n int, known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n, known = u.calls[key]
	if known {
		u.calls[key] = n + 1
	}
	return n + 1, known
}

func answer(request chatRequest) chatResponse {
	var usage chatUsage
	usage.PromptTokens = 200 + rand.Int64N(1800)
	usage.PromptTokensDetails.CachedTokens = rand.Int64N(usage.PromptTokens / 2)
	usage.CompletionTokens = 50 + rand.Int64N(450)
	usage.CompletionTokensDetails.ReasoningTokens = rand.Int64N(usage.CompletionTokens / 3)
	usage.TotalTokens = usage.PromptTokens + usage.CompletionTokens
	return chatResponse{
		Model: request.Model,
		Usage: usage,
		Choices: []chatChoice{{
			Message:      chatMessage{Role: "assistant", Content: "Hello from " + request.Model + "."},
			FinishReason: "stop",
		}},
	}
}

func fail(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]any{"error": map[string]string{"message": message}})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		// The client is gone: there is nobody to tell.
		return
	}
}
