package client

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// frame returns a message as a client sends it.
func frame(t testing.TB, stream uint32, kind byte, data []byte) []byte {
	t.Helper()
	b := make([]byte, headerSize, headerSize+len(data))
	binary.BigEndian.PutUint32(b[0:4], uint32(len(data)))
	binary.BigEndian.PutUint32(b[4:8], stream)
	b[8] = kind
	return append(b, data...)
}

func requestData(t testing.TB) []byte {
	t.Helper()
	data, err := proto.Marshal(&ttrpc.Request{Service: "s", Method: "m", Payload: []byte("p")})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRequestsAreReadOneAfterTheOther(t *testing.T) {
	data := requestData(t)
	r := bytes.NewReader(append(frame(t, 1, typeRequest, data), frame(t, 3, typeRequest, data)...))
	for _, want := range []uint32{1, 3} {
		stream, req, err := readRequest(r)
		if err != nil || stream != want || req.GetMethod() != "m" {
			t.Errorf("stream %d, request %v, error %v; want stream %d", stream, req, err, want)
		}
	}
	if _, _, err := readRequest(r); err != io.EOF {
		t.Errorf("at the end: error %v, want EOF", err)
	}
}

func TestBrokenRequestsAreErrors(t *testing.T) {
	data := requestData(t)
	whole := frame(t, 1, typeRequest, data)
	long := frame(t, 1, typeRequest, nil)
	binary.BigEndian.PutUint32(long[0:4], messageLimit+1)
	rows := []struct {
		name string
		in   []byte
		want error // nil: any
	}{
		{"header cut", whole[:headerSize-1], io.ErrUnexpectedEOF},
		{"data missing", whole[:headerSize], io.ErrUnexpectedEOF},
		{"data cut", whole[:len(whole)-1], io.ErrUnexpectedEOF},
		{"a response", frame(t, 1, typeResponse, data), nil},
		{"too long", long, nil},
		{"no protobuf", frame(t, 1, typeRequest, []byte{0xff}), nil},
	}
	for _, row := range rows {
		_, _, err := readRequest(bytes.NewReader(row.in))
		if err == nil || err == io.EOF || row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%s: error %v, want %v", row.name, err, row.want)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add(frame(f, 1, typeRequest, requestData(f)))
	f.Add(frame(f, 1, typeResponse, nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		_, req, err := readRequest(bytes.NewReader(in))
		if (req == nil) != (err != nil) {
			t.Errorf("request %v, error %v", req, err)
		}
	})
}
