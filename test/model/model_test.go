package model

import "testing"

// fewest is how many states there are at least, lest the model shrink to one that shows nothing.
const fewest = 100_000

func TestNoPromiseIsBroken(t *testing.T) {
	r := Explore(none)
	if r.Broken != "" {
		t.Fatalf("after %d states:\n%s", r.States, r)
	}
	t.Logf("%d states, %d moves, %d histories", r.States, r.Moves, r.Histories)
	if r.States < fewest {
		t.Errorf("there are %d states, want %d at least", r.States, fewest)
	}
}

// TestEveryRuleIsNeeded suspends one rule after the other. The histories, which say what goes wrong
// then, are shown with -v.
func TestEveryRuleIsNeeded(t *testing.T) {
	for rule := none + 1; rule < numRules; rule++ {
		t.Run(rule.String(), func(t *testing.T) {
			r := Explore(rule)
			if r.Broken == "" {
				t.Fatalf("nothing is broken in %d states when this is not heeded: %s", r.States, rule)
			}
			t.Logf("after %d states, when this is not heeded: %s\n%s", r.States, rule, r)
		})
	}
}
