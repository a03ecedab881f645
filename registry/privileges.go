package registry

import (
	"context"
	"fmt"
	"strings"

	entmigrate "github.com/jeffersonwarrior/modelscan/ent/migrate"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// lackingSQL lists the privileges that the role lacks, as the GRANTs that give them. It examines the schema with the
// tables: the first of the search_path that the role may use, or else the first that exists.
const lackingSQL = `
WITH place AS (
	SELECT n.oid, n.nspname
	FROM unnest(string_to_array(current_setting('search_path'), ',')) WITH ORDINALITY AS p(name, number)
	JOIN pg_namespace AS n ON n.nspname = CASE
		WHEN btrim(p.name) = '"$user"' THEN current_user
		WHEN btrim(p.name) LIKE '"%' THEN replace(btrim(btrim(p.name), '"'), '""', '"')
		ELSE lower(btrim(p.name)) END
	ORDER BY n.nspname = current_schema() DESC NULLS LAST, p.number LIMIT 1
), lacking AS (
	SELECT 'SCHEMA ' AS kind, quote_ident(nspname) AS object, 0 AS number, 'USAGE' AS privilege
	FROM place WHERE NOT has_schema_privilege(oid, 'USAGE')
	UNION ALL
	SELECT '', format('%I.%I', place.nspname, c.relname), p.number, p.name
	FROM place
	JOIN pg_class AS c ON c.relnamespace = place.oid AND c.relkind IN ('r', 'p') AND c.relname = ANY(CAST($1 AS text[]))
	CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS p(name, number)
	WHERE (c.relname <> $2 OR p.name = 'SELECT') AND NOT has_table_privilege(c.oid, p.name)
	UNION ALL
	SELECT 'FUNCTION ', format('%I.%I(%s)', place.nspname, f.proname, pg_get_function_identity_arguments(f.oid)),
		5, 'EXECUTE'
	FROM place JOIN pg_proc AS f ON f.pronamespace = place.oid AND f.proname = ANY(CAST($3 AS text[]))
	WHERE NOT has_function_privilege(f.oid, 'EXECUTE')
), objects AS (
	SELECT kind, object, min(number) AS number, string_agg(privilege, ', ' ORDER BY number) AS privileges
	FROM lacking GROUP BY kind, object
)
SELECT format('GRANT %s ON %s%s TO %I', privileges, kind, string_agg(object, ', ' ORDER BY object), current_user)
FROM objects GROUP BY kind, privileges ORDER BY min(number), privileges`

// checkPrivileges returns ErrDenied with all the privileges that the role lacks for a registry on PostgreSQL.
func checkPrivileges(ctx context.Context, db store.DB) error {
	const revisions = "atlas_schema_revisions"
	tables, functions := []string{revisions}, []string{"usage_events_make_partitions", "usage_events_drop_partition"}
	for _, t := range entmigrate.Tables {
		tables = append(tables, t.Name)
	}
	var grants []string
	args := []any{tables, revisions, functions}
	err := bulk.Scan(ctx, db.Writer(), lackingSQL, args, func(scan func(...any) error) error {
		var grant string
		err := scan(&grant)
		grants = append(grants, grant)
		return err
	})
	if err != nil || len(grants) == 0 {
		return err
	}
	return fmt.Errorf(
		"%w: the role lacks privileges; the owner of the tables can give them: %s", ErrDenied,
		strings.Join(grants, "; "),
	)
}
