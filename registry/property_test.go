package registry_test

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// Unless the command line says otherwise: runs, and operations of one on average. Each run of the tests has other ones.
const (
	propertyChecks = 40
	propertySteps  = 60
	propertyAtOnce = 4 // machines, which share the runs
)

// TestProperty calls random operations with random inputs on SQLite, on PostgreSQL and on a world,
// which is the specification. After each of them all three agree on what was returned, on the class
// of the error and on every row, digits included. Each engine makes ids of its own, which stand for the same rows.
func TestProperty(t *testing.T) {
	checks := sample.Of(propertyChecks)
	machines := min(propertyAtOnce, checks)
	setDefault(t, "rapid.checks", strconv.Itoa(checks/machines))
	setDefault(t, "rapid.steps", strconv.Itoa(propertySteps))
	setDefault(t, "rapid.nofailfile", "true") // a failure tells its seed
	t.Parallel()                              // only now: nobody else reads flags before
	for i := range machines {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			rapid.Check(t, m.check)
			m.report(t)
		})
	}
}

// setDefault sets a flag unless the command line did.
func setDefault(t *testing.T, name, value string) {
	t.Helper()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if !given {
		require.NoError(t, flag.Set(name, value))
	}
}

// machine keeps two registries and the world in step.
type machine struct {
	clock *registrytest.Clock
	sides []*side
	world *world
	ids   names // those of the world
	last  uint64

	outcomes map[string]map[string]int // how often an operation ended how
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{clock: registrytest.NewClock(registrytest.Start), outcomes: map[string]map[string]int{}}
	for _, e := range []engine{onSQLite, onPostgres} {
		reg := e.new(t, registry.WithClock(m.clock.Now), registry.WithDurability(registry.DurabilityRelaxed),
			registry.WithClassifier(classifySaid))
		m.sides = append(m.sides, &side{engine: e.name, reg: reg, world: &m.ids})
	}
	return m
}

// newID returns the world's next id: they sort by creation, as those of the engines do.
func (m *machine) newID() (id uuid.UUID) {
	m.last++
	binary.BigEndian.PutUint64(id[:], m.last<<16)
	id[6], id[8] = 0x70, 0x80 // UUIDv7
	return id
}

// check is one run. In a run in which keys are leased the clock never goes back: how leases of clocks that differ
// count has tests of its own.
func (m *machine) check(t *rapid.T) {
	m.clock.Set(registrytest.Start)
	m.ids = newNames()
	m.world = &world{newID: m.newID}
	for _, s := range m.sides {
		s.clear(t)
	}
	actions, clock := poolActions, forward
	if draw(t, "clock may go back", false, false, true) {
		actions, clock = ledgerActions, slices.Concat(forward, back)
	}
	m.setUp(t)
	t.Repeat(map[string]func(*rapid.T){
		"": m.agree,
		"next": func(t *rapid.T) {
			switch name := draw(t, "next", actions...); name {
			case "clock":
				m.clock.Advance(draw(t, "by", clock...))
			case "InTx":
				m.transaction(t, 0, actions)
			default:
				m.step(t, name, operations[name](m.inputs(t)))
			}
		},
	})
	var trails []string
	for _, s := range m.sides {
		trails = append(trails, s.ids.show(s.trail(t, uuid.Nil)))
		report, err := s.reg.VerifyLedger(t.Context())
		require.NoError(t, err)
		require.Empty(t, report.Differences, s.engine)
	}
	m.alike(t, "audit trail", trails)
}

// How the clock moves.
var (
	forward = []time.Duration{
		333 * time.Nanosecond, time.Microsecond, 1500 * time.Millisecond, 14 * time.Minute, time.Hour, 13 * time.Hour,
		24 * time.Hour, 40 * 24 * time.Hour,
	}
	back = []time.Duration{-time.Microsecond, -time.Hour, -25 * time.Hour}
)

// setUp creates what most operations need.
func (m *machine) setUp(t *rapid.T) {
	for _, name := range []string{"a", "z.ai"} {
		in := registry.ProviderInput{Name: name}
		m.step(t, "setup", op1((*registry.Registry).CreateProvider, (*world).createProvider, in))
	}
	for i, p := range m.world.providers {
		m.step(t, "setup", op1((*registry.Registry).CreateModels, (*world).createModels, []registry.ModelInput{
			{ProviderID: p.ID, ModelID: "gpt-4", Rates: money.Rates{"input": 500_000, "output": 3}},
			{ProviderID: p.ID, ModelID: "B", Rates: money.Rates{"input": 500_000}}, // costs of some requests are known
			{ProviderID: p.ID, ModelID: "a"},
		}))
		group := registry.QuotaGroupInput{ProviderID: p.ID, Name: "g", Limits: registry.Limits{TokensPerDay: 1000}}
		m.step(t, "setup", op1((*registry.Registry).CreateQuotaGroup, (*world).createQuotaGroup, group))
		keys := []registry.KeyInput{
			{ProviderID: p.ID, APIKey: secret(i)},
			{ProviderID: p.ID, APIKey: secret(4), Priority: 1,
				Limits: registry.Limits{RequestsPerMinute: 2, Concurrency: 1}},
			{ProviderID: p.ID, APIKey: secret(5), QuotaGroupID: m.world.groups[i].ID,
				Limits: registry.Limits{RequestsPerDay: 3}},
		}
		for _, in := range keys {
			m.step(t, "setup", op1((*registry.Registry).AddAPIKey, (*world).addAPIKey, in))
		}
	}
	for _, name := range []string{"a", "B", "é"} {
		m.step(t, "setup", do2((*registry.Registry).SetSetting, (*world).setSetting, name, ""))
	}
}

