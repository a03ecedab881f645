package registry_test

// This test cuts the power while others write, and has no source of its own.

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func init() { faultChildren["power-cut"] = powerCutChild }

// What the process records whose power is cut.
const (
	powerCutLone    = 80 // records of caller 0, who is alone; the log is reset meanwhile
	powerCutCallers = 16 // who then record together
	powerCutEach    = 20 // records of each of them
)

// TestPowerCut cuts the power whenever RecordUsage has returned nil, in a model of the disk: of what a
// process writes, by the trace of its system calls, only that is left which it has synced. At the
// default durability each acknowledged record is there then. That Relaxed loses some shows that the
// model can tell.
func TestPowerCut(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	if out, err := exec.CommandContext(t.Context(), "strace", "-f", "-o", os.DevNull, "true").
		CombinedOutput(); err != nil {
		t.Skipf("this system does not let us trace a process with strace: %v: %s", err, out)
	}
	t.Run("OK_full", func(t *testing.T) {
		t.Parallel()
		cut := runPowerCut(t, "full")
		require.Zero(t, cut.lone.volatile)
		require.Zero(t, cut.together.volatile)
		require.Zero(t, cut.unsynced, "a lone caller's commit is all that there is to sync")
		require.GreaterOrEqual(t, cut.syncs, powerCutLone, "each of them has a commit of its own")
		require.GreaterOrEqual(t, cut.headers, 2, "the log was new, and was reset")
	})
	t.Run("Err_relaxed", func(t *testing.T) {
		t.Parallel()
		cut := runPowerCut(t, "relaxed")
		require.Positive(t, cut.lone.volatile)
		require.Positive(t, cut.together.volatile)
		require.Positive(t, cut.unsynced)
	})
}

