package commit

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// TestStretch: the periods of any stretch have what was used in it, and in no other time.
func TestStretch(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // not for secrets
	const days, perDay = 4, int(utc.Day / utc.Quarter)
	begin := utc.StartOfDay(noon)
	for range 2000 {
		var used [days * perDay]int
		for i := range used {
			used[i] = r.IntN(1000)
		}
		kept := max(0, r.IntN(2*len(used))-len(used)) // the quarters before are gone
		pick := func() int {
			n := r.IntN(len(used) + 1)
			if n < kept {
				n -= n % perDay
			}
			return n
		}
		from, until := pick(), pick()
		from, until = min(from, until), max(from, until)
		at := func(quarter int) time.Time { return begin.Add(time.Duration(quarter) * utc.Quarter) }
		sum, read := 0, 0
		s := stretch{first: at(from), until: at(until), quarters: at(kept)}
		s.periods(func(of part, from, until time.Time) {
			for i := range used {
				if at(i).Before(from) || !at(i).Before(until) {
					continue
				}
				if of != wholeDays {
					require.GreaterOrEqual(t, i, kept)
					read++
				}
				if of == lessQuarters {
					sum -= used[i]
				} else {
					sum += used[i]
				}
			}
			if of == wholeDays {
				require.Equal(t, []time.Time{utc.StartOfDay(from), utc.StartOfDay(until)}, []time.Time{from, until})
			}
		})
		want := 0
		for _, n := range used[from:until] {
			want += n
		}
		require.Equal(t, want, sum, "%s to %s, quarters from %s", s.first, s.until, s.quarters)
		if kept == 0 {
			require.LessOrEqual(t, read, perDay, "at most half of the day at each end")
		}
	}
}
