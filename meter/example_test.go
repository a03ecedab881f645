package meter_test

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

func ExampleExtract() {
	// 2,000 of the 2,600 input tokens came from the cache, 320 of the 371 output tokens are
	// reasoning.
	body := []byte(`{
		"object": "chat.completion",
		"choices": [{"message": {"role": "assistant", "content": "Lisbon."}, "finish_reason": "stop"}],
		"usage": {
			"prompt_tokens": 2600, "prompt_tokens_details": {"cached_tokens": 2000},
			"completion_tokens": 371, "completion_tokens_details": {"reasoning_tokens": 320}
		}
	}`)
	tokens, err := meter.Extract(meter.OpenAIChat, body)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%+v\n", tokens)

	cost, err := tokens.Cost(money.Rates{"input": 2 * money.Dollar, "cache_read": money.Dollar / 2,
		"output": 8 * money.Dollar})
	fmt.Println(cost, err)
	// Output:
	// {InputTokens:600 OutputTokens:51 CacheReadTokens:2000 CacheWriteTokens:0 ReasoningTokens:320}
	// 0.005168 <nil>
}

func ExampleStream() {
	response := strings.NewReader(`event: message_start
data: {"type":"message_start","message":{"usage":{"input_tokens":25,"cache_read_input_tokens":900,"output_tokens":2}}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello!"}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

`)
	client := io.Discard

	// The client gets the response as it comes; the usage is read on the way.
	usage := meter.NewStream(meter.AnthropicMessages)
	if _, err := io.Copy(client, io.TeeReader(response, usage)); err != nil {
		fmt.Println(err)
	}
	tokens, err := usage.Tokens()
	fmt.Printf("%+v %v\n", tokens, err)
	// Output: {InputTokens:25 OutputTokens:15 CacheReadTokens:900 CacheWriteTokens:0 ReasoningTokens:0} <nil>
}

func ExampleStream_cutOff() {
	usage := meter.NewStream(meter.AnthropicMessages)
	usage.Event([]byte(`{"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":2}}}`))
	usage.Event([]byte(`{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`))

	// The input is paid for. How much output there was, nobody said.
	tokens, err := usage.Tokens()
	fmt.Println(tokens.InputTokens, tokens.OutputTokens, errors.Is(err, meter.ErrPartial))
	// Output: 25 2 true
}
