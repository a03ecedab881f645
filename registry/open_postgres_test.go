package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx, to prepare servers
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/sample"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
	"github.com/jeffersonwarrior/modelscan/registry/registrytest"
)

const (
	// pgPassword is what no error may hold.
	pgPassword = "hunter2"
	// pgSlack is how long after its deadline a call may return on a machine that is busy. TestSilence
	// measures how long it takes.
	pgSlack = 700 * time.Millisecond
)

// pgFake is a server on whose connections f runs. They are closed after the test.
func pgFake(t *testing.T, f func(conn net.Conn)) (address string) {
	t.Helper()
	l := pgListen(t)
	var (
		mu    sync.Mutex
		conns []net.Conn
		all   sync.WaitGroup
	)
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			all.Go(func() { f(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// pgOld serves what Open asks of a server, as one of version 13 answers.
func pgOld(conn net.Conn) {
	server := pgproto3.NewBackend(conn, conn)
	if _, err := server.ReceiveStartupMessage(); err != nil {
		return
	}
	answers := map[bool][]string{true: {"off"}, false: {"130014", "13.14", "UTF8", "on", "on"}}
	describe := func(simple bool) {
		var fields []pgproto3.FieldDescription
		for i := range answers[simple] {
			fields = append(
				fields,
				pgproto3.FieldDescription{
					Name: fmt.Append(nil, "c", i), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1,
				},
			)
		}
		server.Send(&pgproto3.RowDescription{Fields: fields})
	}
	row := func(simple bool) {
		var values [][]byte
		for _, answer := range answers[simple] {
			values = append(values, []byte(answer))
		}
		server.Send(&pgproto3.DataRow{Values: values})
		server.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
	}
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	server.Send(&pgproto3.AuthenticationOk{})
	server.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "13.14"})
	server.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	server.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	server.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	server.Send(ready)
	for server.Flush() == nil {
		message, err := server.Receive()
		if err != nil {
			return
		}
		switch message := message.(type) {
		case *pgproto3.Query: // SHOW transaction_read_only
			describe(true)
			row(true)
			server.Send(ready)
		case *pgproto3.Parse:
			server.Send(&pgproto3.ParseComplete{})
		case *pgproto3.Describe:
			if message.ObjectType == 'S' {
				server.Send(&pgproto3.ParameterDescription{})
			}
			describe(false)
		case *pgproto3.Bind:
			server.Send(&pgproto3.BindComplete{})
		case *pgproto3.Execute:
			row(false)
		case *pgproto3.Sync:
			server.Send(ready)
		case *pgproto3.Terminate:
			return
		}
	}
}

// pgRefuses opens a registry and returns its error, which names no password and does not come late:
// what does not pass comes at once, and what may pass by the deadline.
func pgRefuses(t *testing.T, passes bool, name string, options ...registry.Option) error {
	t.Helper()
	ctx, limit := t.Context(), 5*time.Second // Open repeats for a minute what may pass
	if passes {
		const patience = 1500 * time.Millisecond // for an answer of a busy server, at least once
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
		limit = patience + pgSlack
	}
	begin := time.Now()
	reg, err := registry.Open(ctx, name, options...)
	took := time.Since(begin)
	require.Error(t, err)
	require.Nil(t, reg)
	require.Less(t, took, limit, "%v", err)
	for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%q", err)} {
		require.NotContains(t, text, pgPassword)
	}
	if passes {
		require.ErrorIs(t, err, context.DeadlineExceeded)
	} else {
		require.NotErrorIs(t, err, context.DeadlineExceeded)
	}
	t.Logf("%s: %v", took.Round(time.Millisecond), err)
	return err
}

// Names that are none, and servers that are none.
func TestOpenPostgresNames(t *testing.T) {
	t.Parallel()
	t.Run("ErrInvalidData", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{
			"postgres://user:1/hunter2@host/db", "postgres://user:p@hunter2@host/db",
			"postgres://user:hunter2,5:12/x@host",
			"postgres://user:hun/hunter2@host/db", "postgres://user:hunter2#x@127.0.0.1:port",
			"postgres://user:hunter2@host:port/db",
			"postgres://user:hunter2@host:99999/db", "postgres://user:hunter2%zz@host/db",
			"postgres://user@host/db?password=hunter2&sslmode=hunter2",
			"postgres://host/db?password=hunter2&connect_timeout=x",
			"postgresql://user:hunter2@host/db?sslrootcert=/missing/hunter2",
			"postgres://user:hunter2@host/db?target_session_attrs=x",
			"Postgres://user:hunter2@host/db", "postgresql+x://user:hunter2@host/db",
		} {
			require.ErrorIs(t, pgRefuses(t, false, name), registry.ErrInvalidData, name)
			if strings.HasPrefix(name, "postgres://") {
				require.ErrorIs(
					t, pgRefuses(t, false, name, registry.WithoutMigration(), registry.WithPooler()),
					registry.ErrInvalidData, name,
				)
			}
		}
	})
	t.Run("ErrInvalidData_options", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "registry.db")
		name := "postgres://user:hunter2@" + pgRefused(t) + "/db?sslmode=disable"
		for says, option := range map[string]registry.Option{
			"WithReadReplica": registry.WithReadReplica(name), "WithPooler": registry.WithPooler(),
			"WithMaxConns": registry.WithMaxConns(4),
		} {
			for _, name := range []string{file, ":memory:"} {
				err := pgRefuses(t, false, name, option)
				require.ErrorIs(t, err, registry.ErrInvalidData)
				require.ErrorContains(t, err, says+" is for PostgreSQL")
			}
		}
		require.NoFileExists(t, file)
		for says, option := range map[string]registry.Option{
			"WithMaxConns: less than 1":                     registry.WithMaxConns(0),
			"WithMaxConns: less":                            registry.WithMaxConns(-5),
			"WithReadReplica: the URL does not begin":       registry.WithReadReplica("nonsense"),
			"WithReadReplica: the URL does not":             registry.WithReadReplica(""),
			"WithReadReplica: the URL":                      registry.WithReadReplica("mysql://user:hunter2@host"),
			"an option is nil":                              nil,
			"WithDurability: not one of DurabilityFull and": registry.WithDurability(7),
		} {
			err := pgRefuses(t, false, name, option)
			require.ErrorIs(t, err, registry.ErrInvalidData)
			require.ErrorContains(t, err, says)
		}
		server := registrytest.PostgresURL(t)
		err := pgRefuses(t, false, server, registry.WithReadReplica("postgres://user:hunter2@host:port/db"))
		require.ErrorIs(t, err, registry.ErrInvalidData)
		require.ErrorContains(t, err, "replica")
	})
	t.Run("ErrUnavailable_host", func(t *testing.T) { // which does not pass: the name is not known
		t.Parallel()
		var lookup *net.DNSError
		if _, err := net.DefaultResolver.LookupHost(t.Context(), "modelscan.invalid"); !errors.As(err, &lookup) ||
			!lookup.IsNotFound {
			t.Skipf("the resolver does not tell that a name is not known: %v", err)
		}
		for _, name := range []string{
			"postgres://user:hunter2@modelscan.invalid/db",
			"postgres://modelscan.invalid,also.invalid/db?user=u&password=hunter2",
			"postgres://user:hun?hunter2@modelscan.invalid/db",
			// Not that a URL could be read so, but PostgreSQL's own programs do.
			"postgres://user:hunter2#x@modelscan.invalid",
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // a resolver may be slow to say so
			defer cancel()
			_, err := registry.Open(ctx, name)
			require.ErrorIs(t, err, registry.ErrUnavailable, name)
			require.NotContains(t, err.Error(), pgPassword)
		}
	})
}

