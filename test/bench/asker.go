package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"holdfast/internal/client"
)

// A question is a request in the bytes of ttrpc: a header of ten bytes, which has the length of the rest, the
// number of a stream, a type and flags, and the request (PROTOCOL.md of ttrpc).
const (
	headerSize   = 10
	streamOffset = 4
	typeOffset   = 8
	typeRequest  = 1
)

// question encodes a request to the task service of a shim, as a manager does.
func question(s *client.Shim, method string, request proto.Message) ([]byte, error) {
	payload, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	body, err := proto.Marshal(&ttrpc.Request{
		Service: fmt.Sprintf("containerd.task.v%d.Task", s.Version), Method: method, Payload: payload,
		Metadata: []*ttrpc.KeyValue{{Key: "containerd-namespace-ttrpc", Value: s.Namespace}},
	})
	if err != nil {
		return nil, err
	}
	frame := make([]byte, headerSize, headerSize+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body))) //nolint:gosec // some hundred bytes
	frame[typeOffset] = typeRequest
	return append(frame, body...), nil
}

// ask has another process put questions to the shim at address, over a connection of its own: each n times, in
// turn, after a pause. It returns how long each answer has taken, in ms, by question. A shim that hangs ends the
// measurement.
func (b *bench) ask(ctx context.Context, address string, n int, pause time.Duration, questions ...[]byte) ([][]float64, error) {
	args := []string{programWord, "ask", strings.TrimPrefix(address, "unix://"), strconv.Itoa(n), pause.String()}
	for _, q := range questions {
		args = append(args, hex.EncodeToString(q))
	}
	ctx, cancel := context.WithTimeout(ctx, lifeLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.self, args...)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	said, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask: %w: %s", err, complaints.String())
	}
	fmt.Fprint(b.w, complaints.String())
	took := make([][]float64, len(questions))
	for i, word := range strings.Fields(string(said)) {
		ns, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("ask: %w", err)
		}
		which := i % len(questions)
		took[which] = append(took[which], ms(time.Duration(ns)))
	}
	return took, nil
}

// asker is the program of ask. It goes before all others on its CPU, if it may, and has one thread, so that
// what it measures is what the shim takes, not what a busy client does.
func asker(address, times, pause string, encoded []string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	rest, err := time.ParseDuration(pause)
	if err != nil {
		return err
	}
	var questions [][]byte
	for _, e := range encoded {
		q, err := hex.DecodeString(e)
		if err != nil || len(q) < headerSize {
			return fmt.Errorf("%q is no question in hexadecimal", e)
		}
		questions = append(questions, q)
	}
	runtime.LockOSThread()
	first := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if err := unix.SchedSetAttr(0, first, 0); err != nil {
		fmt.Fprintf(os.Stderr, "the client cannot go before others (%v): its own waits are in the times, for all sides\n", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		return fmt.Errorf("connect to %s: %w", address, err)
	}
	stream := uint32(1) // a client's are odd
	for range n {
		for _, q := range questions {
			time.Sleep(rest)
			binary.BigEndian.PutUint32(q[streamOffset:], stream)
			stream += 2
			began := time.Now()
			answer, err := exchange(fd, q)
			took := time.Since(began)
			if err != nil {
				return err
			}
			if err := refusal(answer); err != nil {
				return err
			}
			fmt.Println(took.Nanoseconds())
		}
	}
	return nil
}

// exchange sends a question and returns the body of the answer.
func exchange(fd int, question []byte) ([]byte, error) {
	if n, err := again(unix.Write, fd, question); err != nil || n < len(question) {
		return nil, fmt.Errorf("send %d of %d bytes: %w", n, len(question), err)
	}
	buf := make([]byte, 4096)
	for got := 0; ; {
		n, err := again(unix.Read, fd, buf[got:])
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF // or an answer of a size that nobody has asked for
		}
		if err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		got += n
		if got >= headerSize && got == headerSize+int(binary.BigEndian.Uint32(buf)) {
			return buf[headerSize:got], nil
		}
	}
}

// refusal returns the error that an answer brings, if it does.
func refusal(answer []byte) error {
	var response ttrpc.Response
	if err := proto.Unmarshal(answer, &response); err != nil {
		return err
	}
	if s := response.GetStatus(); s.GetCode() != 0 {
		return errors.New(s.GetMessage())
	}
	return nil
}
