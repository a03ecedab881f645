package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Option changes how [Open] opens a registry.
type Option func(*config) error

type config struct {
	clock      func() time.Time
	durability Durability
	migrate    bool
	keyring    Keyring
	resolve    func(ctx context.Context, key *ent.APIKey) (Secret, error)
	strategy   KeyStrategy
	classify   Classifier // nil: Classify, within mostRetryAfter

	mostRetryAfter time.Duration

	requireConsumer bool

	busyTimeout time.Duration // 0: as the name says, or the default

	replica  string
	pooler   bool
	maxConns int
	moving   bool   // for Move: accept a target that is not complete yet
	postgres string // an option that was given and is for PostgreSQL only; empty: none
}

// setIf returns an option that sets something if it was given what it needs, and returns an error otherwise.
func setIf(ok bool, fault string, set func(c *config)) Option {
	return func(c *config) error {
		if !ok {
			return errors.New(fault)
		}
		set(c)
		return nil
	}
}

// WithClock sets the clock for every time that the registry writes or compares. The function must be safe for
// concurrent use. The default is time.Now.
func WithClock(now func() time.Time) Option {
	return setIf(now != nil, "WithClock: the clock is nil", func(c *config) { c.clock = now })
}

// Durability says what a write survives once it has returned nil.
type Durability int

// The durabilities.
const (
	// DurabilityFull survives a power cut: each commit is synced to disk.
	DurabilityFull = Durability(store.Full)
	// DurabilityRelaxed survives the end of the process, kill -9 included. A power cut can lose the newest commits, but
	// leaves the database consistent.
	DurabilityRelaxed = Durability(store.Relaxed)
)

// WithDurability sets what a write survives once it has returned nil. The default is [DurabilityFull].
//
// On PostgreSQL, DurabilityFull leaves synchronous_commit as the server has it, and refuses a server where it is off.
// DurabilityRelaxed switches it off for the registry's transactions. If the server is lost and a standby takes over,
// the server's synchronous_standby_names decides which writes are kept.
func WithDurability(d Durability) Option {
	return setIf(d == DurabilityFull || d == DurabilityRelaxed,
		"WithDurability: not one of DurabilityFull and DurabilityRelaxed", func(c *config) { c.durability = d })
}

// WithoutMigration makes [Open] refuse a database instead of migrating or creating it: with [ErrSchema] if it is not up
// to date, with [ErrInvalidData] if it does not exist. Use it for services whose migrations run as a separate step,
// such as `atlas migrate apply`. By default Open migrates.
//
// On PostgreSQL the service's role needs USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on its tables.
func WithoutMigration() Option {
	return func(c *config) error {
		c.migrate = false
		return nil
	}
}

// WithBusyTimeout sets how long an operation waits for what others hold before it returns [ErrBusy]. A context that
// ends earlier wins. The default is ten seconds; 0 does not wait.
//
//   - On SQLite, it is the wait for the one transaction that may write: once within this process, and again among all
//     processes. Recording usage and leasing keys wait that long for their batch, and as long again for the batch's
//     turn.
//   - On PostgreSQL, it is the wait for a lock, after a deadlock too, and for a connection when [WithMaxConns] are in
//     use.
//
// Open does not follow it: it waits for other processes, for up to a minute while they migrate.
func WithBusyTimeout(d time.Duration) Option {
	return setIf(d >= 0, "WithBusyTimeout: negative", func(c *config) { c.busyTimeout = max(1, d) })
}

// WithReadReplica sends reads to a replica of a PostgreSQL database: all reads outside of transactions, except those
// that a write of the registry depends on. The URL names a hot standby, or several hosts.
//
// A replica can be up to a second behind, so a program may not see what it has just written. To read the current state,
// read within [Registry.InTx]. While the replica is further behind, or gone, reads go to the primary.
func WithReadReplica(url string) Option {
	return setIf(store.IsPostgres(url), "WithReadReplica: the URL does not begin with postgres://",
		func(c *config) { c.replica, c.postgres = url, "WithReadReplica" })
}

