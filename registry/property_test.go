package registry_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/auditentry"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/modelfamily"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/ent/sdkversion"
	"github.com/jeffersonwarrior/modelscan/ent/setting"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// Unless the command line says otherwise: runs, and operations of one on average. Each run of the tests has other ones.
const (
	propertyChecks = 24
	propertySteps  = 60
)

// TestProperty calls random operations with random inputs on SQLite, on PostgreSQL and on a world,
// which is the specification. After each of them all three agree on what was returned, on the class
// of the error and on every row, ids and digits included.
//
// It is not parallel, because it replaces the generators of ids.
func TestProperty(t *testing.T) {
	defaultFlag(t, "rapid.checks", strconv.Itoa(sample.Of(propertyChecks)))
	defaultFlag(t, "rapid.steps", strconv.Itoa(propertySteps))
	defaultFlag(t, "rapid.nofailfile", "true") // a failure tells its seed
	m := &machine{clock: registrytest.NewClock(registrytest.Start)}
	options := []registry.Option{registry.WithClock(m.clock.Now), registry.WithDurability(registry.DurabilityRelaxed)}
	for _, e := range []engine{onSQLite, onPostgres} {
		m.engines = append(m.engines, e)
		m.registries = append(m.registries, e.new(t, options...))
	}
	for _, generator := range []*func() uuid.UUID{
		&apikey.DefaultID, &discoverylog.DefaultID, &model.DefaultID, &modelfamily.DefaultID,
		&price.DefaultID, &provider.DefaultID, &sdkversion.DefaultID, &usage.DefaultID,
	} {
		was := *generator
		*generator = m.newID
		t.Cleanup(func() { *generator = was })
	}
	was := auditentry.DefaultID
	auditentry.DefaultID = m.newAuditID
	t.Cleanup(func() { auditentry.DefaultID = was })
	m.outcomes = map[string]map[string]int{}
	rapid.Check(t, m.check)
	m.report(t)
}

// defaultFlag sets a flag for a test unless the command line did.
func defaultFlag(t *testing.T, name, value string) {
	t.Helper()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return
	}
	was := flag.Lookup(name).Value.String()
	require.NoError(t, flag.Set(name, value))
	t.Cleanup(func() { require.NoError(t, flag.Set(name, was)) })
}

// machine keeps two registries and the world in step.
type machine struct {
	clock      *registrytest.Clock
	engines    []engine
	registries []*registry.Registry
	world      *world
	operations uint64 // decided so far
	lastID     uint64
	lastAudit  uint64

	outcomes map[string]map[string]int // how often an operation ended how
}

// newID returns the id after the last one: ids sort by creation, and an operation that begins with
// the same lastID makes the same ids.
func (m *machine) newID() uuid.UUID {
	m.lastID++
	return numbered(m.lastID)
}

// newAuditID is newID for the audit trail, which the world knows nothing of.
func (m *machine) newAuditID() uuid.UUID {
	m.lastAudit++
	return numbered(m.lastAudit)
}

// numbered returns the n-th id.
func numbered(n uint64) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:], n<<16)
	id[6], id[8] = 0x70, 0x80 // UUIDv7
	return id
}

// check is one run.
func (m *machine) check(t *rapid.T) {
	m.clock.Set(registrytest.Start)
	m.world, m.operations = &world{newID: m.newID}, 0
	for _, reg := range m.registries {
		clearAll(t, reg)
	}
	for _, o := range []op{ // what most operations need
		op1((*registry.Registry).CreateProvider, (*world).createProvider, registry.ProviderInput{Name: "a"}),
		op1((*registry.Registry).CreateProvider, (*world).createProvider, registry.ProviderInput{Name: "z.ai"}),
	} {
		m.step(t, m.decide("setup", o))
	}
	for i, p := range m.world.providers {
		m.step(t, m.decide("setup", op1((*registry.Registry).CreateModels, (*world).createModels, []registry.ModelInput{
			{ProviderID: p.ID, ModelID: "gpt-4", Rates: money.Rates{"input": 500_000, "output": 3}},
			{ProviderID: p.ID, ModelID: "B", Rates: money.Rates{"input": 500_000}}, // costs of some requests are known
			{ProviderID: p.ID, ModelID: "a"},
		})))
		m.step(t, m.decide("setup", op1((*registry.Registry).AddAPIKey, (*world).addAPIKey,
			registry.KeyInput{ProviderID: p.ID, APIKey: secret(i)})))
	}
	for _, name := range []string{"a", "B", "é"} {
		m.step(t, m.decide("setup", do2((*registry.Registry).SetSetting, (*world).setSetting, name, "")))
	}
	t.Repeat(map[string]func(*rapid.T){
		"": m.agree,
		"next": func(t *rapid.T) {
			switch name := draw(t, "next", actions...); name {
			case "clock":
				m.clock.Advance(draw(t, "by", 333*time.Nanosecond, time.Microsecond, 1500*time.Millisecond, 14*time.Minute,
					time.Hour, 13*time.Hour, 24*time.Hour, 40*24*time.Hour, -time.Microsecond, -time.Hour, -25*time.Hour))
			case "InTx":
				m.step(t, m.transaction(t, 0))
			default:
				m.step(t, m.decide(name, operations[name](m.inputs(t))))
			}
		},
	})
}

