package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/store"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

const (
	quarter = 15 * time.Minute
	day     = 24 * time.Hour

	maxLatency = 7 * day   // of one request
	maxAhead   = time.Hour // how far a request's time may lie before the clock, for skewed clocks
)

// UsageInput describes one request to a model.
type UsageInput struct {
	ModelID  uuid.UUID // the model's id, live or deleted
	APIKeyID uuid.UUID // the id of a key of the model's provider, live or deleted

	meter.Tokens // what it used, by disjoint meters

	At          time.Time     // when it happened, from 1970 up to an hour ahead. Defaults to now
	Latency     time.Duration // up to a week, kept in whole milliseconds
	Failed      bool          // it ended with an error
	ServiceTier string        // the tier it was served in, up to 64 characters. Defaults to StandardTier
}

func (in UsageInput) withDefaults(now time.Time) UsageInput {
	if in.At.IsZero() {
		in.At = now
	}
	in.At = store.Time(in.At)
	if in.ServiceTier == "" {
		in.ServiceTier = StandardTier
	}
	return in
}

func (in UsageInput) faults(now time.Time) faults {
	var f faults
	if err := in.Validate(); err != nil {
		f.check(false, "%s", err)
	}
	f.check(!in.At.Before(beginning), "at %s is before 1970", in.At.Format(time.RFC3339))
	f.check(!in.At.After(now.Add(maxAhead)), "at %s is in the future", in.At.Format(time.RFC3339))
	f.check(in.Latency >= 0 && in.Latency <= maxLatency, "latency %s is not within 0 and %s", in.Latency, maxLatency)
	f.text("service_tier", in.ServiceTier, 1, maxTier)
	return f
}

// RecordUsage counts a request: in the quarter of an hour and the UTC day it falls into, and in
// the counters of its key. All of that is one transaction, which requests that are recorded at the same
// time share: it returns nil when that is committed. When the context ends before the transaction has
// begun, the request is not recorded.
//
// Its cost is that of the price in effect at its time: of its service tier, or of the standard
// tier if the model has no price in that; for the largest context that its total input reaches.
// It is exact, rounded once to a nano-dollar. Where a rate is missing, the request is counted
// and its cost stays unknown.
//
// It returns [ErrInvalidData], also for a key of another provider and for a sum that does not
// fit; [ErrForeignKey] for an unknown model or key; or [ErrUncertain] when the context ended while the
// transaction was under way and did not end soon.
func (r *Registry) RecordUsage(ctx context.Context, in UsageInput) error {
	now := r.now()
	in = in.withDefaults(now)
	f := in.faults(now)
	if err := f.err(); err != nil {
		return translate(ctx, "record usage", err)
	}
	rec := record{in, now}
	if r.inTx {
		err := r.write(ctx, "record usage", func(tx *ent.Client) error {
			errs, err := r.recordAll(ctx, tx, []record{rec})
			if err == nil {
				err = errs[0]
			}
			return err
		})
		return err
	}
	return translate(ctx, "record usage", r.records.Do(ctx, rec))
}

// costOf returns the cost at the rates, nil if it is not known.
func costOf(tokens meter.Tokens, rates money.Rates) (*money.USD, error) {
	cost, err := tokens.Cost(rates)
	switch {
	case errors.Is(err, meter.ErrUnpriced):
		return nil, nil //nolint:nilnil // an unknown cost is no error
	case err != nil:
		return nil, fmt.Errorf("%w: cost: %w", ErrInvalidData, err)
	}
	return &cost, nil
}

func count(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
