package registry

import (
	"context"
	stdsql "database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

// On PostgreSQL the events of a UTC day are a partition, so that PruneUsage can drop a day as a whole. It is
// made with the first event of the day; that of tomorrow is made with the first of today, so that midnight
// finds it.

// partitions remembers which days have a partition. A day that another process drops meanwhile is noticed
// when an insert fails, and forgotten.
type partitions struct {
	mu    sync.Mutex
	known map[time.Time]bool
}

func (p *partitions) has(day time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[day]
}

func (p *partitions) learn(day time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		p.known = map[time.Time]bool{}
	}
	p.known[day] = true
}

func (p *partitions) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.known)
}

// querier is a transaction: Ent's or database/sql's.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (stdsql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*stdsql.Rows, error)
}

// partitionLock is the number of the advisory lock for making partitions ("MSpt").
const partitionLock = 0x4d537074

// ensure makes the partitions that the days lack, in a transaction on PostgreSQL. What the transaction itself
// makes is not remembered: it may be undone.
func (p *partitions) ensure(ctx context.Context, tx querier, days []time.Time) error {
	locked := false
	for _, day := range days {
		if p.has(day) {
			continue
		}
		there, err := hasPartition(ctx, tx, day)
		if err != nil {
			return err
		}
		if !there && !locked {
			if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", partitionLock); err != nil {
				return err
			}
			locked = true
			if there, err = hasPartition(ctx, tx, day); err != nil { // another process was faster
				return err
			}
		}
		if there {
			if !locked {
				p.learn(day)
			}
			continue
		}
		if err := makePartition(ctx, tx, day); err != nil {
			return err
		}
	}
	return nil
}

func hasPartition(ctx context.Context, tx querier, day time.Time) (there bool, err error) {
	// to_regclass would answer from what the connection remembers.
	rows, err := tx.QueryContext(ctx, "SELECT EXISTS (SELECT 1 FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"+
		" WHERE i.inhparent = CAST('usage_events' AS regclass) AND c.relname = $1)", partitionName(day))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := rows.Scan(&there); err != nil {
			return false, err
		}
	}
	return there, rows.Err()
}

// makePartition makes a table and attaches it, which keeps nobody from recording; CREATE TABLE ... PARTITION OF
// would lock all of the events.
func makePartition(ctx context.Context, tx querier, start time.Time) error {
	name := partitionName(start)
	for _, statement := range []string{
		fmt.Sprintf("CREATE TABLE %s (LIKE usage_events INCLUDING ALL)", name),
		fmt.Sprintf("CREATE UNIQUE INDEX %s_request_id ON %[1]s (request_id)", name),
		fmt.Sprintf("ALTER TABLE usage_events ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')",
			name, firstEventID(start), firstEventID(start.Add(day))),
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}
