// Package v1 stands in for github.com/opencontainers/image-spec/specs-go/v1 inside the shim.
//
// containerd's API names one type of that package, in conversions that no shim calls. With it come
// go-digest, and regular expressions that are compiled at each start. The go.mod of the project
// replaces the original by it.
package v1

// Platform is what an image is for (image-spec, image-index.md).
type Platform struct {
	Architecture string
	OS           string
	OSVersion    string
	OSFeatures   []string
	Variant      string
}
