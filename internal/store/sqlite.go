//go:build cgo

package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/jeffersonwarrior/modelscan/internal/busy"
)

const (
	// oldest is the first SQLite without the WAL-reset bug, which damages a database that two
	// connections write to and checkpoint at once: sqlite.org/wal.html, "WAL-reset bug".
	oldest = 3_051_003
	// cachedStatements is how many prepared statements a connection keeps.
	cachedStatements = 256
	// walLimit is the size, in bytes, at which the write-ahead log is copied into the file, and to which it is cut
	// after a burst. A large log copies a page once that many commits have changed; in a large file, these pages are
	// far apart and take long to sync. But a growing log syncs more slowly than one that is written over, so it should
	// not grow for long.
	walLimit = 16 << 20
	// pageSize is the page size of SQLite's new files.
	pageSize = 4 << 10
	// cacheKiB is how much of the file the writer keeps in memory.
	cacheKiB = 64 << 10
)

// OpenSQLite opens the database. It creates a missing file, readable by its owner alone.
func OpenSQLite(ctx context.Context, cfg Config) (_ *SQLite, err error) {
	cfg.BusyTimeout = cmp.Or(cfg.BusyTimeout, DefaultBusyTimeout)
	name, number, _ := sqlite3.Version()
	if err := checkVersion(name, number); err != nil {
		return nil, err
	}
	if cfg.Path == "" && cfg.Shared {
		return shared.open(cfg), nil
	}
	if cfg.Path == "" {
		writer := openMemory(cfg)
		return newSQLite(cfg, writer, writer, newLine()), nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := prepareFile(ctx, cfg); err != nil {
		return nil, err
	}
	file, err := watchFile(cfg.Path)
	if err != nil {
		return nil, err
	}
	uri := fileURI(cfg.Path)
	writer := open(file, uri+"?_txlock=immediate", writerPragmas(cfg))
	writer.SetMaxOpenConns(1)
	err = busy.Wait(ctx, DefaultBusyTimeout, func() error { return initialize(ctx, writer, cfg.ApplicationID) })
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	readers := open(file, uri+"?mode=ro", readerPragmas)
	n := max(4, runtime.NumCPU())
	readers.SetMaxOpenConns(n)
	readers.SetMaxIdleConns(n)
	db := newSQLite(cfg, writer, readers, newLine())
	db.file = file
	return db, nil
}

func openMemory(cfg Config) *sql.DB {
	writer := open(nil, "file::memory:?_txlock=immediate", writerPragmas(cfg))
	writer.SetMaxOpenConns(1) // a database in memory is its connection
	return writer
}

func checkVersion(name string, number int) error {
	if number < oldest {
		return fmt.Errorf(
			"SQLite %s can damage databases that several connections write to; 3.51.3 or newer is needed", name,
		)
	}
	return nil
}

// prepareFile creates a missing file, and checks that the file can be opened for writing.
func prepareFile(ctx context.Context, cfg Config) error {
	size, err := findOrCreate(cfg)
	if err != nil || size == 0 && !cfg.Existing || cfg.Inspect == nil {
		return err
	}
	// A connection that may write removes the log and the index that it created beside a file in WAL mode. If a log
	// with content is there already, closing such a connection would move the content into the file. Then a read-only
	// connection has to do.
	mode := "rw"
	if log, err := os.Stat(cfg.Path + "-wal"); err == nil && log.Size() > 0 {
		mode = "ro"
	}
	err = busy.Wait(ctx, DefaultBusyTimeout, func() error { return inspect(ctx, cfg, mode) })
	if e, _ := errors.AsType[sqlite3.Error](err); e.ExtendedCode == sqlite3.ErrReadonlyRollback ||
		e.ExtendedCode == sqlite3.ErrReadonlyRecovery {
		// A crash left a journal, which only a writer may roll back, as any SQLite would.
		err = busy.Wait(ctx, DefaultBusyTimeout, func() error { return inspect(ctx, cfg, "rw") })
	}
	return err
}

func inspect(ctx context.Context, cfg Config, mode string) error {
	db := open(nil, fileURI(cfg.Path)+"?mode="+mode, readerPragmas)
	db.SetMaxOpenConns(1)
	return errors.Join(cfg.Inspect(ctx, db), db.Close())
}

// creating keeps a goroutine from opening a file while another one still holds the descriptor that created it. Closing
// that descriptor would drop SQLite's POSIX locks on the file.
var creating sync.Mutex

// findOrCreate returns the size of the file, after it created an empty one if there was none.
func findOrCreate(cfg Config) (size int64, err error) {
	creating.Lock()
	defer creating.Unlock()
	info, err := os.Stat(cfg.Path)
	refuse := func(why error) (int64, error) {
		return 0, &fs.PathError{Op: "open", Path: cfg.Path, Err: why}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && !cfg.Existing:
		return 0, createFile(cfg.Path)
	case err != nil:
		return 0, err
	case info.IsDir():
		return refuse(errIsDir)
	case !info.Mode().IsRegular():
		return refuse(errNotRegular)
	case info.Mode().Perm()&0o222 == 0:
		return refuse(fs.ErrPermission) // before SQLite puts files of the same mode beside it
	case info.Size() == 1:
		return refuse(sqlite3.Error{Code: sqlite3.ErrNotADB}) // which SQLite takes for an empty file
	}
	if err := mayWrite(cfg.Path); err != nil {
		return refuse(err)
	}
	return info.Size(), nil
}

// createFile creates an empty file with mode 0600. SQLite gives the log and the index beside it
// the same mode.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if _, err := os.Stat(path); err == nil {
			return nil // another process was faster
		}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // a link to where no file is
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// initialize writes the header of a new file and puts the file into WAL mode.
func initialize(ctx context.Context, db *sql.DB, applicationID int32) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var pages int
	if err := conn.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
		return err
	}
	if pages == 0 {
		// One transaction, so that both are in page 1 from its first byte on. BEGIN IMMEDIATE would
		// write that page before auto_vacuum is set. Of several processes, each writes the same.
		_, err := conn.ExecContext(ctx, fmt.Sprintf(
			"BEGIN; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA application_id = %d; COMMIT", applicationID))
		if err != nil {
			Rollback(ctx, conn)
			return err
		}
	}
	var mode string
	if err := conn.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("SQLite stays in journal mode %s: the file system has no shared memory", mode)
	}
	return requireWritable(ctx, conn)
}

