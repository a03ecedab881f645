package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// profile has a package with 3 of 4 statements covered, one with none, and a generated one. Two test binaries have
// counted one block.
const profile = `mode: set
example.com/m/a/one.go:1.1,2.2 2 1
example.com/m/a/two.go:1.1,2.2 1 0
example.com/m/a/two.go:1.1,2.2 1 1
example.com/m/a/two.go:3.1,4.2 1 0
example.com/m/b/b.go:1.1,2.2 5 0
example.com/m/gen/deep/gen.go:1.1,2.2 7 0
`

func TestRun(t *testing.T) {
	t.Parallel()
	const module, generated = "module: example.com/m\n", "\nexcluded: {gen: generated}"
	for name, test := range map[string]struct{ floors, profile, want string }{
		"OK":             {module + "floor: 75\nlower: {b: 0}" + generated, profile, ""},
		"ErrBelow":       {module + "floor: 75" + generated, profile, "b: 0.0 % is below 75 %"},
		"ErrJustBelow":   {module + "floor: 75.1\nlower: {b: 0}" + generated, profile, "a: 75.0 % is below 75.1 %"},
		"ErrNoPackage":   {module + "lower: {c: 1}" + generated, profile, "c: the profile has no such package"},
		"ErrNotExcluded": {module + "excluded: {ge: x}", profile, "ge: the profile has nothing to exclude there"},
		"ErrModule":      {"module: example.com/n", profile, "example.com/m/a/one.go is not of example.com/n"},
		"ErrField":       {"modul: example.com/m", profile, "field modul not found"},
		"ErrProfile":     {module, "nothing", "bad mode line"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			floorsFile, profileFile := filepath.Join(t.TempDir(), "floors.yaml"), filepath.Join(t.TempDir(),
				"coverage.out")
			require.NoError(t, os.WriteFile(floorsFile, []byte(test.floors), 0o600))
			require.NoError(t, os.WriteFile(profileFile, []byte(test.profile), 0o600))
			var out bytes.Buffer
			err := run(floorsFile, profileFile, &out)
			if test.want != "" {
				require.ErrorContains(t, err, test.want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, " 75.0 %, at least 75 %  a\n  0.0 %, at least  0 %  b\n", out.String())
		})
	}
}
