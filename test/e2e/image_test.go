package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
)

// image is the name under which every private containerd knows the test image.
const image = "holdfast.test/busybox:latest"

// A descriptor names a blob of an OCI image (image-spec, descriptor.md).
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// An archive is an OCI image layout (image-spec, image-layout.md) in the making.
type archive struct {
	buf bytes.Buffer
	tar *tar.Writer
}

// writeImage writes an image that holds nothing but a static busybox and its names.
func writeImage(path string) error {
	a := &archive{}
	a.tar = tar.NewWriter(&a.buf)

	layer, err := busyboxLayer()
	if err != nil {
		return err
	}
	layerBlob := a.blob("application/vnd.oci.image.layer.v1.tar", layer)
	config := a.blob("application/vnd.oci.image.config.v1+json", encode(map[string]any{
		"os":           "linux",
		"architecture": goruntime.GOARCH,
		"config":       map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"/bin/sleep", "1000000"}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{layerBlob.Digest}},
	}))
	manifest := a.blob("application/vnd.oci.image.manifest.v1+json", encode(map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.manifest.v1+json",
		"config":        config,
		"layers":        []descriptor{layerBlob},
	}))
	manifest.Annotations = map[string]string{"io.containerd.image.name": image}
	a.file("index.json", encode(map[string]any{
		"schemaVersion": 2,
		"manifests":     []descriptor{manifest},
	}))
	a.file("oci-layout", encode(map[string]any{"imageLayoutVersion": "1.0.0"}))
	if err := a.tar.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, a.buf.Bytes(), 0o600)
}

// blob adds content to the archive and returns its descriptor.
func (a *archive) blob(mediaType string, content []byte) descriptor {
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	a.file("blobs/sha256/"+sum, content)
	return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(content)}
}

// file adds a file. Errors of the tar writer stay with it until Close.
func (a *archive) file(name string, content []byte) {
	_ = a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
	_, _ = a.tar.Write(content)
}

func busyboxLayer() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := output(path, "--list")
	if err != nil {
		return nil, err
	}

	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, dir := range []string{"bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"} {
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755})
	}
	passwd := []byte("root:x:0:0::/root:/bin/sh\n")
	_ = w.WriteHeader(&tar.Header{Name: "etc/passwd", Mode: 0o644, Size: int64(len(passwd))})
	_, _ = w.Write(passwd)
	_ = w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(binary))})
	_, _ = w.Write(binary)
	for applet := range strings.FieldsSeq(list) {
		if applet != "busybox" {
			_ = w.WriteHeader(&tar.Header{
				Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777,
			})
		}
	}
	return buf.Bytes(), w.Close()
}

// encode returns v, which consists of maps, slices, strings and numbers only, as JSON.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // No such value can fail.
	}
	return data
}
