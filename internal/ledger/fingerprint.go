package ledger

import (
	"crypto/sha256"
	"encoding/binary"
)

// Print returns the fingerprint of what a caller says of a request: which model it used for whom, how much of it,
// by whose count, how it ended, and what the provider says it cost. Times are left out, because who repeats a call may
// measure them anew. It is never 0, which is the fingerprint of an event that has none. What is stored stays: change
// nothing.
func (e *Event) Print() int64 {
	var stack [256]byte
	b := append(stack[:0], e.Model[:]...)
	number := func(n int64) { b = binary.BigEndian.AppendUint64(b, uint64(n)) } //nolint:gosec // the bits
	for _, n := range e.Tokens {
		number(n)
	}
	number(int64(e.HTTPStatus))
	if e.Success {
		number(1)
	} else {
		number(0)
	}
	for _, text := range []string{string(e.Status), e.ErrorClass} {
		number(int64(len(text)))
		b = append(b, text...)
	}
	if e.ProviderCost != nil {
		number(int64(*e.ProviderCost))
	}
	if e.Consumer != nil {
		b = append(b, e.Consumer[:]...)
	}
	sum := sha256.Sum256(b)
	return int64(binary.BigEndian.Uint64(sum[:]) | 1) //nolint:gosec // the bits
}
