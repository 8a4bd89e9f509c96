package shim

import (
	"context"
	"net"
	"sync"

	"github.com/containerd/ttrpc"
)

// greeter admits to the socket who runs as the same user as we do, and counts as a client who is
// connected: a manager keeps its connection for as long as it lives.
type greeter struct {
	service *Service
	visited func()
}

// Handshake implements ttrpc.Handshaker.
func (g greeter) Handshake(ctx context.Context, conn net.Conn) (net.Conn, any, error) {
	admitted, credentials, err := ttrpc.UnixSocketRequireSameUser().Handshake(ctx, conn)
	if err != nil {
		return nil, nil, err
	}
	g.service.arrive()
	g.visited()
	return &visit{Conn: admitted, leave: sync.OnceFunc(g.service.depart)}, credentials, nil
}

// visit is a connection of a manager. ttrpc closes it when the other side has.
type visit struct {
	net.Conn

	leave func()
}

func (v *visit) Close() error {
	v.leave()
	return v.Conn.Close()
}
