package node

import (
	"debug/buildinfo"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersionComesFromTheBuild(t *testing.T) {
	rows := []struct {
		version  string
		settings []debug.BuildSetting
		want     string
	}{
		{"v1.2.3", []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}}, "v1.2.3"},
		{"(devel)", []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}}, "0123456789ab"},
		{"", []debug.BuildSetting{{Key: "-ldflags", Value: `-s -X 'x/version.Version=2.4.2' -w`}, {Key: "vcs.revision", Value: "abc"}}, "2.4.2"},
		{"(devel)", nil, ""},
	}
	for _, row := range rows {
		info := &buildinfo.BuildInfo{Settings: row.settings}
		info.Main.Version = row.version
		if got := describeBuild(info); got != row.want {
			t.Errorf("%+v: %q, want %q", row, got, row.want)
		}
	}
}

func FuzzProcessTable(f *testing.F) {
	f.Add("/usr/bin/containerd-shim-runc-v2\x00-id\x00c1\x00")
	f.Add("containerd-shim-\x00-id\x00")
	f.Add("00: 00000002 00000000 00010000 0001 01 12 /a path")
	f.Add("5 (a b) c) S 1 1 1 0 -1 4194624 1 2 3 4 5 6 7 8 20 0 7 0 12300 5 6\n")
	f.Fuzz(func(t *testing.T, text string) {
		if s, ok := parseCommandLine([]byte(text)); ok && (s.ID == "" || !strings.Contains(text, s.ID)) {
			t.Errorf("made up the id %q", s.ID)
		}
		if _, name, ok := parseListening(text); ok && (name == "" || !strings.HasSuffix(text, name)) {
			t.Errorf("made up the name %q", name)
		}
		if s, err := parseStat([]byte(text)); err != nil && s != (stat{}) {
			t.Errorf("%+v and %v", s, err)
		}
	})
}
