package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// KeyReason says why a key cannot be used.
type KeyReason string

// The reasons that stay until a person, or the caller, changes something.
const (
	KeyDisabled = KeyReason(pool.Disabled) // a person disabled it
	KeyExpired  = KeyReason(pool.Expired)  // another key has replaced it: see RotateAPIKey
	KeyExcluded = KeyReason(pool.Excluded) // the caller excluded it; nothing else is in the way
	KeyDenied   = KeyReason(pool.Denied)   // it is not for the model
	KeyTooSmall = KeyReason(pool.TooSmall) // the request asks for more than one of its limits
)

// The reasons that pass by themselves. AcquireKey with Wait waits for them.
const (
	KeyDegraded = KeyReason(pool.Degraded) // a person or a failure took it out of use
	KeyProbed   = KeyReason(pool.Probed)   // it was out of use, and the request that tries it has not ended
	KeyLimited  = KeyReason(pool.Limited)  // it has reached a limit
	KeyBusy     = KeyReason(pool.Busy)     // it has as many requests under way as it may
	KeyCooling  = KeyReason(pool.Cooling)  // the provider has an incident
)

// KeyVerdict says whether a key can be used now, and if not, why.
type KeyVerdict struct {
	ID     uuid.UUID
	Prefix string
	Label  string
	Reason KeyReason // empty: it can be used
	Detail string    // why it is degraded, or which limits are closed
	Until  time.Time // when it opens; zero: not by itself, or when another request ends

	Priority int
	Weight   int
	InFlight int64 // open leases
	// Limits has the limits of the key and of its quota group. It is empty for GetLeastUsedKey, which ignores limits.
	Limits   []LimitState
	Excluded bool // the caller excluded it, whether or not there is another reason
	// Probation reports whether the key was out of use for a reason that time alone does not mend, and no request has
	// succeeded since.
	Probation bool
	Next      bool // AcquireKey would hand it out now
}

// NoKeyError is the error for a provider without a usable key, or for a renewal that does not fit into the limits of
// the lease's key. It matches [ErrNoKeyAvailable].
type NoKeyError struct {
	ProviderID uuid.UUID
	Keys       []KeyVerdict // in the order they were added; empty: the provider has no keys
	// OpensAt is when the first key opens by itself, keys that the caller excluded included. Zero: no key does.
	OpensAt time.Time
	// Sooner reports whether a key may open before OpensAt, when a request ends: a key is busy, or being tried.
	Sooner bool

	passes     bool      // waiting makes sense
	earliest   time.Time // no key that is worth waiting for opens before this
	noProvider bool      // there is no such provider
	renewal    bool      // of a lease: its key alone was asked
}

// Error says how many keys there are, why they cannot be used, and when the first one opens.
func (e *NoKeyError) Error() string {
	switch {
	case e.ProviderID == uuid.Nil:
		return fmt.Sprintf("%s: no provider is given: ProviderID is zero", ErrNoKeyAvailable)
	case e.noProvider:
		return fmt.Sprintf("%s: there is no provider %s, or it is deleted", ErrNoKeyAvailable, e.ProviderID)
	case e.renewal:
		return e.renewalText()
	case len(e.Keys) == 0:
		return fmt.Sprintf("%s: provider %s has no keys: AddAPIKey adds one", ErrNoKeyAvailable, e.ProviderID)
	}
	text := fmt.Sprintf("%s: provider %s has %d keys", ErrNoKeyAvailable, e.ProviderID, len(e.Keys))
	if reasons := e.reasons(); reasons != "" {
		text += " (" + reasons + ")"
	}
	if !e.OpensAt.IsZero() {
		text += ", the first opens at " + e.OpensAt.Format(time.RFC3339)
	}
	return text
}

// renewalText says which limits of the lease's key refuse more.
func (e *NoKeyError) renewalText() string {
	text := fmt.Sprintf("%s: the lease cannot reserve more: %s", ErrNoKeyAvailable, e.Keys[0].Detail)
	if !e.OpensAt.IsZero() {
		text += ", until " + e.OpensAt.Format(time.RFC3339)
	}
	return text
}

