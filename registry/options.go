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

	busyTimeout time.Duration // 0: as the name says, or the default

	replica  string
	pooler   bool
	maxConns int
	moving   bool   // for Move: a target that is not complete is no reason to refuse it
	postgres string // the option that only PostgreSQL has; empty: none was given
}

// WithClock sets where every time comes from that the registry writes or compares. It must be
// safe for concurrent use. Defaults to time.Now.
func WithClock(now func() time.Time) Option {
	return func(c *config) error {
		if now == nil {
			return errors.New("WithClock: the clock is nil")
		}
		c.clock = now
		return nil
	}
}

// Durability is what a write that returned nil survives.
type Durability int

// The durabilities.
const (
	// DurabilityFull survives a power cut: each commit is synced to the disk.
	DurabilityFull = Durability(store.Full)
	// DurabilityRelaxed survives the end of the process, kill -9 included. A power cut can take the
	// newest commits, but leaves the database consistent.
	DurabilityRelaxed = Durability(store.Relaxed)
)

// WithDurability sets what a write that returned nil survives. Defaults to [DurabilityFull].
//
// On PostgreSQL, DurabilityFull leaves synchronous_commit as the server has it, and refuses a server where it
// is off; DurabilityRelaxed switches it off for the registry's transactions. What happens to a write when the
// server is lost and a standby takes over depends on the server's synchronous_standby_names.
func WithDurability(d Durability) Option {
	return func(c *config) error {
		if d != DurabilityFull && d != DurabilityRelaxed {
			return errors.New("WithDurability: not one of DurabilityFull and DurabilityRelaxed")
		}
		c.durability = d
		return nil
	}
}

// WithoutMigration makes [Open] refuse a database that is not up to date, with [ErrSchema], and
// one that does not exist, with [ErrInvalidData], instead of migrating or creating it. It is for
// services whose migrations are applied in a step of their own, such as `atlas migrate apply`. On PostgreSQL their role
// needs USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on its tables. Defaults to migrating.
func WithoutMigration() Option {
	return func(c *config) error {
		c.migrate = false
		return nil
	}
}

// WithBusyTimeout sets how long an operation waits for what others hold, before it returns [ErrBusy]. A context that
// ends earlier wins. Defaults to ten seconds; 0 does not wait.
//
// On SQLite it is the wait for the one transaction at a time that may write, in this process and again in all others.
// Requests that are recorded, and keys that are leased, wait for their batch that long and as long again for the
// batch's turn. On PostgreSQL it is the wait for a lock, after a deadlock too, and for a connection where
// [WithMaxConns] are in use. Open waits for other processes whatever it says, and up to a minute where they migrate.
func WithBusyTimeout(d time.Duration) Option {
	return func(c *config) error {
		if d < 0 {
			return errors.New("WithBusyTimeout: less than 0")
		}
		c.busyTimeout = max(1, d)
		return nil
	}
}

// WithReadReplica sends reads to a replica of a PostgreSQL database: those outside of transactions
// on which no write of the registry's own depends. It is the URL of a hot standby, and may name
// several hosts.
//
// What is read there can be up to a second old; a program can miss even what it has written itself.
// Read within [Registry.InTx] what must be as of now. While the replica is further behind, or is
// gone, reads go to the primary.
func WithReadReplica(url string) Option {
	return func(c *config) error {
		if !store.IsPostgres(url) {
			return errors.New("WithReadReplica: the URL does not begin with postgres://")
		}
		c.replica, c.postgres = url, "WithReadReplica"
		return nil
	}
}

// WithPooler is for a PostgreSQL database behind a pooler that gives a connection to another client
// after each transaction, such as PgBouncer with pool_mode=transaction. Statements are then sent
// without being prepared, and one whose context ends costs its connection: PgBouncer 1.18 does not
// survive that a statement is cancelled.
func WithPooler() Option {
	return func(c *config) error {
		c.pooler, c.postgres = true, "WithPooler"
		return nil
	}
}

