package commit

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/budgetcrossing"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/policy"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/money"
)

// spending is what a batch knows of consumers and budgets, and what it adds.
type spending struct {
	owners     map[uuid.UUID]*Owner // the consumers that calls name, and all above them
	accessKeys map[uuid.UUID]*policy.AccessKey
	spent      map[counterID]*addition
	crossings  []crossing
	aged       [][]any // windows of minutes: older ones of the same counter are deleted
	unsure     bool    // an account may lack a lease: none is remembered
}

// makeRoom is called before consumers are found. Without consumers nothing is written.
func (s *spending) makeRoom() {
	if s.owners == nil {
		*s = spending{
			owners: map[uuid.UUID]*Owner{}, accessKeys: map[uuid.UUID]*policy.AccessKey{},
			spent: map[counterID]*addition{},
		}
	}
}

// counterID names what a subject spent in a window of a budget.
type counterID struct {
	budget, subject uuid.UUID
	begin           time.Time
}

func (a counterID) compare(b counterID) int {
	return cmp.Or(
		bytes.Compare(a.budget[:], b.budget[:]), bytes.Compare(a.subject[:], b.subject[:]), a.begin.Compare(b.begin),
	)
}

// addition is what a batch adds to a counter.
type addition struct {
	binding

	budget.Amount
}

// binding is a budget that binds a request, in the window of an instant.
type binding struct {
	bound

	begin, end time.Time
}

func (b binding) id() counterID { return counterID{b.ID, b.subject.ID, b.begin} }

func (b binding) account() accountID { return accountID{b.ID, b.subject.ID} }

// crossing is a row of budget_crossings.
type crossing struct {
	counterID
	budget.Crossing

	kind budgetcrossing.Kind
}

// bindings returns the budgets that bind a request for a consumer.
func (c *chain) bindings(of namedModel, at time.Time) (all []binding) {
	if c == nil {
		return nil
	}
	all = make([]binding, 0, len(c.bound))
	for _, by := range c.bound {
		if by.Covers(of.provider, of.name) {
			begin, end := by.WindowOf(at)
			all = append(all, binding{by, begin, end})
		}
	}
	return all
}

// asking returns for whom calls ask budgets.
func (n *needs) asking() (all []For) {
	for _, a := range n.acquires {
		all = append(all, a.For)
	}
	for _, r := range n.renews {
		all = append(all, r.For)
	}
	return slices.DeleteFunc(all, func(f For) bool { return f == For{} })
}

// subjects returns the consumers whose counters requests ask: each is locked, as models are.
func (b *batch) subjects(n needs) (ids []uuid.UUID) {
	for _, f := range n.asking() {
		chain, err := b.chainOf(f.consumer())
		if err != nil || chain == nil { // the call itself is told
			continue
		}
		for _, by := range chain.bound {
			ids = append(ids, by.subject.ID)
		}
	}
	slices.SortFunc(ids, compareIDs)
	return slices.Compact(ids)
}

func compareIDs(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }

// maxCeilings is how many ceilings may bind one request.
const maxCeilings = 64

// tookOf returns what an event counts as.
func tookOf(e *ledger.Event) budget.Amount {
	took := budget.Amount{Requests: 1, Tokens: e.Meters().Total()}
	if e.Cost == nil {
		took.Unpriced = 1
	} else {
		took.Cost = *e.Cost
	}
	return took
}

// counts reports whether a budget counts what ended at an instant.
func counts(at time.Time) func(*budget.Budget) bool {
	return func(b *budget.Budget) bool { return !at.Before(b.CountsFrom) }
}

// spend counts what has ended in the windows of an instant, for the budgets that count it.
func (b *batch) spend(chain *chain, of namedModel, at time.Time, took budget.Amount, by func(*budget.Budget) bool) {
	for _, bound := range chain.bindings(of, at) {
		if !by(bound.Budget) {
			continue
		}
		sum := b.spent[bound.id()]
		if sum == nil {
			sum = &addition{binding: bound}
			b.spent[bound.id()] = sum
		}
		sum.Amount = sum.Plus(took)
		if c := b.counterOf(bound); c != nil {
			c.Ended = c.Ended.Plus(took)
		}
	}
}

