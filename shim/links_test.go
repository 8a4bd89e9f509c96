package shim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/test/plant"
)

// plantIn makes a bundle whose file of that name is not what it should be, and a secret, which
// unchanged tells whether somebody has written to.
func plantIn(t *testing.T, name, content string, put func(path, secret string) error) (bundle string, unchanged func()) {
	t.Helper()
	bundle, elsewhere := t.TempDir(), t.TempDir()
	secret := filepath.Join(elsewhere, "secret")
	writeText(t, secret, content)
	if err := put(filepath.Join(bundle, name), secret); err != nil {
		t.Fatal(err)
	}
	return bundle, func() {
		t.Helper()
		if got := readText(t, secret); got != content {
			t.Errorf("the file elsewhere holds %q", got)
		}
		if got := fileNames(t, elsewhere); len(got) != 1 {
			t.Errorf("elsewhere are now %v", got)
		}
	}
}

// What we write in a bundle lands in the bundle.
func TestWritesDoNotFollowLinksOutOfABundle(t *testing.T) {
	writers := map[string]func(bundle string) error{
		optionsFile: func(bundle string) error { return SaveOptions(bundle, nil) },
		runtimeFile: func(bundle string) error { return SaveOptions(bundle, nil) },
		addressFile: func(bundle string) error {
			return (&starter{bundle: bundle, socket: "/s"}).writeAddress()
		},
	}
	for name, write := range writers {
		for what, put := range plant.Kinds {
			t.Run(name+" "+what, func(t *testing.T) {
				bundle, unchanged := plantIn(t, name, "secret", put)
				plant.Soon(t, func() {
					if err := write(bundle); err != nil {
						t.Error(err)
					}
				})
				unchanged()
				if info, err := os.Lstat(filepath.Join(bundle, name)); err != nil || !info.Mode().IsRegular() {
					t.Errorf("it is %v now, %v", info.Mode(), err)
				}
			})
		}
	}
}

// The stack of a crash is appended to a file of ours, or to none.
func TestCrashIsNotWrittenThroughALink(t *testing.T) {
	for what, put := range plant.Kinds {
		t.Run(what, func(t *testing.T) {
			bundle, unchanged := plantIn(t, crashFile, "secret", put)
			plant.Soon(t, func() {
				if done, err := catchCrashes(bundle); err == nil {
					done()
					t.Error("it is used")
				}
			})
			unchanged()
		})
	}
}

// What we read of a bundle is in the bundle: nothing elsewhere gets into an answer or a log.
func TestReadsDoNotFollowLinksOutOfABundle(t *testing.T) {
	const exit = `{"Timestamp":"2026-01-02T03:04:05Z","Pid":7,"Status":42}`
	readers := map[string]struct {
		secret string
		seen   func(bundle string) bool // that the secret was read
	}{
		"config.json": {`{"annotations":{"io.containerd.runc.v2.group":"secret"}}`, func(bundle string) bool {
			notes, err := readAnnotations(bundle)
			return err == nil || notes.group != "" || strings.Contains(err.Error(), "group")
		}},
		"exit.json": {exit, func(bundle string) bool {
			record, _ := readExit(bundle)
			return record != nil
		}},
		pidFile: {"1", func(bundle string) bool { return container{bundle: bundle}.initPid() != 0 }},
		optionsFile: {`{"root":"/secret"}`, func(bundle string) bool {
			o, _ := LoadOptions(bundle)
			return o.GetRoot() != ""
		}},
		runtimeFile: {"secret", func(bundle string) bool {
			o, _ := LoadOptions(bundle)
			return o.GetBinaryName() != ""
		}},
		addressFile:   {"unix:///secret", func(bundle string) bool { return recordedSocket(bundle) != "" }},
		bootstrapFile: {`{"address":"unix:///secret"}`, func(bundle string) bool { return recordedSocket(bundle) != "" }},
		crashFile: {"top secret", func(bundle string) bool {
			err := reportCrash(bundle)
			return err != nil && strings.Contains(err.Error(), "top secret")
		}},
		logFile: {"secret", func(bundle string) bool {
			fd := openLogPipe(filepath.Join(bundle, logFile))
			return fd >= 0 && unix.Close(fd) == nil
		}},
	}
	for name, c := range readers {
		for what, put := range plant.Kinds {
			if name == logFile && what == "FIFO" {
				continue // as it should be
			}
			t.Run(name+" "+what, func(t *testing.T) {
				bundle, unchanged := plantIn(t, name, c.secret, put)
				plant.Soon(t, func() {
					if c.seen(bundle) {
						t.Error("the file elsewhere was read")
					}
				})
				unchanged()
			})
		}
	}
}

// A link that stays in the bundle is good, and the name of a configuration, which is an
// administrator's, may be a link to anywhere.
func TestOtherLinksAreFollowed(t *testing.T) {
	dir := t.TempDir()
	writeText(t, filepath.Join(dir, "file"), "content")
	if err := os.Symlink("file", filepath.Join(dir, "inside")); err != nil {
		t.Fatal(err)
	}
	if got, err := readInBundle(filepath.Join(dir, "inside"), 100); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Symlink(filepath.Join(dir, "file"), outside); err != nil {
		t.Fatal(err)
	}
	if got, err := readFile(outside, 100); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
}

// No file of a bundle is read beyond its limit.
func TestFilesOfABundleAreLimited(t *testing.T) {
	bundle := t.TempDir()
	for _, name := range []string{"exit.json", optionsFile, runtimeFile, pidFile, addressFile} {
		path := filepath.Join(bundle, name)
		writeText(t, path, "1")
		if err := os.Truncate(path, maxFile+1); err != nil {
			t.Fatal(err)
		}
		if _, err := readInBundle(path, maxFile); !errors.Is(err, errTooLarge) {
			t.Errorf("%s of %d bytes: %v", name, maxFile+1, err)
		}
	}
	if record, err := readExit(bundle); record != nil || err == nil {
		t.Errorf("exit %v, %v", record, err)
	}
	if o, err := LoadOptions(bundle); o.GetBinaryName() != "" || err == nil {
		t.Errorf("options %v, %v", o, err)
	}
	if pid := (container{bundle: bundle}).initPid(); pid != 0 {
		t.Errorf("pid %d", pid)
	}
}

// The delete action leaves alone what is mounted where a link leads that is in the place of rootfs.
func TestDeleteDoesNotUnmountThroughALink(t *testing.T) {
	m := newManager(t, "2.4")
	bundle := m.bundle("c1", nil)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	bindMount(t, elsewhere)
	if err := os.RemoveAll(filepath.Join(bundle, rootfs)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(bundle, rootfs)); err != nil {
		t.Fatal(err)
	}
	if _, complaint := m.mustDelete("c1"); complaint != "" {
		t.Errorf("it complains %q", complaint)
	}
	if !isMounted(t, elsewhere) {
		t.Error("what others have mounted is gone")
	}
}
