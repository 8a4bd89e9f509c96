package stdio

import (
	"io"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

// BenchmarkOutput moves bytes from a process to a client, which is this process as well.
func BenchmarkOutput(b *testing.B) {
	for name, cfg := range map[string]Config{"relay": {}, "direct": {Direct: true}} {
		b.Run(name, func(b *testing.B) {
			out := b.TempDir() + "/out"
			if err := unix.Mkfifo(out, 0o600); err != nil {
				b.Fatal(err)
			}
			cfg.Stdout = out
			s, err := Open(b.Context(), cfg)
			if err != nil {
				b.Fatal(err)
			}
			reader, err := os.OpenFile(out, os.O_RDONLY, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer reader.Close()
			_, w, _ := s.Files()
			const block = 1 << 20
			b.SetBytes(block)
			c, err := reaper.Start(&reaper.Command{
				Path:  "/usr/bin/head",
				Args:  []string{"-c", strconv.Itoa(b.N * block), "/dev/zero"},
				Files: []*os.File{nil, w},
			})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Start(); err != nil {
				b.Fatal(err)
			}
			go func() {
				<-c.Done()
				s.Exited()
			}()
			buf := make([]byte, block)
			var n int64
			for err == nil {
				var got int
				got, err = reader.Read(buf)
				n += int64(got)
			}
			if err != io.EOF || n != int64(b.N)*block {
				b.Errorf("read %d bytes, %v", n, err)
			}
			<-s.Drained()
			if err := s.Close(); err != nil {
				b.Error(err)
			}
		})
	}
}
