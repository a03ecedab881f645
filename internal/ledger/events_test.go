package ledger

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// TestEventTime: an id begins with the time that it was made of.
func TestEventTime(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Time{utc.Beginning, time.Date(2026, 7, 15, 12, 0, 0, 999_999_000, time.UTC), utc.End} {
		require.Equal(t, at, EventTime(NewEventID(at)))
		require.Equal(t, at, EventTime(FirstEventID(at)))
	}
	require.Equal(t, utc.Beginning, EventTime(uuid.Nil))
}

// TestEventIDs: ids are in the order of time, and no id of a request is below the first one of its instant.
func TestEventIDs(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 7, 15, 12, 0, 0, 123_456_000, time.UTC)
	first, id, next := FirstEventID(at), NewEventID(at), FirstEventID(at.Add(time.Microsecond))
	require.Negative(t, bytes.Compare(first[:], id[:]))
	require.Negative(t, bytes.Compare(id[:], next[:]))
	require.EqualValues(t, 7, id.Version())
	require.NotEqual(t, id, NewEventID(at))
}
