package ledger

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

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
	Said
}

// Said is what requests say of themselves beside what they used. Most say nothing of it.
type Said struct {
	Estimated, Unknown, Retries, ProviderCosts int64     // requests
	FirstToken                                 int64     // time to the first token, milliseconds
	RetryCost                                  money.USD // of the priced retries
	ProviderCost                               money.USD // what the provider says of ProviderCosts requests
	ComparedCost                               money.USD // what these cost, as far as that is known
	FirstTokens                                latency.Histogram
}

// Merge adds other sums, or returns fault.ErrOverflow.
func (s *Sums) Merge(o Sums) error {
	err := cmp.Or(s.Histogram.Merge(o.Histogram), s.FirstTokens.Merge(o.FirstTokens))
	if err != nil {
		return fmt.Errorf("%w: %w", fault.ErrOverflow, err)
	}
	return s.MergeNumbers(&o)
}

// MergeNumbers adds everything but the histograms.
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

// MergeCut is MergeNumbers, but cuts the sums to their range.
func (s *Sums) MergeCut(o *Sums) {
	more := o.numbers()
	for i, to := range s.numbers() {
		*to += min(*more[i], fault.MaxAmount-*to)
	}
}

// numbers are the amounts; some are costs.
func (s *Sums) numbers() [18]*int64 {
	t := &s.Tokens
	return [...]*int64{
		&s.Requests, &s.Errors, &s.Unpriced, &s.Latency, &t[0], &t[1], &t[2], &t[3], &t[4],
		&s.Estimated, &s.Unknown, &s.Retries, &s.FirstToken, (*int64)(&s.RetryCost), (*int64)(&s.ProviderCost),
		&s.ProviderCosts, (*int64)(&s.ComparedCost), (*int64)(&s.Cost),
	}
}

// numSaid is how many numbers Said has. They are the last ones before the cost.
const numSaid = 8

// isSilent reports whether the requests have said nothing of themselves.
func (s *Sums) isSilent() bool { return s.said() == [numSaid]int64{} && s.FirstTokens.Count() == 0 }

