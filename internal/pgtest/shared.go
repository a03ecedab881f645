package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Shared returns the URL of the one server of this `go test`, of the database from which others
// are created: that of [Variable], or one that the first caller starts, in whichever package's
// process, and that is gone when `go test` is. It returns [ErrNotFound].
func Shared(ctx context.Context) (string, error) {
	if text := os.Getenv(Variable); text != "" {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Scheme != "postgres" && u.Scheme != "postgresql" {
			return "", fmt.Errorf("%s is not a postgres:// URL with a host", Variable) // it may hold a password
		}
		return text, nil
	}
	return found.get(ctx, life())
}

// life returns the process that the shared server belongs to: the `go` command that started this
// process and those of other packages, or else this process.
var life = func() int {
	parent := os.Getppid()
	name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(parent), "comm"))
	if err != nil {
		name, err = exec.Command("ps", "-o", "comm=", "-p", strconv.Itoa(parent)).Output()
	}
	if err == nil && filepath.Base(strings.TrimSpace(string(name))) == "go" {
		return parent
	}
	return os.Getpid()
}

// found are the shared servers that this process knows, by the process they belong to: one,
// outside of this package's tests.
var found sharedServers

type sharedServers struct {
	sync.Mutex
	urls map[int]string
}

func (s *sharedServers) get(ctx context.Context, life int) (string, error) {
	s.Lock()
	defer s.Unlock()
	if url, ok := s.urls[life]; ok {
		return url, nil
	}
	url, err := share(ctx, life)
	if err != nil {
		return "", err
	}
	if s.urls == nil {
		s.urls = map[int]string{}
	}
	s.urls[life] = url
	return url, nil
}

// share returns the URL of the server that belongs to a process, and starts it if it is the first
// to ask. A file says where it is, and its lock makes one the first.
func share(ctx context.Context, life int) (_ string, err error) {
	path := notePath(life)
	note, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, note.Close()) }()
	if err := lock(note); err != nil {
		return "", fmt.Errorf("lock %s: %w", path, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if url, folder, ok := strings.Cut(string(text), "\n"); ok {
		// It may be of an earlier process with this number, before the machine went down.
		if is, err := one[string](ctx, url, "SHOW data_directory"); err == nil && is == folder {
			return url, nil
		}
	}
	c, err := start(ctx, life, path)
	if err != nil {
		return "", err
	}
	url := c.URL(maintenance)
	if err := os.WriteFile(path, []byte(url+"\n"+c.data()), 0o600); err != nil {
		return "", errors.Join(err, c.Close())
	}
	return url, nil
}

func notePath(life int) string {
	return filepath.Join(temporary, fmt.Sprintf("modelscan-pgtest-%d-%d", os.Getuid(), life))
}

// temporary is where temporary files are, of all packages under test, whatever [Main] does.
var temporary = os.TempDir()