// WithMaxConns sets how many connections to a PostgreSQL server the registry opens at most, and as
// many to a replica. Defaults to 16.
func WithMaxConns(n int) Option {
	return func(c *config) error {
		if n < 1 {
			return errors.New("WithMaxConns: less than 1")
		}
		c.maxConns, c.postgres = n, "WithMaxConns"
		return nil
	}
}

// WithKeyStrategy sets how AcquireKey chooses among the keys that may be used. Processes that share a database may
// differ. Defaults to [FairTurns].
func WithKeyStrategy(s KeyStrategy) Option {
	return func(c *config) error {
		if s != FairTurns && s != RoundRobin && s != MostHeadroom {
			return errors.New("WithKeyStrategy: not one of LeastUsed, RoundRobin and MostHeadroom")
		}
		c.strategy = s
		return nil
	}
}

// KeyStrategy is how AcquireKey chooses among the keys of the highest priority that may be used.
type KeyStrategy int

// The strategies.
const (
	// FairTurns hands out keys in turn, each as often as its weight says. A key that was away, or is new, does not
	// make up for what it missed: it takes its turns from then on.
	FairTurns = KeyStrategy(pool.FairTurns)
	// RoundRobin hands out the key that was handed out longest ago, whatever its weight.
	RoundRobin = KeyStrategy(pool.RoundRobin)
	// MostHeadroom hands out the key whose scarcest limit is the least used, as a fraction of the limit; among equals
	// as LeastUsed.
	MostHeadroom = KeyStrategy(pool.MostHeadroom)
)

// WithKeyring keeps API keys, sealed, so that [Registry.RevealAPIKey] can give them back: by AES-256-GCM, with a data
// key that the keyring has wrapped, and bound to their row. Without it only hashes and prefixes are kept.
//
// The first Open of a database with a keyring decides: from then on keys are added to it only with one, and [Open]
// returns [ErrKeyring] if the keyring is not that of the database. All processes need the same one. What is sealed is
// safe from who has the file, or a backup, and not the keyring; not from who can read the memory of a process, or has
// both.
func WithKeyring(ring Keyring) Option {
	return func(c *config) error {
		if ring == nil {
			return errors.New("WithKeyring: the keyring is nil")
		}
		c.keyring = ring
		return nil
	}
}

// WithSecretResolver is for API keys that are kept elsewhere, in a vault, say, or a file: [Registry.RevealAPIKey] calls
// resolve for those that are not sealed in the database. It is called with the row, of which id, provider_id, key_hash
// and label tell which key is meant, and must be safe for concurrent use.
func WithSecretResolver(resolve func(ctx context.Context, key *ent.APIKey) (Secret, error)) Option {
	return func(c *config) error {
		if resolve == nil {
			return errors.New("WithSecretResolver: the function is nil")
		}
		c.resolve = resolve
		return nil
	}
}

// maxRetryAfter is the default of WithMaxRetryAfter, and longestRetryAfter what it takes at the most.
const (
	maxRetryAfter     = utc.Day
	longestRetryAfter = 365 * utc.Day
)

// WithMaxRetryAfter sets for how long at the most a provider's answer takes a key out of use, whatever its Retry-After
// and other headers and its body say: a second to 365 days. It does not bound what a [Classifier] of yours returns.
// Defaults to a day.
func WithMaxRetryAfter(most time.Duration) Option {
	return func(c *config) error {
		if most < time.Second || most > longestRetryAfter {
			return fmt.Errorf("WithMaxRetryAfter: %s is not within 1s and %s", most, longestRetryAfter)
		}
		c.mostRetryAfter = most
		return nil
	}
}

// WithClassifier sets what tells failures apart. Defaults to [Classify], which another one can call for what it does
// not know. What it returns is refused with [ErrInvalidData] unless the class is one of the six.
func WithClassifier(classify Classifier) Option {
	return func(c *config) error {
		if classify == nil {
			return fmt.Errorf("WithClassifier: the classifier is nil")
		}
		c.classify = classify
		return nil
	}
}