// call is an operation, or a transaction of calls, and what is to come of it.
type call struct {
	op
	lastID uint64 // before it
	want   outcome

	inner    []call
	isTx     bool
	rollback bool
}

// outcome is what an operation returned, as text.
type outcome struct{ value, class string }

// decide calls an operation on the world.
func (m *machine) decide(name string, o op) call {
	m.lastID = m.operations << 12
	m.operations++
	c := call{op: o, lastID: m.lastID}
	c.name = name
	next := m.world.clone()
	next.now = micro(m.clock.Now())
	value, err := o.onWorld(next)
	if err == nil {
		m.world = next
	}
	c.want = outcomeOf(value, err)
	if m.outcomes[name] == nil {
		m.outcomes[name] = map[string]int{}
	}
	m.outcomes[name][c.want.class]++
	return c
}

// transaction decides a transaction.
func (m *machine) transaction(t *rapid.T, depth int) call {
	before := m.world
	c := call{isTx: true}
	for range draw(t, "operations of the transaction", 3, 0, 1, 2, 4, 5) {
		switch name := draw(t, "next within", actions...); {
		case name != "InTx" && name != "clock":
			c.inner = append(c.inner, m.decide(name, operations[name](m.inputs(t))))
		case depth < 2:
			c.inner = append(c.inner, m.transaction(t, depth+1))
		}
	}
	if c.rollback = rapid.Bool().Draw(t, "rollback"); c.rollback {
		m.world = before
	}
	return c
}

// step makes a call on both registries.
func (m *machine) step(t *rapid.T, c call) {
	for i, reg := range m.registries {
		m.run(t, m.engines[i].name, reg, c)
	}
}

func (m *machine) run(t *rapid.T, name string, reg *registry.Registry, c call) {
	if !c.isTx {
		m.lastID, m.lastAudit = c.lastID, c.lastID
		value, err := c.onRegistry(t.Context(), reg)
		got := outcomeOf(value, err)
		if got != c.want {
			t.Fatalf("%s on %s %s\n got %s\nwant %s\nerror %v", c.name, name, c.input, got, c.want, err)
		}
		return
	}
	err := reg.InTx(t.Context(), func(tx *registry.Registry) error {
		for _, inner := range c.inner {
			m.run(t, name, tx, inner)
		}
		if c.rollback {
			return errRollback
		}
		return nil
	})
	if c.rollback != (err != nil) || c.rollback && !errors.Is(err, errRollback) {
		t.Fatalf("InTx on %s: rollback %t: %v", name, c.rollback, err)
	}
}

// agree compares all rows.
func (m *machine) agree(t *rapid.T) {
	want := m.world.dump()
	for i, reg := range m.registries {
		if got := dumpRows(t, reg); got != want {
			t.Fatalf("rows on %s:\n%s", m.engines[i].name, firstDifference(got, want))
		}
	}
	var trails, seals []string
	for _, reg := range m.registries {
		seals = append(seals, dumpSeals(t, reg))
		trail, err := reg.Client().AuditEntry.Query().Order(auditentry.ByID()).All(t.Context())
		require.NoError(t, err)
		trails = append(trails, render(trail))
	}
	if seals[0] != seals[1] {
		t.Fatalf("histograms and digests on %s and %s:\n%s", m.engines[1].name, m.engines[0].name, firstDifference(seals[1], seals[0]))
	}
	if trails[0] != trails[1] {
		t.Fatalf("audit trail on %s and %s:\n%s", m.engines[1].name, m.engines[0].name, firstDifference(trails[1], trails[0]))
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
			return fmt.Sprintf(" got %s\nwant %s", gi, wi)
		}
	}
	return ""
}

// report logs what was covered.
func (m *machine) report(t *testing.T) {
	t.Helper()
	all := 0
	for _, name := range slices.Sorted(maps.Keys(m.outcomes)) {
		t.Logf("%-22s %v", name, m.outcomes[name])
		for _, n := range m.outcomes[name] {
			all += n
		}
	}
	t.Logf("%d operations on each", all)
}

// clearAll deletes all rows.
func clearAll(t *rapid.T, reg *registry.Registry) {
	ctx, c := t.Context(), reg.Past()
	for _, table := range []interface {
		Exec(context.Context) (int, error)
	}{
		c.UsageEvent.Delete(), c.UsageTotal.Delete(), c.UsageTotalQuarter.Delete(), c.Usage.Delete(), c.UsageQuarter.Delete(), c.Price.Delete(), c.Model.Delete(), c.ModelFamily.Delete(), c.APIKey.Delete(),
		c.SDKVersion.Delete(), c.DiscoveryLog.Delete(), c.Provider.Delete(), c.Setting.Delete(), c.AuditEntry.Delete(),
	} {
		_, err := table.Exec(ctx)
		require.NoError(t, err)
	}
}

