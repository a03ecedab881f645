package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// Standby makes a hot standby that follows the server through a replication slot, and returns it
// when it streams. More lines of postgresql.conf can be given.
func (c *Cluster) Standby(ctx context.Context, more ...string) (_ *Cluster, err error) {
	s, err := newCluster(c.bin, os.Getpid(), "")
	if err != nil {
		return nil, err
	}
	defer s.closeIf(&err)
	slot := filepath.Base(s.dir) // letters and digits, as a slot's name must be
	err = s.tool(
		ctx, "pg_basebackup", "-d", c.URL(maintenance), "-D", s.data(), "-R", "-C", "-S", slot, "-c", "fast", "-N",
	)
	if err != nil {
		return nil, err
	}
	if err := s.runFirst(ctx, "", more); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s, until(ctx, func() (bool, error) {
		return one[bool](ctx, c.URL(maintenance), "SELECT EXISTS (SELECT FROM pg_replication_slots AS s"+
			" JOIN pg_stat_replication AS r ON r.pid = s.active_pid WHERE s.slot_name = $1 AND r.state ="+
			" 'streaming')", slot)
	})
}

// Promote makes a standby take writes, and waits until it does.
func (c *Cluster) Promote(ctx context.Context) error {
	done, err := one[bool](ctx, c.URL(maintenance), "SELECT pg_promote(true, $1)", int(patience.Seconds()))
	if err == nil && !done {
		err = errors.New("it took too long")
	}
	if err != nil {
		return fmt.Errorf("promote PostgreSQL: %w", err)
	}
	return nil
}

// Pause stops processes of the server with SIGSTOP, by their backend_type in pg_stat_activity,
// such as "walreceiver". Resume lets them go on; so do Stop and Close.
func (c *Cluster) Pause(ctx context.Context, backendType string) (resume func() error, err error) {
	pids, err := one[string](ctx, c.URL(maintenance),
		"SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE backend_type = $1", backendType)
	if err == nil && pids == "" {
		err = fmt.Errorf("no process of type %q is running", backendType)
	}
	if err != nil {
		return nil, fmt.Errorf("pause %s: %w", backendType, err)
	}
	for _, text := range strings.Fields(pids) {
		pid, err := strconv.Atoi(text)
		if err == nil {
			err = pause(pid)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("pause %s: %w", backendType, err), c.resume())
		}
		c.paused = append(c.paused, pid)
	}
	return c.resume, nil
}

func (c *Cluster) resume() (err error) {
	for _, pid := range c.paused {
		err = errors.Join(err, resume(pid))
	}
	c.paused = nil
	return err
}