// asked returns the budgets that bind calls which ask for a key, at each instant at which a lease may begin.
func (b *batch) asked(n needs) (all []binding) {
	instants := map[uuid.UUID][]time.Time{} // by provider
	for _, a := range n.acquires {
		chain, err := b.chainOf(a.For.consumer())
		if err != nil || chain == nil { // the call itself is told, or it is for nobody
			continue
		}
		name, err := b.modelName(a.Model, a.Provider)
		if err != nil {
			continue
		}
		if instants[a.Provider] == nil {
			instants[a.Provider] = b.instants(b.pools[a.Provider])
		}
		for _, at := range instants[a.Provider] {
			all = append(all, chain.bindings(namedModel{a.Provider, name}, at)...)
		}
	}
	return all
}

// instants returns when a lease of a pool may begin: now; or later, if another process has a clock that is ahead.
func (b *batch) instants(p *pool.Pool) []time.Time {
	all := []time.Time{b.now}
	for _, k := range p.Keys {
		if at := k.Begins(b.now); at.After(b.now) {
			all = append(all, at)
		}
	}
	return all
}

// admit returns for whom a request is, and by which access key, nil for none; or why they may not use the model.
func (b *batch) admit(f For, of namedModel) (*chain, *policy.AccessKey, error) {
	chain, err := b.chainOf(f.consumer())
	if err == nil {
		err = b.checkFor(f)
	}
	if err != nil || chain == nil {
		return nil, nil, err
	}
	key := b.accessKeys[f.AccessKey]
	if key != nil {
		if reason, _ := key.Refused(b.now); reason != "" {
			return nil, nil, b.Forbidden(Refusal{Reason: reason, AccessKey: key})
		}
	}
	if reason, who := chain.forbids(of); reason != "" {
		return nil, nil, b.Forbidden(Refusal{reason, key, who, of.name})
	}
	return chain, key, nil
}

// checkFor returns an error if an access key is not there, or is another consumer's.
func (s *spending) checkFor(f For) error {
	if f.AccessKey == uuid.Nil {
		return nil
	}
	key := s.accessKeys[f.AccessKey]
	if key == nil {
		return fault.Missing("access key", f.AccessKey)
	}
	if key.Consumer != f.Consumer {
		return fmt.Errorf("%w: access key %s is another consumer's", fault.ErrInvalidData, key.ID)
	}
	return nil
}

// checkAccessKey checks a request that has no lease.
func (s *spending) checkAccessKey(r *Request) error {
	if r.AccessKey == nil {
		return nil
	}
	f := For{AccessKey: *r.AccessKey}
	if r.Consumer != nil {
		f.Consumer = *r.Consumer
	}
	return s.checkFor(f)
}

// fits returns why a request does not fit into the budgets of the instant at which its lease begins.
func (b *batch) fits(bound []binding, consumer uuid.UUID, r budget.Request) error {
	for _, by := range bound {
		if b.counterOf(by) == nil { // the clock was set back, and the lease would begin later than all have thought
			return fmt.Errorf("%w: the clock was set back", fault.ErrBusy)
		}
	}
	states := b.ceilings(bound, r)
	if len(states) > maxCeilings {
		return fmt.Errorf("%w: %d ceilings bind consumer %s, more than %d",
			fault.ErrInvalidData, len(states), consumer, maxCeilings)
	}
	b.refuse(states)
	if closed := budget.Refuses(states); len(closed) > 0 {
		return b.OverBudget(closed)
	}
	return nil
}

// priced returns what a request asks of budgets, and of limits of cost. If nobody says what it costs, that follows from
// its estimate, at the price that the standard tier has at an instant. It has a price if its model's input has a rate,
// and the output that it expects.
func (b *batch) priced(model uuid.UUID, at time.Time, of ledger.Estimate, cost money.USD) budget.Request {
	p := ledger.BestPrice(b.prices[model], at, ledger.StandardTier, of.TotalInput())
	unpriced := p == nil || p.CostPer1mInput == nil || of.Output > 0 && p.CostPer1mOutput == nil
	if cost == 0 && !unpriced {
		cost = of.Cost(p)
	}
	return budget.Request{At: at, Asked: budget.Amount{Tokens: of.Tokens, Cost: cost}, Unpriced: unpriced}
}

