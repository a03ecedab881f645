package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Sums is what the requests of a period add up to.
type Sums struct {
	Requests, Errors, Unpriced int64
	Tokens                     [5]int64  // in the order of TokenColumns
	Cost                       money.USD // of the priced requests
	Latency                    int64     // milliseconds
	Histogram                  latency.Histogram
}

// Merge adds other sums, or returns fault.ErrOverflow.
func (s *Sums) Merge(o Sums) error {
	if err := s.Histogram.Merge(o.Histogram); err != nil {
		return fmt.Errorf("%w: %w", fault.ErrOverflow, err)
	}
	return s.MergeNumbers(&o)
}

// MergeNumbers adds everything but the histogram.
func (s *Sums) MergeNumbers(o *Sums) error {
	fits, more := true, o.numbers()
	for i, to := range s.numbers() {
		*to += *more[i]
		fits = fits && *to >= 0 && *to <= fault.MaxAmount // two amounts overflow to a negative number
	}
	if !fits {
		return fault.ErrOverflow
	}
	return nil
}

// numbers are the amounts and the cost.
func (s *Sums) numbers() [10]*int64 {
	t := &s.Tokens
	return [...]*int64{
		&s.Requests, &s.Errors, &s.Unpriced, &s.Latency, &t[0], &t[1], &t[2], &t[3], &t[4], (*int64)(&s.Cost),
	}
}

// KnownCost returns the cost, or nil when no request has a known one.
func (s *Sums) KnownCost() *money.USD {
	if s.Unpriced == s.Requests {
		return nil
	}
	return &s.Cost
}

// AverageLatency returns the average in milliseconds.
func (s *Sums) AverageLatency() float64 {
	if s.Requests == 0 {
		return 0
	}
	return float64(s.Latency) / float64(s.Requests)
}

// Meters returns the tokens by their names.
func (s *Sums) Meters() meter.Tokens { return metersOf(s.Tokens) }

func metersOf(columns [5]int64) meter.Tokens {
	return meter.Tokens{
		InputTokens: columns[0], OutputTokens: columns[1], CacheReadTokens: columns[2],
		CacheWriteTokens: columns[3], ReasoningTokens: columns[4],
	}
}

// InColumns returns tokens in the order of TokenColumns.
func InColumns(t meter.Tokens) [5]int64 {
	return [5]int64{t.InputTokens, t.OutputTokens, t.CacheReadTokens, t.CacheWriteTokens, t.ReasoningTokens}
}

// TokenColumns are the columns of tokens.
var TokenColumns = []string{
	usage.FieldInputTokens, usage.FieldOutputTokens, usage.FieldCacheReadTokens,
	usage.FieldCacheWriteTokens, usage.FieldReasoningTokens,
}

// DigestOf returns the first 64 bits of a SHA-256 over all columns of a row except its id. It finds damage that the
// database's own checks miss because the damaged value is a valid one.
func DigestOf(p Period, s *Sums, histogram []byte) int64 {
	var stack [512]byte
	b := stack[:0]
	for _, id := range []uuid.UUID{p.Model, p.Key, p.Price} {
		b = append(b, id[:]...)
	}
	b = append(b, p.Grain...)
	known := int64(1)
	if s.KnownCost() == nil {
		known = 0
	}
	for _, n := range []int64{
		p.Start.UnixMicro(), p.End().UnixMicro(), s.Requests, s.Errors, s.Unpriced,
		s.Tokens[0], s.Tokens[1], s.Tokens[2], s.Tokens[3], s.Tokens[4], known, int64(s.Cost), s.Latency,
	} {
		b = binary.BigEndian.AppendUint64(b, uint64(n)) //nolint:gosec // the bits
	}
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(s.AverageLatency()))
	sum := sha256.Sum256(append(b, histogram...))
	return int64(binary.BigEndian.Uint64(sum[:])) //nolint:gosec // the bits
}

// SumColumns are the columns of sums in the order in which they are read.
var SumColumns = append([]string{
	usage.FieldRequestCount, usage.FieldErrorCount, usage.FieldUnpricedCount, usage.FieldTotalCost,
	usage.FieldLatencyMsSum, usage.FieldLatencyHistogram,
}, TokenColumns...)

// Cells is what SumColumns are scanned into.
type Cells struct {
	Sums
	Total     *int64
	Encoded   []byte
	Addresses []any
}

// NewCells returns cells. Their addresses follow the addresses of the columns before them.
func NewCells(before ...any) *Cells {
	c := new(Cells)
	c.Addresses = append(before, &c.Requests, &c.Errors, &c.Unpriced, &c.Total, &c.Latency, &c.Encoded)
	for i := range c.Tokens {
		c.Addresses = append(c.Addresses, &c.Tokens[i])
	}
	return c
}

// Read returns the sums that were scanned last.
func (c *Cells) Read() (s Sums, err error) {
	err = c.AddTo(&s)
	return s, err
}

// AddTo adds the sums that were scanned last to others.
func (c *Cells) AddTo(s *Sums) error {
	c.Cost = 0 // unless it is known
	if c.Total != nil {
		c.Cost = money.USD(*c.Total)
	}
	switch err := s.Histogram.MergeBinary(c.Encoded); {
	case errors.Is(err, latency.ErrRange):
		return fault.ErrOverflow
	case err != nil:
		return fmt.Errorf("%w: latency_histogram: %w", fault.ErrCorrupt, err)
	}
	return s.MergeNumbers(&c.Sums)
}

// Subtract subtracts other sums, and reports whether they were part of these.
func (s *Sums) Subtract(o Sums) bool {
	fits, less := s.Histogram.Subtract(o.Histogram) == nil, o.numbers()
	for i, from := range s.numbers() {
		*from -= *less[i]
		fits = fits && *from >= 0
	}
	return fits
}

// Amounts returns the columns that are whole numbers: requests, errors, unpriced requests, latency, and tokens.
func (s *Sums) Amounts() (all [9]int64) {
	numbers := s.numbers()
	for i := range all {
		all[i] = *numbers[i]
	}
	return all
}

// Full reports whether the histogram has all requests. Requests from before there were histograms are not in it.
func (s *Sums) Full() bool { return s.Histogram.Count() == s.Requests }

// Same reports whether two sums are equal. Histograms that are both not full are not compared.
func (s *Sums) Same(o *Sums) bool {
	return s.Amounts() == o.Amounts() && s.Cost == o.Cost &&
		(!s.Full() && !o.Full() || bytes.Equal(s.Histogram.AppendBinary(nil), o.Histogram.AppendBinary(nil)))
}

// appendCells appends the average, the digest and SumColumns of the row of a period.
func (s *Sums) appendCells(args []any, p Period) []any {
	var cost any
	if known := s.KnownCost(); known != nil {
		cost = int64(*known)
	}
	histogram := s.Histogram.AppendBinary(nil)
	args = append(args, s.AverageLatency(), DigestOf(p, s, histogram),
		s.Requests, s.Errors, s.Unpriced, cost, s.Latency, histogram)
	for _, n := range s.Tokens {
		args = append(args, n)
	}
	return args
}
