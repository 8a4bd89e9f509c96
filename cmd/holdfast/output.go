package main

import (
	"os"
	"sync"
)

// stdout is what verbs print to.
var stdout = &output{file: os.Stdout}

// output remembers the first failure to write, so that no verb has to ask each time: the end of all does.
type output struct {
	file   *os.File
	failed error // to be read when nobody writes any more
	mu     sync.Mutex
}

// Write may be called concurrently.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.file.Write(p)
	if o.failed == nil {
		o.failed = err
	}
	return n, err
}
