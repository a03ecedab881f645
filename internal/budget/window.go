package budget

import (
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/calendar"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Unit is what a window lasts.
type Unit string

// The units.
const (
	Minute Unit = "minute"
	Hour   Unit = "hour"
	Day    Unit = "day"
	Week   Unit = "week"
	Month  Unit = "month"
	Total  Unit = "total" // one window for ever
)

// Window says over which stretches of a zone's calendar a budget counts, and when they begin.
type Window struct {
	Per  Unit
	Zone *time.Location
	Day  int // on which day: of a week 1 to 7, from Monday; of a month 1 to 31; otherwise 0
	Hour int // at which hour a day, week or month begins
}

// Of returns the first instant of the window that t lies in, and of the next window. The windows of a budget leave no
// time out. Those of an hour or more begin with a quarter of an hour, so that sums of quarters can be added up. Minutes
// are those of UTC.
func (w Window) Of(t time.Time) (begin, end time.Time) {
	switch w.Per {
	case Minute:
		begin = t.UTC().Truncate(time.Minute)
		return begin, begin.Add(time.Minute)
	case Hour:
		return w.of(calendar.Hours, t)
	case Day:
		return w.of(calendar.DaysFrom(w.Hour), t)
	case Week:
		return w.of(calendar.WeeksFrom(time.Weekday(w.Day%7), w.Hour), t)
	case Month:
		return w.of(calendar.MonthsFrom(w.Day, w.Hour), t)
	}
	return utc.Beginning, utc.End
}

func (w Window) of(steps calendar.Bounds, t time.Time) (begin, end time.Time) {
	begin, end = steps(w.Zone, utc.Floor(t, utc.Quarter))
	return utc.Max(begin, utc.Beginning), end
}

// Nth returns the first instant of the n-th window after the one that t lies in, and the end of time if there is no
// such window.
func (w Window) Nth(t time.Time, n int) time.Time {
	begin, end := w.Of(t)
	for range n {
		if !end.Before(utc.End) {
			return utc.End
		}
		begin, end = w.Of(end)
	}
	return begin
}
