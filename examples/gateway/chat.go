package main

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// What clients, the gateway and the provider say to each other: the shape of OpenAI's chat completions.

type chatRequest struct {
	Model     string        `json:"model"`
	Messages  []chatMessage `json:"messages"`
	MaxTokens int64         `json:"max_completion_tokens,omitempty"`
	Stream    bool          `json:"stream,omitempty"`

	StreamOptions streamOptions `json:"stream_options,omitzero"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
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

// chatError is the body of an answer that reports an error.
type chatError struct {
	Error struct {
		Message string `json:"message"`
		Code    string `json:"code,omitempty"`

		// Of a request that does not fit into budgets.
		OpensAt time.Time    `json:"opens_at,omitzero"` // when it would
		Budgets []budgetLeft `json:"budgets,omitempty"`
	} `json:"error"`
}

// budgetLeft is a budget that refuses a request. Amounts of cost are dollars.
type budgetLeft struct {
	Budget string `json:"budget"`
	Metric string `json:"metric"`
	Left   any    `json:"left"`
	Asked  any    `json:"asked"`
}

// maxBody bounds requests and answers.
const maxBody = 1 << 20

// answer is an HTTP answer that has been read, or is to be written.
type answer struct {
	status int // zero: there was none
	header http.Header
	body   []byte
	passed bool      // it was a stream, and the client has it, or as much as there was
	began  time.Time // when the first of that came; zero: nothing came, or it was no stream
	cut    bool      // it is a stream that is to break off
}

func newAnswer(status int, body any) answer {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // the types above can all be marshalled
	}
	return answer{status: status, header: http.Header{"Content-Type": {"application/json"}}, body: text}
}

func newError(status int, code, message string) answer {
	var e chatError
	e.Error.Code, e.Error.Message = code, message
	return newAnswer(status, e)
}

// retryAfter tells the caller to come back after wait, in whole seconds.
func retryAfter(a answer, wait time.Duration) answer {
	a.header.Set("Retry-After", strconv.Itoa(int(math.Ceil(max(0, wait).Seconds()))))
	return a
}

func (a answer) write(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // if the client is gone, there is nobody to tell
}

// authorize puts a secret into a request: an access key of the gateway, or an API key of the provider.
func authorize(request *http.Request, secret registry.Secret) error {
	return secret.Use(func(key []byte) error {
		request.Header.Set("Authorization", "Bearer "+string(key))
		return nil
	})
}

// send sends a request and reads the answer to it, or as much of that as there is.
func send(client *http.Client, request *http.Request) (a answer, err error) {
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	return read(response)
}

func read(response *http.Response) (answer, error) {
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	return answer{status: response.StatusCode, header: response.Header, body: body}, err
}
