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
func Days(zone *time.Location, t time.Time) (begin, end time.Time) {
	date, end := dayOf(zone, t)
	return ceil(first(zone, date)), ceil(end)
}

// Weeks is for weeks, which begin on Monday.
func Weeks(zone *time.Location, t time.Time) (begin, end time.Time) {
	date, _ := dayOf(zone, t)
	monday := date.AddDate(0, 0, -(int(date.Weekday())+6)%7)
	return ceil(first(zone, monday)), ceil(first(zone, monday.AddDate(0, 0, 7)))
}

// Months is for months.
func Months(zone *time.Location, t time.Time) (begin, end time.Time) {
	date, _ := dayOf(zone, t)
	date = date.AddDate(0, 0, 1-date.Day())
	return ceil(first(zone, date)), ceil(first(zone, date.AddDate(0, 1, 0)))
}

// dayOf returns the date of the day that an instant lies in, as midnight UTC, and the day's end.
func dayOf(zone *time.Location, t time.Time) (date, end time.Time) {
	year, month, day := t.In(zone).Date()
	date = time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	for {
		next := date.AddDate(0, 0, 1)
		if end = first(zone, next); end.After(t) {
			return date, end
		}
		date = next // the clocks showed it before
	}
}

// first returns the first instant at which the clocks of a zone show a date or a later one.
func first(zone *time.Location, date time.Time) time.Time {
	for at := date.Add(-maxOffset).In(zone); ; {
		midnight := date.Add(-time.Duration(offset(at)) * time.Second) // as long as the clocks are not set
		if _, end := at.ZoneBounds(); !end.IsZero() && !midnight.Before(end) {
			at = end
			continue
		}
		if midnight.Before(at) {
			midnight = at.UTC() // the clocks were set beyond it
		}
		return midnight
	}
}

// ceil returns the first quarter that begins at an instant, or after it.
func ceil(t time.Time) time.Time { return utc.Ceil(t.UTC(), utc.Quarter) }
