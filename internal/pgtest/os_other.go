//go:build !unix

package pgtest

import (
	"errors"
	"os"
	"os/exec"
)

// supported says that servers can be started on this system. Here only [Variable] helps, and
// find gives up before any of the rest is needed.
const supported = false

func give(string) error           { return errors.ErrUnsupported }
func asOwner(*exec.Cmd) error     { return errors.ErrUnsupported }
func detach(*exec.Cmd)            {}
func killSession(*exec.Cmd) error { return errors.ErrUnsupported }
func pause(int) error             { return errors.ErrUnsupported }
func resume(int) error            { return errors.ErrUnsupported }
func lock(*os.File) error         { return errors.ErrUnsupported }
