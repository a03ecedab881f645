// Package dimension has what usage is summed by beside models and keys: dimensions such as "feature", their values, and
// which values a request counts under. A fold adds requests to the periods of their values some time after they were
// recorded; until then they are the tail, which reports add.
package dimension

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	entdimension "github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/schema"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
)

// Consumer is the name of the built-in dimension of consumers.
const Consumer = "consumer"

// OtherName is the tag for which there was no room. As a tag it counts there, too.
const OtherName = "(other)"

// The ids of the dimension of consumers, and of its values for requests for nobody and for consumers that were purged.
// The migration that made the tables knows them, too.
var (
	ConsumerID   = uuid.MustParse("00000000-0000-7000-8000-000000000001")
	UnassignedID = uuid.MustParse("00000000-0000-7000-8000-000000000002")
	OtherID      = uuid.MustParse("00000000-0000-7000-8000-000000000003")
)

// Dimension is a row of dimensions.
type Dimension struct {
	ID                uuid.UUID
	Name              string
	Kind              entdimension.Kind
	Parts             []string // of a composite: their names
	Max               int      // values
	DaysOnly          bool
	Since, OpenFrom   time.Time
	Retired           *time.Time
	Unassigned, Other uuid.UUID // values; a composite has no Unassigned
}

// Counts reports whether requests of an instant count in the dimension.
func (d *Dimension) Counts(at time.Time) bool {
	return !at.Before(d.Since) && (d.Retired == nil || !at.After(*d.Retired))
}

// Value is a row of dimension_values; without an id: there is no such value.
type Value struct {
	ID    uuid.UUID
	Since time.Time
}

// place names a value by its dimension.
type place struct {
	dimension uuid.UUID
	name      string
}

// Book has the dimensions of one version, and the values that requests were looked up under.
type Book struct {
	All    []*Dimension // those that composites combine come first
	values map[place]Value
	tags   *tagMemory
}

// tagMemory remembers tags, by how they are stored.
type tagMemory struct {
	mu sync.Mutex
	of map[string]*parsedTags
}

// parsedTags are tags, and the names of their values by dimension.
type parsedTags struct {
	tags  schema.Tags
	names map[string]string
}

// Named returns the dimension with a name, or nil.
func (b *Book) Named(name string) *Dimension {
	for _, d := range b.All {
		if d.Name == name {
			return d
		}
	}
	return nil
}

func newBook(all []*Dimension, tags *tagMemory) *Book {
	return &Book{All: all, values: map[place]Value{}, tags: tags}
}

// Counted is a value that a request counts under.
type Counted struct {
	*Dimension

	Value uuid.UUID
}

// Periods returns the periods of the value that count the requests of a quarter, the finest first.
func (c Counted) Periods(quarter ledger.Period) []ledger.Period {
	under := quarter.Under(c.Value)
	if c.DaysOnly {
		return []ledger.Period{under.Day()}
	}
	return []ledger.Period{under, under.Day()}
}

// Of returns the values that a request counts under, one for each dimension that counts it. Values that a book has not
// learned are unknown: missing is called for them, if it is not nil.
func (b *Book) Of(e *ledger.Event, missing func(*Dimension, string)) (all []Counted, err error) {
	tags, err := b.parse(e.Tags)
	if err != nil {
		return nil, err
	}
	all = make([]Counted, 0, len(b.All))
	for _, d := range b.All {
		if !d.Counts(e.At) {
			continue
		}
		name := tags.names[d.Name]
		switch d.Kind {
		case entdimension.KindConsumer:
			name = ""
			if e.Consumer != nil {
				name = e.Consumer.String()
			}
		case entdimension.KindComposite:
			if name = combined(d.Parts, all); name == "" { // a part is younger than the composite: it is damaged
				return nil, fmt.Errorf("%w: a part of dimension %q counts no request of %s", fault.ErrCorrupt, d.Name,
					e.At.Format(time.RFC3339))
			}
		}
		switch name {
		case "":
			all = append(all, Counted{d, d.Unassigned})
			continue
		case OtherName:
			all = append(all, Counted{d, d.Other})
			continue
		}
		v, known := b.values[place{d.ID, name}]
		if !known && missing != nil {
			missing(d, name)
		}
		if v.ID == uuid.Nil || e.At.Before(v.Since) {
			v.ID = d.Other
		}
		all = append(all, Counted{d, v.ID})
	}
	return all, nil
}

// combined returns the name of a composite's value: the ids of the values of its parts.
func combined(parts []string, all []Counted) string {
	ids := make([]string, 0, len(parts))
	for _, part := range parts {
		for _, c := range all {
			if c.Name == part {
				ids = append(ids, c.Value.String())
			}
		}
	}
	if len(ids) < len(parts) {
		return ""
	}
	return NameOf(ids)
}

// NameOf returns the name of the value of several tags, or of several ids.
func NameOf(texts []string) string {
	if plain, ok := appendPlain(nil, texts); ok {
		return string(plain)
	}
	var b bytes.Buffer
	to := json.NewEncoder(&b)
	to.SetEscapeHTML(false)
	_ = to.Encode(texts) // texts can be encoded, and a buffer takes them
	return strings.TrimSuffix(b.String(), "\n")
}

