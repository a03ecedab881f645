package store

import (
	"database/sql"
	"net/url"
)

// What the tests reach into.
var (
	CheckVersion = checkVersion
	FileURI      = fileURI
)

// WriterParams are the driver's parameters of the writer connection.
func WriterParams(d Durability) url.Values {
	return writerParams(Config{Durability: d, BusyTimeout: DefaultBusyTimeout})
}

// Readers returns the pool of the reader connections.
func (d *SQLite) Readers() *sql.DB { return d.readers }

// Open returns a pool for a file, whose connections must have a pragma.
func Open(path string, params url.Values, pragma string, want int64) *sql.DB {
	return open(Config{Path: path}, nil, fileURI(path), params, expect{pragma: want})
}
