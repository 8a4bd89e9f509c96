package stdio

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

var sizeUnits = map[string]int{"Ki": 10, "Mi": 20, "Gi": 30}

// ParseSize reads a number of bytes, or one with the suffix Ki, Mi or Gi. It may be below 0. The error
// is errdefs.ErrInvalidArgument and does not show the text, which may come from the environment.
func ParseSize(text string) (int64, error) {
	digits, shift := text, 0
	for suffix, s := range sizeUnits {
		if number, found := strings.CutSuffix(text, suffix); found {
			digits, shift = number, s
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || bits.Len64(uint64(max(n, -n)))+shift > 63 {
		return 0, fmt.Errorf("no size; write bytes, or a number with Ki, Mi or Gi: %w", errdefs.ErrInvalidArgument)
	}
	return n << shift, nil
}
