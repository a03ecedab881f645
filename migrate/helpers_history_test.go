package migrate_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

// requireOnly requires that err is want, and none of the package's other errors.
func requireOnly(tb testing.TB, err, want error) {
	tb.Helper()
	require.ErrorIs(tb, err, want)
	for _, other := range []error{
		migrate.ErrChecksum, migrate.ErrEdited, migrate.ErrHistory, migrate.ErrNewer, migrate.ErrForeign,
		migrate.ErrForeignKeys,
	} {
		if other != want { //nolint:errorlint // the sentinels themselves
			require.NotErrorIs(tb, err, other)
		}
	}
}

// insertRevision returns the statement that records a migration as the CLI would.
func insertRevision(version, description string, kind, applied, total int, hash, partialHashes string) string {
	return fmt.Sprintf("INSERT INTO atlas_schema_revisions VALUES ('%s', '%s', %d, %d, %d, "+
		"'2026-01-02 03:04:05.678901234+02:00', 1000, '', '', '%s', CAST('%s' AS blob), 'Atlas CLI')",
		version, description, kind, applied, total, hash, partialHashes)
}

// executedAt is the time in [insertRevision].
var executedAt = time.Date(2026, time.January, 2, 1, 4, 5, 678901234, time.UTC)
