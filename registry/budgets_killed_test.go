package registry_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/dimensionvalue"
	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestBudgetKilled has four processes ask for the users of one organisation, under a budget for all, one for each, and
// one of a day for half of them. Processes are killed meanwhile, and others take their place. No ceiling is passed, but
// by what running requests take above their estimate; and the ledger, the counters and the sums by consumer and tag add
// up.
func TestBudgetKilled(t *testing.T) {
	for _, e := range []struct {
		name string
		url  func(testing.TB) string
	}{
		{"sqlite", func(tb testing.TB) string { tb.Helper(); return tb.TempDir() + "/registry.db" }},
		{"postgres", registrytest.PostgresURL},
	} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			name := e.url(t)
			testBudgetKilled(t, name)
			if e.name == "postgres" {
				requireNoDeadlocks(t, name)
			}
		})
	}
}

const (
	killedTokens  = 3 // each request asks for these
	killedMore    = 2 // every tenth request takes these besides
	killedCallers = 8 // of each of four processes: each has two requests at once
	killedUsers   = 40
	killedAtOnce  = 10 // requests of a user
	killedValues  = 5  // the dimension has room for these; each request has a tag of its own
)

// killedBudgets are the ceilings of all users, of each of them, and of half of them.
type killedBudgets struct {
	all, each, day registry.Ceilings
	daily          *ent.Budget
}

func newKilledBudgets(t *testing.T, reg *registry.Registry, requests int64) (k killedBudgets) {
	t.Helper()
	k.all.Tokens = requests * killedTokens * 54 / 100
	k.each = registry.Ceilings{Requests: requests * 3 / 4 / killedUsers, Concurrency: killedAtOnce}
	k.day.Requests = requests / 4
	org := mustConsumer(t, reg, "org", uuid.Nil)
	team := mustConsumer(t, reg, "team", org.ID)
	for i := range killedUsers {
		mustConsumer(t, reg, fmt.Sprint("user ", i), []uuid.UUID{org.ID, team.ID}[i%2], "user")
	}
	_, err := reg.CreateDimension(t.Context(), registry.DimensionInput{Name: "feature", MaxValues: killedValues})
	require.NoError(t, err)
	for _, in := range []registry.BudgetInput{
		{ConsumerID: org.ID, Name: "all", Ceilings: k.all, Window: registry.Window{Per: entbudget.PerTotal}},
		{
			ConsumerID: org.ID, Name: "each", Ceilings: k.each, Window: registry.Window{Per: entbudget.PerTotal},
			Each: true, EachKind: "user",
		},
		{ConsumerID: team.ID, Name: "day", Ceilings: k.day, Window: registry.Window{Per: entbudget.PerDay}},
	} {
		k.daily, err = reg.CreateBudget(t.Context(), in)
		require.NoError(t, err)
	}
	return k
}

func testBudgetKilled(t *testing.T, name string) {
	t.Helper()
	requests := sample.Of(100_000) / 10
	if os.Getenv(sample.Whole) != "" {
		requests *= 10
	}
	reg := openWith(t, name)
	budgets := newKilledBudgets(t, reg, int64(requests))
	history := t.TempDir() + "/history"
	kills := 0
	var running []*spendingChild
	for i := range 4 { // with models and keys of its own, so that they share nothing but budgets and dimensions
		p := mustProvider(t, reg, fmt.Sprint("p", i))
		m := mustModel(t, reg, p.ID, "m", money.Rates{meter.Input: money.Dollar})
		mustKey(t, reg, p.ID, i)
		running = append(running, startSpending(t, m, requests/4, name, history))
	}
	for len(running) > 0 {
		i := rand.IntN(len(running)) //nolint:gosec // not for secrets
		c := running[i]
		if kills < 6 && c.reads(requests/40+rand.IntN(requests/20)) { //nolint:gosec // not for secrets
			require.NoError(t, c.cmd.Process.Kill())
			if c.cmd.Wait() != nil { // else it had just ended
				kills++
			}
			c.release(t, reg)
			running[i] = startSpending(t, c.model, max(100, c.left), name, history)
			continue
		}
		c.reads(requests)
		require.NoError(t, c.cmd.Wait())
		running = append(running[:i], running[i+1:]...)
	}
	require.Positive(t, kills)
	t.Logf("%d processes were killed", kills)
	budgets.check(t, reg)
	budgets.checkAdmissions(t, reg, readSpending(t, history))
	require.NoError(t, reg.Close()) // then servers tell what they counted
}

