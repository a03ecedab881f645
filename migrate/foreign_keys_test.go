package migrate_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/migrate"
)

// Both list the foreign keys that no index begins with, as table(column, ...). An index of those rows alone in which
// the first column is not NULL serves too: a row without a value refers to nothing.
const (
	bareKeysSQLite = `
WITH keys AS (
  SELECT t.name AS tab, f.id AS id, count(*) AS n, group_concat(f."from", ', ' ORDER BY f.seq) AS cols
  FROM sqlite_schema AS t, pragma_foreign_key_list(t.name) AS f WHERE t.type = 'table' GROUP BY t.name, f.id
), indexes AS (
  SELECT t.name AS tab, i.name AS name, s.sql AS def, i.partial AS partial
  FROM sqlite_schema AS t, pragma_index_list(t.name) AS i LEFT JOIN sqlite_schema AS s ON s.name = i.name
  WHERE t.type = 'table'
)
SELECT tab || '(' || cols || ')' FROM keys AS k WHERE NOT EXISTS (
  SELECT 1 FROM indexes AS i WHERE i.tab = k.tab
  AND k.cols =
    (SELECT group_concat(c.name, ', ' ORDER BY c.seqno) FROM pragma_index_info(i.name) AS c WHERE c.seqno < k.n)
  AND (NOT i.partial OR i.def LIKE '% WHERE ' ||
    (SELECT c.name FROM pragma_index_info(i.name) AS c WHERE c.seqno = 0) || ' IS NOT NULL')
) ORDER BY 1`

	bareKeysPostgres = `
WITH keys AS (
  SELECT c.conrelid AS tab, c.conkey AS attrs,
    (SELECT string_agg(a.attname, ', ' ORDER BY k.n) FROM unnest(c.conkey) WITH ORDINALITY AS k(attr, n)
     JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.attr) AS cols
  FROM pg_constraint AS c WHERE c.contype = 'f' AND c.connamespace = current_schema()::regnamespace
)
SELECT tab::regclass || '(' || cols || ')' FROM keys AS k WHERE NOT EXISTS (
  SELECT 1 FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = k.tab AND a.attnum = k.attrs[1]
  WHERE i.indrelid = k.tab
  AND (string_to_array(i.indkey::text, ' ')::smallint[])[1:cardinality(k.attrs)] = k.attrs
  AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) = '(' || a.attname || ' IS NOT NULL)')
) ORDER BY 1`
)

// TestForeignKeysHaveIndexes asks both databases for every foreign key: without an index that begins with its columns,
// to delete what it refers to would read the whole table.
func TestForeignKeysHaveIndexes(t *testing.T) {
	t.Parallel()
	eachOld(t, func(t *testing.T, db *sql.DB, d migrate.Dialect, _ string) {
		t.Helper()
		defer func() { require.NoError(t, db.Close()) }()
		_, err := migrate.Apply(t.Context(), db, d)
		require.NoError(t, err)
		bare := bareKeysSQLite
		if d == migrate.Postgres {
			bare = bareKeysPostgres
		}
		require.Empty(t, column[string](t, db, bare))

		// The question is a good one: it finds what has none, and an index that does not serve.
		run(t, db, "CREATE TABLE parents (id integer PRIMARY KEY, a integer, b integer, UNIQUE (a, b))",
			"CREATE TABLE children (a integer REFERENCES parents (id), b integer REFERENCES parents (id), c integer"+
				" REFERENCES parents (id),"+
				" d integer REFERENCES parents (id), e integer, f integer, FOREIGN KEY (e, f) REFERENCES parents (a,"+
				" b))",
			"CREATE INDEX behind ON children (b, a)", "CREATE INDEX positive ON children (c) WHERE d > 0",
			"CREATE INDEX named ON children (d) WHERE d IS NOT NULL", "CREATE INDEX half ON children (e)")
		require.Equal(t, []string{"children(a)", "children(c)", "children(e, f)"}, column[string](t, db, bare))
		run(t, db, "CREATE INDEX whole ON children (e, f, a)")
		require.Equal(t, []string{"children(a)", "children(c)"}, column[string](t, db, bare))
	})
}

// TestForeignKeyIndexes migrates leases from before the indexes: purging what they refer to forgets it in them.
func TestForeignKeyIndexes(t *testing.T) {
	t.Parallel()
	eachOld(t, func(t *testing.T, db *sql.DB, d migrate.Dialect, _ string) {
		t.Helper()
		defer func() { require.NoError(t, db.Close()) }()
		applyBefore(t, db, d, "leases")
		insertOldLedger(t, db)
		const (
			group   = "01900000-0000-7000-8000-0000000000c1"
			with    = "01900000-0000-7000-8000-0000000000c2"
			without = "01900000-0000-7000-8000-0000000000c3"
		)
		applyBefore(t, db, d, "foreign_key_indexes")
		run(t, db, "INSERT INTO quota_groups (id, created_at, updated_at, last_reset, name, provider_id)"+
			" SELECT '"+group+"', created_at, created_at, created_at, 'x', id FROM providers",
			"INSERT INTO models (id, created_at, updated_at, model_id, provider_id) SELECT '"+group+
				"', created_at, created_at, 'x', id FROM providers")
		lease := "INSERT INTO key_leases (id, api_key_id, model_id, quota_group_id, acquired_at, expires_at) VALUES" +
			" ('%s', '" + oldKey +
			"', %s, %s, '2026-07-01 00:00:00+00:00', '2026-07-02 00:00:00+00:00')"
		run(t, db, fmt.Sprintf(lease, with, "'"+group+"'", "'"+group+"'"), fmt.Sprintf(lease, without, "NULL", "NULL"))
		_, err := migrate.Apply(t.Context(), db, d)
		require.NoError(t, err)
		all := func() [][]any {
			return rowsOf(t, db, "key_leases", "CAST(id AS text)", "CAST(model_id AS text)",
				"CAST(quota_group_id AS text)")
		}
		require.Equal(t, [][]any{{with, group, group}, {without, nil, nil}}, all())
		run(t, db, "DELETE FROM models WHERE id = '"+group+"'", "DELETE FROM quota_groups WHERE id = '"+group+"'")
		require.Equal(t, [][]any{{with, nil, nil}, {without, nil, nil}}, all())
	})
}
