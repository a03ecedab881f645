package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/consumerday"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvalue"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvaluequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/proof"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// RepairResult says what RepairLedger has done.
type RepairResult struct {
	// Quarters, Days, Totals, Values and Keys count the rows that were changed, written or removed. Totals are the
	// periods of a model over all keys and prices, Values count rows of usage_by_value, of its quarters, and
	// of consumer_days.
	Quarters, Days, Totals, Values, Keys int64
	// Counters and Paths count the counters of budgets and the paths of consumers that were set.
	Counters, Paths int64

	Unrepaired []Difference // differences that were left, up to MaxDifferences, by day
	Unlisted   int64        // further differences that were left
}

// RepairLedger mends what VerifyLedger finds, from below:
//
//   - quarters of an hour from events
//   - days from quarters
//   - totals from the periods of keys and prices
//   - quarters of an hour of values from events, and their days from them
//   - the days of consumers from those of values
//   - the counters of keys from days and from what IncrementUsage has counted
//   - the paths of consumers from their parents
//   - the counters of budgets, in windows that have not ended, from the sums by consumer and the requests that are not
//     in them yet
//
// Events are never changed: they are what was recorded, as far back as they are complete.
//
// What cannot be proven is left, and listed in the result:
//
//   - an event whose cost is not its tokens at the rates of its price, with its quarter
//   - a damaged row with nothing below it
//   - a row that contradicts what is below it although the digests are right, unless there are events for all of it
//   - a row without any event
//   - the days of consumers, where the rows by consumer do not add up to what the keys have
//   - the counters of keys that may be affected by such a row
//   - the counters of budgets, as long as such a row is an event or a sum by value
//   - a consumer that is below itself
//
// Others may record meanwhile. Each day is read in one state of the database, and mended in transactions of some
// thousand rows of a model, or days of consumers; other writers wait for those transactions alone: on PostgreSQL
// recorders of that model, or folds of requests for those consumers, on SQLite everybody. Each key is mended in a
// transaction, too, and so is each budget: requests for consumers wait for that. After an error, what was mended stays,
// and RepairLedger can be called again. One audit entry says how many rows were changed; if none was, there is no
// entry.
//
// It returns [ErrInvalidData] if the actor breaks a rule, and [ErrBusy] if others keep changing what is to be mended
// other than by recording.
func (r *Registry) RepairLedger(ctx context.Context) (RepairResult, error) {
	const op = "repair ledger"
	var f fault.List
	f.Text("actor", r.actor, 0, rule.MaxName)
	if err := f.Err(); err != nil {
		return RepairResult{}, translate(ctx, op, err)
	}
	done := &repair{r: r, reader: proof.NewReader(r.db, r.fresh, r.inTx), keys: map[uuid.UUID]bool{}}
	err := r.lockBudgets(ctx, r.client)
	if err == nil {
		err = done.reader.Each(ctx, func(d *proof.Day) error { return done.day(ctx, d) })
	}
	if err == nil {
		err = done.counters(ctx)
	}
	if err == nil {
		err = done.budgets(ctx)
	}
	report := done.RepairResult
	report.Unrepaired, report.Unlisted = differencesOf(done.left.List), done.left.More
	if err == nil {
		err = r.nameDifferences(ctx, report.Unrepaired)
	}
	if changed := done.changed(); changed != nil {
		lingering, cancel := r.db.Linger(ctx) // audit what was changed even if the context has ended
		defer cancel()
		err = errors.Join(err, r.write(lingering, "audit", nil, func(tx *ent.Client) error {
			note(tx, auditEntry{action: ActionRepair, entity: EntityLedger, after: changed})
			return nil
		}))
	}
	return report, translate(ctx, op, err)
}

// repair is the state of a repair.
type repair struct {
	RepairResult
	r      *Registry
	reader *proof.Reader
	left   proof.Differences
	keys   map[uuid.UUID]bool // keys with days that are in doubt
	all    bool               // the days of any key may be in doubt
	// doubtful: what consumers have spent may be in doubt.
	doubtful bool
}

// changed returns the numbers of rows that were changed; nil: none was.
func (done *repair) changed() map[string]int64 {
	all, sum := map[string]int64{
		"quarters": done.Quarters, "days": done.Days, "totals": done.Totals, "values": done.Values, "keys": done.Keys,
		"counters": done.Counters, "paths": done.Paths,
	}, int64(0)
	for _, n := range all {
		sum += n
	}
	if sum == 0 {
		return nil
	}
	return all
}

