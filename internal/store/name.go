package store

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Errors of names that cannot be opened, for errors.Is.
var (
	// ErrName is returned for an invalid data source name.
	ErrName       = errors.New("not a database name")
	errIsDir      = fmt.Errorf("%w: it is a directory", ErrName)
	errNotRegular = fmt.Errorf("%w: it is not a regular file", ErrName)
)

// Name is a parsed data source name of SQLite.
type Name struct {
	Path        string         // absolute path of the file; empty: a database in memory
	Shared      bool           // in memory: one database for all openers in this process that ask for a shared one
	BusyTimeout *time.Duration // nil: the name says nothing about it
}

const (
	filesOfThatName = "a file of that name is file:PATH, with percent escapes"
	escapedMark     = "a file whose name has a ? is file:PATH, with %3f for the ?"
	postgresURL     = "a PostgreSQL database is postgres://user:password@host:5432/database"
)

var (
	scheme = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]*$`)
	// keywords belong to the keyword form of libpq, host=127.0.0.1 dbname=gw, and its relatives. A keyword counts at
	// the beginning and after a blank or a semicolon; after a folder, only if the name begins with word=.
	keywords = regexp.MustCompile(`(?i)^(|[^/\\]*[\s;]|\s*\w+\s*=.*[\s;])(host|hostaddr|hostname|server|data source|` +
		`port|dbname|database|user|username|user id|uid|password|pwd|passfile|service|servicefile|` +
		`options|application_name|fallback_application_name|connect_timeout|client_encoding|target_session_attrs|` +
		`require_auth|channel_binding|keepalives\w*|load_balance_hosts|replication|gss\w+|krbsrvname|ssl\w+|` +
		`tcp_user_timeout|min_protocol_version|max_protocol_version|search_path|timezone|statement_timeout|` +
		`lock_timeout|default_query_exec_mode|statement_cache_capacity|description_cache_capacity|pool_\w+)\s*=`)
	// memory matches other spellings of :memory:.
	memory = regexp.MustCompile(`(?i)^\s*(file:)?\s*:memory:\s*$`)
	// misnamed matches how other libraries begin names of SQLite files.
	misnamed = regexp.MustCompile(`(?i)^(jdbc:)?sqlite3?:`)
	// credentials matches user:password@host/db and user:password@tcp(host)/db. A drive, C:, is not a user.
	credentials = regexp.MustCompile(`^[^/\\]{2,}:[^/\\]*@`)
)

// ParseName parses a data source name: a path, file:PATH with percent escapes, or ":memory:", each with or without
// parameters. Otherwise it returns [ErrName], which repeats only the scheme and the names of known parameters, because
// a name may have a password in it.
func ParseName(name string) (Name, error) {
	if strings.IndexFunc(name, breaksLine) >= 0 {
		return Name{}, fmt.Errorf("%w: it has a control character, such as NUL or a line break; remove it, or if it"+
			" belongs there: %s", ErrName, filesOfThatName)
	}
	path, query, parameters := strings.Cut(name, "?")
	inMemory := path == ":memory:" || path == "file::memory:"
	if !inMemory && memory.MatchString(path) {
		return Name{}, fmt.Errorf("%w: a database in memory is :memory:, in small letters and without blanks; %s",
			ErrName, filesOfThatName)
	}
	var err error
	if rest, uri := strings.CutPrefix(path, "file:"); uri && !inMemory {
		path, err = parseFileURI(rest)
	} else if !inMemory {
		err = refusePath(name, parameters)
	}
	if err != nil {
		return Name{}, err
	}
	var n Name
	if parameters {
		if err := n.take(query, inMemory); err != nil {
			return Name{}, err
		}
	}
	switch {
	case inMemory:
		return n, nil
	case path == "":
		return Name{}, fmt.Errorf("%w: it is empty", ErrName)
	}
	n.Path, err = filepath.Abs(path)
	return n, err
}

// breaksLine reports whether a character is a control character or separates lines.
func breaksLine(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }

// refusePath returns an error for a name that means a server, but that SQLite would take for a path.
func refusePath(name string, parameters bool) error {
	if before, _, ok := strings.Cut(name, "://"); ok {
		if !scheme.MatchString(before) {
			before = "that kind of name, with "
		}
		return fmt.Errorf("%w: no support for %s://", ErrName, before)
	}
	switch {
	case strings.HasPrefix(name, "postgres:"), strings.HasPrefix(name, "postgresql:"):
		return fmt.Errorf("%w: %s", ErrName, postgresURL)
	case len(name) >= len("file:") && strings.EqualFold(name[:len("file:")], "file:"):
		return fmt.Errorf("%w: write file: in small letters", ErrName)
	case misnamed.MatchString(name):
		return fmt.Errorf("%w: it begins with sqlite: and a SQLite file is its path alone, or file:PATH", ErrName)
	case keywords.MatchString(name), strings.Contains(name, "password="):
		return fmt.Errorf("%w: it is of the form keyword=value, which is not supported: %s; %s",
			ErrName, postgresURL, filesOfThatName)
	case credentials.MatchString(name):
		return fmt.Errorf("%w: it begins like user:password@host: %s; %s", ErrName, postgresURL, filesOfThatName)
	}
	if _, err := os.Lstat(name); err == nil && parameters {
		return fmt.Errorf(
			"%w: there is a file with the ? and what follows in its name; rename it, or %s", ErrName, escapedMark,
		)
	}
	return nil
}

// take reads parameters as written for SQLite and its drivers for Go. It accepts parameters that ask for what is done
// anyway.
func (n *Name) take(query string, inMemory bool) error {
	values, err := url.ParseQuery(query)
	if err != nil || len(values) == 0 {
		return fmt.Errorf("%w: after the ? come no parameters; %s", ErrName, escapedMark)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		for _, value := range values[key] {
			if instead := n.parameter(key, value, inMemory); instead != "" {
				return fmt.Errorf("%w: parameter %s", ErrName, instead)
			}
		}
	}
	return nil
}

// parameter takes a parameter. If it cannot, it returns what to do instead; this begins with the parameter's name if
// that is known.
func (n *Name) parameter(key, value string, inMemory bool) (instead string) {
	is := func(values ...string) bool { return slices.Contains(values, strings.ToLower(value)) }
	switch key {
	case "_fk", "_foreign_keys":
		if !is("1", "yes", "true", "on") {
			return key + ": foreign keys are always on: leave it out"
		}
	case "_journal", "_journal_mode":
		if !is("wal") {
			return key + ": the journal mode is always WAL: leave it out"
		}
	case "_txlock":
		if !is("immediate") {
			return key + ": transactions are always immediate: leave it out"
		}
	case "_busy_timeout", "_timeout":
		ms, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return key + " is not a number of milliseconds"
		}
		timeout := time.Duration(ms) * time.Millisecond
		n.BusyTimeout = &timeout
	case "cache":
		if !is("private", "shared") {
			return key + " is not private or shared"
		}
		n.Shared = inMemory && is("shared")
	case "mode":
		switch {
		case is("rw"):
			return key + ": to open a file only if it is there, open the registry WithoutMigration"
		case is("memory"):
			return key + ": a database in memory is :memory:"
		case !is("rwc"):
			return key + ": the registry reads, writes and creates: leave it out"
		}
	case "_sync", "_synchronous":
		return key + ": what a commit survives is set by WithDurability"
	default:
		return "that the registry does not take: leave it out; it takes _fk, _foreign_keys, _journal, _journal_mode," +
			" _txlock, _busy_timeout, cache and mode=rwc; " + escapedMark
	}
	return ""
}

func parseFileURI(rest string) (string, error) {
	if strings.ContainsRune(rest, '#') {
		return "", fmt.Errorf("%w: in the path of file:, write %%23 for #", ErrName)
	}
	if authority, ok := strings.CutPrefix(rest, "//"); ok {
		host, path, _ := strings.Cut(authority, "/")
		if host != "" && host != "localhost" {
			return "", fmt.Errorf("%w: file: of another host", ErrName)
		}
		rest = "/" + path
	}
	path, err := url.PathUnescape(rest)
	if err != nil || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("%w: bad percent escape", ErrName)
	}
	return path, nil
}