// said returns the numbers of Said.
func (s *Sums) said() (all [numSaid]int64) {
	numbers := s.numbers()
	for i := range all {
		all[i] = *numbers[len(numbers)-1-numSaid+i]
	}
	return all
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

// AverageFirstToken returns the average time to the first token, in milliseconds.
func (s *Sums) AverageFirstToken() float64 {
	if s.FirstTokens.Count() == 0 {
		return 0
	}
	return float64(s.FirstToken) / float64(s.FirstTokens.Count())
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

// Encoded has the histograms of a row as they are stored.
type Encoded struct{ Histogram, FirstTokens []byte }

// DigestOf returns the first 64 bits of a SHA-256 over all columns of a row except its id. It finds damage that the
// database's own checks miss because the damaged value is a valid one. The columns of Said are left out if there is
// nothing in them: digests are older than they are.
func DigestOf(p Period, s *Sums, e Encoded) int64 {
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
	b = append(b, e.Histogram...)
	if said := s.said(); said != [numSaid]int64{} || len(e.FirstTokens) > 0 {
		for _, n := range said {
			b = binary.BigEndian.AppendUint64(b, uint64(n)) //nolint:gosec // the bits
		}
		b = append(b, e.FirstTokens...)
	}
	sum := sha256.Sum256(b)
	return int64(binary.BigEndian.Uint64(sum[:])) //nolint:gosec // the bits
}

// SumColumns are the columns of sums in the order in which they are read.
var SumColumns = append([]string{
	usage.FieldRequestCount, usage.FieldErrorCount, usage.FieldUnpricedCount, usage.FieldTotalCost,
	usage.FieldLatencyMsSum, usage.FieldLatencyHistogram,
}, slices.Concat(TokenColumns, SaidColumns, []string{usage.FieldTtftHistogram})...)

// SaidColumns are the columns of Said that are numbers.
var SaidColumns = []string{
	usage.FieldEstimatedCount, usage.FieldUnknownCount, usage.FieldRetryCount, usage.FieldTtftMsSum,
	usage.FieldRetryCost, usage.FieldProviderCost, usage.FieldProviderCostCount, usage.FieldComparedCost,
}

// Cells is what SumColumns are scanned into.
type Cells struct {
	Sums
	Total     *int64
	Encoded   Encoded
	Addresses []any
}

// NewCells returns cells. Their addresses follow the addresses of the columns before them.
func NewCells(before ...any) *Cells {
	c := new(Cells)
	c.Addresses = append(before, &c.Requests, &c.Errors, &c.Unpriced, &c.Total, &c.Latency, &c.Encoded.Histogram)
	numbers := c.numbers()
	for _, n := range numbers[4 : len(numbers)-1] {
		c.Addresses = append(c.Addresses, n)
	}
	c.Addresses = append(c.Addresses, &c.Encoded.FirstTokens)
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
	if err := mergeBinary(&s.Histogram, c.Encoded.Histogram, usage.FieldLatencyHistogram); err != nil {
		return err
	}
	if err := mergeBinary(&s.FirstTokens, c.Encoded.FirstTokens, usage.FieldTtftHistogram); err != nil {
		return err
	}
	return s.MergeNumbers(&c.Sums)
}

func mergeBinary(h *latency.Histogram, encoded []byte, column string) error {
	switch err := h.MergeBinary(encoded); {
	case errors.Is(err, latency.ErrRange):
		return fault.ErrOverflow
	case err != nil:
		return fmt.Errorf("%w: %s: %w", fault.ErrCorrupt, column, err)
	}
	return nil
}

// Subtract subtracts other sums, and reports whether they were part of these.
func (s *Sums) Subtract(o Sums) bool {
	fits, less := cmp.Or(s.Histogram.Subtract(o.Histogram), s.FirstTokens.Subtract(o.FirstTokens)) == nil, o.numbers()
	for i, from := range s.numbers() {
		*from -= *less[i]
		fits = fits && *from >= 0
	}
	return fits
}

// Reprice gives requests that are priced together their cost. Those of unknown usage stay without one. If the cost of
// retries, or of requests with a provider's cost, is not that of all or none, it keeps its share.
func (s *Sums) Reprice(cost money.USD) {
	share := func(part *money.USD, requests int64) {
		of, whole := int64(*part), int64(s.Cost)
		if s.Unpriced > s.Unknown || s.Cost == 0 {
			of, whole = requests, s.Requests-s.Unknown
		}
		if whole == 0 {
			return
		}
		// A part that is larger than the whole is damage, which VerifyLedger finds.
		high, low := bits.Mul64(uint64(cost), uint64(min(of, whole))) //nolint:gosec // amounts
		quotient, _ := bits.Div64(high, low, uint64(whole))           //nolint:gosec // an amount, and not 0
		*part = money.USD(quotient)                                   //nolint:gosec // at most the cost
	}
	share(&s.RetryCost, s.Retries)
	share(&s.ComparedCost, s.ProviderCosts)
	s.Cost, s.Unpriced = cost, s.Unknown
}

// Amounts returns the columns that are numbers, but for the cost: requests, errors, unpriced requests, latency, tokens,
// and SaidColumns.
func (s *Sums) Amounts() (all [17]int64) {
	numbers := s.numbers()
	for i := range all {
		all[i] = *numbers[i]
	}
	return all
}

// Full reports whether the histogram has all requests. Requests from before there were histograms are not in it.
func (s *Sums) Full() bool { return s.Histogram.Count() == s.Requests }

// Same reports whether two sums are equal. Histograms of latencies that are both not full are not compared.
func (s *Sums) Same(o *Sums) bool {
	a, b := s.Encode(), o.Encode()
	return s.Amounts() == o.Amounts() && s.Cost == o.Cost && bytes.Equal(a.FirstTokens, b.FirstTokens) &&
		(!s.Full() && !o.Full() || bytes.Equal(a.Histogram, b.Histogram))
}

// Encode returns the histograms as they are stored. The one of first tokens is nil if it is empty.
func (s *Sums) Encode() Encoded {
	e := Encoded{Histogram: s.Histogram.AppendBinary(nil)}
	if s.FirstTokens.Count() > 0 {
		e.FirstTokens = s.FirstTokens.AppendBinary(nil)
	}
	return e
}

// appendCells appends the average, the digest and SumColumns of the row of a period.
func (s *Sums) appendCells(args []any, p Period) []any {
	var cost any
	if known := s.KnownCost(); known != nil {
		cost = int64(*known)
	}
	e := s.Encode()
	args = append(args, s.AverageLatency(), DigestOf(p, s, e),
		s.Requests, s.Errors, s.Unpriced, cost, s.Latency, e.Histogram)
	amounts := s.Amounts()
	for _, n := range amounts[4:] {
		args = append(args, n)
	}
	return append(args, e.FirstTokens)
}
