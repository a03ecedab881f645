package main

import (
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// upstream is a provider on the loopback interface. It speaks the shape of OpenAI's chat completions, knows its keys,
// tells its limits in headers, and fails in all the ways that providers do.
type upstream struct {
	*httptest.Server
	faults faults
	now    func() time.Time

	mu       sync.Mutex
	keys     map[string]*upstreamKey // by the key itself
	requests int
	tally    tally
}

// faults say how the provider fails; what is zero or empty does not happen.
type faults struct {
	limited  int           // every how many requests of an account it is used up, so that they are answered 429
	rest     time.Duration // for how long, in whole seconds
	broken   int           // every how many requests one is answered 500
	lost     int           // every how many requests one gets no answer
	cut      int           // every how many requests one breaks off, if it is a stream
	revoked  string        // label of a key that is answered 401
	spent    string        // label of a key whose quota is exhausted when it is first used
	spentFor time.Duration // for how long, in whole seconds
}

// tally counts what the provider has done.
type tally struct {
	answers map[int]int // by status; 0: there was none; 1: a stream that broke off
	crowded int         // requests that were one more at once than their key may have
}

type upstreamKey struct {
	*upstreamAccount
	label      string
	inFlight   int
	spentUntil time.Time
}

// upstreamAccount is what keys share: how many requests they may make in a window of time.
type upstreamAccount struct {
	requests int // ever
	used     int // in the window
	reset    time.Time
}

const (
	keyAtOnce    = 4 // requests that a key may have at once
	window       = 5 * time.Second
	windowLimit  = 500                   // requests of an account in a window
	slowest      = 15 * time.Millisecond // how long an answer takes at the most
	statusOfLost = 0
	statusOfCut  = 1
)

func newUpstream(keys []demoKey, f faults, now func() time.Time) *upstream {
	u := &upstream{
		faults: f, now: now, keys: make(map[string]*upstreamKey, len(keys)), tally: tally{answers: map[int]int{}},
	}
	accounts := map[string]*upstreamAccount{}
	for i, key := range keys {
		account := accounts[key.account]
		if account == nil {
			// Not all are used up at the same time.
			account = &upstreamAccount{requests: i * f.limited / keysPerProvider}
		}
		if key.account != "" {
			accounts[key.account] = account
		}
		u.keys[key.secret] = &upstreamKey{upstreamAccount: account, label: key.label}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", u.chat)
	u.Server = httptest.NewServer(mux)
	return u
}

func (u *upstream) chat(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		newError(http.StatusBadRequest, "", "cannot be read").write(w)
		return
	}
	secret, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a := u.answer(secret, body)
	if a.status == statusOfLost {
		<-r.Context().Done() // the work is done, but its answer never comes: the caller gives up
		return
	}
	if a.header.Get("Content-Type") == "text/event-stream" {
		writeStream(w, a)
		return
	}
	a.write(w)
}

// answer answers a request. When it returns, the key has one running request less, so that the caller can send the next
// request as soon as the answer arrives.
func (u *upstream) answer(secret string, body []byte) (a answer) {
	key, failure := u.begin(secret)
	defer func() { u.end(key, &a) }()
	if failure.status != http.StatusOK {
		return failure
	}
	var request chatRequest
	if err := json.Unmarshal(body, &request); err != nil || len(request.Messages) == 0 {
		return newError(http.StatusBadRequest, "invalid_request_error", "messages: there are none")
	}
	<-time.After(rand.N(slowest))
	if request.Stream {
		a = newStream(request, complete(request))
		a.cut = failure.cut
		return a
	}
	return newAnswer(http.StatusOK, complete(request))
}

// begin notes a request and returns how it fails, or status OK. The key is nil if the secret is unknown.
func (u *upstream) begin(secret string) (*upstreamKey, answer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.requests++
	key := u.keys[secret]
	if key == nil {
		return nil, newError(http.StatusUnauthorized, "invalid_api_key", "unknown key")
	}
	now := u.now()
	key.requests++
	key.inFlight++
	if !key.reset.After(now) {
		key.used, key.reset = 0, now.Add(window)
	}
	if every(key.requests, u.faults.limited, 0) { // by somebody else, who has a key of the account too
		key.used, key.reset = windowLimit, now.Add(u.faults.rest)
	}
	return key, u.judge(key, now)
}

// judge says how a request fails.
func (u *upstream) judge(key *upstreamKey, now time.Time) answer {
	f := u.faults
	if key.label == f.spent && key.spentUntil.IsZero() {
		key.spentUntil = now.Add(f.spentFor)
	}
	switch {
	case key.label == f.revoked:
		return newError(http.StatusUnauthorized, "invalid_api_key", "the key has been revoked")
	case key.inFlight > keyAtOnce:
		u.tally.crowded++
		return newError(http.StatusTooManyRequests, "rate_limit_exceeded", "too many requests at once")
	case key.spentUntil.After(now):
		spent := newError(http.StatusTooManyRequests, "insufficient_quota", "you exceeded your current quota")
		return retryAfter(spent, key.spentUntil.Sub(now))
	case key.used >= windowLimit:
		limited := newError(http.StatusTooManyRequests, "rate_limit_exceeded", "rate limit reached")
		return retryAfter(limited, key.reset.Sub(now))
	}
	key.used++
	switch {
	case every(u.requests, f.broken, 0):
		return newError(http.StatusInternalServerError, "", "something went wrong")
	case every(u.requests, f.lost, 1):
		return answer{status: statusOfLost}
	}
	return answer{status: http.StatusOK, cut: every(u.requests, u.faults.cut, 2)}
}

// every reports whether the n-th request is one in often, counted from an offset on.
func every(n, often, offset int) bool { return often > 0 && n%often == offset%often }

// end notes how a request was answered, and tells in the answer's headers what is left of the account's limit.
func (u *upstream) end(key *upstreamKey, a *answer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	status := a.status
	if a.cut {
		status = statusOfCut
	}
	u.tally.answers[status]++
	if key == nil {
		return
	}
	key.inFlight--
	if a.header != nil {
		a.header.Set("X-Ratelimit-Limit-Requests", strconv.Itoa(windowLimit))
		a.header.Set("X-Ratelimit-Remaining-Requests", strconv.Itoa(windowLimit-key.used))
		a.header.Set("X-Ratelimit-Reset-Requests", max(0, key.reset.Sub(u.now())).Round(time.Millisecond).String())
	}
}

// counted returns what the provider has done so far.
func (u *upstream) counted() tally {
	u.mu.Lock()
	defer u.mu.Unlock()
	return tally{maps.Clone(u.tally.answers), u.tally.crowded}
}

func complete(request chatRequest) chatResponse {
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
