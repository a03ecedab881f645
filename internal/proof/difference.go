package proof

import (
	"time"

	"github.com/google/uuid"
)

// Kind says what is wrong at a place in the ledger.
type Kind string

// The kinds of differences.
const (
	MissingRow      Kind = "missing row"
	SurplusRow      Kind = "surplus row"
	WrongSum        Kind = "wrong sum"
	WrongCost       Kind = "wrong cost"
	WrongDigest     Kind = "wrong digest"
	WrongEvent      Kind = "wrong event"
	WrongKeyCounter Kind = "wrong key counter"
	UnreadableRow   Kind = "unreadable row"
)

// Difference is a place where the ledger is wrong. Fields that do not apply are zero.
type Difference struct {
	Kind              Kind
	Table             string
	Event             uuid.UUID
	Model, Key, Price uuid.UUID
	Start             time.Time // of the period
	Field             string    // the column; empty: the row
	Want, Have        string
}

// MaxDifferences is how many differences are listed.
const MaxDifferences = 10_000

// Differences is a list of bounded length.
type Differences struct {
	List []Difference
	More int64 // beyond the listed ones
}

// Add lists differences, as far as there is room.
func (d *Differences) Add(all ...Difference) {
	n := min(len(all), MaxDifferences-len(d.List))
	d.List = append(d.List, all[:n]...)
	d.More += int64(len(all) - n)
}
