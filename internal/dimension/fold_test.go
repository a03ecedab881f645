package dimension

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	entdimension "github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/dimensionvalue"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvalue"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/money"
)

// TestIntern has many at once add values to a dimension with room for few: it never has more.
func TestIntern(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		row := d.add(t, "feature", entdimension.KindSingle, func(c *ent.DimensionCreate) { c.SetMaxValues(5) })
		d.add(t, "label", entdimension.KindMulti, nil)
		d.add(t, "pair", entdimension.KindComposite, func(c *ent.DimensionCreate) {
			c.SetParts([]string{"feature", Consumer})
		})
		d.add(t, Consumer, entdimension.KindConsumer, func(c *ent.DimensionCreate) { c.SetID(ConsumerID) })
		var all sync.WaitGroup
		errs := make(chan error, 8)
		memory := new(Memory)
		for i := range cap(errs) {
			all.Go(func() {
				errs <- d.write(t.Context(), func(tx *ent.Client) error {
					b, err := memory.Open(t.Context(), tx, 1)
					if err != nil {
						return err
					}
					events := []ledger.Event{
						d.event(1, fmt.Sprintf(`{"feature":["f%d"],"label":["a","b"]}`, i)),
						d.event(2, `{"feature":["f0"]}`),
					}
					if err := b.Intern(t.Context(), tx, d.Dialect(), memory, events); err != nil {
						return err
					}
					return b.Intern(t.Context(), tx, d.Dialect(), memory, events) // nothing is left to add
				})
			})
		}
		all.Wait()
		close(errs)
		for err := range errs {
			require.NoError(t, err)
		}
		values := d.client.DimensionValue.Query().Where(dimensionvalue.KindEQ(dimensionvalue.KindValue))
		require.Equal(t, 5, values.Clone().Where(dimensionvalue.DimensionID(row.ID)).CountX(t.Context()))
		require.Equal(t, 1, values.Clone().Where(dimensionvalue.HasDimensionWith(entdimension.Name("label"))).
			CountX(t.Context()))
		pairs := values.Clone().Where(dimensionvalue.HasDimensionWith(entdimension.Name("pair"))).CountX(t.Context())
		require.Positive(t, pairs)
		require.LessOrEqual(t, pairs, 6, "five features and other, for nobody")
	})
}

// TestMemory: a version is read once, and another one forgets.
func TestMemory(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx, m := t.Context(), new(Memory)
		d.add(t, "feature", entdimension.KindSingle, nil)
		open := func(version int64) *Book {
			b, err := m.Open(ctx, d.client, version)
			require.NoError(t, err)
			return b
		}
		require.Len(t, open(1).All, 1)
		d.add(t, "other", entdimension.KindSingle, nil)
		require.Len(t, open(1).All, 1, "remembered")
		b := open(2)
		require.Len(t, b.All, 2)
		require.Len(t, open(1).All, 2, "an older version is read, and not remembered")
		_, err := m.Open(ctx, failing{d.client}, 2)
		require.NoError(t, err, "the newer one is remembered still")
		events := []ledger.Event{d.event(1, `{"feature":["chat"]}`)}
		require.NoError(t, d.write(ctx, func(tx *ent.Client) error {
			return b.Intern(ctx, tx, d.Dialect(), m, events)
		}))
		require.Empty(t, m.values, "what was added may be undone")
		b = open(2)
		require.NoError(t, b.Learn(ctx, d.client, m, events))
		require.Len(t, m.values, 1)
		b = open(2)
		require.NoError(t, b.Learn(ctx, failing{d.client}, m, events), "remembered")
		_, err = b.Of(&ledger.Event{At: noon, Tags: `{"feature":["chat"]}`}, func(*Dimension, string) {
			require.Fail(t, "it is known")
		})
		require.NoError(t, err)
		open(3)
		require.Empty(t, m.values)
		_, err = m.Open(ctx, failing{d.client}, 4)
		require.ErrorIs(t, err, errFailing)
	})
}

