package store

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// urlParameters have a meaning here. Any other parameter is sent to the server, which judges it.
var urlParameters = []string{
	"channel_binding", "connect_timeout", "default_query_exec_mode", "description_cache_capacity", "host", "krbspn",
	"max_protocol_version", "min_protocol_version", "passfile", "port", "require_auth", "service", "servicefile",
	"sslcert", "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni",
	"statement_cache_capacity",
	"target_session_attrs",
}

// errURL returns why a URL cannot be parsed. It repeats only the names of known parameters.
func errURL(name string) error {
	bad := misunderstood(name)
	if _, ok := placeOf(name); len(bad) == 0 || !ok {
		return fmt.Errorf("%w: not a URL such as postgres://user:password@host:5432/database"+
			" (in a password, write %%23 for #, %%2F for /, %%3A for :, %%3F for ? and %%40 for @)", ErrName)
	}
	return fmt.Errorf("%w: in the URL, after the ?, the value of %s cannot be understood,"+
		" or is a file that cannot be read", ErrName, strings.Join(bad, " and of "))
}

// misunderstood returns the parameters without which a URL could be parsed.
func misunderstood(name string) (bad []string) {
	u, err := url.Parse(name)
	if err != nil {
		return nil
	}
	values := u.Query()
	parses := func(values url.Values) bool {
		u.RawQuery = values.Encode()
		_, err := pgx.ParseConfig(u.String())
		return err == nil
	}
	good := maps.Clone(values)
	maps.DeleteFunc(good, func(key string, _ []string) bool { return slices.Contains(urlParameters, key) })
	if !parses(good) {
		return nil
	}
	for _, key := range urlParameters {
		if _, ok := values[key]; !ok {
			continue
		}
		without := maps.Clone(values)
		delete(without, key)
		if parses(without) { // this one alone is at fault: some need each other
			return []string{key}
		}
		if good[key] = values[key]; !parses(good) {
			bad = append(bad, key)
			delete(good, key)
		}
	}
	return bad
}
