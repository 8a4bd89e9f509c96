package wire

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field is a field of an encoded message. What is not of the type that a method reads is passed over,
// as are fields that nobody reads: both may come from newer versions of the message.
type Field struct {
	Number protowire.Number
	kind   protowire.Type
	n      uint64 // of a varint or a fixed64
	data   []byte // of what has a length
}

// Read calls field for all fields of an encoded message, and returns its error.
func Read(b []byte, field func(Field) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return malformed(n)
		}
		b = b[n:]
		f := Field{Number: number, kind: kind}
		switch kind {
		case protowire.VarintType:
			f.n, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			f.n, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.data, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return malformed(n)
		}
		b = b[n:]
		if err := field(f); err != nil {
			return err
		}
	}
	return nil
}

func malformed(code int) error {
	return fmt.Errorf("malformed message: %w", protowire.ParseError(code))
}

var errText = errors.New("malformed message: a string is not valid UTF-8")

func (f Field) text() (string, error) {
	if !utf8.Valid(f.data) {
		return "", errText
	}
	return string(f.data), nil
}

// String reads a string.
func (f Field) String(to *string) (err error) {
	if f.kind == protowire.BytesType {
		*to, err = f.text()
	}
	return err
}

// Optional reads a string that may be there and empty.
func (f Field) Optional(to **string) error {
	if f.kind != protowire.BytesType {
		return nil
	}
	s, err := f.text()
	*to = &s
	return err
}

// Strings reads an element of a list of strings.
func (f Field) Strings(to *[]string) error {
	if f.kind != protowire.BytesType {
		return nil
	}
	s, err := f.text()
	*to = append(*to, s)
	return err
}

// Bytes reads bytes. They are a copy.
func (f Field) Bytes(to *[]byte) error {
	if f.kind == protowire.BytesType {
		*to = append([]byte{}, f.data...)
	}
	return nil
}

// Bool reads a truth value.
func (f Field) Bool(to *bool) error {
	if f.kind == protowire.VarintType {
		*to = f.n != 0
	}
	return nil
}

// Double reads a floating-point number.
func (f Field) Double(to *float64) error {
	if f.kind == protowire.Fixed64Type {
		*to = math.Float64frombits(f.n)
	}
	return nil
}

// Map reads an entry of a map.
func (f Field) Map(to *map[string]string) error {
	if f.kind != protowire.BytesType {
		return nil
	}
	var key, value string
	err := Read(f.data, func(part Field) error {
		switch part.Number {
		case 1:
			return part.String(&key)
		case 2:
			return part.String(&value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if *to == nil {
		*to = map[string]string{}
	}
	(*to)[key] = value
	return nil
}

// Integer reads a number, which may be that of an enumeration.
func Integer[T ~int32 | ~int64 | ~uint32 | ~uint64](f Field, to *T) error {
	if f.kind == protowire.VarintType {
		*to = T(f.n) //nolint:gosec // negative numbers are sent as large ones
	}
	return nil
}

// Integers reads an element of a list of numbers, or several at once.
func Integers[T ~int32 | ~uint64](f Field, to *[]T) error {
	switch f.kind {
	case protowire.VarintType:
		*to = append(*to, T(f.n)) //nolint:gosec // as above
	case protowire.BytesType:
		for b := f.data; len(b) > 0; {
			n, size := protowire.ConsumeVarint(b)
			if size < 0 {
				return malformed(size)
			}
			*to = append(*to, T(n)) //nolint:gosec // as above
			b = b[size:]
		}
	}
	return nil
}

// Submessage reads a message. If it comes in several parts they are put together.
func Submessage[T any, M pointer[T]](f Field, to *M) error {
	if f.kind != protowire.BytesType {
		return nil
	}
	if *to == nil {
		*to = new(T)
	}
	return (*to).Read(f.data)
}

// Submessages reads an element of a list of messages.
func Submessages[T any, M pointer[T]](f Field, to *[]M) error {
	if f.kind != protowire.BytesType {
		return nil
	}
	m := M(new(T))
	*to = append(*to, m)
	return m.Read(f.data)
}
