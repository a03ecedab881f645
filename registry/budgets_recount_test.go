package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// recounts are spenders whose clock begins on the first of a month, with a team and a user beside the others. Requests
// cost a dollar a token.
type recounts struct {
	*spenders

	others, rival *ent.Consumer
	spent         map[uuid.UUID]map[time.Time]int64 // tokens by consumer, at each instant
}

// newRecounts begins in the present month, so that requests are not late and stay in the tail until they are folded.
func newRecounts(t *testing.T, e engine) *recounts {
	t.Helper()
	now := time.Now().UTC()
	clock := registrytest.NewClock(time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC))
	r := &recounts{spenders: newSpendersAt(t, e, clock), spent: map[uuid.UUID]map[time.Time]int64{}}
	r.others = mustConsumer(t, r.reg, "others", r.org.ID, "team")
	r.rival = mustConsumer(t, r.reg, "rival", r.others.ID, "user")
	return r
}

// use records a request of some tokens.
func (r *recounts) use(t *testing.T, who *ent.Consumer, at time.Time, tokens int64) {
	t.Helper()
	in := used(tokens)
	in.ModelID, in.APIKeyID, in.ConsumerID, in.At = r.model.ID, r.key.ID, who.ID, at
	require.NoError(t, r.reg.RecordUsage(t.Context(), in))
	if r.spent[who.ID] == nil {
		r.spent[who.ID] = map[time.Time]int64{}
	}
	r.spent[who.ID][at] += tokens
}

// months uses tokens for some days, four times a day and by two users, and folds some of the requests.
func (r *recounts) months(t *testing.T, days int) {
	t.Helper()
	for day := range days {
		for range 4 {
			r.use(t, r.user, r.clock.Now(), int64(day+1))
			r.use(t, r.rival, r.clock.Now(), 100)
			r.clock.Advance(6 * time.Hour)
		}
		if day%3 == 0 {
			require.NoError(t, registry.Fold(t.Context(), r.reg, r.model.ID))
		}
	}
}

// tokens returns what consumers have spent from an instant on.
func (r *recounts) tokens(from time.Time, of ...*ent.Consumer) (sum int64) {
	for _, c := range of {
		for at, n := range r.spent[c.ID] {
			if !at.Before(from) {
				sum += n
			}
		}
	}
	return sum
}

// counted requires what budget b has counted for subjects.
func (r *recounts) counted(t *testing.T, b *ent.Budget, want map[uuid.UUID]int64) {
	t.Helper()
	have := map[uuid.UUID]int64{}
	for _, w := range r.reg.Client().Budget.GetX(t.Context(), b.ID).QueryWindows().AllX(t.Context()) {
		if !w.WindowEnd.After(r.clock.Now()) {
			continue
		}
		have[w.SubjectID] += w.Tokens
		require.Equal(t, w.Tokens*int64(money.Dollar), int64(w.Cost))
	}
	require.Equal(t, want, have)
}

// TestBudgetStartsFromSums: a budget of a month starts from the sums by consumer, after events and quarters of an hour
// were pruned, and so does a budget over all time. One whose windows begin within a day of UTC starts with the first
// whole day that is known.
func TestBudgetStartsFromSums(t *testing.T) { eachEngine(t, testBudgetStartsFromSums) }

