package registry_test

// These tests have processes share a database, and have no source of their own.

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

func init() { faultChildren["process"] = processChild }

// The processes that write to one database at once, and what each of them does.
const (
	processes         = 4
	processGoroutines = 3
	processRounds     = 30 // of each goroutine
)

// TestProcesses has several processes write to one database at once, all of them at one instant of
// one clock, so that they meet in the same rows. No call fails, and in the end the database says
// what they were told.
func TestProcesses(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) { testProcesses(t, filepath.Join(t.TempDir(), "registry.db")) })
	t.Run("postgres", func(t *testing.T) { testProcesses(t, registrytest.PostgresURL(t)) })
}

// shared are the rows that all processes write to.
type shared struct {
	Models []uuid.UUID // the cost of a request is its input tokens, in nano-dollars
	Keys   []uuid.UUID
	Priced uuid.UUID   // a model whose price changes
	Worn   []uuid.UUID // keys that are degraded and never restored
	Crowd  uuid.UUID   // a provider that gets too many keys
}

// acked is what a process was told, in sums.
type acked struct {
	Models, Prices      int64 // that the catalogue's import created
	Requests, Inputs    int64 // recorded
	Priced              int64 // recorded for the model whose price changes
	Increments, Tokens  int64 // of keys alone
	Changes             int64 // of the price
	Added, Dup, Refused int64 // keys
	Degraded, Restored  int64
	Resets              int64
}

func (a *acked) add(b acked) {
	for _, n := range []struct{ to, from *int64 }{
		{&a.Models, &b.Models}, {&a.Prices, &b.Prices}, {&a.Requests, &b.Requests}, {&a.Inputs, &b.Inputs},
		{&a.Priced, &b.Priced}, {&a.Increments, &b.Increments}, {&a.Tokens, &b.Tokens}, {&a.Changes, &b.Changes},
		{&a.Added, &b.Added}, {&a.Dup, &b.Dup},
		{&a.Refused, &b.Refused}, {&a.Degraded, &b.Degraded}, {&a.Restored, &b.Restored}, {&a.Resets, &b.Resets},
	} {
		*n.to += *n.from
	}
}

func testProcesses(t *testing.T, database string) {
	t.Parallel()
	reg, err := openShared(t.Context(), database)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	rows := newShared(t, reg)
	children := make([]*child, processes)
	for i := range children {
		children[i] = startChild(t, database, rows, i)
	}
	for _, c := range children {
		c.read(t, new(string)) // it is ready
	}
	for _, c := range children {
		require.NoError(t, c.stdin.Close())
	}
	var all acked
	for _, c := range children {
		var told acked
		c.read(t, &told)
		all.add(told)
		require.NoError(t, c.cmd.Wait(), c.stderr.String())
	}
	t.Logf("%+v", all)
	checkShared(t, reg, rows, all)
}

func openShared(ctx context.Context, database string) (*registry.Registry, error) {
	return registry.Open(ctx, database, registry.WithDurability(registry.DurabilityRelaxed),
		registry.WithClock(func() time.Time { return registrytest.Start }))
}

func newShared(t *testing.T, reg *registry.Registry) (rows shared) {
	t.Helper()
	p := mustProvider(t, reg, "shared")
	for i := range 2 {
		rows.Models = append(
			rows.Models, mustModel(t, reg, p.ID, fmt.Sprint("m", i), money.Rates{meter.Input: 1_000_000}).ID,
		)
	}
	for i := range 3 {
		rows.Keys = append(rows.Keys, mustKey(t, reg, p.ID, i).ID)
	}
	rows.Priced = mustModel(t, reg, p.ID, "priced", money.Rates{meter.Input: 0}).ID
	for i := range 40 {
		rows.Worn = append(rows.Worn, mustKey(t, reg, p.ID, 100+i).ID)
	}
	rows.Crowd = mustProvider(t, reg, "crowd").ID
	return rows
}

// child is a process that writes. It says that it is ready, begins when its standard input
// ends, and says what it was told.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *json.Decoder
	stderr bytes.Buffer
}

func startChild(t *testing.T, database string, rows shared, number int) *child {
	t.Helper()
	text, err := json.Marshal(rows)
	require.NoError(t, err)
	c := &child{cmd: faultChild(t, "process", database, string(text), strconv.Itoa(number))}
	c.cmd.Stderr = &c.stderr
	c.stdin, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.stdout = json.NewDecoder(stdout)
	require.NoError(t, c.cmd.Start())
	return c
}

func (c *child) read(t *testing.T, v any) {
	t.Helper()
	if err := c.stdout.Decode(v); err != nil {
		require.NoError(t, errors.Join(err, c.cmd.Wait()), c.stderr.String())
	}
}

