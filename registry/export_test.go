package registry

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
)

// Past returns a client that writes past the rules, as one of somebody's own can.
func (r *Registry) Past() *ent.Client { return r.client.With(ent.Scope(&operation{clock: r.clock})) }

// Waiting returns how many callers of this process wait for a key.
func Waiting(r *Registry) (n int) {
	r.waiters.mu.Lock()
	defer r.waiters.mu.Unlock()
	for _, some := range r.waiters.list {
		n += len(some)
	}
	return n
}

// Fold adds the requests to a model to the periods of their values, as the registry does by itself.
func Fold(ctx context.Context, r *Registry, model uuid.UUID) error {
	return r.commits.Fold(ctx, model, r.now())
}

// WithoutPolling lets callers who wait for a key ask again when they are woken, and not every 250 ms.
func WithoutPolling(r *Registry) { r.waiters.poll = time.Hour }

// InPieces lets pieces of long operations have some rows, and calls between after each.
func InPieces(r *Registry, rows int, between func(context.Context) error) {
	r.pieceRows, r.between = rows, between
}
