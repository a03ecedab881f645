package registry_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// BenchmarkPurgeProvider purges a provider of 2,000 models beside 10,000 leases of another one, with the indexes of
// the foreign keys of leases and without them.
//
//	go test -run '^$' -bench PurgeProvider -benchtime 1x -count 3 ./registry
func BenchmarkPurgeProvider(b *testing.B) {
	for _, e := range []engine{onSQLite, {"postgres", registrytest.NewPostgres}} { // whose role may drop indexes
		for _, without := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/without=%t", e.name, without), func(b *testing.B) {
				reg, _ := e.setup(b)
				exec := func(query string, args ...any) {
					_, err := reg.Client().ExecContext(b.Context(), query, args...)
					require.NoError(b, err)
				}
				if without {
					exec("DROP INDEX keylease_model_id")
					exec("DROP INDEX keylease_quota_group_id")
				}
				key := mustKey(b, reg, mustProvider(b, reg, "stays").ID, 1)
				model := mustModel(b, reg, key.ProviderID, "m", nil)
				for i := range 10_000 {
					exec("INSERT INTO key_leases (id, api_key_id, model_id, acquired_at, expires_at) VALUES ($1,"+
						" $2, $3, $4, $5)",
						uuid.Must(uuid.NewV7()), key.ID, model.ID, key.CreatedAt, key.CreatedAt.AddDate(0, 0, 1+i%2))
				}
				for b.Loop() {
					b.StopTimer()
					gone := providerOf(b, reg, 2000)
					b.StartTimer()
					require.NoError(b, reg.PurgeProvider(b.Context(), gone.ID))
				}
			})
		}
	}
}

// providerOf returns a provider with some models.
func providerOf(b *testing.B, reg *registry.Registry, models int) (p *ent.Provider) {
	b.Helper()
	require.NoError(b, reg.InTx(b.Context(), func(tx *registry.Registry) error {
		p = mustProvider(b, tx, "goes")
		for i := range models {
			mustModel(b, tx, p.ID, fmt.Sprint("m", i), nil)
		}
		return nil
	}))
	return p
}
