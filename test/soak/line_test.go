package soak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"holdfast/internal/client"
)

// slow is what is told of, since it may be worth a look.
const slow = 5 * time.Second

const clock = "15:04:05.000" // of what is printed

// errLost is the outcome of a call whose connection was cut: it may have been done or not.
var errLost = errors.New("the connection was cut")

func lost(err error) bool { return errors.Is(err, errLost) }

// A line is a connection of one client to one shim, made again after it was cut.
type line struct {
	pod *pod

	mu   sync.Mutex
	shim *client.Shim // nil while there is none
}

// open returns the connection.
func (c *line) open() (*client.Shim, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shim != nil {
		return c.shim, nil
	}
	ctx, cancel := within()
	defer cancel()
	s, err := client.Dial(ctx, c.pod.Result.Address)
	if err != nil {
		return nil, err
	}
	s.Namespace, s.Version = c.pod.Namespace, c.pod.Version
	c.shim = s
	return s, nil
}

// cut ends the connection, whatever is being asked.
func (c *line) cut() {
	c.mu.Lock()
	s := c.shim
	c.shim = nil
	c.mu.Unlock()
	if s != nil {
		s.Close()
	}
}

// call asks the shim for something about a container, and judges the answer.
func (c *line) call(op operation, id string, do func(context.Context, *client.Shim) error) error {
	ctx, cancel := within()
	defer cancel()
	return c.callWithin(ctx, op, id, do)
}

func (c *line) callWithin(ctx context.Context, op operation, id string, do func(context.Context, *client.Shim) error) error {
	s, err := c.open()
	if err != nil {
		c.pod.world.t.Errorf("dial %s: %v", c.pod.id, err)
		return err
	}
	began := time.Now()
	if op == kill || op == pause || op == remove {
		c.pod.world.disturb(id)
	}
	err = do(ctx, s)
	took := time.Since(began)
	if c.wasCut(s, err) {
		c.pod.world.count(op, "cut", took)
		c.pod.world.note(id, op, began, errLost)
		return errLost
	}
	c.pod.world.count(op, code(err).String(), took)
	c.pod.world.note(id, op, began, err)
	if took > slow && op != wait {
		c.pod.world.t.Logf("%s of %s took %v; before that\n%s", op, id, took.Round(time.Millisecond), c.pod.world.story(id))
	}
	if complaint := judge(op, err, c.pod.world.disturbed(id)); complaint != "" {
		c.pod.world.t.Errorf("%s of %s, answered after %v: %s; before that\n%s",
			op, id, took.Round(time.Millisecond), complaint, c.pod.world.story(id))
	}
	return err
}

// wasCut says whether a call has failed because we have ended its connection.
func (c *line) wasCut(s *client.Shim, err error) bool {
	var answer *client.Error
	if err == nil || errors.As(err, &answer) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shim != s
}

// refusals are the codes with which an operation may be refused, besides those of a runtime that
// has failed.
var refusals = map[operation][]codes.Code{
	create:   {codes.AlreadyExists, codes.Aborted}, // the latter if it was deleted before the answer
	start:    {codes.NotFound, codes.FailedPrecondition},
	addExec:  {codes.NotFound, codes.FailedPrecondition, codes.AlreadyExists},
	kill:     {codes.NotFound, codes.FailedPrecondition, codes.InvalidArgument},
	wait:     {codes.NotFound, codes.DeadlineExceeded},
	state:    {codes.NotFound},
	pids:     {codes.NotFound},
	stats:    {codes.NotFound},
	pause:    {codes.NotFound, codes.FailedPrecondition},
	resume:   {codes.NotFound, codes.FailedPrecondition},
	resize:   {codes.NotFound, codes.FailedPrecondition},
	closeIO:  {codes.NotFound},
	remove:   {codes.NotFound, codes.FailedPrecondition},
	connect:  {},
	shutdown: {},
}

