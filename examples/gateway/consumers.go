package main

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// authenticate says for whom a request is: its access key is where OpenAI's clients put their API key.
func (g *gateway) authenticate(r *http.Request) (registry.Caller, error) {
	secret, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return g.reg.Authenticate(r.Context(), secret)
}

// forbid is the answer to a caller who is not let in, or may not use the model.
func forbid(why *registry.ForbiddenError) answer {
	if why.Reason == registry.UnknownSecret {
		refusal := newError(http.StatusUnauthorized, "invalid_api_key", "no such access key")
		refusal.header.Set("WWW-Authenticate", "Bearer")
		return refusal
	}
	return newError(http.StatusForbidden, string(why.Reason), why.Error())
}

// overBudget is the answer to a request that does not fit into a budget: what is left, and when there is more.
func (g *gateway) overBudget(over *registry.BudgetError) answer {
	var e chatError
	e.Error.Code, e.Error.Message, e.Error.OpensAt = "over_budget", over.Error(), over.OpensAt
	for _, s := range over.Closed {
		left := budgetLeft{Budget: s.Name, Metric: string(s.Metric), Left: s.Left, Asked: s.Asked}
		if s.Metric == registry.BudgetCost {
			left.Left, left.Asked = money.USD(s.Left), money.USD(s.Asked)
		}
		e.Error.Budgets = append(e.Error.Budgets, left)
	}
	refusal := newAnswer(http.StatusTooManyRequests, e)
	switch {
	case !over.OpensAt.IsZero():
		return retryAfter(refusal, over.OpensAt.Sub(g.now()))
	case over.Sooner: // as soon as another request has ended
		return retryAfter(refusal, time.Second)
	}
	return refusal
}

// The organisation that the demo serves. The trial's budget runs out while it does.
const (
	organisation = "acme"
	trialUser    = "dan"
)

var teams = []struct {
	name  string
	users []string
}{
	{"search", []string{"ada", "ben"}}, {"support", []string{"carol", trialUser}},
}

// user is who calls the gateway.
type user struct {
	*ent.Consumer

	team   string
	secret registry.Secret // of its access key
}

// setUpConsumers makes the organisation, its teams and their users, or finds those of an earlier run; sets their
// budgets; and gives each user an access key.
func (g *gateway) setUpConsumers(ctx context.Context, trial int64) (users []user, err error) {
	top, err := g.ensure(ctx, uuid.Nil, "organisation", organisation)
	if err != nil {
		return nil, err
	}
	for _, t := range teams {
		team, err := g.ensure(ctx, top.ID, "team", t.name)
		if err != nil {
			return nil, err
		}
		for _, name := range t.users {
			u := user{team: t.name}
			if u.Consumer, err = g.ensure(ctx, team.ID, "user", name); err != nil {
				return nil, err
			}
			// The secret is shown once and kept nowhere, so each run makes a new one.
			_, u.secret, err = g.reg.CreateAccessKey(ctx, registry.AccessKeyInput{
				ConsumerID: u.ID, Label: name + "'s laptop", ExpiresAt: g.now().Add(time.Hour),
			})
			if err != nil {
				return nil, err
			}
			users = append(users, u)
		}
	}
	return users, g.setUpBudgets(ctx, top, users, trial)
}

// ensure returns a consumer. Its external id is what the gateway's own system calls it.
func (g *gateway) ensure(ctx context.Context, parent uuid.UUID, kind, name string) (*ent.Consumer, error) {
	return g.reg.EnsureConsumer(ctx, registry.ConsumerInput{
		Name: name, ParentID: parent, Kind: kind, ExternalID: kind + "/" + name,
	})
}

// setUpBudgets creates the budgets that are missing.
func (g *gateway) setUpBudgets(ctx context.Context, top *ent.Consumer, users []user, trial int64) error {
	budgets := []registry.BudgetInput{
		{ConsumerID: top.ID, Name: "all together", Ceilings: registry.Ceilings{Cost: 1000 * money.Dollar}}, // a month
		{
			ConsumerID: top.ID, Name: "each team", Ceilings: registry.Ceilings{Tokens: 500_000_000},
			Window: registry.Window{Per: budget.PerDay}, Each: true, EachKind: "team",
		},
		{
			ConsumerID: top.ID, Name: "each user", Ceilings: registry.Ceilings{Requests: 5000, Concurrency: 50},
			Window: registry.Window{Per: budget.PerMinute}, Each: true, EachKind: "user",
		},
	}
	for _, u := range users {
		if u.Name == trialUser {
			budgets = append(budgets, registry.BudgetInput{
				ConsumerID: u.ID, Name: "trial", Ceilings: registry.Ceilings{Requests: trial},
				Window: registry.Window{Per: budget.PerDay},
			})
		}
	}
	for _, in := range budgets {
		if _, err := g.reg.CreateBudget(ctx, in); err != nil && !errors.Is(err, registry.ErrConflict) {
			return err
		}
	}
	return nil
}
