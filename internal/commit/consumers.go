package commit

import (
	"cmp"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/schema"
	"github.com/jeffersonwarrior/modelscan/internal/budget"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/policy"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// Owner is a consumer, as far as admission needs it: with its budgets, and with what it may use.
type Owner struct {
	policy.Consumer

	Path, Kind  string
	Permissions []schema.Permission
	Budgets     []*budget.Budget

	err   error       // its row, or one of its budgets, cannot be used: requests for it and for all below it are told
	ids   []uuid.UUID // of its path
	chain *chain      // nil: the consumers above it are not known yet
}

// chain is a consumer and all above it, the root first, with the budgets that bind its requests.
type chain struct {
	owners []*Owner
	bound  []bound
	err    error
}

// bound is a budget that binds the requests of a chain, whatever the model is, and the consumer whose counter it asks.
type bound struct {
	*budget.Budget

	subject *Owner
}

func (c *chain) consumer() *Owner { return c.owners[len(c.owners)-1] }

// link finds the consumers above one among owners.
func (o *Owner) link(owners map[uuid.UUID]*Owner) {
	o.chain = &chain{err: o.err}
	c := o.chain
	consumers := make([]budget.Consumer, 0, len(o.ids))
	for _, id := range o.ids {
		above := owners[id]
		if above == nil {
			c.err = fmt.Errorf("%w: consumer %s, above %s, is not there", fault.ErrCorrupt, id, o.ID)
			return
		}
		c.err = cmp.Or(c.err, above.err)
		c.owners = append(c.owners, above)
		consumers = append(consumers, budget.Consumer{ID: above.ID, Kind: above.Kind})
	}
	for _, above := range c.owners {
		for _, b := range above.Budgets {
			if subject, ok := b.Subject(consumers); ok {
				c.bound = append(c.bound, bound{b, owners[subject]})
			}
		}
	}
}

// Refusal says why a request is forbidden: because of its access key, or of its consumer or one above it.
type Refusal struct {
	Reason    policy.Reason
	AccessKey *policy.AccessKey // nil: none was named
	Consumer  *Owner            // nil: the reason is the access key's
	Model     string            // that is denied
}

// ownerMemory is what a process remembers of consumers and access keys, as of a version of the policy. Nobody changes
// what is remembered. That something is not there is not remembered.
type ownerMemory struct {
	mu         sync.Mutex
	version    int64
	owners     map[uuid.UUID]*Owner
	accessKeys map[uuid.UUID]*policy.AccessKey // without their consumers
}

// remember adds what is remembered to what a batch knows, if the version is still that.
func (o *ownerMemory) remember(version int64, owners, accessKeys map[uuid.UUID]bool, s *spending) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.version != version {
		return
	}
	for id := range owners {
		if known := o.owners[id]; known != nil {
			s.owners[id] = known
		}
	}
	for id := range accessKeys {
		if known := o.accessKeys[id]; known != nil {
			s.accessKeys[id] = known
		}
	}
}

// chainOf returns the chain of a consumer that is remembered, or nil.
func (o *ownerMemory) chainOf(consumer uuid.UUID) *chain {
	o.mu.Lock()
	defer o.mu.Unlock()
	if owner := o.owners[consumer]; owner != nil && owner.chain.err == nil {
		return owner.chain
	}
	return nil
}

// keep remembers what a batch has read, at a version.
func (o *ownerMemory) keep(version int64, s *spending) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owners == nil || o.version < version || len(o.owners)+len(o.accessKeys) > maxOwners {
		o.version, o.owners, o.accessKeys = version, map[uuid.UUID]*Owner{}, map[uuid.UUID]*policy.AccessKey{}
	}
	if o.version == version {
		for id, owner := range s.owners {
			if owner.chain.err == nil {
				o.owners[id] = owner
			}
		}
		maps.Copy(o.accessKeys, s.accessKeys)
	}
}

// maxOwners is how many consumers and access keys are remembered; with more, all are forgotten.
const maxOwners = 100_000

// PolicyLock is the number of PostgreSQL's advisory lock for what processes remember of consumers ("MSpo"). A batch
// shares it, by share_policy in migrate/postgres; whoever changes consumers or budgets has it alone, so that nothing is
// admitted by what was before.
const PolicyLock = 0x4d53706f