// dumpSeals returns the histograms and digests of all periods.
func dumpSeals(t *rapid.T, reg *registry.Registry) string {
	ctx, c := t.Context(), reg.Client()
	periods, err := c.Usage.Query().Order(usage.ByID()).Select(usage.FieldID, usage.FieldLatencyHistogram, usage.FieldDigest).All(ctx)
	require.NoError(t, err)
	totals, err := c.UsageTotal.Query().Order(usagetotal.ByID()).Select(usagetotal.FieldID, usagetotal.FieldLatencyHistogram, usagetotal.FieldDigest).All(ctx)
	require.NoError(t, err)
	quarters, err := c.UsageQuarter.Query().Order(usagequarter.ByID()).
		Select(usagequarter.FieldID, usagequarter.FieldLatencyHistogram, usagequarter.FieldDigest).All(ctx)
	require.NoError(t, err)
	sums, err := c.UsageTotalQuarter.Query().Order(usagetotalquarter.ByID()).
		Select(usagetotalquarter.FieldID, usagetotalquarter.FieldLatencyHistogram, usagetotalquarter.FieldDigest).All(ctx)
	require.NoError(t, err)
	return render([]any{periods, totals, quarters, sums})
}

// dumpRows returns all columns of all rows as text, one row a line; of what is random in events, and of histograms and
// digests, which dumpSeals has, nothing.
func dumpRows(t *rapid.T, reg *registry.Registry) string {
	ctx, c := t.Context(), reg.Client()
	var all []any
	add := func(rows any, err error) {
		require.NoError(t, err)
		all = append(all, rows)
	}
	add(c.Provider.Query().Order(provider.ByID()).All(ctx))
	add(c.ModelFamily.Query().Order(modelfamily.ByID()).All(ctx))
	add(c.Model.Query().Order(model.ByID()).All(ctx))
	add(c.Price.Query().Order(price.ByID()).All(ctx))
	add(c.APIKey.Query().Order(apikey.ByID()).All(ctx))
	periods := func(rows []*ent.Usage, err error) {
		for _, u := range rows { // which the model does not have
			u.LatencyHistogram, u.Digest = nil, nil
		}
		add(rows, err)
	}
	totals := func(rows []*ent.UsageTotal, err error) {
		for _, u := range rows {
			u.LatencyHistogram, u.Digest = nil, nil
		}
		add(rows, err)
	}
	quarters, err := c.UsageQuarter.Query().Order(usagequarter.ByID()).All(ctx)
	periods(like[ent.Usage](t, quarters), err)
	periods(c.Usage.Query().Order(usage.ByID()).All(ctx))
	sums, err := c.UsageTotalQuarter.Query().Order(usagetotalquarter.ByID()).All(ctx)
	totals(like[ent.UsageTotal](t, sums), err)
	totals(c.UsageTotal.Query().Order(usagetotal.ByID()).All(ctx))
	events, err := c.UsageEvent.Query().All(ctx)
	for _, e := range events {
		if e.RequestID == e.ID.String() {
			e.RequestID = ""
		}
		e.ID = uuid.Nil
	}
	slices.SortFunc(events, compareEvents)
	add(events, err)
	add(c.DiscoveryLog.Query().Order(discoverylog.ByID()).All(ctx))
	add(c.SDKVersion.Query().Order(sdkversion.ByID()).All(ctx))
	add(c.Setting.Query().Order(setting.ByID()).All(ctx))
	return render(all)
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

// classes are what an error can be told to be.
var classes = []error{
	registry.ErrNotFound, registry.ErrConflict, registry.ErrInvalidData, registry.ErrForeignKey,
	registry.ErrNoKeyAvailable, registry.ErrClosed, registry.ErrSchema, registry.ErrBusy, registry.ErrReadOnly,
	registry.ErrDiskFull, registry.ErrCorrupt, registry.ErrUnavailable, registry.ErrDenied,
	registry.ErrUnsupported, registry.ErrUncertain, registry.ErrExhausted, context.Canceled, context.DeadlineExceeded,
}

func outcomeOf(value any, err error) outcome {
	if err == nil {
		return outcome{render(value), "ok"}
	}
	var o outcome
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
		o.value = render(why)
	}
	return o
}

func (o outcome) String() string { return o.class + ": " + o.value }

// op is an operation with its inputs.
type op struct {
	name       string
	input      string
	onRegistry func(context.Context, *registry.Registry) (any, error)
	onWorld    func(*world) (any, error)
}

// op1 is an operation of one input that returns something; op0 to op3 and do1 to do3 are of more or
// fewer, and of those that return an error alone.
func op1[A, R any](call func(*registry.Registry, context.Context, A) (R, error), model func(*world, A) (R, error), a A) op {
	return op{
		input:      fmt.Sprintf("%+v", a),
		onRegistry: func(ctx context.Context, reg *registry.Registry) (any, error) { return call(reg, ctx, a) },
		onWorld:    func(w *world) (any, error) { return model(w, a) },
	}
}

func op0[R any](call func(*registry.Registry, context.Context) (R, error), model func(*world) (R, error)) op {
	return op1(func(reg *registry.Registry, ctx context.Context, _ struct{}) (R, error) { return call(reg, ctx) },
		func(w *world, _ struct{}) (R, error) { return model(w) }, struct{}{})
}

func op2[A, B, R any](call func(*registry.Registry, context.Context, A, B) (R, error), model func(*world, A, B) (R, error), a A, b B) op {
	o := op1(func(reg *registry.Registry, ctx context.Context, a A) (R, error) { return call(reg, ctx, a, b) },
		func(w *world, a A) (R, error) { return model(w, a, b) }, a)
	o.input += fmt.Sprintf(" %+v", b)
	return o
}

