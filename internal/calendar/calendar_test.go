package calendar_test

import (
	"archive/zip"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // for machines without a database

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/calendar"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

var steps = map[string]calendar.Bounds{
	"quarters": calendar.Quarters, "hours": calendar.Hours, "days": calendar.Days, "weeks": calendar.Weeks,
	"months": calendar.Months,

	"days at 2": calendar.DaysFrom(2), "days at 5": calendar.DaysFrom(5),
	"weeks of Sunday": calendar.WeeksFrom(time.Sunday, 23), "months from the 31st": calendar.MonthsFrom(31, 12),
}

// zones returns all time zones of this machine's database, or of Go's, each once.
func zones(t *testing.T) map[string]*time.Location {
	t.Helper()
	var databases []fs.FS
	for _, folder := range []string{
		"/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ", "/etc/zoneinfo",
	} {
		databases = append(databases, os.DirFS(folder))
	}
	if root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output(); err == nil {
		archive, err := zip.OpenReader(filepath.Join(strings.TrimSpace(string(root)), "lib", "time", "zoneinfo.zip"))
		if err == nil {
			defer func() { require.NoError(t, archive.Close()) }()
			databases = append(databases, archive)
		}
	}
	for _, database := range databases {
		if all := zonesIn(t, database); len(all) > 0 {
			return all
		}
	}
	t.Skip("this machine has no database of time zones, and no Go that brings one")
	return nil
}

func zonesIn(t *testing.T, database fs.FS) map[string]*time.Location {
	t.Helper()
	all, seen := map[string]*time.Location{}, map[string]bool{}
	_ = fs.WalkDir(database, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (name == "right" || name == "posix"): // with leap seconds; the same again
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		file, err := database.Open(name)
		require.NoError(t, err)
		data, err := io.ReadAll(file)
		require.NoError(t, err)
		require.NoError(t, file.Close())
		zone, err := time.LoadLocationFromTZData(name, data)
		if err == nil && !seen[string(data)] { // else it is another file
			seen[string(data)] = true
			all[name] = zone
		}
		return nil
	})
	return all
}

var (
	from  = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	until = time.Date(2037, 12, 31, 0, 0, 0, 0, time.UTC)
)

// TestAllZones walks the days, weeks and months of every time zone from 1970 to 2037, and the hours around each change.
func TestAllZones(t *testing.T) {
	t.Parallel()
	all, checked, skipped := zones(t), map[change]bool{}, 0
	for name, zone := range all {
		if !sample.Chance() {
			skipped++
			continue
		}
		for _, c := range changes(zone) {
			at := c.at
			// alike on every date
			if c.at = c.at.AddDate(-c.at.Year(), 1-int(c.at.Month()), 1-c.at.Day()); !checked[c] {
				checkChange(t, name, zone, at)
			}
			checked[c] = true
		}
		for _, step := range []string{
			"days", "weeks", "months", "days at 5", "weeks of Sunday", "months from the 31st",
		} {
			walk(t, name+" "+step, zone, steps[step], from, until)
		}
	}
	t.Logf("%d zones, in which clocks were set in %d ways", len(all)-skipped, len(checked))
	if skipped > 0 {
		t.Logf("%d zones are left to other runs", skipped)
	}
	require.True(t, skipped > 0 || len(all) > 100, "there are more than %d zones", len(all))
}

// change is a change of clocks, the last and the next one among them if they are near.
type change struct {
	at           time.Time
	before, from int // the offset
	last, next   time.Duration
}

// changes returns when the clocks of a zone were set.
func changes(zone *time.Location) (all []change) {
	for at := from.In(zone); ; {
		if _, at = at.ZoneBounds(); at.IsZero() || at.After(until) {
			return all
		}
		c := change{at: at.UTC()}
		_, c.before = at.Add(-1).Zone()
		_, c.from = at.Zone()
		if last, _ := at.Add(-1).ZoneBounds(); at.Sub(last) < 2*around {
			c.last = at.Sub(last)
		}
		if _, next := at.ZoneBounds(); !next.IsZero() && next.Sub(at) < 2*around {
			c.next = next.Sub(at)
		}
		all = append(all, c)
	}
}

// around is how far from a change hours and days are compared with the clocks.
const around = 27 * time.Hour

// walk checks that steps leave no time out, and have some.
func walk(t *testing.T, name string, zone *time.Location, step calendar.Bounds, from, until time.Time) {
	t.Helper()
	for at := from; at.Before(until); {
		begin, end := step(zone, at)
		if at.Before(begin) || !at.Before(end) || at.After(from) && !at.Equal(begin) ||
			!begin.Equal(begin.Truncate(utc.Quarter)) || !end.Equal(end.Truncate(utc.Quarter)) {
			require.Failf(t, "wrong bounds", "%s: step of %s is from %s to %s", name, at, begin, end)
		}
		at = end
	}
}

