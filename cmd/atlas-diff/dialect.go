package main

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"slices"

	"ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/postgres"
	"ariga.io/atlas/sql/schema"
	"ariga.io/atlas/sql/sqlite"
	entdialect "entgo.io/ent/dialect"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "github.com/mattn/go-sqlite3"    // the driver "sqlite3"

	"github.com/jeffersonwarrior/modelscan/internal/pgtest"
)

// dialect is what differs between the engines.
type dialect struct {
	name   string // of its folder
	ent    string // Ent's name for it
	driver string // of database/sql
	dev    devDatabase
	atlas  func(db *sql.DB) (migrate.Driver, error)
	refine func(s *schema.Schema) // adds what Ent does not say
}

// devDatabase returns an empty database to replay files into, and a function that removes it afterwards. The URL comes
// from the flag -dev-url.
type devDatabase func(ctx context.Context, url string) (dsn string, remove func() error, err error)

var dialects = []dialect{
	{"sqlite", entdialect.SQLite, "sqlite3", inMemory, openSQLite, refineSQLite},
	{"postgres", entdialect.Postgres, "pgx", onServer, openPostgres, refinePostgres},
}

func inMemory(context.Context, string) (dsn string, remove func() error, err error) {
	return "file:atlas-diff?mode=memory&_fk=1", keep, nil
}

func keep() error { return nil }

// onServer returns the database of a URL, or else one on a server that it starts.
func onServer(ctx context.Context, given string) (dsn string, remove func() error, err error) {
	if given == "" {
		return pgtest.Empty(ctx)
	}
	u, err := url.Parse(given)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", nil, errors.New("-dev-url is not a postgres:// URL") // it may hold a password
	}
	return given, keep, nil
}

func openSQLite(db *sql.DB) (migrate.Driver, error) { return sqlite.Open(db) }

func openPostgres(db *sql.DB) (migrate.Driver, error) {
	drv, err := postgres.Open(db)
	if err != nil {
		return nil, err
	}
	pg, ok := drv.(*postgres.Driver)
	if !ok {
		return nil, errors.New("the server is not a PostgreSQL")
	}
	return &postgresDriver{Driver: pg}, nil
}

// postgresDriver is Atlas's driver that also sees a changed collation, and plans expressions in the words of the graph.
// PostgreSQL rewrites expressions (BETWEEN as two comparisons), and rewrites the result again: a file with rewritten
// ones would differ from the graph for ever.
type postgresDriver struct {
	*postgres.Driver
	graph *schema.Schema // as it was before it was normalized
}

// NormalizeSchema returns a schema as PostgreSQL gives it back.
func (d *postgresDriver) NormalizeSchema(ctx context.Context, s *schema.Schema) (*schema.Schema, error) {
	d.graph = s
	return d.Driver.NormalizeSchema(ctx, s)
}

// SchemaDiff returns the changes from one schema to the other, which is normalized.
func (d *postgresDriver) SchemaDiff(from, to *schema.Schema, opts ...schema.DiffOption) ([]schema.Change, error) {
	changes, err := d.Driver.SchemaDiff(from, to, opts...)
	if err != nil {
		return nil, err
	}
	for _, table := range to.Tables {
		if old, ok := from.Table(table.Name); ok {
			for _, column := range table.Columns {
				if was, ok := old.Column(column.Name); ok && collation(was) != collation(column) {
					changes = withCollation(changes, table, was, column)
				}
			}
		}
		if said, ok := d.graph.Table(table.Name); ok {
			inWordsOf(said, table)
		}
	}
	return changes, nil
}

// inWordsOf gives a table the expressions of the same table in the graph.
func inWordsOf(said, table *schema.Table) {
	for _, check := range attrs[schema.Check](table.Attrs) {
		for _, words := range attrs[schema.Check](said.Attrs) {
			if words.Name == check.Name {
				check.Expr = words.Expr
			}
		}
	}
	for _, index := range table.Indexes {
		words, ok := said.Index(index.Name)
		if !ok {
			continue
		}
		for _, where := range attrs[postgres.IndexPredicate](index.Attrs) {
			for _, words := range attrs[postgres.IndexPredicate](words.Attrs) {
				where.P = words.P
			}
		}
	}
}

// attrs returns the attributes of one type.
func attrs[T any](all []schema.Attr) (some []*T) {
	for _, attr := range all {
		if a, ok := any(attr).(*T); ok {
			some = append(some, a)
		}
	}
	return some
}

