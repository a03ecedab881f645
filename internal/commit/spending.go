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
	version    *int64               // of the policy; nil: it was not read
	owners     map[uuid.UUID]*Owner // the consumers that calls name, and all above them
	accessKeys map[uuid.UUID]*policy.AccessKey
	counters   map[counterID]*budget.Counter
	running    map[counterID]int64 // open leases, of any window
	spent      map[counterID]*addition
	crossings  []crossing
}

// makeRoom is called before consumers are found. Without consumers nothing is written.
func (s *spending) makeRoom() {
	if s.owners == nil {
		*s = spending{
			version: s.version,
			owners:  map[uuid.UUID]*Owner{}, accessKeys: map[uuid.UUID]*policy.AccessKey{},
			counters: map[counterID]*budget.Counter{}, running: map[counterID]int64{}, spent: map[counterID]*addition{},
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
	*budget.Budget

	subject    *Owner
	begin, end time.Time
}

func (b binding) id() counterID { return counterID{b.ID, b.subject.ID, b.begin} }

// always names what a subject has in all windows of a budget.
func (b binding) always() counterID { return counterID{b.ID, b.subject.ID, time.Time{}} }

// crossing is a row of budget_crossings.
type crossing struct {
	counterID
	budget.Crossing

	kind budgetcrossing.Kind
}

// bindings returns the budgets that bind a request for a chain of consumers.
func bindings(chain []*Owner, of namedModel, at time.Time) (all []binding) {
	consumers := consumersOf(chain)
	for _, o := range chain {
		for _, bud := range o.Budgets {
			if !bud.Covers(of.provider, of.name) {
				continue
			}
			subject, ok := bud.Subject(consumers)
			if !ok {
				continue
			}
			i := slices.IndexFunc(chain, func(o *Owner) bool { return o.ID == subject })
			begin, end := bud.Window.Of(at)
			all = append(all, binding{bud, chain[i], begin, end})
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
		if err != nil { // the call itself is told
			continue
		}
		for _, o := range chain {
			for _, bud := range o.Budgets {
				if id, ok := bud.Subject(consumersOf(chain)); ok {
					ids = append(ids, id)
				}
			}
		}
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids)
}

func consumersOf(chain []*Owner) []budget.Consumer {
	consumers := make([]budget.Consumer, len(chain))
	for i, o := range chain {
		consumers[i] = budget.Consumer{ID: o.ID, Kind: o.Kind}
	}
	return consumers
}

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
func (b *batch) spend(chain []*Owner, of namedModel, at time.Time, took budget.Amount, by func(*budget.Budget) bool) {
	for _, bound := range bindings(chain, of, at) {
		if !by(bound.Budget) {
			continue
		}
		sum := b.spent[bound.id()]
		if sum == nil {
			sum = &addition{binding: bound}
			b.spent[bound.id()] = sum
		}
		sum.Amount = sum.Plus(took)
		if c := b.counters[bound.id()]; c != nil {
			c.Ended = c.Ended.Plus(took)
		}
	}
}

// asked returns the budgets that bind calls which ask for a key, at each instant at which a lease may begin.
func (b *batch) asked(n needs) (all []binding) {
	instants := map[uuid.UUID][]time.Time{} // by provider
	for _, a := range n.acquires {
		chain, err := b.chainOf(a.For.consumer())
		if err != nil || len(chain) == 0 { // the call itself is told, or it is for nobody
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
			all = append(all, bindings(chain, namedModel{a.Provider, name}, at)...)
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

// admit returns for whom a request is, the consumer and all above it, and by which access key, nil for none; or why
// they may not use the model.
func (b *batch) admit(f For, of namedModel) ([]*Owner, *policy.AccessKey, error) {
	chain, err := b.chainOf(f.consumer())
	if err == nil {
		err = b.checkFor(f)
	}
	if err != nil || len(chain) == 0 {
		return nil, nil, err
	}
	key := b.accessKeys[f.AccessKey]
	if key != nil {
		if reason, _ := key.Refused(b.now); reason != "" {
			return nil, nil, b.Forbidden(Refusal{Reason: reason, AccessKey: key})
		}
	}
	if reason, who := forbids(chain, of); reason != "" {
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
		c := *b.counters[by.id()]
		c.Running = b.running[by.always()]
		all = by.States(all, by.subject.ID, c, r)
	}
	return all
}

// hold counts what a lease reserves that has begun, or that could not end, in the budgets that bind it.
func (b *batch) hold(bound []binding, l *pool.Lease) {
	for _, by := range bound {
		if _, asked := b.running[by.always()]; asked {
			b.running[by.always()]++
		}
		if c := b.counters[by.id()]; c != nil {
			c.Open = c.Open.Plus(budget.Amount{Requests: 1, Tokens: l.Tokens, Cost: l.Cost})
		}
	}
}

// holdAgain counts a lease whose end was refused.
func (b *batch) holdAgain(l *pool.Lease) error {
	if l.Model == nil || l.For == nil || b.owners[*l.For] == nil { // nobody asks for its consumer
		return nil
	}
	if !l.Expires.After(b.now) {
		return nil
	}
	chain, err := b.chainOf(l.For)
	if err != nil {
		return err
	}
	of, ok := b.models[*l.Model]
	if !ok {
		of, ok = b.names[*l.Model]
	}
	if known, remembered := b.known.Load(*l.Model); !ok && remembered {
		of = known.(namedModel)
	}
	b.hold(bindings(chain, of, l.Acquired), l)
	return nil
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
