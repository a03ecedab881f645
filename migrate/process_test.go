package migrate_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	atlas "ariga.io/atlas/sql/migrate"
	"github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/migrate"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// roleVariable makes the test binary a process of a test: it holds one of roles.
const roleVariable = "MODELSCAN_MIGRATE_ROLE"

var roles = map[string]func(ctx context.Context, ask func(question string) string) error{
	"open":  opening,
	"apply": applying,
}

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleVariable)]
	if !ok {
		os.Exit(pgtest.Main(m))
	}
	in := bufio.NewScanner(os.Stdin)
	err := role(context.Background(), func(question string) string {
		fmt.Println(question)
		if !in.Scan() {
			os.Exit(0) // the test is over
		}
		return in.Text()
	})
	fmt.Println(err)
}

// opening opens one file after the other.
func opening(ctx context.Context, ask func(question string) string) error {
	answer := "ready"
	for {
		reg, err := registry.Open(ctx, ask(answer))
		if err == nil {
			err = reg.Close()
		}
		answer = fmt.Sprint(err)
	}
}

// applying applies a folder to a file. SQL may ask too: step(n) waits for an answer, and so
// does the commit of whatever came after a step.
func applying(ctx context.Context, ask func(question string) string) error {
	name := ask("name")
	dir, err := migrate.Load(os.DirFS(ask("folder")), ".")
	if err != nil {
		return err
	}
	if strings.HasPrefix(name, "postgres://") {
		db, err := sql.Open("pgx", name)
		if err != nil {
			return err
		}
		_, err = migrate.ApplyDir(ctx, db, migrate.Postgres, dir)
		return errors.Join(err, db.Close())
	}
	began := false
	db := sql.OpenDB(connector{dsn: name, connect: func(conn *sqlite3.SQLiteConn) error {
		conn.RegisterCommitHook(func() int {
			if began {
				ask("commit")
			}
			return 0
		})
		return conn.RegisterFunc("step", func(n int64) int64 {
			began = true
			ask(fmt.Sprintf("step %d", n))
			return n
		}, false)
	}})
	_, err = migrate.ApplyDir(ctx, db, migrate.SQLite, dir)
	return errors.Join(err, db.Close())
}

// process is a process that plays a role.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(tb testing.TB, role string) *process {
	tb.Helper()
	if testing.Short() {
		tb.Skip("-short: the test starts processes")
	}
	binary, err := os.Executable()
	require.NoError(tb, err)
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(tb, err)
	out, err := cmd.StdoutPipe()
	require.NoError(tb, err)
	require.NoError(tb, cmd.Start())
	p := &process{cmd, in, bufio.NewScanner(out)}
	tb.Cleanup(p.kill)
	return p
}

// kill ends the process the hard way, unless it has ended already.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait() // "signal: killed"
	}
}

// hear returns the next line of the process.
func (p *process) hear(tb testing.TB) string {
	tb.Helper()
	require.True(tb, p.out.Scan(), "the process ended: %v", p.out.Err())
	return p.out.Text()
}

func (p *process) say(tb testing.TB, line string) {
	tb.Helper()
	_, err := fmt.Fprintln(p.in, line)
	require.NoError(tb, err)
}

// TestProcesses opens new files by several processes at once.
func TestProcesses(t *testing.T) {
	t.Parallel()
	const rounds = 6
	for _, n := range []int{2, 4} {
		t.Run(fmt.Sprintf("OK/%d", n), func(t *testing.T) {
			t.Parallel()
			fresh := freshSchema(t)
			var processes []*process
			for range n {
				processes = append(processes, start(t, "open"))
			}
			for _, p := range processes {
				require.Equal(t, "ready", p.hear(t))
			}
			for range rounds {
				path := newPath(t)
				for _, p := range processes {
					p.say(t, path)
				}
				for _, p := range processes {
					require.Equal(t, "<nil>", p.hear(t))
				}
				requireFresh(t, path, fresh)
			}
		})
	}
}

// freshSchema returns the schema of a new database.
func freshSchema(tb testing.TB) []string {
	tb.Helper()
	db := database(tb, newPath(tb))
	_, err := migrate.Apply(tb.Context(), db, migrate.SQLite)
	require.NoError(tb, err)
	return schemaOf(tb, db)
}