func processChild(ctx context.Context, args ...string) (err error) {
	var rows shared
	if err := json.Unmarshal([]byte(args[1]), &rows); err != nil {
		return err
	}
	number, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	reg, out, err := beginChild(ctx, args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	writers := make([]*writer, processGoroutines)
	for g := range writers {
		writers[g] = &writer{reg: reg, rows: rows, number: number*processGoroutines + g}
	}
	if err := together(writers, func(w *writer) error { return w.wear(ctx) }); err != nil {
		return err
	}
	report, err := reg.ImportCatalog(ctx, catalog.Catwalk(), nil)
	if err != nil {
		return err
	}
	if err := together(writers, func(w *writer) error { return w.run(ctx) }); err != nil {
		return err
	}
	told := acked{Models: int64(report.Models.Created), Prices: int64(report.Prices.Created)}
	for _, w := range writers {
		told.add(w.acked)
	}
	return out.Encode(told)
}

// beginChild opens a database, says that this process is ready, and waits until it is told to begin.
func beginChild(ctx context.Context, database string) (*registry.Registry, *json.Encoder, error) {
	reg, err := openShared(ctx, database)
	if err != nil {
		return nil, nil, err
	}
	out := json.NewEncoder(os.Stdout)
	err = warm(ctx, reg)
	if err == nil {
		err = out.Encode("ready")
	}
	if err == nil {
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	if err != nil {
		return nil, nil, errors.Join(err, reg.Close())
	}
	return reg, out, nil
}

// together calls a function of all writers at once.
func together(writers []*writer, call func(*writer) error) error {
	var all sync.WaitGroup
	errs := make([]error, len(writers))
	for i, w := range writers {
		all.Go(func() { errs[i] = call(w) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// warm opens as many connections as there are goroutines.
func warm(ctx context.Context, reg *registry.Registry) error {
	var all sync.WaitGroup
	var errs [processGoroutines]error
	for i := range errs {
		all.Go(func() { _, errs[i] = reg.ListProviders(ctx, registry.ProviderFilter{}) })
	}
	all.Wait()
	return errors.Join(errs[:]...)
}

// writer is one goroutine of one process.
type writer struct {
	acked
	reg    *registry.Registry
	rows   shared
	number int // of all goroutines
}

func (w *writer) run(ctx context.Context) error {
	random := rand.New(rand.NewPCG(1, uint64(w.number)))
	for i := range processRounds {
		err := w.call(ctx, random, w.number*processRounds+i)
		switch i % 4 { // together more keys than a provider may have
		case 0:
			err = cmp.Or(err, w.addKey(ctx, 10_000+w.number*processRounds+i)) // a key of its own
		case 2:
			err = cmp.Or(err, w.addKey(ctx, i)) // the same as all others do
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// call makes a random call; n is of this call alone.
func (w *writer) call(ctx context.Context, random *rand.Rand, n int) error {
	key, tokens := w.rows.Keys[random.IntN(len(w.rows.Keys))], random.Int64N(1000)
	// A new period now and then: its row refers to the key, which others write to.
	at := registrytest.Start.Add(-15 * time.Minute * time.Duration(random.IntN(100)))
	switch random.IntN(14) {
	case 0, 1, 2, 3, 4:
		m := w.rows.Models[random.IntN(len(w.rows.Models))]
		err := w.reg.RecordUsage(
			ctx, registry.UsageInput{ModelID: m, APIKeyID: key, At: at, Tokens: meter.Tokens{InputTokens: tokens}},
		)
		return told(err, &w.Requests, 1, &w.Inputs, tokens)
	case 5:
		err := w.reg.RecordUsage(
			ctx,
			registry.UsageInput{
				ModelID: w.rows.Priced, APIKeyID: key, At: at, Tokens: meter.Tokens{InputTokens: tokens},
			},
		)
		return cmp.Or(told(err, &w.Requests, 1, &w.Inputs, tokens), told(err, &w.Priced, 1))
	case 6, 7:
		return told(w.reg.IncrementUsage(ctx, key, tokens, 1), &w.Increments, 1, &w.Tokens, tokens+1)
	case 8:
		return told(w.reg.DegradeKey(ctx, key, "shared", time.Hour), &w.Degraded, 1)
	case 9:
		return told(w.reg.RestoreKey(ctx, key), &w.Restored, 1)
	case 10, 11, 12:
		_, err := w.reg.UpdateModelPricing(
			ctx, w.rows.Priced, registry.PriceInput{Rates: money.Rates{meter.Input: money.USD(1 + n)}},
		)
		return told(err, &w.Changes, 1)
	default:
		_, err := w.reg.ResetDailyUsage(ctx)
		return told(err, &w.Resets, 1)
	}
}

// wear degrades each of some keys once, as all other goroutines do, in the same order.
func (w *writer) wear(ctx context.Context) error {
	for i, id := range w.rows.Worn {
		d := wornFor(w.number, i)
		if err := told(w.reg.DegradeKey(ctx, id, d.String(), d), &w.Degraded, 1); err != nil {
			return err
		}
	}
	return nil
}

// wornFor returns for how long a goroutine degrades a key.
func wornFor(number, key int) time.Duration {
	return time.Hour + time.Duration(
		rand.New(rand.NewPCG(uint64(number), uint64(key))).IntN(1_000_000),
	)*time.Millisecond
}

// addKey adds a key to the crowd.
func (w *writer) addKey(ctx context.Context, n int) error {
	_, err := w.reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: w.rows.Crowd, APIKey: secret(n)})
	switch {
	case errors.Is(err, registry.ErrConflict):
		return told(nil, &w.Dup, 1)
	case errors.Is(err, registry.ErrInvalidData):
		return told(nil, &w.Refused, 1)
	}
	return told(err, &w.Added, 1)
}