// TestFold folds some at a time, but for what may be overtaken; and what has no dimension yet is passed over.
func TestFold(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx := t.Context()
		fold := func(now time.Time, limit int) (more bool) {
			require.NoError(t, d.write(ctx, func(tx *ent.Client) (err error) {
				b, err := Read(ctx, tx)
				if err != nil {
					return err
				}
				more, err = b.Fold(ctx, tx, d.Dialect(), nil, Tail{Model: d.model, Now: now, Limit: limit})
				return err
			}))
			return more
		}
		events := []ledger.Event{d.event(1, ""), d.event(10, `{"feature":["chat"]}`), d.event(11, ""), d.event(90, "")}
		require.NoError(t, ledger.InsertEvents(ctx, d.client, d.Dialect(), events))
		require.False(t, fold(noon.Add(time.Hour), 10), "there is no dimension")
		row := d.add(t, "feature", entdimension.KindSingle, func(c *ent.DimensionCreate) {
			c.SetSince(noon.Add(5 * time.Second)).SetOpenFrom(noon.Add(5 * time.Second))
		})
		d.add(t, "env", entdimension.KindSingle, func(c *ent.DimensionCreate) {
			at := noon.Add(10 * time.Second)
			c.SetGrain(entdimension.GrainDay).SetSince(at).SetOpenFrom(at)
		})
		d.client.KeyLease.Create().SetAPIKeyID(d.key).SetModelID(d.model).SetAcquiredAt(noon.Add(time.Minute)).
			SetExpiresAt(noon.Add(time.Hour)).ExecX(ctx)
		b := d.read(t)
		require.NoError(t, d.write(ctx, func(tx *ent.Client) error {
			return b.Intern(ctx, tx, d.Dialect(), nil, events)
		}))
		require.True(t, fold(noon.Add(2*time.Minute), 1))
		to, err := FoldedTo(ctx, d.client, d.model)
		require.NoError(t, err)
		require.Equal(t, events[1].ID, to)
		require.True(t, fold(noon.Add(2*time.Minute), 1))
		require.False(t, fold(noon.Add(2*time.Minute), 1), "the last one is younger than the lease")
		require.False(t, fold(noon.Add(time.Minute), 1), "the clock has gone back")
		requests := func() (n, quarters int64) {
			for _, u := range d.client.UsageByValue.Query().AllX(ctx) {
				n += u.RequestCount
			}
			for _, u := range d.client.UsageByValueQuarter.Query().AllX(ctx) {
				quarters += u.RequestCount
			}
			return n, quarters
		}
		n, quarters := requests()
		require.Equal(t, []int64{4, 2}, []int64{n, quarters}, "two requests in two dimensions, one of them by days")
		require.False(t, fold(noon.Add(10*time.Minute), 10), "the lease has been open for too long")
		n, quarters = requests()
		require.Equal(t, []int64{6, 3}, []int64{n, quarters})
		chat := d.client.DimensionValue.Query().Where(dimensionvalue.Name("chat")).OnlyX(ctx)
		require.Equal(t, row.ID, chat.DimensionID)
		require.Equal(t, utc.StartOfDay(noon), utc.Of(d.client.UsageByValue.Query().FirstX(ctx).PeriodStart))
	})
}

// failing is a database that answers nothing.
type failing struct{ *ent.Client }

var errFailing = context.DeadlineExceeded

func (failing) QueryContext(context.Context, string, ...any) (*sql.Rows, error) {
	return nil, errFailing
}

