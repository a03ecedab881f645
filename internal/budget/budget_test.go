package budget_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

func id(n byte) uuid.UUID { return uuid.UUID{15: n} }

func at(t *testing.T, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	return parsed.UTC()
}

func TestCovers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		budget   *budget.Budget
		provider byte
		model    string
		want     bool
	}{
		"everything":               {&budget.Budget{}, 1, "gpt-4", true},
		"the provider":             {&budget.Budget{Provider: id(1)}, 1, "gpt-4", true},
		"another provider":         {&budget.Budget{Provider: id(2)}, 1, "gpt-4", false},
		"the model":                {&budget.Budget{Provider: id(1), Models: []string{"o", "gpt-4"}}, 1, "gpt-4", true},
		"a longer name":            {&budget.Budget{Models: []string{"gpt-4"}}, 1, "gpt-4o", false},
		"any rest":                 {&budget.Budget{Models: []string{"gpt-4*"}}, 1, "gpt-4o", true},
		"any rest, also none":      {&budget.Budget{Models: []string{"gpt-4*"}}, 1, "gpt-4", true},
		"an empty list of models":  {&budget.Budget{Models: []string{}}, 1, "gpt-4", false},
		"the model of another one": {&budget.Budget{Provider: id(2), Models: []string{"gpt-4"}}, 1, "gpt-4", false},
	} {
		require.Equal(t, test.want, test.budget.Covers(id(test.provider), test.model), name)
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	chain := []budget.Consumer{{id(1), "organisation"}, {id(2), "team"}, {id(3), "team"}, {id(4), "user"}}
	for name, test := range map[string]struct {
		budget *budget.Budget
		want   byte // 0: it does not bind
	}{
		"pooled":                       {&budget.Budget{Owner: id(2)}, 2},
		"pooled, the consumer's own":   {&budget.Budget{Owner: id(4)}, 4},
		"pooled, of another":           {&budget.Budget{Owner: id(9)}, 0},
		"each child":                   {&budget.Budget{Owner: id(2), Each: true}, 3},
		"each team: the first below":   {&budget.Budget{Owner: id(1), Each: true, EachKind: "team"}, 2},
		"each team below a team":       {&budget.Budget{Owner: id(2), Each: true, EachKind: "team"}, 3},
		"each user":                    {&budget.Budget{Owner: id(1), Each: true, EachKind: "user"}, 4},
		"each of a kind that is above": {&budget.Budget{Owner: id(3), Each: true, EachKind: "team"}, 0},
		"each child of a leaf":         {&budget.Budget{Owner: id(4), Each: true}, 0},
	} {
		subject, binds := test.budget.Subject(chain)
		require.Equal(t, test.want != 0, binds, name)
		require.Equal(t, id(test.want), subject, name)
	}
}

