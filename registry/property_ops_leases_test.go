package registry_test

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// leaseOperations are those of leases.
var leaseOperations = map[string]func(inputs) op{
	"AcquireKey": func(in inputs) op {
		o := op1((*reg).AcquireKey, (*world).acquireKey, in.asked())
		acquire := o.onSide
		o.onSide = func(ctx context.Context, s *side) (any, error) {
			value, err := acquire(ctx, s)
			if err == nil {
				s.leased = append(s.leased, value.(*registry.Lease))
			}
			return value, err
		}
		return o
	},
	"ExplainKeys": func(in inputs) op { return op1((*reg).ExplainKeys, (*world).explainKeys, in.asked()) },
	"GetLease":    func(in inputs) op { return op1((*reg).GetLease, (*world).getLease, in.lease()) },
	"Settle": func(in inputs) op {
		e := in.ending()
		e.used = in.usedBy(e.id)
		return end(e, func(ctx context.Context, l *registry.Lease, in registry.UsageInput) (bool, error) {
			return true, l.Settle(ctx, in)
		}, func(w *world) (bool, error) { return true, w.settle(e) })
	},
	"Renew": renewOperation,
	"Release": func(in inputs) op {
		e := in.ending()
		return end(e, func(ctx context.Context, l *registry.Lease, _ registry.UsageInput) (bool, error) {
			return true, l.Release(ctx)
		}, func(w *world) (bool, error) { return true, w.release(e) })
	},
	"Fail": func(in inputs) op {
		e := in.ending()
		e.used, e.failed = in.usedBy(e.id), in.failure()
		e.used.Failed, e.used.ErrorClass = false, ""
		o := end(e, func(ctx context.Context, l *registry.Lease, in registry.UsageInput) (registry.Diagnosis, error) {
			return l.Fail(ctx, registry.Failure{Err: *e.failed, Usage: in})
		}, func(w *world) (registry.Diagnosis, error) { return w.fail(e) })
		key := uuid.Nil
		if h := in.handle(e.id); h != nil {
			key = h.key
		}
		o.fails = func() uuid.UUID { return key }
		return o
	},
}

// end is an operation that ends a lease.
func end[R any](
	e ending, call func(context.Context, *registry.Lease, registry.UsageInput) (R, error),
	model func(*world) (R, error),
) op {
	return op{
		input: fmt.Sprintf("%s, another handle %t: %+v %+v", e.id, e.another, e.used, e.failed),
		onSide: func(ctx context.Context, s *side) (any, error) {
			l := s.handle(e.id)
			if e.another || l == nil {
				var err error
				if l, err = s.reg.GetLease(ctx, s.id(e.id)); err != nil {
					return nil, err
				}
			}
			return call(ctx, l, own(s, e.used))
		},
		onWorld: func(w *world) (any, error) { return model(w) },
	}
}

// handle returns the lease that was acquired; nil for none.
func (s *side) handle(id uuid.UUID) *registry.Lease {
	own := s.id(id)
	return first(s.leased, func(l *registry.Lease) bool { return l.ID == own })
}

// Inputs of them.

func (in inputs) handle(id uuid.UUID) *handle {
	return first(in.world.handles, func(h *handle) bool { return h.id == id })
}

// asked draws what a key is asked for.
func (in inputs) asked() registry.AcquireInput {
	a := registry.AcquireInput{
		ProviderID:      in.provider(),
		EstimatedTokens: draw[int64](in.T, "estimated tokens", 0, 0, 1, 100, 400, 1001),
		EstimatedCost:   draw[money.USD](in.T, "estimated cost", 0, 0, 1, 500_000),
		TTL:             draw(in.T, "TTL", 7*time.Second, time.Minute, 10*time.Minute, time.Hour, 12*time.Hour),
	}
	if in.bool("output") {
		a.EstimatedOutputTokens = draw[int64](in.T, "estimated output", 0, 1, 50, 100, 1001)
	}
	if in.bool("attempt") {
		a.AttemptGroup = draw(in.T, "attempt group", "", "g", "a\x00")
		a.Attempt = draw(in.T, "attempt", 0, 1, 2, -1)
	}
	models := where(in.world.models, func(m *ent.Model) bool { return m.ProviderID == a.ProviderID })
	if len(models) > 0 && in.bool("for a model") {
		a.ModelID = draw(in.T, "model", models...).ID
	}
	if in.rarely("any model") {
		a.ModelID = in.model()
	}
	if in.rarely("bad input") {
		a.TTL, a.EstimatedTokens = draw(in.T, "TTL", 0, time.Minute), -1
	}
	for range draw(in.T, "excluded", 0, 0, 0, 1, 2) {
		a.Exclude = append(a.Exclude, in.key())
	}
	return a
}

// lease draws one that is open, or that has expired or ended. Within a transaction nobody can tell whether one that
// has expired is put away by now.
func (in inputs) lease() uuid.UUID {
	isOpen := func(h *handle) bool { return in.world.lease(h.id) != nil }
	all := where(in.world.handles, func(h *handle) bool {
		return !in.world.inTx || !isOpen(h) || h.expires.After(in.world.now)
	})
	if some := where(all, isOpen); len(some) > 0 && draw(in.T, "open", true, true, true, true, false) {
		all = some
	}
	if len(all) == 0 {
		return uuid.MustParse("01234567-89ab-7def-8123-456789abcdee")
	}
	return draw(in.T, "lease", all...).id
}

// ending draws how a lease is to end.
func (in inputs) ending() ending {
	e := ending{id: in.lease()}
	e.another = in.world.inTx || in.handle(e.id) == nil || draw(in.T, "another handle", false, false, true)
	return e
}

// usedBy draws what the request of a lease has used.
func (in inputs) usedBy(id uuid.UUID) registry.UsageInput {
	u := in.usage()
	if !in.rarely("another model") {
		u.ModelID = uuid.Nil
	}
	if h := in.handle(id); u.ModelID == uuid.Nil && h != nil && h.model == uuid.Nil && in.bool("of a model") {
		models := where(in.world.models, func(m *ent.Model) bool { return m.ProviderID == h.provider })
		if len(models) > 0 {
			u.ModelID = draw(in.T, "model", models...).ID
		}
	}
	if !in.rarely("another key") {
		u.APIKeyID = uuid.Nil
	}
	if in.bool("now") {
		u.At = time.Time{}
	}
	if in.bool("under the lease's id") {
		u.RequestID = ""
	}
	return u
}

func (in inputs) failure() *said {
	f := &said{class: draw(in.T, "class", registry.FailureRateLimited, registry.FailureRateLimited,
		registry.FailureQuotaExhausted, registry.FailureAuth, registry.FailureServer, registry.FailureTimeout,
		registry.FailureBadRequest)}
	if in.rarely("bad class") {
		f.class = "unknown"
	}
	if in.bool("said until when") {
		f.after = draw(in.T, "after", time.Second, 3*time.Second, time.Minute, 5*time.Hour, 24*time.Hour)
	}
	return f
}
