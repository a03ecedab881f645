package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

var leasePhase = flag.Duration(
	"phase", 3*time.Second, "how long a phase of BenchmarkLeaseProcesses and BenchmarkBudgetProcesses lasts",
)

const (
	leaseProcesses  = 4
	leaseGoroutines = 64 // of each process
	leaseConns      = 16 // of each process, for each design
	leaseChildEnv   = "MODELSCAN_BENCH_CHILD"
)

// leasePairs are the pairs of calls that the processes make. Each design's is beside the registry's.
var leasePairs = []string{"registry-release", "update-release", "registry-settle", "update-settle"}

// TestMain is the way in for the processes of BenchmarkLeaseProcesses and BenchmarkBudgetProcesses.
func TestMain(m *testing.M) {
	if os.Getenv(leaseChildEnv) == "" {
		os.Exit(m.Run())
	}
	if err := leaseChild(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// BenchmarkLeaseProcesses has four processes of 64 goroutines lease the 100 keys of one provider of a PostgreSQL
// database, and end the leases at once. It compares the registry with one UPDATE for each lease, which passes over keys
// that others write to: each on 16 connections of each process. In "release" nothing is recorded, and the UPDATE is
// undone by another one; in "settle" a transaction records the request. They take turns of a phase each, -benchtime
// says how many; the ratios are how many times as many leases the registry acquires.
//
//	go test -run '^$' -bench LeaseProcesses -benchtime 3x -count 6 -phase 3s
func BenchmarkLeaseProcesses(b *testing.B) {
	d := newLeaseDatabase(b, "postgres", 100)
	children := make([]*leaser, leaseProcesses)
	for i := range children {
		children[i] = startLeaser(b, d, nil)
	}
	settled := 0
	phase := func(pair string, lasts time.Duration) (perSecond float64) {
		triggers := "ENABLE"
		if strings.HasPrefix(pair, "update-") {
			triggers = "DISABLE"
		}
		d.setTriggers(b, triggers)
		made, perSecond := d.phase(b, children, pair, lasts)
		if strings.HasSuffix(pair, "-settle") {
			settled += made
		}
		return perSecond
	}
	sums := inTurns(b, leasePairs, phase)
	for _, c := range children {
		c.stop(b)
	}
	d.requireAtRest(b, settled)
	for pair, sum := range sums {
		b.ReportMetric(sum/float64(b.N), pair+"-acquires/s")
	}
	for _, end := range []string{"release", "settle"} {
		b.ReportMetric(sums["registry-"+end]/sums["update-"+end], end+"-registry/update")
	}
	b.ReportMetric(0, "ns/op")
}

// phase has processes make pairs of calls for some time. It returns how many they made, and how many in a second.
func (d leaseDatabase) phase(b *testing.B, children []*leaser, kind string, lasts time.Duration) (n int, rate float64) {
	b.Helper()
	d.vacuum(b)
	for _, c := range children {
		require.NoError(b, c.stdin.Encode(phaseInput{kind, lasts}))
	}
	for _, c := range children {
		made := c.read(b)
		n, rate = n+made.Pairs, rate+float64(made.Pairs)/made.Took.Seconds()
	}
	return n, rate
}

// inTurns has each kind of phase take its turn b.N times, after a short one that opens connections and prepares
// statements. Each is first, second and last as often. It returns the sums of what the phases return.
func inTurns(b *testing.B, kinds []string, phase func(kind string, lasts time.Duration) float64) map[string]float64 {
	b.Helper()
	for _, kind := range kinds {
		phase(kind, *leasePhase/10)
	}
	sums := map[string]float64{}
	b.ResetTimer()
	for n := range b.N {
		var round []string
		for i := range kinds {
			kind := kinds[(i+n)%len(kinds)]
			made := phase(kind, *leasePhase)
			round = append(round, fmt.Sprintf("%s %.0f", kind, made))
			sums[kind] += made
		}
		b.Log("in a second:", strings.Join(round, ", "))
	}
	b.StopTimer()
	return sums
}

// vacuum removes what a phase has left behind, so that the next one does not have to read past it.
func (d leaseDatabase) vacuum(b *testing.B) {
	b.Helper()
	db := d.raw(b, 1)
	_, err := db.ExecContext(b.Context(), "VACUUM (ANALYZE) api_keys, key_leases, pool_states, usage_tracking,"+
		" usage_totals,"+
		" usage_quarters, usage_total_quarters")
	require.NoError(b, errors.Join(err, db.Close()))
}

// phaseInput tells a process which pairs of calls to make, and for how long.
type phaseInput struct {
	Pair  string
	Lasts time.Duration
}

// phaseOutput is what the process has made of it.
type phaseOutput struct {
	Pairs int
	Took  time.Duration
}

// leaser is a process that leases keys. It reads phases from its standard input until that ends.
type leaser struct {
	cmd    *exec.Cmd
	pipe   io.Closer
	stdin  *json.Encoder
	stdout *json.Decoder
	stderr bytes.Buffer
}

// leaserInput is where a process leases keys.
type leaserInput struct {
	URL             string
	Provider, Model uuid.UUID
	Users           map[string][]uuid.UUID // for whom, by the names of phases of BenchmarkBudgetProcesses
}

func startLeaser(b *testing.B, d leaseDatabase, users map[string][]uuid.UUID) *leaser {
	b.Helper()
	self, err := os.Executable()
	require.NoError(b, err)
	where, err := json.Marshal(leaserInput{d.name, d.provider, d.models[0], users})
	require.NoError(b, err)
	c := &leaser{cmd: exec.CommandContext(b.Context(), self, string(where))}
	c.cmd.Env = append(os.Environ(), leaseChildEnv+"=1")
	c.cmd.Stderr = &c.stderr
	stdin, err := c.cmd.StdinPipe()
	require.NoError(b, err)
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(b, err)
	c.pipe, c.stdin, c.stdout = stdin, json.NewEncoder(stdin), json.NewDecoder(stdout)
	require.NoError(b, c.cmd.Start())
	return c
}

func (c *leaser) read(b *testing.B) (made phaseOutput) {
	b.Helper()
	if err := c.stdout.Decode(&made); err != nil {
		require.NoError(b, errors.Join(err, c.cmd.Wait()), c.stderr.String())
	}
	return made
}

func (c *leaser) stop(b *testing.B) {
	b.Helper()
	require.NoError(b, c.pipe.Close())
	require.NoError(b, c.cmd.Wait(), c.stderr.String())
}

// leaseChild is what such a process does.
func leaseChild(ctx context.Context, where string) (err error) {
	var in leaserInput
	if err := json.Unmarshal([]byte(where), &in); err != nil {
		return err
	}
	d := leaseDatabase{
		database{engine: "postgres", name: in.URL, models: []uuid.UUID{in.Model}, keys: [][]uuid.UUID{{uuid.Nil}}},
		in.Provider,
	}
	reg, err := registry.Open(ctx, in.URL, registry.WithMaxConns(leaseConns))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	db, err := d.connect(leaseConns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	ours, theirs := ourLeases{reg, d.provider}, updates{db, d}
	calls := map[string]func(context.Context, request) error{
		"registry-release": ours.giveBack, "registry-settle": ours.record, "update-release": theirs.giveBack,
		"update-settle": theirs.record,
	}
	for kind, users := range in.Users {
		calls[kind] = (&forConsumers{ourLeases: ours, models: d.models, users: users}).record
	}
	stdin, stdout := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var p phaseInput
		if err := stdin.Decode(&p); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		made, err := repeat(ctx, d.database, calls[p.Pair], p.Lasts)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Pair, err)
		}
		if err := stdout.Encode(made); err != nil {
			return err
		}
	}
}

// repeat has all goroutines make calls for a while.
func repeat(
	ctx context.Context, d database, call func(context.Context, request) error, lasts time.Duration,
) (phaseOutput, error) {
	var (
		all  sync.WaitGroup
		made [leaseGoroutines]int
		errs [leaseGoroutines]error
	)
	began := time.Now()
	for g := range made {
		all.Go(func() {
			for n := g; errs[g] == nil && time.Since(began) < lasts; n += leaseGoroutines {
				if errs[g] = call(ctx, d.nth(n)); errs[g] == nil {
					made[g]++
				}
			}
		})
	}
	all.Wait()
	out := phaseOutput{Took: time.Since(began)}
	for _, n := range made {
		out.Pairs += n
	}
	return out, errors.Join(errs[:]...)
}
