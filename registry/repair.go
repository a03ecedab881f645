package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
)

// LedgerRepair is what RepairLedger has done.
type LedgerRepair struct {
	Quarters, Days, Totals, Keys int64 // rows that were changed, written or removed: those of all keys and prices are Totals

	Unrepaired []Difference // up to MaxDifferences, by day
	Unlisted   int64        // differences that were left beyond those
}

// RepairLedger mends what VerifyLedger finds, from below: quarters are rebuilt from events, days from quarters,
// totals from the rows of keys and prices, and the counters of keys from days and what IncrementUsage counted. Events are
// never changed: what they amount to is what was recorded, as far back as they are complete. A damaged row without
// anything below it is restored if what the model's total leaves for it has the row's digest.
//
// What cannot be proven is left, and is in the report: an event whose cost is not its tokens at the rates of its
// price, with its quarter of an hour; a damaged row without anything below it; a row that contradicts what is
// below it, although the digests are right, unless there are events for all of it; a row for which there is no
// event at all; the counters of keys of which such a row may be.
//
// It works while others record. Each day is a transaction, which other recorders of the same models wait
// for, and so is each key: after an error, what was mended until then stays, and it can be called again. One entry of the
// audit trail says how many rows were changed, unless none was. It returns [ErrInvalidData] for an actor that
// breaks the rules.
func (r *Registry) RepairLedger(ctx context.Context) (LedgerRepair, error) {
	const op = "repair ledger"
	var f faults
	f.text("actor", r.actor, 0, maxName)
	if err := f.err(); err != nil {
		return LedgerRepair{}, translate(ctx, op, err)
	}
	done := &repair{l: newLedgerReader(r), keys: map[uuid.UUID]bool{}}
	err := done.l.each(ctx, func(d *ledgerDay) error { return done.day(ctx, d) })
	if err == nil {
		err = done.counters(ctx)
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

// mending is what is to be written and what is left of a day.
type mending struct {
	LedgerRepair
	write  map[period]sums
	remove map[*ledgerTable][]uuid.UUID // ids of rows
	models []uuid.UUID
	left   []Difference
}

func mend(d *ledgerDay) mending {
	m := mending{write: map[period]sums{}, remove: map[*ledgerTable][]uuid.UUID{}, left: d.found}
	seen := map[uuid.UUID]bool{}
	d.judge(func(p period, v verdict) {
		mendable, left := d.compare(p, v)
		m.left = append(m.left, left...)
		if len(mendable) == 0 {
			return
		}
		if row := d.rows[p]; row != nil {
			t := ledgerTables[p.table()]
			m.remove[t] = append(m.remove[t], row.id)
		}
		if v.want.requests > 0 {
			m.write[p] = v.want
		}
		switch {
		case p.isTotal():
			m.Totals++
		case p.grain == grainDay:
			m.Days++
		default:
			m.Quarters++
		}
		if !seen[p.model] {
			seen[p.model] = true
			m.models = append(m.models, p.model)
		}
	})
	return m
}

// day mends a day that has been read, and is read again under locks if there is something to mend.
func (done *repair) day(ctx context.Context, d *ledgerDay) error {
	m := mend(d)
	if len(m.models) > 0 {
		err := done.l.r.write(ctx, "day "+d.start.Format(time.DateOnly), func(tx *ent.Client) error {
			locked, err := done.l.lockedDay(ctx, tx, d.start, m.models)
			if err != nil {
				return err
			}
			m = mend(locked)
			return m.apply(ctx, tx)
		})
		if err != nil {
			return err
		}
	}
	done.leave(m.left...)
	done.Quarters += m.Quarters
	done.Days += m.Days
	done.Totals += m.Totals
	return nil
}

// apply removes the rows that are wrong and writes what they must be: the columns that name a row may be wrong too.
func (m mending) apply(ctx context.Context, tx *ent.Client) error {
	for t, ids := range m.remove {
		err := chunks(ids, func(some []uuid.UUID) error {
			list, args := inList(some)
			_, err := tx.ExecContext(ctx, "DELETE FROM "+t.name+" WHERE id IN "+list, args...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return writePeriods(ctx, tx, sortedPeriods(m.write), m.write)
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
	for _, id := range wrong {
		if err == nil {
			err = done.counter(ctx, id)
		}
	}
	return err
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
