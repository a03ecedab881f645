package pool

import (
	"time"

	"github.com/jeffersonwarrior/modelscan/internal/upstream"
)

// Raising appends a window for each limit that bounds what an open lease reserves, if that grows by an amount. A lease
// counts in the windows in which it began; when they are over, they bound it no more.
func (q *Quota) Raising(l *Lease, by Amount, now time.Time, all []Window) []Window {
	if q.Open == nil { // nobody leases by it: its key is deleted
		return all
	}
	q.Roll(now)
	today := q.inDay(l.Acquired) && !l.Acquired.Before(q.LastReset)
	var buffer [16]Window
	for _, w := range q.Windows(by, now, buffer[:0]) {
		counts := false
		switch w.Name {
		case TokensPerMinute:
			counts = by.Tokens > 0 && q.inMinute(l.Acquired)
		case TokensPerDay:
			counts = by.Tokens > 0 && today
		case CostPerDay:
			counts = by.Cost > 0 && today
		case ObservedTokens:
			counts = by.Tokens > 0 && !q.Observed[upstream.Tokens].Seen.After(l.Acquired)
		case RequestsPerMinute, RequestsPerDay, Concurrency, ObservedRequests: // it is one request, as before
		}
		if counts {
			all = append(all, w)
		}
	}
	return all
}

// Renew counts a lease as it is now, in place of what it was.
func (q *Quota) Renew(l *Lease) {
	if q.Open == nil {
		return
	}
	was := q.Open[l.ID]
	q.Open[l.ID] = l
	if was == nil || q.Held.saturated() {
		q.Recount()
		return
	}
	q.hold(was, -1)
	q.hold(l, 1)
}

// End returns when the window ends, and a lease that began in it counts no more; zero: never.
func (w Window) End() time.Time { return w.end }
