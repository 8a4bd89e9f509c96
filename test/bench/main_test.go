package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	for _, test := range []struct {
		values []time.Duration
		q      float64
		want   time.Duration
	}{
		{nil, 0.5, 0},
		{[]time.Duration{7}, 0.5, 7},
		{[]time.Duration{7}, 0.9, 7},
		{[]time.Duration{3, 1, 2}, 0.5, 2},
		{[]time.Duration{10, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 0.9, 10},
		{[]time.Duration{2, 1}, 1, 2},
	} {
		if got := quantile(test.values, test.q); got != test.want {
			t.Errorf("quantile %v of %v: got %v, want %v", test.q, test.values, got, test.want)
		}
	}
}

func TestNumber(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	if err := os.WriteFile(path, []byte("Name:\tshim\nPss_Dirty: 3 kB\nPss:  41 kB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := number(path, "Pss:"); err != nil || got != 41 {
		t.Errorf("got %d, %v; want 41", got, err)
	}
	if got, err := number(path, "Rss:"); err == nil {
		t.Errorf("got %d for a name that is not there, want an error", got)
	}
}

func TestHoldingsOfThisProcess(t *testing.T) {
	held, err := holdingsOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range holdingNames {
		if held[i] <= 0 {
			t.Errorf("%s: got %d, want more than 0", name, held[i])
		}
	}
}
