package registry_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// world says what a registry is to do: the doc comments of its operations, written down once more as
// plainly as can be. It shares nothing with the registry but the types of inputs and rows. Its rows
// are in the order they were created. An operation that fails may leave a world half changed.
type world struct {
	tables           // leases are in another form here
	now    time.Time // of the operation
	inTx   bool
	// newID returns an id after all others.
	newID func() uuid.UUID

	leases  []*lease          // that have not been ended
	handles []*handle         // of all leases that there ever were
	pruned  []*ent.UsageEvent // which are gone, and count
	// From when on events and quarters are complete.
	eventsFrom, quartersFrom time.Time
	accounts                 map[uuid.UUID]time.Time // until when quota groups are out
	prints                   map[string]int64        // fingerprints of named requests

	seen   facts  // of the operation
	chance []span // in which what chance decided may lie
}

// facts are what the world does not decide, but judge: what the first engine chose, and what chance added.
type facts struct {
	key uuid.UUID // that was handed out, or is said to be the next
	instants
}

// span is a range of instants, its end included.
type span struct{ from, to time.Time }

func (w *world) clone() *world {
	c := *w
	c.providers, c.families, c.models = copies(w.providers), copies(w.families), copies(w.models)
	c.prices, c.keys, c.groups, c.usage = copies(w.prices), copies(w.keys), copies(w.groups), copies(w.usage)
	c.totals, c.events, c.pruned = copies(w.totals), copies(w.events), copies(w.pruned)
	c.quarters, c.totalQuarters = copies(w.quarters), copies(w.totalQuarters)
	c.logs, c.sdks, c.settings = copies(w.logs), copies(w.sdks), copies(w.settings)
	c.leases, c.handles, c.accounts = copies(w.leases), copies(w.handles), maps.Clone(w.accounts)
	c.prints = maps.Clone(w.prints)
	c.seen, c.chance = facts{}, nil
	return &c
}

// dump returns all rows as the dump of a side does.
func (w *world) dump() string {
	r := w.tables
	r.settings = slices.SortedFunc(slices.Values(w.settings),
		func(a, b *ent.Setting) int { return strings.Compare(a.ID, b.ID) })
	r.events = slices.Clone(w.events)
	for _, l := range w.leases {
		switch {
		case l.ExpiresAt.After(w.now):
			r.leases = append(r.leases, &l.KeyLease)
		case l.ExpiresAt.After(w.now.Add(-24 * time.Hour)):
			r.expired = append(r.expired, l.ID)
		}
	}
	return r.text(w.now)
}

func copies[T any](rows []*T) []*T {
	all := make([]*T, len(rows))
	for i, row := range rows {
		own := *row
		all[i] = &own
	}
	return all
}

// where returns the rows that a condition holds for.
func where[T any](rows []*T, is func(*T) bool) (found []*T) {
	for _, row := range rows {
		if is(row) {
			found = append(found, row)
		}
	}
	return found
}

// first returns the first row that a condition holds for, or nil.
func first[T any](rows []*T, is func(*T) bool) *T {
	for _, row := range rows {
		if is(row) {
			return row
		}
	}
	return nil
}

// one returns a row, or ErrNotFound for none.
func one[T any](row *T) (*T, error) {
	if row == nil {
		return nil, registry.ErrNotFound
	}
	return row, nil
}

// errMissing is for a reference to a row that is not there.
var errMissing = errors.Join(registry.ErrForeignKey, registry.ErrNotFound)

func micro(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

var (
	firstTime = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
)

func within(t, from, to time.Time) bool { return !t.Before(from) && !t.After(to) }

// okText reports whether a text may be a name that identifies something.
func okText(s string, least, most int) bool {
	for _, r := range s {
		if r != '\u200d' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029') {
			return false
		}
	}
	return okLabel(s, least, most)
}

// okLabel reports whether a text may be a name for people.
func okLabel(s string, least, most int) bool {
	return okProse(s, most) && utf8.RuneCountInString(s) >= least && (least == 0 || strings.TrimSpace(s) != "")
}

func okProse(s string, most int) bool {
	return utf8.ValidString(s) && !strings.Contains(s, "\x00") && utf8.RuneCountInString(s) <= most
}

// cleanText is what is stored of a text that may hold anything.
func cleanText(s string, most int) string {
	var clean []rune
	for _, r := range strings.ToValidUTF8(s, "\ufffd") {
		hidden := r != '\n' && r != '\t' && r != '\u200d' &&
			unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
		if !hidden && len(clean) < most {
			clean = append(clean, r)
		}
	}
	return string(clean)
}

func okSlug(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

func okRates(rates money.Rates) bool {
	for name, usd := range rates {
		if !slices.Contains([]string{"input", "output", "cache_read", "cache_write", "reasoning"}, name) {
			return false
		}
		if usd < 0 || usd > 1_000_000_000_000_000 {
			return false
		}
	}
	return true
}

func okTokens(all ...int64) bool {
	for _, n := range all {
		if n < 0 || n > 1_000_000_000_000 {
			return false
		}
	}
	return true
}
func dayOf(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

func quarterOf(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute()/15*15, 0, 0, time.UTC)
}
func minuteOf(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC)
}
func lowerASCII(s string) string {
	lower := []byte(s)
	for i, c := range lower {
		if c >= 'A' && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	return string(lower)
}

func count(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
func put[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}
