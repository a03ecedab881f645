// Command atlas-diff plans the migration between the files of migrate/<dialect> and the
// graph in ent/schema:
//
//	go run ./cmd/atlas-diff -name add_x   # writes the next file and atlas.sum
//	go run ./cmd/atlas-diff -check        # prints what is missing; exits 1 if anything is
//	go run ./cmd/atlas-diff -hash         # writes atlas.sum anew after a new file was edited by hand
//
// It needs no database: the files are replayed into an in-memory one.
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
	dialect := flags.String("dialect", "sqlite", "the engine: sqlite")
	dir := flags.String("dir", "", "the migration files (default migrate/<dialect>)")
	if err := flags.Parse(args); err != nil {
		return exitError
	}
	fail := func(err error) int {
		fmt.Fprintln(stderr, "atlas-diff:", err)
		return exitError
	}
	if *dialect != "sqlite" {
		return fail(fmt.Errorf("dialect %q: not one of: sqlite", *dialect))
	}
	if modes := []bool{*name != "", *check, *hash}; flags.NArg() > 0 || count(modes) != 1 {
		return fail(errors.New("give one of -name add_x, -check and -hash"))
	}
	if *name != "" && !validName.MatchString(*name) {
		return fail(fmt.Errorf("name %q: not lower-case words joined by _", *name))
	}
	if *dir == "" {
		*dir = filepath.Join("migrate", *dialect)
	}
	files, err := migrate.NewLocalDir(*dir)
	if err != nil {
		return fail(err)
	}
	if *hash {
		if err := rehash(files); err != nil {
			return fail(err)
		}
		fmt.Fprintln(stdout, filepath.Join(*dir, migrate.HashFileName))
		return exitOK
	}
	if *check {
		return report(ctx, files, *dialect, stdout, fail)
	}
	written, err := plan(ctx, files, *name, entmigrate.Tables)
	if err != nil {
		return fail(err)
	}
	if len(written) == 0 {
		fmt.Fprintf(stdout, "%s: in sync with ent/schema, nothing to plan\n", *dialect)
		return exitOK
	}
	for _, f := range written {
		fmt.Fprintln(stdout, filepath.Join(*dir, f.Name()))
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

// report plans into a copy of the files and prints the statements of what came out.
func report(ctx context.Context, files migrate.Dir, dialect string, stdout io.Writer, fail func(error) int) int {
	copied, err := inMemory(files)
	if err != nil {
		return fail(err)
	}
	missing, err := plan(ctx, copied, "check", entmigrate.Tables)
	if err != nil {
		return fail(err)
	}
	if len(missing) == 0 {
		fmt.Fprintf(stdout, "%s: in sync with ent/schema\n", dialect)
		return exitOK
	}
	fmt.Fprintf(stdout, "%s: the migration files lack, against ent/schema:\n", dialect)
	for _, f := range missing {
		fmt.Fprintln(stdout, strings.TrimSpace(string(f.Bytes())))
	}
	return exitDrift
}
