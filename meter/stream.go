package meter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// MaxEvent bounds the bytes that a [Stream] holds: those of one event, or of a response that is
// not streamed. An event that is longer is passed over, and so is the usage in it.
const MaxEvent = 32 << 20

// Stream reads the usage of a response while the response is passed on, in pieces of any size. The response may be
// server-sent events or a single JSON body, so a gateway need not know which it asked for:
//
//	usage := meter.NewStream(meter.OpenAIChat)
//	_, err := io.Copy(client, io.TeeReader(response.Body, usage))
//	tokens, usageErr := usage.Tokens()
//
// Give events that are decoded already to [Stream.Event].
//
// A Stream is for one response and one goroutine.
type Stream struct {
	format Format
	state

	kind  bodyKind
	buf   []byte // the JSON body, or the line that is not complete yet
	data  []byte // the data lines of the event that is not complete yet
	lines int    // how many data lines that has
	cr    bool   // the last line ended in CR; an LF that follows belongs to it
	long  bool   // the line, or the body, is longer than MaxEvent
	lost  bool   // the event is longer than MaxEvent
}

type bodyKind int

const (
	unknownBody bodyKind = iota
	jsonBody
	sseBody
)

// preamble is what may stand before a body: white space and the bytes of a byte order mark.
const preamble = " \t\r\n\uFEFF"

// NewStream returns a Stream for a response of the format.
func NewStream(f Format) *Stream { return &Stream{format: f} }

// Write takes the next bytes of the response's body. It never fails, so that the response can still be passed on.
// [Stream.Tokens] returns what is wrong with the usage.
func (s *Stream) Write(p []byte) (int, error) {
	s.write(p)
	return len(p), nil
}

// Event takes an event that is decoded already: its data alone, for an SSE stream without the
// "data:", for Bedrock with or without the name of the event around it. It takes a whole
// response too. It does not keep data.
func (s *Stream) Event(data []byte) { s.event(s.format, data) }

// Tokens returns the tokens that were reported up to here. Call it when the response has ended;
// it changes nothing, so it may be called before that and again.
//
// It returns the errors of [Extract]. A stream that ended before its usage was final returns [ErrPartial], together
// with the tokens it had reported, or [ErrNoUsage] if it had reported none.
func (s *Stream) Tokens() (Tokens, error) {
	end := *s // so that what is incomplete now can be completed later
	switch {
	case end.kind == jsonBody && end.long:
		end.lose()
	case end.kind == jsonBody:
		end.body(end.buf)
	case end.kind == sseBody:
		if len(end.buf) > 0 || end.long {
			end.line(end.buf)
			end.long = false
		}
		// Bodies without an empty line at their end are common; an event that is cut is no JSON.
		if end.lost || json.Valid(end.data) || isDone(end.data) {
			end.line(nil)
		}
	}
	return end.result(s.format)
}

func isJSON(body []byte) bool { return len(body) > 0 && (body[0] == '{' || body[0] == '[') }

func (s *Stream) write(p []byte) {
	if s.kind == unknownBody {
		for len(p) > 0 && strings.IndexByte(preamble, p[0]) >= 0 {
			p = p[1:]
		}
		switch {
		case len(p) == 0:
			return
		case isJSON(p):
			s.kind = jsonBody
		default:
			s.kind = sseBody
		}
	}
	if s.kind == jsonBody {
		s.keep(p)
		return
	}
	for len(p) > 0 {
		if s.cr {
			s.cr = false
			if p[0] == '\n' {
				p = p[1:]
				continue
			}
		}
		end := bytes.IndexAny(p, "\r\n")
		if end < 0 {
			s.keep(p)
			return
		}
		line := p[:end]
		if len(s.buf) > 0 || s.long {
			s.keep(line)
			line = s.buf
		}
		s.cr = p[end] == '\r'
		p = p[end+1:]
		s.line(line)
		s.buf, s.long = reuse(s.buf), false
	}
}

