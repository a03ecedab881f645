package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// gateway serves chat completions: it picks a key, calls the provider, and records what that
// used. A key that was answered 429 rests for as long as the provider asks.
type gateway struct {
	reg      *registry.Registry
	client   *http.Client
	upstream string
	routes   map[string]*ent.Model // by the model a client asks for
}

// attempts bounds how many keys one request may try.
const attempts = 4

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, "request too large")
		return
	}
	var request chatRequest
	if err := json.Unmarshal(body, &request); err != nil {
		fail(w, http.StatusBadRequest, "not a chat request")
		return
	}
	model, ok := g.routes[request.Model]
	if !ok {
		fail(w, http.StatusNotFound, "no such model")
		return
	}
	response, err := g.serve(r.Context(), model, body)
	var (
		none    *registry.NoKeyError
		limited rateLimitError
	)
	switch {
	case errors.As(err, &none):
		if !none.OpensAt.IsZero() {
			retryAfter(w, time.Until(none.OpensAt))
		}
		fail(w, http.StatusServiceUnavailable, "no key available")
	case errors.As(err, &limited): // as many keys as one request may try
		retryAfter(w, limited.retryAfter)
		fail(w, http.StatusServiceUnavailable, err.Error())
	case err != nil:
		fail(w, http.StatusBadGateway, err.Error())
	default:
		writeJSON(w, http.StatusOK, response)
	}
}

// retryAfter tells a client to come back after wait, in whole seconds.
func retryAfter(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int(max(0, math.Ceil(wait.Seconds())))))
}

// rateLimitError is returned by call when the provider answers 429.
type rateLimitError struct{ retryAfter time.Duration }

func (e rateLimitError) Error() string { return fmt.Sprintf("rate limited for %s", e.retryAfter) }

func (g *gateway) serve(ctx context.Context, model *ent.Model, body []byte) (chatResponse, error) {
	var err error
	for range attempts {
		var key *ent.APIKey
		if key, err = g.reg.GetLeastUsedKey(ctx, model.ProviderID); err != nil {
			return chatResponse{}, err
		}
		start := time.Now()
		var (
			response chatResponse
			tokens   meter.Tokens
		)
		response, tokens, err = g.call(ctx, key, body)
		used := registry.UsageInput{
			ModelID: model.ID, APIKeyID: key.ID,
			Latency: time.Since(start), Failed: err != nil, Tokens: tokens,
		}
		var limited rateLimitError
		if errors.As(err, &limited) {
			used.ErrorClass, used.HTTPStatus = "rate_limited", http.StatusTooManyRequests
		}
		// What happened is recorded even if the client has gone by now.
		if recordErr := g.reg.RecordUsage(context.WithoutCancel(ctx), used); recordErr != nil {
			return chatResponse{}, recordErr
		}
		if used.ErrorClass == "" {
			return response, err
		}
		if degradeErr := g.reg.DegradeKey(ctx, key.ID, "429 Too Many Requests", limited.retryAfter); degradeErr != nil {
			return chatResponse{}, degradeErr
		}
	}
	return chatResponse{}, err
}

func (g *gateway) call(ctx context.Context, key *ent.APIKey, body []byte) (_ chatResponse, _ meter.Tokens, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, g.upstream+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return chatResponse{}, meter.Tokens{}, err
	}
	secret, err := g.reg.RevealAPIKey(ctx, key.ID)
	if err != nil {
		return chatResponse{}, meter.Tokens{}, err
	}
	err = secret.Use(func(key []byte) error {
		request.Header.Set("Authorization", "Bearer "+string(key))
		return nil
	})
	if err != nil {
		return chatResponse{}, meter.Tokens{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := g.client.Do(request)
	if err != nil {
		return chatResponse{}, meter.Tokens{}, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusTooManyRequests:
		seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
		if err != nil || seconds <= 0 {
			seconds = 60
		}
		return chatResponse{}, meter.Tokens{}, rateLimitError{time.Duration(seconds) * time.Second}
	default:
		return chatResponse{}, meter.Tokens{}, fmt.Errorf("provider answered %s", response.Status)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return chatResponse{}, meter.Tokens{}, err
	}
	var parsed chatResponse
	if err := json.Unmarshal(answer, &parsed); err != nil {
		return chatResponse{}, meter.Tokens{}, err
	}
	tokens, err := meter.Extract(meter.OpenAIChat, answer)
	return parsed, tokens, err
}
