package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criPlugins are the parts of containerd that serve the kubelet, by the format of the configuration.
var criPlugins = map[int][]string{
	2: {"io.containerd.grpc.v1.cri"},
	3: {"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"},
}

// criConfigs have the shim replace containerd's own, in each format. The runtime's state is with that of
// the test, as the namespace is the one that a real kubelet's pods have.
var criConfigs = map[int]string{
	2: `
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "%[2]s"
stream_server_address = "127.0.0.1"
restrict_oom_score_adj = true # a machine for tests may not let us protect its pods
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "%[1]s/runc"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "%[1]s/cni"
conf_dir = "%[1]s/cni"
`,
	3: `
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "%[2]s"
[plugins."io.containerd.grpc.v1.cri"]
stream_server_address = "127.0.0.1"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
Root = "%[1]s/runc"
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["%[1]s/cni"]
conf_dir = "%[1]s/cni"
`,
}

func (c *containerd) criConfig(format int) string {
	return fmt.Sprintf(criConfigs[format], c.dir, image)
}

// kubelet does what the kubelet does with one pod.
type kubelet struct {
	*containerd
	api  cri.RuntimeServiceClient
	pod  *cri.PodSandboxConfig
	id   string // of the pod
	many int    // containers so far
}

// runPod starts a pod in the host's network, as nothing here provides another. The test's cleanup
// removes it.
func runPod(t *testing.T, c *containerd) *kubelet {
	t.Helper()
	k := &kubelet{containerd: c, api: cri.NewRuntimeServiceClient(c.conn)}
	k.ready(t)
	k.pod = &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: "pod", Namespace: "default", Uid: "u1"},
		LogDirectory: filepath.Join(c.dir, "logs"),
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: "/" + c.namespace,
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
			},
		},
	}
	a, err := k.api.RunPodSandbox(k.soon(t), &cri.RunPodSandboxRequest{Config: k.pod})
	if err != nil {
		t.Fatal(err)
	}
	k.id = a.GetPodSandboxId()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := k.api.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: k.id}); err != nil {
			t.Error(err)
		}
		if _, err := k.api.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: k.id}); err != nil {
			t.Error(err)
		}
	})
	return k
}

func (k *kubelet) soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// ready waits until containerd answers the kubelet, too.
func (k *kubelet) ready(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		_, err := k.api.Status(k.soon(t), &cri.StatusRequest{})
		return err
	})
}

// run starts a container of the pod and returns its id. Without a limit of memory it has none.
func (k *kubelet) run(t *testing.T, memory int64, script string) string {
	t.Helper()
	k.many++
	created, err := k.api.CreateContainer(k.soon(t), &cri.CreateContainerRequest{
		PodSandboxId: k.id, SandboxConfig: k.pod,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: fmt.Sprint("c", k.many)},
			Image:    &cri.ImageSpec{Image: image},
			Command:  []string{"/bin/sh", "-c", script},
			LogPath:  fmt.Sprint("c", k.many, ".log"),
			Linux:    &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{MemoryLimitInBytes: memory}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := created.GetContainerId()
	if _, err := k.api.StartContainer(k.soon(t), &cri.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	return id
}

// becomes waits until the kubelet would see the container in a state.
func (k *kubelet) becomes(t *testing.T, id, want string) {
	t.Helper()
	eventually(t, func() error {
		a, err := k.api.ContainerStatus(k.soon(t), &cri.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			return err
		}
		s := a.GetStatus()
		if got := fmt.Sprintf("%s %d %s", s.GetState(), s.GetExitCode(), s.GetReason()); got != want {
			return fmt.Errorf("the kubelet sees %q, want %q", got, want)
		}
		return nil
	})
}

// exec runs a script in a container, as a probe does, and returns what it said and its exit status.
func (k *kubelet) exec(t *testing.T, id, script string) (string, int32) {
	t.Helper()
	a, err := k.api.ExecSync(k.soon(t), &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"/bin/sh", "-c", script}, Timeout: 10})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(a.GetStdout())), a.GetExitCode()
}

// What the kubelet sees of a pod, all of whose containers share one shim.
func TestKubelet(t *testing.T) {
	if upstream {
		t.Skip("shows what ours does")
	}
	for _, version := range []string{"1.6", "2.4"} {
		t.Run("containerd-"+version, func(t *testing.T) { testKubelet(t, version) })
	}
}

func testKubelet(t *testing.T, version string) {
	c := launch(t, version, withCRI)
	k := runPod(t, c)

	t.Run("exit", func(t *testing.T) {
		k.becomes(t, k.run(t, 0, "exit 0"), "CONTAINER_EXITED 0 Completed")
		k.becomes(t, k.run(t, 0, "exit 7"), "CONTAINER_EXITED 7 Error")
	})
	t.Run("logs", func(t *testing.T) {
		k.becomes(t, k.run(t, 0, "echo one; echo two >&2; printf three"), "CONTAINER_EXITED 0 Completed")
		log, err := os.ReadFile(filepath.Join(k.pod.GetLogDirectory(), fmt.Sprint("c", k.many, ".log")))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{" stdout F one\n", " stderr F two\n", " stdout P three\n"} {
			if !strings.Contains(string(log), want) {
				t.Errorf("no %q in %q", want, log)
			}
		}
	})
	t.Run("probes and statistics", func(t *testing.T) {
		id := k.run(t, 64<<20, "exec sleep 1000")
		k.becomes(t, id, "CONTAINER_RUNNING 0 ")
		if said, status := k.exec(t, id, "echo well; exit 3"); said != "well" || status != 3 {
			t.Errorf("the probe says %q, %d", said, status)
		}
		a, err := k.api.ContainerStats(k.soon(t), &cri.ContainerStatsRequest{ContainerId: id})
		if err != nil || a.GetStats().GetMemory().GetUsageBytes().GetValue() == 0 {
			t.Errorf("statistics %v, %v", a, err)
		}
		if _, err := k.api.StopContainer(k.soon(t), &cri.StopContainerRequest{ContainerId: id}); err != nil {
			t.Error(err)
		}
		k.becomes(t, id, "CONTAINER_EXITED 137 Error")
	})
	t.Run("holdfast sees it, and nothing dead in it", func(t *testing.T) {
		id := k.run(t, 0, "exec sleep 1000")
		client := filepath.Join(filepath.Dir(built.shim), "holdfast")
		list, err := output(client, "ls", "--json")
		if err != nil || !strings.Contains(list, k.id) || !strings.Contains(list, id) {
			t.Errorf("ls: %v: %s", err, list)
		}
		dead, err := output(client, "gc", "--json")
		if err != nil || strings.Contains(dead, k.id) || strings.Contains(dead, id) {
			t.Errorf("gc: %v: %s", err, dead)
		}
	})
	t.Run("memory", func(t *testing.T) {
		k.becomes(t, k.run(t, 48<<20, "x=a; while :; do x=$x$x; done"), "CONTAINER_EXITED 137 OOMKilled")
	})
	t.Run("exit while containerd is away", func(t *testing.T) {
		id := k.run(t, 0, "while [ ! -e /tmp/stop ]; do sleep 0.1; done; exit 9")
		pid := c.task(t, id).pid
		c.whileAway(t, pid, "/tmp/stop")
		k.ready(t)
		k.becomes(t, id, "CONTAINER_EXITED 9 Error")
	})
}
