package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// turnout counts what became of the calls of each user.
type turnout struct {
	mu              sync.Mutex
	served, refused map[string]int
	refusal         answer // the first one
}

func (t *turnout) add(u user, a answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.status == http.StatusOK {
		t.served[u.Name]++
		return
	}
	if t.refused[u.Name]++; t.refusal.status == 0 {
		t.refusal = a
	}
}

// serveCalls makes calls of several clients at once. The users take turns.
func serveCalls(
	ctx context.Context, cfg config, url string, routes map[string]*ent.Model, users []user, out io.Writer,
) (*turnout, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var names []string
	for name := range routes {
		names = append(names, name)
	}
	bars, bar := newBar(out, "calls", int64(cfg.calls))
	var (
		next    atomic.Int64
		clients sync.WaitGroup
		done    = &turnout{served: map[string]int{}, refused: map[string]int{}}
	)
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: cfg.clients}}
	for range cfg.clients {
		clients.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(cfg.calls) || ctx.Err() != nil {
					return
				}
				request := chatRequest{
					Model: names[i%int64(len(names))], Messages: []chatMessage{{Role: "user", Content: "Say hello."}},
					MaxTokens: 500, Stream: i%3 == 0,
				}
				u := users[i%int64(len(users))]
				tags := fmt.Sprintf("feature=%s, customer=%s", features[i%int64(len(features))],
					customers[i%int64(len(customers))])
				a, err := chat(ctx, client, url, u.secret, tags, request)
				if err != nil {
					cancel(err)
					return
				}
				done.add(u, a)
				bar.Increment()
			}
		})
	}
	clients.Wait()
	bar.Abort(false)
	bars.Wait()
	return done, context.Cause(ctx)
}

// tries bounds how often a client sends a call that the provider fails.
const tries = 5

// chat makes one call, and returns the answer: 200, or 429 if a budget refuses it. It waits as long as it is told when
// no key is free, and tries again when the provider fails or a stream breaks off.
func chat(
	ctx context.Context, client *http.Client, url string, secret registry.Secret, tags string, call chatRequest,
) (answer, error) {
	var last error
	body, err := json.Marshal(call)
	if err != nil {
		return answer{}, err
	}
	for failures := 0; failures < tries; {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return answer{}, err
		}
		if err := authorize(request, secret); err != nil {
			return answer{}, err
		}
		request.Header.Set(tagsHeader, tags)
		response, err := send(client, request)
		switch {
		case err != nil && response.status == http.StatusOK: // a stream that broke off
			failures++
			last = err
		case err != nil:
			return answer{}, err
		case response.status == http.StatusOK, response.status == http.StatusTooManyRequests:
			return response, nil
		case response.status == http.StatusServiceUnavailable:
			if err := comeBack(ctx, response); err != nil {
				return answer{}, err
			}
		default:
			last = fmt.Errorf("gateway answered %d: %s", response.status, response.body)
			if response.status != http.StatusBadGateway {
				return answer{}, last
			}
			failures++
		}
	}
	return answer{}, last
}

// comeBack waits as long as an answer says.
func comeBack(ctx context.Context, response answer) error {
	seconds, err := strconv.Atoi(response.header.Get("Retry-After"))
	if err != nil {
		return fmt.Errorf("gateway has no key, and none to wait for: %s", response.body)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(seconds) * time.Second):
		return nil
	}
}
