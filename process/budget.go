package process

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"holdfast/stdio"
)

const (
	// BudgetAnnotation in config.json is a container's own budget for output that nobody reads.
	BudgetAnnotation = "io.holdfast.stdio.budget"
	// BudgetVariable in the environment of the shim is that of all others: Config.Budget.
	BudgetVariable = "HOLDFAST_STDIO_BUDGET"
	// LoggerVariable in the environment of the shim is Config.LoggerDirs, separated by colons. It is
	// not an option of the runtime: those come with a request, and whoever may send requests could
	// allow himself everything then.
	LoggerVariable = "HOLDFAST_LOGGER_DIRS"
)

// Presence is stdio's: it has to be told whether a manager is there.
type Presence = stdio.Presence

// NewPresence returns a Presence without managers.
func NewPresence() *Presence { return stdio.NewPresence() }

// newRoom returns the room for the container's output. A budget that makes no sense is refused:
// whoever set it would find out too late otherwise, when the manager is away.
func (c *Container) newRoom() (*stdio.Room, error) {
	source, text := BudgetVariable, c.cfg.Budget
	if own := c.spec.Annotations[BudgetAnnotation]; own != "" {
		source, text = "annotation "+BudgetAnnotation, own
	}
	budget, err := parseBudget(text)
	if err != nil {
		return nil, fmt.Errorf("%s is no size; write bytes, or a number with Ki or Mi: %w", source, err)
	}
	return stdio.NewRoom(c.cfg.Presence, budget, c.spec.MemoryLimit), nil
}

// parseBudget reads a number of bytes, or of KiB with the suffix Ki, or of MiB with Mi. Nothing is
// 0, and any number below 0 is -1.
func parseBudget(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	digits, shift := text, 0
	for suffix, s := range map[string]int{"Ki": 10, "Mi": 20} {
		if number, found := strings.CutSuffix(text, suffix); found {
			digits, shift = number, s
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > 0 && bits.Len64(uint64(n))+shift > 63 {
		return 0, errdefs.ErrInvalidArgument // without the text, which may come from the environment
	}
	if n < 0 {
		return -1, nil
	}
	return n << shift, nil
}