// step calls an operation on both registries and on the world.
func (m *machine) step(t *rapid.T, name string, o op) {
	before := m.inputs(t).world.now
	returned := make([]outcome, len(m.sides))
	next := m.world.clone()
	for i, s := range m.sides {
		value, err := o.onSide(t.Context(), s)
		if i == 0 {
			next.seen = m.seen(value)
		}
		returned[i] = outcomeOf(before, value, err)
		returned[i].value = s.ids.rename(returned[i].value)
	}
	var chance []instants
	if o.fails != nil {
		for _, s := range m.sides {
			chance = append(chance, s.instants(t, o.fails()))
		}
		next.seen.instants = chance[0]
	}
	value, err := o.onWorld(next)
	if err == nil || errors.Is(err, errOther) {
		m.world = next
	}
	want := outcomeOf(before, value, err)
	want.value = m.ids.rename(want.value)
	m.note(name, want.class)
	for i, got := range returned {
		if got.class != want.class || got.value != want.value {
			t.Fatalf("%s on %s %s\n got %s\nwant %s\nerrors %v\n and %v", name, m.sides[i].engine, o.input, got, want,
				got.err, err)
		}
	}
	for i := 1; i < len(chance); i++ {
		m.sides[i].align(t, chance[i], chance[0], next.chance)
	}
}

// seen returns what the first engine chose.
func (m *machine) seen(value any) (f facts) {
	switch v := value.(type) {
	case *registry.Lease:
		if v != nil {
			f.key = m.sides[0].worlds(v.KeyID)
		}
	case []registry.KeyVerdict:
		for _, k := range v {
			if k.Next {
				f.key = m.sides[0].worlds(k.ID)
			}
		}
	}
	return f
}

// transaction calls operations within one on each registry.
func (m *machine) transaction(t *rapid.T, depth int, actions []string) {
	before := m.world
	m.world = before.clone()
	m.world.inTx = true
	rollback := rapid.Bool().Draw(t, "rollback")
	err := m.within(t, m.sides, func() error {
		for range draw(t, "operations of the transaction", 3, 0, 1, 2, 4, 5) {
			switch name := draw(t, "next within", actions...); {
			case name != "InTx" && name != "clock":
				m.step(t, name, operations[name](m.inputs(t)))
			case depth < 2:
				m.transaction(t, depth+1, actions)
			}
		}
		if rollback {
			return errRollback
		}
		return nil
	})
	if rollback {
		require.ErrorIs(t, err, errRollback)
		m.world = before
		return
	}
	require.NoError(t, err)
	m.world.inTx = before.inTx
}

// within begins a transaction on each of some sides.
func (m *machine) within(t *rapid.T, sides []*side, body func() error) error {
	if len(sides) == 0 {
		return body()
	}
	s := sides[0]
	return s.reg.InTx(t.Context(), func(tx *registry.Registry) error {
		outer := s.reg
		s.reg = tx
		defer func() { s.reg = outer }()
		return m.within(t, sides[1:], body)
	})
}

// agree compares all rows. What the world does not say, both engines say alike.
func (m *machine) agree(t *rapid.T) {
	now := micro(m.clock.Now())
	m.world.now = now
	want := m.ids.rename(m.world.dump())
	others := make([]string, len(m.sides))
	for i, s := range m.sides {
		var got string
		got, others[i] = s.dump(t, now)
		if got = s.ids.rename(got); got != want {
			t.Fatalf("rows on %s:\n%s", s.engine, firstDifference(got, want))
		}
		others[i] = s.ids.show(others[i])
	}
	m.alike(t, "histograms, pools and audit trail", others)
	m.putAway()
}

// alike demands that both engines say the same.
func (m *machine) alike(t *rapid.T, what string, texts []string) {
	if texts[0] != texts[1] {
		t.Fatalf("%s on %s and %s:\n%s",
			what, m.sides[1].engine, m.sides[0].engine, firstDifference(texts[1], texts[0]))
	}
}

// note counts an outcome.
func (m *machine) note(name, class string) {
	if m.outcomes[name] == nil {
		m.outcomes[name] = map[string]int{}
	}
	m.outcomes[name][class]++
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
	t.Log(fmt.Sprint(all) + " operations on each")
}
