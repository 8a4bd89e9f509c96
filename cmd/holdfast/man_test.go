package main

import (
	"os"
	"strings"
	"testing"

	flag "github.com/spf13/pflag"
)

// The man page names every verb and each of its flags.
func TestManPageNamesEverything(t *testing.T) {
	text, err := os.ReadFile("../../docs/man/holdfast.1.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	for _, v := range allVerbs() {
		if !strings.Contains(page, "**"+v.name+"**") {
			t.Errorf("no verb %s", v.name)
		}
		flags := flag.NewFlagSet(v.name, flag.ContinueOnError)
		v.setup(flags)
		flags.VisitAll(func(f *flag.Flag) {
			if !strings.Contains(page, "**--"+f.Name+"**") {
				t.Errorf("no flag -%s of %s", f.Name, v.name)
			}
		})
	}
}
