package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/schema"
	entsql "entgo.io/ent/dialect/sql"
	entschema "entgo.io/ent/dialect/sql/schema"
)

// plan returns the files that bring those of dir up to tables: none when there is nothing to do.
// It writes nothing.
//
// Ent only describes the graph. Atlas computes the difference, because Ent's NamedDiff ignores dropped tables and
// changed CHECKs.
func (d dialect) plan(
	ctx context.Context, dir migrate.Dir, devURL, version, name string, tables []*entschema.Table,
) (_ []migrate.File, err error) {
	if err := validate(dir); err != nil {
		return nil, err
	}
	dsn, remove, err := d.dev(ctx, devURL)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	db, err := sql.Open(d.driver, dsn)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1) // an in-memory database is its connection
	drv, err := d.atlas(db)
	if err != nil {
		return nil, err
	}
	planner := migrate.NewPlanner(drv, dir,
		migrate.PlanWithSchemaQualifier(""), // the files name no schema
		migrate.PlanWithIndent("  "),
		migrate.PlanWithDiffOptions(schema.DiffNormalized()),
	)
	planned, err := planner.PlanSchema(ctx, name, d.desired(db, drv, dir, tables))
	if errors.Is(err, migrate.ErrNoPlan) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	planned.Version = version
	return migrate.DefaultFormatter.Format(planned) // one file, not a pair of up and down
}

// desired returns the state that tables describe, in the terms of the database.
func (d dialect) desired(
	db *sql.DB, drv migrate.Driver, dir migrate.Dir, tables []*entschema.Table,
) migrate.StateReader {
	return migrate.StateReaderFunc(func(ctx context.Context) (*schema.Realm, error) {
		graph, err := entschema.NewMigrate(entsql.OpenDB(d.ent, db), entschema.WithDir(dir))
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
		d.refine(named)
		// PostgreSQL gives expressions back in other words.
		if n, ok := drv.(schema.Normalizer); ok {
			if named, err = n.NormalizeSchema(ctx, named); err != nil {
				return nil, err
			}
		}
		return schema.NewRealm(named), nil
	})
}

// rehash writes the atlas.sum of the files as they are.
func rehash(dir migrate.Dir) error {
	sum, err := dir.Checksum()
	if err != nil {
		return err
	}
	return migrate.WriteSumFile(dir, sum)
}

// validate compares the files with their atlas.sum. Only a directory without files may lack one.
func validate(dir migrate.Dir) error {
	files, err := dir.Files()
	if err != nil {
		return err
	}
	err = migrate.Validate(dir)
	if errors.Is(err, migrate.ErrChecksumNotFound) && len(files) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the files do not match their atlas.sum"+
			" (edited by hand before it landed? then: go run ./cmd/atlas-diff -hash): %w", err)
	}
	return nil
}

// mustFollow returns an error unless a new file of that version comes last.
func mustFollow(dir migrate.Dir, version string) error {
	files, err := dir.Files()
	if err != nil {
		return err
	}
	if n := len(files); n > 0 && version <= files[n-1].Version() {
		return fmt.Errorf("%s is later than this machine's clock, and a new file must come after it", files[n-1].Name())
	}
	return nil
}