func op3[A, B, C, R any](call func(*registry.Registry, context.Context, A, B, C) (R, error), model func(*world, A, B, C) (R, error), a A, b B, c C) op {
	o := op2(func(reg *registry.Registry, ctx context.Context, a A, b B) (R, error) { return call(reg, ctx, a, b, c) },
		func(w *world, a A, b B) (R, error) { return model(w, a, b, c) }, a, b)
	o.input += fmt.Sprintf(" %+v", c)
	return o
}

func do1[A any](call func(*registry.Registry, context.Context, A) error, model func(*world, A) error, a A) op {
	return op1(func(reg *registry.Registry, ctx context.Context, a A) (bool, error) { return true, call(reg, ctx, a) },
		func(w *world, a A) (bool, error) { return true, model(w, a) }, a)
}

func do2[A, B any](call func(*registry.Registry, context.Context, A, B) error, model func(*world, A, B) error, a A, b B) op {
	return op2(func(reg *registry.Registry, ctx context.Context, a A, b B) (bool, error) {
		return true, call(reg, ctx, a, b)
	},
		func(w *world, a A, b B) (bool, error) { return true, model(w, a, b) }, a, b)
}

func do3[A, B, C any](call func(*registry.Registry, context.Context, A, B, C) error, model func(*world, A, B, C) error, a A, b B, c C) op {
	return op3(func(reg *registry.Registry, ctx context.Context, a A, b B, c C) (bool, error) {
		return true, call(reg, ctx, a, b, c)
	},
		func(w *world, a A, b B, c C) (bool, error) { return true, model(w, a, b, c) }, a, b, c)
}