// leave records differences that are left, and the keys whose counters are in doubt for that reason.
func (done *repair) leave(left ...proof.Difference) {
	done.left.Add(left...)
	for _, x := range left {
		switch x.Table {
		case usagebyvalue.Table, usagebyvaluequarter.Table, consumerday.Table, usageevent.Table:
			done.doubtful = done.doubtful || x.Kind != proof.WrongCost
		}
		switch {
		case x.Table != usage.Table && x.Table != usagetotal.Table || x.Kind == proof.WrongCost: // no day is in doubt
		case x.Key == uuid.Nil:
			done.all = true
		default:
			done.keys[x.Key] = true
		}
	}
}

// repairAttempts is how often a day is read while others change its rows other than by recording.
const repairAttempts = 10

// day mends a day that has been read. It reads the day again if others have changed what is to be mended.
func (done *repair) day(ctx context.Context, d *proof.Day) error {
	for attempt := 1; ; attempt++ {
		pieces, left := d.Mend(done.r.pieceRows)
		changed, err := done.mend(ctx, d, pieces)
		switch {
		case err != nil:
			return err
		case !changed:
			done.leave(left...)
			return nil
		case attempt == repairAttempts:
			return fmt.Errorf("%w: others keep changing the ledger of %s", ErrBusy, d.Start.Format(time.DateOnly))
		}
		if d, err = done.reader.Day(ctx, d.Start); err != nil {
			return err
		}
	}
}

// mend mends a day, each piece in a transaction of its own; others wait for a piece, not for the day to be read.
// Changed reports whether others had changed some rows.
func (done *repair) mend(ctx context.Context, d *proof.Day, pieces []proof.Piece) (changed bool, err error) {
	if len(pieces) == 0 {
		return false, nil
	}
	op := "day " + d.Start.Format(time.DateOnly)
	err = done.r.pieces(ctx, op, func() (more bool, err error) {
		piece := pieces[0]
		pieces = pieces[1:]
		err = done.r.write(ctx, op, nil, func(tx *ent.Client) error {
			return piece.Write(ctx, tx, done.r.db.Dialect())
		})
		switch {
		case err == nil:
			done.Quarters += piece.Quarters
			done.Days += piece.Days
			done.Totals += piece.Totals
			done.Values += piece.Values
		case errors.Is(err, bulk.ErrStale):
			changed, err = true, nil
		}
		return len(pieces) > 0, err
	})
	return changed, err
}

// counters mends the counters of keys whose days are not in doubt.
func (done *repair) counters(ctx context.Context) error {
	r := done.r
	var wrong []uuid.UUID
	err := proof.Counters(ctx, r.fresh, nil, func(c proof.Counter) error {
		switch differences := c.Differences(); {
		case len(differences) == 0:
		case done.all || done.keys[c.Key] || !c.Fits:
			done.left.Add(differences...)
		default:
			wrong = append(wrong, c.Key)
		}
		return nil
	})
	if err != nil || len(wrong) == 0 {
		return err
	}
	return r.pieces(ctx, "counters", func() (more bool, err error) {
		id := wrong[0]
		wrong = wrong[1:]
		return len(wrong) > 0, done.counter(ctx, id)
	})
}

// counter mends the counters of one key. It reads them again under the key's lock.
func (done *repair) counter(ctx context.Context, id uuid.UUID) error {
	r, key := done.r, []uuid.UUID{id}
	var wrong []proof.Difference
	var fits bool
	err := r.write(ctx, fmt.Sprintf("key %s", id), nil, func(tx *ent.Client) error {
		if err := r.holdPools(ctx, tx, commit.PoolOfKey, id); err != nil {
			return err
		}
		wrong, fits = nil, false
		var want [2]int64
		err := proof.Counters(ctx, tx, key, func(c proof.Counter) error {
			wrong, fits, want = c.Differences(), c.Fits, c.Want
			return nil
		})
		if err != nil || len(wrong) == 0 || !fits {
			return err
		}
		return tx.APIKey.Update().Where(apikey.ID(id)).SetUsageCount(want[0]).SetTokenCount(want[1]).Exec(ctx)
	})
	switch {
	case err != nil || len(wrong) == 0:
	case fits:
		done.Keys++
	default:
		done.left.Add(wrong...)
	}
	return err
}
