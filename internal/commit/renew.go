package commit

import (
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// mustPriceMore reports whether a renewal must be priced, as mustPrice does for a new lease.
func (s *snapshot) mustPriceMore(r *Renew) bool {
	if r.For != (For{}) {
		return r.estimates() || r.Cost > 0
	}
	return r.Model != uuid.Nil && r.Cost == 0 && r.estimates() && s.pools[r.Provider].LimitsCost()
}

// renew extends a lease and raises what it reserves; or it returns why that may not be, and leaves the lease as it is.
func (b *batch) renew(c *Call) error {
	r := c.Renew
	r.Renewed = nil // left by an attempt that was undone
	l := b.leases[r.Lease]
	if l == nil || !l.Expires.After(b.now) {
		return fault.ErrLeaseEnded
	}
	chain, of, err := b.admitAgain(l, r)
	if err != nil {
		return err
	}
	next := *l
	next.Expires = utc.Max(l.Expires, utc.Of(b.now.Add(r.TTL)))
	next.Tokens, next.Output = max(l.Tokens, r.Tokens), max(l.Output, r.Output)
	if next.Output > next.Tokens {
		return fmt.Errorf("%w: estimated output tokens %d are more than the lease's %d tokens",
			fault.ErrInvalidData, next.Output, next.Tokens)
	}
	asked := budget.Request{At: l.Acquired}
	next.Cost = max(l.Cost, r.Cost)
	if l.Model != nil && b.mustPriceMore(r) {
		asked = b.priced(*l.Model, l.Acquired, ledger.Estimate{Tokens: next.Tokens, Output: next.Output}, r.Cost)
		next.Cost = max(l.Cost, asked.Asked.Cost)
	}
	by := pool.Amount{Tokens: next.Tokens - l.Tokens, Cost: next.Cost - l.Cost}
	asked.Asked = budget.Amount{Tokens: by.Tokens, Cost: by.Cost}
	asked.Held = &budget.Amount{Requests: 1, Tokens: l.Tokens, Cost: l.Cost}
	bound := chain.bindings(of, l.Acquired)
	if by != (pool.Amount{}) { // else the request goes on as it is, whatever is closed
		if err := b.fits(bound, r.For.Consumer, asked); err != nil {
			return err
		}
		if err := b.fitsLimits(l, by); err != nil {
			return err
		}
	}
	b.holdMore(bound, &next, asked.Asked)
	r.Renewed = new(next)
	return nil
}

// admitAgain returns the consumer of a lease and all above it, with the model; or why they may not use it any more.
func (b *batch) admitAgain(l *pool.Lease, r *Renew) (c *chain, of namedModel, err error) {
	of.provider = r.Provider
	if l.For == nil {
		return nil, of, nil
	}
	if l.Model == nil {
		return nil, of, fault.Missing("model", r.Model)
	}
	if of.name, err = b.modelName(*l.Model, r.Provider); err != nil {
		return nil, of, err
	}
	by := For{Consumer: *l.For}
	if l.By != nil {
		by.AccessKey = *l.By
	}
	c, _, err = b.admit(by, of)
	return c, of, err
}

// askedAgain returns the budgets that bind renewals, at the instants at which their leases have begun.
func (b *batch) askedAgain(n needs) (all []binding) {
	for _, r := range n.renews {
		l := b.leases[r.Lease]
		if l == nil || l.For == nil || l.Model == nil {
			continue
		}
		chain, err := b.chainOf(l.For)
		if err != nil { // the call itself is told
			continue
		}
		if name, err := b.modelName(*l.Model, r.Provider); err == nil {
			all = append(all, chain.bindings(namedModel{r.Provider, name}, l.Acquired)...)
		}
	}
	return all
}

// fitsLimits returns why a lease may not reserve more: because of the limits of its key, or of its group.
func (b *batch) fitsLimits(l *pool.Lease, by pool.Amount) error {
	k, g := b.counting(l)
	own := k.Raising(l, by, b.now, nil)
	var shared []pool.Window
	if g != nil {
		shared = g.Raising(l, by, b.now, nil)
	}
	if slices.ContainsFunc(slices.Concat(own, shared), pool.Window.Closed) {
		return b.OverLimit(k, g, own, shared)
	}
	return nil
}

// counting returns the key and the group that a lease counts in; a nil group: none.
func (s *snapshot) counting(l *pool.Lease) (*pool.Key, *pool.Group) {
	if l.Group == nil {
		return s.keys[l.Key], nil
	}
	return s.keys[l.Key], s.groups[*l.Group]
}

// holdMore counts a lease as it is renewed, wherever it counts. Next is a copy: others may have the lease as it was.
func (b *batch) holdMore(bound []binding, next *pool.Lease, by budget.Amount) {
	for _, one := range bound {
		if c := b.counterOf(one); c != nil {
			c.Open = c.Open.Plus(by)
		}
	}
	k, g := b.counting(next)
	k.Renew(next)
	if g != nil {
		g.Renew(next)
	}
	b.leases[next.ID] = next
	same := func(l *pool.Lease) bool { return l.ID == next.ID }
	if i := slices.IndexFunc(b.opened, same); i >= 0 { // its end was refused: it is to be inserted again
		b.opened[i] = next
		return
	}
	b.renewed = append(slices.DeleteFunc(b.renewed, same), next)
}
