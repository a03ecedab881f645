package registry_test

// These tests have files, disks and processes fail, and have no source of their own.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
)

const (
	kills        = 60 // processes that are killed
	killedWindow = 32 // requests that are under way at once
)

// killed is a ledger that processes record to until they are killed, and those who ask them to.
type killed struct {
	path       string
	model, key uuid.UUID
	acked      map[string]bool
	pending    map[string]bool // asked for and not acknowledged
	repeated   int
}

// Processes are killed while they record for callers who do not give up: those ask the next process for what was not
// acknowledged, by the same id. Nothing that was acknowledged is lost, nothing is counted twice, and nothing is half
// there.
func TestKilled(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	l := &killed{path: filepath.Join(t.TempDir(), "registry.db"), acked: map[string]bool{}, pending: map[string]bool{}}
	reg, err := registry.Open(t.Context(), l.path)
	require.NoError(t, err)
	m, k, err := faultFixture(t.Context(), reg)
	require.NoError(t, err)
	require.NoError(t, reg.Close())
	l.model, l.key = m.ID, k.ID
	random := rand.New(rand.NewPCG(1, 2))
	for loop := range kills {
		l.run(t, 1+random.IntN(100))
		if loop%10 == 0 {
			l.check(t)
		}
	}
	l.run(t, 0)
	require.Empty(t, l.pending)
	l.check(t)
	t.Logf("%d processes were killed; %d requests were acknowledged, %d of them not at the first attempt; none was"+
		" lost and none counted twice",
		kills, len(l.acked), l.repeated)
	require.Greater(t, l.repeated, kills/2)
}

// run starts a process, asks it for what is pending and for more, and kills it after some acknowledgements; 0: it does
// what is pending, and ends.
func (l *killed) run(t *testing.T, kill int) {
	t.Helper()
	cmd := faultChild(t, "retry", l.path, l.model.String(), l.key.String())
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	ask := func(id string) { _, _ = fmt.Fprintln(stdin, id) } // one that is killed hears nothing
	for id := range l.pending {
		l.repeated++
		ask(id)
	}
	more := func() {
		for kill > 0 && len(l.pending) < killedWindow {
			id := fmt.Sprint("request ", len(l.acked)+len(l.pending))
			l.pending[id] = true
			ask(id)
		}
	}
	if more(); kill == 0 {
		require.NoError(t, stdin.Close())
	}
	lines := bufio.NewScanner(stdout)
	for told := 1; lines.Scan(); told++ {
		delete(l.pending, lines.Text())
		l.acked[lines.Text()] = true
		if told == kill {
			require.NoError(t, cmd.Process.Kill()) // and read what it had printed until then
		}
		more()
	}
	require.Equal(t, kill == 0, cmd.Wait() == nil)
}

// check looks at the ledger that a process has left.
func (l *killed) check(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	reg, err := registry.Open(ctx, l.path)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	require.NoError(t, faultIntegrity(ctx, reg))
	require.Empty(t, verified(t, reg).Differences)
	events := map[string]bool{}
	for _, e := range reg.Client().UsageEvent.Query().AllX(ctx) {
		require.False(t, events[e.RequestID], "%s was counted twice", e.RequestID)
		require.True(t, l.acked[e.RequestID] || l.pending[e.RequestID], e.RequestID)
		events[e.RequestID] = true
	}
	settings := map[string]bool{}
	for _, s := range reg.Client().Setting.Query().AllX(ctx) {
		settings[s.ID] = true
		require.True(t, events[s.ID], "%s is half there", s.ID)
	}
	for id := range events {
		require.Equal(t, retriedTogether(id), settings[id], "%s is half there", id)
	}
	for id := range l.acked {
		require.True(t, events[id], "%s was acknowledged and is lost", id)
	}
	var requests int64
	for _, u := range reg.Client().Usage.Query().AllX(ctx) {
		requests += u.RequestCount
	}
	require.EqualValues(t, len(events), requests)
	require.EqualValues(t, len(events), reg.Client().APIKey.GetX(ctx, l.key).UsageCount)
}

// retriedTogether tells which requests are recorded together with a setting.
func retriedTogether(id string) bool { return strings.HasSuffix(id, "3") }

// faultRetry records the requests whose ids it reads, several at once, and prints the id of each that is
// acknowledged.
func faultRetry(ctx context.Context, args ...string) error {
	reg, err := registry.Open(ctx, args[0])
	if err != nil {
		return err
	}
	in := registry.UsageInput{
		ModelID: uuid.MustParse(args[1]), APIKeyID: uuid.MustParse(args[2]), Tokens: meter.Tokens{
			InputTokens: 3, OutputTokens: 1,
		},
	}
	ids, errs := make(chan string), make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			for id := range ids {
				in := in
				in.RequestID = id
				record := func(reg *registry.Registry) error { return reg.RecordUsage(ctx, in) }
				if retriedTogether(id) {
					record = func(reg *registry.Registry) error {
						return reg.InTx(ctx, func(tx *registry.Registry) error {
							return errors.Join(tx.RecordUsage(ctx, in), tx.SetSetting(ctx, id, "x"))
						})
					}
				}
				if err := record(reg); err != nil {
					errs[i] = errors.Join(errs[i], err)
					continue
				}
				fmt.Println(id)
			}
		})
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		ids <- lines.Text()
	}
	close(ids)
	all.Wait()
	return errors.Join(append(errs, lines.Err(), reg.Close())...)
}
