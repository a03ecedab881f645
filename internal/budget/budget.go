// Package budget decides what consumers may still spend. A budget has ceilings over windows of a calendar. What was
// spent is what ended, which is in a counter, and what is open, which leases reserve. The package runs no SQL and knows
// no graph: others read the rows and write them.
package budget

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Metric is what a ceiling bounds.
type Metric string

// The metrics.
const (
	Cost        Metric = "cost"        // nano-USD
	Tokens      Metric = "tokens"      // of all meters
	Requests    Metric = "requests"    //
	Concurrency Metric = "concurrency" // open leases; it knows no window
)

// Ceilings bound what is spent in a window. Zero means no ceiling.
type Ceilings struct {
	Cost        money.USD
	Tokens      int64
	Requests    int64
	Concurrency int64
}

// Amount is what requests took, or what one asks for.
type Amount struct {
	Requests, Tokens int64
	Cost             money.USD
	Unpriced         int64 // requests without a cost
}

// Plus returns the sum of two amounts, cut to the range of a column.
func (a Amount) Plus(b Amount) Amount {
	return Amount{
		rule.Saturated(a.Requests, b.Requests), rule.Saturated(a.Tokens, b.Tokens),
		rule.Saturated(a.Cost, b.Cost), rule.Saturated(a.Unpriced, b.Unpriced),
	}
}

// Less returns what an amount was before another was added.
func (a Amount) Less(b Amount) Amount {
	return Amount{a.Requests - b.Requests, a.Tokens - b.Tokens, a.Cost - b.Cost, a.Unpriced - b.Unpriced}
}

// Numbers returns the requests, tokens, cost and unpriced requests.
func (a Amount) Numbers() [4]int64 {
	return [...]int64{a.Requests, a.Tokens, int64(a.Cost), a.Unpriced}
}

func (a Amount) of(m Metric) int64 {
	switch m {
	case Cost:
		return int64(a.Cost)
	case Tokens:
		return a.Tokens
	}
	return a.Requests
}

// Budget is ceilings for the requests of a consumer and of all below it.
type Budget struct {
	ID, Owner uuid.UUID
	Name      string
	Window    Window
	Ceilings  Ceilings

	// Each gives every consumer of EachKind below the owner the ceilings for itself: the first one of that kind on the
	// way down. Without a kind, every child of the owner.
	Each     bool
	EachKind string

	Provider uuid.UUID // requests to its models count; zero: to all models
	Models   []string  // the provider's names, * at the end: any rest; nil: all

	Shadow        bool // it refuses nothing, and notes what it would have refused
	AllowUnpriced bool // requests that have no price pass a ceiling of cost
	Thresholds    []int
	CountsFrom    time.Time // what ended before is not in its counters
	Grants        []Grant

	last atomic.Pointer[span] // the window that was asked for last
}

type span struct{ begin, end time.Time }

// WindowOf returns the window that t lies in: see [Window.Of]. Most requests ask for the same one.
func (b *Budget) WindowOf(t time.Time) (begin, end time.Time) {
	if s := b.last.Load(); s != nil && !t.Before(s.begin) && t.Before(s.end) {
		return s.begin, s.end
	}
	begin, end = b.Window.Of(t)
	b.last.Store(&span{begin, end})
	return begin, end
}

// Grant raises ceilings for some windows: those that begin from From on, and before Until.
type Grant struct {
	Subject     uuid.UUID // zero: for every subject
	From, Until time.Time
	Ceilings    Ceilings
}

// Consumer is one of a chain from the root of the tree to the consumer that a request is for.
type Consumer struct {
	ID   uuid.UUID
	Kind string
}

// Covers reports whether requests to a model count.
func (b *Budget) Covers(provider uuid.UUID, model string) bool {
	if b.Provider != uuid.Nil && b.Provider != provider {
		return false
	}
	return b.Models == nil || rule.InModels(b.Models, model)
}

// Subject returns the consumer of a chain whose subtree a counter counts; false: the budget does not bind the chain.
func (b *Budget) Subject(chain []Consumer) (uuid.UUID, bool) {
	i := slices.IndexFunc(chain, func(c Consumer) bool { return c.ID == b.Owner })
	switch {
	case i < 0:
		return uuid.Nil, false
	case !b.Each:
		return b.Owner, true
	}
	below := chain[i+1:]
	if b.EachKind == "" {
		below = below[:min(1, len(below))]
	}
	for _, c := range below {
		if b.EachKind == "" || c.Kind == b.EachKind {
			return c.ID, true
		}
	}
	return uuid.Nil, false
}

// granted returns what grants add to the ceilings of a subject's window.
func (b *Budget) granted(subject uuid.UUID, begin time.Time) (sum Ceilings) {
	for _, g := range b.Grants {
		if g.Subject != uuid.Nil && g.Subject != subject || begin.Before(g.From) || !begin.Before(g.Until) {
			continue
		}
		sum.Cost = rule.Saturated(sum.Cost, g.Ceilings.Cost)
		sum.Tokens = rule.Saturated(sum.Tokens, g.Ceilings.Tokens)
		sum.Requests = rule.Saturated(sum.Requests, g.Ceilings.Requests)
	}
	return sum
}

func (c Ceilings) of(m Metric) int64 {
	switch m {
	case Cost:
		return int64(c.Cost)
	case Tokens:
		return c.Tokens
	case Requests:
		return c.Requests
	}
	return c.Concurrency
}
