package registry_test

// These tests have files, disks and processes fail, and have no source of their own.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// Another process holds the write lock: writes wait for it, reads do not.
func TestWaitsForAnotherProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	reg, err := registry.Open(t.Context(), path)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()

	holder := faultChild(t, "hold", path)
	stdin, err := holder.StdinPipe()
	require.NoError(t, err)
	stdout, err := holder.StdoutPipe()
	require.NoError(t, err)
	holder.Stderr = os.Stderr
	require.NoError(t, holder.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "held\n", line)

	var before string
	written := make(chan error, 1)
	go func() {
		written <- reg.InTx(t.Context(), func(tx *registry.Registry) (err error) {
			if before, err = tx.GetSetting(t.Context(), "holder"); err != nil {
				return err
			}
			return tx.SetSetting(t.Context(), "waiter", "was here")
		})
	}()
	_, err = reg.GetSetting(t.Context(), "holder")
	require.ErrorIs(t, err, registry.ErrNotFound)
	select {
	case err := <-written:
		require.FailNow(t, "it did not wait", "%v", err)
	default:
	}
	require.NoError(t, stdin.Close())
	require.NoError(t, <-written)
	require.Equal(t, "was here", before, "it saw what the other process wrote last")
	require.NoError(t, holder.Wait())
}

// faultHold writes in a transaction that it commits when its input ends.
func faultHold(ctx context.Context, args ...string) error {
	reg, err := registry.Open(ctx, args[0])
	if err != nil {
		return err
	}
	err = reg.InTx(ctx, func(tx *registry.Registry) error {
		if err := tx.SetSetting(ctx, "holder", "was here"); err != nil {
			return err
		}
		fmt.Println("held")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	})
	return errors.Join(err, reg.Close())
}

// faultRecord records requests and prints the id of each that is acknowledged: as many as it is
// told, or without an end.
func faultRecord(ctx context.Context, args ...string) error {
	path, prefix := args[0], args[3]
	modelID, keyID := uuid.MustParse(args[1]), uuid.MustParse(args[2])
	most, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	reg, err := registry.Open(ctx, path)
	if err != nil {
		return err
	}
	for n := 0; most == 0 || n < most; n++ {
		id := fmt.Sprint(prefix, n)
		if err := faultPut(ctx, reg, modelID, keyID, id, "x"); err != nil {
			return errors.Join(err, reg.Close())
		}
		fmt.Println(id)
	}
	return reg.Close()
}

// Several processes record at once: none fails, and nothing is counted twice or not at all.
func TestSeveralProcesses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	reg, err := registry.Open(t.Context(), path)
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	m, k, err := faultFixture(t.Context(), reg)
	require.NoError(t, err)
	const processes, each = 3, 40
	var wg sync.WaitGroup
	errs := make([]error, processes)
	for i := range errs {
		cmd := faultChild(t, "record", path, m.ID.String(), k.ID.String(), fmt.Sprint(i, "-"), fmt.Sprint(each))
		wg.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("process %d: %w: %s", i, err, out)
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	n, err := faultSum(t.Context(), reg)
	require.NoError(t, err)
	require.Equal(t, int64(processes*each), n)
}
