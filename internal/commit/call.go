// Package commit has the one transaction that records requests, leases keys and ends leases: for all callers who come
// while the last one was under way. It reads a snapshot of what the calls need, decides in memory, by packages pool and
// ledger, and writes what changed.
package commit

import (
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// Call is what a caller wants of the next batch: to record a request, to acquire a key, or to end a lease, which may
// record a request too.
type Call struct {
	Now     time.Time // of the call
	Actor   string
	Request Request // without an id: there is nothing to record
	Acquire *Acquire
	End     *End
}

// records reports whether there is a request to be recorded.
func (c *Call) records() bool { return c.Request.ID != uuid.Nil }

// repeated notes that the call may have been done already.
func (c *Call) repeated() {
	c.Request.Named = true
	switch {
	case c.Acquire != nil:
		c.Acquire.Repeated = true
	case c.End != nil:
		c.End.Repeated = true
	}
}

// Request is a request that is to be recorded, without faults that can be seen without the database. The price and the
// cost of its event are found out.
type Request struct {
	ledger.Event
	ServiceTier string
	Named       bool // the request id is the caller's: it may have been recorded before
}

// Acquire is a key that is wanted, for a model of the provider; or for any, if that is zero.
type Acquire struct {
	ID              uuid.UUID // of the lease
	Provider, Model uuid.UUID
	Want            pool.Want
	TTL             time.Duration
	Repeated        bool // an attempt whose answer was lost may have acquired it

	// What came of it. Both belong to the batch: copy what is needed before the call returns.
	Leased *Leased
}

// Leased is a key that was acquired.
type Leased struct {
	pool.Lease
	Prefix, Label string // of the key
}

// Outcome is how a lease ends.
type Outcome int

// The outcomes.
const (
	Released  Outcome = iota // nothing was done with the key
	Used                     // it was used, and nothing is said of it
	Succeeded                // a request succeeded
	Failed                   // a request failed: see Failure
	Observed                 // there is no lease
)

// End is a lease that ends, or an observation of a key without one.
type End struct {
	Lease         uuid.UUID
	Key, Provider uuid.UUID // zero: nobody knows the lease, and it may not have come to be
	Acquired      time.Time
	Outcome       Outcome
	Failure       pool.Diagnosis
	Said          []upstream.Quota // by the provider, of its limits
	Tokens        int64            // that were used, if nothing is recorded
	Repeated      bool             // an attempt whose answer was lost may have ended it
}

// needs are what calls refer to.
type needs struct {
	models, ledger map[uuid.UUID]bool // those that are named, and those that requests are recorded of
	keys           map[uuid.UUID]bool
	pools          map[uuid.UUID]bool // by provider, of which all keys are needed
	providers      map[uuid.UUID]bool // whose incidents are needed
	from           time.Time          // the earliest request
	requests       []string           // ids that may have been recorded before
	ending, asked  []uuid.UUID        // leases that end, and those that may have been acquired already
}

func needsOf(calls []Call) needs {
	n := needs{
		models: map[uuid.UUID]bool{}, ledger: map[uuid.UUID]bool{}, keys: map[uuid.UUID]bool{},
		pools:     map[uuid.UUID]bool{},
		providers: map[uuid.UUID]bool{}, from: calls[0].Now,
	}
	for i := range calls {
		n.add(&calls[i])
	}
	return n
}

func (n *needs) add(c *Call) {
	if c.records() {
		n.ledger[c.Request.Model], n.keys[c.Request.Key] = true, true
		n.from = utc.Min(n.from, c.Request.At)
		if c.Request.Named {
			n.requests = append(n.requests, c.Request.RequestID)
		}
	}
	if a := c.Acquire; a != nil {
		n.pools[a.Provider] = true
		if a.Model != uuid.Nil {
			n.models[a.Model] = true
		}
		if a.Repeated {
			n.asked = append(n.asked, a.ID)
		}
	}
	end := c.End
	if end == nil {
		return
	}
	switch {
	case end.Outcome == Failed: // which other keys failed alike
		n.pools[end.Provider] = true
	case end.Provider != uuid.Nil:
		n.providers[end.Provider] = true
	}
	if end.Key != uuid.Nil {
		n.keys[end.Key] = true
	}
	if end.Outcome != Observed {
		n.ending = append(n.ending, end.Lease)
	}
}
