package budget

import (
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Counter is what a subject spent in a window of a budget.
type Counter struct {
	Ended   Amount
	Open    Amount // what open leases of the window reserve
	Running int64  // open leases of any window
}

// State is one ceiling, as a request finds it.
type State struct {
	Budget      *Budget
	Subject     uuid.UUID
	Begin, End  time.Time // of the window
	Metric      Metric
	Ceiling     int64 // without grants
	Granted     int64
	Ended, Open int64
	Asked       int64
	Unpriced    int64 // requests that ended without a cost, for a ceiling of cost
	NoPrice     bool  // the request would have none, and the budget does not allow that
	renews      bool  // an open lease asks for more
	held        int64 // what that lease reserves already
}

// Left returns what may still be spent; it is not negative.
func (s *State) Left() int64 {
	return max(0, rule.Saturated(s.Ceiling, s.Granted)-rule.Saturated(s.Ended, s.Open))
}

// Closed reports whether the request does not fit.
func (s *State) Closed() bool { return s.NoPrice || s.Left() < max(1, s.Asked) }

// Sooner reports whether the request fits as soon as enough open leases have ended without using what they reserve.
func (s *State) Sooner() bool {
	return s.Closed() && !s.NoPrice && s.Ended <= rule.Saturated(s.Ceiling, s.Granted)-max(1, s.Asked)-s.held
}

// OpensAt returns when the next window begins, in which the request fits; zero: it never fits, or the ceiling knows no
// window, or a lease that counts in this window asks for more.
func (s *State) OpensAt() time.Time {
	next := rule.Saturated(s.Ceiling, s.Budget.granted(s.Subject, s.End).of(s.Metric))
	if s.Metric == Concurrency || s.NoPrice || s.renews || max(1, s.Asked) > next || !s.End.Before(utc.End) {
		return time.Time{}
	}
	return s.End
}

// Request is what is asked of budgets.
type Request struct {
	At       time.Time
	Asked    Amount
	Unpriced bool // its model has no price
	// Held is what an open lease reserves already, if it is the lease that asks for more. It asks only the ceilings of
	// what it asks more of.
	Held *Amount
}

// States appends a state for each ceiling of a budget that binds a subject.
func (b *Budget) States(all []State, subject uuid.UUID, c Counter, r Request) []State {
	begin, end := b.WindowOf(r.At)
	granted := b.granted(subject, begin)
	for _, m := range [...]Metric{Cost, Tokens, Requests, Concurrency} {
		ceiling := b.Ceilings.of(m)
		if ceiling == 0 {
			continue
		}
		s := State{
			Budget: b, Subject: subject, Begin: begin, End: end, Metric: m, Ceiling: ceiling,
			Granted: granted.of(m), Ended: c.Ended.of(m), Open: c.Open.of(m), Asked: r.Asked.of(m),
		}
		switch m {
		case Cost:
			s.Unpriced, s.NoPrice = c.Ended.Unpriced, r.Unpriced && !b.AllowUnpriced
		case Requests:
			s.Asked = 1
		case Concurrency:
			s.Ended, s.Open, s.Asked, s.Granted = 0, c.Running, 1, 0
		case Tokens:
		}
		if r.Held != nil {
			if r.Asked.of(m) == 0 && !s.NoPrice {
				continue
			}
			s.renews, s.held = true, r.Held.of(m)
		}
		all = append(all, s)
	}
	return all
}

// Refuses returns the states that refuse the request, in the order given.
func Refuses(states []State) (closed []State) {
	for _, s := range states {
		if s.Closed() && !s.Budget.Shadow {
			closed = append(closed, s)
		}
	}
	return closed
}

// OpensAt returns when all of the closed ceilings let the request pass by themselves; zero: one of them never does. And
// it returns when they may pass it at the earliest, because leases end; zero: at any time; utc.End: never.
func OpensAt(closed []State) (at, earliest time.Time) {
	never := false
	for i := range closed {
		opens := closed[i].OpensAt()
		never = never || opens.IsZero()
		at = utc.Max(at, opens)
		switch {
		case closed[i].Sooner():
		case opens.IsZero():
			earliest = utc.End
		default:
			earliest = utc.Max(earliest, opens)
		}
	}
	if never {
		at = time.Time{}
	}
	return at, earliest
}

// Crossing is a threshold that a counter has passed.
type Crossing struct {
	Metric  Metric
	Percent int
	Spent   int64
	Ceiling int64 // with grants
}

// Crossings returns the thresholds of a subject's window that lie between what had ended before and what has ended
// now.
func (b *Budget) Crossings(subject uuid.UUID, begin time.Time, before, after Amount) (all []Crossing) {
	granted := b.granted(subject, begin)
	for _, m := range [...]Metric{Cost, Tokens, Requests} {
		ceiling := b.Ceilings.of(m)
		if ceiling == 0 {
			continue
		}
		ceiling = rule.Saturated(ceiling, granted.of(m))
		for _, percent := range b.Thresholds {
			at := part(ceiling, percent)
			if before.of(m) < at && after.of(m) >= at {
				all = append(all, Crossing{m, percent, after.of(m), ceiling})
			}
		}
	}
	return all
}

// part returns a percentage of an amount, rounded up, without overflow.
func part(of int64, percent int) int64 {
	p := int64(percent)
	whole, rest := of/100, of%100
	if p > 0 && whole > rule.MaxAmount/p {
		return rule.MaxAmount
	}
	return rule.Saturated(whole*p, (rest*p+99)/100)
}
