package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
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
// the counters of its key. All of that is one transaction.
//
// Its cost is that of the price in effect at its time: of its service tier, or of the standard
// tier if the model has no price in that; for the largest context that its total input reaches.
// It is exact, rounded once to a nano-dollar. Where a rate is missing, the request is counted
// and its cost stays unknown.
//
// It returns [ErrInvalidData], also for a key of another provider and for a sum that does not
// fit; or [ErrForeignKey] for an unknown model or key.
func (r *Registry) RecordUsage(ctx context.Context, in UsageInput) error {
	now := r.now()
	in = in.withDefaults(now)
	f := in.faults(now)
	if err := f.err(); err != nil {
		return translate(ctx, "record usage", err)
	}
	return r.write(ctx, "record usage", func(tx *ent.Client) error {
		if err := checkUsed(ctx, tx, in); err != nil {
			return err
		}
		price, err := priceAt(ctx, tx, in.ModelID, in.At, in.ServiceTier, in.TotalInput())
		if errors.Is(err, ErrNotFound) {
			return missing("price of model", in.ModelID)
		}
		if err != nil {
			return err
		}
		cost, err := costOf(in.Tokens, price.Rates)
		if err != nil {
			return err
		}
		if err := addToPeriods(ctx, tx, in, price.ID, cost); err != nil {
			return err
		}
		return countUse(ctx, tx, in.APIKeyID, in.Total(), in.At, now)
	})
}

// checkUsed returns an error unless the model and the key exist and are of one provider.
func checkUsed(ctx context.Context, tx *ent.Client, in UsageInput) error {
	used, err := tx.Model.Query().Where(model.ID(in.ModelID)).Select(model.FieldProviderID).Only(ctx)
	if ent.IsNotFound(err) {
		return missing("model", in.ModelID)
	}
	if err != nil {
		return err
	}
	key, err := tx.APIKey.Query().Where(apikey.ID(in.APIKeyID)).Select(apikey.FieldProviderID).Only(ctx)
	if ent.IsNotFound(err) {
		return missing("API key", in.APIKeyID)
	}
	if err != nil {
		return err
	}
	if key.ProviderID != used.ProviderID {
		return fmt.Errorf("%w: the key belongs to another provider than the model", ErrInvalidData)
	}
	return nil
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

// addToPeriods adds the request to its quarter of an hour and to its day, in this order: on PostgreSQL
// both rows are locked until the commit.
func addToPeriods(ctx context.Context, tx *ent.Client, in UsageInput, priceID uuid.UUID, cost *money.USD) error {
	row := func(grain usage.Grain, length time.Duration) *ent.UsageCreate {
		start := in.At.Truncate(length)
		latency := in.Latency.Milliseconds()
		return tx.Usage.Create().
			SetModelID(in.ModelID).SetAPIKeyID(in.APIKeyID).SetPriceID(priceID).
			SetGrain(grain).SetPeriodStart(start).SetPeriodEnd(start.Add(length)).
			SetRequestCount(1).SetErrorCount(count(in.Failed)).SetUnpricedCount(count(cost == nil)).
			SetInputTokens(in.InputTokens).SetOutputTokens(in.OutputTokens).
			SetCacheReadTokens(in.CacheReadTokens).SetCacheWriteTokens(in.CacheWriteTokens).
			SetReasoningTokens(in.ReasoningTokens).
			SetNillableTotalCost(cost).
			SetLatencyMsSum(latency).SetAverageLatencyMs(float64(latency))
	}
	return tx.Usage.CreateBulk(row(usage.GrainQuarter, quarter), row(usage.GrainDay, day)).
		OnConflict(
			sql.ConflictColumns(usage.FieldModelID, usage.FieldAPIKeyID, usage.FieldPriceID,
				usage.FieldGrain, usage.FieldPeriodStart),
			sql.ResolveWith(addExcluded),
		).Exec(ctx)
}

func count(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

// addExcluded adds the row that was to be inserted to the one that is there.
func addExcluded(u *sql.UpdateSet) {
	table := usage.Table
	for _, column := range []string{
		usage.FieldRequestCount, usage.FieldErrorCount, usage.FieldUnpricedCount,
		usage.FieldInputTokens, usage.FieldOutputTokens, usage.FieldCacheReadTokens,
		usage.FieldCacheWriteTokens, usage.FieldReasoningTokens, usage.FieldLatencyMsSum,
	} {
		u.Set(column, sql.Expr(fmt.Sprintf("%s.%s + excluded.%s", table, column, column)))
	}
	// NULL is a cost that is not known, and adds nothing to one that is.
	u.Set(usage.FieldTotalCost, sql.Expr(fmt.Sprintf(
		"CASE WHEN excluded.%[2]s IS NULL THEN %[1]s.%[2]s ELSE COALESCE(%[1]s.%[2]s, 0) + excluded.%[2]s END",
		table, usage.FieldTotalCost)))
	u.Set(usage.FieldAverageLatencyMs, sql.Expr(fmt.Sprintf(
		"CAST(%[1]s.%[2]s + excluded.%[2]s AS double precision) / (%[1]s.%[3]s + excluded.%[3]s)",
		table, usage.FieldLatencyMsSum, usage.FieldRequestCount)))
}
