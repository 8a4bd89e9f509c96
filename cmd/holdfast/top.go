package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	flag "github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// ticksPerSecond is the unit of time in /proc/PID/stat: USER_HZ, which is the same on all machines that
// Go runs on (proc(5)).
const ticksPerSecond = 100

// topRow is a process of a container at one time.
type topRow struct {
	described
	ticks      uint64        // that it has had a processor for, since its start
	Spent      time.Duration `json:"cpu_ns"` // the same
	CPUPercent float64       `json:"cpu_percent"`
}

// topLook is all of them.
type topLook struct {
	at   time.Time
	rows []topRow
}

func topFlags(f *flag.FlagSet, t *target) {
	f.Var(newInterval(&t.interval), "interval", "time between two tables")
	f.BoolVar(&t.once, "once", false, "print one table, as if there were no terminal")
	f.BoolVar(&t.json, "json", false, "print one table as JSON")
}

// top lists the processes of a container with the share of a processor that each has: once, or in a
// terminal again and again until Ctrl-C or the end of the container.
func top(ctx context.Context, t *target) (int, error) {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	_, _, live := windowSize(os.Stdout)
	live = live && !t.once && !t.json
	last, err := t.topLook(ctx)
	for pause := statsPause; err == nil && sleep(ctx, pause); pause = max(t.interval, statsPause) {
		var now topLook
		if now, err = t.topLook(ctx); err != nil {
			break
		}
		now.compare(last)
		if t.json {
			return 0, writeJSON(stdout, now.rows)
		}
		text := now.table()
		if live {
			text = clearScreen + text
		}
		if _, err := fmt.Fprint(stdout, text); err != nil || !live {
			return 0, err
		}
		last = now
	}
	if ctx.Err() != nil && live {
		return 0, nil
	}
	return 0, err
}

func (t *target) topLook(ctx context.Context) (topLook, error) {
	response, err := t.Pids(ctx, &task.PidsRequest{ID: t.id})
	if err != nil {
		return topLook{}, err
	}
	l := topLook{at: time.Now()}
	for _, p := range response.GetProcesses() {
		r := topRow{described: describeProcess(int(p.GetPid())), ticks: ticksOf(int(p.GetPid()))}
		r.Spent = time.Duration(r.ticks) * time.Second / ticksPerSecond
		l.rows = append(l.rows, r)
	}
	return l, nil
}

// ticksOf returns how long a process has had a processor; 0 if it has ended.
func ticksOf(pid int) uint64 {
	stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat") // it may have ended
	_, rest, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseUint(fields[11], 10, 64) // the kernel writes numbers
	system, _ := strconv.ParseUint(fields[12], 10, 64)
	return user + system
}

// compare computes what each process had of a processor since the last look; who had most comes first.
func (l *topLook) compare(last topLook) {
	before := map[int]uint64{}
	for _, r := range last.rows {
		before[r.Pid] = r.ticks
	}
	passed := l.at.Sub(last.at).Seconds()
	for i := range l.rows {
		r := &l.rows[i]
		// A pid that was given to another process has had less than before.
		if old, ok := before[r.Pid]; ok && passed > 0 && r.ticks >= old {
			r.CPUPercent = 100 * float64(r.ticks-old) / ticksPerSecond / passed
		}
	}
	slices.SortStableFunc(l.rows, func(a, b topRow) int {
		return cmp.Or(cmp.Compare(b.CPUPercent, a.CPUPercent), a.Pid-b.Pid)
	})
}

func (l *topLook) table() string {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PID\tSTATE\tCPU %\tTIME\tMEMORY\tCOMMAND")
	for _, r := range l.rows {
		fmt.Fprintf(table, "%d\t%s\t%.1f\t%v\t%s\t%s\n", r.Pid, r.State, r.CPUPercent, r.Spent, r.memoryText(), r.Command)
	}
	_ = table.Flush() // a strings.Builder takes everything
	return text.String()
}
