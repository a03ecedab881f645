package registry_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// BenchmarkAuthenticate shows the secret of an access key whose consumer is on the lowest level: remembered, by one
// caller and by all processors at once; and read from the database.
//
//	go test -run '^$' -bench Authenticate -count 6 ./registry
func BenchmarkAuthenticate(b *testing.B) {
	for _, e := range []engine{onSQLite, onPostgres} {
		reg, secret := authenticated(b, e)
		b.Run(e.name+"/remembered", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				must(reg.Authenticate(b.Context(), secret))
			}
		})
		b.Run(e.name+"/remembered, at once", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					must(reg.Authenticate(b.Context(), secret))
				}
			})
		})
		b.Run(e.name+"/read", func(b *testing.B) {
			require.NoError(b, reg.InTx(b.Context(), func(tx *registry.Registry) error { // which remembers nothing
				for b.Loop() {
					must(tx.Authenticate(b.Context(), secret))
				}
				return nil
			}))
		})
	}
}

func authenticated(b *testing.B, e engine) (*registry.Registry, string) {
	b.Helper()
	reg := e.new(b, registry.WithClock(time.Now)) // so that it looks once a second
	levels := mustLevels(b, reg, registry.MaxConsumerLevels)
	_, secret := mustAccessKey(b, reg, levels[registry.MaxConsumerLevels-1].ID)
	must(reg.Authenticate(b.Context(), secret))
	return reg, secret
}
