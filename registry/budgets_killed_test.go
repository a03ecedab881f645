package registry_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	entbudget "github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestBudgetKilled has four processes ask for the users of one organisation, under a budget for all and one for each.
// Processes are killed meanwhile, and others take their place. No ceiling is passed, as no request takes more than it
// has asked for; and the ledger, the counters and the sums by consumer and tag add up.
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
			testBudgetKilled(t, e.url(t))
		})
	}
}

const (
	killedTokens = 3 // of each request
	killedUsers  = 40
)

func testBudgetKilled(t *testing.T, name string) {
	t.Helper()
	requests := sample.Of(100_000) / 10
	if os.Getenv(sample.Whole) != "" {
		requests *= 10
	}
	ctx := t.Context()
	reg := mustOpen(t, name)
	p := mustProvider(t, reg, "openai")
	m := mustModel(t, reg, p.ID, "gpt-4", money.Rates{meter.Input: money.Dollar})
	mustKey(t, reg, p.ID, 1)
	org := mustConsumer(t, reg, "org", uuid.Nil)
	for i := range killedUsers {
		mustConsumer(t, reg, fmt.Sprint("user ", i), org.ID)
	}
	_, err := reg.CreateDimension(ctx, registry.DimensionInput{Name: "feature", MaxValues: 5})
	require.NoError(t, err)
	ceiling := int64(requests) * killedTokens * 3 / 4
	for _, in := range []registry.BudgetInput{
		{Name: "all", Ceilings: registry.Ceilings{Tokens: ceiling, Concurrency: 24}},
		{Name: "each", Each: true, Ceilings: registry.Ceilings{Requests: int64(requests) / killedUsers}},
	} {
		in.ConsumerID, in.Window = org.ID, registry.Window{Per: entbudget.PerTotal}
		_, err := reg.CreateBudget(ctx, in)
		require.NoError(t, err)
	}
	kills := 0
	var running []*spendingChild
	for range 4 {
		running = append(running, startSpending(t, name, p.ID, m.ID, requests/4))
	}
	for len(running) > 0 {
		i := rand.IntN(len(running)) //nolint:gosec // not for secrets
		c := running[i]
		if kills < 6 && c.reads(50+rand.IntN(100)) { //nolint:gosec // not for secrets
			require.NoError(t, c.cmd.Process.Kill())
			if c.cmd.Wait() != nil { // else it had just ended
				kills++
			}
			running[i] = startSpending(t, name, p.ID, m.ID, max(100, c.left))
			continue
		}
		c.reads(requests)
		require.NoError(t, c.cmd.Wait())
		running = append(running[:i], running[i+1:]...)
	}
	require.Positive(t, kills)
	var tokens, recorded int64
	for _, u := range reg.Client().Usage.Query().AllX(ctx) {
		tokens, recorded = tokens+u.InputTokens, recorded+u.RequestCount
	}
	require.LessOrEqual(t, tokens, ceiling)
	t.Logf("%d processes were killed; %d requests are recorded, %d of %d tokens", kills, recorded, tokens, ceiling)
	requireProven(t, reg)
	rows, err := reg.UsageReport(ctx, registry.ReportInput{
		Start: time.Now().Add(-24 * time.Hour), End: time.Now().Add(time.Hour),
		By: []registry.Dimension{registry.ByConsumer},
	})
	require.NoError(t, err)
	for _, row := range rows {
		require.LessOrEqual(t, row.Requests, int64(requests)/killedUsers, row.Consumer)
		recorded -= row.Requests
	}
	require.Zero(t, recorded)
}

// spendingChild is a process that spends.
type spendingChild struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	left  int
}

func startSpending(t *testing.T, name string, provider, model uuid.UUID, n int) *spendingChild {
	t.Helper()
	c := &spendingChild{cmd: faultChild(t, "spend", name, provider.String(), model.String(), strconv.Itoa(n)), left: n}
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.cmd.Stderr = os.Stderr
	require.NoError(t, c.cmd.Start())
	c.lines = bufio.NewScanner(stdout)
	return c
}

// reads waits for some requests to end, and reports whether so many have.
func (c *spendingChild) reads(n int) bool {
	for ; n > 0 && c.lines.Scan(); n-- {
		c.left--
	}
	return n == 0
}

func init() { faultChildren["spend"] = spendChild }

// spendChild asks for users in turn, and prints a line for each request that was admitted or refused.
func spendChild(ctx context.Context, args ...string) error {
	reg, err := registry.Open(ctx, args[0])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	users, err := reg.Client().Consumer.Query().All(ctx)
	if err != nil {
		return err
	}
	work, errs := make(chan int), make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			for k := range work {
				in := registry.AcquireInput{
					ProviderID: uuid.MustParse(args[1]), ModelID: uuid.MustParse(args[2]),
					ConsumerID: users[k%len(users)].ID, EstimatedTokens: killedTokens, TTL: time.Minute,
					Tags: registry.Tags{"feature": {fmt.Sprint("f", k%7)}},
				}
				errs[i] = errors.Join(errs[i], spendOnce(ctx, reg, in))
				fmt.Println(k)
			}
		})
	}
	for k := range n {
		work <- k
	}
	close(work)
	all.Wait()
	return errors.Join(append(errs, reg.Close())...)
}

func spendOnce(ctx context.Context, reg *registry.Registry, in registry.AcquireInput) error {
	lease, err := reg.AcquireKey(ctx, in)
	if errors.Is(err, registry.ErrBudget) {
		return nil
	}
	if err != nil {
		return err
	}
	return lease.Settle(ctx, registry.UsageInput{Tokens: meter.Tokens{InputTokens: killedTokens}})
}