// WithPooler is for a PostgreSQL database behind a pooler that gives a connection to another client after each
// transaction, such as PgBouncer with pool_mode=transaction. Statements are sent without being prepared. A statement
// whose context ends costs its connection, because PgBouncer 1.18 does not survive the cancelling of a statement.
func WithPooler() Option {
	return func(c *config) error {
		c.pooler, c.postgres = true, "WithPooler"
		return nil
	}
}

// WithMaxConns sets the most connections that the registry opens to a PostgreSQL server, and as many to a replica. The
// default is 16.
func WithMaxConns(n int) Option {
	return setIf(n >= 1, "WithMaxConns: less than 1", func(c *config) { c.maxConns, c.postgres = n, "WithMaxConns" })
}

// WithKeyStrategy sets how AcquireKey chooses among usable keys. Processes that share a database may use different
// strategies. The default is [FairTurns].
func WithKeyStrategy(s KeyStrategy) Option {
	return setIf(s == FairTurns || s == RoundRobin || s == MostHeadroom,
		"WithKeyStrategy: not one of FairTurns, RoundRobin and MostHeadroom", func(c *config) { c.strategy = s })
}

// KeyStrategy says how AcquireKey chooses among the usable keys of the highest priority.
type KeyStrategy int

// The strategies.
const (
	// FairTurns hands out keys in turn, each as often as its weight says. A key that is new, or was out of use, does
	// not catch up on missed turns.
	FairTurns = KeyStrategy(pool.FairTurns)
	// RoundRobin hands out the key that was handed out longest ago, regardless of weight.
	RoundRobin = KeyStrategy(pool.RoundRobin)
	// MostHeadroom hands out the key with the most room left: of each key, the limit with the largest fraction used
	// counts. Ties are broken as by FairTurns.
	MostHeadroom = KeyStrategy(pool.MostHeadroom)
)

// WithKeyring stores API keys sealed, so that [Registry.RevealAPIKey] can return them. They are sealed by AES-256-GCM
// with a data key that the keyring has wrapped, and bound to their row. Without a keyring only hashes and prefixes are
// stored.
//
// The first Open of a database with a keyring decides: from then on keys can be added only with a keyring, and [Open]
// returns [ErrKeyring] if the keyring is not the database's. All processes need the same one.
//
// Sealed keys are safe from somebody who has the file or a backup without the keyring. They are not safe from somebody
// who has both, or who can read the memory of a process.
func WithKeyring(ring Keyring) Option {
	return setIf(ring != nil, "WithKeyring: the keyring is nil", func(c *config) { c.keyring = ring })
}

// WithSecretResolver is for API keys that are kept elsewhere, in a vault or a file for example. [Registry.RevealAPIKey]
// calls resolve for keys that are not sealed in the database. The function gets the key's row: id, provider_id,
// key_hash and label say which key is meant. It must be safe for concurrent use.
func WithSecretResolver(resolve func(ctx context.Context, key *ent.APIKey) (Secret, error)) Option {
	return setIf(resolve != nil, "WithSecretResolver: the function is nil", func(c *config) { c.resolve = resolve })
}

// maxRetryAfter is the default of WithMaxRetryAfter, and longestRetryAfter its upper bound.
const (
	maxRetryAfter     = utc.Day
	longestRetryAfter = 365 * utc.Day
)

// WithMaxRetryAfter limits how long a provider's answer can take a key out of use, whether its Retry-After, another
// header or its body says so. The limit is between a second and 365 days; the default is a day. It does not apply to
// what a [Classifier] of your own returns.
func WithMaxRetryAfter(most time.Duration) Option {
	return setIf(most >= time.Second && most <= longestRetryAfter,
		fmt.Sprintf("WithMaxRetryAfter: %s is not between 1s and %s", most, longestRetryAfter),
		func(c *config) { c.mostRetryAfter = most })
}

// WithRequiredConsumer refuses to lease keys and to record usage for nobody: [ErrInvalidData].
func WithRequiredConsumer() Option {
	return func(c *config) error {
		c.requireConsumer = true
		return nil
	}
}

// WithClassifier sets the function that classifies failures. The default is [Classify]; your function can call it for
// failures that it does not know. Fail returns [ErrInvalidData] for a class that is not one of the six.
func WithClassifier(classify Classifier) Option {
	return setIf(classify != nil, "WithClassifier: the classifier is nil", func(c *config) { c.classify = classify })
}
