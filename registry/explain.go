package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// KeyReason says why a key may not be used.
type KeyReason string

// The reasons. Who waits for a key waits for those that pass.
const (
	KeyDisabled = KeyReason(pool.Disabled)
	KeyExpired  = KeyReason(pool.Expired)  // another key follows it: see RotateAPIKey
	KeyExcluded = KeyReason(pool.Excluded) // by the caller, and for nothing else
	KeyDenied   = KeyReason(pool.Denied)   // it is not for the model
	KeyTooSmall = KeyReason(pool.TooSmall) // one of its limits is below what the request asks for
	KeyDegraded = KeyReason(pool.Degraded) // passes: by a person, or for a failure
	KeyProbed   = KeyReason(pool.Probed)   // passes: it was out, and the request that tries it has not ended
	KeyLimited  = KeyReason(pool.Limited)  // passes: a limit is reached
	KeyBusy     = KeyReason(pool.Busy)     // passes: as many requests as it may have are under way
	KeyCooling  = KeyReason(pool.Cooling)  // passes: the provider has an incident
)

// KeyVerdict says whether a key may be used now, and why not.
type KeyVerdict struct {
	ID     uuid.UUID
	Prefix string
	Label  string
	Reason KeyReason // empty: it may be used
	Detail string    // why it is degraded, or what limits are closed
	Until  time.Time // when it opens; zero: not by itself, or when another request ends

	Priority int
	Weight   int
	InFlight int64        // leases that are open
	Limits   []LimitState // those that there are, of the key and of its group; empty for GetLeastUsedKey, which looks at none
	Excluded bool         // by the caller, whatever else there is
	// Probation tells that the key was out for a reason that time alone does not mend, until one request has succeeded.
	Probation bool
	Next      bool // AcquireKey would hand it out now
}

// NoKeyError is the [ErrNoKeyAvailable] of a provider.
type NoKeyError struct {
	ProviderID uuid.UUID
	Keys       []KeyVerdict // in the order they were added; empty: the provider has no key
	OpensAt    time.Time    // when the first of them opens by itself, those too that the caller excluded; zero: none does
	// Sooner tells that a key may open before, whenever a request ends: it is busy, or tried.
	Sooner bool

	passes     bool      // it is worth waiting
	earliest   time.Time // no key that is worth waiting for opens before
	noProvider bool      // there is none of that id
}

// Error says how many keys there are and when the first one opens.
func (e *NoKeyError) Error() string {
	switch {
	case e.ProviderID == uuid.Nil:
		return fmt.Sprintf("%s: no provider is given: ProviderID is zero", ErrNoKeyAvailable)
	case e.noProvider:
		return fmt.Sprintf("%s: there is no provider %s, or it is deleted", ErrNoKeyAvailable, e.ProviderID)
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

// reasons counts the keys by why they may not be used.
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

// add adds a verdict on a key that may not be used.
func (e *NoKeyError) add(v KeyVerdict) {
	e.Keys = append(e.Keys, v)
	e.passes = e.passes || pool.Reason(v.Reason).Passes() && !v.Excluded
	e.Sooner = e.Sooner || v.Reason == KeyBusy || v.Reason == KeyProbed
	if !v.Until.IsZero() && (e.OpensAt.IsZero() || v.Until.Before(e.OpensAt)) {
		e.OpensAt = v.Until
	}
}

// sayProvider notes in a NoKeyError without keys whether there is such a provider.
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

// noKey says why a pool has no key to hand out.
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

// earliest is when a key that is closed may open at the earliest: the end of a request can give back what closes a
// limit.
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

// verdictOn says whether a key may be used now.
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
	var closed []string
	for i, w := range k.AllWindows(want.Amount, now, nil) {
		s := LimitState{Name: LimitName(w.Name), Limit: w.Limit, Used: w.Used, Closed: w.Closed()}
		if i >= own {
			s.Group = k.Account.Name
		}
		if s.Closed {
			s.OpensAt = w.Opens()
			closed = append(closed, strings.TrimSpace(s.Group+" "+string(s.Name)))
		}
		v.Limits = append(v.Limits, s)
	}
	if v.Detail == "" {
		v.Detail = strings.Join(closed, ", ")
	}
	return v
}

// ExplainKeys says of each live key of a provider, in the order they were added, whether AcquireKey may hand it out
// now, and which it would: each limit with its counter, and when it opens. Leases that have expired count no more. It
// changes nothing; TTL and Wait say nothing here. An unknown provider has no keys.
//
// It returns [ErrInvalidData], or [ErrForeignKey] for an unknown model.
func (r *Registry) ExplainKeys(ctx context.Context, in AcquireInput) ([]KeyVerdict, error) {
	const op = "explain keys"
	in.Wait, in.TTL = false, minTTL
	f := in.faults(r.inTx)
	if err := f.Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	now := r.now()
	s, err := r.look(ctx, now, in.ProviderID)
	if err != nil {
		return nil, translate(ctx, op, err)
	}
	p, want := s.Pools[in.ProviderID], in.wanted()
	if want.Model, err = r.modelName(ctx, in.ModelID, in.ProviderID); err != nil {
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

// modelName returns the provider's name of a model; empty for no model.
func (r *Registry) modelName(ctx context.Context, id, provider uuid.UUID) (string, error) {
	if id == uuid.Nil {
		return "", nil
	}
	m, err := r.fresh.Model.Get(ctx, id)
	switch {
	case ent.IsNotFound(err):
		return "", fault.Missing("model", id)
	case err != nil:
		return "", err
	}
	return m.ModelID, commit.CheckModel(id, provider, m.ProviderID, m.ModelID)
}

// look reads the pools of providers as they are now, in one state: what ends meanwhile would be neither among what has
// ended nor among what is under way.
func (r *Registry) look(ctx context.Context, now time.Time, providers ...uuid.UUID) (s *commit.Snapshot, err error) {
	if r.inTx {
		return r.commits.Look(ctx, r.client, now, nil, providers)
	}
	state, err := r.db.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	return r.commits.Look(ctx, state, now, nil, providers)
}

// explain returns why GetLeastUsedKey has no key; or, if one became usable since we looked, that key.
func (r *Registry) explain(ctx context.Context, providerID uuid.UUID, now time.Time) (*ent.APIKey, error) {
	all, err := r.fresh.APIKey.Query().Where(apikey.ProviderID(providerID), apikey.DeletedAtIsNil()).
		Order(inOrderOfUse()...).WithLeases(func(q *ent.KeyLeaseQuery) { q.Where(keylease.ExpiresAtGT(now)) }).All(ctx)
	if err != nil {
		return nil, err
	}
	why := &NoKeyError{ProviderID: providerID}
	for _, key := range all {
		asOf(key, now)
		v := KeyVerdict{
			ID: key.ID, Prefix: key.KeyPrefix, Label: key.Label, Priority: key.Priority, Weight: key.Weight,
			InFlight: int64(len(key.Edges.Leases)),
		}
		switch {
		case key.Disabled:
			v.Reason = KeyDisabled
		case key.ExpiresAt != nil && !key.ExpiresAt.After(now):
			v.Reason = KeyExpired
		case key.Degraded:
			v.Reason, v.Detail, v.Until = KeyDegraded, key.DegradedReason, *key.DegradedUntil
		default:
			key.Edges = ent.APIKeyEdges{}
			return key, nil
		}
		why.add(v)
	}
	slices.SortFunc(why.Keys, func(a, b KeyVerdict) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return nil, why
}
