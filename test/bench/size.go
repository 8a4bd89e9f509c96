package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// sizeLines are about the files.
var sizeLines = []line{
	{id: "size", name: "the binary", unit: "MB", decimals: 2, bound: atMost, limit: 6},
}

// size notes how large the binaries are.
func (b *bench) size(context.Context) error {
	for _, c := range b.shims {
		info, err := os.Stat(c.path)
		if err != nil {
			return err
		}
		b.note("size", c.name, float64(info.Size())/1e6)
	}
	return nil
}

// settle has the binaries written to disk. Pages of a file that has just been built are dirty until
// then, and the kernel would count them as dirty memory of the process that has them mapped.
func (b *bench) settle() error {
	for _, c := range b.shims {
		f, err := os.Open(c.path)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("write %s to disk: %w", c.path, err)
		}
	}
	return nil
}