// checkChange compares the steps around a change of clocks with what the clocks show, quarter by quarter.
func checkChange(t *testing.T, name string, zone *time.Location, at time.Time) {
	t.Helper()
	begin, end := at.Add(-around).Truncate(utc.Quarter), at.Add(around)
	walk(t, name+" hours", zone, calendar.Hours, begin, end)
	var (
		hour, hourEnd, day, dayEnd time.Time
		latest, shown              string // the date and the hour
		offset                     int
	)
	for at := begin; at.Before(end); at = at.Add(utc.Quarter) {
		local := at.In(zone)
		_, o := local.Zone()
		// clocks set back by an hour show the same twice
		if h := local.Format("2006-01-02 15"); h != shown || o != offset {
			require.False(t, at.After(begin) && at.Before(hourEnd), "%s: the hour ends later than %s", name, at)
			shown, offset, hour, hourEnd = h, o, at, time.Time{}
		}
		from, to := calendar.Hours(zone, at)
		require.True(t, hour.Equal(begin) || hour.Equal(from), "%s: hour of %s is from %s to %s", name, at, from, to)
		require.True(t, hourEnd.IsZero() || hourEnd.Equal(to), "%s: hour of %s is from %s to %s", name, at, from, to)
		hourEnd = to

		if date := local.Format("2006-01-02"); date > latest {
			require.False(t, at.After(begin) && at.Before(dayEnd), "%s: the day ends later than %s", name, at)
			latest, day, dayEnd = date, at, time.Time{}
		}
		from, to = calendar.Days(zone, at)
		require.True(t, day.Equal(begin) || day.Equal(from), "%s: day of %s is from %s to %s", name, at, from, to)
		require.True(t, dayEnd.IsZero() || dayEnd.Equal(to), "%s: day of %s is from %s to %s", name, at, from, to)
		require.Equal(t, latest, from.In(zone).Format("2006-01-02"), "%s: the day's date", name)
		dayEnd = to
	}
}

// TestChanges shows what becomes of days and hours where clocks were set in unusual ways.
func TestChanges(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		zone, step, at string // UTC
		begin, end     string // local
		length         string
		next           string // local: the end of the next step
	}{
		{
			zone: "Asia/Amman", step: "days", at: "2014-03-28T12:00", begin: "2014-03-28 01:00",
			end: "2014-03-29 00:00", length: "23h0m0s", next: "2014-03-30 00:00",
		},
		{
			zone: "America/St_Johns", step: "days", at: "2010-11-07T12:00", begin: "2010-11-07 00:00",
			end: "2010-11-08 00:00", length: "25h0m0s", next: "2010-11-09 00:00",
		},
		{
			zone: "America/St_Johns", step: "hours", at: "2010-11-07T02:30", begin: "2010-11-07 00:00",
			end: "2010-11-06 23:15", length: "15m0s", next: "2010-11-07 00:00",
		},
		{
			zone: "Asia/Gaza", step: "hours", at: "2011-03-31T22:00", begin: "2011-04-01 00:00",
			end: "2011-04-01 01:15", length: "15m0s", next: "2011-04-01 02:00",
		},
		{
			zone: "Antarctica/Casey", step: "days", at: "2020-10-03T18:00", begin: "2020-10-04 00:00",
			end: "2020-10-05 00:00", length: "21h0m0s", next: "2020-10-06 00:00",
		},
		{
			zone: "Pacific/Apia", step: "days", at: "2011-12-30T00:00", begin: "2011-12-29 00:00",
			end: "2011-12-31 00:00", length: "24h0m0s", next: "2012-01-01 00:00",
		},
		{
			zone: "Pacific/Kwajalein", step: "days", at: "1993-08-21T00:00", begin: "1993-08-20 00:00",
			end: "1993-08-22 00:00", length: "24h0m0s", next: "1993-08-23 00:00",
		},
		{
			zone: "Africa/Monrovia", step: "days", at: "1971-06-01T12:00", begin: "1971-06-01 00:00",
			end: "1971-06-02 00:00", length: "24h0m0s", next: "1971-06-03 00:00",
		},
		{
			zone: "Europe/Berlin", step: "days at 2", at: "2026-03-29T12:00", begin: "2026-03-29 03:00", // no 2:00
			end: "2026-03-30 02:00", length: "23h0m0s", next: "2026-03-31 02:00",
		},
		{
			zone: "Europe/Berlin", step: "days at 2", at: "2026-10-25T01:30", begin: "2026-10-25 02:00", // twice
			end: "2026-10-26 02:00", length: "25h0m0s", next: "2026-10-27 02:00",
		},
		{
			zone: "Europe/Berlin", step: "weeks of Sunday", at: "2026-10-25T21:59", begin: "2026-10-18 23:00",
			end: "2026-10-25 23:00", length: "169h0m0s", next: "2026-11-01 23:00",
		},
		{
			zone: "Asia/Kolkata", step: "months from the 31st", at: "2024-02-29T06:29", begin: "2024-01-31 12:00",
			end: "2024-02-29 12:00", length: "696h0m0s", next: "2024-03-31 12:00",
		},
		{
			zone: "Pacific/Apia", step: "days at 5", at: "2011-12-30T12:00", begin: "2011-12-31 00:00",
			end: "2011-12-31 05:00", length: "5h0m0s", next: "2012-01-01 05:00",
		},
		{
			zone: "Australia/Lord_Howe", step: "hours", at: "2026-04-04T14:30", begin: "2026-04-05 01:00",
			end: "2026-04-05 01:30", length: "1h0m0s", next: "2026-04-05 02:00",
		},
	} {
		zone, err := time.LoadLocation(test.zone)
		require.NoError(t, err)
		at, err := time.Parse("2006-01-02T15:04", test.at)
		require.NoError(t, err)
		local := func(t time.Time) string { return t.In(zone).Format("2006-01-02 15:04") }
		begin, end := steps[test.step](zone, at)
		_, next := steps[test.step](zone, end)
		require.Equal(t, []string{test.begin, test.end, test.length, test.next},
			[]string{local(begin), local(end), end.Sub(begin).String(), local(next)}, "%s of %s", test.step, test.zone)
	}
}