// dollars are a budget of a month that has 10 dollars, 1,000 tokens, 5 requests and 2 at once.
func dollars() *budget.Budget {
	return &budget.Budget{
		ID: id(7), Owner: id(1), Window: budget.Window{Per: budget.Month, Zone: time.UTC, Day: 1},
		Ceilings:   budget.Ceilings{Cost: 10 * money.Dollar, Tokens: 1000, Requests: 5, Concurrency: 2},
		Thresholds: []int{80, 100},
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-07-15T12:00:00Z")
	next := at(t, "2026-08-01T00:00:00Z")
	for name, test := range map[string]struct {
		change  func(b *budget.Budget)
		counter budget.Counter
		asked   budget.Amount
		noPrice bool
		closed  []budget.Metric
		opens   time.Time
		sooner  bool
	}{
		"nothing is spent": {asked: budget.Amount{Tokens: 1000, Cost: 10 * money.Dollar}},
		"a token too many": {
			counter: budget.Counter{Ended: budget.Amount{Tokens: 1}}, asked: budget.Amount{Tokens: 1000},
			closed: []budget.Metric{budget.Tokens}, opens: next,
		},
		"who asks for nothing takes one": {
			counter: budget.Counter{Ended: budget.Amount{Tokens: 1000}},
			closed:  []budget.Metric{budget.Tokens}, opens: next,
		},
		"what is open counts, and may end sooner": {
			counter: budget.Counter{Open: budget.Amount{Cost: 10 * money.Dollar, Requests: 1}, Running: 1},
			closed:  []budget.Metric{budget.Cost}, opens: next, sooner: true,
		},
		"what ended does not come back": {
			counter: budget.Counter{
				Ended: budget.Amount{Cost: 10 * money.Dollar, Requests: 4},
				Open:  budget.Amount{Requests: 1}, Running: 1,
			},
			closed: []budget.Metric{budget.Cost, budget.Requests}, opens: next,
		},
		"concurrency knows no window": {
			counter: budget.Counter{Running: 2}, closed: []budget.Metric{budget.Concurrency}, sooner: true,
		},
		"more than there ever is": {
			asked: budget.Amount{Tokens: 1001}, closed: []budget.Metric{budget.Tokens},
		},
		"without a price": {noPrice: true, closed: []budget.Metric{budget.Cost}},
		"without a price, allowed": {
			change: func(b *budget.Budget) { b.AllowUnpriced = true }, noPrice: true,
		},
		"a shadow refuses nothing": {
			change:  func(b *budget.Budget) { b.Shadow = true },
			counter: budget.Counter{Ended: budget.Amount{Tokens: 1000}},
		},
		"a grant for this window": {
			change: func(b *budget.Budget) {
				b.Grants = []budget.Grant{
					{From: at(t, "2026-07-01T00:00:00Z"), Until: next, Ceilings: budget.Ceilings{Tokens: 7}},
					{Subject: id(1), From: utc.Beginning, Until: utc.End, Ceilings: budget.Ceilings{Tokens: 1}},
					{Subject: id(2), From: utc.Beginning, Until: utc.End, Ceilings: budget.Ceilings{Tokens: 100}},
					{From: next, Until: utc.End, Ceilings: budget.Ceilings{Tokens: 100}},
				}
			},
			counter: budget.Counter{Ended: budget.Amount{Tokens: 1000}}, asked: budget.Amount{Tokens: 8},
		},
		"a grant for the next window only": {
			change: func(b *budget.Budget) {
				b.Grants = []budget.Grant{{From: next, Until: utc.End, Ceilings: budget.Ceilings{Tokens: 100}}}
			},
			asked: budget.Amount{Tokens: 1100}, closed: []budget.Metric{budget.Tokens}, opens: next,
		},
		"a full counter": {
			change: func(b *budget.Budget) { b.Ceilings = budget.Ceilings{Tokens: rule.MaxAmount} },
			counter: budget.Counter{
				Ended: budget.Amount{Tokens: rule.MaxAmount}, Open: budget.Amount{Tokens: rule.MaxAmount},
			},
			asked: budget.Amount{Tokens: rule.MaxAmount}, closed: []budget.Metric{budget.Tokens}, opens: next,
		},
	} {
		b := dollars()
		if test.change != nil {
			test.change(b)
		}
		states := b.States(nil, id(1), test.counter, budget.Request{At: now, Asked: test.asked, Unpriced: test.noPrice})
		closed := budget.Refuses(states)
		var metrics []budget.Metric
		for _, s := range closed {
			metrics = append(metrics, s.Metric)
		}
		require.Equal(t, test.closed, metrics, name)
		if len(closed) > 0 {
			opens, earliest := budget.OpensAt(closed)
			require.Equal(t, test.opens, opens, name)
			switch {
			case test.sooner:
				require.Zero(t, earliest, name)
			case opens.IsZero():
				require.Equal(t, utc.End, earliest, name)
			default:
				require.Equal(t, opens, earliest, name)
			}
		}
	}
}

// A minute that is used up and an hour that is held: the request may fit with the next minute.
func TestOpensAt(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-07-15T12:00:30Z")
	minute := &budget.Budget{Window: budget.Window{Per: budget.Minute}, Ceilings: budget.Ceilings{Requests: 1}}
	hour := &budget.Budget{
		Window: budget.Window{Per: budget.Hour, Zone: time.UTC}, Ceilings: budget.Ceilings{Requests: 1},
	}
	one := budget.Amount{Requests: 1}
	closed := minute.States(nil, id(1), budget.Counter{Ended: one}, budget.Request{At: now})
	closed = hour.States(closed, id(1), budget.Counter{Open: one}, budget.Request{At: now})
	opens, earliest := budget.OpensAt(closed)
	require.Equal(t, at(t, "2026-07-15T13:00:00Z"), opens)
	require.Equal(t, at(t, "2026-07-15T12:01:00Z"), earliest)
}

// TestRenewedStates: a lease that asks for more asks the ceilings of what it asks more of, in its own window.
func TestRenewedStates(t *testing.T) {
	t.Parallel()
	b := &budget.Budget{
		Ceilings: budget.Ceilings{Cost: 10, Tokens: 10, Requests: 1, Concurrency: 1},
		Window:   budget.Window{Per: budget.Day, Zone: time.UTC},
	}
	open := budget.Amount{Requests: 1, Tokens: 6, Cost: 6}
	states := func(ended, tokens int64, unpriced bool) []budget.State {
		c := budget.Counter{Ended: budget.Amount{Tokens: ended}, Open: open, Running: 1}
		return b.States(nil, uuid.Nil, c, budget.Request{
			At: at(t, "2026-07-15T12:00:00Z"), Asked: budget.Amount{Tokens: tokens}, Held: &open, Unpriced: unpriced,
		})
	}
	fits := states(0, 4, false)
	require.Len(t, fits, 1)
	require.Equal(t, budget.Tokens, fits[0].Metric)
	require.False(t, fits[0].Closed())
	for _, c := range []struct {
		ended, tokens int64
		sooner        bool
	}{{0, 5, false}, {4, 1, false}, {3, 1, false}} {
		s := states(c.ended, c.tokens, false)[0]
		require.Equal(t, c.ended+6+c.tokens > 10, s.Closed())
		require.Equal(t, c.sooner, s.Sooner(), "it holds six itself")
		require.True(t, s.OpensAt().IsZero())
	}
	open.Tokens = 2
	c := budget.Counter{Open: budget.Amount{Tokens: 10}}
	s := b.States(nil, uuid.Nil, c, budget.Request{
		At: at(t, "2026-07-15T12:00:00Z"), Asked: budget.Amount{Tokens: 8}, Held: &open,
	})
	require.True(t, s[0].Closed() && s[0].Sooner(), "others hold eight")
	unpriced := states(0, 1, true)
	require.Len(t, unpriced, 2)
	require.True(t, unpriced[0].NoPrice && unpriced[0].Closed())
}

func TestCrossings(t *testing.T) {
	t.Parallel()
	b := dollars()
	begin := at(t, "2026-07-01T00:00:00Z")
	cross := func(before, after int64) []budget.Crossing {
		return b.Crossings(id(1), begin, budget.Amount{Tokens: before}, budget.Amount{Tokens: after})
	}
	require.Empty(t, cross(0, 799))
	require.Equal(t, []budget.Crossing{{budget.Tokens, 80, 800, 1000}}, cross(799, 800))
	require.Empty(t, cross(800, 999))
	require.Equal(t,
		[]budget.Crossing{{budget.Tokens, 80, 2000, 1000}, {budget.Tokens, 100, 2000, 1000}}, cross(0, 2000))
	b.Grants = []budget.Grant{{From: begin, Until: utc.End, Ceilings: budget.Ceilings{Tokens: 1}}}
	require.Empty(t, cross(0, 800), "80 %% of 1,001, rounded up")
	require.Len(t, cross(0, 801), 1)
	b.Ceilings, b.Thresholds, b.Grants = budget.Ceilings{Tokens: rule.MaxAmount}, []int{1000}, nil
	require.Len(t, cross(0, rule.MaxAmount), 1)
}

// TestWindowOf: a budget that remembers a window answers as its windows do.
func TestWindowOf(t *testing.T) {
	t.Parallel()
	now := at(t, "2026-07-15T12:00:00Z")
	for _, per := range []budget.Unit{budget.Minute, budget.Hour, budget.Day, budget.Month, budget.Total} {
		b := &budget.Budget{Window: budget.Window{Per: per, Zone: time.UTC, Day: 1}}
		_, end := b.Window.Of(now)
		for _, t1 := range []time.Time{
			now, now.Add(time.Second), end.Add(-1), end, now, now.AddDate(0, 0, -1), now.AddDate(0, -1, 0),
		} {
			begin, end := b.Window.Of(t1)
			gotBegin, gotEnd := b.WindowOf(t1)
			require.Equal(t, []time.Time{begin, end}, []time.Time{gotBegin, gotEnd}, "%s %s", per, t1)
		}
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for name, test := range map[string]struct {
		window         budget.Window
		at, begin, end string
	}{
		"minute": {
			budget.Window{Per: budget.Minute, Zone: berlin}, "2026-07-15T12:34:56Z", "2026-07-15T12:34:00Z",
			"2026-07-15T12:35:00Z",
		},
		"hour": {
			budget.Window{Per: budget.Hour, Zone: berlin}, "2026-07-15T12:34:56Z", "2026-07-15T12:00:00Z",
			"2026-07-15T13:00:00Z",
		},
		"day": {
			budget.Window{Per: budget.Day, Zone: berlin, Hour: 6}, "2026-07-15T03:59:59Z", "2026-07-14T04:00:00Z",
			"2026-07-15T04:00:00Z",
		},
		"week from Monday": {
			budget.Window{Per: budget.Week, Zone: time.UTC, Day: 1}, "2026-07-15T12:00:00Z", "2026-07-13T00:00:00Z",
			"2026-07-20T00:00:00Z",
		},
		"week from Sunday": {
			budget.Window{Per: budget.Week, Zone: time.UTC, Day: 7}, "2026-07-15T12:00:00Z", "2026-07-12T00:00:00Z",
			"2026-07-19T00:00:00Z",
		},
		"month from the 31st": {
			budget.Window{Per: budget.Month, Zone: berlin, Day: 31}, "2026-03-01T00:00:00Z", "2026-02-27T23:00:00Z",
			"2026-03-30T22:00:00Z",
		},
		"total": {
			budget.Window{Per: budget.Total, Zone: berlin}, "2026-03-01T00:00:00Z", "1970-01-01T00:00:00Z",
			"9999-12-31T00:00:00Z",
		},
		"the first month": {
			budget.Window{Per: budget.Month, Zone: berlin, Day: 15}, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z",
			"1970-01-14T23:00:00Z",
		},
	} {
		begin, end := test.window.Of(at(t, test.at))
		require.Equal(t, at(t, test.begin), begin, name)
		require.Equal(t, at(t, test.end), end, name)
		require.Equal(t, begin, test.window.Nth(at(t, test.at), 0), name)
		require.Equal(t, end, test.window.Nth(at(t, test.at), 1), name)
	}
}
