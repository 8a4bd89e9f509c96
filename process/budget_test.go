package process

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestBudgetIsReadAsWritten(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "0": 0, "0Mi": 0, "1": 1, "4096": 4096, "4Ki": 4096, "64Mi": 64 << 20, "-1": -1, "-7Mi": -1,
		"1Gi": 1 << 30, "9223372036854775807": 1<<63 - 1, "8796093022207Mi": (1<<43 - 1) << 20,
	} {
		if got, err := parseBudget(text); got != want || err != nil {
			t.Errorf("%q is %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"x", "Mi", "1 Mi", "1M", "1.5Mi", "0x10", " 1", "1MiMi", "9223372036854775808", "8796093022208Mi",
	} {
		if got, err := parseBudget(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func FuzzBudgetIsInRange(f *testing.F) {
	for _, text := range []string{"", "1", "-1Ki", "64Mi", "9007199254740991Ki", "Mi", "99999999999999999999"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseBudget(text)
		if n < -1 || err != nil && n != 0 {
			t.Errorf("%q is %d, %v", text, n, err)
		}
	})
}

func TestAnnotationGoesBeforeVariable(t *testing.T) {
	c := &Container{cfg: Config{Budget: "nonsense"}}
	if _, err := c.newRoom(); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), BudgetVariable) {
		t.Errorf("a variable without sense: %v", err)
	}
	c.spec.Annotations = map[string]string{BudgetAnnotation: "1Mi"}
	if _, err := c.newRoom(); err != nil {
		t.Errorf("an annotation that overrides it: %v", err)
	}
	c.spec.Annotations[BudgetAnnotation] = "1G"
	if _, err := c.newRoom(); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), BudgetAnnotation) {
		t.Errorf("an annotation without sense: %v", err)
	}
}