// failures is what an answer says if the runtime has failed. For the rest there is no such
// answer: the shim needs no runtime.
var failures = map[operation]string{
	create: "OCI runtime create failed: ",
	start:  "OCI runtime ",
	kill:   "unknown error after kill: ",
	pause:  "OCI runtime pause failed: ",
	resume: "OCI runtime resume failed: ",
	remove: "failed to delete task: ",
}

// judge returns what is wrong with an answer, or "". A runtime that was killed, or has met a
// container that somebody else was killing, is no fault of the shim, which then says what the
// runtime did.
func judge(op operation, err error, disturbed bool) string {
	switch {
	case err == nil || slices.Contains(refusals[op], code(err)):
		return ""
	case code(err) == codes.Unavailable && op == kill && disturbed:
		return "" // a process that is frozen, by a pause that was killed too, does not die
	case code(err) == codes.Unknown && failures[op] != "" && strings.Contains(err.Error(), failures[op]) &&
		(disturbed || strings.Contains(err.Error(), missing)):
		return ""
	}
	return fmt.Sprintf("code %v: %v", code(err), err)
}

// code returns the code of an answer, or of the lack of one in time.
func code(err error) codes.Code {
	if errors.Is(err, context.DeadlineExceeded) {
		return codes.DeadlineExceeded
	}
	return status.Code(err)
}

// A tally counts what was done. Safe for concurrent use.
type tally struct {
	mu      *sync.Mutex
	answers map[operation]map[string]int
	slowest map[operation]time.Duration
	acts    map[string]int  // of vandals
	victims map[string]int  // how many runtimes of a container were killed
	unquiet map[string]bool // containers that were killed or paused, or will end by themselves
	stories map[string][]string
}

func newTally() tally {
	return tally{
		mu: &sync.Mutex{}, answers: map[operation]map[string]int{}, slowest: map[operation]time.Duration{},
		acts: map[string]int{}, victims: map[string]int{}, unquiet: map[string]bool{}, stories: map[string][]string{},
	}
}

func (y tally) count(op operation, answer string, took time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.answers[op] == nil {
		y.answers[op] = map[string]int{}
	}
	y.answers[op][answer]++
	y.slowest[op] = max(y.slowest[op], took)
}

// note keeps what happened to a container, for the case that something is wrong with it.
func (y tally) note(id string, what any, began time.Time, err error) {
	line := fmt.Sprintf("\t%s to %s %v: %v", began.Format(clock), time.Now().Format(clock), what, err)
	y.mu.Lock()
	defer y.mu.Unlock()
	y.stories[id] = append(y.stories[id], line)
}

// story returns it.
func (y tally) story(id string) string {
	y.mu.Lock()
	defer y.mu.Unlock()
	lines := y.stories[id]
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// act counts what a vandal did.
func (y tally) act(what string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.acts[what]++
}

// strike notes that a runtime which works for a container is about to be killed.
func (y tally) strike(id, verb string) {
	y.note(id, "runc "+verb+" is about to be killed", time.Now(), nil)
	y.mu.Lock()
	defer y.mu.Unlock()
	y.victims[id]++
}

// struck returns how many runtimes of a container were killed so far.
func (y tally) struck(id string) int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.victims[id]
}

// disturb notes that a container may change its state while something else is under way.
func (y tally) disturb(id string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.unquiet[id] = true
}

// disturbed says whether that is so, or a runtime of the container was killed.
func (y tally) disturbed(id string) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.unquiet[id] || y.victims[id] > 0
}

// String has a line for each operation.
func (y tally) String() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	var b strings.Builder
	all := 0
	for _, op := range slices.Sorted(maps.Keys(y.answers)) {
		fmt.Fprintf(&b, "\n%-9s slowest %7v:", op, y.slowest[op].Round(time.Millisecond))
		for _, answer := range slices.Sorted(maps.Keys(y.answers[op])) {
			fmt.Fprintf(&b, " %s %d", answer, y.answers[op][answer])
			all += y.answers[op][answer]
		}
	}
	for _, what := range slices.Sorted(maps.Keys(y.acts)) {
		fmt.Fprintf(&b, "\n%s: %d", what, y.acts[what])
	}
	return fmt.Sprintf("%d calls%s", all, &b)
}
