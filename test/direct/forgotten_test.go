package direct

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"holdfast/test/order"
)

// A manager that was killed, or has forgotten to ask the shim to end, does not leave it behind; but
// as long as the bundle is there it may come back.
func TestShimThatIsForgottenEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	l := newLab(t, labConfig{bundle: sh("exit 0")})
	l.run("c1", nil)
	l.wait("c1", "")
	l.mustDelete("c1", "")
	pid := l.Pid()
	l.Shim.Close()
	for end := time.Now().Add(12 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if !isShim(pid) {
			t.Fatal("it ended while the bundle was there")
		}
	}
	if err := os.RemoveAll(filepath.Join(l.dir, "c1")); err != nil {
		t.Fatal(err)
	}
	l.dead(pid)
	l.killed = true
	order.Verify(t, l.Events.All())
	l.Close()
}

// A start has been told where the shim is; then the pod's last container goes, and the manager asks
// the shim to end, before the new one is created (contract T58).
func TestStartIsNotSentToAShimThatEnds(t *testing.T) {
	l := newLab(t, labConfig{bundle: grouped(sh("exit 0"), "g")})
	l.run("c1", nil)
	l.wait("c1", "")
	address := l.join("c2", grouped(sh("exit 7"), "g"))
	l.mustDelete("c1", "")
	l.shutDown("c1")
	if address != l.Result.Address {
		t.Fatalf("start answers %s, not %s", address, l.Result.Address)
	}
	l.run("c2", nil)
	if got := l.wait("c2", ""); got != 7 {
		t.Errorf("exit status %d", got)
	}
	l.mustDelete("c2", "")
}
