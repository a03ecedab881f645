package dimension

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	entdimension "github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/schema"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
)

func newDimension(name string, of entdimension.Kind, parts ...string) *Dimension {
	return &Dimension{
		ID: uuid.New(), Name: name, Kind: of, Parts: parts, Since: noon, OpenFrom: noon, Unassigned: uuid.New(),
		Other: uuid.New(),
	}
}

// TestOf: what a request counts under follows from its tags and its time.
func TestOf(t *testing.T) {
	t.Parallel()
	feature, label := newDimension("feature", entdimension.KindSingle), newDimension("label", entdimension.KindMulti)
	consumer := newDimension(Consumer, entdimension.KindConsumer)
	both := newDimension("both", entdimension.KindComposite, "feature", Consumer)
	b := newBook([]*Dimension{feature, label, consumer, both}, new(tagMemory))
	who, chat, labels, early := uuid.New(), Value{uuid.New(), noon}, Value{uuid.New(), noon}, noon.Add(-time.Second)
	later := Value{uuid.New(), noon.Add(time.Hour)}
	b.values = map[place]Value{
		{feature.ID, "chat"}: chat, {label.ID, `["a","<b>"]`}: labels, {consumer.ID, who.String()}: {who, noon},
		{feature.ID, "later"}: later,
	}
	pair := Value{uuid.New(), noon}
	b.values[place{both.ID, NameOf([]string{chat.ID.String(), who.String()})}] = pair
	none := Value{uuid.New(), noon}
	b.values[place{both.ID, NameOf([]string{feature.Unassigned.String(), consumer.Unassigned.String()})}] = none
	for what, c := range map[string]struct {
		event ledger.Event
		want  []uuid.UUID // of the dimensions in their order
		asked []string
	}{
		"all": {
			event: ledger.Event{At: noon, Consumer: &who, Tags: `{"feature":["chat"],"label":["a","<b>"]}`},
			want:  []uuid.UUID{chat.ID, labels.ID, who, pair.ID},
		},
		"nothing": {
			event: ledger.Event{At: noon},
			want:  []uuid.UUID{feature.Unassigned, label.Unassigned, consumer.Unassigned, none.ID},
		},
		"before there were dimensions": {event: ledger.Event{At: early, Tags: `{"feature":["chat"]}`}},
		"a value that counts later": {
			event: ledger.Event{At: noon, Tags: `{"feature":["later"]}`},
			want:  []uuid.UUID{feature.Other, label.Unassigned, consumer.Unassigned, both.Other},
			asked: []string{"both"},
		},
		"no room, and other by name": {
			event: ledger.Event{At: noon, Tags: `{"feature":["new"],"label":["z"]}`},
			want:  []uuid.UUID{feature.Other, label.Other, consumer.Unassigned, both.Other},
			asked: []string{"feature", "label", "both"},
		},
		"tags of nothing": {
			event: ledger.Event{At: noon, Tags: `{"gone":["x"],"feature":["(other)"],"label":[]}`},
			want:  []uuid.UUID{feature.Other, label.Unassigned, consumer.Unassigned, both.Other},
			asked: []string{"both"},
		},
	} {
		var asked []string
		all, err := b.Of(&c.event, func(d *Dimension, _ string) { asked = append(asked, d.Name) })
		require.NoError(t, err, what)
		var got []uuid.UUID
		for _, v := range all {
			got = append(got, v.Value)
		}
		require.Equal(t, c.want, got, what)
		require.Equal(t, c.asked, asked, what)
	}
	retired := noon.Add(time.Minute)
	label.Retired = &retired
	all, err := b.Of(&ledger.Event{At: retired}, nil)
	require.NoError(t, err)
	require.Len(t, all, 4)
	all, err = b.Of(&ledger.Event{At: retired.Add(time.Microsecond)}, nil)
	require.NoError(t, err)
	require.Len(t, all, 3)
	feature.Since = noon.Add(time.Hour) // damage: the composite is older than its part
	_, err = b.Of(&ledger.Event{At: noon}, nil)
	require.ErrorIs(t, err, fault.ErrCorrupt)
	_, err = b.Of(&ledger.Event{At: noon, Tags: "{"}, nil)
	require.ErrorIs(t, err, fault.ErrCorrupt)
}

func TestMarshal(t *testing.T) {
	t.Parallel()
	require.Empty(t, Marshal(nil))
	require.Empty(t, Marshal(schema.Tags{"a": {}}))
	require.Equal(t, `{"a":["x"],"b":["1","2"]}`, Marshal(schema.Tags{"b": {"2", "1", "2"}, "a": {"x"}, "c": nil}))
	texts, err := TextsOf(NameOf([]string{"<a>", `"`}))
	require.NoError(t, err)
	require.Equal(t, []string{"<a>", `"`}, texts)
	_, err = TextsOf("x")
	require.ErrorIs(t, err, fault.ErrCorrupt)
}

// TestCheck refuses tags that a request may not have.
func TestCheck(t *testing.T) {
	t.Parallel()
	gone := newDimension("gone", entdimension.KindSingle)
	gone.Retired = &noon
	b := newBook([]*Dimension{
		gone, newDimension("one", entdimension.KindSingle), newDimension("many", entdimension.KindMulti),
		newDimension(Consumer, entdimension.KindConsumer), newDimension("both", entdimension.KindComposite),
	}, new(tagMemory))
	require.NoError(t, b.Check(`{"one":["a"],"many":["a","b"]}`, noon))
	require.NoError(t, b.Check(`{"gone":["a"]}`, noon.Add(-time.Second)))
	for wrong, want := range map[string]string{
		`{"gone":["a"]}`:     `dimension "gone" is retired`,
		`{"one":["a","b"]}`:  `dimension "one" takes one tag, not 2`,
		`{"new":["a"]}`:      `there is no dimension "new" for tags`,
		`{"both":["a"]}`:     `there is no dimension "both" for tags`,
		`{"consumer":["a"]}`: `there is no dimension "consumer" for tags`,
	} {
		err := b.Check(wrong, noon)
		require.ErrorIs(t, err, fault.ErrInvalidData, wrong)
		require.ErrorContains(t, err, want)
	}
	require.ErrorIs(t, b.Check("{", noon), fault.ErrCorrupt)
}

// TestPlain: texts are written as encoding/json writes them.
func TestPlain(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // not for secrets
	alphabet := []rune("ab ~!/\"\\<>&\t\x7fé\u2028")
	text := func() string {
		runes := make([]rune, 1+r.IntN(3))
		for i := range runes {
			runes[i] = alphabet[r.IntN(1+r.IntN(len(alphabet)))]
		}
		return string(runes)
	}
	for range 2000 {
		tags := schema.Tags{}
		for range 1 + r.IntN(3) {
			texts := make([]string, 1+r.IntN(3))
			for i := range texts {
				texts[i] = text()
			}
			tags[text()] = slices.Compact(slices.Sorted(slices.Values(texts)))
		}
		want, err := json.Marshal(tags)
		require.NoError(t, err)
		require.Equal(t, string(want), Marshal(tags))
		for _, texts := range tags {
			read, err := TextsOf(NameOf(texts))
			require.NoError(t, err)
			require.Equal(t, texts, read)
			require.NotContains(t, NameOf(texts), `\u003c`)
		}
	}
}