// actions are what a step can be, each as often as it is to be drawn.
var actions = func() (names []string) {
	for name, times := range map[string]int{
		"clock": 5, "InTx": 6, "RecordUsage": 12, "UpdateModelPricing": 5, "CreateProvider": 2, "CreateFamily": 2, "CreateModel": 5, "AddAPIKey": 4, "DegradeKey": 4,
		"GetUsageStats": 4, "GetLeastUsedKey": 4, "IncrementUsage": 2, "ListModels": 3, "SetSetting": 2,
	} {
		names = append(names, slices.Repeat([]string{name}, times)...)
	}
	for name := range operations {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}()

type reg = registry.Registry

// operations are all of them, with inputs that fit the world and some that do not.
var operations = map[string]func(in inputs) op{
	"CreateProvider": func(in inputs) op { return op1((*reg).CreateProvider, (*world).createProvider, in.newProvider()) },
	"GetProvider":    func(in inputs) op { return op1((*reg).GetProvider, (*world).getProvider, in.provider()) },
	"FindProvider":   func(in inputs) op { return op1((*reg).FindProvider, (*world).findProvider, in.lookup()) },
	"ListProviders": func(inputs) op {
		return op0(func(r *reg, ctx context.Context) ([]*ent.Provider, error) {
			return r.ListProviders(ctx, registry.ProviderFilter{Limit: registry.MaxLimit})
		}, (*world).listProviders)
	},
	"UpdateProvider": func(in inputs) op {
		p := in.newProvider()
		return op2((*reg).UpdateProvider, (*world).updateProvider, in.provider(), registry.ProviderUpdate{
			Name: maybe(in, "name", p.Name), DisplayName: maybe(in, "display name", p.DisplayName), BaseURL: maybe(in, "URL", p.BaseURL),
			AuthMethod: maybe(in, "auth", p.AuthMethod), Description: maybe(in, "description", p.Description),
		})
	},
	"DeleteProvider": func(in inputs) op { return do1((*reg).DeleteProvider, (*world).deleteProvider, in.provider()) },
	"UndeleteProvider": func(in inputs) op {
		return op1((*reg).UndeleteProvider, (*world).undeleteProvider, in.provider())
	},
	"PurgeProvider": func(in inputs) op { return do1((*reg).PurgeProvider, (*world).purgeProvider, in.provider()) },
	"CreateFamily": func(in inputs) op {
		return op1((*reg).CreateFamily, (*world).createFamily,
			registry.FamilyInput{ProviderID: in.provider(), Name: in.name(), Description: in.prose()})
	},
	"ListFamilies": func(in inputs) op {
		return op1(func(r *reg, ctx context.Context, id uuid.UUID) ([]*ent.ModelFamily, error) {
			return r.ListFamilies(ctx, registry.FamilyFilter{ProviderID: id, Limit: registry.MaxLimit})
		}, (*world).listFamilies, in.provider())
	},

	"CreateModel": func(in inputs) op { return op1((*reg).CreateModel, (*world).createModel, in.newModel()) },
	"CreateModels": func(in inputs) op {
		models := make([]registry.ModelInput, draw(in.T, "models", 2, 0, 1, 3))
		for i := range models {
			models[i] = in.newModel()
		}
		return op1((*reg).CreateModels, (*world).createModels, models)
	},
	"GetModel": func(in inputs) op { return op1((*reg).GetModel, (*world).getModel, in.model()) },
	"FindModel": func(in inputs) op {
		return op2((*reg).FindModel, (*world).findModel, in.provider(), in.lookup())
	},
	"GetModelsByProvider": func(in inputs) op {
		return op1(func(r *reg, ctx context.Context, id uuid.UUID) ([]*ent.Model, error) {
			return r.GetModelsByProvider(ctx, id, registry.Page{Limit: registry.MaxLimit})
		}, (*world).getModelsByProvider, in.provider())
	},
	"ListModels": func(in inputs) op { return op1((*reg).ListModels, (*world).listModels, in.filter()) },
	"UpdateModel": func(in inputs) op {
		m := in.newModel()
		return op2((*reg).UpdateModel, (*world).updateModel, in.model(), registry.ModelUpdate{
			FamilyID: maybe(in, "family", m.FamilyID), Deprecated: maybe(in, "deprecated", in.bool("is deprecated")),
			Name: maybe(in, "name", m.Name), Description: maybe(in, "description", m.Description),
			ContextWindow: maybe(in, "window", m.ContextWindow), MaxOutputTokens: maybe(in, "output", m.MaxOutputTokens),
			SupportsImages: maybe(in, "images", m.SupportsImages), SupportsAudio: maybe(in, "audio", m.SupportsAudio),
			SupportsTools:            maybe(in, "tools", m.SupportsTools),
			SupportsStructuredOutput: maybe(in, "structured", m.SupportsStructuredOutput),
			CanReason:                maybe(in, "reason", m.CanReason), CanStream: maybe(in, "stream", m.CanStream),
		})
	},
	"DeprecateModel": func(in inputs) op { return do2((*reg).DeprecateModel, (*world).deprecateModel, in.model(), in.time()) },
	"DeleteModel":    func(in inputs) op { return do1((*reg).DeleteModel, (*world).deleteModel, in.model()) },
	"UndeleteModel":  func(in inputs) op { return op1((*reg).UndeleteModel, (*world).undeleteModel, in.model()) },
	"PurgeModel":     func(in inputs) op { return do1((*reg).PurgeModel, (*world).purgeModel, in.model()) },
	"UpdateModelPricing": func(in inputs) op {
		rates := in.rates()
		return op2((*reg).UpdateModelPricing, (*world).updateModelPricing, in.model(), registry.PriceInput{
			Rates: rates, Unknown: (len(rates) == 0) != in.rarely("wrong unknown"), ServiceTier: in.tier(), MinContextTokens: draw[int64](in.T, "min context", 0, 0, 0, 0, 0, 0, 100, 100, 200_000, 200_000, -1, 1_000_000_000_001),
			Source: in.text(),
		})
	},
	"PriceAt": func(in inputs) op { return op2((*reg).PriceAt, (*world).priceAt, in.model(), in.time()) },

	"AddAPIKey": func(in inputs) op {
		key := in.secret()
		return op1((*reg).AddAPIKey, (*world).addAPIKey, registry.KeyInput{
			ProviderID: in.provider(), APIKey: key, Keyless: (key == "") != in.rarely("wrong keyless"), Label: in.text(),
		})
	},
	"FindAPIKey": func(in inputs) op { return op2((*reg).FindAPIKey, (*world).findAPIKey, in.provider(), in.secret()) },
	"ListAPIKeys": func(in inputs) op {
		return op1(func(r *reg, ctx context.Context, id uuid.UUID) ([]*ent.APIKey, error) {
			return r.ListAPIKeys(ctx, registry.KeyFilter{ProviderID: id, Limit: registry.MaxLimit})
		}, (*world).listAPIKeys, in.provider())
	},
	"UpdateAPIKey": func(in inputs) op {
		return op2((*reg).UpdateAPIKey, (*world).updateAPIKey, in.key(), registry.KeyUpdate{
			Label: maybe(in, "label", in.text()), Disabled: maybe(in, "disabled", in.bool("is disabled")),
		})
	},
	"DeleteAPIKey":    func(in inputs) op { return do1((*reg).DeleteAPIKey, (*world).deleteAPIKey, in.key()) },
	"GetAPIKey":       func(in inputs) op { return op1((*reg).GetAPIKey, (*world).getAPIKey, in.key()) },
	"UndeleteAPIKey":  func(in inputs) op { return op1((*reg).UndeleteAPIKey, (*world).undeleteAPIKey, in.key()) },
	"PurgeAPIKey":     func(in inputs) op { return do1((*reg).PurgeAPIKey, (*world).purgeAPIKey, in.key()) },
	"GetLeastUsedKey": func(in inputs) op { return op1((*reg).GetLeastUsedKey, (*world).getLeastUsedKey, in.provider()) },
	"DegradeKey": func(in inputs) op {
		return do3((*reg).DegradeKey, (*world).degradeKey, in.key(), in.prose(), draw(in.T, "duration",
			time.Minute, time.Minute, time.Hour, time.Hour, 12*time.Hour, 12*time.Hour, 30*24*time.Hour, 3650*24*time.Hour, time.Nanosecond, 1999*time.Nanosecond, 0, -1, 3650*24*time.Hour+1))
	},
	"RestoreKey": func(in inputs) op { return do1((*reg).RestoreKey, (*world).restoreKey, in.key()) },
	"IncrementUsage": func(in inputs) op {
		return do3((*reg).IncrementUsage, (*world).incrementUsage, in.key(), in.quantity("input"), in.quantity("output"))
	},
	"ResetDailyUsage": func(inputs) op { return op0((*reg).ResetDailyUsage, (*world).resetDailyUsage) },

	"RecordUsage": func(in inputs) op { return do1((*reg).RecordUsage, (*world).recordUsage, in.usage()) },
	"GetUsageStats": func(in inputs) op {
		start, end := in.time(), in.time()
		if end.Before(start) && !in.rarely("wrong order") {
			start, end = end, start
		}
		return op3((*reg).GetUsageStats, (*world).getUsageStats, in.model(), start, end)
	},
	"GetCostBreakdown": func(in inputs) op {
		return op1((*reg).GetCostBreakdown, (*world).getCostBreakdown, in.provider())
	},

	"CreateDiscoveryLog": func(in inputs) op {
		d := registry.DiscoveryInput{Identifier: in.name(), Source: in.text(), LLMModel: in.text(), CacheHit: in.bool("cache hit")}
		if in.bool("of a provider") {
			d.ProviderID = in.provider()
		}
		return op1((*reg).CreateDiscoveryLog, (*world).createDiscoveryLog, d)
	},
	"UpdateDiscoveryResult": func(in inputs) op {
		return op3(func(r *reg, ctx context.Context, id uuid.UUID, found int, status discoverylog.Status) (*ent.DiscoveryLog, error) {
			return r.UpdateDiscoveryResult(ctx, id, results[found].data, status)
		}, func(w *world, id uuid.UUID, found int, status discoverylog.Status) (*ent.DiscoveryLog, error) {
			return w.updateDiscoveryResult(id, results[found], status)
		}, in.log(), draw(in.T, "result", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9), draw[discoverylog.Status](in.T, "status", "success", "success", "failed", "failed", "pending", "unknown"))
	},
	"GetRecentDiscoveries": func(in inputs) op {
		return op1(func(r *reg, ctx context.Context, limit int) ([]*ent.DiscoveryLog, error) {
			return r.GetRecentDiscoveries(ctx, registry.DiscoveryFilter{Limit: limit})
		}, (*world).getRecentDiscoveries, draw(in.T, "limit", 0, 1, 2, 1000, -1, 1001))
	},
	"CreateSDKVersion": func(in inputs) op {
		return op1((*reg).CreateSDKVersion, (*world).createSDKVersion, registry.SDKVersionInput{
			ProviderID: in.provider(), Version: in.name(), SDKPath: in.text(), GeneratedAt: in.time(), TestResults: in.prose(),
			CompilationStatus: draw[sdkversion.CompilationStatus](in.T, "status", "", "success", "success", "success", "failed", "failed", "pending", "unknown"),
			CodeHash:          draw(in.T, "hash", "", "", hashOf("x"), hashOf("x"), hashOf("y"), hashOf("y"), strings.ToUpper(hashOf("x")), "f00"),
		})
	},
	"ListSDKVersions": func(in inputs) op {
		return op1(func(r *reg, ctx context.Context, id uuid.UUID) ([]*ent.SDKVersion, error) {
			return r.ListSDKVersions(ctx, registry.SDKVersionFilter{ProviderID: id, Limit: registry.MaxLimit})
		}, (*world).listSDKVersions, in.provider())
	},
	"LatestSDKVersion": func(in inputs) op { return op1((*reg).LatestSDKVersion, (*world).latestSDKVersion, in.provider()) },
	"GetSetting":       func(in inputs) op { return op1((*reg).GetSetting, (*world).getSetting, in.lookup()) },
	"SetSetting":       func(in inputs) op { return do2((*reg).SetSetting, (*world).setSetting, in.name(), in.prose()) },
	"DeleteSetting":    func(in inputs) op { return do1((*reg).DeleteSetting, (*world).deleteSetting, in.lookup()) },
	"ListSettings": func(inputs) op {
		return op0(func(r *reg, ctx context.Context) ([]*ent.Setting, error) {
			return r.ListSettings(ctx, registry.SettingFilter{Limit: registry.MaxLimit})
		}, (*world).listSettings)
	},
}

// results of discoveries.
var results = []result{
	{},
	{data: map[string]any{"b": 1, "a": []int{1, 2}}, json: `{"a":[1,2],"b":1}`},
	{data: []byte(`{"z": 1.50, "a": "\u0000", "a": 1e400}`), json: `{"z":1.50,"a":"\u0000","a":1e400}`},
	{data: "text <é>", json: `"text \u003cé\u003e"`},
	{data: json.RawMessage("null"), json: "null"},
	{data: 7, json: "7"},
	{data: errors.New("not\x00 found\u202e:\n\xff"), message: "not found:\n\ufffd"},
	{data: errors.New(strings.Repeat("é", 5000)), message: strings.Repeat("é", 4096)},
	{data: []byte("{"), invalid: true},
	{data: math.NaN(), invalid: true},
}

// inputs draws inputs that fit a world.
type inputs struct {
	*rapid.T
	world *world
}

func (m *machine) inputs(t *rapid.T) inputs {
	m.world.now = micro(m.clock.Now())
	return inputs{t, m.world}
}

// draw returns one of some values, each as likely as the others: rapid.SampledFrom prefers the first.
func draw[T any](t *rapid.T, label string, from ...T) T {
	return rapid.Custom(func(t *rapid.T) T { return from[random(t, bits.Len(uint(len(from)))+4)%len(from)] }).Draw(t, label)
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
	return in.id("provider", live(in, in.world.providers, func(p *ent.Provider) (uuid.UUID, *time.Time) { return p.ID, p.DeletedAt }))
}

func (in inputs) model() uuid.UUID {
	return in.id("model", live(in, in.world.models, func(m *ent.Model) (uuid.UUID, *time.Time) { return m.ID, m.DeletedAt }))
}

func (in inputs) key() uuid.UUID {
	return in.id("key", live(in, in.world.keys, func(k *ent.APIKey) (uuid.UUID, *time.Time) { return k.ID, k.DeletedAt }))
}

func (in inputs) log() uuid.UUID {
	return in.id("log", live(in, in.world.logs, func(l *ent.DiscoveryLog) (uuid.UUID, *time.Time) { return l.ID, nil }))
}

// texts that are refused in names; those with lines are prose.
var invalidTexts = []string{
	"", " ", strings.Repeat("é", 3000), "a\x07b", "a\nb", "a\tb\r", "a\x00b", "a\x7fb", "a\xff\xfeb", "a\u202eb", "a\u2028b", "\x00",
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
	return draw(in.T, "name", "gpt-4", "GPT-4", "gpt_4", "gpt.4", "gpt4", "B", "a", "Z", "é", "É", "ß", "%", `\`, "10", "9", "a b", "💡", "ｚ",
		strings.Repeat("é", 128), "👩\u200d🚀")
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

// urls are base URLs, and whether they are valid.
var urls = map[string]bool{
	"": true, "https://api.example.com/v1": true, "http://localhost:11434": true, "http://[::1]:8080/v1": true,
	"ftp://example.com": false, "https://user:secret@example.com": false, "https://example.com?key=1": false,
	"https://example.com:0": false, "example.com": false, "https:///v1": false,
}

func (in inputs) newProvider() registry.ProviderInput {
	p := registry.ProviderInput{
		Name: in.slug(), DisplayName: in.text(), Description: in.prose(), BaseURL: "https://api.example.com/v1",
		AuthMethod: draw[provider.AuthMethod](in.T, "auth method", "", "bearer", "header", "query", "oauth", "aws_sigv4", "none"),
	}
	if in.rarely("other URL") {
		p.BaseURL = draw(in.T, "URL", slices.Sorted(maps.Keys(urls))...)
	}
	if in.rarely("bad auth method") {
		p.AuthMethod = "basic"
	}
	return p
}

func (in inputs) newModel() registry.ModelInput {
	m := registry.ModelInput{
		ProviderID: in.provider(), ModelID: in.name(), Description: in.prose(), Rates: in.rates(),
		ContextWindow: in.window("context window"), MaxOutputTokens: in.window("output tokens"),
		SupportsImages: in.bool("images"), SupportsAudio: in.bool("audio"), SupportsTools: in.bool("tools"),
		SupportsStructuredOutput: in.bool("structured"), CanReason: in.bool("reason"), CanStream: in.bool("stream"),
	}
	if in.bool("named") {
		m.Name, m.PriceSource = in.name(), in.text()
	}
	if in.bool("of a family") {
		m.FamilyID = in.family(m.ProviderID)
	}
	return m
}

// family returns a family, rarely one of another provider.
func (in inputs) family(providerID uuid.UUID) uuid.UUID {
	other := in.rarely("family of another provider")
	var ids []uuid.UUID
	for _, f := range in.world.families {
		if (f.ProviderID == providerID) != other {
			ids = append(ids, f.ID)
		}
	}
	if len(ids) == 0 {
		return uuid.Nil
	}
	return in.id("family", ids)
}

func (in inputs) window(label string) int64 {
	if in.rarely("bad window") {
		return draw[int64](in.T, label, -1, 1_000_000_000_001)
	}
	return draw[int64](in.T, label, 0, 4096, 200_000, 1_000_000_000_000)
}

func (in inputs) rates() money.Rates {
	rates := money.Rates{}
	switch draw(in.T, "kind of rates", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) {
	case 10, 11:
		return nil
	case 12:
		return rates
	case 13: // a dollar a token
		return money.Rates{"input": 1_000_000_000_000_000, "output": 0}
	case 14:
		if !in.bool("bad rates") {
			break
		}
		return draw(in.T, "bad rates", money.Rates{"input": -1}, money.Rates{"output": 1_000_000_000_000_001}, money.Rates{"images": 1}, money.Rates{"": 1})
	}
	for i, name := range meter.Names() {
		if i < 2 && !in.rarely("no rate of "+name) || i >= 2 && in.bool("rate of "+name) && in.bool("really") {
			rates[name] = draw[money.USD](in.T, name, 0, 1, 3, 499_999, 500_000, 500_001, 30_000_000_000, 75_000_000, 9_007_199_254_741)
		}
	}
	return rates
}

func (in inputs) tier() string {
	if in.rarely("bad tier") {
		return draw(in.T, "tier", invalidTexts...)
	}
	return draw(in.T, "tier", "", "", "standard", "batch", "Batch")
}

func (in inputs) secret() string {
	if in.rarely("bad key") {
		return draw(in.T, "key", "sk 1234", strings.Repeat("x", 4097), "sk-0123456789 abcdef", "sk-0123456789\x00abcdef", "sk-0123456789éabcdef")
	}
	return draw(in.T, "key", "", secret(0), secret(1), secret(2), secret(3), strings.Repeat("x", 16), strings.Repeat("~", 4096), "x", "sk-1234")
}

func (in inputs) quantity(label string) int64 {
	if in.rarely("odd " + label) {
		return draw[int64](in.T, label, -1, 1_000_000_000_001, math.MaxInt64, 1_000_000_000_000, 9_000_000_000)
	}
	return draw[int64](in.T, label, 0, 0, 1, 3, 5, 99, 100, 150, 199_999, 200_000, 1_234_567)
}

// time returns a time around now, rarely one far away; in any zone.
func (in inputs) time() time.Time {
	if in.rarely("far time") {
		return draw(in.T, "time", firstTime, firstTime.Add(-time.Microsecond), lastTime, lastTime.Add(time.Hour),
			time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC))
	}
	zone := draw(in.T, "zone", time.UTC, time.FixedZone("", 19800), time.FixedZone("", -28800))
	if in.bool("zero time") {
		return time.Time{}
	}
	return in.world.now.In(zone).Add(draw(in.T, "offset", 0, time.Nanosecond, -time.Nanosecond, -time.Microsecond, -time.Minute,
		-14*time.Minute, -time.Hour, -13*time.Hour, -24*time.Hour, -100*time.Hour, -40*24*time.Hour,
		20*time.Minute, time.Hour, time.Hour+time.Microsecond, 30*time.Hour))
}

func (in inputs) usage() registry.UsageInput {
	u := registry.UsageInput{
		ModelID: in.model(), At: in.time(), Failed: in.bool("failed"), ServiceTier: in.tier(),
		Tokens:  meter.Tokens{InputTokens: in.quantity("input"), OutputTokens: in.quantity("output")},
		Latency: draw(in.T, "latency", 0, 999*time.Microsecond, 7*time.Millisecond, 1234567*time.Microsecond, 7*24*time.Hour),
	}
	if in.bool("named") {
		u.RequestID = draw(in.T, "request id", "a", "b", "c", "d", "e", "f", "a\x00", strings.Repeat("x", 129))
	}
	if u.Failed && in.bool("said how") {
		u.ErrorClass, u.HTTPStatus = draw(in.T, "error class", "", "rate_limited", "server", "a\x00"), draw(in.T, "status", 0, 429, 500, 99, 600)
	}
	if in.rarely("bad latency") {
		u.Latency = draw(in.T, "latency", -1, 7*24*time.Hour+1)
	}
	if in.bool("other meters") {
		u.CacheReadTokens, u.CacheWriteTokens, u.ReasoningTokens = in.quantity("cache read"), in.quantity("cache write"), in.quantity("reasoning")
	}
	var keys []uuid.UUID
	of := first(in.world.models, func(m *ent.Model) bool { return m.ID == u.ModelID })
	for _, k := range in.world.keys {
		if of != nil && k.ProviderID == of.ProviderID {
			keys = append(keys, k.ID)
		}
	}
	if u.APIKeyID = in.id("key", keys); in.rarely("any key") {
		u.APIKeyID = in.key()
	}
	if len(in.world.usage) > 0 && in.bool("in a period that there is") {
		period := draw(in.T, "period", slices.Concat(in.world.quarters, in.world.usage)...)
		u.ModelID, u.APIKeyID, u.At = period.ModelID, period.APIKeyID, period.PeriodStart.Add(time.Minute)
	}
	return u
}

func (in inputs) filter() registry.ModelFilter {
	f := registry.ModelFilter{
		Order:          draw(in.T, "order", registry.OrderByModelID, registry.OrderByInputCost, registry.OrderByOutputCost, registry.OrderByContextWindow),
		Limit:          draw(in.T, "limit", 0, 0, 1, 2, 1000),
		WithDeprecated: in.bool("deprecated"),
		Deleted:        in.rarely("deleted"),
	}
	if in.bool("not the first page") {
		f.After = in.model()
	}
	if in.bool("by flags") {
		for _, flag := range []*bool{
			&f.SupportsImages, &f.SupportsAudio, &f.SupportsTools, &f.SupportsStructuredOutput, &f.CanReason, &f.CanStream,
		} {
			*flag = in.rarely("flag")
		}
		f.MinContextWindow = draw[int64](in.T, "min window", 0, 4096, 4097)
	}
	if in.bool("search") {
		f.Search = draw(in.T, "text", "g", "GPT", "t-4", "_", ".", "%", `\`, "é", "ß", "💡", "", " ", "a b", "K", "É")
	}
	if in.bool("by owner") {
		f.ProviderID = in.provider()
		if in.bool("by family") {
			f.FamilyID = in.family(f.ProviderID)
		}
	}
	if in.bool("by cost") {
		f.MaxInputCost = maybe(in, "max input cost", draw[money.USD](in.T, "max input cost", -1, 0, 3, 500_000, 30_000_000_000))
		f.MaxOutputCost = maybe(in, "max output cost", draw[money.USD](in.T, "max output cost", -1, 0, 3, 500_000, 30_000_000_000))
	}
	if in.rarely("bad filter") {
		return draw(in.T, "filter", registry.ModelFilter{Search: "a\x00b"}, registry.ModelFilter{MinContextWindow: -1},
			registry.ModelFilter{Order: 4}, registry.ModelFilter{Limit: 1001}, registry.ModelFilter{Limit: -1})
	}
	return f
}
