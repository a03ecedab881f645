package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
)

const helloStream = `{"model": "openai/gpt-5.4", "stream": true, "messages": [{"role": "user", "content": "Say` +
	` hello."}]}`

// events returns the requests that were recorded.
func (f *fixture) events(t *testing.T) []*ent.UsageEvent {
	t.Helper()
	events, err := f.reg.ListUsageEvents(t.Context(), registry.EventFilter{})
	require.NoError(t, err)
	return events
}

// TestStream: a stream reaches the client as it is, and what it used is recorded.
func TestStream(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	answer := f.chat(t.Context(), helloStream)
	require.Equal(t, http.StatusOK, answer.Code)
	require.Equal(t, "text/event-stream", answer.Header().Get("Content-Type"))
	require.True(t, answer.Flushed, "events are not held back")
	body := answer.Body.String()
	require.Contains(t, body, `"content":"Hello "`)
	require.True(t, strings.HasSuffix(body, "data: [DONE]\n\n"), body)
	events := f.events(t)
	require.Len(t, events, 1)
	require.True(t, events[0].Success)
	require.NotZero(t, events[0].InputTokens)
	require.Equal(t, f.users["ada"].ID, *events[0].ConsumerID)
	require.NotZero(t, events[0].OutputTokens)
	require.NotNil(t, events[0].TtftMs)
	require.LessOrEqual(t, *events[0].TtftMs, events[0].LatencyMs)
}

// TestStreamBegan: a stream begins with the first of it that comes, not with its header and not with its end.
func TestStreamBegan(t *testing.T) {
	t.Parallel()
	var before, after time.Time
	body := io.MultiReader(
		readerFunc(func() { before = time.Now() }), strings.NewReader("data: {}\n\n"),
		readerFunc(func() { after = time.Now() }),
	)
	began, _, err := passOn(httptest.NewRecorder(), &http.Response{Body: io.NopCloser(body)})
	require.ErrorIs(t, err, meter.ErrNoUsage)
	require.WithinRange(t, began, before, after)

	began, _, err = passOn(httptest.NewRecorder(), &http.Response{Body: http.NoBody})
	require.Error(t, err)
	require.Zero(t, began)
}

// readerFunc does something when it is read, and is empty.
type readerFunc func()

func (do readerFunc) Read([]byte) (int, error) {
	do()
	return 0, io.EOF
}

// TestStreamCut: a stream that breaks off is a failure that is recorded; the client sees it, and may ask again.
func TestStreamCut(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{cut: 1})
	require.NotContains(t, f.readBroken(t), "[DONE]")
	require.Equal(t, tally{answers: map[int]int{statusOfCut: 1}}, f.provider.counted(),
		"what was passed on is not asked for again")
	f.requireEstimated(t)
	require.Equal(t, keysPerProvider, f.usable(t))
}

// readBroken returns what comes of a stream that breaks off.
func (f *fixture) readBroken(t *testing.T) string {
	t.Helper()
	front := httptest.NewServer(f)
	defer front.Close()
	response, err := front.Client().Do(f.newCall(t.Context(), front.URL, helloStream))
	require.NoError(t, err)
	defer func() { require.NoError(t, response.Body.Close()) }()
	body, err := io.ReadAll(response.Body)
	require.Error(t, err)
	return string(body)
}

// requireEstimated requires that one request was recorded: it failed, and costs what it was expected to use.
func (f *fixture) requireEstimated(t *testing.T) {
	t.Helper()
	events := f.events(t)
	require.Len(t, events, 1)
	require.False(t, events[0].Success)
	require.Equal(t, string(registry.FailureServer), events[0].ErrorClass)
	require.Equal(t, usageevent.UsageStatusEstimated, events[0].UsageStatus, "nobody knows what it used")
	require.NotZero(t, events[0].InputTokens+events[0].OutputTokens)
	require.NotNil(t, events[0].Cost)
	require.Positive(t, *events[0].Cost)
}

// TestStreamWithoutUsage: a stream that ends in order, but never says what it used, costs something too.
func TestStreamWithoutUsage(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeStream(w, newStream(chatRequest{}, chatResponse{Choices: []chatChoice{{}}}))
	}))
	defer provider.Close()
	f.upstream = provider.URL
	require.Contains(t, f.readBroken(t), "[DONE]")
	f.requireEstimated(t)
}

// TestStreamLeft: what a client used that went away in the middle is recorded.
func TestStreamLeft(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	served := make(chan struct{})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(served)
		f.ServeHTTP(w, r)
	}))
	defer front.Close()
	ctx, leave := context.WithCancel(t.Context())
	response, err := front.Client().Do(f.newCall(ctx, front.URL, helloStream))
	require.NoError(t, err)
	_, err = bufio.NewReader(response.Body).ReadString('\n')
	require.NoError(t, err)
	leave()
	require.NoError(t, response.Body.Close())
	<-served
	events := f.events(t)
	require.Len(t, events, 1)
	require.True(t, events[0].Success)
	require.NotZero(t, events[0].OutputTokens)
}
