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
	entmigrate "github.com/jeffersonwarrior/modelscan/ent/migrate"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/policy"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/migrate"
)

// Open opens a database and brings its schema up to date. The name is one of these:
//
//   - the path of a SQLite file
//   - "file:" and such a path with percent escapes
//   - ":memory:", for a private database that is gone after Close
//   - the URL of a PostgreSQL database
//
// For example:
//
//	modelscan.db
//	file:/var/lib/gateway/what%3f.db
//	postgres://user:password@host:5432/database
//	postgres://user:password@host1,host2/database?target_session_attrs=read-write
//
// A SQLite file is created if it does not exist, readable by its owner alone. Several processes may open one file at
// once.
//
// A PostgreSQL database must exist, on a server of version 15 or newer. Its tables are created in the first schema of
// the search_path. If the URL names several hosts, the one that accepts writes is used, also after that changes.
//
// A SQLite name may be followed by "?" and parameters. Two of them change something:
//
//   - cache=shared lets everything in this process that opens ":memory:" share one database.
//   - _busy_timeout is [WithBusyTimeout] in milliseconds; the option wins over it.
//
// These are accepted because they ask for what Open does anyway: _fk=1 (or _foreign_keys), _journal=WAL (or
// _journal_mode), _txlock=immediate, mode=rwc and cache=private.
//
// Errors:
//
//   - [ErrInvalidData]: the name is invalid: a directory, a path whose folder does not exist, a database that the
//     server does not have, other parameters, control characters, the keyword form host=... dbname=..., or sqlite:...;
//     or an option is invalid; or, [WithoutMigration], the file does not exist
//   - [ErrSchema]: the database is newer than this program, belongs to another application, or has another history of
//     migrations
//   - [ErrKeyring]: the keyring of [WithKeyring] is not the database's
//   - [ErrDenied]: the server refuses the user, the password or a permission; if the role lacks privileges, the text
//     names all of them, as GRANTs
//   - [ErrCorrupt], [ErrReadOnly], [ErrDiskFull], [ErrBusy], [ErrUnavailable] or [ErrUnsupported]
//
// A database that Open refuses is left unchanged, except that migrations have run if only the keyring is rejected. No
// error contains a password.
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
		requireConsumer: cfg.requireConsumer,
	}
	if driver := db.Fresh(); driver != dialect.Driver(db) {
		r.fresh = client.With(ent.Driver(driver))
	}
	r.policy = policy.New(r.now, r.policyVersion)
	r.commits = commit.New(commit.Config{
		DB: db, Clock: r.now, Strategy: pool.Strategy(cfg.strategy), Expired: pieceRows,
		Write: r.writeBatch, NoKey: noKey, Audit: r.auditPool, Forbidden: forbidden, OverBudget: overBudget,
		OverLimit: overLimit,
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

// openDB opens a database for an operation, and brings it up to date or checks that it is.
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

// bringUpToDate migrates a database, if the configuration allows that. It returns why the database cannot be used.
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

// upToDate returns why a database cannot be used. If it may be migrated, pending migrations are no reason.
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

// openVault unwraps the data keys. In a new database it creates the database's identity and its first data key.
func (r *Registry) openVault(ctx context.Context) error {
	if r.vault.ring == nil {
		return nil
	}
	open, err := r.vault.load(ctx, r.fresh)
	if err != nil || open {
		return translate(ctx, "open keyring", err)
	}
	return r.writeAlone(ctx, "open keyring", nil, func(tx *ent.Client) error {
		if open, err := r.vault.load(ctx, tx); err != nil || open { // another process was faster
			return err
		}
		now := timeOf(tx)
		row, err := tx.Installation.Create().SetNumber(1).SetCreatedAt(now).Save(ctx)
		if err != nil {
			return err
		}
		r.vault.installation.Store(&row.ID)
		_, err = r.vault.newDataKey(ctx, tx, now)
		return err
	})
}

// lackingSQL lists the privileges that the role lacks, as the GRANTs that give them. It examines the schema with the
// tables: the first of the search_path that the role may use, or else the first that exists.
const lackingSQL = `
WITH place AS (
	SELECT n.oid, n.nspname
	FROM unnest(string_to_array(current_setting('search_path'), ',')) WITH ORDINALITY AS p(name, number)
	JOIN pg_namespace AS n ON n.nspname = CASE
		WHEN btrim(p.name) = '"$user"' THEN current_user
		WHEN btrim(p.name) LIKE '"%' THEN replace(btrim(btrim(p.name), '"'), '""', '"')
		ELSE lower(btrim(p.name)) END
	ORDER BY n.nspname = current_schema() DESC NULLS LAST, p.number LIMIT 1
), lacking AS (
	SELECT 'SCHEMA ' AS kind, quote_ident(nspname) AS object, 0 AS number, 'USAGE' AS privilege
	FROM place WHERE NOT has_schema_privilege(oid, 'USAGE')
	UNION ALL
	SELECT '', format('%I.%I', place.nspname, c.relname), p.number, p.name
	FROM place
	JOIN pg_class AS c ON c.relnamespace = place.oid AND c.relkind IN ('r', 'p') AND c.relname = ANY(CAST($1 AS text[]))
	CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS p(name, number)
	WHERE (c.relname <> $2 OR p.name = 'SELECT') AND NOT has_table_privilege(c.oid, p.name)
	UNION ALL
	SELECT 'FUNCTION ', format('%I.%I(%s)', place.nspname, f.proname, pg_get_function_identity_arguments(f.oid)),
		5, 'EXECUTE'
	FROM place JOIN pg_proc AS f ON f.pronamespace = place.oid AND f.proname = ANY(CAST($3 AS text[]))
	WHERE NOT has_function_privilege(f.oid, 'EXECUTE')
), objects AS (
	SELECT kind, object, min(number) AS number, string_agg(privilege, ', ' ORDER BY number) AS privileges
	FROM lacking GROUP BY kind, object
)
SELECT format('GRANT %s ON %s%s TO %I', privileges, kind, string_agg(object, ', ' ORDER BY object), current_user)
FROM objects GROUP BY kind, privileges ORDER BY min(number), privileges`

// checkPrivileges returns ErrDenied with all the privileges that the role lacks for a registry on PostgreSQL.
func checkPrivileges(ctx context.Context, db store.DB) error {
	const revisions = "atlas_schema_revisions"
	tables := []string{revisions}
	functions := []string{"usage_events_make_partitions", "usage_events_drop_partition", "share_policy"}
	for _, t := range entmigrate.Tables {
		tables = append(tables, t.Name)
	}
	var grants []string
	args := []any{tables, revisions, functions}
	err := bulk.Scan(ctx, db.Writer(), lackingSQL, args, func(scan func(...any) error) error {
		var grant string
		err := scan(&grant)
		grants = append(grants, grant)
		return err
	})
	if err != nil || len(grants) == 0 {
		return err
	}
	return fmt.Errorf(
		"%w: the role lacks privileges; the owner of the tables can give them: %s", ErrDenied,
		strings.Join(grants, "; "),
	)
}
