package proof

import (
	"context"
	"maps"
	"slices"

	"entgo.io/ent/dialect"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
)

// mend is a row that is not what it must be.
type mend struct {
	ledger.Period
	was  *row        // in its place; nil: it is missing
	want ledger.Sums // without requests: there must be no row
}

// Piece is a part of what is to be mended of a day, of one model. Each of its rows can be mended alone.
type Piece struct {
	Quarters, Days, Totals int64 // how many rows: those of all keys and prices are Totals

	Model uuid.UUID // whose lock the rows need
	of    ledger.Horizons
	mends []mend
}

// Mend returns what is to be done about a day, in pieces of up to some rows, and the differences that are left.
func (d *Day) Mend(most int) (pieces []Piece, left []Difference) {
	left = d.Found
	there := make(map[ledger.Period]*row, len(d.rows))
	for p, row := range d.rows {
		there[p.Place()] = row
	}
	mends := map[ledger.Period]mend{}
	d.judge(func(p ledger.Period, v verdict) {
		mendable, rest := d.compare(p, v)
		left = append(left, rest...)
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
			pieces = append(pieces, newPiece(d.Horizons, of, some))
		}
	}
	return pieces, left
}

func newPiece(of ledger.Horizons, model uuid.UUID, mends []mend) Piece {
	p := Piece{of: of, Model: model, mends: mends}
	for _, x := range mends {
		switch {
		case x.IsTotal():
			p.Totals++
		case x.Grain == ledger.DayGrain:
			p.Days++
		default:
			p.Quarters++
		}
	}
	return p
}

// Write mends the rows in a transaction, or returns bulk.ErrStale if they were changed otherwise than by recording.
func (p *Piece) Write(ctx context.Context, tx *ent.Client, engine string) error {
	if engine == dialect.Postgres {
		if err := ledger.LockModels(ctx, tx, []uuid.UUID{p.Model}); err != nil {
			return err
		}
	}
	h, err := ledger.ReadHorizons(ctx, tx) // from now on they are not moved
	if err != nil {
		return err
	}
	if !h.Events.Equal(p.of.Events) || !h.Quarters.Equal(p.of.Quarters) {
		return bulk.ErrStale
	}
	now, err := p.now(ctx, tx, engine)
	if err != nil {
		return err
	}
	write := map[ledger.Period]ledger.Sums{}
	for _, x := range p.mends {
		s, there := now[x.Period]
		if s, ok := x.onto(s, there); !ok {
			return bulk.ErrStale
		} else if s.Requests > 0 {
			write[x.Period] = s
		}
	}
	// The columns that name a row may be wrong too: it is removed, and written anew. So another repair sees that it
	// was.
	if err := removeRows(ctx, tx, p.mends); err != nil {
		return err
	}
	return ledger.Write(ctx, tx, ledger.Sorted(write), write)
}

// now reads what is in the places of the rows, as far as it can be read: as those do who record.
func (p *Piece) now(ctx context.Context, tx *ent.Client, engine string) (map[ledger.Period]ledger.Sums, error) {
	found, periods := map[ledger.Period]ledger.Sums{}, make([]ledger.Period, 0, len(p.mends))
	for _, x := range p.mends {
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