func testBudgetStartsFromSums(t *testing.T, e engine) {
	t.Parallel()
	r := newRecounts(t, e)
	first := r.clock.Now()
	r.months(t, 20)
	_, err := r.reg.Prune(t.Context(), registry.PruneInput{
		Events: 24 * time.Hour, Quarters: 72 * time.Hour, Budget: time.Minute,
	})
	require.NoError(t, err)
	r.use(t, r.user, r.clock.Now().AddDate(0, 0, -10), 1000) // late, for a day that was pruned
	require.Less(t, r.reg.Client().UsageEvent.Query().CountX(t.Context()), 20)

	ceilings := registry.Ceilings{Tokens: 1_000_000}
	month := r.budget(t, registry.BudgetInput{Name: "month", Ceilings: ceilings})
	require.Equal(t, first, month.CountsFrom.UTC())
	r.counted(t, month, map[uuid.UUID]int64{r.org.ID: r.tokens(first, r.user, r.rival)})
	total := r.budget(t, registry.BudgetInput{
		Name: "total", Ceilings: ceilings, Each: true, Window: registry.Window{Per: entbudget.PerTotal},
	})
	require.Equal(t, first, total.CountsFrom.UTC())
	each := map[uuid.UUID]int64{r.team.ID: r.tokens(first, r.user), r.others.ID: r.tokens(first, r.rival)}
	r.counted(t, total, each)
	mustModel(t, r.reg, r.provider.ID, "unused", nil)
	for model, want := range map[string]map[uuid.UUID]int64{
		r.model.ModelID: {r.org.ID: r.tokens(first, r.user, r.rival)}, "unused": {},
	} {
		r.counted(t, r.budget(t, registry.BudgetInput{
			Name: "of " + model, Ceilings: ceilings, ProviderID: r.provider.ID, Models: []string{model},
		}), want)
	}
	late := r.budget(t, registry.BudgetInput{
		Name: "late", Ceilings: ceilings, Window: registry.Window{AnchorDay: 5, AnchorHour: 10},
	})
	from := first.AddDate(0, 0, 5)
	require.Equal(t, from, late.CountsFrom.UTC())
	r.counted(t, late, map[uuid.UUID]int64{r.org.ID: r.tokens(from, r.user, r.rival)})
	for hour := 1; hour < 24; hour++ { // it is midnight: the window began yesterday
		day := r.budget(t, registry.BudgetInput{
			Name: fmt.Sprint("day from ", hour), Ceilings: ceilings,
			Window: registry.Window{Per: entbudget.PerDay, AnchorHour: hour},
		})
		from = r.clock.Now().Add(time.Duration(hour-24) * time.Hour)
		require.Equal(t, from, day.CountsFrom.UTC())
		want := map[uuid.UUID]int64{}
		if n := r.tokens(from, r.user, r.rival); n > 0 {
			want[r.org.ID] = n
		}
		r.counted(t, day, want)
	}

	r.use(t, r.user, r.clock.Now(), 7)
	r.counted(t, month, map[uuid.UUID]int64{r.org.ID: r.tokens(first, r.user, r.rival)})
	require.NoError(t, second(r.reg.MoveConsumer(t.Context(), r.user.ID, r.others.ID)))
	r.counted(t, month, map[uuid.UUID]int64{r.org.ID: r.tokens(first, r.user, r.rival)})
	r.counted(t, total, map[uuid.UUID]int64{r.team.ID: 0, r.others.ID: r.tokens(first, r.user, r.rival)})
}

// TestBudgetStartsFromTail: the same before anything was folded, and by a price that is not known.
func TestBudgetStartsFromTail(t *testing.T) { eachEngine(t, testBudgetStartsFromTail) }

func testBudgetStartsFromTail(t *testing.T, e engine) {
	t.Parallel()
	r := newRecounts(t, e)
	first := r.clock.Now()
	r.clock.Advance(90 * time.Minute)
	r.use(t, r.user, r.clock.Now(), 5)
	r.clock.Advance(time.Hour)
	r.use(t, r.user, r.clock.Now().Add(time.Hour), 6) // of a clock that is ahead
	unpriced := mustModel(t, r.reg, r.provider.ID, "unpriced", money.Rates{meter.Output: 1})
	in := used(3)
	in.ModelID, in.APIKeyID, in.ConsumerID = unpriced.ID, r.key.ID, r.user.ID
	require.NoError(t, r.reg.RecordUsage(t.Context(), in))
	b := r.budget(t, registry.BudgetInput{Ceilings: registry.Ceilings{Tokens: 100}})
	require.Equal(t, first, b.CountsFrom.UTC())
	w := b.QueryWindows().OnlyX(t.Context())
	require.Equal(t, []int64{3, 14, int64(11 * money.Dollar), 1},
		[]int64{w.Requests, w.Tokens, int64(w.Cost), w.UnpricedRequests})
	hours := r.budget(t, registry.BudgetInput{
		Name: "hour", Ceilings: registry.Ceilings{Tokens: 100}, Window: registry.Window{Per: entbudget.PerHour},
	})
	require.Equal(t, 2, hours.QueryWindows().CountX(t.Context()), "this hour and the next")
	minutes := r.budget(t, registry.BudgetInput{
		Name: "minute", Ceilings: registry.Ceilings{Tokens: 100}, Window: registry.Window{Per: entbudget.PerMinute},
	})
	require.Equal(t, 2, minutes.QueryWindows().CountX(t.Context()))

	r.use(t, r.rival, r.clock.Now().Add(time.Minute), 1) // no fold takes it yet
	require.ErrorIs(t, r.reg.PurgeConsumer(t.Context(), r.rival.ID), registry.ErrForeignKey, "budgets have counted it")
}
