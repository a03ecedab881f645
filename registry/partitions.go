package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
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

// partitionLock is the number of the advisory lock for making partitions ("MSpt").
const partitionLock = 0x4d537074

// ensure makes the partitions that the days lack, in a transaction on PostgreSQL. What the transaction itself
// makes is not remembered: it may be undone. Of a transaction in which that was called before, nothing is.
func (p *partitions) ensure(ctx context.Context, tx querier, days []time.Time, before bool) error {
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
			if !locked && !before {
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

// requestIndex is how the name of the index ends that keeps the request ids of a partition unique.
const requestIndex = "_request_id"

// makePartition makes a table and attaches it, which keeps nobody from recording; CREATE TABLE ... PARTITION OF
// would lock all of the events.
func makePartition(ctx context.Context, tx querier, start time.Time) error {
	name := partitionName(start)
	for _, statement := range []string{
		fmt.Sprintf("CREATE TABLE %s (LIKE usage_events INCLUDING ALL)", name),
		fmt.Sprintf("CREATE UNIQUE INDEX %s"+requestIndex+" ON %[1]s (request_id)", name),
		fmt.Sprintf("ALTER TABLE usage_events ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')",
			name, firstEventID(start), firstEventID(start.Add(day))),
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// partition is a part of usage_events on PostgreSQL.
type partition struct {
	oid         int64
	from, to    uuid.UUID // its least id, and the first one beyond it
	rows, bytes int64     // as of count
}

// partitionsBeforeSQL asks the server for the bounds, not the names, and passes over a default partition.
const partitionsBeforeSQL = `SELECT oid, COALESCE(from_id, '00000000-0000-0000-0000-000000000000'), to_id FROM (
	SELECT CAST(oid AS bigint) AS oid, CAST(substring(bounds FROM 'FROM \(''([^'']+)''\)') AS uuid) AS from_id,
		CAST(substring(bounds FROM 'TO \(''([^'']+)''\)') AS uuid) AS to_id
	FROM (
		SELECT c.oid, pg_get_expr(c.relpartbound, c.oid) AS bounds FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
		WHERE i.inhparent = CAST('usage_events' AS regclass)
	) AS p
) AS p WHERE to_id <= CAST($1 AS uuid) ORDER BY to_id`

// partitionsBefore returns the partitions of which everything happened before an instant, oldest first.
func partitionsBefore(ctx context.Context, client *ent.Client, at time.Time) (parts []partition, err error) {
	err = scanRows(ctx, client, partitionsBeforeSQL, []any{firstEventID(at)}, func(scan func(...any) error) error {
		var part partition
		err := scan(&part.oid, &part.from, &part.to)
		parts = append(parts, part)
		return err
	})
	return parts, err
}

// count notes how much there is. It asks for ids and not for the table, which another process may have dropped.
func (part *partition) count(ctx context.Context, client *ent.Client) error {
	err := scanRows(ctx, client, "SELECT count(*), (SELECT pg_total_relation_size(c.oid) FROM pg_class AS c WHERE CAST(c.oid AS bigint) = $1)"+
		" FROM usage_events WHERE id >= $2 AND id < $3", []any{part.oid, part.from, part.to}, func(scan func(...any) error) error {
		var bytes *int64
		err := scan(&part.rows, &bytes)
		part.bytes = value(bytes)
		return err
	})
	return err
}

// drop drops the partition, unless somebody has done so. To drop it takes a lock of all events, which the
// transaction should not hold for long: it comes first, as with everybody who records.
func (part *partition) drop(ctx context.Context, tx *ent.Client) (dropped bool, err error) {
	if _, err := tx.ExecContext(ctx, "LOCK TABLE ONLY usage_events IN ACCESS EXCLUSIVE MODE"); err != nil {
		return false, err
	}
	var name string
	err = scanRows(ctx, tx, "SELECT CAST(CAST(inhrelid AS regclass) AS text) FROM pg_inherits"+
		" WHERE inhparent = CAST('usage_events' AS regclass) AND CAST(inhrelid AS bigint) = $1",
		[]any{part.oid}, func(scan func(...any) error) error { return scan(&name) })
	if err != nil || name == "" {
		return false, err
	}
	_, err = tx.ExecContext(ctx, "DROP TABLE "+name)
	return err == nil, err
}