// reasons counts the keys by reason.
func (e *NoKeyError) reasons() string {
	n, order := map[KeyReason]int{}, []KeyReason(nil)
	for _, k := range e.Keys {
		if n[k.Reason]++; n[k.Reason] == 1 {
			order = append(order, k.Reason)
		}
	}
	texts := make([]string, len(order))
	for i, reason := range order {
		texts[i] = fmt.Sprintf("%d %s", n[reason], reason)
	}
	return strings.Join(texts, ", ")
}

// Unwrap returns [ErrNoKeyAvailable].
func (e *NoKeyError) Unwrap() error { return ErrNoKeyAvailable }

// add adds the verdict on a key that cannot be used.
func (e *NoKeyError) add(v KeyVerdict) {
	e.Keys = append(e.Keys, v)
	e.passes = e.passes || pool.Reason(v.Reason).Passes() && !v.Excluded
	e.Sooner = e.Sooner || v.Reason == KeyBusy || v.Reason == KeyProbed
	if !v.Until.IsZero() && (e.OpensAt.IsZero() || v.Until.Before(e.OpensAt)) {
		e.OpensAt = v.Until
	}
}

// sayProvider completes a NoKeyError without keys: it looks whether the provider exists.
func (r *Registry) sayProvider(ctx context.Context, err error) error {
	var none *NoKeyError
	if !errors.As(err, &none) || len(none.Keys) > 0 {
		return err
	}
	exists, failed := r.fresh.Provider.Query().Where(provider.ID(none.ProviderID), provider.DeletedAtIsNil()).Exist(ctx)
	if failed != nil {
		return fmt.Errorf("%w: %w", err, failed)
	}
	none.noProvider = !exists
	return err
}

// noKey returns a NoKeyError with the reason for each key of a pool.
func noKey(p *pool.Pool, want pool.Want, now time.Time) error {
	why := &NoKeyError{ProviderID: p.ID}
	for _, k := range p.Keys {
		v := verdictOn(p, k, want, now)
		why.add(v)
		if v.Excluded || !pool.Reason(v.Reason).Passes() {
			continue
		}
		if at := earliest(k, v, now); why.earliest.IsZero() || at.Before(why.earliest) {
			why.earliest = at
		}
	}
	return why
}

// earliest returns when a closed key can open at the earliest. It is now if the end of a request can lower what a limit
// counts.
func earliest(k *pool.Key, v KeyVerdict, now time.Time) time.Time {
	inUse := k.InFlight() > 0 || k.Account != nil && k.Account.InFlight() > 0
	switch {
	case inUse && v.Reason == KeyDegraded:
		return *k.DegradedUntil
	case inUse && v.Reason == KeyLimited, v.Until.IsZero():
		return now
	}
	return v.Until
}

// verdictOn judges whether a key can be used now.
func verdictOn(p *pool.Pool, k *pool.Key, want pool.Want, now time.Time) KeyVerdict {
	v := KeyVerdict{
		ID: k.ID, Prefix: k.Prefix, Label: k.Label, Priority: k.Priority, Weight: k.Weight, InFlight: k.InFlight(),
		Excluded: want.Exclude[k.ID], Probation: k.OnProbation(),
	}
	reason, until := k.Blocked(want, now)
	v.Reason, v.Until = KeyReason(reason), until
	switch {
	case !p.Cools(now):
	case v.Reason == "":
		v.Reason, v.Until, v.Detail = KeyCooling, *p.CoolingUntil, string(p.CoolingReason)
	case !v.Until.IsZero():
		v.Until = utc.Max(v.Until, *p.CoolingUntil)
	}
	if v.Reason == KeyDegraded {
		v.Detail = k.DegradedReason
	}
	own := len(k.Windows(want.Amount, now, nil))
	for i, w := range k.AllWindows(want.Amount, now, nil) {
		group := ""
		if i >= own {
			group = k.Account.Name
		}
		v.Limits = append(v.Limits, limitState(group, w))
	}
	if v.Detail == "" {
		v.Detail = closedLimits(v.Limits)
	}
	return v
}

