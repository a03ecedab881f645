package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
)

// chatChunk is an event of a stream: a piece of the message, or what was used.
type chatChunk struct {
	Model   string        `json:"model"`
	Choices []chunkChoice `json:"choices"`
	Usage   *chatUsage    `json:"usage,omitempty"`
}

type chunkChoice struct {
	Index int `json:"index"`
	Delta struct {
		Content string `json:"content"`
	} `json:"delta"`
}

// newStream is a response as server-sent events: a word each, then what was used if that was asked for.
func newStream(request chatRequest, response chatResponse) answer {
	var body bytes.Buffer
	event := func(chunk chatChunk) {
		text, err := json.Marshal(chunk)
		if err != nil {
			panic(err) // the types above can all be marshalled
		}
		body.WriteString("data: " + string(text) + "\n\n")
	}
	for word := range strings.SplitAfterSeq(response.Choices[0].Message.Content, " ") {
		var choice chunkChoice
		choice.Delta.Content = word
		event(chatChunk{Model: response.Model, Choices: []chunkChoice{choice}})
	}
	if request.StreamOptions.IncludeUsage {
		event(chatChunk{Model: response.Model, Choices: []chunkChoice{}, Usage: &response.Usage})
	}
	body.WriteString("data: [DONE]\n\n")
	return answer{status: http.StatusOK, header: http.Header{"Content-Type": {"text/event-stream"}}, body: body.Bytes()}
}

// writeStream writes the events of a stream one by one. One that is cut breaks off in the middle.
func writeStream(w http.ResponseWriter, a answer) {
	events := bytes.SplitAfter(a.body, []byte("\n\n"))
	if a.cut {
		events = events[:len(events)/2]
	}
	a.body = nil
	a.write(w)
	flush := http.NewResponseController(w).Flush
	for _, event := range events {
		if _, err := w.Write(event); err != nil || flush() != nil {
			return // the gateway has gone
		}
	}
	if a.cut {
		panic(http.ErrAbortHandler)
	}
}
