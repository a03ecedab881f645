package registry

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/proof"
)

// DifferenceKind says what is wrong at a place in the ledger.
type DifferenceKind string

// The kinds of differences.
const (
	// what is below it amounts to a row that is not there
	DifferenceMissingRow = DifferenceKind(proof.MissingRow)
	DifferenceSurplusRow = DifferenceKind(proof.SurplusRow) // nothing is below it
	// a column is not the sum of what is below it, or does not follow from the others
	DifferenceWrongSum  = DifferenceKind(proof.WrongSum)
	DifferenceWrongCost = DifferenceKind(proof.WrongCost) // it is not the tokens at the rates of the price
	// it is not that of what the row says: one of both was damaged
	DifferenceWrongDigest = DifferenceKind(proof.WrongDigest)
	// it refers to what is not there, or its time is not that of its id
	DifferenceWrongEvent = DifferenceKind(proof.WrongEvent)
	// it is not the key's days and what IncrementUsage counted
	DifferenceWrongKeyCounter = DifferenceKind(proof.WrongKeyCounter)
	DifferenceUnreadableRow   = DifferenceKind(proof.UnreadableRow) // a column holds no value of its type
)

// Difference is where the ledger is not what it must be. What does not apply is zero.
type Difference struct {
	Kind        DifferenceKind
	Table       string    // of periods, usage_quarters or usage_tracking (UTC days), or their totals; else usage_events or api_keys
	EventID     uuid.UUID // of one in usage_events
	ModelID     uuid.UUID
	APIKeyID    uuid.UUID
	PriceID     uuid.UUID
	PeriodStart time.Time
	Field       string // the column; empty: the row
	Want, Have  string // histograms in hex, their first 64 bytes

	Model               string // the provider's name for it, also of a deleted one; empty without ModelID
	KeyLabel, KeyPrefix string // of the key, deleted or not; empty likewise
}

// MaxDifferences is how many differences are listed.
const MaxDifferences = proof.MaxDifferences

// LedgerReport is what VerifyLedger has seen.
type LedgerReport struct {
	Events, Quarters, Days, Keys int64 // that were looked at

	EventsFrom   time.Time // from then on no event is missing; what is before was not looked at
	QuartersFrom time.Time // likewise for the quarters of an hour

	Differences []Difference // up to MaxDifferences, by day
	Unlisted    int64        // differences beyond those
}

// VerifyLedger proves the ledger, as far back as its parts are complete: that each quarter of an hour is the
// sum of its events, each day that of its quarters, and each total of a model that of its keys and prices, in
// every column; that events cost their tokens at the rates of their price to the nano-dollar, and periods
// without events within half a nano-dollar a request; that each row's digest is that of what the row says; and
// that the counters of keys are their days and what IncrementUsage counted. What was recorded before digests and
// histograms were kept has none.
//
// Others may record meanwhile: each UTC day is read in one state, and so are the counters. Within a
// transaction on PostgreSQL, others wait until its end to record for models that seem to have a difference. In memory,
// others wait while a day is read. A million events take some ten seconds.
//
// A difference is no error: it is in the report, whose rows RepairLedger can mend.
func (r *Registry) VerifyLedger(ctx context.Context) (LedgerReport, error) {
	var report LedgerReport
	var found proof.Differences
	err := proof.NewReader(r.db, r.fresh, r.inTx).Each(ctx, func(d *proof.Day) error {
		report.Events += d.NumEvents
		report.Quarters += d.NumQuarters
		report.Days += d.NumDays
		report.EventsFrom, report.QuartersFrom = d.Events, d.Quarters
		d.Differences(&found)
		return nil
	})
	if err == nil {
		err = proof.Counters(ctx, r.fresh, nil, func(c proof.Counter) error {
			report.Keys++
			found.Add(c.Differences()...)
			return nil
		})
	}
	if err == nil && report.EventsFrom.IsZero() { // there was no day
		var h ledger.Horizons
		h, err = ledger.ReadHorizons(ctx, r.fresh)
		report.EventsFrom, report.QuartersFrom = h.Events, h.Quarters
	}
	if err == nil {
		report.Differences, err = r.differencesOf(ctx, found.List)
		report.Unlisted = found.More
	}
	if err != nil {
		return LedgerReport{}, translate(ctx, "verify ledger", err)
	}
	return report, nil
}

// differencesOf shows differences to users, with the names of the models and keys that they are at.
func (r *Registry) differencesOf(ctx context.Context, found []proof.Difference) ([]Difference, error) {
	var all []Difference
	for _, d := range found {
		all = append(all, Difference{
			Kind: DifferenceKind(d.Kind), Table: d.Table, EventID: d.Event, ModelID: d.Model, APIKeyID: d.Key,
			PriceID: d.Price, PeriodStart: d.Start, Field: d.Field, Want: d.Want, Have: d.Have,
		})
	}
	return all, r.nameDifferences(ctx, all)
}