// requireWritable returns an error if SQLite has opened the file read-only, as it does when it may not write. The first
// write would fail.
func requireWritable(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE; PRAGMA user_version = 0; ROLLBACK")
	if busy.Is(err) {
		return nil // somebody else is writing
	}
	return err
}

// pragma is a setting of a connection.
type pragma struct {
	name  string
	value int64
}

var readerPragmas = []pragma{
	{"foreign_keys", 1}, {"busy_timeout", DefaultBusyTimeout.Milliseconds()}, {"query_only", 1},
}

func writerPragmas(cfg Config) []pragma {
	synchronous := int64(2) // FULL
	if cfg.Durability == Relaxed {
		synchronous = 1 // NORMAL
	}
	all := []pragma{
		{"foreign_keys", 1}, {"busy_timeout", min(busy.Step, cfg.BusyTimeout).Milliseconds()},
		{"synchronous", synchronous},
	}
	if cfg.Path == "" {
		return all
	}
	return append(all, pragma{"journal_size_limit", walLimit}, pragma{"wal_autocheckpoint", walLimit / pageSize},
		pragma{"cache_size", -cacheKiB})
}

// open returns a pool whose connections have been seen to have their pragmas. The URI has parameters.
func open(file *openFile, uri string, pragmas []pragma) *sql.DB {
	hook := func(conn *sqlite3.SQLiteConn) error {
		for _, p := range pragmas {
			if err := p.set(conn); err != nil {
				return fmt.Errorf("PRAGMA %s: %w", p.name, err)
			}
		}
		return nil
	}
	return sql.OpenDB(&connector{
		SQLiteDriver: sqlite3.SQLiteDriver{ConnectHook: hook}, file: file,
		dsn: fmt.Sprintf("%s&_stmt_cache_size=%d", uri, cachedStatements),
	})
}

// set sets a pragma. SQLite says nothing about what it does not know.
func (p pragma) set(conn *sqlite3.SQLiteConn) error {
	if _, err := conn.Exec(fmt.Sprintf("PRAGMA %s = %d", p.name, p.value), nil); err != nil {
		return err
	}
	rows, err := conn.Query("PRAGMA "+p.name, nil)
	if err != nil {
		return err
	}
	got := make([]driver.Value, 1)
	if err := errors.Join(rows.Next(got), rows.Close()); err != nil {
		return err
	}
	if got[0] != p.value {
		return fmt.Errorf("it is %v, not %d", got[0], p.value)
	}
	return nil
}

// fileURI returns the SQLite URI of exactly this path.
func fileURI(path string) string { return "file:" + (&url.URL{Path: path}).EscapedPath() }

// lookAtFile is how long check trusts that the name still means the open file.
const lookAtFile = time.Second

// openFile is an open file.
type openFile struct {
	path   string
	info   os.FileInfo
	looked time.Time // when check last saw it in its place
}

// watchFile returns the file of a name, which the caller then opens.
func watchFile(path string) (*openFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &openFile{path: path, info: info}, nil
}

// check returns [ErrReplaced] if the file is not in its place. It looks at most once a second while it is. It is for
// the one who has the turn to write.
func (f *openFile) check() error {
	if f == nil { // in memory
		return nil
	}
	now := time.Now()
	if now.Sub(f.looked) < lookAtFile {
		return nil
	}
	if err := f.look(); err != nil {
		return err
	}
	f.looked = now
	return nil
}

// look is check without the limit of once a second. If it cannot see the file, because a folder can no longer be
// entered, it trusts it.
func (f *openFile) look() error {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, f.info) {
		return ErrReplaced
	}
	return nil
}
