package fault_test

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

func TestIs(t *testing.T) {
	t.Parallel()
	require.True(t, fault.Is(fmt.Errorf("get model: %w", fault.ErrNotFound)))
	require.ErrorIs(t, fault.ErrNotFound, sql.ErrNoRows)
	require.NotErrorIs(t, fault.ErrConflict, sql.ErrNoRows)
	require.False(t, fault.Is(sql.ErrNoRows))
	require.False(t, fault.Is(nil))
}

// TestKinds: each kind of error matches its group, and no other one.
func TestKinds(t *testing.T) {
	t.Parallel()
	groups := []error{
		fault.ErrNotFound, fault.ErrConflict, fault.ErrInvalidData, fault.ErrForeignKey, fault.ErrNoKeyAvailable,
		fault.ErrBusy,
		fault.ErrUncertain, fault.ErrUnavailable,
	}
	for kind, of := range map[error]error{
		fault.ErrNoSecret: fault.ErrNotFound, fault.ErrLeaseEnded: fault.ErrConflict,
		fault.ErrClosed: fault.ErrUnavailable,
		fault.ErrSchema: fault.ErrUnavailable, fault.ErrReadOnly: fault.ErrUnavailable,
		fault.ErrDiskFull: fault.ErrUnavailable,
		fault.ErrCorrupt:  fault.ErrUnavailable, fault.ErrExhausted: fault.ErrUnavailable,
		fault.ErrDenied:      fault.ErrUnavailable,
		fault.ErrUnsupported: fault.ErrUnavailable, fault.ErrKeyring: fault.ErrUnavailable,
	} {
		err := fmt.Errorf("operation: %w", kind)
		require.ErrorIs(t, err, kind)
		for _, group := range groups {
			require.Equal(t, errors.Is(of, group), errors.Is(err, group), "%v is a kind of %v", kind, group)
			require.NotErrorIs(t, group, kind)
		}
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	for _, err := range []error{fault.Missing("model", id), fault.Missing("model", uuid.Nil)} {
		require.ErrorIs(t, err, fault.ErrForeignKey)
		require.ErrorIs(t, err, fault.ErrNotFound)
	}
	require.ErrorContains(t, fault.Missing("model", id), id.String())
	require.ErrorContains(t, fault.Missing("model", uuid.Nil), "no model is given")
}

func TestList(t *testing.T) {
	t.Parallel()
	const joined, turned = "\U0001F469\u200d\U0001F4BB", "a\u202eb"
	for name, c := range map[string]struct {
		note func(f *fault.List)
		want []string
	}{
		"check": {
			note: func(f *fault.List) { f.Check(true, "x"); f.Check(false, "%d", 3) }, want: []string{"3"},
		},
		"text":          {note: func(f *fault.List) { f.Text("name", "gpt-5"+joined, 1, 9) }},
		"text, empty":   {note: func(f *fault.List) { f.Text("name", "", 1, 9) }, want: []string{"name is empty"}},
		"text, allowed": {note: func(f *fault.List) { f.Text("name", "", 0, 9) }},
		"text, long": {
			note: func(f *fault.List) { f.Text("name", "äöüß", 1, 3) },
			want: []string{"name has 4 characters, not 1 to 3"},
		},
		"text, turned": {
			note: func(f *fault.List) { f.Text("name", turned, 1, 9) },
			want: []string{"name has control characters or invisible ones"},
		},
		"label, turned": {note: func(f *fault.List) { f.Label("name", turned, 1, 9) }},
		"label, blank":  {note: func(f *fault.List) { f.Label("name", " \t", 1, 9) }, want: []string{"name is blank"}},
		"field": {
			note: func(f *fault.List) { f.Field("note", nil); f.Field("note", errors.New("is odd")) },
			want: []string{"note is odd"},
		},
		"field, faults": {
			note: func(f *fault.List) { f.Field("note", rule.Prose(1)("a\x00")) },
			want: []string{
				"note has a NUL character, which PostgreSQL cannot store", "note has 2 characters, more than 1",
			},
		},
		"time": {
			note: func(f *fault.List) { f.Time("at", time.Unix(-1, 0)) },
			want: []string{"at is not between 1970 and 9999"},
		},
		"in": {
			note: func(f *fault.List) { f.In("price 2: ", fault.List{"a", "b"}) },
			want: []string{"price 2: a", "price 2: b"},
		},
		"span": {note: func(f *fault.List) { f.Span(time.Unix(0, 0), time.Unix(1, 0)) }},
		"span, not": {
			note: func(f *fault.List) { f.Span(time.Unix(1, 0).UTC(), time.Unix(1, 0).UTC()) },
			want: []string{"start 1970-01-01T00:00:01Z is not before end 1970-01-01T00:00:01Z"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var f fault.List
			c.note(&f)
			require.Equal(t, c.want, []string(f))
			if c.want == nil {
				require.NoError(t, f.Err())
				return
			}
			require.ErrorIs(t, f.Err(), fault.ErrInvalidData)
			require.EqualError(t, f.Err(), "invalid data: "+strings.Join(c.want, "; "))
		})
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	require.Equal(t, "[31mred\n\t\ufffd", fault.Clean("\x1b[31mred\r\n\t\xff", 99))
	require.Equal(t, "äö", fault.Clean("ä\u200eöü", 2))
	require.Equal(t, "äö", fault.Cut("äöü", 2))
	require.Equal(t, "äö", fault.Cut("äö", 2))
}

func TestStorable(t *testing.T) {
	t.Parallel()
	require.True(t, fault.Storable("\u202e\x1b"))
	require.False(t, fault.Storable("\xff"))
	require.False(t, fault.Storable("\x00"))
}