// TestOvertaken: a new dimension counts the requests of its own instant that a fold has passed.
func TestOvertaken(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx := t.Context()
		d.add(t, "feature", entdimension.KindSingle, nil)
		events := []ledger.Event{d.event(1, ""), d.event(5, ""), d.event(9, "")}
		require.NoError(t, ledger.InsertEvents(ctx, d.client, d.Dialect(), events))
		b := d.read(t)
		require.NoError(t, d.write(ctx, func(tx *ent.Client) error {
			_, err := b.Fold(ctx, tx, d.Dialect(), nil, Tail{Model: d.model, Now: noon.Add(8 * time.Second), Limit: 10})
			return err
		}))
		since := noon.Add(5 * time.Second)
		row := d.add(t, "env", entdimension.KindSingle, func(c *ent.DimensionCreate) {
			c.SetSince(since).SetOpenFrom(since)
		})
		overtake := func(since time.Time) {
			require.NoError(t, d.write(ctx, func(tx *ent.Client) error {
				return Overtaken(ctx, tx, d.Dialect(), row.ID, since)
			}))
		}
		overtake(noon.Add(time.Hour)) // there is nothing
		overtake(since)
		u := d.client.UsageByValue.Query().
			Where(usagebyvalue.HasValueWith(dimensionvalue.DimensionID(row.ID))).OnlyX(ctx)
		require.EqualValues(t, 1, u.RequestCount, "the second one: the third one is not folded")
	})
}

// TestDaysTogether: requests to many models add to one day of a consumer while others set it to what it is by model.
func TestDaysTogether(t *testing.T) {
	onEach(t, func(t *testing.T, d *database) {
		t.Helper()
		ctx, at := t.Context(), utc.StartOfDay(noon)
		dim := d.add(t, Consumer, entdimension.KindConsumer, func(c *ent.DimensionCreate) { c.SetID(ConsumerID) })
		who := uuid.New()
		d.client.Consumer.Create().SetID(who).SetPath(who.String()).SetName("c").SetCreatedAt(noon).SetUpdatedAt(noon).
			ExecX(ctx)
		d.client.DimensionValue.Create().SetID(who).SetDimensionID(dim.ID).SetName(who.String()).SetSince(noon).
			ExecX(ctx)
		provider := d.client.Provider.Query().OnlyIDX(ctx)
		const models, times = 4, 25
		var all sync.WaitGroup
		errs := make(chan error, 2*models)
		for i := range models {
			m := d.client.Model.Create().SetProviderID(provider).SetModelID(fmt.Sprint("m", i)).SetCreatedAt(noon).
				SetUpdatedAt(noon).SaveX(ctx)
			price := d.client.Price.Create().SetModelID(m.ID).SetEffectiveFrom(noon).SetRecordedAt(noon).SaveX(ctx)
			add := func(tx *ent.Client) error {
				b, err := Read(ctx, tx)
				e := d.event(1, "")
				e.Model, e.Price, e.Consumer = m.ID, price.ID, &who
				sums := map[ledger.Period]ledger.Sums{}
				if err == nil {
					err = b.Learn(ctx, tx, nil, []ledger.Event{e})
				}
				if err == nil {
					err = b.AddTo(sums, &e)
				}
				if err == nil {
					err = ledger.AddTo(ctx, tx, tx, d.Dialect(), sums, map[ledger.Period]ledger.Sums{})
				}
				return err
			}
			recount := func(tx *ent.Client) error {
				days := map[ledger.Period]bool{ledger.ConsumerDay(who, at): true}
				return ledger.RecountDays(ctx, tx, d.Dialect(), days)
			}
			for _, body := range []func(*ent.Client) error{add, recount} {
				all.Go(func() {
					var err error
					for range times {
						err = errors.Join(err, d.write(ctx, body))
					}
					errs <- err
				})
			}
		}
		all.Wait()
		close(errs)
		for err := range errs {
			require.NoError(t, err)
		}
		day := d.client.ConsumerDay.Query().OnlyX(ctx)
		require.Equal(t, []any{who, at, int64(models * times), int64(models * times), money.USD(0), int64(0)},
			[]any{day.ConsumerID, utc.Of(day.Day), day.Requests, day.Tokens, day.Cost, day.UnpricedRequests})
	})
}