// PathIDs returns the ids of a consumer's path, the root first, or fault.ErrCorrupt.
func PathIDs(path string) (ids []uuid.UUID, err error) {
	for part := range strings.SplitSeq(path, "/") {
		id, err := uuid.Parse(part)
		if err != nil {
			return nil, fmt.Errorf("%w: path of a consumer: %w", fault.ErrCorrupt, err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// chainOf returns the chain of a consumer that was found; nil for nobody. It returns fault.ErrForeignKey if there is no
// such consumer.
func (s *spending) chainOf(consumer *uuid.UUID) (*chain, error) {
	if consumer == nil {
		return nil, nil
	}
	owner := s.owners[*consumer]
	if owner == nil {
		return nil, fault.Missing("consumer", *consumer)
	}
	return owner.chain, owner.chain.err
}

// scanBudget reads a row of readBudgetsSQL, and returns what is wrong with it.
func scanBudget(scan func(...any) error) (_ *budget.Budget, wrong, err error) {
	var (
		b                  budget.Budget
		per, zone          string
		mode, unpriced     string
		provider           *uuid.UUID
		models, thresholds sql.RawBytes
	)
	err = scan(
		&b.ID, &b.Owner, &b.Name, &b.Each, &b.EachKind, &per, &zone, &b.Window.Day, &b.Window.Hour,
		&provider, &models,
		(*int64)(&b.Ceilings.Cost), &b.Ceilings.Tokens, &b.Ceilings.Requests, &b.Ceilings.Concurrency,
		&mode, &unpriced, &thresholds, &b.CountsFrom,
	)
	if err != nil {
		return nil, nil, err
	}
	for _, cell := range []struct {
		text []byte
		to   any
	}{{models, &b.Models}, {thresholds, &b.Thresholds}} {
		if len(cell.text) == 0 {
			continue
		}
		if err := json.Unmarshal(cell.text, cell.to); err != nil {
			wrong = fmt.Errorf("%w: budget %s: %w", fault.ErrCorrupt, b.ID, err)
		}
	}
	if b.Window, err = windowOf(per, zone, b.Window.Day, b.Window.Hour); err != nil {
		wrong = fmt.Errorf("budget %s: %w", b.ID, err)
	}
	if provider != nil {
		b.Provider = *provider
	}
	b.Shadow, b.AllowUnpriced = mode == "shadow", unpriced == "allow"
	return &b, wrong, nil
}

// windowOf returns the windows of a budget's row. It returns fault.ErrUnsupported if this machine does not know the
// zone.
func windowOf(per, zone string, day, hour int) (w budget.Window, err error) {
	w = budget.Window{Per: budget.Unit(per), Day: day, Hour: hour}
	if w.Zone, err = time.LoadLocation(zone); err != nil {
		err = fmt.Errorf("%w: %w", fault.ErrUnsupported, err)
	}
	return w, err
}

// above adds the consumers above some, as far as they are known, and returns the others.
func (s *spending) above(some map[uuid.UUID]bool) map[uuid.UUID]bool {
	unknown := map[uuid.UUID]bool{}
	for id := range some {
		o := s.owners[id]
		switch {
		case o == nil:
		case o.chain != nil && o.chain.err == nil:
			for _, above := range o.chain.owners {
				s.owners[above.ID] = above
			}
		default:
			for _, id := range o.ids {
				if s.owners[id] == nil {
					unknown[id] = true
				}
			}
		}
	}
	return unknown
}

// forbids returns why the consumers of a chain may not use a model, and which of them may not; "" if they may.
func (c *chain) forbids(of namedModel) (policy.Reason, *Owner) {
	for _, o := range c.owners {
		if reason := o.Refused(); reason != "" {
			return reason, o
		}
		if !o.permits(of.provider, of.name) {
			return policy.ModelDenied, o
		}
	}
	return "", nil
}

// permits reports whether a consumer's own permissions let it use a model: one permits it, or there are only denials,
// and no denial is for it.
func (o *Owner) permits(provider uuid.UUID, model string) bool {
	permitted, said := false, false
	for _, p := range o.Permissions {
		is := p.ProviderID == provider && (len(p.Models) == 0 || rule.InModels(p.Models, model))
		if is && p.Deny {
			return false
		}
		said = said || !p.Deny
		permitted = permitted || is
	}
	return permitted || !said
}
