package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/jeffersonwarrior/modelscan/meter"
)

// withUsage asks the provider to say in a last event of the stream what it used: without that it says nothing.
func withUsage(body []byte) ([]byte, error) {
	var request map[string]json.RawMessage
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	request["stream_options"] = json.RawMessage(`{"include_usage":true}`)
	return json.Marshal(request)
}

// isStream reports whether the body of an answer comes as server-sent events.
func isStream(response *http.Response) bool {
	return response.StatusCode == http.StatusOK &&
		strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream")
}

// passOn sends a stream to the client as it comes. It returns when the first of it came, and the tokens that it reports
// on the way. A stream that breaks off is an error, with the tokens that were reported before; so is one that reports
// none. A client that has gone is no error: the provider goes on working, and what it reports is recorded.
func passOn(w http.ResponseWriter, response *http.Response) (began time.Time, tokens meter.Tokens, err error) {
	answer{status: http.StatusOK, header: http.Header{"Content-Type": response.Header["Content-Type"]}}.write(w)
	usage := meter.NewStream(meter.OpenAIChat)
	reader := &client{w: w, flush: http.NewResponseController(w).Flush}
	_, err = io.Copy(reader, io.TeeReader(response.Body, usage))
	tokens, missing := usage.Tokens()
	if err == nil {
		err = missing
	}
	return reader.began, tokens, err
}

// client is who reads a stream. Once it has gone, what is written to it is lost.
type client struct {
	w     io.Writer
	flush func() error
	began time.Time // when it got the first bytes
	gone  bool
}

func (c *client) Write(p []byte) (int, error) {
	if c.began.IsZero() {
		c.began = time.Now()
	}
	if !c.gone {
		_, err := c.w.Write(p)
		if err == nil {
			err = c.flush()
		}
		c.gone = err != nil
	}
	return len(p), nil
}
