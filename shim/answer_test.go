package shim

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestAnswerNeverEndsInABlank is demand.md 78, over any address and name.
func TestAnswerNeverEndsInABlank(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		path := make([]byte, random.IntN(200))
		for i := range path {
			path[i] = " \t\r\n\v\fabc/\x85\xa0"[random.IntN(12)]
		}
		for _, binary := range []string{"containerd-shim-runc-v2", "/x/containerd-shim-holdfast-v2"} {
			for version := range int32(4) {
				data := encodeResult(version, "unix://"+strings.ToValidUTF8(string(path), ""), binary)
				if version > 1 && !bytes.Equal(bytes.TrimSpace(data), data) {
					t.Fatalf("%q would be trimmed", data)
				}
			}
		}
	}
}

func TestAnswerUnderTheNameOfRuncsShimHasNoExtension(t *testing.T) {
	data := encodeResult(3, "unix:///s", "/usr/bin/containerd-shim-runc-v2")
	if want := "\x08\x03\x12\x09unix:///s\x1a\x05ttrpc"; string(data) != want {
		t.Errorf("answer is %q, want %q", data, want)
	}
}
