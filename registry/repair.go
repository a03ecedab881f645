package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
)

// LedgerRepair is what RepairLedger has done.
type LedgerRepair struct {
	Quarters, Days, Totals, Keys int64 // rows that were changed, written or removed: those of all keys and prices are Totals

	Unrepaired []Difference // up to MaxDifferences, by day
	Unlisted   int64        // differences that were left beyond those
}

// RepairLedger mends what VerifyLedger finds, from below: quarters are rebuilt from events, days from quarters, totals
// from the rows of keys and prices, and the counters of keys from days and what IncrementUsage counted. Events are
// never changed: what they amount to is what was recorded, as far back as they are complete. A damaged row without
// anything below it is restored if what the model's total leaves for it has the row's digest.
//
// What cannot be proven is left, and is in the report: an event whose cost is not its tokens at the rates of its
// price, with its quarter of an hour; a damaged row without anything below it; a row that contradicts what is
// below it, although the digests are right, unless there are events for all of it; a row for which there is no
// event at all; the counters of keys of which such a row may be.
//
// It works while others record. A day is read in one state, and its rows are mended in transactions of some thousand
// rows of a model: other recorders of the model wait for those alone, on SQLite all who write. So is each key: after
// an error, what was mended until then stays, and it can be called again. One entry of the audit trail says how many
// rows were changed, unless none was. It returns [ErrInvalidData] for an actor that breaks the rules, and [ErrBusy] if
// others keep changing what is to be mended otherwise than by recording.
func (r *Registry) RepairLedger(ctx context.Context) (LedgerRepair, error) {
	const op = "repair ledger"
	var f fault.List
	f.Text("actor", r.actor, 0, maxName)
	if err := f.Err(); err != nil {
		return LedgerRepair{}, translate(ctx, op, err)
	}
	done := &repair{l: newLedgerReader(r), keys: map[uuid.UUID]bool{}}
	err := done.l.each(ctx, func(d *ledgerDay) error { return done.day(ctx, d) })
	if err == nil {
		err = done.counters(ctx)
	}
	if err == nil {
		err = r.nameDifferences(ctx, done.left.list)
	}
	report := done.LedgerRepair
	report.Unrepaired, report.Unlisted = done.left.list, done.left.more
	if changed := done.LedgerRepair; changed.Quarters+changed.Days+changed.Totals+changed.Keys > 0 {
		lingering, cancel := r.db.Linger(ctx) // what was changed is told even when the context has ended
		defer cancel()
		err = errors.Join(err, r.write(lingering, "audit", func(tx *ent.Client) error {
			return r.audit(lingering, tx, r.now(), auditEntry{action: ActionRepair, entity: EntityLedger, after: map[string]int64{
				"quarters": changed.Quarters, "days": changed.Days, "totals": changed.Totals, "keys": changed.Keys,
			}})
		}))
	}
	return report, translate(ctx, op, err)
}

// repair is a repair that is under way.
type repair struct {
	LedgerRepair
	l    *ledgerReader
	left differences
	keys map[uuid.UUID]bool // keys whose days are not all known
	all  bool               // it is not known of which keys days are not known
}

// leave notes differences that are left, and the keys whose counters they make doubtful.
func (done *repair) leave(left ...Difference) {
	done.left.add(left...)
	for _, x := range left {
		switch {
		case x.Table != usage.Table && x.Table != usagetotal.Table || x.Kind == WrongCost: // not of a day
		case x.APIKeyID == uuid.Nil:
			done.all = true
		default:
			done.keys[x.APIKeyID] = true
		}
	}
}

// mend is a row that is not what it must be.
type mend struct {
	ledger.Period
	was  *ledgerRow  // in its place; nil: it is missing
	want ledger.Sums // without requests: there must be no row
}

// mending is what is to be mended, in pieces, and what is left of a day.
type mending struct {
	pieces []mendingPiece
	left   []Difference
}