// limitState returns the state of a limit of a key, or of a group.
func limitState(group string, w pool.Window) LimitState {
	s := LimitState{Name: LimitName(w.Name), Group: group, Limit: w.Limit, Used: w.Used, Closed: w.Closed()}
	if s.Closed {
		s.OpensAt = w.Opens()
	}
	return s
}

// closedLimits names the limits that are closed.
func closedLimits(limits []LimitState) string {
	var closed []string
	for _, s := range limits {
		if s.Closed {
			closed = append(closed, strings.TrimSpace(s.Group+" "+string(s.Name)))
		}
	}
	return strings.Join(closed, ", ")
}

// ExplainKeys shows, for each live key of a provider, whether AcquireKey could hand it out now: the reason if not, each
// limit with its counter, when it opens, and which key would be next. Keys are in the order they were added. Expired
// leases do not count. An unknown provider has no keys.
//
// It changes nothing. TTL and Wait are ignored.
//
// It returns [ErrInvalidData] if the input breaks a rule or the model belongs to another provider, and [ErrForeignKey]
// if the model is unknown.
func (r *Registry) ExplainKeys(ctx context.Context, in AcquireInput) ([]KeyVerdict, error) {
	const op = "explain keys"
	in.Wait, in.TTL = false, minTTL
	if err := in.faults(r.inTx).Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	now := r.now()
	pools, err := r.look(ctx, now, in.ProviderID)
	if err != nil {
		return nil, translate(ctx, op, err)
	}
	p := pools[in.ProviderID]
	want, err := r.commits.Wanted(ctx, r.fresh, now, p, in.asking())
	if err != nil {
		return nil, translate(ctx, op, err)
	}
	next := p.Choose(want, now)
	verdicts := make([]KeyVerdict, 0, len(p.Keys))
	for _, k := range p.Keys {
		v := verdictOn(p, k, want, now)
		v.Next = k == next
		verdicts = append(verdicts, v)
	}
	return verdicts, nil
}

// look reads the pools of providers in one state of the database. Read one after the other, a lease that ends meanwhile
// would count neither as open nor as ended.
func (r *Registry) look(
	ctx context.Context, now time.Time, providers ...uuid.UUID,
) (pools map[uuid.UUID]*pool.Pool, err error) {
	err = r.inOneState(ctx, func(client *ent.Client) (err error) {
		pools, err = r.commits.Look(ctx, client, now, providers)
		return err
	})
	return pools, err
}

// explain returns a NoKeyError for GetLeastUsedKey; or a key, if one has become usable meanwhile; or Ent's
// NotFoundError, if that one has become unusable again.
func (r *Registry) explain(ctx context.Context, providerID uuid.UUID, now time.Time) (*ent.APIKey, error) {
	pools, err := r.look(ctx, now, providerID)
	if err != nil {
		return nil, err
	}
	why := &NoKeyError{ProviderID: providerID}
	for _, k := range pools[providerID].Keys {
		v := KeyVerdict{
			ID: k.ID, Prefix: k.Prefix, Label: k.Label, Priority: k.Priority, Weight: k.Weight, InFlight: k.InFlight(),
		}
		switch {
		case k.Disabled:
			v.Reason = KeyDisabled
		case k.Expires != nil && !k.Expires.After(now):
			v.Reason = KeyExpired
		case k.DegradedUntil != nil && k.DegradedUntil.After(now):
			v.Reason, v.Detail, v.Until = KeyDegraded, k.DegradedReason, *k.DegradedUntil
		default:
			return leastUsed(r.fresh, providerID, now).First(ctx)
		}
		why.add(v)
	}
	return nil, why
}
