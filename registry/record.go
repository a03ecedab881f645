package registry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/internal/batch"
	"github.com/jeffersonwarrior/modelscan/money"
)

const (
	maxBatch = 256  // records that are committed together
	maxQueue = 4096 // records that wait; callers beyond them wait before their record does

	// batchPatience is how long a batch may take, for callers without a deadline. It is for servers that
	// do not answer: what waits for locks, or is repeated, is given up before.
	batchPatience = 40 * time.Second
)

// record is a request that is to be recorded. Its defaults are filled in, and it is free of faults that
// can be seen without the database.
type record struct {
	UsageInput
	now time.Time // of the call
}

func newRecorder(r *Registry) *batch.Queue[record] {
	return batch.New(maxBatch, maxQueue, r.commitRecords)
}

// commitRecords records a batch in one transaction and returns an error, or nil, for each record.
func (r *Registry) commitRecords(ctx context.Context, records []record) []error {
	ctx, cancel := context.WithTimeout(ctx, batchPatience)
	defer cancel()
	var errs []error
	err := r.write(ctx, "record usage", func(tx *ent.Client) (err error) {
		errs, err = r.recordAll(ctx, tx, records)
		return err
	})
	if err == nil {
		return errs
	}
	errs = make([]error, len(records))
	for i := range records {
		errs[i] = err
		if len(records) > 1 && isFault(err) {
			errs[i] = r.commitRecords(ctx, records[i:i+1])[0]
		}
	}
	return errs
}

// isFault tells whether an error can be the fault of one record of a batch, such as a sum that does
// not fit, so that the others are better off without it.
func isFault(err error) bool {
	return errors.Is(err, ErrInvalidData) || errors.Is(err, ErrForeignKey) || errors.Is(err, ErrConflict)
}

// recordAll records those of the records that may be, and says of the others why not.
func (r *Registry) recordAll(ctx context.Context, tx *ent.Client, records []record) ([]error, error) {
	b, err := readBasis(ctx, tx, records)
	if err != nil {
		return nil, err
	}
	var (
		errs    = make([]error, len(records))
		periods = map[period]periodSum{}
		uses    = map[use]useSum{}
	)
	for i, rec := range records {
		errs[i] = b.add(rec, periods, uses)
		if errors.Is(errs[i], errOverflow) && len(records) > 1 {
			return nil, errs[i] // of sums, which each record alone does not have
		}
	}
	if err := upsertPeriods(ctx, tx, periods); err != nil {
		return nil, err
	}
	return errs, r.countUses(ctx, tx, uses)
}

var errOverflow = fmt.Errorf("%w: a sum of usage does not fit", ErrInvalidData)

// basis is what the records of a batch refer to.
type basis struct {
	models map[uuid.UUID]uuid.UUID // providers by model
	keys   map[uuid.UUID]uuid.UUID // providers by key
	prices map[uuid.UUID][]*ent.Price
}

// readBasis reads it, and on PostgreSQL locks the keys in the order of their ids: whoever records for
// one of them waits, and nobody waits for somebody who waits for him.
func readBasis(ctx context.Context, tx *ent.Client, records []record) (b basis, err error) {
	models, keys, tiers := map[uuid.UUID]bool{}, map[uuid.UUID]bool{}, map[string]bool{StandardTier: true}
	from, until := records[0].At, records[0].At
	for _, rec := range records {
		models[rec.ModelID], keys[rec.APIKeyID], tiers[rec.ServiceTier] = true, true, true
		if rec.At.Before(from) {
			from = rec.At
		}
		if rec.At.After(until) {
			until = rec.At
		}
	}
	b = basis{map[uuid.UUID]uuid.UUID{}, map[uuid.UUID]uuid.UUID{}, map[uuid.UUID][]*ent.Price{}}
	used, err := tx.Model.Query().Where(model.IDIn(slices.Collect(maps.Keys(models))...)).
		Select(model.FieldID, model.FieldProviderID).All(ctx)
	if err != nil {
		return b, err
	}
	for _, m := range used {
		b.models[m.ID] = m.ProviderID
	}
	query := tx.APIKey.Query().Where(apikey.IDIn(slices.Collect(maps.Keys(keys))...)).Order(apikey.ByID())
	query.Modify(forUpdate)
	with, err := query.Select(apikey.FieldID, apikey.FieldProviderID).All(ctx)
	if err != nil {
		return b, err
	}
	for _, k := range with {
		b.keys[k.ID] = k.ProviderID
	}
	prices, err := tx.Price.Query().Where(
		price.ModelIDIn(slices.Collect(maps.Keys(b.models))...), price.ServiceTierIn(slices.Collect(maps.Keys(tiers))...),
		price.EffectiveFromLTE(until), price.Or(price.EffectiveToIsNil(), price.EffectiveToGT(from)),
	).All(ctx)
	for _, p := range prices {
		b.prices[p.ModelID] = append(b.prices[p.ModelID], p)
	}
	return b, err
}

