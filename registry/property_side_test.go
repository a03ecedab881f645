package registry_test

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// side is one of the registries, with the ids that it has made.
type side struct {
	engine string
	reg    *registry.Registry // within a transaction, that one's
	ids    names
	world  *names            // the world's ids, which have the same names
	leased []*registry.Lease // as they were acquired

	// When it was last dumped: leases that had not been ended, and the end of the audit trail.
	open      []*ent.KeyLease
	away      []*ent.ExpiredLease
	lastEntry uuid.UUID
}

// names are what ids are called: by the order in which they were first shown. So ids of the world and of the engines
// that stand for the same row have the same name.
type names struct {
	numbers map[uuid.UUID]int
	all     []uuid.UUID
}

func newNames() names { return names{numbers: map[uuid.UUID]int{}} }

// rename puts names in the place of ids, and gives new ones to ids that have none.
func (n *names) rename(text string) string {
	return replaceIDs(text, func(id uuid.UUID) string {
		if _, ok := n.numbers[id]; !ok {
			n.numbers[id] = len(n.all)
			n.all = append(n.all, id)
		}
		return nameOf(n.numbers[id])
	})
}

// show puts names in the place of ids; those that have none are not told apart.
func (n *names) show(text string) string {
	return replaceIDs(text, func(id uuid.UUID) string {
		if number, ok := n.numbers[id]; ok {
			return nameOf(number)
		}
		return "#?"
	})
}

func nameOf(number int) string { return "#" + strconv.Itoa(number) }

// replaceIDs replaces all ids in a text, but for the zero one.
func replaceIDs(text string, with func(uuid.UUID) string) string {
	const beforeDash, length = 8, 36
	var b strings.Builder
	done, from := 0, 0
	for {
		dash := strings.IndexByte(text[from:], '-')
		if dash < 0 {
			b.WriteString(text[done:])
			return b.String()
		}
		start := from + dash - beforeDash
		from += dash + 1
		if start < done || start+length > len(text) || text[start+13] != '-' || text[start+18] != '-' {
			continue
		}
		if id, err := uuid.Parse(text[start : start+length]); err == nil && id != uuid.Nil {
			b.WriteString(text[done:start])
			b.WriteString(with(id))
			done = start + length
			from = done
		}
	}
}

// id returns the side's id for one of the world's; itself, if it is of no row.
func (s *side) id(world uuid.UUID) uuid.UUID { return translated(world, s.world, &s.ids) }

// worlds returns the world's id for one of the side's.
func (s *side) worlds(own uuid.UUID) uuid.UUID { return translated(own, &s.ids, s.world) }

func translated(id uuid.UUID, from, to *names) uuid.UUID {
	if number, ok := from.numbers[id]; ok && number < len(to.all) {
		return to.all[number]
	}
	return id
}

// own returns an input with the side's ids.
func own[T any](s *side, input T) T {
	v := reflect.ValueOf(&input).Elem()
	v.Set(s.owned(v))
	return input
}

func (s *side) owned(v reflect.Value) reflect.Value {
	switch value := v.Interface().(type) {
	case uuid.UUID:
		return reflect.ValueOf(s.id(value))
	case time.Time:
		return v
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		copied := reflect.New(v.Type().Elem())
		copied.Elem().Set(s.owned(v.Elem()))
		return copied
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		copied := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			copied.Index(i).Set(s.owned(v.Index(i)))
		}
		return copied
	case reflect.Struct:
		copied := reflect.New(v.Type()).Elem()
		for i := range v.NumField() {
			copied.Field(i).Set(s.owned(v.Field(i)))
		}
		return copied
	default:
		return v
	}
}

// clear deletes all rows.
func (s *side) clear(t *rapid.T) {
	s.ids, s.leased, s.lastEntry = newNames(), nil, uuid.Nil
	ctx, c := t.Context(), s.reg.Past()
	for _, table := range []interface {
		Exec(context.Context) (int, error)
	}{
		c.UsageEvent.Delete(), c.UsageTotal.Delete(), c.UsageTotalQuarter.Delete(), c.Usage.Delete(),
		c.UsageQuarter.Delete(), c.UsageHorizon.Delete(), c.Price.Delete(), c.KeyLease.Delete(),
		c.ExpiredLease.Delete(),
		c.Model.Delete(), c.ModelFamily.Delete(), c.APIKey.Delete(), c.QuotaGroup.Delete(), c.SDKVersion.Delete(),
		c.DiscoveryLog.Delete(), c.Provider.Delete(), c.Setting.Delete(), c.AuditEntry.Delete(),
	} {
		_, err := table.Exec(ctx)
		require.NoError(t, err)
	}
}

// instants are those that chance has a part in: until when a key, its group and its provider are out.
type instants struct{ key, group, provider time.Time }

// instants reads them, of one of the world's keys.
func (s *side) instants(t *rapid.T, key uuid.UUID) (is instants) {
	found, err := s.reg.Client().APIKey.Query().Where(apikey.ID(s.id(key))).
		WithQuotaGroup().WithProvider().All(t.Context())
	require.NoError(t, err)
	for _, k := range found {
		is.key, is.provider = at(k.DegradedUntil), at(k.Edges.Provider.CoolingUntil)
		if g := k.Edges.QuotaGroup; g != nil && g.Observed != nil {
			var said map[string]struct{ Reset time.Time }
			require.NoError(t, json.Unmarshal(g.Observed, &said))
			is.group = said["requests"].Reset
		}
	}
	return is
}

// at returns an instant; the zero time for none.
func at(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// align has the side go on with what chance drew on the other one: each of them adds up to a quarter.
func (s *side) align(t *rapid.T, own, other instants, may []span) {
	for _, of := range []struct{ own, other time.Time }{
		{own: own.key, other: other.key}, {own: own.group, other: other.group},
		{own: own.provider, other: other.provider},
	} {
		if of.own.Equal(of.other) {
			continue
		}
		drawn := func(sp span) bool { return within(of.own, sp.from, sp.to) && within(of.other, sp.from, sp.to) }
		require.True(t, slices.ContainsFunc(may, drawn),
			"out until %s on %s and %s on the other", of.own, s.engine, of.other)
		s.replace(t, of.own, of.other)
	}
}

// replace puts one instant in the place of another on PostgreSQL.
func (s *side) replace(t *rapid.T, was, is time.Time) {
	ctx, c := t.Context(), s.reg.Client()
	for _, statement := range []string{
		"UPDATE api_keys SET degraded_until = $2 WHERE degraded_until = $1",
		"UPDATE providers SET cooling_until = $2 WHERE cooling_until = $1",
	} {
		_, err := c.ExecContext(ctx, statement, was, is)
		require.NoError(t, err)
	}
	for _, statement := range []string{
		"UPDATE quota_groups SET observed = replace(observed::text, $1, $2)::json" +
			" WHERE observed::text LIKE '%' || $1 || '%'",
		"UPDATE audit_log SET after = replace(after::text, $1, $2)::json WHERE after::text LIKE '%' || $1 || '%'",
		"UPDATE audit_log SET before = replace(before::text, $1, $2)::json WHERE before::text LIKE '%' || $1 || '%'",
	} {
		_, err := c.ExecContext(ctx, statement, was.Format(time.RFC3339Nano), is.Format(time.RFC3339Nano))
		require.NoError(t, err)
	}
}
