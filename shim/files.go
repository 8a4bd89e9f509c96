package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
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
	f, err := openInBundle(path)
	if err != nil {
		return nil, err
	}
	return readRegular(f, limit)
}

// readRegular reads f, and closes it in any case.
func readRegular(f *os.File, limit int64) ([]byte, error) {
	err := checkRegular(f)
	var data []byte
	if err == nil {
		data, err = readAll(f, limit)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return data, nil
}

// openInBundle opens a regular file for reading, by no link that leads out of its directory.
func openInBundle(path string) (*os.File, error) {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // nothing was written
	f, err := dir.OpenFile(filepath.Base(path), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := checkRegular(f); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	return f, nil
}

func checkRegular(f *os.File) error {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	return err
}

// writeFile puts data under path with exactly that mode, whatever the umask is. A reader, and who
// comes after a crash, finds the old content or the new one, never a part. Nothing is synced to
// disk: a bundle does not outlive the machine.
func writeFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	err = fill(f, data, mode)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// fill writes data to f and closes it in any case.
func fill(f *os.File, data []byte, mode os.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	return errors.Join(err, f.Close())
}