// mendingPiece is a part of what is to be mended: each row can be mended alone.
type mendingPiece struct {
	model uuid.UUID // whose lock its rows need
	mends []mend
}

// newMending returns what is to be done about a day, in pieces of up to some rows.
func newMending(d *ledgerDay, most int) mending {
	m := mending{left: d.found}
	there := make(map[ledger.Period]*ledgerRow, len(d.rows))
	for p, row := range d.rows {
		there[p.Place()] = row
	}
	mends := map[ledger.Period]mend{}
	d.judge(func(p ledger.Period, v verdict) {
		mendable, left := d.compare(p, v)
		m.left = append(m.left, left...)
		// In one place a row can be missing, and another one be that names another model.
		if at := p.Place(); len(mendable) > 0 && v.want.Requests >= mends[at].want.Requests {
			mends[at] = mend{p, there[at], v.want}
		}
	})
	byModel := map[uuid.UUID][]mend{}
	for _, x := range mends {
		of := x.Model
		if price := d.prices[x.Price]; price != nil {
			of = price.ModelID
		}
		byModel[of] = append(byModel[of], x)
	}
	for of, mends := range byModel {
		for some := range slices.Chunk(mends, most) {
			m.pieces = append(m.pieces, mendingPiece{of, some})
		}
	}
	return m
}

// repairAttempts is how often a day is read in which others change rows otherwise than by recording.
const repairAttempts = 10

// day mends a day that has been read. It is read again if others have changed what is to be mended.
func (done *repair) day(ctx context.Context, d *ledgerDay) error {
	for attempt := 1; ; attempt++ {
		m := newMending(d, done.l.r.pieceRows)
		changed, err := done.mend(ctx, d, m.pieces)
		switch {
		case err != nil:
			return err
		case !changed:
			done.leave(m.left...)
			return nil
		case attempt == repairAttempts:
			return fmt.Errorf("%w: others keep changing the ledger of %s", ErrBusy, d.start.Format(time.DateOnly))
		}
		if d, err = done.l.day(ctx, d.start); err != nil {
			return err
		}
	}
}

// mend mends a day, each piece in a transaction: others wait for that, but not for the day to be read. Changed says
// that others had changed some.
func (done *repair) mend(ctx context.Context, d *ledgerDay, pieces []mendingPiece) (changed bool, err error) {
	if len(pieces) == 0 {
		return false, nil
	}
	op := "day " + d.start.Format(time.DateOnly)
	err = done.l.r.pieces(ctx, op, func() (more bool, err error) {
		piece := pieces[0]
		pieces = pieces[1:]
		err = done.l.r.write(ctx, op, func(tx *ent.Client) error { return done.piece(ctx, tx, d, piece) })
		switch {
		case err == nil:
			done.count(piece.mends)
		case errors.Is(err, bulk.ErrStale):
			changed, err = true, nil
		}
		return len(pieces) > 0, err
	})
	return changed, err
}

// piece mends rows of a model and a day, or returns bulk.ErrStale.
func (done *repair) piece(ctx context.Context, tx *ent.Client, d *ledgerDay, piece mendingPiece) error {
	if done.l.r.db.Dialect() == dialect.Postgres {
		if err := ledger.LockModels(ctx, tx, []uuid.UUID{piece.model}); err != nil {
			return err
		}
	}
	h, err := ledger.ReadHorizons(ctx, tx) // from now on they are not moved
	if err != nil {
		return err
	}
	if !h.Events.Equal(d.Events) || !h.Quarters.Equal(d.Quarters) {
		return bulk.ErrStale
	}
	now, err := done.now(ctx, tx, piece.mends)
	if err != nil {
		return err
	}
	write := map[ledger.Period]ledger.Sums{}
	for _, x := range piece.mends {
		s, there := now[x.Period]
		if s, ok := x.onto(s, there); !ok {
			return bulk.ErrStale
		} else if s.Requests > 0 {
			write[x.Period] = s
		}
	}
	// The columns that name a row may be wrong too: it is removed, and written anew. So another repair sees that it was.
	if err := removeRows(ctx, tx, piece.mends); err != nil {
		return err
	}
	return ledger.Write(ctx, tx, ledger.Sorted(write), write)
}

