package direct

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// loggerWord is the first argument of this test binary when it is to be a logging program.
const loggerWord = "as-logger"

// Which arguments say what: they are the URI's query, and before each is its key.
const (
	argDir      = 2 // where to write what arrives
	argProtocol = 4 // binary or binary-v2
	argPace     = 6 // how long to wait before each read
	argCount    = 7
)

// loggerURI makes a logging program of this test binary, and returns the URI that names it. It
// writes what arrives into the files stdout and stderr in dir, which it makes, who it is for into
// the file for, and makes the file end once both streams have ended.
func (l *lab) loggerURI(protocol, dir string, pace time.Duration) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	uri := url.URL{Scheme: protocol, Path: self}
	uri.RawQuery = fmt.Sprintf("%s=%s&protocol=%s&pace=%v", loggerWord, url.QueryEscape(dir), protocol, pace)
	return uri.String(), nil
}

// asLogger is the logging program. It does not return, and ends as it is: what the race detector
// does at the end takes a second, and a logger has no environment that says otherwise.
func asLogger(args []string) {
	if err := logStreams(args); err != nil {
		// Whoever looks for what we write will find this, or nothing at all.
		_ = os.WriteFile(filepath.Join(args[argDir], "failed"), []byte(err.Error()), 0o600)
		syscall.Exit(1)
	}
	syscall.Exit(0)
}

func logStreams(args []string) error {
	if len(args) != argCount {
		return fmt.Errorf("%d arguments: %q", len(args), args)
	}
	pace, err := time.ParseDuration(args[argPace])
	if err != nil {
		return err
	}
	dir := args[argDir]
	who := os.Getenv("CONTAINER_NAMESPACE") + " " + os.Getenv("CONTAINER_ID")
	if err := os.WriteFile(filepath.Join(dir, "for"), []byte(who), 0o600); err != nil {
		return err
	}
	// SIGTERM comes when everything has been read, which need not have been written down by then.
	signal.Ignore(syscall.SIGTERM)
	ready := os.NewFile(5, "ready")
	if args[argProtocol] == "binary-v2" {
		if _, err := ready.Write([]byte{1}); err != nil {
			return err
		}
	}
	if err := ready.Close(); err != nil {
		return err
	}
	copied := make(chan error)
	for fd, name := range map[uintptr]string{3: "stdout", 4: "stderr"} {
		go func() { copied <- logStream(os.NewFile(fd, name), filepath.Join(dir, name), pace) }()
	}
	if err := errors.Join(<-copied, <-copied); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "end"), nil, 0o600)
}

func logStream(from *os.File, path string, pace time.Duration) error {
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for {
		time.Sleep(pace)
		n, err := from.Read(buf)
		if errors.Is(err, io.EOF) {
			return to.Close()
		}
		if err != nil {
			return err
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
	}
}
