package commit

import (
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// account is what a subject has spent and reserves of a budget. On SQLite the next batch remembers it, as it does the
// rest of a snapshot.
type account struct {
	read    time.Time                     // leases that had expired by then are not in it
	until   time.Time                     // when the first lease in it expires: then it must be read again
	running int64                         // open leases, of any window
	windows map[time.Time]*budget.Counter // by their begin
}

type accountID struct{ budget, subject uuid.UUID }

const (
	maxAccounts = 20_000 // are remembered; with more, all are forgotten
	maxWindows  = 8      // of an account; with more, it is read again
)

func newAccount(now time.Time) *account {
	return &account{read: now, until: utc.End, windows: map[time.Time]*budget.Counter{}}
}

// holds reports whether an account need not be read again.
func (a *account) holds(now time.Time) bool {
	return a != nil && a.until.After(now) && len(a.windows) <= maxWindows
}

func reservedBy(l *pool.Lease) budget.Amount {
	return budget.Amount{Requests: 1, Tokens: l.Tokens, Cost: l.Cost}
}

// open counts what a lease reserves in its window.
func (a *account) open(begin time.Time, l *pool.Lease) {
	a.running, a.until = a.running+1, utc.Min(a.until, l.Expires)
	if c := a.windows[begin]; c != nil {
		c.Open = c.Open.Plus(reservedBy(l))
	}
}

// close is the opposite of open. It reports whether the account is still right.
func (a *account) close(begin time.Time, l *pool.Lease) bool {
	if !l.Expires.After(a.read) {
		return true
	}
	a.running--
	c := a.windows[begin]
	if c == nil {
		return true
	}
	cut := c.Open.Tokens == rule.MaxAmount || c.Open.Cost == rule.MaxAmount
	c.Open = c.Open.Less(reservedBy(l))
	return !cut
}