// schemaSteps returns the schema after none of the files, after the first, and so on.
func schemaSteps(tb testing.TB) [][]string {
	tb.Helper()
	steps, applied := [][]string{nil}, map[string]string{}
	for _, f := range embedded(tb) {
		applied[f.Name()] = string(f.Bytes())
		dir, err := atlas.NewLocalDir(folder(tb, applied))
		require.NoError(tb, err)
		db := database(tb, newPath(tb))
		applyDir(tb, db, dir)
		steps = append(steps, schemaOf(tb, db))
	}
	return steps
}

// requireFresh requires that a file has the whole schema and one history.
func requireFresh(tb testing.TB, path string, fresh []string) {
	tb.Helper()
	db := database(tb, path)
	require.Equal(tb, fresh, schemaOf(tb, db))
	require.Equal(tb, versionsOf(embedded(tb)), versions(tb, db))
	require.EqualValues(tb, migrate.ApplicationID, one[int64](tb, db, "PRAGMA application_id"))
	require.Equal(tb, "ok", one[string](tb, db, "PRAGMA integrity_check"))
	state, err := migrate.Status(tb.Context(), db, migrate.SQLite)
	require.NoError(tb, err)
	require.Empty(tb, state.Pending)
}

// TestGoroutines applies from several pools at once.
func TestGoroutines(t *testing.T) {
	t.Parallel()
	const n = 8
	embeddedDir, err := migrate.Load(migrate.Files, "sqlite")
	require.NoError(t, err)
	rebuild := load(t, "testdata/rebuild")
	rebuildFiles, err := rebuild.Files()
	require.NoError(t, err)
	begun := directory(t, map[string]string{rebuildFiles[0].Name(): string(rebuildFiles[0].Bytes())})
	for _, tt := range []struct {
		name  string
		begun atlas.Dir // applied before
		dir   atlas.Dir
	}{
		{"fresh", nil, embeddedDir},
		{"two files", nil, rebuild},
		{"the second of two files", begun, rebuild},
	} {
		for _, journal := range journals {
			t.Run("OK/"+tt.name+"/"+journal, func(t *testing.T) {
				t.Parallel()
				path := newPath(t)
				db := pool(t, connector{dsn: dsnIn(path, journal)})
				if tt.begun != nil {
					applyDir(t, db, tt.begun)
				}
				run(t, db, "PRAGMA user_version = 1")
				before, err := migrate.StatusDir(t.Context(), db, migrate.SQLite, tt.dir)
				require.NoError(t, err)
				var (
					wg      sync.WaitGroup
					began   = make(chan struct{})
					applied [n][]string
					errs    [n]error
				)
				for i := range n {
					mine := pool(t, connector{dsn: dsn(path)})
					wg.Go(func() {
						<-began
						applied[i], errs[i] = migrate.ApplyDir(t.Context(), mine, migrate.SQLite, tt.dir)
					})
				}
				close(began)
				wg.Wait()
				var all []string
				for i := range n {
					require.NoError(t, errs[i])
					all = append(all, applied[i]...)
				}
				require.ElementsMatch(t, before.Pending, all) // each file once
				files, err := tt.dir.Files()
				require.NoError(t, err)
				require.Equal(t, versionsOf(files), versions(t, db))
				fresh := database(t, newPath(t))
				applyDir(t, fresh, tt.dir)
				require.Equal(t, schemaOf(t, fresh), schemaOf(t, db))
				require.Equal(t, history(t, fresh), history(t, db))
			})
		}
	}
}

