package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/schema"
	"ariga.io/atlas/sql/sqlite"
	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	entschema "entgo.io/ent/dialect/sql/schema"
	_ "github.com/mattn/go-sqlite3" // the in-memory database that files are replayed into
)

// plan writes what brings dir up to tables into dir, and returns the files it wrote: none
// when there is nothing to do.
//
// Ent is only asked what the graph looks like. The difference is Atlas's own, because Ent's
// NamedDiff passes over dropped tables and changed CHECKs.
func plan(ctx context.Context, dir migrate.Dir, name string, tables []*entschema.Table) (_ []migrate.File, err error) {
	before, err := checked(dir)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite3", "file:atlas-diff?mode=memory&_fk=1")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1) // an in-memory database is its connection
	drv, err := sqlite.Open(db)
	if err != nil {
		return nil, err
	}
	planner := migrate.NewPlanner(drv, dir,
		migrate.PlanWithSchemaQualifier(""), // the files name no schema
		migrate.PlanWithIndent("  "),
		migrate.PlanWithDiffOptions(schema.DiffNormalized()),
		migrate.PlanFormat(migrate.DefaultFormatter), // one file, not a pair of up and down
	)
	planned, err := planner.PlanSchema(ctx, name, desired(db, drv, dir, tables))
	if errors.Is(err, migrate.ErrNoPlan) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	planned.Version = migrate.NewVersion()
	if n := len(before); n > 0 && planned.Version <= before[n-1].Version() {
		if _, inMemory := dir.(*migrate.MemDir); !inMemory {
			return nil, fmt.Errorf("%s is later than this machine's clock, and a new file must come after it", before[n-1].Name())
		}
	}
	if err := planner.WritePlan(planned); err != nil {
		return nil, err
	}
	after, err := dir.Files()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(after, func(f migrate.File) bool { return slices.ContainsFunc(before, sameName(f)) }), nil
}

func sameName(f migrate.File) func(migrate.File) bool {
	return func(other migrate.File) bool { return other.Name() == f.Name() }
}

// desired returns the state that tables describe, in the terms of the database.
func desired(db *sql.DB, drv migrate.Driver, dir migrate.Dir, tables []*entschema.Table) migrate.StateReader {
	return migrate.StateReaderFunc(func(ctx context.Context) (*schema.Realm, error) {
		graph, err := entschema.NewMigrate(entsql.OpenDB(dialect.SQLite, db), entschema.WithDir(dir))
		if err != nil {
			return nil, err
		}
		realm, err := graph.StateReader(tables...).ReadState(ctx)
		if err != nil {
			return nil, err
		}
		current, err := drv.InspectSchema(ctx, "", &schema.InspectOptions{Mode: schema.InspectSchemas})
		if err != nil {
			return nil, err
		}
		named := schema.New(current.Name)
		for _, s := range realm.Schemas {
			named.AddTables(s.Tables...)
		}
		return schema.NewRealm(named), nil
	})
}

// inMemory copies a directory, so that a plan can be written without a trace on disk.
func inMemory(dir migrate.Dir) (*migrate.MemDir, error) {
	files, err := checked(dir)
	if err != nil {
		return nil, err
	}
	copied := &migrate.MemDir{}
	if err := copied.CopyFiles(files); err != nil {
		return nil, err
	}
	return copied, rehash(copied)
}

// rehash writes the atlas.sum of the files as they are.
func rehash(dir migrate.Dir) error {
	sum, err := dir.Checksum()
	if err != nil {
		return err
	}
	return migrate.WriteSumFile(dir, sum)
}

// checked returns the files of dir after it compared them with atlas.sum. Only a directory
// without any file may lack its sum.
func checked(dir migrate.Dir) ([]migrate.File, error) {
	files, err := dir.Files()
	if err != nil {
		return nil, err
	}
	err = migrate.Validate(dir)
	if errors.Is(err, migrate.ErrChecksumNotFound) && len(files) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the files do not match their atlas.sum (edited by hand before it landed? then: go run ./cmd/atlas-diff -hash): %w", err)
	}
	return files, nil
}
