// Package commit has the transaction that records requests, leases keys, and renews and ends leases. All calls that
// arrive while one such transaction is under way share the next. It reads a snapshot of what the calls need, decides in
// memory with packages pool and ledger, and writes what changed.
package commit

import (
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// Call is what a caller wants of the next batch: to record a request, to acquire a key, to renew a lease, or to end
// one, which may record a request too.
type Call struct {
	Now     time.Time // of the call
	Actor   string
	Request Request // no id: there is nothing to record
	Acquire *Acquire
	Renew   *Renew
	End     *End
}

// asks reports whether the call asks for what may be refused because others hold it.
func (c *Call) asks() bool { return c.Acquire != nil || c.Renew != nil }

// records reports whether the call has a request to record.
func (c *Call) records() bool { return c.Request.ID != uuid.Nil }

// repeated notes that the call may have been done already.
func (c *Call) repeated() {
	c.Request.Named = true
	switch {
	case c.Acquire != nil:
		c.Acquire.repeated = true
	case c.End != nil:
		c.End.Repeated = true
	}
}

// Request is a request to be recorded. It has passed all checks that need no database. The batch fills in the price and
// the cost of its event.
type Request struct {
	ledger.Event
	ServiceTier string
	Named       bool // the request id is the caller's: it may have been recorded before
	// Estimate is what the caller knows of the estimate of its lease. The lease knows it better, unless it has expired.
	Estimate ledger.Estimate
}

// unknown reports whether nobody knows what the request has used.
func (r *Request) unknown() bool { return r.Status == usageevent.UsageStatusUnknown }

// estimate returns what a request of unknown usage is supposed to have used, or nothing.
func (r *Request) estimate(l *pool.Lease) ledger.Estimate {
	switch {
	case !r.unknown():
		return ledger.Estimate{}
	case l == nil:
		return r.Estimate
	}
	return ledger.Estimate{Tokens: l.Tokens, Output: l.Output}
}

// Acquire asks for a key for a model of the provider; for any model if Model is zero.
type Acquire struct {
	ID              uuid.UUID // of the lease
	Provider, Model uuid.UUID
	Want            pool.Want
	Output          int64 // of the wanted tokens; 0: it was not said
	TTL             time.Duration
	For             For
	AttemptGroup    string
	Attempt         int
	Tags            string // JSON; empty: none
	repeated        bool   // an attempt whose answer was lost may have acquired it

	// Leased is the result. It belongs to the batch: copy what is needed before the call returns.
	Leased *Leased
}

// For says for whom a request is made, and by which access key; zero: for nobody.
type For struct {
	Consumer  uuid.UUID // zero: the access key's
	AccessKey uuid.UUID
}

func (f *For) consumer() *uuid.UUID {
	if f.Consumer == uuid.Nil {
		return nil
	}
	return &f.Consumer
}

// Leased is a key that was acquired.
type Leased struct {
	pool.Lease
	Prefix, Label string // of the key
}

// Renew extends an open lease, and raises what it reserves. It needs no note of an attempt whose answer was lost: what
// is raised already is not raised again.
type Renew struct {
	Lease, Key, Provider uuid.UUID
	Model                uuid.UUID // zero: none was given
	For                  For
	Acquired             time.Time
	TTL                  time.Duration
	Tokens, Output       int64 // zero: as many as before
	Cost                 money.USD

	// Renewed is the result.
	Renewed *pool.Lease
}

// estimates reports whether the caller says how many tokens the request uses.
func (r *Renew) estimates() bool { return r.Tokens > 0 || r.Output > 0 }

// Outcome is how a lease ends.
type Outcome int

// The outcomes.
const (
	Released  Outcome = iota // nothing was done with the key
	Used                     // it was used, and nobody says how that ended
	Succeeded                // a request succeeded
	Failed                   // a request failed: see Failure
	Observed                 // there is no lease
)

// End is a lease that ends, or an observation of a key without one.
type End struct {
	Lease         uuid.UUID
	Key, Provider uuid.UUID // zero: the caller does not know whether the lease exists
	Acquired      time.Time
	Outcome       Outcome
	Failure       pool.Diagnosis
	Said          []upstream.Quota // what the provider said of its limits
	Tokens        int64            // used, if nothing is recorded
	Unknown       bool             // nobody knows what was used, if nothing is recorded
	Repeated      bool             // an attempt whose answer was lost may have ended it
}

// needs holds what calls refer to.
type needs struct {
	models, ledger map[uuid.UUID]bool // models that are named; models for which requests are recorded
	keys           map[uuid.UUID]bool
	pools          map[uuid.UUID]bool // providers of which all keys are needed
	providers      map[uuid.UUID]bool // providers whose incidents are needed
	from           time.Time          // the earliest request
	owners         map[uuid.UUID]bool // consumers that requests are for; nil: nobody
	accessKeys     map[uuid.UUID]bool
	tagged         bool // a request has tags
	acquires       []*Acquire
	renews         []*Renew
	requests       []string    // ids that may have been recorded before
	ending, asked  []uuid.UUID // leases that end; leases that are renewed, or that may exist already
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
		if of := c.Request.Consumer; of != nil {
			n.addFor(For{Consumer: *of})
		}
		if key := c.Request.AccessKey; key != nil && (c.End == nil || c.Request.Consumer == nil) {
			n.addFor(For{AccessKey: *key})
		}
		n.tagged = n.tagged || c.Request.Tags != ""
		if c.Request.Named {
			n.requests = append(n.requests, c.Request.RequestID)
		}
	}
	if a := c.Acquire; a != nil {
		n.pools[a.Provider] = true
		n.tagged = n.tagged || a.Tags != ""
		if a.Model != uuid.Nil {
			n.models[a.Model] = true
		}
		n.acquires = append(n.acquires, a)
		if a.For != (For{}) {
			n.addFor(a.For)
		}
		if a.repeated {
			n.asked = append(n.asked, a.ID)
		}
	}
	if c.Renew != nil {
		n.addRenew(c.Renew)
	}
	end := c.End
	if end == nil {
		return
	}
	switch {
	case end.Outcome == Failed: // to see which other keys failed alike
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

func (n *needs) addRenew(r *Renew) {
	n.renews, n.asked = append(n.renews, r), append(n.asked, r.Lease)
	n.pools[r.Provider], n.keys[r.Key] = true, true
	if r.Model != uuid.Nil {
		n.models[r.Model] = true
	}
	if r.For != (For{}) {
		n.addFor(r.For)
	}
	n.from = utc.Min(n.from, r.Acquired) // it has the price of then
}

func (n *needs) addFor(f For) {
	if n.owners == nil {
		n.owners, n.accessKeys = map[uuid.UUID]bool{}, map[uuid.UUID]bool{}
	}
	if f.Consumer != uuid.Nil {
		n.owners[f.Consumer] = true
	}
	if f.AccessKey != uuid.Nil {
		n.accessKeys[f.AccessKey] = true
	}
}
