package shim

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"holdfast/internal/bundle"
)

// readFile returns the content of a regular file that has at most limit bytes. It never blocks:
// something else under that name, a FIFO say, is an error.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return readRegular(f, limit)
}

// readInBundle is readFile for a file of a bundle, where a link that leads out is an error too.
func readInBundle(path string, limit int64) ([]byte, error) {
	f, err := bundle.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return readRegular(f, limit)
}

// readRegular reads f, and closes it in any case.
func readRegular(f *os.File, limit int64) ([]byte, error) {
	err := bundle.Regular(f)
	var data []byte
	if err == nil {
		data, err = readAll(f, limit)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return data, nil
}
