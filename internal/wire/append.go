package wire

import (
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The functions Append… append a field to an encoded message. What is empty is left out, as version 3
// of the language wants it, and so is not told from what is missing.

// AppendString appends a string. The format has only valid UTF-8, and readers refuse a message with
// anything else, so that such bytes are replaced.
func AppendString(b []byte, number protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return appendText(b, number, s)
}

// appendText appends a string even if it is empty.
func appendText(b []byte, number protowire.Number, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, string(utf8.RuneError))
	}
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), s)
}

// AppendOptional appends a string that may be there and empty.
func AppendOptional(b []byte, number protowire.Number, s *string) []byte {
	if s == nil {
		return b
	}
	return appendText(b, number, *s)
}

// AppendStrings appends every string of a list.
func AppendStrings(b []byte, number protowire.Number, list []string) []byte {
	for _, s := range list {
		b = appendText(b, number, s)
	}
	return b
}

// AppendBytes appends bytes.
func AppendBytes(b []byte, number protowire.Number, data []byte) []byte {
	if len(data) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), data)
}

// AppendInteger appends a number, which may be that of an enumeration.
func AppendInteger[T ~int32 | ~int64 | ~uint32 | ~uint64](b []byte, number protowire.Number, n T) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), uint64(n)) //nolint:gosec // negative numbers are sent as large ones
}

// AppendIntegers appends a list of numbers.
func AppendIntegers[T ~int32 | ~uint64](b []byte, number protowire.Number, list []T) []byte {
	if len(list) == 0 {
		return b
	}
	b, begin := open(b, number)
	for _, n := range list {
		b = protowire.AppendVarint(b, uint64(n)) //nolint:gosec // as above
	}
	return shut(b, begin)
}

// AppendBool appends a truth value.
func AppendBool(b []byte, number protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), 1)
}

// AppendDouble appends a floating-point number.
func AppendDouble(b []byte, number protowire.Number, v float64) []byte {
	if math.Float64bits(v) == 0 { // -0 is not empty
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, number, protowire.Fixed64Type), math.Float64bits(v))
}

// AppendMessage appends a message, also an empty one, but not nil.
func AppendMessage[T any, M pointer[T]](b []byte, number protowire.Number, m M) []byte {
	if m == nil {
		return b
	}
	b, begin := open(b, number)
	return shut(m.Append(b), begin)
}

// AppendMessages appends every message of a list. A nil is an empty one.
func AppendMessages[T any, M pointer[T]](b []byte, number protowire.Number, list []M) []byte {
	for _, m := range list {
		if m == nil {
			m = new(T)
		}
		b = AppendMessage(b, number, m)
	}
	return b
}

// AppendMap appends every entry of a map, in the order of the keys.
func AppendMap(b []byte, number protowire.Number, entries map[string]string) []byte {
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		var begin int
		b, begin = open(b, number)
		b = shut(appendText(appendText(b, 1, key), 2, entries[key]), begin)
	}
	return b
}

// open begins a field whose length is not known yet: it leaves room for one byte of it. begin is for
// shut.
func open(b []byte, number protowire.Number) (_ []byte, begin int) {
	b = append(protowire.AppendTag(b, number, protowire.BytesType), 0)
	return b, len(b)
}

// shut puts the length of what was appended since open before it.
func shut(b []byte, begin int) []byte {
	length := len(b) - begin
	if size := protowire.SizeVarint(uint64(length)); size > 1 {
		b = append(b, make([]byte, size-1)...)
		copy(b[begin+size-1:], b[begin:])
	}
	protowire.AppendVarint(b[:begin-1], uint64(length))
	return b
}
