package process

import (
	"fmt"

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
		return nil, fmt.Errorf("%s is %w", source, err)
	}
	return stdio.NewRoom(c.cfg.Presence, budget, c.spec.MemoryLimit), nil
}

// parseBudget reads a size. Nothing is 0, and any number below 0 is -1.
func parseBudget(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := stdio.ParseSize(text)
	return max(n, -1), err
}
