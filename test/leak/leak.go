package leak

import (
	"strings"
	"testing"
	"time"
)

const (
	patience  = 5 * time.Second  // how long Check waits for things to go
	firstLook = time.Millisecond // pause after the first look, doubled each time
	maxPause  = 100 * time.Millisecond
)

// subject is one thing that is looked at. It returns a line for each leak that it finds.
type subject struct {
	title string
	look  func() []string
}

// Option names more for a Watch to look at.
type Option func(*Watch)

// Watch is a check under way.
type Watch struct {
	t        testing.TB
	patience time.Duration
	subjects []subject
}

// Check notes the state of the process and reports, when the clean-up of t that is registered from
// now on is done, everything that is new and still there as errors of t.
func Check(t testing.TB, opts ...Option) *Watch {
	t.Helper()
	w := &Watch{t: t, patience: patience}
	w.Also(goroutines, descriptors, children)
	w.Also(opts...)
	t.Cleanup(w.verify)
	return w
}

// Also makes w look at more, from now on: what the test learns only while it runs.
func (w *Watch) Also(opts ...Option) {
	for _, opt := range opts {
		opt(w)
	}
}

// Within changes how long things may take to go; it is five seconds at first.
func Within(d time.Duration) Option {
	return func(w *Watch) { w.patience = d }
}

func (w *Watch) add(title string, look func() []string) {
	w.subjects = append(w.subjects, subject{title, look})
}

// verify looks until nothing is found or patience is at its end.
func (w *Watch) verify() {
	w.t.Helper()
	end := time.Now().Add(w.patience)
	for pause := firstLook; ; pause = min(2*pause, maxPause) {
		findings := w.look()
		if len(findings) == 0 {
			return
		}
		if time.Now().After(end) {
			w.t.Errorf("left behind after %v:\n%s", w.patience, strings.Join(findings, "\n"))
			return
		}
		time.Sleep(pause)
	}
}

// look returns what every subject finds, under its title.
func (w *Watch) look() []string {
	var findings []string
	for _, s := range w.subjects {
		if found := s.look(); len(found) > 0 {
			findings = append(findings, s.title+":")
			findings = append(findings, found...)
		}
	}
	return findings
}
