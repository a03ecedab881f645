package pgtest

import (
	"context"
	"os"
	"sync"
)

// initialize makes the data folder anew.
func (c *Cluster) initialize(ctx context.Context) error {
	// Without -N, initdb waits for a sync of its files, which do not matter yet.
	return c.tool(ctx, "initdb", "-D", c.data(), "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
}

// template is the server whose folder this process's servers begin with: initdb takes ten times as long as a copy. It
// never runs, and is gone when the process is.
var template struct {
	sync.Mutex
	*Cluster
}

// copyTemplate makes the data folder.
func (c *Cluster) copyTemplate(ctx context.Context) (err error) {
	template.Lock()
	defer template.Unlock()
	if template.Cluster == nil {
		if template.Cluster, err = newTemplate(ctx, c.bin); err != nil {
			return err
		}
	}
	return c.execute(ctx, "cp", "-R", template.data(), c.data())
}

// newTemplate initializes a server that never runs, and returns nil with an error.
func newTemplate(ctx context.Context, bin string) (*Cluster, error) {
	made, err := newCluster(bin, os.Getpid(), "")
	if err == nil {
		err = made.initialize(ctx)
		made.closeIf(&err)
	}
	if err != nil {
		return nil, err
	}
	return made, nil
}
