package leak

import (
	"runtime"
	"strings"
)

// resident are goroutines of the Go runtime that are started once, when first needed, and never
// end. Read only.
var resident = []string{
	"os/signal.loop(",
	"os/signal.signal_recv(",
	"runtime.ensureSigM",
}

// goroutines looks for goroutines that were not there before.
func goroutines(w *Watch) {
	before := stacks()
	w.add("goroutines", func() []string {
		var found []string
		for id, stack := range stacks() {
			if _, old := before[id]; !old && !isResident(stack) {
				found = append(found, stack)
			}
		}
		return found
	})
}

func isResident(stack string) bool {
	for _, name := range resident {
		if strings.Contains(stack, name) {
			return true
		}
	}
	return false
}

// stacks returns the stack of every goroutine but the caller's, by the goroutine's number, which is
// never used again.
func stacks() map[string]string {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	byID := map[string]string{}
	// The first stack is the caller's own.
	for _, stack := range strings.Split(string(buf), "\n\n")[1:] {
		fields := strings.Fields(stack)
		if len(fields) > 1 {
			byID[fields[1]] = strings.TrimSpace(stack)
		}
	}
	return byID
}
