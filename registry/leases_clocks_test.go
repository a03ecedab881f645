package registry_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// TestLeaseClocks leases by clocks of which one is ahead.
func TestLeaseClocks(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			open := openByClocks(t, engine)
			late, clock := open(registrytest.Start)
			early, _ := open(registrytest.Start.Add(time.Minute))
			p := mustProvider(t, late, "p")
			m := mustModel(t, late, p.ID, "m", gpt4())
			_, err := late.AddAPIKey(
				t.Context(),
				registry.KeyInput{
					ProviderID: p.ID, APIKey: secret(1),
					Limits: registry.Limits{TokensPerMinute: 10, TokensPerDay: 1000},
				},
			)
			require.NoError(t, err)
			in := registry.AcquireInput{ProviderID: p.ID, ModelID: m.ID, EstimatedTokens: 5, TTL: time.Minute}
			_, err = early.AcquireKey(t.Context(), in)
			require.NoError(t, err)
			lease, err := late.AcquireKey(t.Context(), in)
			require.NoError(t, err)
			require.Equal(t, registrytest.Start.Add(time.Minute), lease.AcquiredAt, "in the minute that is counted")
			_, err = late.AcquireKey(t.Context(), in)
			require.ErrorIs(t, err, registry.ErrNoKeyAvailable, "a clock that is behind opens no minute anew")
			require.NoError(t, lease.Settle(t.Context(), used(1)))
			key, err := late.FindAPIKey(t.Context(), p.ID, secret(1))
			require.NoError(t, err)
			require.Equal(t, registrytest.Start.Add(time.Minute), *key.Minute)
			require.EqualValues(
				t, []int64{1, 1}, []int64{key.RequestsThisMinute, key.TokensThisMinute},
				"it ends in the minute in which it began",
			)
			in.EstimatedTokens = 4
			lease, err = late.AcquireKey(t.Context(), in)
			require.NoError(t, err, "what was not used is given back")
			require.NoError(t, lease.Release(t.Context()))

			wrong, _ := open(registrytest.Start.Add(1000 * time.Hour))
			in.EstimatedTokens = 5
			for range 2 {
				_, err = wrong.AcquireKey(t.Context(), in)
				require.NoError(t, err)
			}
			clock.Advance(2 * time.Minute)
			_, err = late.AcquireKey(t.Context(), in)
			require.NoError(t, err, "a clock that was wrong closes no key for weeks")
			verdicts, err := late.ExplainKeys(t.Context(), in)
			require.NoError(t, err)
			for i, name := range []registry.LimitName{registry.LimitTokensPerMinute, registry.LimitTokensPerDay} {
				l := verdicts[0].Limits[i]
				require.Equal(t, name, l.Name)
				require.EqualValues(t, 5, l.Used, "and its windows are counted anew")
			}
		})
	}
}

// openByClocks opens one database as processes do whose clocks differ.
func openByClocks(t *testing.T, engine string) func(at time.Time) (*registry.Registry, *registrytest.Clock) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "registry.db")
	if engine == "postgres" {
		name = registrytest.PostgresURL(t)
	}
	return func(at time.Time) (*registry.Registry, *registrytest.Clock) {
		t.Helper()
		clock := registrytest.NewClock(at)
		reg, err := registry.Open(t.Context(), name, registry.WithClock(clock.Now))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, reg.Close()) })
		return reg, clock
	}
}

