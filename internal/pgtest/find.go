package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// Variable names the environment variable with the URL of a server to use instead of starting one.
const Variable = "MODELSCAN_TEST_POSTGRES"

// ErrNotFound is returned when there is no PostgreSQL to start. Its text says how to get one.
var ErrNotFound = errors.New("no PostgreSQL 15 or newer was found: install it (Debian, Ubuntu: apt-get install" +
	" postgresql), " +
	"or set " + Variable + " to the postgres:// URL of a server on which databases may be created")

// oldest is the first release that works: it copies databases without a checkpoint.
const oldest = 15

// places are where packages put PostgreSQL without adding it to $PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin", // Debian
	"/usr/pgsql-*/bin",          // Red Hat
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/usr/local/pgsql/bin", // from source
}

// find returns the folder with PostgreSQL's programs: the one on $PATH, or else the newest.
func find() (bin string, err error) {
	if !supported {
		return "", ErrNotFound
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		// The programs find their files, and here each other, from where they really are.
		if initdb, err = filepath.EvalSymlinks(initdb); err == nil && version(filepath.Dir(initdb)) >= oldest {
			return filepath.Dir(initdb), nil
		}
	}
	newest := oldest - 1
	for _, place := range places {
		folders, err := filepath.Glob(place)
		if err != nil {
			return "", fmt.Errorf("%s: %w", place, err)
		}
		for _, folder := range folders {
			if v := version(folder); v > newest {
				newest, bin = v, folder
			}
		}
	}
	if bin == "" {
		return "", ErrNotFound
	}
	return bin, nil
}

var versionText = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// version returns the major version of the server in a folder, 0 if there is no whole one.
func version(folder string) int {
	for _, program := range []string{"initdb", "pg_basebackup"} {
		if _, err := os.Stat(filepath.Join(folder, program)); err != nil {
			return 0
		}
	}
	out, err := exec.Command(filepath.Join(folder, "postgres"), "--version").Output()
	if err != nil {
		return 0
	}
	match := versionText.FindSubmatch(out)
	if match == nil {
		return 0
	}
	v, err := strconv.Atoi(string(match[1]))
	if err != nil {
		return 0
	}
	return v
}
