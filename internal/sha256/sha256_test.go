package sha256

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

// TestEveryLength covers each place that the padding can fall on.
func TestEveryLength(t *testing.T) {
	for n := range 3*block + 1 {
		data := bytes.Repeat([]byte{byte(n), 0xff, 'a'}, n)[:n]
		kept := bytes.Clone(data)
		if got, want := Sum(data), sha256.Sum256(data); got != want {
			t.Errorf("the sum of %d bytes is %x, want %x", n, got, want)
		}
		if !bytes.Equal(data, kept) {
			t.Errorf("Sum of %d bytes changed them", n)
		}
	}
}

// TestCallersBytesStay checks that the padding does not go into what lies behind the data.
func TestCallersBytesStay(t *testing.T) {
	data := []byte("name and what follows it")
	Sum(data[:4])
	if string(data) != "name and what follows it" {
		t.Errorf("Sum changed what follows its data: %q", data)
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte("/run/containerd/containerd.sock.ttrpc/k8s.io/0123456789abcdef"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, want := Sum(data), sha256.Sum256(data); got != want {
			t.Errorf("the sum of %q is %x, want %x", data, got, want)
		}
	})
}
