package mount

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// loopTries bounds the race for a free loop device: each loss means that somebody else won.
const loopTries = 128

// attachLoop makes a block device of an image file and returns it open. It frees itself when
// nobody has it open or mounted any more. With directIO the image is read around the page cache,
// where its filesystem can do that.
func attachLoop(image string, readOnly, directIO bool) (*os.File, error) {
	mode := os.O_RDWR
	info := unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}
	if readOnly {
		mode = os.O_RDONLY
		info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if directIO {
		info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	copy(info.File_name[:len(info.File_name)-1], image) // for losetup(8) to show
	// Not blocking, in case that it is a FIFO; the kernel will refuse it.
	backing, err := os.OpenFile(image, mode|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	defer backing.Close() //nolint:errcheck // nothing was written
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("look for a free loop device: %w", err)
	}
	defer control.Close() //nolint:errcheck // nothing was written
	for range loopTries {
		dev, err := tryLoop(control, mode, backing, &info)
		if err == unix.EBUSY { //nolint:errorlint // an errno as the kernel gave it
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("attach %s to a loop device: %w", image, err)
		}
		return dev, nil
	}
	return nil, fmt.Errorf("attach %s to a loop device: others took %d free ones before us: %w", image, loopTries, unix.EBUSY)
}

// tryLoop attaches the file to the next free device. EBUSY means that it is no longer free.
func tryLoop(control *os.File, mode int, backing *os.File, info *unix.LoopInfo64) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("look for a free loop device: %w", err)
	}
	dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), mode, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: *info}
	err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
	if err == unix.EINVAL || err == unix.ENOTTY { //nolint:errorlint // errnos as the kernel gave them
		err = configureLoop(dev, backing, info)
	}
	if err != nil {
		return nil, closing(dev, err)
	}
	return dev, nil
}

// configureLoop does in steps what LOOP_CONFIGURE does at once, for kernels before 5.8.
func configureLoop(dev, backing *os.File, info *unix.LoopInfo64) error {
	fd := int(dev.Fd())
	if err := unix.IoctlSetInt(fd, unix.LOOP_SET_FD, int(backing.Fd())); err != nil {
		return err
	}
	// From here on the device is taken, and frees itself only after the next step.
	if err := unix.IoctlLoopSetStatus64(fd, info); err != nil {
		if clearing := unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0); clearing != nil {
			return fmt.Errorf("%w, and %s stays taken: %w", err, dev.Name(), clearing)
		}
		return err
	}
	if info.Flags&unix.LO_FLAGS_DIRECT_IO != 0 {
		// Refused where the image's filesystem cannot do it; then the page cache it is.
		_ = unix.IoctlSetInt(fd, unix.LOOP_SET_DIRECT_IO, 1)
	}
	return nil
}
