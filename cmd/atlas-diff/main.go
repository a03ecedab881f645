// Command atlas-diff plans the migration between the files of migrate/<dialect> and the
// graph in ent/schema, for SQLite and for PostgreSQL:
//
//	go run ./cmd/atlas-diff -name add_x   # writes the next file of each, and atlas.sum
//	go run ./cmd/atlas-diff -check        # prints what is missing; exits 1 if anything is
//	go run ./cmd/atlas-diff -hash         # writes atlas.sum anew after a new file was edited by hand
//
// It replays the files into an empty database: for SQLite in memory, for PostgreSQL on a server that it starts, or in
// the database that -dev-url names.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"ariga.io/atlas/sql/migrate"

	entmigrate "github.com/jeffersonwarrior/modelscan/ent/migrate"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

// The exit codes.
const (
	exitOK    = 0
	exitDrift = 1 // -check found something to plan
	exitError = 2
)

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("atlas-diff", flag.ContinueOnError)
	flags.SetOutput(stderr)
	name := flags.String("name", "", "name of the migration to write, such as add_x")
	check := flags.Bool("check", false, "write nothing, print what is missing")
	hash := flags.Bool("hash", false, "write atlas.sum anew, after a new file was edited by hand")
	engine := flags.String("dialect", "all", "the engine: sqlite, postgres or all")
	dir := flags.String("dir", "", "the migration files of one engine (default migrate/<dialect>)")
	devURL := flags.String("dev-url", "", "an empty PostgreSQL database (default one on a server of its own)")
	if err := flags.Parse(args); err != nil {
		return exitError
	}
	fail := func(err error) int {
		fmt.Fprintln(stderr, "atlas-diff:", err)
		return exitError
	}
	if modes := []bool{*name != "", *check, *hash}; flags.NArg() > 0 || count(modes) != 1 {
		return fail(errors.New("give one of -name add_x, -check and -hash"))
	}
	if *name != "" && !validName.MatchString(*name) {
		return fail(fmt.Errorf("name %q: not lower-case words joined by _", *name))
	}
	targets, err := targetsOf(*engine, *dir, *devURL)
	if err != nil {
		return fail(err)
	}
	switch {
	case *hash:
		err = writeSums(targets, stdout)
	case *check:
		var drift bool
		if drift, err = report(ctx, targets, stdout); err == nil && drift {
			return exitDrift
		}
	default:
		err = writePlans(ctx, targets, *name, stdout)
	}
	if err != nil {
		return fail(err)
	}
	return exitOK
}

func count(modes []bool) (n int) {
	for _, on := range modes {
		if on {
			n++
		}
	}
	return n
}

var validName = regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`)

// target is a dialect with its migration files.
type target struct {
	dialect
	dir    *migrate.LocalDir
	devURL string
}

func targetsOf(engine, dir, devURL string) (targets []target, err error) {
	var names []string
	for _, d := range dialects {
		names = append(names, d.name)
		if engine != d.name && engine != "all" {
			continue
		}
		folder := dir
		if folder == "" {
			folder = filepath.Join("migrate", d.name)
		}
		files, err := migrate.NewLocalDir(folder)
		if err != nil {
			return nil, err
		}
		targets = append(targets, target{d, files, devURL})
	}
	switch {
	case len(targets) == 0:
		return nil, fmt.Errorf("dialect %q: not one of: %s, all", engine, strings.Join(names, ", "))
	case len(targets) > 1 && dir != "":
		return nil, errors.New("-dir holds the files of one engine: give -dialect too")
	case engine == "sqlite" && devURL != "":
		return nil, errors.New("-dev-url is for PostgreSQL: SQLite's files are replayed in memory")
	}
	return targets, nil
}

func writeSums(targets []target, stdout io.Writer) error {
	for _, t := range targets {
		if err := rehash(t.dir); err != nil {
			return err
		}
		fmt.Fprintln(stdout, filepath.Join(t.dir.Path(), migrate.HashFileName))
	}
	return nil
}

// report prints what the files lack. If one engine fails, it still reports the other.
func report(ctx context.Context, targets []target, stdout io.Writer) (drift bool, err error) {
	for _, t := range targets {
		missing, planErr := t.plan(ctx, t.dir, t.devURL, migrate.NewVersion(), "check", entmigrate.Tables)
		switch {
		case planErr != nil:
			err = errors.Join(err, fmt.Errorf("%s: %w", t.name, planErr))
		case len(missing) == 0:
			fmt.Fprintf(stdout, "%s: in sync with ent/schema\n", t.name)
		default:
			drift = true
			fmt.Fprintf(stdout, "%s: the migration files lack, against ent/schema:\n", t.name)
			for _, f := range missing {
				fmt.Fprintln(stdout, strings.TrimSpace(string(f.Bytes())))
			}
		}
	}
	return drift, err
}

// writePlans writes the next file of each engine, after all are planned. They have the same name, because they belong
// together.
func writePlans(ctx context.Context, targets []target, name string, stdout io.Writer) error {
	version := migrate.NewVersion()
	plans := make([][]migrate.File, len(targets))
	for i, t := range targets {
		var err error
		plans[i], err = t.plan(ctx, t.dir, t.devURL, version, name, entmigrate.Tables)
		if err == nil && len(plans[i]) > 0 {
			err = mustFollow(t.dir, version)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	for i, t := range targets {
		if len(plans[i]) == 0 {
			fmt.Fprintf(stdout, "%s: in sync with ent/schema, nothing to plan\n", t.name)
			continue
		}
		for _, f := range plans[i] {
			if err := t.dir.WriteFile(f.Name(), f.Bytes()); err != nil {
				return err
			}
			fmt.Fprintln(stdout, filepath.Join(t.dir.Path(), f.Name()))
		}
		if err := rehash(t.dir); err != nil {
			return err
		}
	}
	return nil
}
