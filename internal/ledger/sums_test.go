package ledger

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

// one is a request.
func one(latency, tokens int64) (s Sums) {
	used := meter.Tokens{InputTokens: tokens, ReasoningTokens: 2}
	s = Sums{Requests: 1, Latency: latency, Cost: 7, Tokens: InColumns(used)}
	s.Histogram.Add(latency)
	return s
}

func TestSums(t *testing.T) {
	t.Parallel()
	var s Sums
	require.Nil(t, s.KnownCost(), "of no request is the cost known")
	require.Zero(t, s.AverageLatency())
	require.NoError(t, s.Merge(one(10, 3)))
	require.NoError(t, s.Merge(one(20, 5)))
	require.EqualValues(t, 14, *s.KnownCost())
	require.InDelta(t, 15.0, s.AverageLatency(), 0)
	require.Equal(t, meter.Tokens{InputTokens: 8, ReasoningTokens: 4}, s.Meters())
	require.True(t, s.Full())

	first := one(10, 3)
	require.True(t, s.Subtract(one(20, 5)))
	require.True(t, s.Same(&first))
	first.FirstTokens.Add(0)
	require.False(t, s.Same(&first), "it has a time to the first token, and the same numbers")
	require.False(t, s.Subtract(one(20, 3)), "it is not part of the sums")
}

func TestSumsOverflow(t *testing.T) {
	t.Parallel()
	for name, large := range map[string]Sums{
		"requests": {Requests: fault.MaxAmount}, "latency": {Latency: fault.MaxAmount}, "cost": {Cost: fault.MaxAmount},
		"tokens": {Tokens: [5]int64{fault.MaxAmount}}, "retries": {Said: Said{RetryCost: fault.MaxAmount}},
	} {
		s := one(1, 1)
		s.RetryCost = 1
		require.ErrorIs(t, s.Merge(large), fault.ErrOverflow, name)
	}
}

// TestDigest: a digest changes with everything that a row says.
func TestDigest(t *testing.T) {
	t.Parallel()
	p := QuarterOf(model, key, price, noon)
	digest := func(p Period, s Sums) int64 { return DigestOf(p, &s, s.Encode()) }
	seen := map[int64]bool{digest(p, one(1, 1)): true}
	require.True(t, seen[digest(p, one(1, 1))])
	changed := []Sums{one(2, 1), one(1, 2)}
	for _, change := range []func(s *Sums){
		func(s *Sums) { s.Requests++ }, func(s *Sums) { s.Errors++ }, func(s *Sums) { s.Unpriced++ },
		func(s *Sums) { s.Cost++ }, func(s *Sums) { s.Latency++ }, func(s *Sums) { s.Tokens[4]++ },
		func(s *Sums) { s.Histogram.Add(3) },
		func(s *Sums) { s.Estimated++ }, func(s *Sums) { s.Unknown++ }, func(s *Sums) { s.Retries++ },
		func(s *Sums) { s.FirstToken++ }, func(s *Sums) { s.RetryCost++ }, func(s *Sums) { s.ProviderCost++ },
		func(s *Sums) { s.ProviderCosts++ }, func(s *Sums) { s.ComparedCost++ },
		func(s *Sums) { s.FirstTokens.Add(0) }, func(s *Sums) { s.FirstTokens.Add(3) },
	} {
		s := one(1, 1)
		change(&s)
		changed = append(changed, s)
	}
	for i, s := range changed {
		require.False(t, seen[digest(p, s)], i)
		seen[digest(p, s)] = true
	}
	for _, of := range []Period{
		p.Day(), p.Total(), QuarterOf(model, price, key, noon), QuarterOf(key, key, price, noon),
	} {
		require.False(t, seen[digest(of, one(1, 1))])
		seen[digest(of, one(1, 1))] = true
	}
}

// TestDigestStays: rows have the digests that they were stored with.
func TestDigestStays(t *testing.T) {
	t.Parallel()
	p := QuarterOf(model, key, price, noon)
	s := one(1, 1)
	require.Equal(t, int64(1780860157842493106), DigestOf(p, &s, s.Encode()))
	s.Said = Said{
		Estimated: 1, Unknown: 2, Retries: 3, ProviderCosts: 4, FirstToken: 5, RetryCost: 6, ProviderCost: 7,
		ComparedCost: 8,
	}
	s.FirstTokens.Add(5)
	require.Equal(t, int64(2513546864582514162), DigestOf(p, &s, s.Encode()))
}

// TestSumsReprice: what a part of the requests costs keeps its share of the cost, as exactly as that can be known.
func TestSumsReprice(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		was               Sums
		cost              money.USD
		retries, compared money.USD
		unpriced          int64
	}{
		"all of them": {
			was:  Sums{Requests: 3, Cost: 9, Said: Said{Retries: 3, RetryCost: 9, ProviderCosts: 3, ComparedCost: 9}},
			cost: 7, retries: 7, compared: 7,
		},
		"none": {was: Sums{Requests: 3, Cost: 10}, cost: 7},
		"by cost": {
			was:  Sums{Requests: 3, Cost: 10, Said: Said{Retries: 1, RetryCost: 5, ProviderCosts: 2, ComparedCost: 1}},
			cost: 30, retries: 15, compared: 3,
		},
		"by number, without costs": {
			was:  Sums{Requests: 4, Unpriced: 4, Said: Said{Retries: 1, ProviderCosts: 2}},
			cost: 30, retries: 7, compared: 15,
		},
		"unknown usage stays unpriced": {
			was:  Sums{Requests: 4, Unpriced: 3, Cost: 9, Said: Said{Unknown: 2}},
			cost: 30, unpriced: 2,
		},
		"free before": {
			was: Sums{Requests: 2, Said: Said{Retries: 1}}, cost: fault.MaxAmount, retries: fault.MaxAmount / 2,
		},
		"damaged": {
			was: Sums{Requests: 2, Cost: 1, Said: Said{Retries: 1, RetryCost: fault.MaxAmount}}, cost: fault.MaxAmount,
			retries: fault.MaxAmount,
		},
		"large": {
			was: Sums{
				Requests: 3, Cost: fault.MaxAmount,
				Said: Said{Retries: 2, RetryCost: fault.MaxAmount - 1, ProviderCosts: 1, ComparedCost: 1},
			},
			cost: fault.MaxAmount / 2, retries: fault.MaxAmount/2 - 1, compared: 0,
		},
	} {
		s := c.was
		s.Reprice(c.cost)
		require.Equal(t, []money.USD{c.cost, c.retries, c.compared}, []money.USD{s.Cost, s.RetryCost, s.ComparedCost},
			name)
		require.Equal(t, c.unpriced, s.Unpriced, name)
	}
}
