// Package calendar finds the hours, days, weeks and months of a time zone in which whole quarters of an hour lie.
//
// A quarter of an hour is one of UTC, and lies in the step in which it begins. A step whose first instant is not at the
// beginning of a quarter (Monrovia's midnight was at 00:44:30 UTC until 1972) therefore begins with the next one. A
// step in which no quarter begins (the minute between midnight and 00:01, when St. John's set its clocks back) is left
// out.
package calendar

import (
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// maxOffset is more than any clock is ahead of UTC.
const maxOffset = 27 * time.Hour

// Bounds returns the first quarter of the step that the quarter t lies in, and the first quarter of the next step. So
// the begin is at or before t, the end is after t, and the end is the begin of the next step. Both are UTC.
type Bounds func(zone *time.Location, t time.Time) (begin, end time.Time)

// Quarters is for steps of one quarter.
func Quarters(_ *time.Location, t time.Time) (begin, end time.Time) {
	begin = t.UTC().Truncate(utc.Quarter)
	return begin, begin.Add(utc.Quarter)
}

// Hours is for the hours that the clocks of a zone show. Where the clocks are set, an hour ends.
func Hours(zone *time.Location, t time.Time) (begin, end time.Time) {
	local := t.In(zone)
	past := time.Duration(local.Minute())*time.Minute + time.Duration(local.Second())*time.Second
	begin, end = local.Add(-past), local.Add(time.Hour-past)
	// Some transitions in the database of zones leave the clocks as they are.
	for at, _ := local.ZoneBounds(); at.After(begin); at, _ = at.Add(-1).ZoneBounds() {
		if offset(at) != offset(at.Add(-1)) {
			begin = at
		}
	}
	for _, at := local.ZoneBounds(); !at.IsZero() && at.Before(end); _, at = at.ZoneBounds() {
		if offset(at) != offset(at.Add(-1)) {
			end = at
		}
	}
	return ceil(begin), ceil(end)
}

func offset(t time.Time) int {
	_, seconds := t.Zone()
	return seconds
}

// Days is for the days of a zone. Each lasts from the first instant of its date to the first instant of the next date.
// Where clocks were set back over midnight, the repeated time before midnight belongs to the new day. A date that a
// zone skipped has no day.
func Days(zone *time.Location, t time.Time) (begin, end time.Time) { return DaysFrom(0)(zone, t) }

// Weeks is for weeks, which begin on Monday.
func Weeks(zone *time.Location, t time.Time) (begin, end time.Time) {
	return WeeksFrom(time.Monday, 0)(zone, t)
}

// Months is for months.
func Months(zone *time.Location, t time.Time) (begin, end time.Time) {
	return MonthsFrom(1, 0)(zone, t)
}

// DaysFrom is for days that begin at an hour. If the clocks skip the hour, the day begins when they are set; if they
// show it twice, at the first time.
func DaysFrom(hour int) Bounds {
	return numbered(dayNumber, func(n int) time.Time { return onDay(n, hour) })
}

// WeeksFrom is for weeks that begin on a weekday, at an hour as for [DaysFrom].
func WeeksFrom(weekday time.Weekday, hour int) Bounds {
	first := int(weekday - epoch.Weekday()) // a day on which a week begins
	return numbered(
		func(date time.Time) int { return (dayNumber(date) - first) / 7 },
		func(n int) time.Time { return onDay(first+7*n, hour) },
	)
}

// MonthsFrom is for months that begin on a day, or on the last day of a month that is shorter, at an hour as for
// [DaysFrom].
func MonthsFrom(day, hour int) Bounds {
	return numbered(
		func(date time.Time) int { return 12*date.Year() + int(date.Month()) - 1 },
		func(n int) time.Time {
			last := time.Date(n/12, time.Month(n%12+2), 0, 0, 0, 0, 0, time.UTC).Day()
			return time.Date(n/12, time.Month(n%12+1), min(day, last), hour, 0, 0, 0, time.UTC)
		},
	)
}

var epoch = time.Unix(0, 0).UTC()

func dayNumber(date time.Time) int { return int(date.Sub(epoch) / utc.Day) }

func onDay(number, hour int) time.Time {
	return epoch.AddDate(0, 0, number).Add(time.Duration(hour) * time.Hour)
}

// numbered returns the bounds of steps that have numbers. A step begins when the clocks first show a date and time, or
// a later one. Both functions take what clocks show as if they showed UTC. Number may be wrong by some steps.
func numbered(number func(date time.Time) int, shown func(number int) time.Time) Bounds {
	return func(zone *time.Location, t time.Time) (begin, end time.Time) {
		year, month, day := t.In(zone).Date()
		n := number(time.Date(year, month, day, 0, 0, 0, 0, time.UTC))
		for begin = ceil(first(zone, shown(n))); begin.After(t); begin = ceil(first(zone, shown(n))) {
			n--
		}
		for end = ceil(first(zone, shown(n+1))); !end.After(t); end = ceil(first(zone, shown(n+1))) {
			begin = end
			n++
		}
		return begin, end
	}
}

// first returns the first instant at which the clocks of a zone show a date and time, or a later one.
func first(zone *time.Location, shown time.Time) time.Time {
	for at := shown.Add(-maxOffset).In(zone); ; {
		then := shown.Add(-time.Duration(offset(at)) * time.Second) // as long as the clocks are not set
		if _, end := at.ZoneBounds(); !end.IsZero() && !then.Before(end) {
			at = end
			continue
		}
		if then.Before(at) {
			then = at.UTC() // the clocks were set beyond it
		}
		return then
	}
}

// ceil returns the first quarter that begins at an instant, or after it.
func ceil(t time.Time) time.Time { return utc.Ceil(t.UTC(), utc.Quarter) }
