package store

import "database/sql"

// What the tests reach into.
var (
	CheckVersion = checkVersion
	FileURI      = fileURI
)

// CachedStatements is how many prepared statements a connection keeps.
const CachedStatements = cachedStatements

// Readers returns the pool of the reader connections.
func (d *SQLite) Readers() *sql.DB { return d.readers }

// Open returns a pool for a file, whose connections must have a pragma.
func Open(path, name string, value int64) *sql.DB {
	return open(nil, fileURI(path)+"?mode=rwc", []pragma{{name, value}})
}
