package bench_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// consumerKinds are what requests are for: nobody; consumers with six ceilings on three levels; the same with tags of
// three dimensions beside that of consumers.
var consumerKinds = []string{"nobody", "ceilings", "dimensions"}

const (
	benchTeams = 10
	benchUsers = 1000
)

// benchTags has how many values the dimensions have.
var benchTags = map[string]int64{"feature": 20, "env": 3, "customer": 1000}

// forConsumers leases keys for consumers in turn, and settles them.
type forConsumers struct {
	ourLeases

	models []uuid.UUID
	users  []uuid.UUID // none: nobody
	tags   bool
	next   atomic.Int64
}

func (o *forConsumers) record(ctx context.Context, r request) error {
	n := o.next.Add(1)
	in := registry.AcquireInput{
		ProviderID: o.provider, ModelID: o.models[(n%benchUsers*5+n/benchUsers%5)%int64(len(o.models))],
		EstimatedTokens: leaseEstimate, TTL: leaseTTL,
	}
	if len(o.users) > 0 {
		in.ConsumerID = o.users[n%int64(len(o.users))]
	}
	if o.tags {
		in.Tags = registry.Tags{}
		for name, values := range benchTags {
			in.Tags[name] = []string{fmt.Sprint(name, n%values)}
		}
	}
	lease, err := o.AcquireKey(ctx, in)
	if err != nil {
		return err
	}
	return lease.Settle(ctx, registry.UsageInput{Tokens: r.tokens, Latency: r.latency})
}

// newBenchConsumers has 50 models; each consumer uses five of them.
func newBenchConsumers(b *testing.B, engine string) leaseDatabase {
	b.Helper()
	d := leaseDatabase{database: newDatabase(b, engine, 1, 50, 100)}
	reg, err := registry.Open(b.Context(), d.name)
	require.NoError(b, err)
	p, err := reg.FindProvider(b.Context(), "p0")
	require.NoError(b, err)
	d.provider = p.ID
	for _, id := range d.keys[0] {
		_, err := reg.UpdateAPIKey(b.Context(), id, registry.KeyUpdate{Limits: &leaseLimits})
		require.NoError(b, err)
	}
	require.NoError(b, reg.Close())
	return d
}

// plenty are ceilings that nobody reaches.
var plenty = registry.Ceilings{Cost: 1_000_000_000 * money.Dollar, Tokens: 1_000_000_000_000_000}

// makeTree makes an organisation of a name, with teams of users.
func makeTree(b *testing.B, reg *registry.Registry, name string) (org uuid.UUID, users []uuid.UUID) {
	b.Helper()
	ctx := b.Context()
	var teams []uuid.UUID
	require.NoError(b, reg.InTx(ctx, func(tx *registry.Registry) error {
		root, err := tx.CreateConsumer(ctx, registry.ConsumerInput{Name: name, Kind: "org"})
		if err != nil {
			return err
		}
		org = root.ID
		for i := range benchTeams + benchUsers {
			in := registry.ConsumerInput{Name: fmt.Sprint(i), Kind: "team", ParentID: org}
			if i >= benchTeams {
				in.Kind, in.ParentID = "user", teams[i%benchTeams]
			}
			c, err := tx.CreateConsumer(ctx, in)
			if err != nil {
				return err
			}
			if i < benchTeams {
				teams = append(teams, c.ID)
			} else {
				users = append(users, c.ID)
			}
		}
		return nil
	}))
	return org, users
}

// forKind opens the registry with what a kind needs.
func (d leaseDatabase) forKind(b *testing.B, kind string) *forConsumers {
	b.Helper()
	ctx := b.Context()
	reg, err := registry.Open(ctx, d.name)
	require.NoError(b, err)
	o := &forConsumers{ourLeases: ourLeases{reg, d.provider}, models: d.models, tags: kind == "dimensions"}
	if kind == "nobody" {
		return o
	}
	var org uuid.UUID
	org, o.users = makeTree(b, reg, "org")
	for _, in := range []registry.BudgetInput{
		{Name: "org"}, {Name: "team", Each: true, EachKind: "team"}, {Name: "user", Each: true, EachKind: "user"},
	} {
		in.ConsumerID, in.Ceilings, in.Window = org, plenty, registry.Window{Per: budget.PerDay}
		_, err := reg.CreateBudget(ctx, in)
		require.NoError(b, err)
	}
	if o.tags {
		for name := range benchTags {
			_, err := reg.CreateDimension(ctx, registry.DimensionInput{Name: name})
			require.NoError(b, err)
		}
	}
	return o
}

// spent is what a turn has cost: the CPU of this process, and the bytes that were written for it.
type spent struct{ cpu, bytes float64 }

// spend reads what has been spent so far. On PostgreSQL the CPU is that of the client, and the bytes those of the log.
func spend(b *testing.B, engine string, db *sql.DB) (s spent) {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	s.cpu = float64(u.Utime.Nano() + u.Stime.Nano())
	if engine == "postgres" {
		row := db.QueryRowContext(b.Context(), "SELECT pg_current_wal_insert_lsn() - '0/0'")
		require.NoError(b, row.Scan(&s.bytes))
		return s
	}
	text, err := os.ReadFile("/proc/self/io")
	require.NoError(b, err)
	_, after, _ := strings.Cut(string(text), "wchar: ")
	_, err = fmt.Sscan(after, &s.bytes)
	require.NoError(b, err)
	return s
}

// BenchmarkConsumerTurns compares leasing a key and settling the lease for nobody, for one of 1,000 consumers with six
// ceilings on three levels, and with tags of three dimensions beside that of consumers; from 64 callers, on databases
// of their own, which take turns of 640 cycles. Each consumer uses five of 50 models.
//
//	go test -run '^$' -bench ConsumerTurns -benchtime 20x -count 6
func BenchmarkConsumerTurns(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		b.Run("engine="+engine, func(b *testing.B) {
			all := map[string]*contender{}
			db, sums := map[string]*sql.DB{}, map[string]spent{}
			for _, kind := range consumerKinds {
				c := &contender{name: kind, callers: 64, cycles: 640, leaseDatabase: newBenchConsumers(b, engine)}
				c.design, db[kind] = c.forKind(b, kind), c.raw(b, 1)
				c.warm = warmUp(b, c.database, c.design, c.callers)
				all[kind] = c
			}
			b.ResetTimer()
			for range b.N {
				for _, kind := range consumerKinds {
					before := spend(b, engine, db[kind])
					all[kind].turn(b)
					after := spend(b, engine, db[kind])
					sums[kind] = spent{
						sums[kind].cpu + after.cpu - before.cpu, sums[kind].bytes + after.bytes - before.bytes,
					}
				}
			}
			b.StopTimer()
			for _, kind := range consumerKinds {
				require.NoError(b, all[kind].close())
				require.NoError(b, db[kind].Close())
				b.ReportMetric(1e6/all[kind].perCycle(), kind+"-cycles/s")
				b.ReportMetric(quantile(all[kind].times, 0.99), kind+"-p99-us")
				b.ReportMetric(sums[kind].bytes/float64(len(all[kind].times)), kind+"-bytes")
			}
			for _, kind := range consumerKinds[1:] {
				b.ReportMetric(sums[kind].cpu/sums["nobody"].cpu, kind+"-cpu")
				b.ReportMetric(sums[kind].bytes/sums["nobody"].bytes, kind+"-written")
				b.ReportMetric(all[kind].perCycle()/all["nobody"].perCycle(), kind+"-time")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