func collation(c *schema.Column) (name string) {
	for _, attr := range attrs[schema.Collation](c.Attrs) {
		name = attr.V
	}
	return name
}

// withCollation adds the change of a column's collation, which is written together with its type.
func withCollation(changes []schema.Change, table *schema.Table, from, to *schema.Column) []schema.Change {
	var modified *schema.ModifyTable
	for _, change := range changes {
		if m, ok := change.(*schema.ModifyTable); ok && m.T.Name == table.Name {
			modified = m
		}
	}
	if modified == nil {
		modified = &schema.ModifyTable{T: table}
		changes = append(changes, modified)
	}
	for _, change := range modified.Changes {
		if m, ok := change.(*schema.ModifyColumn); ok && m.To.Name == to.Name {
			m.Change |= schema.ChangeType
			return changes
		}
	}
	modified.Changes = append(modified.Changes, &schema.ModifyColumn{From: from, To: to, Change: schema.ChangeType})
	return changes
}

// unreferenced are the tables whose edges are not foreign keys. The periods in which their rows are counted have these.
var unreferenced = []string{"usage_events"}

func withoutForeignKeys(s *schema.Schema) {
	for _, name := range unreferenced {
		if table, ok := s.Table(name); ok {
			for _, column := range table.Columns {
				column.ForeignKeys = nil
			}
			table.ForeignKeys = nil
		}
	}
}

// refineSQLite keeps events in the order of their ids, and days and totals in the order of their periods, so that rows
// that are read together lie together. Nobody looks for totals by id, so the id needs no index.
func refineSQLite(s *schema.Schema) {
	withoutForeignKeys(s)
	if events, ok := s.Table("usage_events"); ok {
		events.AddAttrs(&sqlite.WithoutRowID{})
	}
	inOrderOf(s, "usage_totals", "usagetotal_model_id_period_start")
	inOrderOf(s, "usage_total_quarters", "usagetotalquarter_model_id_period_start")
}

// inOrderOf keeps a table in the order of an index, which becomes its key.
func inOrderOf(s *schema.Schema, name, index string) {
	table, ok := s.Table(name)
	if !ok {
		return
	}
	if order, ok := table.Index(index); ok {
		var key []*schema.Column
		for _, part := range order.Parts {
			key = append(key, part.C)
		}
		table.SetPrimaryKey(schema.NewPrimaryKey(key...))
		// Atlas reads a key in the order of the table's columns.
		slices.SortStableFunc(table.Columns, func(a, b *schema.Column) int { return rank(key, a) - rank(key, b) })
		table.AddAttrs(&sqlite.WithoutRowID{})
		table.Indexes = nil
	}
}

// rank returns the place of a column in a key, or behind it.
func rank(key []*schema.Column, c *schema.Column) int {
	if i := slices.Index(key, c); i >= 0 {
		return i
	}
	return len(key)
}

// refinePostgres sorts as SQLite does, and partitions the events by their ids. A unique index of a partitioned table
// must include the partition key, so request ids are unique within each partition only.
func refinePostgres(s *schema.Schema) {
	withoutForeignKeys(s)
	likeSQLite(s)
	events, ok := s.Table("usage_events")
	if !ok {
		return
	}
	id, _ := events.Column("id")
	events.AddAttrs(&postgres.Partition{T: postgres.PartitionTypeRange, Parts: []*postgres.PartitionPart{{C: id}}})
	events.Indexes = slices.DeleteFunc(events.Indexes, func(i *schema.Index) bool {
		return i.Name == "usageevent_request_id"
	})
	request, _ := events.Column("request_id")
	request.Indexes = nil
}

// nullsFirst has, by index, the column that a query reads with NULL before every value. SQLite's indexes have that
// order; PostgreSQL's have NULL last.
var nullsFirst = map[string]string{
	"apikey_provider_id_usage_count_last_used_at_id": "last_used_at", // GetLeastUsedKey
}

// likeSQLite makes PostgreSQL sort as SQLite does: texts by their bytes, whatever the machine's locale, and NULL where
// a query wants it.
func likeSQLite(s *schema.Schema) {
	for _, table := range s.Tables {
		for _, column := range table.Columns {
			if _, ok := column.Type.Type.(*schema.StringType); ok {
				column.SetCollation("C")
			}
		}
		for _, index := range table.Indexes {
			for _, part := range index.Parts {
				if part.C != nil && part.C.Name == nullsFirst[index.Name] {
					part.AddAttrs(&postgres.IndexColumnProperty{NullsFirst: true})
				}
			}
		}
	}
}
