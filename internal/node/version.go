package node

import (
	"debug/buildinfo"
	"path/filepath"
	"strconv"
	"strings"
)

// revisionLength is how much of the name of a commit is shown.
const revisionLength = 12

// versionOf returns what the program of a shim says of its version. known holds what was found
// before, by path: most shims of a machine run one program.
func versionOf(root string, s *Shim, known map[string]string) string {
	if version, ok := known[s.Exe]; ok {
		return version
	}
	// Through the link, which leads to the program even if it has been replaced since.
	info, err := buildinfo.ReadFile(filepath.Join(root, strconv.Itoa(s.Pid), "exe"))
	version := ""
	if err == nil {
		version = describeBuild(info)
	}
	known[s.Exe] = version
	return version
}

// describeBuild prefers the version of the module; a build from a work tree has none, but the
// commit, or a version that the linker was given.
func describeBuild(info *buildinfo.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, setting := range info.Settings {
		if setting.Key != "-ldflags" {
			continue
		}
		for _, field := range strings.Fields(setting.Value) {
			name, value, ok := strings.Cut(strings.Trim(field, `"'`), "=")
			if ok && strings.HasSuffix(strings.ToLower(name), ".version") {
				return value
			}
		}
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value[:min(len(setting.Value), revisionLength)]
		}
	}
	return ""
}
