package api_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"holdfast/internal/wire"
	"holdfast/test/twin"
)

// fresh returns an empty message of the type of m.
func fresh(m wire.Message) wire.Message {
	return reflect.New(reflect.TypeOf(m).Elem()).Interface().(wire.Message)
}

// fill gives random values to the fields of a struct, to about as many as one in odds is not empty.
func fill(r *rand.Rand, v reflect.Value, odds int) {
	for i := range v.NumField() {
		if r.IntN(odds) != 0 {
			v.Field(i).Set(random(r, v.Field(i).Type(), odds))
		}
	}
}

// random returns a random value, not always a different one from the empty one.
func random(r *rand.Rand, t reflect.Type, odds int) reflect.Value {
	v := reflect.New(t).Elem()
	switch t.Kind() {
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64() >> r.IntN(64) * int64(1-2*r.IntN(2)))
	case reflect.Uint32, reflect.Uint64, reflect.Uint8:
		v.SetUint(r.Uint64() >> r.IntN(64))
	case reflect.Float64:
		v.SetFloat(r.NormFloat64())
	case reflect.String:
		v.SetString([]string{"", "a", "ünïcode", string(bytes.Repeat([]byte("long "), r.IntN(100)))}[r.IntN(4)])
	case reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		if t.Elem().Kind() == reflect.Struct {
			fill(r, v.Elem(), odds)
		} else {
			v.Elem().Set(random(r, t.Elem(), odds))
		}
	case reflect.Slice:
		for range r.IntN(4) {
			v = reflect.Append(v, random(r, t.Elem(), odds))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(t))
		for range r.IntN(4) {
			v.SetMapIndex(random(r, t.Key(), odds), random(r, t.Elem(), odds))
		}
	default:
		panic("no random " + t.String())
	}
	return v
}

// The library writes what we write, of the same fields, and reads it.
func TestMessagesAreThoseOfTheLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // not for secrets
	for _, m := range messages {
		t.Run(m.MessageName(), func(t *testing.T) {
			for i := range 200 {
				ours := fresh(m)
				fill(r, reflect.ValueOf(ours).Elem(), 1+i%4)
				data := wire.Marshal(ours)
				theirs := twin.Empty(t, m)
				if err := proto.Unmarshal(data, theirs); err != nil {
					t.Fatalf("%+v: the library cannot read it: %v", ours, err)
				}
				if unknown := theirs.ProtoReflect().GetUnknown(); len(unknown) > 0 {
					t.Fatalf("the library does not know %x", unknown)
				}
				again, err := proto.MarshalOptions{Deterministic: true}.Marshal(theirs)
				if err != nil || !bytes.Equal(again, data) {
					t.Fatalf("%+v: we write\n%x\nthe library\n%x\n%v", ours, data, again, err)
				}
				back := fresh(m)
				if err := proto.Unmarshal(again, back); err != nil {
					t.Fatalf("%x: we cannot read it: %v", again, err)
				}
				if got := wire.Marshal(back); !bytes.Equal(got, data) {
					t.Fatalf("read and written again it is\n%x, not\n%x", got, data)
				}
			}
		})
	}
}

// fieldNames are the names of the exported fields of a struct.
func fieldNames(t reflect.Type) map[string]bool {
	names := map[string]bool{}
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			names[f.Name] = true
		}
	}
	return names
}

// No field of the library's is missing.
func TestMessagesHaveAllFields(t *testing.T) {
	for _, m := range messages {
		ours := fieldNames(reflect.TypeOf(m).Elem())
		for name := range fieldNames(reflect.TypeOf(twin.Empty(t, m)).Elem()) {
			if !ours[name] {
				t.Errorf("%s has no %s", m.MessageName(), name)
			}
		}
	}
}

// What is in the files is what go generate makes of the modules that go.mod names.
func TestMessagesAreUpToDate(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"stats1", "stats2"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "generate")
	if out, err := exec.Command("go", "build", "-tags", "no_grpc", "-o", program, "./generate").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"messages.go", "messages_test.go", "stats1/messages.go", "stats2/messages.go"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what go generate makes: %v", name, err)
		}
	}
}

// FuzzRead gives the same bytes to us and to the library: both read the same, or neither does.
func FuzzRead(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // not for secrets
	for i, m := range messages {
		m = fresh(m)
		fill(r, reflect.ValueOf(m).Elem(), 4)
		f.Add(uint8(i), wire.Marshal(m)) //nolint:gosec // fewer than 256
	}
	f.Add(uint8(0), []byte{0x0b, 0x08, 0x01, 0x0c}) // a group
	f.Add(uint8(0), []byte{0x0a, 0x01, 0xff})       // no text
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		m := messages[int(which)%len(messages)]
		ours, theirs := fresh(m), twin.Empty(t, m)
		err1, err2 := proto.Unmarshal(data, ours), proto.Unmarshal(data, theirs)
		if (err1 == nil) != (err2 == nil) {
			t.Fatalf("%s %x: we say %v, the library %v", m.MessageName(), data, err1, err2)
		}
		if err1 != nil {
			return
		}
		forgetUnknown(theirs.ProtoReflect())
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(theirs)
		if got := wire.Marshal(ours); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s %x: we have read %x, the library %x, %v", m.MessageName(), data, got, want, err)
		}
	})
}

// forgetUnknown removes the fields that we do not know: the library keeps them, we do not.
func forgetUnknown(m protoreflect.Message) {
	m.SetUnknown(nil)
	m.Range(func(d protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case d.IsMap():
		case d.IsList() && d.Kind() == protoreflect.MessageKind:
			for i := range v.List().Len() {
				forgetUnknown(v.List().Get(i).Message())
			}
		case d.Kind() == protoreflect.MessageKind:
			forgetUnknown(v.Message())
		}
		return true
	})
}

// Bytes that are not text are replaced: a message that nobody can read helps nobody.
func TestTextIsAlwaysValid(t *testing.T) {
	for _, m := range messages {
		v := reflect.ValueOf(fresh(m)).Elem()
		for i := range v.NumField() {
			if v.Field(i).Kind() == reflect.String {
				v.Field(i).SetString("a\xffb")
			}
		}
		data := wire.Marshal(v.Addr().Interface().(wire.Message))
		if err := proto.Unmarshal(data, twin.Empty(t, m)); err != nil {
			t.Errorf("%s: %v", m.MessageName(), err)
		}
		for len(data) > 0 {
			_, kind, n := protowire.ConsumeTag(data)
			if kind == protowire.BytesType {
				if s, _ := protowire.ConsumeString(data[n:]); !utf8.ValidString(s) {
					t.Errorf("%s: %q", m.MessageName(), s)
				}
			}
			data = data[n+protowire.ConsumeFieldValue(1, kind, data[n:]):]
		}
	}
}
