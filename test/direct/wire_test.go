package direct

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Types of frames (contract 16).
const (
	requestFrame  = 1
	responseFrame = 2
	dataFrame     = 3
)

// frame returns a frame as it is on the wire. length is that in the header.
func frame(length int, stream uint32, kind byte, data []byte) []byte {
	header := make([]byte, 10, 10+len(data))
	binary.BigEndian.PutUint32(header, uint32(length))
	binary.BigEndian.PutUint32(header[4:], stream)
	header[8] = kind
	return append(header, data...)
}

// request returns the frame of a call whose payload is any bytes.
func (l *lab) request(service, method string, payload []byte) []byte {
	l.t.Helper()
	data, err := proto.Marshal(&ttrpc.Request{Service: service, Method: method, Payload: payload})
	if err != nil {
		l.t.Fatal(err)
	}
	return frame(len(data), 1, requestFrame, data)
}

// hungUp is what send returns if the shim closes the connection, silent if it says nothing.
var (
	hungUp = status.Error(codes.Code(100), "hung up")
	silent = status.Error(codes.Code(101), "no answer")
)

// send writes bytes on a connection of its own and returns what the shim has to say to them.
func (l *lab) send(data []byte) error {
	l.t.Helper()
	conn, err := net.Dial("unix", strings.TrimPrefix(l.Result.Address, "unix://"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		l.t.Fatal(err)
	}
	if _, err := conn.Write(data); err != nil {
		return hungUp
	}
	if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		l.t.Fatal(err)
	}
	answer, err := readResponse(conn)
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return silent
	case err != nil:
		return hungUp
	}
	return status.ErrorProto(answer.GetStatus())
}

func readResponse(r io.Reader) (*ttrpc.Response, error) {
	header := make([]byte, 10)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	if header[8] != responseFrame {
		return nil, fmt.Errorf("frame of type %d", header[8])
	}
	data := make([]byte, binary.BigEndian.Uint32(header))
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	var answer ttrpc.Response
	return &answer, proto.Unmarshal(data, &answer)
}
