package registry_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// outcome is what an operation returned, as text.
type outcome struct {
	value, class string
	err          error
}

func (o outcome) String() string { return o.class + ": " + o.value }

// classes are what an error can be told to be.
var classes = []error{
	registry.ErrNotFound, registry.ErrConflict, registry.ErrInvalidData, registry.ErrForeignKey,
	registry.ErrNoKeyAvailable, registry.ErrClosed, registry.ErrSchema, registry.ErrBusy, registry.ErrReadOnly,
	registry.ErrDiskFull, registry.ErrCorrupt, registry.ErrUnavailable, registry.ErrDenied,
	registry.ErrUnsupported, registry.ErrUncertain, registry.ErrExhausted, registry.ErrLeaseEnded, context.Canceled,
	context.DeadlineExceeded,
}

func outcomeOf(now time.Time, value any, err error) outcome {
	if err == nil {
		return outcome{value: render(shown(now, value)), class: "ok"}
	}
	o := outcome{err: err}
	var is []string
	for _, class := range classes {
		if errors.Is(err, class) {
			is = append(is, class.Error())
		}
	}
	if len(is) == 0 {
		is = []string{"an error of no class"}
	}
	o.class = strings.Join(is, ", ")
	if errors.Is(err, registry.ErrNotFound) != errors.Is(err, sql.ErrNoRows) {
		o.class += ", but not sql.ErrNoRows"
	}
	var why *registry.NoKeyError
	if errors.As(err, &why) {
		o.value = render(shown(now, why))
	}
	return o
}

// render returns a value as text that shows every digit: numbers as they are, also those that have
// a text of their own, times with their zone, nil pointers as such. Edges are not shown.
func render(v any) string {
	var b strings.Builder
	renderTo(&b, reflect.ValueOf(v))
	return b.String()
}

func renderTo(b *strings.Builder, v reflect.Value) {
	if !v.IsValid() {
		b.WriteString("nil")
		return
	}
	switch special := v.Interface().(type) {
	case []byte:
		fmt.Fprintf(b, "%x", special)
		return
	case time.Time:
		b.WriteString(special.Format(time.RFC3339Nano + " MST"))
		return
	case uuid.UUID:
		b.WriteString(special.String())
		return
	case json.RawMessage:
		b.Write(special)
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			b.WriteString("nil")
			return
		}
		renderTo(b, v.Elem())
	case reflect.Slice:
		for i := range v.Len() {
			renderTo(b, v.Index(i))
			b.WriteString("\n")
		}
	case reflect.Map:
		for _, key := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int {
			return strings.Compare(a.String(), b.String())
		}) {
			fmt.Fprintf(b, "%q:", key.String())
			renderTo(b, v.MapIndex(key))
			b.WriteString(";")
		}
	case reflect.Struct:
		b.WriteString(v.Type().Name())
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Name != "Edges" {
				b.WriteString(" " + f.Name + "=")
				renderTo(b, v.Field(i))
			}
		}
	case reflect.String:
		b.WriteString(strconv.Quote(v.String()))
	case reflect.Bool:
		b.WriteString(strconv.FormatBool(v.Bool()))
	case reflect.Float64:
		b.WriteString(strconv.FormatFloat(v.Float(), 'g', -1, 64))
	case reflect.Int, reflect.Int64:
		b.WriteString(strconv.FormatInt(v.Int(), 10))
	default:
		panic("render: " + v.Type().String())
	}
}

// firstDifference returns the first lines that two texts differ in.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var gi, wi string
		if i < len(g) {
			gi = g[i]
		}
		if i < len(w) {
			wi = w[i]
		}
		if gi != wi {
			same := 0
			for same < min(len(gi), len(wi)) && gi[same] == wi[same] {
				same++
			}
			same = strings.LastIndexByte(gi[:same], ' ') + 1
			return fmt.Sprintf("%.80s ...\n got %s\nwant %s", gi, gi[same:], wi[same:])
		}
	}
	return ""
}
