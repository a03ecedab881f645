package ledger

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
)

// LockModels locks models by advisory locks, in the order of the locks' numbers.
func LockModels(ctx context.Context, tx *ent.Client, models []uuid.UUID) error {
	_, err := tx.ExecContext(ctx, LockModelsSQL("$1"), ModelLocks(models))
	return err
}

// LockModelsSQL is a query that takes the locks whose numbers an SQL expression gives.
func LockModelsSQL(numbers string) string {
	return "SELECT count(pg_advisory_xact_lock(number)) FROM unnest(CAST(" + numbers + " AS bigint[])) AS number"
}

// ModelLocks returns the numbers of the locks of models, ascending.
func ModelLocks(models []uuid.UUID) []int64 {
	numbers := make([]int64, 0, len(models))
	for _, id := range models {
		numbers = append(numbers, int64(binary.BigEndian.Uint64(id[8:]))) //nolint:gosec // the bits
	}
	slices.Sort(numbers)
	return numbers
}
