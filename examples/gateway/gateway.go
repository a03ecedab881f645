package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// gateway serves chat completions: it asks who calls, leases a key for each call to the provider, and ends the lease
// with what the call used or how it failed. Whether the caller may still spend, which key is used, and how long one
// that failed is not, is the registry's business.
type gateway struct {
	reg      *registry.Registry
	client   *http.Client // its timeout bounds a call
	now      func() time.Time
	upstream string
	routes   map[string]*ent.Model // by the model a client asks for
}

const (
	attempts = 4                      // keys that one request may try
	patience = 500 * time.Millisecond // how long a request waits for a key to become free
	margin   = 5 * time.Second        // how much longer than a call a lease may take: it is ended in a transaction
)

// providerError is returned for a call that the provider did not answer as it should.
type providerError struct {
	registry.Diagnosis
	answer answer
}

func (e *providerError) Error() string { return fmt.Sprintf("%s: %s", e.Class, e.Reason) }

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	caller, err := g.authenticate(r)
	if err != nil {
		g.refusal(err).write(w)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		newError(http.StatusRequestEntityTooLarge, "", "request too large").write(w)
		return
	}
	var request chatRequest
	if err := json.Unmarshal(body, &request); err != nil {
		newError(http.StatusBadRequest, "", "not a chat request").write(w)
		return
	}
	model, ok := g.routes[request.Model]
	if !ok {
		newError(http.StatusNotFound, "", "no such model").write(w)
		return
	}
	if request.Stream {
		if body, err = withUsage(body); err != nil {
			newError(http.StatusBadRequest, "", "not a chat request").write(w)
			return
		}
	}
	tags, err := tagsOf(r)
	if err != nil {
		newError(http.StatusBadRequest, "", err.Error()).write(w)
		return
	}
	response, err := g.serve(r.Context(), registry.AcquireInput{
		ProviderID: model.ProviderID, ModelID: model.ID,
		ConsumerID: caller.ConsumerID, AccessKeyID: caller.AccessKeyID, Tags: tags,
		EstimatedTokens:       int64(len(body)/4) + request.MaxTokens, // four characters make a token, roughly
		EstimatedOutputTokens: request.MaxTokens,
		TTL:                   g.client.Timeout + margin,
	}, body, w)
	switch {
	case response.passed && err != nil:
		panic(http.ErrAbortHandler) // the client sees that the stream has broken off
	case response.passed:
	case err != nil:
		g.refusal(err).write(w)
	default:
		response.write(w)
	}
}

// refusal is what a client is told of an error.
func (g *gateway) refusal(err error) answer {
	var (
		forbidden *registry.ForbiddenError
		over      *registry.BudgetError
		none      *registry.NoKeyError
		failed    *providerError
	)
	switch {
	case errors.As(err, &forbidden):
		return forbid(forbidden)
	case errors.As(err, &over):
		return g.overBudget(over)
	case errors.As(err, &none):
		refusal := newError(http.StatusServiceUnavailable, "", "no key available")
		if opens := g.opens(none); !opens.IsZero() {
			return retryAfter(refusal, opens.Sub(g.now()))
		}
		return refusal
	case errors.Is(err, registry.ErrInvalidData): // such as a tag of no dimension
		return newError(http.StatusBadRequest, "", err.Error())
	case errors.As(err, &failed) && failed.Class == registry.FailureBadRequest && failed.answer.status != 0:
		header := http.Header{"Content-Type": failed.answer.header["Content-Type"]}
		return answer{status: failed.answer.status, header: header, body: failed.answer.body}
	}
	return newError(http.StatusBadGateway, "", err.Error())
}

// opens returns when it is worth to ask for a key again, zero: nobody knows. A key that is only busy is free in a
// moment, however long others are out.
func (g *gateway) opens(none *registry.NoKeyError) time.Time {
	if soon := g.now().Add(time.Second); none.Sooner && (none.OpensAt.IsZero() || none.OpensAt.After(soon)) {
		return soon
	}
	return none.OpensAt
}

// serve tries keys until one is answered; each try is recorded as an attempt of one group. It passes a stream on to w;
// any other answer is the caller's to write.
func (g *gateway) serve(
	ctx context.Context, in registry.AcquireInput, body []byte, w http.ResponseWriter,
) (answer, error) {
	var failed *providerError
	in.AttemptGroup = uuid.NewString()
	for in.Attempt = 1; in.Attempt <= attempts; in.Attempt++ {
		lease, err := g.acquire(ctx, in)
		if errors.Is(err, registry.ErrNoKeyAvailable) && failed != nil &&
			(failed.Class == registry.FailureServer || failed.Class == registry.FailureTimeout) {
			return answer{}, failed // it is the provider's fault, and there is no other key to try
		}
		if err != nil {
			return answer{}, err
		}
		response, err := g.attempt(ctx, lease, body, w)
		if !errors.As(err, &failed) || failed.Class == registry.FailureBadRequest || response.passed {
			return response, err // no other key would do better, or it comes too late
		}
		in.Exclude = append(in.Exclude, lease.KeyID)
	}
	return answer{}, failed
}

// acquire waits a moment when there is no key: most that are busy are free soon.
func (g *gateway) acquire(ctx context.Context, in registry.AcquireInput) (*registry.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	in.Wait = true
	return g.reg.AcquireKey(ctx, in)
}

// attempt calls the provider once and ends the lease.
func (g *gateway) attempt(
	ctx context.Context, lease *registry.Lease, body []byte, w http.ResponseWriter,
) (answer, error) {
	end := context.WithoutCancel(ctx) // what happened is recorded even if the client has gone by now
	request, err := g.newRequest(end, lease, body)
	if err != nil { // nothing was sent
		return answer{}, errors.Join(err, lease.Release(end))
	}
	start := time.Now()
	response, tokens, err := g.call(request, w)
	used := registry.UsageInput{Tokens: tokens, Latency: time.Since(start), HTTPStatus: response.status}
	if !response.began.IsZero() {
		used.TimeToFirstToken = response.began.Sub(start)
	}
	if err == nil && response.status == http.StatusOK {
		lease.ObserveHeaders(response.header)
		return response, lease.Settle(end, used)
	}
	failure := registry.Failure{
		Status: response.status, Header: response.header, Body: response.body, Err: err, Usage: used,
	}
	diagnosis, err := lease.Fail(end, failure) // it takes the headers, too
	if err != nil {
		return response, err
	}
	return response, &providerError{diagnosis, response}
}

// call sends a request, and returns the answer with the tokens that it reports. A stream has been passed on to w.
func (g *gateway) call(request *http.Request, w http.ResponseWriter) (a answer, tokens meter.Tokens, err error) {
	response, err := g.client.Do(request)
	if err != nil {
		return answer{}, meter.Tokens{}, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if isStream(response) {
		a = answer{status: response.StatusCode, header: response.Header, passed: true}
		a.began, tokens, err = passOn(w, response)
		return a, tokens, err
	}
	if a, err = read(response); err == nil && a.status == http.StatusOK {
		tokens, err = meter.Extract(meter.OpenAIChat, a.body)
	}
	return a, tokens, err
}

// newRequest makes the request to the provider. It goes on when the client has gone: the provider reports what it used
// at the end.
func (g *gateway) newRequest(ctx context.Context, lease *registry.Lease, body []byte) (*http.Request, error) {
	request, err := http.NewRequestWithContext(
		ctx, http.MethodPost, g.upstream+"/v1/chat/completions", bytes.NewReader(body),
	)
	if err != nil {
		return nil, err
	}
	secret, err := lease.Reveal(ctx)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	return request, authorize(request, secret)
}
