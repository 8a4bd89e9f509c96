package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/internal/client"
)

func TestReportCountsFromEventToEvent(t *testing.T) {
	at := time.Unix(1000, 0)
	var b strings.Builder
	report(&b, 3, []client.Event{
		{Sent: at, Topic: "/tasks/oom"},
		{Sent: at.Add(1500 * time.Microsecond), Topic: "/tasks/paused"},
	})
	want := "\nexit status 3\n\n" +
		"      +ms  event                     pid  status\n" +
		"      0.0  /tasks/oom\n" +
		"      1.5  /tasks/paused\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestLogIsShownWhenItSaysSomething(t *testing.T) {
	log := "level=info msg=a\nlevel=warning msg=b\nlevel=error msg=c\ngoroutine 1"
	var some, all strings.Builder
	showLog(&some, log, false)
	showLog(&all, log, true)
	if got, want := some.String(), "shim: level=warning msg=b\nshim: level=error msg=c\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := strings.Count(all.String(), "shim: "); got != 4 {
		t.Errorf("%d lines, want 4", got)
	}
}
