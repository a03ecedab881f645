// Program nocgo opens each database that it is given, writes to it and prints how that ended. It is built without cgo.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/jeffersonwarrior/modelscan/registry"
)

func main() {
	for _, name := range os.Args[1:] {
		err := use(context.Background(), name)
		fmt.Println(err, errors.Is(err, registry.ErrUnsupported))
	}
}

func use(ctx context.Context, name string) error {
	reg, err := registry.Open(ctx, name)
	if err != nil {
		return err
	}
	return errors.Join(reg.SetSetting(ctx, "built", "without cgo"), reg.Close())
}