// add adds a record to the sums, or returns why it cannot be recorded.
func (b basis) add(rec record, periods map[period]periodSum, uses map[use]useSum) error {
	of, ok := b.models[rec.ModelID]
	if !ok {
		return missing("model", rec.ModelID)
	}
	owner, ok := b.keys[rec.APIKeyID]
	if !ok {
		return missing("API key", rec.APIKeyID)
	}
	if of != owner {
		return fmt.Errorf("%w: the key belongs to another provider than the model", ErrInvalidData)
	}
	p := bestPrice(b.prices[rec.ModelID], rec.At, rec.ServiceTier, rec.TotalInput())
	if p == nil {
		return missing("price of model", rec.ModelID)
	}
	cost, err := costOf(rec.Tokens, p.Rates)
	if err != nil {
		return err
	}
	at := rec.At
	if at.After(rec.now) { // a clock that is ahead must not begin the key's next day too early
		at = rec.now
	}
	quarterly := period{rec.ModelID, rec.APIKeyID, p.ID, usage.GrainQuarter, rec.At.Truncate(quarter)}
	daily := period{rec.ModelID, rec.APIKeyID, p.ID, usage.GrainDay, rec.At.Truncate(day)}
	counted := use{rec.APIKeyID, startOfDay(at)}
	q, d, c := periods[quarterly], periods[daily], uses[counted]
	if !q.add(rec, cost) || !d.add(rec, cost) {
		return errOverflow
	}
	c.add(rec.Total(), at, rec.now)
	periods[quarterly], periods[daily], uses[counted] = q, d, c
	return nil
}

// period is a row of usage_tracking.
type period struct {
	model, key, price uuid.UUID
	grain             usage.Grain
	start             time.Time
}

func (p period) end() time.Time {
	if p.grain == usage.GrainDay {
		return p.start.Add(day)
	}
	return p.start.Add(quarter)
}

// comparePeriods is the order in which rows are locked: a quarter before its day.
func comparePeriods(a, b period) int {
	return cmp.Or(bytes.Compare(a.key[:], b.key[:]), bytes.Compare(a.model[:], b.model[:]),
		bytes.Compare(a.price[:], b.price[:]), cmp.Compare(b.grain, a.grain), a.start.Compare(b.start))
}

// periodSum is what is added to a period.
type periodSum struct {
	requests, errors, unpriced int64
	tokens                     [5]int64 // in the order of the columns
	cost                       *money.USD
	latency                    int64 // milliseconds
}

func (s *periodSum) add(rec record, cost *money.USD) (ok bool) {
	s.requests++
	s.errors += count(rec.Failed)
	s.unpriced += count(cost == nil)
	s.latency += rec.Latency.Milliseconds()
	for i, n := range [5]int64{rec.InputTokens, rec.OutputTokens, rec.CacheReadTokens, rec.CacheWriteTokens, rec.ReasoningTokens} {
		s.tokens[i] += n // 256 of MaxTokens at the most
	}
	if cost == nil {
		return true
	}
	sum, err := money.Sum(value(s.cost), *cost)
	s.cost = &sum
	return err == nil
}

// use is a UTC day in which a key was used.
type use struct {
	key uuid.UUID
	day time.Time
}

type useSum struct {
	requests, tokens int64
	last, now        time.Time
}

func (s *useSum) add(tokens int64, at, now time.Time) {
	s.requests++
	s.tokens += tokens
	if at.After(s.last) {
		s.last = at
	}
	if now.After(s.now) {
		s.now = now
	}
}

// bestPrice returns the price that applies to a request: of its service tier, or of the standard tier
// if that has none; and in there the one for the largest context that the request reaches.
func bestPrice(prices []*ent.Price, at time.Time, tier string, totalInput int64) (best *ent.Price) {
	for _, p := range prices {
		switch {
		case p.MinContextTokens > totalInput, p.EffectiveFrom.After(at),
			p.EffectiveTo != nil && !p.EffectiveTo.After(at), p.ServiceTier != tier && p.ServiceTier != StandardTier:
		case best == nil,
			p.ServiceTier == best.ServiceTier && p.MinContextTokens > best.MinContextTokens,
			p.ServiceTier == tier && best.ServiceTier != tier:
			best = p
		}
	}
	return best
}