// ceilings returns all ceilings of the budgets that bind a request, as it finds them.
func (b *batch) ceilings(bound []binding, r budget.Request) (all []budget.State) {
	for _, by := range bound {
		c := *b.counterOf(by)
		c.Running = b.accounts[by.account()].running
		all = by.States(all, by.subject.ID, c, r)
	}
	return all
}

// unread makes room for the windows that a batch asks for, and returns those that must be read.
func (b *batch) unread(wanted []binding) (unread []binding) {
	for _, by := range wanted {
		if !b.accounts[by.account()].holds(b.now) {
			b.accounts[by.account()] = newAccount(b.now)
		}
	}
	for _, by := range wanted {
		if windows := b.accounts[by.account()].windows; windows[by.begin] == nil {
			windows[by.begin] = new(budget.Counter)
			unread = append(unread, by)
		}
	}
	return unread
}

// counterOf returns what is known of a window, or nil.
func (b *batch) counterOf(by binding) *budget.Counter {
	if a := b.accounts[by.account()]; a != nil {
		return a.windows[by.begin]
	}
	return nil
}

// hold counts what a lease reserves that has begun, or that could not end, in the budgets that bind it.
func (b *batch) hold(bound []binding, l *pool.Lease) {
	for _, by := range bound {
		if a := b.accounts[by.account()]; a != nil {
			a.open(by.begin, l)
		}
	}
}

// free is the opposite of hold, for a lease that ends. It forgets accounts that it cannot set right.
func (b *batch) free(l *pool.Lease) {
	if l.For == nil || len(b.accounts) == 0 {
		return
	}
	// The accounts are remembered: nobody has changed the policy since.
	chain := b.remembered.chainOf(*l.For)
	of, known := b.modelOf(l.Model)
	if chain == nil || !known {
		clear(b.accounts)
		return
	}
	for _, by := range chain.bindings(of, l.Acquired) {
		if a := b.accounts[by.account()]; a != nil && !a.close(by.begin, l) {
			delete(b.accounts, by.account())
		}
	}
}

// holdAgain counts a lease whose end was refused.
func (b *batch) holdAgain(l *pool.Lease) {
	if l.For == nil || !l.Expires.After(b.now) {
		return
	}
	of, known := b.modelOf(l.Model)
	if !known {
		b.unsure = true
		return
	}
	if chain, err := b.chainOf(l.For); err != nil {
		b.unsure = true
	} else {
		b.hold(chain.bindings(of, l.Acquired), l)
	}
}

// modelOf returns a model that was read; false: it is not known.
func (b *batch) modelOf(id *uuid.UUID) (of namedModel, ok bool) {
	if id == nil {
		return of, false
	}
	if of, ok = b.models[*id]; ok {
		return of, true
	}
	if of, ok = b.names[*id]; ok {
		return of, true
	}
	known, ok := b.known.Load(*id)
	if ok {
		of = known.(namedModel)
	}
	return of, ok
}

// refuse notes the first refusal of each ceiling in a window of a day or more.
func (b *batch) refuse(states []budget.State) {
	for _, s := range states {
		if !s.Closed() || !isLong(s.Begin, s.End) {
			continue
		}
		kind := budgetcrossing.KindRefused
		if s.Budget.Shadow {
			kind = budgetcrossing.KindWouldRefuse
		}
		b.crossings = append(b.crossings, crossing{
			counterID{s.Budget.ID, s.Subject, s.Begin},
			budget.Crossing{
				Metric: s.Metric, Spent: rule.Saturated(s.Ended, s.Open), Ceiling: rule.Saturated(s.Ceiling, s.Granted),
			},
			kind,
		})
	}
}

// isLong reports whether a window is a day or longer: crossings of shorter ones would be too many.
func isLong(begin, end time.Time) bool { return end.Sub(begin) > 12*time.Hour }
