//go:build !failpoints

package recorder

func pause(Step) {}