// now reads what is in the places of rows, as far as it can be read: as those do who record.
func (done *repair) now(ctx context.Context, tx *ent.Client, mends []mend) (map[ledger.Period]ledger.Sums, error) {
	engine, found, periods := done.l.r.db.Dialect(), map[ledger.Period]ledger.Sums{}, make([]ledger.Period, 0, len(mends))
	for _, x := range mends {
		if x.was == nil || !x.was.lost {
			periods = append(periods, x.Period)
			continue
		}
		// What fails otherwise than by what is in the row fails again.
		one := map[ledger.Period]ledger.Sums{}
		if ledger.Read(ctx, tx, engine, []ledger.Period{x.Period}, one) == nil {
			maps.Copy(found, one)
		}
	}
	return found, ledger.Read(ctx, tx, engine, periods, found)
}

// onto returns what a row must be, given what it is now: what was recorded since it was read is added. It is not ok if
// the row was changed in another way.
func (x mend) onto(now ledger.Sums, there bool) (s ledger.Sums, ok bool) {
	if x.was == nil || x.was.lost { // nobody can have added to it
		return x.want, !there
	}
	return now, there && now.Subtract(x.was.Sums) && now.Merge(x.want) == nil
}

// removeRows removes rows that were read, or returns bulk.ErrStale if one is gone.
func removeRows(ctx context.Context, tx *ent.Client, mends []mend) error {
	for i, t := range ledger.Tables {
		var ids []uuid.UUID
		for _, x := range mends {
			if x.was != nil && x.Table() == i {
				ids = append(ids, x.was.id)
			}
		}
		err := bulk.Chunks(ids, func(some []uuid.UUID) error {
			list, args := bulk.In(some)
			result, err := tx.ExecContext(ctx, "DELETE FROM "+t.Name+" WHERE id IN "+list, args...)
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil || n == int64(len(some)) {
				return err
			}
			return bulk.ErrStale
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// count counts rows that were mended.
func (done *repair) count(mends []mend) {
	for _, x := range mends {
		switch {
		case x.IsTotal():
			done.Totals++
		case x.Grain == ledger.DayGrain:
			done.Days++
		default:
			done.Quarters++
		}
	}
}

// counters mends the counters of keys whose days are known.
func (done *repair) counters(ctx context.Context) error {
	r := done.l.r
	var wrong []uuid.UUID
	err := keyCounters(ctx, r.fresh, nil, func(c keyCounter) error {
		switch differences := c.differences(); {
		case len(differences) == 0:
		case done.all || done.keys[c.id] || !c.fits:
			done.left.add(differences...)
		default:
			wrong = append(wrong, c.id)
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

// counter mends the counters of a key, which are read again under its lock.
func (done *repair) counter(ctx context.Context, id uuid.UUID) error {
	r, key := done.l.r, []uuid.UUID{id}
	var wrong []Difference
	var fits bool
	err := r.write(ctx, fmt.Sprintf("key %s", id), func(tx *ent.Client) error {
		if err := r.holdPools(ctx, tx, poolOfKey, id); err != nil {
			return err
		}
		wrong, fits = nil, false
		var want [2]int64
		err := keyCounters(ctx, tx, key, func(c keyCounter) error {
			wrong, fits, want = c.differences(), c.fits, c.want
			return nil
		})
		if err != nil || len(wrong) == 0 || !fits {
			return err
		}
		return tx.APIKey.Update().Where(apikey.ID(id)).SetUpdatedAt(r.now()).
			SetUsageCount(want[0]).SetTokenCount(want[1]).Exec(ctx)
	})
	switch {
	case err != nil || len(wrong) == 0:
	case fits:
		done.Keys++
	default:
		done.left.add(wrong...)
	}
	return err
}
