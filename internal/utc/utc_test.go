package utc_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339Nano, text)
	require.NoError(t, err)
	return parsed
}

func TestUTC(t *testing.T) {
	t.Parallel()
	late := at(t, "2026-11-27T01:59:59.999999999+03:00")
	require.Equal(t, at(t, "2026-11-26T22:59:59.999999Z"), utc.Of(late))
	require.Equal(t, at(t, "2026-11-26T00:00:00Z"), utc.StartOfDay(late))
	require.Equal(t, at(t, "2026-11-26T22:45:00Z"), utc.Floor(utc.Of(late), utc.Quarter))
	require.Equal(t, at(t, "2026-11-26T23:00:00Z"), utc.Ceil(utc.Of(late), utc.Quarter))
	require.Equal(t, at(t, "2026-11-27T00:00:00Z"), utc.Ceil(utc.Of(late), utc.Day))
	whole := at(t, "2026-11-26T22:45:00Z")
	require.Equal(t, whole, utc.Floor(whole, utc.Quarter))
	require.Equal(t, whole, utc.Ceil(whole, utc.Quarter))
}

func TestClamp(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"1969-12-31T23:59:59Z":        "1970-01-01T00:00:00Z",
		"1970-01-01T00:00:00Z":        "1970-01-01T00:00:00Z",
		"2026-11-26T12:00:00+05:30":   "2026-11-26T06:30:00Z",
		"9999-12-31T00:00:00.000001Z": "9999-12-31T00:00:00Z",
		"9999-12-31T23:59:59-01:00":   "9999-12-31T00:00:00Z",
	} {
		require.Equal(t, at(t, want), utc.Clamp(at(t, text)), text)
	}
}

func TestMinMax(t *testing.T) {
	t.Parallel()
	a, b := utc.Beginning, utc.End
	for _, pair := range [][2]time.Time{{a, b}, {b, a}} {
		require.Equal(t, a, utc.Min(pair[0], pair[1]))
		require.Equal(t, b, utc.Max(pair[0], pair[1]))
	}
}
