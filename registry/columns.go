package registry

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	entgo "entgo.io/ent"
	"entgo.io/ent/dialect/sql"
	"entgo.io/ent/schema/field"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/schema"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// entity has the columns of an entity, as ent/schema describes them.
type entity struct {
	columns []*field.Descriptor
	fields  map[string]*field.Descriptor // by the lower-case names of fields of structs: modelid is model_id
}

// entities are those that inputs and filters describe, by the types of their mutations.
var entities = describe(schema.APIKey{}, schema.AuditEntry{}, schema.DiscoveryLog{}, schema.Model{},
	schema.ModelFamily{}, schema.Price{}, schema.Provider{}, schema.QuotaGroup{}, schema.SDKVersion{}, schema.Setting{})

func describe(all ...entgo.Interface) map[string]entity {
	described := make(map[string]entity, len(all))
	for _, one := range all {
		fields := one.Fields()
		for _, mixin := range one.Mixin() {
			fields = append(fields, mixin.Fields()...)
		}
		e := entity{fields: make(map[string]*field.Descriptor, len(fields))}
		for _, f := range fields {
			c := f.Descriptor()
			e.columns = append(e.columns, c)
			e.fields[strings.ReplaceAll(c.Name, "_", "")] = c
		}
		described[reflect.TypeOf(one).Name()] = e
	}
	return described
}

// column returns the column that a field of a struct is for; nil: none.
func (e entity) column(name string) *field.Descriptor { return e.fields[strings.ToLower(name)] }

// draft makes builders that are judged and never saved.
var draft = ent.NewClient()

// builder makes a row, or changes some.
type builder[M ent.Mutation] interface{ Mutation() M }

// filled returns a builder that has been given what an input says.
func filled[B builder[M], M ent.Mutation](b B, in any) B {
	fill(b.Mutation(), in)
	return b
}

// judge returns what is wrong with an input of a builder.
func judge[B builder[M], M ent.Mutation](b B, in any) fault.List {
	return faultsOf(filled(b, in).Mutation())
}

// faultsOf returns everything that is wrong with what a mutation sets; Ent says the first fault alone.
func faultsOf(m ent.Mutation) (f fault.List) {
	for _, c := range entities[m.Type()].columns {
		value, ok := m.Field(c.Name)
		if !ok {
			continue
		}
		if at, isTime := value.(time.Time); isTime {
			f.Time(c.Name, at)
		}
		if len(c.Enums) > 0 {
			names := make([]string, len(c.Enums))
			for i, enum := range c.Enums {
				names[i] = enum.V
			}
			f.Check(slices.Contains(names, fmt.Sprint(value)), "%s is not one of %s", c.Name, strings.Join(names, ", "))
		}
		for _, validator := range c.Validators {
			validate := reflect.ValueOf(validator)
			arg := reflect.ValueOf(value).Convert(validate.Type().In(0))
			err, _ := validate.Call([]reflect.Value{arg})[0].Interface().(error)
			f.Field(c.Name, err)
		}
	}
	return f
}

// fill sets what those fields of an input say that are for a column. A nil pointer and a zero time say nothing. A zero
// id, an empty list and an empty text are NULL where that may be.
func fill(m ent.Mutation, in any) {
	v, e := reflect.ValueOf(in), entities[m.Type()]
	for i := range v.NumField() {
		said, name := v.Field(i), v.Type().Field(i).Name
		if said.Kind() == reflect.Pointer {
			if said.IsNil() {
				continue
			}
			said = said.Elem()
		}
		c := e.column(name)
		if c == nil {
			if limits, ok := said.Interface().(Limits); ok {
				fill(m, limits)
			}
			continue
		}
		if err := setColumn(m, c, said); err != nil {
			panic(fmt.Sprintf("%T.%s: %v", in, name, err)) // TestColumns finds it
		}
	}
}

func setColumn(m ent.Mutation, c *field.Descriptor, said reflect.Value) error {
	var nothing bool
	switch said.Kind() {
	case reflect.Array, reflect.String, reflect.Struct:
		nothing = said.IsZero()
	case reflect.Slice:
		nothing = said.Len() == 0
	}
	switch {
	case nothing && c.Optional && !m.Op().Is(ent.OpCreate):
		return m.ClearField(c.Name)
	case nothing && (c.Optional || said.Kind() == reflect.Struct):
		return nil
	}
	return m.SetField(c.Name, said.Interface())
}

// copyFields copies into a struct what another one says in fields of the same names. A nil pointer says nothing, nor
// does a zero value that nothing points to.
func copyFields(dst, src any) {
	to, from := reflect.ValueOf(dst).Elem(), reflect.Indirect(reflect.ValueOf(src))
	for i := range to.NumField() {
		said, place := from.FieldByName(to.Type().Field(i).Name), to.Field(i)
		if !said.IsValid() || said.IsZero() {
			continue
		}
		if said.Kind() == reflect.Pointer && place.Kind() != reflect.Pointer {
			said = said.Elem()
		}
		if place.Kind() == reflect.Pointer && said.Kind() != reflect.Pointer {
			place.Set(reflect.New(said.Type()))
			place = place.Elem()
		}
		place.Set(said)
	}
}

// matching returns the conditions of those fields of a filter that are for a column and not zero.
func matching[P ~func(*sql.Selector)](of string, filter any) (where []P) {
	v := reflect.ValueOf(filter)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if c := entities[of].column(name); c != nil && name != "After" && !v.Field(i).IsZero() { // After is a place
			where = append(where, sql.FieldEQ(c.Name, v.Field(i).Interface()))
		}
	}
	return where
}
