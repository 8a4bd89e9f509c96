package shim

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	bootstrapFile = "bootstrap.json" // written by managers from 2.0 on: the answer of start
	podParallel   = 4                // runtime commands at a time
	// dyingTime is how long the kernel may take to close what a killed daemon had open.
	dyingTime = 200 * time.Millisecond
)

// endPod ends the other containers of a pod whose daemon has died, if ours is the pod's sandbox or
// the one that the group is named after. Managers run delete for that one; the others would live
// on without anybody to watch them, beside those that take their place (managers.md, surprise 4).
// Then the socket that the daemon has left is removed too.
//
// It does nothing at all unless the daemon is certainly dead: the bundle says where its socket is,
// and nobody listens there. Of the others only those are ended that say the same.
func (d *cleanup) endPod(ctx context.Context) {
	notes, err := readAnnotations(d.bundle)
	if err != nil {
		return // such a spec was never started from
	}
	sandbox := notes.container == "sandbox"
	socket := recordedSocket(d.bundle)
	if socket == "" || !sandbox && notes.key(d.container.id) != d.container.id {
		return
	}
	present := exists(socket)
	if !present && !sandbox {
		return // a daemon that ends in good order takes its socket with it
	}
	if dead, err := isDying(socket); err != nil || !dead {
		d.warn(err)
		return
	}
	d.endAll(ctx, d.members(socket))
	if present {
		d.warn(removeDead(socket))
	}
}

// isDying is isDead for a daemon that may have been killed a moment ago: the manager runs us when its
// connection breaks, and the kernel closes that before or after the socket.
func isDying(socket string) (dead bool, err error) {
	for end := time.Now().Add(dyingTime); ; time.Sleep(dyingTime / 20) {
		if dead, err = isDead(socket); dead || err != nil || time.Now().After(end) {
			return dead, err
		}
	}
}

// members returns the containers beside ours that were served on socket.
func (d *cleanup) members(socket string) []container {
	state := filepath.Dir(d.bundle)
	entries, err := os.ReadDir(state)
	if err != nil {
		return nil // the namespace's directory is gone, and every bundle with it
	}
	var members []container
	for _, entry := range entries {
		id := entry.Name()
		bundle := filepath.Join(state, id)
		if id == d.container.id || strings.HasPrefix(id, ".") || recordedSocket(bundle) != socket {
			continue
		}
		notes, err := readAnnotations(bundle)
		if err == nil && (notes.sandbox == d.container.id || notes.key(id) == d.container.id) {
			members = append(members, container{d.container.namespace, id, bundle})
		}
	}
	return members
}

// endAll ends containers, a few at a time.
func (d *cleanup) endAll(ctx context.Context, members []container) {
	var all sync.WaitGroup
	slots := make(chan struct{}, podParallel)
	for _, c := range members {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			d.warn(c.end(ctx))
		})
	}
	all.Wait()
}

// recordedSocket returns the path of the socket that a bundle's container was served on, as start
// or the manager has noted it; "" if neither has.
func recordedSocket(bundle string) string {
	address := ""
	if data, err := readInBundle(filepath.Join(bundle, addressFile), maxFile); err == nil {
		address = strings.TrimSpace(string(data))
	} else if data, err := readInBundle(filepath.Join(bundle, bootstrapFile), maxFile); err == nil {
		var result struct {
			Address string `json:"address"`
		}
		if json.Unmarshal(data, &result) == nil {
			address = result.Address
		}
	}
	path, found := strings.CutPrefix(address, addressScheme)
	if !found || !filepath.IsAbs(path) {
		return ""
	}
	return path
}
