package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// printSpending prints who was let in, what budgets refused, and what is left of them.
func (g *gateway) printSpending(ctx context.Context, users []user, calls *turnout, out io.Writer) error {
	fmt.Fprintln(out)
	t := newTable(out, "Who was let in", "user", "team", "served", "over budget")
	var trial user
	for _, u := range users {
		t.AppendRow([]any{u.Name, u.team, calls.served[u.Name], calls.refused[u.Name]})
		if u.Name == trialUser {
			trial = u
		}
	}
	t.Render()
	if refusal := calls.refusal; refusal.status != 0 {
		fmt.Fprintf(out, "The first refusal: %d %s, Retry-After: %s\n%s\n", refusal.status,
			http.StatusText(refusal.status), refusal.header.Get("Retry-After"), refusal.body)
	}
	if err := g.printCrossings(ctx, out); err != nil {
		return err
	}
	return g.printBudgets(ctx, trial, out)
}

// printCrossings prints what crossed a threshold since somebody last looked, and notes that it has been seen. A service
// would send messages instead.
func (g *gateway) printCrossings(ctx context.Context, out io.Writer) error {
	t := newTable(out, "Budgets crossed since somebody looked", "budget", "of", "event", "metric", "spent", "of")
	var seen []uuid.UUID
	for c, err := range registry.All(ctx, g.reg.ListBudgetCrossings, registry.CrossingFilter{}) {
		if err != nil {
			return err
		}
		b, err := g.reg.GetBudget(ctx, c.BudgetID)
		if err != nil {
			return err
		}
		of, err := g.reg.GetConsumer(ctx, c.SubjectID)
		if err != nil {
			return err
		}
		event, metric := string(c.Kind), registry.BudgetMetric(c.Metric)
		if c.Percent > 0 {
			event = fmt.Sprintf("%s %d %%", c.Kind, c.Percent)
		}
		t.AppendRow([]any{b.Name, of.Name, event, metric, amount(metric, c.Spent), amount(metric, c.Ceiling)})
		seen = append(seen, c.ID)
	}
	if len(seen) == 0 {
		fmt.Fprintln(out, "\nNo budget was crossed since somebody looked.")
		return nil
	}
	fmt.Fprintln(out)
	t.Render()
	return g.reg.AckBudgetCrossings(ctx, seen...)
}

// printBudgets prints all ceilings that bind the next request of a user, from the organisation's down.
func (g *gateway) printBudgets(ctx context.Context, u user, out io.Writer) error {
	m := g.routes["openai/gpt-5.4"]
	states, err := g.reg.ExplainBudgets(ctx, registry.AcquireInput{
		ProviderID: m.ProviderID, ModelID: m.ID, ConsumerID: u.ID,
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	t := newTable(out, "What "+u.Name+" may still spend", "budget", "metric", "ended", "open", "left", "until", "")
	for _, s := range states {
		mark := ""
		switch {
		case s.Closed:
			mark = "closed"
		case s.Binding:
			mark = "the tightest"
		}
		t.AppendRow([]any{
			s.Name, s.Metric, amount(s.Metric, s.Ended), amount(s.Metric, s.Open), amount(s.Metric, s.Left),
			s.End.Format(time.DateTime), mark,
		})
	}
	t.Render()
	return nil
}

// amount shows what a ceiling bounds: cost is in nano-dollars.
func amount(metric registry.BudgetMetric, n int64) any {
	if metric == registry.BudgetCost {
		return "$" + money.USD(n).String()
	}
	return n
}
