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

// mend is a row to be corrected.
type mend struct {
	ledger.Period
	was  *row        // in its place; nil: it is missing
	want ledger.Sums // without requests: there must be no row
}

// Piece is a part of the rows of a day to be mended, all of one model, or all of them days of consumers. Each of its
// rows can be mended alone.
type Piece struct {
	// Numbers of rows. Totals are over all keys and prices, Values by value of a dimension.
	Quarters, Days, Totals, Values int64

	Model uuid.UUID // whose lock the rows need, unless they are days of consumers
	of    ledger.Horizons
	mends []mend
	days  map[ledger.Period]bool // of consumers; they are summed up when the rows by model are mended
}

// Mend returns what is to be mended in a day, in pieces of at most so many rows, and the differences that are left.
func (d *Day) Mend(most int) (pieces []Piece, left []Difference) {
	left = d.Found
	there := make(map[ledger.Period]*row, len(d.rows))
	for p, row := range d.rows {
		there[p.Place()] = row
	}
	mends := map[ledger.Period]mend{}
	verdicts := d.judge(func(p ledger.Period, v verdict) {
		mendable, rest := d.compare(p, v)
		left = append(left, rest...)
		// One place can lack a row and have another row that names another model.
		if at := p.Place(); len(mendable) > 0 && v.want.Requests >= mends[at].want.Requests {
			mends[at] = mend{p, there[at], v.want}
		}
	})
	unbalanced, consumers := d.unbalanced(verdicts)
	if len(mends) == 0 { // else they are looked at when these are mended
		left = append(append(left, unbalanced...), d.uncombined(verdicts)...)
	}
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
	days, wrong := d.wrongDays(verdicts)
	if consumers { // the days may be right, and the rows by model not
		return pieces, append(left, wrong...)
	}
	for some := range slices.Chunk(slices.SortedFunc(maps.Keys(days), ledger.ComparePeriods), most) {
		piece := Piece{Values: int64(len(some)), of: d.Horizons, days: map[ledger.Period]bool{}}
		for _, p := range some {
			piece.days[p] = true
		}
		pieces = append(pieces, piece)
	}
	return pieces, left
}

func newPiece(of ledger.Horizons, model uuid.UUID, mends []mend) Piece {
	var n [len(ledger.Tables)]int64
	for _, x := range mends {
		n[x.Table()]++
	}
	return Piece{of: of, Model: model, mends: mends, Quarters: n[0], Days: n[1], Totals: n[2] + n[3],
		Values: n[4] + n[5]}
}

// Write mends the rows in a transaction. It returns bulk.ErrStale if anything but recording has changed them.
func (p *Piece) Write(ctx context.Context, tx *ent.Client, engine string) error {
	if p.days != nil {
		return ledger.RecountDays(ctx, tx, engine, p.days)
	}
	if engine == dialect.Postgres {
		if err := ledger.LockModels(ctx, tx, []uuid.UUID{p.Model}); err != nil {
			return err
		}
	}
	h, err := ledger.ReadHorizons(ctx, tx) // from now on they are not moved
	if err != nil {
		return err
	}
	if !h.Equal(p.of) {
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
	// The row is removed and written anew, because the columns that name it may be wrong too. So another repair
	// notices.
	if err := removeRows(ctx, tx, p.mends); err != nil {
		return err
	}
	return ledger.Write(ctx, tx, engine, ledger.Sorted(write), write)
}

// now reads the places of the rows as recording does, as far as they can be read.
func (p *Piece) now(ctx context.Context, tx *ent.Client, engine string) (map[ledger.Period]ledger.Sums, error) {
	found, periods := map[ledger.Period]ledger.Sums{}, make([]ledger.Period, 0, len(p.mends))
	for _, x := range p.mends {
		if x.was == nil || !x.was.lost {
			periods = append(periods, x.Period)
			continue
		}
		// If the row's content is not the reason of a failure, the next statement fails too.
		one := map[ledger.Period]ledger.Sums{}
		if ledger.Read(ctx, tx, engine, []ledger.Period{x.Period}, one) == nil {
			maps.Copy(found, one)
		}
	}
	return found, ledger.Read(ctx, tx, engine, periods, found)
}

// onto returns what a row must be, given what it is now. Requests recorded since it was read are added. It is not ok if
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
		removed, query := 0, "DELETE FROM "+t.Name+" WHERE id IN %s RETURNING id"
		err := bulk.ScanIn(ctx, tx, query, ids, func(func(...any) error) error {
			removed++
			return nil
		})
		if err != nil {
			return err
		}
		if removed < len(ids) {
			return bulk.ErrStale
		}
	}
	return nil
}
