package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
	"holdfast/internal/node"
)

const stockShim = "containerd-shim-runc-v2"

// realTask is a container that a real shim runs, in directories of the test's own.
type realTask struct {
	*client.Session

	t       *testing.T
	dir     string
	cfg     node.Config
	bundle  string
	initPid int
}

// runTask starts one in a shim of that path.
func runTask(t *testing.T, ctx context.Context, binary, id string) *realTask {
	t.Helper()
	dir, cfg := realNode(t)
	namespace := "hf-node-" + strconv.Itoa(os.Getpid())
	r := &realTask{t: t, dir: dir, cfg: cfg, bundle: filepath.Join(dir, managerState, namespace, id)}
	if err := client.NewBundle(r.bundle, client.BundleConfig{Args: []string{"sleep", "infinity"}}); err != nil {
		t.Fatal(err)
	}
	var err error
	r.Session, err = client.Launch(ctx, dir, client.StartConfig{
		Binary: binary, ID: id, Namespace: namespace, Bundle: r.bundle, SocketDir: cfg.SocketDirs[0],
		Legacy: filepath.Base(binary) == stockShim, // which may be an old one
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.end)
	if err := os.WriteFile(filepath.Join(r.bundle, "shim-binary-path"), []byte(binary), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(ctx, &task.CreateTaskRequest{ID: id, Bundle: r.bundle}); err != nil {
		t.Fatal(err)
	}
	started, err := r.Start(ctx, &task.StartRequest{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	r.initPid = int(started.GetPid())
	return r
}

// end leaves nothing, whatever the test has come to.
func (r *realTask) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_ = unix.Kill(r.Pid(), unix.SIGKILL) // by now the pid is ours, or a zombie's, for as long as the session holds it
	if exists(r.bundle) {
		if _, _, err := client.Delete(ctx, r.Config); err != nil {
			r.t.Error(err)
		}
	}
	r.Close()
	// The runtime leaves that of the namespace.
	if err := os.Remove("/run/containerd/runc/" + r.Namespace); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Error(err)
	}
}

// ended waits until a process has ended.
func ended(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("pid %d has not ended", pid)
		}
	}
}

// shims returns those that there are to test: ours, and containerd's if it is installed.
func shims(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{"ours": filepath.Join(programs, shimName)}
	if path, err := exec.LookPath(stockShim); err == nil {
		found["stock"] = path
	}
	return found
}

func TestRealShimsAreListedAndMeasured(t *testing.T) {
	needRoot(t)
	for name, binary := range shims(t) {
		t.Run(name, func(t *testing.T) {
			ctx := deadline(t, runLimit)
			r := runTask(t, ctx, binary, "hf-ls-"+name)
			o := surveyOptions{cfg: r.cfg, namespace: r.Namespace}
			var out bytes.Buffer
			if err := ls(ctx, &out, lsOptions{surveyOptions: o, json: true}); err != nil {
				t.Fatal(err)
			}
			var got listing
			if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got.Shims) != 1 || len(got.Leaks) != 0 {
				t.Fatalf("%v: %s", err, &out)
			}
			s, id := got.Shims[0], r.Config.ID
			if s.Pid != r.Pid() || s.Group != id || s.Address != r.Result.Address || s.Bundle != r.bundle || s.Exe != binary ||
				s.Threads < 1 || s.Files < 4 || s.PrivateDirty < 100<<10 || s.Proportional < s.PrivateDirty || s.Problem != "" ||
				time.Since(s.Started).Abs() > time.Minute {
				t.Errorf("%+v", s)
			}
			if len(s.Containers) != 1 || s.Containers[0] != (listedTask{id, "running", r.initPid}) {
				t.Errorf("%+v", s.Containers)
			}
			found, err := node.Lookup(ctx, r.cfg, "", id)
			if err != nil || found.Pid != r.Pid() || !found.Alive(r.cfg) {
				t.Errorf("%+v, %v", found, err)
			}
			out.Reset()
			if err := metrics(ctx, &out, o); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"holdfast_shim_up{", "holdfast_container_processes{", "holdfast_container_memory_bytes{"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %s in %s", want, &out)
				}
			}
			wellFormed(t, out.String())
			out.Reset()
			if err := nodeStats(ctx, &out, statsOptions{surveyOptions: o}); err != nil || !strings.Contains(out.String(), id) {
				t.Errorf("%v: %s", err, &out)
			}
		})
	}
}

func TestCollectionTouchesNothingOfRealContainersThatLive(t *testing.T) {
	needRoot(t)
	for name, binary := range shims(t) {
		t.Run(name, func(t *testing.T) {
			ctx := deadline(t, runLimit)
			r := runTask(t, ctx, binary, "hf-gc-"+name)
			o := gcOptions{cfg: r.cfg, yes: true, now: later}
			collect := func() string {
				var out bytes.Buffer
				if err := gc(ctx, &out, o); err != nil {
					t.Errorf("%v: %s", err, &out)
				}
				return out.String()
			}
			alive := func(when string) {
				if !exists(r.bundle) || unix.Kill(r.initPid, 0) != nil {
					t.Fatalf("%s: the container is gone", when)
				}
			}
			if out := collect(); strings.Contains(out, r.bundle) {
				t.Errorf("the bundle of a living shim is named: %s", out)
			}
			alive("while the shim lives")
			if _, err := r.State(ctx, &task.StateRequest{ID: r.Config.ID}); err != nil {
				t.Error(err)
			}
			if err := unix.Kill(r.Pid(), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			ended(t, r.Pid())
			if out := collect(); !strings.Contains(out, "keep") || !strings.Contains(out, r.bundle) {
				t.Errorf("%s", out)
			}
			alive("after its shim was killed")
			if err := unix.Kill(r.initPid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			ended(t, r.initPid)
			if out := collect(); !strings.Contains(out, "removed") || exists(r.bundle) {
				t.Errorf("%s", out)
			}
			if path := "/run/containerd/runc/" + r.Namespace + "/" + r.Config.ID; exists(path) {
				t.Errorf("left behind: %s", path)
			}
			if sockets, err := os.ReadDir(r.cfg.SocketDirs[0]); len(sockets) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("left behind: %v, %v", sockets, err)
			}
			if path := strings.TrimPrefix(r.Result.Address, "unix://"); name != "ours" {
				// It does not know of other directories than containerd's own.
				if err := removeSocket(path); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
