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
	// DifferenceMissingRow: a row is missing, but there is usage below it.
	DifferenceMissingRow = DifferenceKind(proof.MissingRow)
	// DifferenceSurplusRow: there is a row, but no usage below it.
	DifferenceSurplusRow = DifferenceKind(proof.SurplusRow)
	// DifferenceWrongSum: a column is not the sum of what is below it, or does not follow from other columns.
	DifferenceWrongSum = DifferenceKind(proof.WrongSum)
	// DifferenceWrongCost: the cost is not the tokens at the rates of the price.
	DifferenceWrongCost = DifferenceKind(proof.WrongCost)
	// DifferenceWrongDigest: the digest does not match the row; one of them is damaged.
	DifferenceWrongDigest = DifferenceKind(proof.WrongDigest)
	// DifferenceWrongEvent: an event refers to a missing row, or its time is not the time in its id.
	DifferenceWrongEvent = DifferenceKind(proof.WrongEvent)
	// DifferenceWrongKeyCounter: a key's counter is not the sum of its days and of what IncrementUsage has counted.
	DifferenceWrongKeyCounter = DifferenceKind(proof.WrongKeyCounter)
	// DifferenceWrongValues: the values of a dimension do not add up to what the keys have; or the values of a
	// composite with one value of a part do not add up to what that value has.
	DifferenceWrongValues = DifferenceKind(proof.WrongValues)
	// DifferenceWrongBudgetCounter: a counter of a budget is not what its subject has spent in the window.
	DifferenceWrongBudgetCounter = DifferenceKind(proof.WrongBudgetCounter)
	// DifferenceWrongPath: a consumer's path is not that of its parent with its id.
	DifferenceWrongPath = DifferenceKind(proof.WrongPath)
	// DifferenceUnreadableRow: a column holds a value that is not of its type.
	DifferenceUnreadableRow = DifferenceKind(proof.UnreadableRow)
)

// Difference is a place where the ledger is not what it must be. Fields that do not apply are zero.
type Difference struct {
	Kind DifferenceKind
	// Table is usage_events; a table of periods: usage_quarters, usage_tracking (UTC days), the tables of their totals,
	// or usage_by_value and its quarters; api_keys; budgets, budget_windows, consumers or consumer_days.
	Table       string
	EventID     uuid.UUID // in usage_events
	ModelID     uuid.UUID
	APIKeyID    uuid.UUID
	PriceID     uuid.UUID
	ValueID     uuid.UUID // of a dimension
	BudgetID    uuid.UUID
	SubjectID   uuid.UUID // the consumer that a budget counts, or whose path or day is wrong
	PeriodStart time.Time // or the beginning of a budget's window
	Field       string    // the column; empty: the whole row
	Want, Have  string    // of histograms the first 64 bytes, in hex

	Model               string // the provider's name for the model, live or deleted
	KeyLabel, KeyPrefix string // of the key, live or deleted
}

// MaxDifferences is the most differences that a report lists.
const MaxDifferences = proof.MaxDifferences

// LedgerReport says what VerifyLedger has checked and found.
type LedgerReport struct {
	Events, Quarters, Days, Keys, Budgets int64 // rows that were checked

	EventsFrom   time.Time // no event is missing from then on; earlier ones were not checked
	QuartersFrom time.Time // no quarter of an hour is missing from then on; earlier ones were not checked

	Differences []Difference // up to MaxDifferences, by day
	Unlisted    int64        // further differences
}

// VerifyLedger proves that the ledger adds up, as far back as its parts are complete:
//
//   - Each quarter of an hour is the sum of its events, in every column.
//   - Each day is the sum of its quarters.
//   - Each total of a model is the sum over its keys and prices.
//   - Each quarter of a value of a dimension is the sum of its events, as far as they are folded, and each of its days
//     the sum of its quarters. The values of a dimension have what the keys have.
//   - Each day of a consumer is the sum of its days by model and price.
//   - Each event costs its tokens at the rates of its price, to the nano-dollar. A period without events does so within
//     half a nano-dollar for each request.
//   - Each row's digest matches the row.
//   - The counters of each key are the sums of its days and of what IncrementUsage has counted.
//   - The counters of each budget, in the windows that have not ended, are what its subjects have spent, by the sums by
//     consumer and the requests that are not in them yet. A window that begins within a UTC day whose quarters of an
//     hour were pruned is not checked.
//   - The path of each consumer is that of its parent with its id.
//
// Rows that were recorded before digests and histograms were kept have none.
//
// Others may record meanwhile: each UTC day is read in one state of the database, and so are the counters. Within a
// transaction on PostgreSQL, recording for models that seem to have a difference waits until the transaction ends; if
// there are budgets, so do requests for consumers. In memory, others wait while a day is read. A million events take
// about ten seconds.
//
// A difference is not an error: it is listed in the report, and RepairLedger can mend it.
func (r *Registry) VerifyLedger(ctx context.Context) (LedgerReport, error) {
	var report LedgerReport
	var found proof.Differences
	ofBudgets, err := r.verifyBudgets(ctx)
	if err != nil {
		return LedgerReport{}, translate(ctx, "verify ledger", err)
	}
	report.Budgets = ofBudgets.budgets
	err = proof.NewReader(r.db, r.fresh, r.inTx).Each(ctx, func(d *proof.Day) error {
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
	found.Add(ofBudgets.found...)
	if err == nil && report.EventsFrom.IsZero() { // there was no day
		var h ledger.Horizons
		h, err = ledger.ReadHorizons(ctx, r.fresh)
		report.EventsFrom, report.QuartersFrom = h.Events, h.Quarters
	}
	if err == nil {
		report.Differences, report.Unlisted = differencesOf(found.List), found.More
		err = r.nameDifferences(ctx, report.Differences)
	}
	if err != nil {
		return LedgerReport{}, translate(ctx, "verify ledger", err)
	}
	return report, nil
}

// differencesOf converts differences for users.
func differencesOf(found []proof.Difference) (all []Difference) {
	for _, d := range found {
		all = append(all, Difference{
			Kind: DifferenceKind(d.Kind), Table: d.Table, EventID: d.Event, ModelID: d.Model, APIKeyID: d.Key,
			PriceID: d.Price, ValueID: d.Value, BudgetID: d.Budget, SubjectID: d.Subject, PeriodStart: d.Start,
			Field: d.Field, Want: d.Want, Have: d.Have,
		})
	}
	return all
}
