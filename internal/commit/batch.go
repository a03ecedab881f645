package commit

import (
	"context"
	"sync"
	"time"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// Config configures a Committer.
type Config struct {
	DB       store.DB
	Clock    func() time.Time // instants as columns hold them
	Strategy pool.Strategy

	// Write runs the body in a transaction, again if need be, and returns errors of package fault.
	Write func(ctx context.Context, body func(tx *ent.Client) error) error
	// Audit writes what the pool did by itself to the audit trail.
	Audit func(ctx context.Context, tx *ent.Client, now time.Time, actor string, events []pool.Event) error
	// NoKey is the error for a pool that has no key to lease: fault.ErrNoKeyAvailable.
	NoKey func(p *pool.Pool, want pool.Want, now time.Time) error

	// OverLimit is the error for a lease that may not reserve more: fault.ErrNoKeyAvailable. It is given the windows of
	// the key, and of the group in which the lease counts, if there is one.
	OverLimit func(k *pool.Key, g *pool.Group, own, shared []pool.Window) error

	// Forbidden is the error for a consumer that may not do what it asks for: fault.ErrForbidden.
	Forbidden func(Refusal) error
	// OverBudget is the error for a request that does not fit into ceilings, which are given: fault.ErrBudget.
	OverBudget func(closed []budget.State) error

	// Expired is how many expired leases are taken out of the table at once. More would keep others waiting.
	Expired int
}

// env is what all batches share.
type env struct {
	Config
	engine     string
	partitions ledger.Partitions
	known      sync.Map // models that have been read, by id: a namedModel never changes
	expiries   expiries
	remembered ownerMemory // consumers, with their budgets
	dimensions dimension.Memory
}

// batch is a running transaction.
type batch struct {
	*env
	*snapshot
	tx   *ent.Client
	inTx bool // part of a caller's transaction, in which other calls may follow
	changes
	spending
	book *dimension.Book // nil: it is not needed so far
}

// remembering returns what the process remembers of dimensions, or nil in a caller's transaction.
func (b *batch) remembering() *dimension.Memory {
	if b.inTx {
		return nil
	}
	return &b.dimensions
}

// checkTags returns fault.ErrInvalidData if a request of an instant may not have some tags.
func (b *batch) checkTags(tags string, at time.Time) error {
	if tags == "" {
		return nil
	}
	return b.book.Check(tags, at)
}
