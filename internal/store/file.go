//go:build cgo

package store

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// lookAtFile is how long check trusts that the name still means the open file.
const lookAtFile = time.Second

// openFile is an open file.
type openFile struct {
	path   string
	info   os.FileInfo
	looked time.Time // when check last saw it in its place
}

// watchFile returns the file of a name, which the caller then opens.
func watchFile(path string) (*openFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &openFile{path: path, info: info}, nil
}

// check returns [ErrReplaced] if the file is not in its place. It looks at most once a second while it is. It is for
// the one who has the turn to write.
func (f *openFile) check() error {
	if f == nil { // in memory
		return nil
	}
	now := time.Now()
	if now.Sub(f.looked) < lookAtFile {
		return nil
	}
	if err := f.look(); err != nil {
		return err
	}
	f.looked = now
	return nil
}

// look is check without the limit of once a second. If it cannot see the file, because a folder can no longer be
// entered, it trusts it.
func (f *openFile) look() error {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, f.info) {
		return ErrReplaced
	}
	return nil
}
