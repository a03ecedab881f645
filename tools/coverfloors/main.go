// Command coverfloors fails if a package is covered less than its floor.
//
//	go run ./coverfloors ../.coverage.yaml ../coverage.out
//
// The first file has the floors, the second one is what go test -coverprofile has written: each package there has to
// keep the floor for all, unless the first file names another one for it, or says why it needs none.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/cover"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: coverfloors <floors.yaml> <coverage.out>")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "coverfloors:", err)
		os.Exit(1)
	}
}

// floors are in percent of a package's statements.
type floors struct {
	Module   string             `yaml:"module"`
	Floor    float64            `yaml:"floor"`
	Lower    map[string]float64 `yaml:"lower"`    // of packages, by their folders
	Excluded map[string]string  `yaml:"excluded"` // why, by folders; those within are excluded too
}

// counted are a package's statements.
type counted struct{ all, covered int }

func (c counted) percent() float64 { return 100 * float64(c.covered) / float64(c.all) }

func run(floorsFile, profileFile string, out io.Writer) error {
	text, err := os.ReadFile(floorsFile)
	if err != nil {
		return err
	}
	var f floors
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&f); err != nil {
		return fmt.Errorf("%s: %w", floorsFile, err)
	}
	packages, err := read(profileFile, f.Module)
	if err != nil {
		return err
	}
	return f.check(packages, out)
}

// read returns the packages of a profile by their folders.
func read(profileFile, module string) (map[string]counted, error) {
	profiles, err := cover.ParseProfiles(profileFile)
	if err != nil {
		return nil, err
	}
	packages := map[string]counted{}
	for _, file := range profiles {
		folder, ours := strings.CutPrefix(path.Dir(file.FileName), module+"/")
		if !ours {
			return nil, fmt.Errorf("%s: %s is not of %s", profileFile, file.FileName, module)
		}
		c := packages[folder]
		for _, block := range file.Blocks {
			c.all += block.NumStmt
			if block.Count > 0 {
				c.covered += block.NumStmt
			}
		}
		packages[folder] = c
	}
	return packages, nil
}

// check prints each package, and returns what is below its floor or not there at all.
func (f floors) check(packages map[string]counted, out io.Writer) error {
	var wrong []error
	excluded := map[string]bool{}
	for _, folder := range slices.Sorted(maps.Keys(packages)) {
		if by := f.excludedBy(folder); by != "" {
			excluded[by] = true
			continue
		}
		floor, lower := f.Lower[folder]
		if !lower {
			floor = f.Floor
		}
		percent := packages[folder].percent()
		fmt.Fprintf(out, "%5.1f %%, at least %2g %%  %s\n", percent, floor, folder)
		if percent < floor {
			wrong = append(wrong, fmt.Errorf("%s: %.1f %% is below %g %%", folder, percent, floor))
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(f.Lower)) {
		if _, there := packages[folder]; !there {
			wrong = append(wrong, fmt.Errorf("%s: the profile has no such package", folder))
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(f.Excluded)) {
		if !excluded[folder] {
			wrong = append(wrong, fmt.Errorf("%s: the profile has nothing to exclude there", folder))
		}
	}
	return errors.Join(wrong...)
}

// excludedBy returns the excluded folder that a folder is, or lies in.
func (f floors) excludedBy(folder string) string {
	for ; folder != "." && folder != ""; folder = path.Dir(folder) {
		if _, found := f.Excluded[folder]; found {
			return folder
		}
	}
	return ""
}