// TestKill kills a process in the middle of a migration, at every step of it.
func TestKill(t *testing.T) {
	t.Parallel()
	files, err := load(t, "testdata/rebuild").Files()
	require.NoError(t, err)
	statements, err := files[1].Stmts()
	require.NoError(t, err)
	stepped := "SELECT step(0);\n"
	for i, s := range statements {
		stepped += fmt.Sprintf("%s\nSELECT step(%d);\n", s, i+1)
	}
	path := folder(t, map[string]string{files[0].Name(): string(files[0].Bytes()), files[1].Name(): stepped})
	begun := directory(t, map[string]string{files[0].Name(): string(files[0].Bytes())})
	steps := []string{}
	for i := range len(statements) + 1 {
		steps = append(steps, fmt.Sprintf("step %d", i))
	}
	steps = append(steps, "commit")
	// Enough rows that SQLite's cache spills into the file before the commit.
	const rows = 600
	insert := fmt.Sprintf("INSERT INTO %%s WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n <"+
		" %d) SELECT n, %%s FROM c", rows)

	for _, journal := range journals {
		for i, last := range steps {
			t.Run("OK/"+journal+"/"+last, func(t *testing.T) {
				t.Parallel()
				dir := load(t, path)
				file := newPath(t)
				db := sql.OpenDB(connector{dsn: dsnIn(file, journal)})
				applyDir(t, db, begun)
				run(t, db, fmt.Sprintf(insert, "parents", "hex(randomblob(2000))"),
					fmt.Sprintf(insert, "children", "n"))
				before, schema := history(t, db), schemaOf(t, db)
				require.NoError(t, db.Close())
				unharmed := digest(t, file)

				p := start(t, "apply")
				require.Equal(t, "name", p.hear(t))
				p.say(t, dsn(file))
				require.Equal(t, "folder", p.hear(t))
				p.say(t, path)
				for _, step := range steps[:i] {
					require.Equal(t, step, p.hear(t))
					p.say(t, "go on")
				}
				require.Equal(t, last, p.hear(t))
				p.kill()
				if journal == "delete" && last == "commit" {
					require.NotEqual(t, unharmed, digest(t, file)) // else there is nothing to undo
				}

				db = pool(t, connector{dsn: dsn(file), connect: function("step", func(n int64) int64 { return n })})
				require.Equal(t, schema, schemaOf(t, db))
				require.Equal(t, before, history(t, db))
				require.Equal(t, "ok", one[string](t, db, "PRAGMA integrity_check"))
				applied, err := migrate.ApplyDir(t.Context(), db, migrate.SQLite, dir)
				require.NoError(t, err)
				require.Equal(t, []string{files[1].Name()}, applied)
				for _, table := range []string{"parents", "children"} {
					require.Equal(t, rows, one[int](t, db, "SELECT COUNT(*) FROM "+table))
				}
				fresh := pool(t, connector{dsn: dsn(newPath(t)),
					connect: function("step", func(n int64) int64 { return n })})
				applyDir(t, fresh, dir)
				require.Equal(t, schemaOf(t, fresh), schemaOf(t, db))
				require.Equal(t, history(t, fresh), history(t, db))
			})
		}
	}
}

// TestKillAnywhere kills a process at some time while it makes a new file.
func TestKillAnywhere(t *testing.T) {
	t.Parallel()
	rounds := sample.Of(40)
	fresh, steps := freshSchema(t), schemaSteps(t)
	p := start(t, "open")
	require.Equal(t, "ready", p.hear(t))
	began := time.Now()
	p.say(t, newPath(t))
	require.Equal(t, "<nil>", p.hear(t))
	whole := time.Since(began)

	found := map[string]int{}
	for i := range rounds {
		path := newPath(t)
		p := start(t, "open")
		require.Equal(t, "ready", p.hear(t))
		p.say(t, path)
		<-time.After(whole * time.Duration(i) / time.Duration(rounds-1) * 5 / 4) // up to a bit longer than it takes
		p.kill()

		db := database(t, path)
		schema := schemaOf(t, db)
		if len(schema) == 0 {
			found["no"]++
			require.Zero(t, one[int](t, db, "SELECT COUNT(*) FROM sqlite_master"))
		} else { // that of the files that were applied, each of them whole
			applied := versions(t, db)
			found[fmt.Sprint("that of ", len(applied))]++
			require.Equal(t, steps[len(applied)], schema)
			require.Equal(t, versionsOf(embedded(t)[:len(applied)]), applied)
		}
		require.Equal(t, "ok", one[string](t, db, "PRAGMA integrity_check"))
		reg, err := registry.Open(t.Context(), path)
		require.NoError(t, err)
		require.NoError(t, reg.Close())
		requireFresh(t, path, fresh)
	}
	t.Logf("found how often which schema: %v", found)
}
