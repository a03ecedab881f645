package registry_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/mattn/go-sqlite3" // the hand-written side of the comparison
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

func BenchmarkOpen(b *testing.B) {
	open := func(b *testing.B, path string) {
		b.Helper()
		reg, err := registry.Open(b.Context(), path)
		require.NoError(b, err)
		b.StopTimer()
		require.NoError(b, reg.Close())
		b.StartTimer()
	}
	b.Run("fresh", func(b *testing.B) {
		dir := b.TempDir()
		n := 0
		for b.Loop() {
			n++
			open(b, filepath.Join(dir, fmt.Sprint(n)))
		}
	})
	b.Run("current", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "db")
		open(b, path)
		for b.Loop() {
			open(b, path)
		}
	})
}

// BenchmarkTestRegistry is what a test pays for its database.
func BenchmarkTestRegistry(b *testing.B) {
	for b.Loop() {
		registrytest.New(b)
	}
}

func BenchmarkImportCatalog(b *testing.B) {
	snapshot := catalog.Catwalk()
	b.Run("first", func(b *testing.B) {
		dir := b.TempDir()
		n := 0
		for b.Loop() {
			b.StopTimer()
			n++
			reg, err := registry.Open(b.Context(), filepath.Join(dir, fmt.Sprint(n)))
			require.NoError(b, err)
			b.StartTimer()
			_, err = reg.ImportCatalog(b.Context(), snapshot, nil)
			b.StopTimer()
			require.NoError(b, err)
			require.NoError(b, reg.Close())
			b.StartTimer()
		}
	})
	b.Run("again", func(b *testing.B) {
		reg := registrytest.New(b)
		_, err := reg.ImportCatalog(b.Context(), snapshot, nil)
		require.NoError(b, err)
		for b.Loop() {
			_, err := reg.ImportCatalog(b.Context(), snapshot, nil)
			require.NoError(b, err)
		}
	})
}

// BenchmarkGetLeastUsedKey compares the registry with the same SQL, prepared by hand on
// database/sql, over growing numbers of keys and providers.
func BenchmarkGetLeastUsedKey(b *testing.B) {
	for _, size := range []struct{ providers, keys int }{{1, 1}, {1, 10}, {1, 100}, {10, 10}, {100, 10}, {1000, 10}} {
		name := fmt.Sprintf("providers=%d/keys=%d", size.providers, size.keys)
		path := filepath.Join(b.TempDir(), "db")
		reg, err := registry.Open(b.Context(), path)
		require.NoError(b, err)
		var ids []uuid.UUID
		require.NoError(b, reg.InTx(b.Context(), func(tx *registry.Registry) error {
			for i := range size.providers {
				p := mustProvider(b, tx, fmt.Sprint("p", i))
				ids = append(ids, p.ID)
				for k := range size.keys {
					key := mustKey(b, tx, p.ID, k)
					for range k % 3 {
						require.NoError(b, tx.IncrementUsage(b.Context(), key.ID, 1, 1))
					}
				}
			}
			return nil
		}))
		b.Run(name+"/impl=registry", func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if _, err := reg.GetLeastUsedKey(b.Context(), ids[i%len(ids)]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/impl=sql", func(b *testing.B) {
			b.ReportAllocs()
			db, err := sql.Open("sqlite3", "file:"+path+"?mode=ro&_fk=1")
			require.NoError(b, err)
			defer func() { require.NoError(b, db.Close()) }()
			stmt, err := db.Prepare("SELECT `id`, `created_at`, `updated_at`, `deleted_at`, `provider_id`," +
				" `key_hash`," +
				" `key_prefix`, `label`, `usage_count`, `token_count`, `requests_today`, `tokens_today`," +
				" `last_reset`," +
				" `disabled`, `degraded`, `degraded_until`, `degraded_reason`, `last_used_at` FROM `api_keys`" +
				" WHERE `provider_id` = ? AND `deleted_at` IS NULL AND NOT `disabled`" +
				" AND (`degraded_until` IS NULL OR `degraded_until` <= ?)" +
				" ORDER BY `usage_count`, `last_used_at` NULLS FIRST, `id` LIMIT 1")
			require.NoError(b, err)
			i := 0
			for b.Loop() {
				i++
				if _, err := scanKey(stmt.QueryRowContext(b.Context(), ids[i%len(ids)], time.Now().UTC())); err != nil {
					b.Fatal(err)
				}
			}
		})
		require.NoError(b, reg.Close())
	}
}

type handKey struct {
	id, providerID                                     uuid.UUID
	created, updated, lastReset                        time.Time
	deleted, degradedUntil, lastUsed                   *time.Time
	hash, prefix, label, reason                        string
	usageCount, tokenCount, requestsToday, tokensToday int64
	disabled, degraded                                 bool
}

func scanKey(row *sql.Row) (*handKey, error) {
	k := new(handKey)
	return k, row.Scan(&k.id, &k.created, &k.updated, &k.deleted, &k.providerID, &k.hash, &k.prefix, &k.label,
		&k.usageCount, &k.tokenCount, &k.requestsToday, &k.tokensToday, &k.lastReset,
		&k.disabled, &k.degraded, &k.degradedUntil, &k.reason, &k.lastUsed)
}

// BenchmarkRecordUsage records from one caller and from 64, with as many keys or with one: on
// PostgreSQL the row of a key is locked until the commit. Its time is that of a sync to disk.
func BenchmarkRecordUsage(b *testing.B) {
	for _, e := range []engine{onSQLite, onPostgres} {
		for _, durability := range []registry.Durability{registry.DurabilityFull, registry.DurabilityRelaxed} {
			for _, size := range []struct{ callers, keys int }{{1, 1}, {64, 64}, {64, 1}} {
				name := fmt.Sprintf(
					"engine=%s/relaxed=%t/callers=%d/keys=%d", e.name, durability == registry.DurabilityRelaxed,
					size.callers, size.keys,
				)
				b.Run(name, func(b *testing.B) {
					reg := e.new(b, registry.WithDurability(durability))
					p := mustProvider(b, reg, "p")
					m := mustModel(b, reg, p.ID, "m", gpt4())
					var keys []*ent.APIKey
					for i := range size.keys {
						keys = append(keys, mustKey(b, reg, p.ID, i))
					}
					b.SetParallelism(max(1, size.callers/runtime.GOMAXPROCS(0)))
					var callers atomic.Int64
					b.ResetTimer()
					if size.callers == 1 {
						for range b.N {
							recordOnce(b, reg, m, keys[0])
						}
						return
					}
					b.RunParallel(func(pb *testing.PB) {
						key := keys[int(callers.Add(1))%len(keys)]
						for pb.Next() {
							recordOnce(b, reg, m, key)
						}
					})
				})
			}
		}
	}
}

func recordOnce(b *testing.B, reg *registry.Registry, m *ent.Model, k *ent.APIKey) {
	b.Helper()
	if err := reg.RecordUsage(b.Context(), registry.UsageInput{
		ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 150, OutputTokens: 80},
	}); err != nil {
		b.Error(err)
	}
}
