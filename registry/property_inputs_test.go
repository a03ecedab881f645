package registry_test

import (
	"math/bits"
	"strings"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/jeffersonwarrior/modelscan/ent"
)

// inputs draws inputs that fit a world.
type inputs struct {
	*rapid.T
	world *world
}

func (m *machine) inputs(t *rapid.T) inputs {
	m.world.now = micro(m.clock.Now())
	return inputs{T: t, world: m.world}
}

// draw returns one of some values, each as likely as the others: rapid.SampledFrom prefers the first.
func draw[T any](t *rapid.T, label string, from ...T) T {
	return rapid.Custom(func(t *rapid.T) T { return from[random(t, bits.Len(uint(len(from)))+4)%len(from)] }).Draw(t,
		label)
}

// random returns a number of that many bits.
func random(t *rapid.T, length int) (n int) {
	for range length {
		n = 2*n + int(count(rapid.Bool().Draw(t, "bit")))
	}
	return n
}

// maybe returns a pointer to a value, or nil.
func maybe[T any](in inputs, label string, value T) *T {
	if in.bool("change " + label) {
		return &value
	}
	return nil
}

func (in inputs) bool(label string) bool { return rapid.Bool().Draw(in.T, label) }

// rarely is true one time in 32.
func (in inputs) rarely(label string) bool {
	return rapid.Custom(func(t *rapid.T) bool { return random(t, 5) == 31 }).Draw(in.T, label)
}

// id returns the id of a row, rarely of none.
func (in inputs) id(label string, ids []uuid.UUID) uuid.UUID {
	if len(ids) == 0 || in.rarely("unknown "+label) {
		return draw(in.T, label, uuid.MustParse("01234567-89ab-7def-8123-456789abcdef"), uuid.Nil)
	}
	return draw(in.T, label, ids...)
}

// live returns the ids of rows; now and then those of deleted rows too.
func live[T any](in inputs, rows []*T, of func(*T) (id uuid.UUID, deleted *time.Time)) (ids []uuid.UUID) {
	deletedToo := draw(in.T, "deleted too", false, false, false, false, true)
	for _, row := range rows {
		if id, deleted := of(row); deleted == nil || deletedToo {
			ids = append(ids, id)
		}
	}
	return ids
}

func (in inputs) provider() uuid.UUID {
	return in.id("provider", live(in, in.world.providers,
		func(p *ent.Provider) (uuid.UUID, *time.Time) { return p.ID, p.DeletedAt }))
}

func (in inputs) model() uuid.UUID {
	return in.id("model", live(in, in.world.models,
		func(m *ent.Model) (uuid.UUID, *time.Time) { return m.ID, m.DeletedAt }))
}

func (in inputs) key() uuid.UUID {
	return in.id("key", live(in, in.world.keys,
		func(k *ent.APIKey) (uuid.UUID, *time.Time) { return k.ID, k.DeletedAt }))
}

func (in inputs) log() uuid.UUID {
	return in.id("log", live(in, in.world.logs, func(l *ent.DiscoveryLog) (uuid.UUID, *time.Time) { return l.ID, nil }))
}

// texts that are refused in names; those with lines are prose.
var invalidTexts = []string{
	"", " ", strings.Repeat("é", 3000), "a\x07b", "a\nb", "a\tb\r", "a\x00b", "a\x7fb", "a\xff\xfeb", "a\u202eb",
	"a\u2028b", "\x00",
}

func (in inputs) slug() string {
	if in.rarely("bad slug") {
		return draw(in.T, "slug", append(invalidTexts, "A", "é", "-a", "a b", "a/b")...)
	}
	return draw(in.T, "slug", "a", "b", "a-1", "a.1", "a_1", "a1", "z.ai", strings.Repeat("x", 128))
}

// names sort differently in most languages.
func (in inputs) name() string {
	if in.rarely("bad name") {
		return draw(in.T, "name", invalidTexts...)
	}
	return draw(in.T, "name", "gpt-4", "GPT-4", "gpt_4", "gpt.4", "gpt4", "B", "a", "Z", "é", "É", "ß", "%", `\`,
		"10", "9", "a b", "💡", "ｚ", strings.Repeat("é", 128), "👩\u200d🚀")
}

// lookup returns what to look for.
func (in inputs) lookup() string {
	text := in.name()
	if in.bool("there is one") {
		known := []string{text}
		for _, p := range in.world.providers {
			known = append(known, p.Name)
		}
		for _, m := range in.world.models {
			known = append(known, m.ModelID)
		}
		for _, s := range in.world.settings {
			known = append(known, s.ID)
		}
		text = draw(in.T, "known name", known...)
	}
	return text
}

func (in inputs) text() string {
	if in.rarely("bad text") {
		return draw(in.T, "text", invalidTexts...)
	}
	return draw(in.T, "text", "", "", "by hand", "models.dev é", `'"\%_`)
}

func (in inputs) prose() string {
	if in.rarely("bad prose") {
		return draw(in.T, "prose", append(invalidTexts, strings.Repeat("é", 4096), strings.Repeat("é", 4097))...)
	}
	return draw(in.T, "prose", "", "", "two\nlines", `'"\%_`)
}