// check requires that no ceiling was passed, and that all sums are those of the same requests.
func (k killedBudgets) check(t *testing.T, reg *registry.Registry) {
	t.Helper()
	ctx := t.Context()
	requireProven(t, reg)
	for _, w := range k.daily.QueryWindows().AllX(ctx) {
		require.LessOrEqual(t, w.Requests, k.day.Requests, w.WindowStart)
	}
	rows, err := reg.UsageReport(ctx, registry.ReportInput{
		Start: time.Now().Add(-24 * time.Hour), End: time.Now().Add(time.Hour),
		By: []registry.Dimension{registry.ByConsumer},
	})
	require.NoError(t, err)
	_, recorded := killedUsage(t, reg)
	for _, row := range rows {
		require.LessOrEqual(t, row.Requests, k.each.Requests, row.Consumer)
		recorded -= row.Requests
	}
	require.Zero(t, recorded)
	require.Equal(t, killedValues, reg.Client().DimensionValue.Query().Where(
		dimensionvalue.KindEQ(dimensionvalue.KindValue), dimensionvalue.HasDimensionWith(dimension.Name("feature")),
	).CountX(ctx))
}

// killedUsage returns what was recorded.
func killedUsage(t *testing.T, reg *registry.Registry) (tokens, requests int64) {
	t.Helper()
	for _, u := range reg.Client().Usage.Query().AllX(t.Context()) {
		tokens, requests = tokens+u.InputTokens, requests+u.RequestCount
	}
	return tokens, requests
}

// spentRequest is a request that was admitted, as its process saw it: instants in nanoseconds, and what it took.
type spentRequest struct {
	user, asked, admitted, ending, ended, tokens int64
	lease                                        *registry.Lease
}

// readSpending reads what processes have written.
func readSpending(t *testing.T, history string) (all []spentRequest) {
	t.Helper()
	text, err := os.ReadFile(history)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		var r spentRequest
		_, err := fmt.Sscan(line, &r.user, &r.asked, &r.admitted, &r.ending, &r.ended, &r.tokens)
		require.NoError(t, err, line)
		all = append(all, r)
	}
	return all
}

// checkAdmissions requires that each request fitted into the ceilings when it was admitted, and that in the end the
// ceiling of tokens is passed by no more than what the last ones took above their estimates.
func (k killedBudgets) checkAdmissions(t *testing.T, reg *registry.Registry, all []spentRequest) {
	t.Helper()
	held, _ := mostHeld(all)
	tokens, recorded := killedUsage(t, reg)
	unknown := recorded - int64(len(all)) // their processes were killed before they could write them
	t.Logf("%d requests are recorded, %d are not in the history", recorded, unknown)
	require.GreaterOrEqual(t, unknown, int64(0))
	require.LessOrEqual(t, held, k.all.Tokens)
	last := slices.MaxFunc(all, func(a, b spentRequest) int { return cmp.Compare(a.admitted, b.admitted) })
	above := unknown * killedMore
	users := map[int64][]spentRequest{}
	for _, r := range all {
		users[r.user] = append(users[r.user], r)
		if r.ended >= last.asked {
			above += r.tokens - killedTokens
		}
	}
	t.Logf("%d tokens at the last admissions, and %d in the end, of %d and %d", held, tokens, k.all.Tokens, above)
	require.LessOrEqual(t, tokens, k.all.Tokens+above)
	var most int64
	for _, of := range users {
		_, open := mostHeld(of)
		most = max(most, open)
	}
	t.Logf("%d requests of a user at once, at the most", most)
	require.LessOrEqual(t, most, k.each.Concurrency)
}

// mostHeld returns the most tokens, and the most requests at once, that there were with a request that was admitted:
// the tokens of all that had surely ended before it asked, and as estimated of all that surely ran until it was
// admitted.
func mostHeld(all []spentRequest) (tokens, open int64) {
	slices.SortFunc(all, func(a, b spentRequest) int { return cmp.Compare(a.ended, b.ended) })
	took := make([]int64, len(all)+1) // by the first ones to end
	var admitted, ending, ended []int64
	for i, r := range all {
		took[i+1] = took[i] + r.tokens
		admitted, ending, ended = append(admitted, r.admitted), append(ending, r.ending), append(ended, r.ended)
	}
	slices.Sort(admitted)
	slices.Sort(ending)
	before := func(instants []int64, at int64) int64 {
		n, _ := slices.BinarySearch(instants, at)
		return int64(n)
	}
	for _, r := range all {
		ran := 1 + max(0, before(admitted, r.asked)-before(ending, r.admitted+1))
		open, tokens = max(open, ran), max(tokens, took[before(ended, r.asked)]+ran*killedTokens)
	}
	return tokens, open
}

