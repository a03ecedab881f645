package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// BudgetMetric is what a ceiling bounds.
type BudgetMetric string

// The metrics.
const (
	BudgetCost        = BudgetMetric(budget.Cost)        // nano-USD
	BudgetTokens      = BudgetMetric(budget.Tokens)      // of all meters
	BudgetRequests    = BudgetMetric(budget.Requests)    //
	BudgetConcurrency = BudgetMetric(budget.Concurrency) // leases that are open at once
)

// BudgetState is one ceiling, as a request finds it. The amounts of [BudgetCost] are nano-USD; JSON has them in
// dollars.
type BudgetState struct {
	BudgetID   uuid.UUID
	Name       string    // of the budget
	OwnerID    uuid.UUID // the consumer whose budget it is
	SubjectID  uuid.UUID // the consumer that is counted, with all below it
	Begin, End time.Time // of the window
	Metric     BudgetMetric
	Ceiling    int64
	Granted    int64 // in addition to the ceiling
	Ended      int64 // what requests of the window took that have ended
	Open       int64 // what leases of the window reserve
	Left       int64 // of ceiling and grants
	Asked      int64 // by this request
	Unpriced   int64 // requests of the window that have ended without a cost, for BudgetCost
	NoPrice    bool  // the budget refuses the request because its model has no price
	Shadow     bool  // it refuses nothing
	Closed     bool  // the request does not fit
	Binding    bool  // of all ceilings that refuse requests, it has the least left, by its share
}

func stateOf(s *budget.State) BudgetState {
	return BudgetState{
		BudgetID: s.Budget.ID, Name: s.Budget.Name, OwnerID: s.Budget.Owner, SubjectID: s.Subject,
		Begin: s.Begin, End: s.End, Metric: BudgetMetric(s.Metric), Ceiling: s.Ceiling, Granted: s.Granted,
		Ended: s.Ended, Open: s.Open, Left: s.Left(), Asked: s.Asked, Unpriced: s.Unpriced, NoPrice: s.NoPrice,
		Shadow: s.Budget.Shadow, Closed: s.Closed(),
	}
}

func statesOf(states []budget.State) []BudgetState {
	all := make([]BudgetState, len(states))
	binding := -1
	share := func(s BudgetState) float64 { return float64(s.Left) / (float64(s.Ceiling) + float64(s.Granted)) }
	for i := range states {
		all[i] = stateOf(&states[i])
		if !all[i].Shadow && (binding < 0 || share(all[i]) < share(all[binding])) {
			binding = i
		}
	}
	if binding >= 0 {
		all[binding].Binding = true
	}
	return all
}

// String says what is left, such as "$1.5 of $10 cost".
func (s BudgetState) String() string {
	show := func(n int64) string {
		if s.Metric == BudgetCost {
			return "$" + money.USD(n).String()
		}
		return fmt.Sprint(n)
	}
	if s.NoPrice {
		return fmt.Sprintf("%q: the model has no price", s.Name)
	}
	return fmt.Sprintf("%q: %s of %s %s left, %s asked", s.Name, show(s.Left), show(s.Ceiling+s.Granted), s.Metric,
		show(s.Asked))
}

// MarshalJSON shows amounts of cost in dollars.
func (s BudgetState) MarshalJSON() ([]byte, error) {
	type plain BudgetState
	if s.Metric != BudgetCost {
		return json.Marshal(plain(s))
	}
	return json.Marshal(struct {
		plain

		// These hide the plain ones.
		Ceiling, Granted, Ended, Open, Left, Asked *struct{} `json:",omitempty"`

		CeilingUSD, GrantedUSD, EndedUSD, OpenUSD, LeftUSD, AskedUSD money.USD
	}{
		plain: plain(s), CeilingUSD: money.USD(s.Ceiling), GrantedUSD: money.USD(s.Granted),
		EndedUSD: money.USD(s.Ended), OpenUSD: money.USD(s.Open), LeftUSD: money.USD(s.Left),
		AskedUSD: money.USD(s.Asked),
	})
}

// BudgetError is the error for a request that does not fit into budgets. It matches [ErrBudget].
type BudgetError struct {
	Closed []BudgetState // the ceilings that refuse it
	// OpensAt is when the last of them opens by itself. Zero: time alone does not open it, because the request asks for
	// more than there ever is, or the ceiling knows no window, or an open lease is to be renewed.
	OpensAt time.Time
	// Sooner reports whether the request may fit before OpensAt, when open requests end.
	Sooner bool

	waits    bool      // waiting makes sense
	earliest time.Time // it does not fit before this
}

func overBudget(closed []budget.State) error {
	e := &BudgetError{waits: true}
	e.OpensAt, e.earliest = budget.OpensAt(closed)
	e.Sooner = e.earliest.Before(utc.End) && (e.OpensAt.IsZero() || e.earliest.Before(e.OpensAt))
	for i := range closed {
		s := &closed[i]
		e.Closed = append(e.Closed, stateOf(s))
		short := !s.OpensAt().IsZero() && s.End.Sub(s.Begin) <= time.Hour
		e.waits = e.waits && (short || s.Sooner())
	}
	return e
}

// Error names the ceilings, with what is left, and when the request fits.
func (e *BudgetError) Error() string {
	texts := make([]string, len(e.Closed))
	for i, s := range e.Closed {
		texts[i] = s.String()
	}
	text := fmt.Sprintf("%s: %s", ErrBudget, strings.Join(texts, "; "))
	if !e.OpensAt.IsZero() {
		text += ", opens at " + e.OpensAt.Format(time.RFC3339)
	}
	return text
}

// Unwrap returns [ErrBudget].
func (*BudgetError) Unwrap() error { return ErrBudget }

// ExplainBudgets returns all ceilings that bind a request, as it would find them now: from the root of the tree to its
// consumer. It reserves nothing. It returns [ErrInvalidData] if the input breaks a rule, and [ErrForeignKey] if the
// consumer or the model is unknown.
func (r *Registry) ExplainBudgets(ctx context.Context, in AcquireInput) ([]BudgetState, error) {
	const op = "explain budgets"
	in.Wait, in.TTL = false, minTTL
	f := in.faults(r.inTx)
	f.Check(in.ConsumerID != uuid.Nil || in.AccessKeyID != uuid.Nil, "there is no consumer")
	if err := f.Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	a := in.asking()
	var states []budget.State
	now := r.now()
	err := r.inOneState(ctx, func(client *ent.Client) (err error) {
		states, err = r.commits.States(ctx, client, now, a)
		return err
	})
	if err != nil {
		return nil, translate(ctx, op, err)
	}
	return statesOf(states), nil
}
