package process

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"holdfast/internal/wire"
)

// Stats returns the numbers of the container's control group, as one of the two messages of
// containerd's cgroups module. Without a control group it is errdefs.ErrNotFound, but for a container
// that has lost a process for want of memory: that alone is told then. Managers ask for it after an
// exit with 137, when the scopes that systemd makes have gone already (contract 3.10).
func (c *Container) Stats() (wire.Message, error) {
	group := c.cgroup()
	if group == nil {
		return nil, fmt.Errorf("cgroup does not exist: %w", errdefs.ErrNotFound)
	}
	numbers, err := group.Stats()
	if errors.Is(err, errdefs.ErrNotFound) {
		if kills := c.oomKills(); kills > 0 {
			return group.Remains(kills), nil
		}
	}
	return numbers, err
}

// oomKills returns how many OOM kills are known of.
func (c *Container) oomKills() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watch.Kills()
}

// Pids returns the pids of the container's processes. It never fails, and as long as the
// container is not deleted it names at least its init process, dead or alive: managers take an
// empty answer for a leaked shim and throw the exit status away (managers.md, surprise 1). Execs
// of ours are in the map, by pid.
func (c *Container) Pids(ctx context.Context) (pids []int, execs map[int]string) {
	if group := c.cgroup(); group != nil {
		var err error
		if pids, err = group.Pids(); err != nil {
			c.cfg.Log.Debug("pids not read from the control group", "task", c.cfg.ID, "err", err)
		}
	}
	execs = map[int]string{}
	for _, e := range c.all() {
		if info := e.info(); info.Pid != 0 && info.State == Running {
			execs[info.Pid] = e.cfg.ID
			pids = append(pids, info.Pid)
		}
	}
	if pid := c.init.info().Pid; pid != 0 {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return slices.Compact(pids), execs
}