// spendingChild is a process that spends.
type spendingChild struct {
	model *ent.Model
	cmd   *exec.Cmd
	lines chan bool // one for each request; closed when the process has ended
	left  int
}

func startSpending(t *testing.T, m *ent.Model, n int, name, history string) *spendingChild {
	t.Helper()
	c := &spendingChild{model: m, left: n, lines: make(chan bool, n)}
	c.cmd = faultChild(t, "spend", name, m.ProviderID.String(), m.ID.String(), history, strconv.Itoa(n))
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.cmd.Stderr = os.Stderr
	require.NoError(t, c.cmd.Start())
	go func() { // at once: a process that waits for its reader would hold leases until they expire
		defer close(c.lines)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			c.lines <- true
		}
	}()
	return c
}

// reads waits for some requests to end, and reports whether so many have.
func (c *spendingChild) reads(n int) bool {
	for ; n > 0 && <-c.lines; n-- {
		c.left--
	}
	return n == 0
}

// release ends the leases that a killed process has left, which else hold what they reserve until they expire. The
// server may still commit what the process did last.
func (c *spendingChild) release(t *testing.T, reg *registry.Registry) {
	t.Helper()
	for _, id := range reg.Client().KeyLease.Query().Where(keylease.ModelID(c.model.ID)).IDsX(t.Context()) {
		lease, err := reg.GetLease(t.Context(), id)
		if err == nil {
			err = lease.Release(t.Context())
		}
		if !errors.Is(err, registry.ErrNotFound) && !errors.Is(err, registry.ErrLeaseEnded) {
			require.NoError(t, err)
		}
	}
}

func init() { faultChildren["spend"] = spendChild }

// spendChild asks for each user some times, one user after the other. It prints a line for each request that was
// admitted or refused, and writes the admitted ones to the history.
func spendChild(ctx context.Context, args ...string) error {
	reg, err := registry.Open(ctx, args[0])
	if err != nil {
		return err
	}
	history, err := os.OpenFile(args[3], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	users, err := reg.Client().Consumer.Query().Where(consumer.Kind("user")).Order(consumer.ByID()).All(ctx)
	if err != nil {
		return err
	}
	work, errs := make(chan int), make([]error, killedCallers)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			var before *spentRequest // it runs on while the next one is asked for
			for k := range work {
				user := k * len(users) / n
				r := &spentRequest{user: int64(user), tokens: killedTokens}
				if k%10 == 0 {
					r.tokens += killedMore
				}
				err := r.ask(ctx, reg, registry.AcquireInput{
					ProviderID: uuid.MustParse(args[1]), ModelID: uuid.MustParse(args[2]),
					ConsumerID: users[user].ID, EstimatedTokens: killedTokens, TTL: 10 * time.Minute,
					Tags: registry.Tags{"feature": {uuid.NewString()}},
				})
				errs[i] = errors.Join(errs[i], err, before.settle(ctx, history))
				before = r
				fmt.Println(k)
			}
			errs[i] = errors.Join(errs[i], before.settle(ctx, history))
		})
	}
	for k := range n {
		work <- k
	}
	close(work)
	all.Wait()
	return errors.Join(append(errs, history.Close(), reg.Close())...)
}

// ask asks for a key, and notes when.
func (r *spentRequest) ask(ctx context.Context, reg *registry.Registry, in registry.AcquireInput) (err error) {
	r.asked = time.Now().UnixNano()
	r.lease, err = reg.AcquireKey(ctx, in)
	r.admitted = time.Now().UnixNano()
	if errors.Is(err, registry.ErrBudget) {
		return nil
	}
	return err
}

// settle ends a request, if it was admitted, and writes it to the history.
func (r *spentRequest) settle(ctx context.Context, history io.Writer) error {
	if r == nil || r.lease == nil {
		return nil
	}
	r.ending = time.Now().UnixNano()
	if err := r.lease.Settle(ctx, used(r.tokens)); err != nil {
		return err
	}
	r.ended = time.Now().UnixNano()
	_, err := fmt.Fprintln(history, r.user, r.asked, r.admitted, r.ending, r.ended, r.tokens)
	return err
}
