package client

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// A ttrpc message is a header followed by its data (contract section 16):
//
//	 0        4        8      9      10
//	+--------+--------+------+------+---------------
//	| length | stream | type | flag | data (length)
//	+--------+--------+------+------+---------------
//
// The two numbers are big-endian. The events server reads messages itself instead of using the
// server of the ttrpc module, because that one gives each request a goroutine of its own: the
// order in which handlers run is then not the order in which the requests arrived.
const (
	headerSize   = 10
	messageLimit = 4 << 20

	typeRequest  = 1
	typeResponse = 2
)

// readRequest reads the next request from r. It returns io.EOF if r ended between messages.
func readRequest(r io.Reader) (stream uint32, req *ttrpc.Request, err error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(header[0:4])
	stream = binary.BigEndian.Uint32(header[4:8])
	if length > messageLimit {
		return 0, nil, fmt.Errorf("read request: %d bytes, the limit is %d", length, messageLimit)
	}
	if header[8] != typeRequest {
		return 0, nil, fmt.Errorf("read request: message type is %d, want %d", header[8], typeRequest)
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, fmt.Errorf("read request: %w", noEOF(err))
	}
	req = &ttrpc.Request{}
	if err := proto.Unmarshal(data, req); err != nil {
		return 0, nil, fmt.Errorf("decode request: %w", err)
	}
	return stream, req, nil
}

// noEOF turns an end of stream inside a message into the error that it is.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// writeResponse writes the response to the request of the given stream, in one write.
func writeResponse(w io.Writer, stream uint32, resp *ttrpc.Response) error {
	message := make([]byte, headerSize, headerSize+proto.Size(resp))
	message, err := proto.MarshalOptions{}.MarshalAppend(message, resp)
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	binary.BigEndian.PutUint32(message[0:4], uint32(len(message)-headerSize))
	binary.BigEndian.PutUint32(message[4:8], stream)
	message[8] = typeResponse
	_, err = w.Write(message)
	return err
}
