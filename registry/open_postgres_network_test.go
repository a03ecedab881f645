package registry_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx, to prepare servers
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

// pgProxy is a way to a server that can be stopped up.
type pgProxy struct {
	address string // where it listens
	target  string

	mu    sync.Mutex
	free  sync.Cond // signalled when held or cut changes
	held  bool      // nothing passes
	cut   bool      // connections are refused
	conns map[net.Conn]struct{}
}

func pgProxyTo(t *testing.T, target string) *pgProxy {
	t.Helper()
	p := &pgProxy{target: target, conns: map[net.Conn]struct{}{}}
	p.free.L = &p.mu
	p.address = pgFake(t, p.serve)
	t.Cleanup(func() { p.set(false, true) })
	return p
}

// url returns the URL of a server, by the way through the proxy.
func (p *pgProxy) url(t *testing.T, name string) string {
	t.Helper()
	return pgEdit(t, name, func(u *url.URL) { u.Host = p.address })
}

// set holds up what is under way, or cuts all connections.
func (p *pgProxy) set(held, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held, p.cut = held, cut
	p.free.Broadcast()
	if cut {
		for conn := range p.conns {
			_ = conn.Close()
		}
		clear(p.conns)
	}
}

// pass waits while the proxy holds, and keeps a connection unless all are cut.
func (p *pgProxy) pass(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.held && !p.cut {
		p.free.Wait()
	}
	for _, conn := range conns {
		p.conns[conn] = struct{}{}
	}
	return !p.cut
}

func (p *pgProxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	if !p.pass(client) {
		return
	}
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	if !p.pass(server) {
		return
	}
	var both sync.WaitGroup
	for from, to := range map[net.Conn]net.Conn{client: server, server: client} {
		both.Go(func() {
			defer func() { _, _ = client.Close(), server.Close() }()
			buffer := make([]byte, 32<<10)
			for {
				n, err := from.Read(buffer)
				if err != nil || !p.pass() {
					return
				}
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
		})
	}
	both.Wait()
}

// A network that is lost in the middle: every call ends by its deadline with an error that has a
// name, and works again when the network is back.
func TestPostgresLostNetwork(t *testing.T) {
	long(t, "connections stall")
	t.Parallel()
	name := pgAs(t, registrytest.PostgresURL(t), "postgres") // its owner is asked for no password
	proxy := pgProxyTo(t, pgHost(t, name))
	reg, err := registry.Open(t.Context(), proxy.url(t, name))
	require.NoError(t, err)
	defer func() { require.NoError(t, reg.Close()) }()
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "gpt-4", gpt4()), mustKey(t, reg, p.ID, 1)
	use := registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, Tokens: meter.Tokens{InputTokens: 1}}
	calls := map[string]func(ctx context.Context) error{
		"read":  func(ctx context.Context) error { return openSecond(reg.GetProvider(ctx, p.ID)) },
		"least": func(ctx context.Context) error { return openSecond(reg.GetLeastUsedKey(ctx, p.ID)) },
		"write": func(ctx context.Context) error { return reg.RecordUsage(ctx, use) },
		"transaction": func(ctx context.Context) error {
			return reg.InTx(ctx, func(tx *registry.Registry) error { return tx.RecordUsage(ctx, use) })
		},
	}
	for _, cut := range []bool{true, false} {
		// In the middle of a transaction, and then with what is left of the pool.
		middle := func(ctx context.Context) error {
			return reg.InTx(ctx, func(tx *registry.Registry) error {
				if err := tx.SetSetting(ctx, "half", "done"); err != nil {
					return err
				}
				proxy.set(true, cut)
				return tx.RecordUsage(ctx, use)
			})
		}
		check := func(what string, call func(context.Context) error) {
			const patience = 300 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			begin := time.Now()
			err := call(ctx)
			late := time.Since(begin) - patience
			require.Error(t, err, what)
			require.NotContains(t, err.Error(), pgPassword)
			require.True(
				t, errors.Is(err, context.DeadlineExceeded) || errors.Is(err, registry.ErrUnavailable), "%s: %v", what,
				err,
			)
			t.Logf("cut %v, %s: %s after the deadline: %v", cut, what, late.Round(time.Millisecond), err)
			require.Less(t, late, pgSlack, "%s: %v", what, err)
		}
		check("middle", middle)
		proxy.set(false, false)
		check("idle", func(ctx context.Context) error { // the context ends between two statements
			return reg.InTx(ctx, func(tx *registry.Registry) error {
				err := tx.SetSetting(t.Context(), "half", "done")
				proxy.set(true, cut)
				<-ctx.Done()
				return err
			})
		})
		proxy.set(true, cut) // also if the transaction did not begin in time
		for what, call := range calls {
			check(what, call)
		}
		proxy.set(false, false)
		for what, call := range calls {
			require.NoError(t, call(t.Context()), what)
		}
		_, err := reg.GetSetting(t.Context(), "half")
		require.ErrorIs(t, err, registry.ErrNotFound, "half a transaction was committed")
	}
}
