//go:build !cgo

package busy

// Is reports whether an error says that somebody else holds the database. Without cgo there is no SQLite.
func Is(error) bool { return false }
