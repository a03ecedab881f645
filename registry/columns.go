package registry

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
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
	ruled  []*field.Descriptor          // the columns with a rule of their own
	fields map[string]*field.Descriptor // by the lower-case name of a struct's field: modelid is model_id
}

// entities are the entities that inputs and filters describe, by their mutation's type.
var entities = describe(schema.APIKey{}, schema.AccessKey{}, schema.AuditEntry{}, schema.Budget{},
	schema.BudgetCrossing{}, schema.BudgetGrant{}, schema.Consumer{}, schema.Dimension{},
	schema.DiscoveryLog{}, schema.Model{}, schema.ModelFamily{}, schema.Price{}, schema.Provider{}, schema.QuotaGroup{},
	schema.SDKVersion{}, schema.Setting{}, schema.UsageEvent{})

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
			if len(c.Validators) > 0 || len(c.Enums) > 0 || c.Info.Type == field.TypeTime {
				e.ruled = append(e.ruled, c)
			}
			e.fields[strings.ReplaceAll(c.Name, "_", "")] = c
		}
		described[reflect.TypeOf(one).Name()] = e
	}
	return described
}

// draft makes builders that are judged and never saved.
var draft = ent.NewClient()

// builder is one of Ent's, which creates or updates rows.
type builder[M ent.Mutation] interface{ Mutation() M }

// filled sets the fields of an input on a builder, and returns the builder.
func filled[B builder[M], M ent.Mutation](b B, in any) B {
	fill(b.Mutation(), in)
	return b
}

// judge returns the faults of an input.
func judge[B builder[M], M ent.Mutation](b B, in any) fault.List {
	return faultsOf(filled(b, in).Mutation())
}

// faultsOf returns all faults of what a mutation sets; Ent reports only the first one.
func faultsOf(m ent.Mutation) (f fault.List) {
	for _, c := range entities[m.Type()].ruled {
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
			f.Field(c.Name, validate(validator, value))
		}
	}
	return f
}

func validate(validator, value any) error {
	switch v := value.(type) { // most values are of these types; reflect takes three times as long
	case string:
		return validator.(func(string) error)(v)
	case int64:
		return validator.(func(int64) error)(v)
	}
	call := reflect.ValueOf(validator)
	err, _ := call.Call([]reflect.Value{reflect.ValueOf(value).Convert(call.Type().In(0))})[0].Interface().(error)
	return err
}

// plans are the places of fields of structs, by a [2]any of types. To find them takes longer than to copy the fields.
var plans sync.Map

// planned returns the plan for two types. If it is not known yet, plan makes it.
func planned[Plan any](a, b any, plan func() Plan) Plan {
	known, ok := plans.Load([2]any{a, b})
	if !ok {
		known, _ = plans.LoadOrStore([2]any{a, b}, plan())
	}
	return known.(Plan)
}

// columnsOf returns the columns of an entity in the order of a struct's fields; nil for a field without a column.
func columnsOf(of string, fields reflect.Type) []*field.Descriptor {
	return planned(of, fields, func() []*field.Descriptor {
		columns := make([]*field.Descriptor, fields.NumField())
		for i := range columns {
			if name := fields.Field(i).Name; name != "After" { // a place in a list, not a column
				columns[i] = entities[of].fields[strings.ToLower(name)]
			}
		}
		return columns
	})
}

// fill sets the columns that the fields of an input are for. It skips nil pointers and zero times. Zero ids, empty
// lists and empty texts become NULL where the column allows it.
func fill(m ent.Mutation, in any) {
	v := reflect.ValueOf(in)
	for i, c := range columnsOf(m.Type(), v.Type()) {
		said := v.Field(i)
		if said.Kind() == reflect.Pointer {
			if said.IsNil() {
				continue
			}
			said = said.Elem()
		}
		if c == nil {
			switch said.Type() {
			case reflect.TypeFor[Limits](), reflect.TypeFor[Ceilings](), reflect.TypeFor[Window]():
				fill(m, said.Interface())
			}
			continue
		}
		if err := setColumn(m, c, said); err != nil {
			panic(fmt.Sprintf("%T.%s: %v", in, v.Type().Field(i).Name, err)) // TestColumns finds it
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

// copyFields copies the fields that two structs have in common. It skips nil pointers, and zero values that are not
// behind a pointer.
func copyFields(dst, src any) {
	to, from := reflect.ValueOf(dst).Elem(), reflect.Indirect(reflect.ValueOf(src))
	for _, both := range samePlaces(to.Type(), from.Type()) {
		place, said := to.Field(both[0]), from.Field(both[1])
		if said.IsZero() {
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

// differs reports whether an update would change a row. The update's fields must be comparable with ==.
func differs(row, up any) bool {
	is, said := reflect.ValueOf(row).Elem(), reflect.ValueOf(up).Elem()
	for _, both := range samePlaces(is.Type(), said.Type()) {
		is, said := is.Field(both[0]), said.Field(both[1])
		if said.IsNil() {
			continue
		}
		if is.Kind() == reflect.Pointer {
			if is.IsNil() && said.Elem().IsZero() {
				continue
			}
			is = is.Elem()
		}
		if !is.IsValid() || !is.Equal(said.Elem()) {
			return true
		}
	}
	return false
}

// samePlaces returns the indices of the fields that two structs have in common.
func samePlaces(a, b reflect.Type) [][2]int {
	return planned(a, b, func() (same [][2]int) {
		for i := range a.NumField() {
			if f, ok := b.FieldByName(a.Field(i).Name); ok && len(f.Index) == 1 {
				same = append(same, [2]int{i, f.Index[0]})
			}
		}
		return same
	})
}

// matching returns the conditions of a filter: of each field that is for a column and not zero, and of Deleted, which
// selects deleted rows instead of live ones. P is Ent's type for the conditions of an entity, named like the entity.
func matching[P ~func(*sql.Selector)](filter any) (where []P) {
	v := reflect.ValueOf(filter)
	for i, c := range columnsOf(reflect.TypeFor[P]().Name(), v.Type()) {
		if c != nil && !v.Field(i).IsZero() {
			where = append(where, sql.FieldEQ(c.Name, v.Field(i).Interface()))
		}
	}
	switch deleted := v.FieldByName("Deleted"); {
	case !deleted.IsValid():
	case deleted.Bool():
		where = append(where, sql.FieldNotNull("deleted_at"))
	default:
		where = append(where, sql.FieldIsNull("deleted_at"))
	}
	return where
}

// condition is a condition of a filter that may be wanted or not.
type condition[P any] struct {
	wanted bool
	is     P
}

// wanted returns the conditions that are wanted.
func wanted[P any](all []condition[P]) (where []P) {
	for _, c := range all {
		if c.wanted {
			where = append(where, c.is)
		}
	}
	return where
}
