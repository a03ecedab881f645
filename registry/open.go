package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/migrate"
)

// Open opens the database of that name and brings it up to date.
//
// The name is the path of a SQLite file, "file:" and such a path with percent escapes, ":memory:"
// for a private database that is gone after Close, or the URL of a PostgreSQL database:
//
//	modelscan.db
//	file:/var/lib/gateway/what%3f.db
//	postgres://user:password@host:5432/database
//	postgres://user:password@host1,host2/database?target_session_attrs=read-write
//
// After a SQLite name and a "?" may come parameters that ask for what is done anyway: _fk=1 (or _foreign_keys),
// _journal=WAL (or _journal_mode), _txlock=immediate, mode=rwc and cache=private. Two more change something:
// with cache=shared, all of this process that open ":memory:" so have one database; _busy_timeout is
// [WithBusyTimeout] in milliseconds, unless that is given too.
//
// A SQLite file is created if there is none, readable by its owner alone; several processes may
// open one file at once. A PostgreSQL database must exist, on a server of version 15 or newer; its
// tables are made in the first schema of the search_path. Of several hosts the one that can be
// written to is used, also after it has changed.
//
// It returns [ErrInvalidData] for an invalid name: a directory, a path whose folder does not exist, a database that
// the server does not have, other parameters, control characters, the keyword form host=... dbname=..., or sqlite:...;
// and for a file that does not exist [WithoutMigration]; [ErrSchema] for a database that is newer than this program,
// belongs to another application or has another history of migrations; [ErrCorrupt], [ErrReadOnly], [ErrDiskFull],
// [ErrBusy], [ErrUnavailable], [ErrDenied] or [ErrUnsupported]; and [ErrKeyring] if the keyring of [WithKeyring] is
// not that of the database. A database that is refused is not changed, but for migrations where the keyring is the
// reason. ErrDenied of a role names all that it lacks, as GRANTs. No error holds a password.
func Open(ctx context.Context, name string, options ...Option) (*Registry, error) {
	cfg, err := configure(options)
	if err != nil {
		return nil, translate(ctx, "open registry", err)
	}
	db, err := openDB(ctx, "open registry", name, cfg)
	if err != nil {
		return nil, err
	}
	client := ent.NewClient(ent.Driver(db))
	client.Use(guard)
	r := &Registry{
		db: db, client: client, shown: client.With(ent.Driver(walking{db})), fresh: client, clock: cfg.clock,
		blank: new(atomic.Pointer[ent.APIKey]), vault: &vault{ring: cfg.keyring, resolve: cfg.resolve},
		waiters: &waiters{poll: poll}, classify: cfg.classify, pieceRows: pieceRows, mostRetryAfter: cfg.mostRetryAfter,
	}
	if driver := db.Fresh(); driver != dialect.Driver(db) {
		r.fresh = client.With(ent.Driver(driver))
	}
	r.commits = commit.New(commit.Config{
		DB: db, Clock: r.now, Strategy: pool.Strategy(cfg.strategy), Expired: pieceRows, Write: r.writeBatch,
		NoKey: noKey,
		Audit: r.auditPool,
	})
	if err := r.openVault(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return r, nil
}

func configure(options []Option) (config, error) {
	cfg := config{clock: time.Now, migrate: true, mostRetryAfter: maxRetryAfter}
	for _, option := range options {
		if option == nil {
			return config{}, fmt.Errorf("%w: an option is nil", ErrInvalidData)
		}
		if err := option(&cfg); err != nil {
			return config{}, fmt.Errorf("%w: %w", ErrInvalidData, err)
		}
	}
	if cfg.classify == nil {
		cfg.classify = classifyWithin(cfg.mostRetryAfter)
	}
	return cfg, nil
}

// openDB opens a database that is up to date, or has been brought there, for an operation.
func openDB(ctx context.Context, op, name string, cfg config) (db store.DB, err error) {
	shown, d := store.RedactURL(name), migrate.Postgres
	if store.IsPostgres(name) {
		db, err = store.OpenPostgres(ctx, store.PostgresConfig{
			URL: name, Replica: cfg.replica, Pooler: cfg.pooler,
			Durability: store.Durability(cfg.durability), MaxConns: cfg.maxConns, BusyTimeout: cfg.busyTimeout,
		})
	} else {
		parsed, bad := store.ParseName(name)
		if bad != nil {
			return nil, translate(ctx, op, bad) // the name may hold a password
		}
		if parsed.BusyTimeout != nil && cfg.busyTimeout == 0 {
			cfg.busyTimeout = max(1, *parsed.BusyTimeout)
		}
		shown, d = fmt.Sprintf("%q", name), migrate.SQLite
		db, err = openSQLite(ctx, parsed, cfg)
	}
	if err == nil {
		if err = bringUpToDate(ctx, db, d, cfg); err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if err != nil {
		return nil, translate(ctx, op+" "+shown, err)
	}
	return db, nil
}

func openSQLite(ctx context.Context, name store.Name, cfg config) (store.DB, error) {
	if cfg.postgres != "" && !cfg.moving {
		return nil, fmt.Errorf("%w: %s is for PostgreSQL", ErrInvalidData, cfg.postgres)
	}
	return store.OpenSQLite(ctx, store.Config{
		Path:          name.Path,
		Shared:        name.Shared,
		Durability:    store.Durability(cfg.durability),
		BusyTimeout:   cfg.busyTimeout,
		ApplicationID: migrate.ApplicationID,
		Existing:      !cfg.migrate,
		Inspect: func(ctx context.Context, db *sql.DB) error {
			return upToDate(ctx, db, migrate.SQLite, cfg.migrate)
		},
	})
}

// bringUpToDate migrates a database, if it may, and returns why it cannot be used otherwise.
func bringUpToDate(ctx context.Context, db store.DB, d migrate.Dialect, cfg config) error {
	return db.Retry(ctx, func() (err error) {
		if d == migrate.Postgres && !cfg.moving {
			if err := checkPrivileges(ctx, db); err != nil {
				return err
			}
		}
		if cfg.migrate {
			_, err = migrate.Apply(ctx, db.Writer(), d)
		} else {
			err = upToDate(ctx, db.Writer(), d, false)
		}
		if err != nil || cfg.moving {
			return err
		}
		return refuseMoving(ctx, db)
	})
}

// upToDate returns why a database cannot be used: where it may be migrated, pending files are
// no reason.
func upToDate(ctx context.Context, db *sql.DB, d migrate.Dialect, mayMigrate bool) error {
	state, err := migrate.Status(ctx, db, d)
	if err != nil {
		return err
	}
	if !mayMigrate && len(state.Pending) > 0 {
		return fmt.Errorf("%w: not applied yet: %s", ErrSchema, strings.Join(state.Pending, ", "))
	}
	return nil
}

// openVault makes the database's identity and its first data key, if there is none, and unwraps all of them.
func (r *Registry) openVault(ctx context.Context) error {
	if r.vault.ring == nil {
		return nil
	}
	open, err := r.vault.load(ctx, r.fresh)
	if err != nil || open {
		return translate(ctx, "open keyring", err)
	}
	return r.writeAlone(ctx, "open keyring", func(tx *ent.Client) error {
		if open, err := r.vault.load(ctx, tx); err != nil || open { // another process was faster
			return err
		}
		now := r.now()
		row, err := tx.Installation.Create().SetNumber(1).SetCreatedAt(now).Save(ctx)
		if err != nil {
			return err
		}
		r.vault.installedAs(row.ID)
		_, err = r.vault.newDataKey(ctx, tx, now)
		return err
	})
}