// keep appends to what is not complete yet.
func (s *Stream) keep(p []byte) {
	if s.long || len(s.buf)+len(p) > MaxEvent {
		s.buf, s.long = nil, true
		return
	}
	s.buf = append(s.buf, p...)
}

// line takes a line of server-sent events, without its end. An empty one ends an event.
func (s *Stream) line(line []byte) {
	switch field, value, _ := bytes.Cut(line, []byte(":")); {
	case s.long:
		s.lost = true
	case len(line) == 0:
		if s.lost {
			s.lose()
		} else if s.lines > 0 {
			s.event(s.format, s.data)
		}
		s.data, s.lines, s.lost = reuse(s.data), 0, false
	case string(field) == "data":
		if s.lost || len(s.data)+len(value) > MaxEvent {
			s.data, s.lost = nil, true
			return
		}
		if s.lines > 0 {
			s.data = append(s.data, '\n')
		}
		s.data = append(s.data, value...) // a space before it does not matter to JSON
		s.lines++
	}
}

// reuse empties a buffer, and drops one that became large.
func reuse(b []byte) []byte {
	if cap(b) > 64<<10 {
		return nil
	}
	return b[:0]
}

// body takes a whole body of JSON: a response, or the array that Gemini streams without alt=sse.
func (s *Stream) body(body []byte) {
	if body[0] == '{' || s.format != GeminiGenerateContent {
		s.read(s.format, body, true)
		return
	}
	array := json.NewDecoder(bytes.NewReader(body))
	_, err := array.Token() // the bracket
	for err == nil && array.More() {
		var chunk json.RawMessage
		if err = array.Decode(&chunk); err == nil {
			s.event(s.format, chunk)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) { // cut off
		s.fail(badUsage("not a response: %w", err))
	}
}

// state is what the events have said so far.
type state struct {
	usage    usage // nil if there was none
	finished bool  // the output is complete; a usage from here on is final
	outdated bool  // the usage is a first count, or a later one was not readable
	final    bool  // the usage is that of the whole response
	err      error // why the last event was not readable
}

// usage is what a response reports, in the terms of its format. It is a value: an event replaces
// it.
type usage interface {
	said() bool // whether there is anything in it
	tokens() (Tokens, error)
}

// isDone reports whether the data ends a stream of OpenAI's.
func isDone(data []byte) bool { return string(bytes.TrimSpace(data)) == "[DONE]" }

// event takes the data of an event.
func (s *state) event(f Format, data []byte) {
	if isDone(data) {
		s.end()
		return
	}
	// Most events are a few words of the answer. They are not worth parsing.
	for _, mark := range formats[f].marks {
		if bytes.Contains(data, mark) {
			s.read(f, data, false)
			return
		}
	}
}

// read takes the JSON of an event or of a whole response.
func (s *state) read(f Format, data []byte, whole bool) {
	format, ok := formats[f]
	if !ok {
		return // as result tells
	}
	if err := format.read(s, data, whole); err != nil {
		s.fail(badUsage("not a response: %w", err))
	}
}

// set replaces the usage, unless the event has none.
func (s *state) set(u usage, final bool) {
	if u.said() {
		s.usage, s.final, s.outdated, s.err = u, final, false, nil
	}
}

// end notes that the stream came to its end.
func (s *state) end() { s.final = s.usage != nil && !s.outdated }

// lose notes that an event was too long to be read.
func (s *state) lose() {
	s.fail(fmt.Errorf("%w that could be read: an event is longer than %d bytes", ErrNoUsage, MaxEvent))
}

func (s *state) fail(err error) { s.err, s.outdated = err, true }

func (s *state) result(f Format) (Tokens, error) {
	if _, ok := formats[f]; !ok {
		return Tokens{}, fmt.Errorf("%w %q", ErrUnknownFormat, f)
	}
	if s.usage == nil {
		if s.err != nil {
			return Tokens{}, s.err
		}
		return Tokens{}, ErrNoUsage
	}
	tokens, err := s.usage.tokens()
	if err == nil && !s.final {
		err = ErrPartial
	}
	return tokens, err
}