// TestLeaseClockBehind has a process lease keys whose clock is behind that of who made the key, reset its day, and
// observed what the provider had left.
func TestLeaseClockBehind(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			open := openByClocks(t, engine)
			ahead, clock := open(registrytest.Start.Add(10 * time.Second))
			behind, _ := open(registrytest.Start)
			p := mustProvider(t, ahead, "p")
			k, err := ahead.AddAPIKey(
				t.Context(),
				registry.KeyInput{ProviderID: p.ID, APIKey: secret(1), Limits: registry.Limits{RequestsPerDay: 2}},
			)
			require.NoError(t, err)
			in := registry.AcquireInput{ProviderID: p.ID, TTL: time.Minute}
			two := func(what string) {
				t.Helper()
				for range 2 {
					lease, err := behind.AcquireKey(t.Context(), in)
					require.NoError(t, err, what)
					require.NoError(t, errOf(lease.Fail(t.Context(), registry.Failure{Status: 400})))
				}
				_, err := behind.AcquireKey(t.Context(), in)
				require.ErrorIs(t, err, registry.ErrNoKeyAvailable, what)
			}
			two("a new key")
			other := mustProvider(t, ahead, "other")
			mustKey(t, ahead, other.ID, 2)
			_, err = ahead.AcquireKey(t.Context(), registry.AcquireInput{ProviderID: other.ID, TTL: time.Minute})
			require.NoError(t, err)
			clock.Advance(time.Second)
			n, err := ahead.ResetDailyUsage(t.Context())
			require.NoError(t, err)
			require.Equal(t, 2, n)
			n, err = ahead.ResetDailyUsage(t.Context())
			require.NoError(t, err)
			require.Zero(t, n, "there is nothing left to reset")
			two("its day was reset")
			_, err = ahead.UpdateAPIKey(t.Context(), k.ID, registry.KeyUpdate{Limits: &registry.Limits{}})
			require.NoError(t, err)
			clock.Advance(time.Second)
			require.NoError(t, ahead.ObserveHeaders(t.Context(), k.ID, http.Header{
				"X-Ratelimit-Remaining-Requests": {"2"}, "X-Ratelimit-Reset-Requests": {"50s"},
			}))
			two("the provider has two left")
		})
	}
}

// TestDayLimitsOfClocksBehind has a process lease keys whose clock is behind that of who began the day: none is leased
// more often than its limits say, and its minutes are counted too.
func TestDayLimitsOfClocksBehind(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		for _, behindBy := range []time.Duration{4 * time.Minute, 8 * time.Minute, 30 * time.Minute, time.Hour} {
			for begun, at := range map[string]time.Time{
				"reset": registrytest.Start, "midnight": registrytest.Start.Add(12 * time.Hour),
			} {
				t.Run(fmt.Sprintf("%s/%s/%s", engine, begun, behindBy), func(t *testing.T) {
					t.Parallel()
					open := openByClocks(t, engine)
					ahead, clock := open(at.Add(-2 * time.Hour))
					behind, behindClock := open(at.Add(-behindBy))
					p := mustProvider(t, ahead, "p")
					m := mustModel(t, ahead, p.ID, "m", gpt4())
					_, err := ahead.AddAPIKey(t.Context(), registry.KeyInput{
						ProviderID: p.ID, APIKey: secret(1), Limits: registry.Limits{
							RequestsPerDay: 6, TokensPerMinute: 45,
						},
					})
					require.NoError(t, err)
					in := registry.AcquireInput{ProviderID: p.ID, ModelID: m.ID, EstimatedTokens: 10, TTL: time.Hour}
					lease := func(reg *registry.Registry) *registry.Lease {
						t.Helper()
						lease, err := reg.AcquireKey(t.Context(), in)
						require.NoError(t, err)
						return lease
					}
					refused := func(reg *registry.Registry, limit registry.LimitName) {
						t.Helper()
						_, err := reg.AcquireKey(t.Context(), in)
						var none *registry.NoKeyError
						require.ErrorAs(t, err, &none)
						require.Equal(t, string(limit), none.Keys[0].Detail)
					}
					require.NoError(t, lease(ahead).Settle(t.Context(), used(1)))
					clock.Set(at)
					if begun == "reset" {
						_, err := ahead.ResetDailyUsage(t.Context())
						require.NoError(t, err)
					}
					require.NoError(t, lease(ahead).Settle(t.Context(), used(1))) // one of six
					clock.Advance(time.Minute)
					behindClock.Advance(time.Minute)
					var held []*registry.Lease
					for range 4 {
						held = append(held, lease(behind))
					}
					refused(behind, registry.LimitTokensPerMinute)
					for _, l := range held[:2] { // what is under way counts, and what has ended
						require.NoError(t, l.Settle(t.Context(), used(10)))
					}
					refused(behind, registry.LimitTokensPerMinute)
					clock.Advance(6 * time.Minute)
					behindClock.Advance(6 * time.Minute)
					require.NoError(t, lease(behind).Settle(t.Context(), used(1))) // the sixth
					refused(behind, registry.LimitRequestsPerDay)
					refused(ahead, registry.LimitRequestsPerDay)
				})
			}
		}
	}
}
