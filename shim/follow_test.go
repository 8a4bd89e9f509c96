package shim

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/client"
	"holdfast/internal/facts"
)

// follower asks for what comes after seen. The answer to somebody who has gone has the error for its version.
func follower(ctx context.Context, l *EventLog, seen uint64) <-chan facts.Facts {
	got := make(chan facts.Facts, 1)
	go func() {
		f, err := l.follow(ctx, seen)
		if err != nil {
			f.Version = err.Error()
		}
		got <- f
	}()
	return got
}

// TestFollowersAreAnswered looks at each change of the events, and at the end of the shim.
func TestFollowersAreAnswered(t *testing.T) {
	server, err := client.ListenEvents(filepath.Join(shortDir(t), "e.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l := newTestLog(t, server.Address())
	answer := func(got <-chan facts.Facts) facts.Facts {
		t.Helper()
		select {
		case f := <-got:
			return f
		case <-time.After(10 * time.Second):
			t.Fatal("no answer")
		}
		return facts.Facts{}
	}
	got := follower(t.Context(), l, 0)
	numbered(l, 0, 1)
	f := answer(got)
	if len(f.Events) != 1 || f.Revision == 0 || f.Last {
		t.Errorf("%+v", f)
	}
	for len(f.Waiting()) > 0 {
		f = answer(follower(t.Context(), l, f.Revision))
	}
	if f = answer(follower(t.Context(), l, f.Revision-1)); len(f.Events) != 1 || f.Revision != 2 {
		t.Errorf("what was missed: %+v", f)
	}
	gone, leave := context.WithCancel(t.Context())
	got = follower(gone, l, f.Revision)
	leave()
	if f := answer(got); f.Version != context.Canceled.Error() {
		t.Errorf("to somebody who has gone: %+v", f)
	}
	got, also := follower(t.Context(), l, f.Revision), follower(t.Context(), l, f.Revision)
	l.part()
	if f := answer(got); !f.Last || len(f.Events) != 1 || !answer(also).Last {
		t.Errorf("at the end: %+v", f)
	}
	if lost := closeLog(t, l, 10*time.Second); lost != 0 {
		t.Errorf("%d events lost", lost)
	}
}

// TestFollowersDoNotKeepTheShim has a shim end whose manager is away.
func TestFollowersDoNotKeepTheShim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &EventLog{hurry: make(chan struct{}, 1), revision: 1}
		l.enqueue(&api.Envelope{})
		got := follower(t.Context(), l, 2)
		synctest.Wait()
		began := time.Now()
		go l.part()
		if f := <-got; !f.Last || len(f.Waiting()) != 1 || time.Since(began) != partingTime {
			t.Errorf("%+v after %v", f, time.Since(began))
		}
		if f := <-follower(t.Context(), l, 3); !f.Last {
			t.Errorf("afterwards: %+v", f)
		}
	})
}

// TestNobodyWaitsForWhoHasGone has a follower go long before the shim ends, with no event in between.
func TestNobodyWaitsForWhoHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &EventLog{hurry: make(chan struct{}, 1)}
		ctx, leave := context.WithCancel(t.Context())
		got := follower(ctx, l, 0)
		synctest.Wait()
		leave()
		<-got
		time.Sleep(time.Hour)
		began := time.Now()
		if l.part(); time.Since(began) != 0 {
			t.Errorf("the shim waits %v", time.Since(began))
		}
	})
}

// TestWhoAsksAgainIsToldOfTheEnd has a follower that was told of something just before the shim ends, and others
// that never come again or were never there.
func TestWhoAsksAgainIsToldOfTheEnd(t *testing.T) {
	for name, row := range map[string]struct {
		followed, returns bool
		want              time.Duration
	}{
		"returns": {true, true, partingTime / 2}, "has gone": {true, false, partingTime + partingTime/10}, "nobody": {false, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &EventLog{hurry: make(chan struct{}, 1)}
				l.enqueue(&api.Envelope{})
				l.drop(false)
				if row.followed {
					<-follower(t.Context(), l, 1)
				}
				began := time.Now()
				if row.returns {
					time.AfterFunc(partingTime/2, func() {
						if f := <-follower(t.Context(), l, 2); !f.Last {
							t.Errorf("%+v", f)
						}
					})
				}
				l.part()
				if took := time.Since(began); took != row.want {
					t.Errorf("the shim waits %v, want %v", took, row.want)
				}
			})
		})
	}
}
