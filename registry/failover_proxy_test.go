package registry_test

// These tests have servers, connections and networks fail, and have no source of their own.

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// faultProxy passes connections on to a PostgreSQL server, message by message, and ill-treats them.
type faultProxy struct {
	server   string // its address
	listener net.Listener
	gate     sync.RWMutex // locked: nothing passes
	chunk    atomic.Int64 // bytes that pass at once; 0: a message
	snag     atomic.Pointer[faultSnag]
	all      sync.WaitGroup

	mu     sync.Mutex
	wires  map[*faultWire]bool
	closed bool
}

// faultWire is a connection of a client and the one that it is passed on by.
type faultWire struct {
	client, server *net.TCPConn
	mute           atomic.Bool // the client hears nothing any more
}

// faultSnag is what happens to the first message that is the one: it is lost.
type faultSnag struct {
	fromServer bool
	is         func(message []byte) bool
	how        func(*faultWire)
}

// newFaultProxy returns a proxy that is closed after the test, and the URL by which it is reached
// instead of the server of another URL.
func newFaultProxy(t *testing.T, direct string) (p *faultProxy, through string) {
	t.Helper()
	u, err := url.Parse(direct)
	require.NoError(t, err)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p = &faultProxy{server: u.Host, listener: listener, wires: map[*faultWire]bool{}}
	if u.Port() == "" {
		p.server = net.JoinHostPort(u.Hostname(), "5432")
	}
	u.Host = listener.Addr().String()
	query := u.Query()
	query.Set("sslmode", "disable") // the proxy reads along
	u.RawQuery = query.Encode()
	p.all.Go(p.accept)
	t.Cleanup(p.close)
	return p, u.String()
}

func (p *faultProxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.each((*faultWire).hangUp)
	p.all.Wait()
}

// each does something to each connection that there is.
func (p *faultProxy) each(do func(*faultWire)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.wires {
		do(w)
	}
}

func (p *faultProxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		w := &faultWire{client: client.(*net.TCPConn), server: server.(*net.TCPConn)}
		p.mu.Lock()
		if p.closed {
			w.hangUp()
		}
		p.wires[w] = true
		p.mu.Unlock()
		p.all.Go(func() { p.serve(w) })
	}
}

func (p *faultProxy) serve(w *faultWire) {
	var both sync.WaitGroup
	both.Go(func() { p.pass(w, false) })
	both.Go(func() { p.pass(w, true) })
	both.Wait()
	w.hangUp()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.wires, w)
}

// pass passes on what comes from one side, and in the end that nothing more comes.
func (p *faultProxy) pass(w *faultWire, fromServer bool) {
	from, to := w.client, w.server
	if fromServer {
		from, to = to, from
	}
	in := bufio.NewReader(from)
	for first := !fromServer; ; first = false {
		message, err := faultMessage(in, first)
		if err != nil {
			if !w.mute.Load() || !fromServer {
				_ = to.CloseWrite()
			}
			return
		}
		s := p.snag.Load()
		if s != nil && s.fromServer == fromServer && s.is(message) && p.snag.CompareAndSwap(s, nil) {
			s.how(w)
			continue
		}
		for len(message) > 0 && err == nil { // of a side that does not listen any more, the rest is thrown away
			n := len(message)
			if chunk := int(p.chunk.Load()); chunk > 0 {
				n = min(n, chunk)
			}
			p.gate.RLock()
			if !fromServer || !w.mute.Load() {
				_, err = to.Write(message[:n])
			}
			p.gate.RUnlock()
			message = message[n:]
		}
	}
}

// faultMessage reads a message: a type, its length and so many bytes. The first of a client has no type.
func faultMessage(in *bufio.Reader, first bool) ([]byte, error) {
	head := 5
	if first {
		head = 4
	}
	peeked, err := in.Peek(head)
	if err != nil {
		return nil, err
	}
	message := make([]byte, head-4+int(binary.BigEndian.Uint32(peeked[head-4:])))
	_, err = io.ReadFull(in, message)
	return message, err
}

// stall lets nothing pass until it is told to resume.
func (p *faultProxy) stall() (resume func()) {
	p.gate.Lock()
	return p.gate.Unlock
}

func (w *faultWire) hangUp() {
	_ = w.client.Close()
	_ = w.server.Close()
}

func (w *faultWire) reset() {
	_ = w.client.SetLinger(0)
	_ = w.server.SetLinger(0)
	w.hangUp()
}

// leave tells the client that nothing more comes, leaveServer the server.
func (w *faultWire) leave()       { _ = w.client.CloseWrite() }
func (w *faultWire) leaveServer() { _ = w.server.CloseWrite() }

// silence lets the client wait for an answer.
func (w *faultWire) silence() { w.mute.Store(true) }

// lose arms the proxy for one message. Lost says afterwards whether there was one, and disarms it.
func (p *faultProxy) lose(s faultSnag) (lost func() bool) {
	p.snag.Store(&s)
	return func() bool { return !p.snag.CompareAndSwap(&s, nil) }
}

// nth is the n-th message from now on. Requests to cancel, which a client sends when it gives up an
// earlier connection, do not count.
func nth(n int64) func([]byte) bool {
	var seen atomic.Int64
	return func(message []byte) bool {
		return !strings.HasPrefix(string(message), "\x00\x00\x00\x10\x04\xd2\x16\x2e") && seen.Add(1) == n
	}
}

// commitQuery and commitAnswer are the messages of a commit.
func commitQuery(message []byte) bool  { return string(message) == "Q\x00\x00\x00\x0bCOMMIT\x00" }
func commitAnswer(message []byte) bool { return string(message) == "C\x00\x00\x00\x0bCOMMIT\x00" }
