package direct

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/opencontainers/runtime-spec/specs-go"

	"holdfast/internal/client"
)

const (
	// roundsVariable says how many processes TestLastWordsWaitForLateClients has write and end.
	roundsVariable = "HOLDFAST_ROUNDS"
	// The smallest and the largest sizes, as powers of two.
	least, most = 10, 20
)

// A way is one by which output goes to the client.
type way struct {
	name     string
	init     bool // the container's first process, which has the FIFO itself; else an exec
	terminal bool
	scheme   string
	share    int // of all rounds, in shares of 20
}

var ways = []way{
	{"init, FIFO", true, false, "fifo", 3},
	{"exec, FIFO", false, false, "fifo", 8},
	{"exec, terminal", false, true, "fifo", 5},
	{"exec, file", false, false, "file", 1},
	{"exec, logger", false, false, "binary", 3},
}

// A reader is how the client reads.
type reader int

const (
	fast reader = iota
	slow
	late // not before the process has exited, if what it says fits into a pipe
)

// A round is one process that writes size bytes and ends at once.
type round struct {
	way
	id   string
	size int
	read reader
}

// rounds has each size of each way, and its neighbours, up to 1<<most.
func rounds(n int) []round {
	var all []round
	for _, w := range ways {
		for k := range n * w.share / 20 {
			size := 1<<(least+k%(most-least+1)) + k/4%3 - 1
			all = append(all, round{way: w, id: fmt.Sprintf("r%d", len(all)), size: size, read: []reader{late, fast, late, slow}[k%4]})
		}
	}
	order := rand.New(rand.NewPCG(1, 2)) // the large ones are not to come all at once
	order.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// Many processes at a time write and exit at once, to clients of every kind: what they have written
// arrives, byte for byte, and after it the end, before anybody deletes anything. It is late clients
// that miss something if the shim lets go too early, and only sometimes, while it starts others.
func TestLastWordsWaitForLateClients(t *testing.T) {
	n := amount(t, roundsVariable, 500)
	if testing.Short() {
		n /= 10
	}
	l := newLab(t, labConfig{bundle: sleeper()})
	e := &ending{lab: l, content: randomLetters(1<<most + 1), source: filepath.Join(l.dir, "source")}
	var cancel context.CancelFunc
	e.long, cancel = context.WithTimeout(t.Context(), time.Minute+time.Duration(n)*time.Second/5)
	defer cancel()
	if err := os.WriteFile(e.source, e.content, 0o644); err != nil {
		t.Fatal(err)
	}
	l.bundleAgain("c1", e.withSource(sleeper()))
	l.run("c1", nil)
	before := l.census()
	all := rounds(n)
	began := time.Now()
	spread(t, len(all), func(i int) error {
		if err := e.round(all[i]); err != nil {
			return fmt.Errorf("%s, %d bytes, reader %d: %w", all[i].name, all[i].size, all[i].read, err)
		}
		return nil
	})
	t.Logf("%d rounds in %v", len(all), time.Since(began).Round(time.Millisecond))
	l.unchanged(before)
	l.finish("c1")
}

// randomLetters is n bytes that a terminal changes none of.
func randomLetters(n int) []byte {
	content := make([]byte, n)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(content) // it has no error
	for i := range content {
		content[i] = '0' + content[i]&0x3f
	}
	return content
}

// ending is the lab of the test and what its processes write: the beginning of content, which is
// the content of the file source, and of /source in each container.
type ending struct {
	*lab
	content []byte
	source  string
	long    context.Context // bounds what may take long: large streams share a machine
}

func (e *ending) withSource(cfg client.BundleConfig) client.BundleConfig {
	cfg.Mounts = []specs.Mount{{Destination: "/source", Source: e.source, Type: "bind", Options: []string{"bind", "ro"}}}
	return cfg
}

// round is the whole life of one process. It is called from several goroutines.
func (e *ending) round(r round) error {
	streams, err := e.open(r)
	if err != nil {
		return err
	}
	defer streams.Close()
	cfg := client.BundleConfig{Args: []string{"/usr/bin/head", "-c", strconv.Itoa(r.size), "/source"}, Terminal: r.terminal}
	id, exec := "c1", r.id
	if r.init {
		id, exec = r.id, ""
		cfg.CgroupsPath = e.cgroup(id)
		if err := client.NewBundle(filepath.Join(e.dir, id), e.withSource(cfg)); err != nil {
			return err
		}
		_, err = e.create(id, streams.io())
	} else {
		err = e.exec(id, exec, cfg, streams.io())
	}
	if err != nil {
		return err
	}
	if _, err := e.start(id, exec); err != nil {
		return err
	}
	if err := streams.afterStart(e, r); err != nil {
		return err
	}
	a, err := e.Wait(e.long, &task.WaitRequest{ID: id, ExecID: exec})
	if err != nil || a.GetExitStatus() != 0 {
		return fmt.Errorf("wait: %v, %v", a, err)
	}
	if err := streams.afterExit(e, r); err != nil {
		return err
	}
	if _, err := e.Delete(e.long, &task.DeleteRequest{ID: id, ExecID: exec}); err != nil {
		return err
	}
	return errors.Join(streams.afterDelete(e, r), e.tidy(r))
}

// tidy runs the delete action for a container, as a manager does.
func (e *ending) tidy(r round) error {
	if !r.init {
		return nil
	}
	cfg := e.Config
	cfg.ID, cfg.Bundle = r.id, filepath.Join(e.dir, r.id)
	_, warnings, err := client.Delete(e.long, cfg)
	if err != nil || warnings != "" {
		return fmt.Errorf("delete action: %w; it says %q", err, warnings)
	}
	return nil
}

// check compares a stream with what it should be, chunk by chunk.
type check struct {
	pace time.Duration // between chunks

	mu    sync.Mutex // guards what follows
	want  []byte     // what is still to come
	wrong bool
}

// left returns how much is still to come.
func (c *check) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.want)
}

func (c *check) Write(p []byte) (int, error) {
	time.Sleep(c.pace)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !bytes.HasPrefix(c.want, p) {
		c.wrong = true
		return 0, errors.New("other bytes")
	}
	c.want = c.want[len(p):]
	return len(p), nil
}

// done tells what was amiss, at the end of the stream.
func (c *check) done() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wrong || len(c.want) > 0 {
		return fmt.Errorf("the stream ended %d bytes early, or with other bytes: %v", len(c.want), c.wrong)
	}
	return nil
}

// checkFile compares a file and removes it.
func checkFile(path string, want []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	c := &check{want: want}
	if _, err := io.Copy(c, f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return errors.Join(c.done(), os.Remove(path))
}