// Servers that are none, or too old.
func TestOpenPostgresServers(t *testing.T) {
	sample.OneGoroutine(t)
	t.Parallel()
	t.Run("Err_refused", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{
			"postgres://user:hunter2@" + pgRefused(t) + "/db",
			"postgres://" + pgRefused(t) + "," + pgRefused(t) + "/db?user=u&password=hunter2",
			"postgresql://" + pgRefused(t) + "/db?user=u&pass%77ord=hunter2&sslmode=require",
		} {
			err := pgRefuses(t, true, name)
			require.ErrorContains(t, err, "connection refused")
			require.ErrorIs(t, err, registry.ErrUnavailable)
		}
	})
	t.Run("Err_black_hole", func(t *testing.T) {
		t.Parallel()
		hole := pgFake(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
		for _, mode := range []string{"disable", "prefer", "require"} {
			require.ErrorIs(
				t, pgRefuses(t, true, "postgres://user:hunter2@"+hole+"/db?sslmode="+mode), registry.ErrUnavailable,
			)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		begin := time.Now()
		_, err := registry.Open(ctx, "postgres://user:hunter2@"+hole+"/db")
		require.ErrorIs(t, err, context.Canceled)
		require.Less(t, time.Since(begin), 100*time.Millisecond+pgSlack)
	})
	t.Run("Err_no_server", func(t *testing.T) { // of this kind
		t.Parallel()
		web := httptest.NewServer(http.NotFoundHandler())
		defer web.Close()
		hangsUp := pgFake(t, func(conn net.Conn) { _ = conn.Close() })
		noise := pgFake(
			t, func(conn net.Conn) { _, _ = io.Copy(conn, bytes.NewReader(bytes.Repeat([]byte{0xff}, 1<<20))) },
		)
		require.ErrorIs(
			t, pgRefuses(t, true, "postgres://user:hunter2@"+hangsUp+"/db?sslmode=disable"), registry.ErrUnavailable,
		)
		require.ErrorIs(
			t, pgRefuses(t, false, "postgres://user:hunter2@"+noise+"/db?sslmode=disable"), registry.ErrUnsupported,
		)
		_ = pgRefuses(t, true, "postgres://user:hunter2@"+web.Listener.Addr().String()+"/db?sslmode=disable")
	})
	t.Run("ErrUnsupported_old", func(t *testing.T) {
		t.Parallel()
		name := "postgres://user:hunter2@" + pgFake(t, pgOld) + "/db?sslmode=disable"
		for _, options := range [][]registry.Option{
			nil, {registry.WithPooler()}, {registry.WithDurability(registry.DurabilityRelaxed)},
		} {
			err := pgRefuses(t, false, name, options...)
			require.ErrorIs(t, err, registry.ErrUnsupported)
			require.ErrorContains(t, err, "PostgreSQL 13.14; 15 or newer is needed")
		}
	})
}

// What PostgreSQL cannot store is refused with a name, in whichever field it is.
func TestPostgresText(t *testing.T) {
	t.Parallel()
	reg := registrytest.NewPostgres(t)
	ctx := t.Context()
	p := mustProvider(t, reg, "openai")
	m, k := mustModel(t, reg, p.ID, "gpt-4", gpt4()), mustKey(t, reg, p.ID, 1)
	log, err := reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: "lab"})
	require.NoError(t, err)
	before := dump(t, reg)
	for _, bad := range []string{"a\x00b", "\x00", "a\xff\xfeb", "\xc0\x80", "\xed\xa0\x80"} {
		for what, err := range map[string]error{
			"provider": openSecond(reg.CreateProvider(ctx, registry.ProviderInput{Name: bad})),
			"base URL": openSecond(
				reg.CreateProvider(ctx, registry.ProviderInput{Name: "x", BaseURL: "https://" + bad}),
			),
			"find provider":   notFoundIsInvalid(openSecond(reg.FindProvider(ctx, bad))),
			"update provider": openSecond(reg.UpdateProvider(ctx, p.ID, registry.ProviderUpdate{Name: &bad})),
			"model":           openSecond(reg.CreateModel(ctx, registry.ModelInput{ProviderID: p.ID, ModelID: bad})),
			"model name": openSecond(
				reg.CreateModel(ctx, registry.ModelInput{ProviderID: p.ID, ModelID: "x", Name: bad}),
			),
			"find model": notFoundIsInvalid(openSecond(reg.FindModel(ctx, p.ID, bad))),
			"family":     openSecond(reg.CreateFamily(ctx, registry.FamilyInput{ProviderID: p.ID, Name: bad})),
			"key":        openSecond(reg.AddAPIKey(ctx, registry.KeyInput{ProviderID: p.ID, APIKey: secret(1) + bad})),
			"label":      openSecond(reg.UpdateAPIKey(ctx, k.ID, registry.KeyUpdate{Label: &bad})),
			"find key":   openSecond(reg.FindAPIKey(ctx, p.ID, secret(1)+bad)),
			"tier":       reg.RecordUsage(ctx, registry.UsageInput{ModelID: m.ID, APIKeyID: k.ID, ServiceTier: bad}),
			"price": openSecond(
				reg.UpdateModelPricing(
					ctx, m.ID, registry.PriceInput{ServiceTier: bad, Rates: money.Rates{meter.Input: 1}},
				),
			),
			"setting":         reg.SetSetting(ctx, bad, "x"),
			"setting's value": reg.SetSetting(ctx, "x", bad),
			"get setting":     notFoundIsInvalid(openSecond(reg.GetSetting(ctx, bad))),
			"delete setting":  notFoundIsInvalid(reg.DeleteSetting(ctx, bad)),
			"SDK version": openSecond(
				reg.CreateSDKVersion(ctx, registry.SDKVersionInput{ProviderID: p.ID, Version: bad}),
			),
			"discovery": openSecond(reg.CreateDiscoveryLog(ctx, registry.DiscoveryInput{Identifier: bad})),
			"result":    openSecond(reg.UpdateDiscoveryResult(ctx, log.ID, []byte(bad), "success")),
		} {
			require.ErrorIs(t, err, registry.ErrInvalidData, "%s, %q", what, bad)
		}
	}
	require.Equal(t, before, dump(t, reg))
}

// notFoundIsInvalid takes the answer that there is no such row for the other right one.
func notFoundIsInvalid(err error) error {
	if errors.Is(err, registry.ErrNotFound) {
		return registry.ErrInvalidData
	}
	return err
}