// appendPlain appends texts as JSON; false: one of them has characters that JSON escapes, or that are not ASCII. Most
// have none, and are written in a tenth of the time.
func appendPlain(b []byte, texts []string) ([]byte, bool) {
	b = append(b, '[')
	for i, text := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		var ok bool
		if b, ok = appendPlainText(b, text); !ok {
			return b, false
		}
	}
	return append(b, ']'), true
}

func appendPlainText(b []byte, text string) ([]byte, bool) {
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			return b, false
		}
	}
	return append(append(append(b, '"'), text...), '"'), true
}

// TextsOf returns the texts of a name, the opposite of NameOf.
func TextsOf(name string) (texts []string, err error) {
	if err = json.Unmarshal([]byte(name), &texts); err != nil {
		err = fmt.Errorf("%w: name of a dimension's value: %w", fault.ErrCorrupt, err)
	}
	return texts, err
}

// maxTags is how many texts of tags are remembered; with more, all are forgotten.
const maxTags = 10_000

// noTags are the tags of "".
var noTags = new(parsedTags)

// parse returns tags that are as they are stored. Nobody changes what it returns.
func (b *Book) parse(text string) (*parsedTags, error) {
	if text == "" {
		return noTags, nil
	}
	b.tags.mu.Lock()
	defer b.tags.mu.Unlock()
	if p := b.tags.of[text]; p != nil {
		return p, nil
	}
	p := new(parsedTags)
	if err := json.Unmarshal([]byte(text), &p.tags); err != nil {
		return nil, fmt.Errorf("%w: tags: %w", fault.ErrCorrupt, err)
	}
	p.names = make(map[string]string, len(p.tags))
	for name, texts := range p.tags {
		d := b.Named(name)
		switch {
		case d == nil || len(texts) == 0:
		case d.Kind == entdimension.KindMulti:
			p.names[name] = NameOf(texts)
		default:
			p.names[name] = texts[0]
		}
	}
	if b.tags.of == nil || len(b.tags.of) >= maxTags {
		b.tags.of = map[string]*parsedTags{}
	}
	b.tags.of[text] = p
	return p, nil
}

// AddTo adds a request to the periods of its values, and to its consumer's day.
func (b *Book) AddTo(periods map[ledger.Period]ledger.Sums, e *ledger.Event) error {
	return b.addTo(periods, e, uuid.Nil)
}

// addTo is AddTo for one dimension, or for all if its id is zero.
func (b *Book) addTo(periods map[ledger.Period]ledger.Sums, e *ledger.Event, only uuid.UUID) error {
	values, err := b.Of(e, nil)
	if err != nil {
		return err
	}
	one, quarter := e.Sums(), e.Quarter()
	for _, v := range values {
		if only != uuid.Nil && v.ID != only {
			continue
		}
		for _, p := range v.Periods(quarter) {
			s := periods[p]
			if err := s.Merge(one); err != nil {
				return err
			}
			periods[p] = s
		}
		if e.Consumer != nil && v.Value == *e.Consumer {
			day := ledger.ConsumerDay(v.Value, quarter.Day().Start)
			s := periods[day]
			s.MergeCut(&one)
			periods[day] = s
		}
	}
	return nil
}

// Marshal returns tags as they are stored: each dimension's are sorted, and each of them is there once. It returns ""
// for no tags.
func Marshal(tags schema.Tags) string {
	if len(tags) == 0 {
		return ""
	}
	names := make([]string, 0, len(tags))
	sorted := make(schema.Tags, len(tags))
	for name, texts := range tags {
		switch len(texts) {
		case 0:
			continue
		case 1:
			sorted[name] = texts
		default:
			sorted[name] = slices.Compact(slices.Sorted(slices.Values(texts)))
		}
		names = append(names, name)
	}
	if len(sorted) == 0 {
		return ""
	}
	slices.Sort(names)
	b := []byte{'{'}
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		var ok bool
		if b, ok = appendPlainText(b, name); ok {
			b, ok = appendPlain(append(b, ':'), sorted[name])
		}
		if !ok {
			text, _ := json.Marshal(sorted) // texts can be marshaled
			return string(text)
		}
	}
	return string(append(b, '}'))
}

// Check returns fault.ErrInvalidData if a request of an instant may not have tags, which are as they are stored; and
// fault.ErrCorrupt if their text cannot be parsed.
func (b *Book) Check(tags string, at time.Time) error {
	p, err := b.parse(tags)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.tags)) {
		d := b.Named(name)
		switch {
		case d == nil || d.Kind != entdimension.KindSingle && d.Kind != entdimension.KindMulti:
			return fmt.Errorf("%w: there is no dimension %.64q for tags", fault.ErrInvalidData, name)
		case d.Retired != nil && !at.Before(*d.Retired):
			return fmt.Errorf("%w: dimension %q is retired", fault.ErrInvalidData, name)
		case d.Kind == entdimension.KindSingle && len(p.tags[name]) > 1:
			return fmt.Errorf("%w: dimension %q takes one tag, not %d", fault.ErrInvalidData, name, len(p.tags[name]))
		}
	}
	return nil
}
