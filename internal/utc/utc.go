// Package utc has the instants of the registry: in UTC, in whole microseconds, from 1970 to 9999; and the days and
// quarters of an hour that the ledger counts by.
package utc

import "time"

const (
	// Quarter is a quarter of an hour.
	Quarter = 15 * time.Minute
	// Day is the length of a day: in UTC all are alike.
	Day = 24 * time.Hour
)

var (
	// Beginning is the first instant that can be stored. The first price of a model takes effect then: it is taken to
	// have held before the model was created.
	Beginning = time.Unix(0, 0).UTC()
	// End is the last instant that can be stored: SQLite keeps times as sortable text, up to the year 9999.
	End = time.Date(9999, time.December, 31, 0, 0, 0, 0, time.UTC)
)

// Of returns t as it is stored: in UTC, cut to microseconds.
func Of(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// StartOfDay returns the first instant of t's day.
func StartOfDay(t time.Time) time.Time { return Of(t).Truncate(Day) }

// Floor returns the last multiple of a length at or before t.
func Floor(t time.Time, length time.Duration) time.Time { return t.Truncate(length) }

// Ceil returns the first multiple of a length at or after t.
func Ceil(t time.Time, length time.Duration) time.Time {
	if floor := Floor(t, length); floor.Before(t) {
		return floor.Add(length)
	}
	return t
}

// Clamp returns the bound of a range as a time that can be compared with stored times.
func Clamp(t time.Time) time.Time { return Max(Beginning, Min(Of(t), End)) }

// Min returns the earlier of two times.
func Min(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Max returns the later of two times.
func Max(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