// powerCutChild records in a database, whose path it is given with a durability, a model and a key for
// each caller. It writes a line for each record that is acknowledged, of the caller and how many he has
// now, in one system call.
func powerCutChild(ctx context.Context, args ...string) (err error) {
	path, modelID, keys := args[0], uuid.MustParse(args[2]), args[3:]
	var options []registry.Option
	if args[1] == "relaxed" {
		options = append(options, registry.WithDurability(registry.DurabilityRelaxed))
	}
	acks, err := os.Create(filepath.Join(filepath.Dir(path), "acks"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, acks.Close()) }()
	reg, err := registry.Open(ctx, path, options...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	call := func(caller, records int) error {
		in := registry.UsageInput{
			ModelID: modelID, APIKeyID: uuid.MustParse(keys[caller]), Tokens: meter.Tokens{InputTokens: 1},
		}
		for n := range records {
			if err := reg.RecordUsage(ctx, in); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(acks, "%d %d\n", caller, n+1); err != nil {
				return err
			}
		}
		return nil
	}
	// The log is reset when it has been copied into the file: let that be while the lone caller records, and after
	// 1,000 pages instead of as many as the registry lets it have.
	if _, err := reg.Client().ExecContext(ctx, "PRAGMA wal_autocheckpoint = 1000"); err != nil {
		return err
	}
	for _, key := range []string{"a", "b"} { // each of 220 pages, and as much in the audit trail
		if err := reg.SetSetting(ctx, key, strings.Repeat("x", 220*4096)); err != nil {
			return err
		}
	}
	if err := call(0, powerCutLone); err != nil {
		return err
	}
	var all sync.WaitGroup
	errs := make([]error, 1+powerCutCallers)
	for caller := 1; caller <= powerCutCallers; caller++ {
		all.Go(func() { errs[caller] = call(caller, powerCutEach) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// runPowerCut runs the process and cuts its power at each record that was acknowledged.
func runPowerCut(t *testing.T, durability string) *powerCut {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir()) // as the trace has it
	require.NoError(t, err)
	path, trace := filepath.Join(dir, "registry.db"), filepath.Join(t.TempDir(), "trace")
	reg, err := registry.Open(t.Context(), path)
	require.NoError(t, err)
	p := mustProvider(t, reg, "openai")
	args := []string{path, durability, mustModel(t, reg, p.ID, "gpt-4", gpt4()).ID.String()}
	cut := &powerCut{
		dir: dir, image: filepath.Join(t.TempDir(), "registry.db"), running: map[string]func(int64){},
		callers: map[uuid.UUID]int{},
	}
	for i := range 1 + powerCutCallers {
		k := mustKey(t, reg, p.ID, i)
		cut.callers[k.ID] = i
		args = append(args, k.ID.String())
	}
	require.NoError(t, reg.Close())
	cut.db.content, err = os.ReadFile(path)
	require.NoError(t, err)
	cut.db.listed = true

	child := faultChild(t, "power-cut", args...)
	// Texts in hexadecimal and whole; a page is the longest.
	cmd := exec.CommandContext(t.Context(), "strace", append([]string{
		"-f", "-y", "-xx", "-s", "65536", "-o", trace, "-e", "signal=none", "-e",
		"trace=write,writev,pwrite64,pwritev,?pwritev2,ftruncate,fallocate,fsync,fdatasync,?unlink,unlinkat"},
		child.Args...)...)
	cmd.Env = child.Env
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)

	f, err := os.Open(trace)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		cut.line(t, lines.Text())
	}
	require.NoError(t, lines.Err())
	t.Logf("of %d records of a lone caller %d were volatile, of %d of %d callers together %d; %d had bytes in the"+
		" log that were not synced; "+
		"%d syncs and %d headers of the log, %d states of the disk", cut.lone.acked, cut.lone.volatile,
		cut.together.acked, powerCutCallers,
		cut.together.volatile, cut.unsynced, cut.syncs, cut.headers, cut.states)
	require.Equal(t, powerCutLone, cut.lone.acked)
	require.Equal(t, powerCutCallers*powerCutEach, cut.together.acked)
	return cut
}

// powerCut is a disk whose power may be cut at any time.
type powerCut struct {
	dir     string
	db, wal diskFile
	image   string                 // where the database is put that is left
	running map[string]func(int64) // by process: what the end of its system call does

	callers map[uuid.UUID]int // by key
	left    map[int]int64     // records by caller; nil: they have to be counted

	lone, together struct{ acked, volatile int }
	unsynced       int // records of the lone caller that were acknowledged while a byte of the log was not synced
	syncs, headers int // of the log
	states         int // of the disk that were looked at
}

// diskFile is a file of which what was synced is left.
type diskFile struct {
	content  []byte
	listed   bool          // the folder was synced since the file is there
	unsynced []*diskChange // in their order
}

// diskChange is a write, or a cut if it has no data.
type diskChange struct {
	at   int64
	data []byte
	done bool // the call has ended
}

func (f *diskFile) change(c *diskChange) (done func(int64)) {
	f.unsynced = append(f.unsynced, c)
	return func(int64) { c.done = true }
}

func (c *diskChange) apply(content []byte) []byte {
	if grow := c.at + int64(len(c.data)-len(content)); grow > 0 {
		content = append(content, make([]byte, grow)...)
	}
	copy(content[c.at:], c.data)
	if c.data == nil {
		content = content[:c.at]
	}
	return content
}

// sync makes the changes last, at its end, that were done at its beginning.
func (f *diskFile) sync() (last func(int64)) {
	covered := slices.DeleteFunc(slices.Clone(f.unsynced), func(c *diskChange) bool { return !c.done })
	return func(int64) {
		for _, c := range covered {
			f.content = c.apply(f.content)
		}
		f.unsynced = slices.DeleteFunc(f.unsynced, func(c *diskChange) bool { return slices.Contains(covered, c) })
	}
}

// line takes a line of the trace: a system call, its beginning or its end.
func (p *powerCut) line(t *testing.T, line string) {
	t.Helper()
	process, call, _ := strings.Cut(line, " ")
	call = strings.TrimLeft(call, " ")
	name, args, ok := strings.Cut(call, "(")
	switch {
	case strings.HasPrefix(call, "<... "):
		p.end(t, process, call)
	case !ok: // the end of a process
	case strings.HasSuffix(args, "<unfinished ...>"):
		p.running[process] = p.begin(t, name, strings.TrimSuffix(args, " <unfinished ...>"))
	default:
		args, result, _ := strings.Cut(args, ")")
		p.running[process] = p.begin(t, name, args)
		p.end(t, process, result)
	}
}

func (p *powerCut) end(t *testing.T, process, call string) {
	t.Helper()
	end := p.running[process]
	delete(p.running, process)
	if end == nil {
		return
	}
	_, text, _ := strings.Cut(call, "= ")
	result, err := strconv.ParseInt(text, 10, 64)
	require.NoError(t, err, call) // one that failed has words
	end(result)
}

// begin takes the beginning of a system call, and returns what its end does, or nil.
func (p *powerCut) begin(t *testing.T, name, text string) (end func(int64)) {
	t.Helper()
	args := strings.Split(text, ", ")
	_, path, _ := strings.Cut(args[0], "<") // of the descriptor
	path, gone, _ := strings.Cut(path, ">")
	path = unhex(t, path) + gone // which says so if the file has been deleted
	switch name {
	case "unlink":
		path = unhex(t, args[0])
	case "unlinkat":
		path = unhex(t, args[1])
	}
	var f *diskFile
	switch path {
	case filepath.Join(p.dir, "acks"):
		require.Equal(t, "write", name)
		p.ack(t, unhex(t, args[1]))
		return nil
	case p.dir:
		return p.syncFolder(t, name)
	case filepath.Join(p.dir, "registry.db"):
		f = &p.db
	case filepath.Join(p.dir, "registry.db-wal"):
		f = &p.wal
	default:
		return nil
	}
	switch name {
	case "pwrite64":
		return p.write(t, f, unhex(t, args[1]), number(t, args[3]))
	case "ftruncate":
		return f.change(&diskChange{at: number(t, args[1])})
	case "fsync", "fdatasync":
		last := f.sync()
		return func(result int64) {
			last(result)
			p.left = nil
			if f == &p.wal {
				p.syncs++
			}
		}
	case "unlink", "unlinkat":
		return func(int64) { *f, p.left = diskFile{}, nil }
	}
	require.FailNow(t, "a system call that the model lacks", "%s of %s", name, path)
	return nil
}

func (p *powerCut) write(t *testing.T, f *diskFile, data string, at int64) (end func(int64)) {
	t.Helper()
	if f == &p.wal && at == 0 {
		p.headers++
	}
	done := f.change(&diskChange{at: at, data: []byte(data)})
	return func(result int64) {
		require.Len(t, data, int(result), "all of it was written, and is in the trace")
		done(result)
	}
}

// syncFolder makes the log last that is there at the beginning. Until then, none of its bytes do.
func (p *powerCut) syncFolder(t *testing.T, name string) (end func(int64)) {
	t.Helper()
	require.Equal(t, "fsync", name)
	there := len(p.wal.content)+len(p.wal.unsynced) > 0
	return func(int64) { p.wal.listed, p.left = there || p.wal.listed, nil }
}

// ack cuts the power when a record has just been acknowledged. The record is volatile if less of its
// caller's are left then.
func (p *powerCut) ack(t *testing.T, line string) {
	t.Helper()
	var caller, n int
	_, err := fmt.Sscanf(line, "%d %d\n", &caller, &n)
	require.NoError(t, err, line)
	if p.left == nil {
		p.left = p.count(t)
	}
	tally := &p.together
	if caller == 0 {
		tally = &p.lone
		if len(p.wal.unsynced) > 0 {
			p.unsynced++
		}
	}
	tally.acked++
	if p.left[caller] < int64(n) {
		tally.volatile++
	}
}

// count opens what is left and returns how many records of each caller there are.
func (p *powerCut) count(t *testing.T) map[int]int64 {
	t.Helper()
	p.states++
	require.NoError(t, os.WriteFile(p.image, p.db.content, 0o600))
	if p.wal.listed {
		require.NoError(t, os.WriteFile(p.image+"-wal", p.wal.content, 0o600))
	}
	db, err := sql.Open("sqlite3", p.image+"?_synchronous=OFF")
	require.NoError(t, err)
	rows, err := db.QueryContext(t.Context(), "SELECT id, usage_count FROM api_keys")
	require.NoError(t, err)
	left := map[int]int64{}
	for rows.Next() {
		var id uuid.UUID
		var n int64
		require.NoError(t, rows.Scan(&id, &n))
		left[p.callers[id]] = n
	}
	// To close it takes the log away. Files that are replaced would be flushed to the disk.
	require.NoError(t, errors.Join(rows.Err(), rows.Close(), db.Close(), os.Remove(p.image)))
	require.Len(t, left, len(p.callers))
	return left
}

// unhex returns a text of the trace.
func unhex(t *testing.T, text string) string {
	t.Helper()
	text = strings.Trim(text, `"`)
	if !strings.HasPrefix(text, `\x`) {
		return text
	}
	decoded, err := hex.DecodeString(strings.ReplaceAll(text, `\x`, ""))
	require.NoError(t, err)
	return string(decoded)
}

func number(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	require.NoError(t, err)
	return n
}
