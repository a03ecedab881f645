package pgtest

import "testing"

// What the tests reach: to look for PostgreSQL, or to share a server, as somebody else.
var (
	Find        = find
	NewTemplate = newTemplate
	Share       = share
	NotePath    = notePath
	Until       = until
	Life        = func() int { return life() }
)

// SetPlaces changes where PostgreSQL is looked for, besides $PATH, until the test is over.
func SetPlaces(t *testing.T, globs ...string) {
	t.Helper()
	before := places
	places = globs
	t.Cleanup(func() { places = before })
}

// SetLife changes the process that the shared server belongs to, until the test is over.
func SetLife(t *testing.T, process int) {
	t.Helper()
	before := life
	life = func() int { return process }
	t.Cleanup(func() { life = before })
}

// Data returns the server's data folder.
func (c *Cluster) Data() string { return c.data() }
