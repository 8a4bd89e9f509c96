package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// makeIn runs make in the product's root, with what it builds below bin.
func makeIn(t *testing.T, bin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("make", append([]string{"-s", "-C", "..", "BIN=" + bin}, args...)...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000") // also where there is no commit
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// filesIn returns what is below dir, directories left out.
func filesIn(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A new version is installed beside the old one, and is what bin names from then on.
func TestInstallSwitchesVersions(t *testing.T) {
	bin, root := t.TempDir(), t.TempDir()
	for _, version := range []string{"v1", "v2"} {
		makeIn(t, bin, "install", "DESTDIR="+root, "PREFIX=/opt", "VERSION="+version)
		for _, p := range []string{"containerd-shim-holdfast-v2", "holdfast"} {
			if got, err := os.Readlink(filepath.Join(root, "opt/bin", p)); err != nil || got != "../lib/holdfast/"+version+"/"+p {
				t.Errorf("%s: %s leads to %s, %v", version, p, got, err)
			}
		}
		out, err := exec.Command(filepath.Join(root, "opt/bin/holdfast"), "version").CombinedOutput()
		if err != nil || string(out) != "holdfast "+version+"\n" {
			t.Errorf("it says %q, %v", out, err)
		}
	}
	want := []string{
		"opt/bin/containerd-shim-holdfast-v2", "opt/bin/holdfast",
		"opt/lib/holdfast/v1/containerd-shim-holdfast-v2", "opt/lib/holdfast/v1/holdfast",
		"opt/lib/holdfast/v2/containerd-shim-holdfast-v2", "opt/lib/holdfast/v2/holdfast",
		"opt/share/bash-completion/completions/holdfast", "opt/share/fish/vendor_completions.d/holdfast.fish",
		"opt/share/man/man1/holdfast.1.gz", "opt/share/man/man8/containerd-shim-holdfast-v2.8.gz",
		"opt/share/zsh/site-functions/_holdfast",
	}
	if got := filesIn(t, root); !slices.Equal(got, want) {
		t.Errorf("installed are %q", got)
	}
	makeIn(t, bin, "uninstall", "DESTDIR="+root, "PREFIX=/opt")
	if got := filesIn(t, root); len(got) > 0 {
		t.Errorf("left are %q", got)
	}
}

// The package is installed into a root of its own, and removed.
func TestDebianPackageComesAndGoes(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Skip("needs dpkg")
	}
	root := t.TempDir()
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(dpkg, append([]string{"--root=" + root, "--force-not-root", "--force-script-chrootless", "--log=/dev/null"}, args...)...)
		cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/sbin:/usr/bin:/bin")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	bin := t.TempDir()
	file := makeIn(t, bin, "deb", "VERSION=v1.2.3")
	if want := filepath.Join(bin, "holdfast_1.2.3_"); !strings.HasPrefix(file, want) {
		t.Errorf("the package is %s", file)
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	run("--install", file)
	out, err := exec.Command(filepath.Join(root, "usr/bin/holdfast"), "version").CombinedOutput()
	if err != nil || string(out) != "holdfast v1.2.3\n" {
		t.Errorf("it says %q, %v", out, err)
	}
	run("--verify", "holdfast")
	run("--purge", "holdfast")
	if _, err := os.Stat(filepath.Join(root, "usr")); !os.IsNotExist(err) {
		t.Errorf("left are %q", filesIn(t, filepath.Join(root, "usr")))
	}
	again, err := os.ReadFile(makeIn(t, t.TempDir(), "deb", "VERSION=v1.2.3"))
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("the same commit gives other bytes the next time: %v", err)
	}
}

func TestArchives(t *testing.T) {
	bin := t.TempDir()
	makeIn(t, bin, "dist", "VERSION=v1.2.3")
	dir := filepath.Join(bin, "dist")
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for architecture, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		name := "holdfast-v1.2.3-linux-" + architecture
		want = append(want, name+".tar.gz", name+".cdx.json")
		content := unpacked(t, filepath.Join(dir, name+".tar.gz"))
		for _, p := range []string{"containerd-shim-holdfast-v2", "holdfast"} {
			isStatic(t, content[name+"/bin/"+p], machine)
		}
		for _, f := range []string{"man/holdfast.1", "man/containerd-shim-holdfast-v2.8", "sbom.cdx.json"} {
			if len(content[name+"/"+f]) == 0 {
				t.Errorf("no %s in %s", f, name)
			}
		}
		namesAllModules(t, content[name+"/sbom.cdx.json"])
	}
	got := filesIn(t, dir)
	for _, f := range want {
		data, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil || !strings.Contains(string(sums), fmt.Sprintf("%x  %s\n", sha256.Sum256(data), f)) {
			t.Errorf("%s: %v, or its sum is wrong: %s", f, err, sums)
		}
	}
	if len(got) != len(want)+1 {
		t.Errorf("there are %q", got)
	}
	again := t.TempDir()
	makeIn(t, again, "dist", "VERSION=v1.2.3")
	if other, err := os.ReadFile(filepath.Join(again, "dist/SHA256SUMS")); err != nil || !bytes.Equal(sums, other) {
		t.Errorf("the same commit gives other bytes the next time: %v\n%s%s", err, sums, other)
	}
}

// unpacked returns the files of an archive.
func unpacked(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]byte{}
	for archive := tar.NewReader(plain); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if found[h.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}

func isStatic(t *testing.T, program []byte, machine elf.Machine) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	if f.Machine != machine {
		t.Errorf("it is for %v, not %v", f.Machine, machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it is not static: %v", p.Type)
		}
	}
}

// namesAllModules checks a bill of materials against what the Go tool says that we link.
func namesAllModules(t *testing.T, text []byte) {
	t.Helper()
	var bill struct {
		BOMFormat, SpecVersion string
		Components             []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(text, &bill); err != nil {
		t.Fatal(err)
	}
	if bill.BOMFormat != "CycloneDX" || bill.SpecVersion != "1.5" {
		t.Errorf("it is %s %s", bill.BOMFormat, bill.SpecVersion)
	}
	named := map[string]bool{}
	for _, c := range bill.Components {
		named[c.Name] = c.Version != "" && c.PURL != ""
	}
	if !named["std"] {
		t.Error("Go's own library is missing")
	}
	for _, p := range list(t, "-deps", "./cmd/...") {
		// What replaces a module of somebody else's is in our tree.
		if p.Module != nil && p.Module.Path != "holdfast" && p.Module.Path != "github.com/containerd/log" && !named[p.Module.Path] {
			t.Errorf("%s is missing", p.Module.Path)
		}
	}
}
