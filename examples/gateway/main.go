// Command gateway shows the registry at work: it imports a real catalogue of providers and models, serves some
// thousands of chat calls, a third of them streamed, through a small gateway, and prints what the registry knows then.
// The gateway asks for whom each call is, and leases a key for it. One of the users runs out of budget. The providers'
// side is a server on the loopback interface, which fails now and then as providers do; nothing leaves the machine.
//
// The database stays, and a second run continues with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

type config struct {
	db      string        // the database file
	calls   int           // chat calls to serve
	clients int           // goroutines that call at once
	trial   int64         // requests that one of the users may make a day
	timeout time.Duration // of a call to the provider
	faults  faults        // of the provider
}

func main() {
	cfg := config{timeout: 500 * time.Millisecond, faults: faults{
		limited: 250, rest: 2 * time.Second, broken: 100, lost: 200, cut: 150,
		revoked: "deepseek 2", spent: "openai 3", spentFor: 5 * time.Second,
	}}
	flag.StringVar(&cfg.db, "db", "gateway.db", "database `file`")
	flag.IntVar(&cfg.calls, "calls", 3000, "chat calls to serve")
	flag.IntVar(&cfg.clients, "clients", 32, "clients that call at once")
	flag.Int64Var(&cfg.trial, "trial", 500, "`requests` a day of the user who has a trial, at the first run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if _, _, err := run(ctx, cfg, os.Stdout); err != nil {
		log.Fatal("gateway: ", err)
	}
}

// run is the demo. It returns what the provider has done, and what became of the users' calls, too.
func run(ctx context.Context, cfg config, out io.Writer) (done tally, calls *turnout, err error) {
	keyring, err := loadKeyring(cfg.db + ".key")
	if err != nil {
		return tally{}, nil, err
	}
	reg, err := registry.Open(ctx, cfg.db, registry.WithKeyring(keyring), registry.WithRequiredConsumer())
	if err != nil {
		return tally{}, nil, err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()

	report, err := importCatalogue(ctx, reg, out)
	if err != nil {
		return tally{}, nil, err
	}
	printImport(out, report)

	start, keys := time.Now(), demoKeys()
	provider := newUpstream(keys, cfg.faults, time.Now)
	defer provider.Close()
	g := &gateway{
		reg:    reg,
		client: &http.Client{Timeout: cfg.timeout, Transport: &http.Transport{MaxIdleConnsPerHost: cfg.clients}},
		now:    time.Now, upstream: provider.URL, routes: map[string]*ent.Model{},
	}
	if err := g.setUp(ctx, keys); err != nil {
		return tally{}, nil, err
	}
	users, err := g.setUpConsumers(ctx, cfg.trial)
	if err != nil {
		return tally{}, nil, err
	}
	if err := g.setUpDimensions(ctx); err != nil {
		return tally{}, nil, err
	}
	if calls, err = g.serveAll(ctx, cfg, users, out); err != nil {
		return tally{}, nil, err
	}
	done = provider.counted()
	printTally(out, done)
	if err := g.printSpending(ctx, users, calls, out); err != nil {
		return tally{}, nil, err
	}
	if err := g.printAttribution(ctx, users, start, out); err != nil {
		return tally{}, nil, err
	}
	if err := printReports(ctx, reg, start, out); err != nil {
		return tally{}, nil, err
	}
	fmt.Fprintf(out, "\nThe database is %s: look into it, or run again to continue with it.\n", cfg.db)
	if done.crowded > 0 {
		return done, calls, fmt.Errorf("%d requests were more at once than their key may have", done.crowded)
	}
	return done, calls, nil
}

// serveAll serves the calls of all clients.
func (g *gateway) serveAll(ctx context.Context, cfg config, users []user, out io.Writer) (*turnout, error) {
	front := httptest.NewServer(g)
	defer front.Close()
	start := time.Now()
	calls, err := serveCalls(ctx, cfg, front.URL, g.routes, users, out)
	if err != nil {
		return nil, err
	}
	took := time.Since(start).Round(time.Millisecond)
	fmt.Fprintf(out, "\nAnswered %d calls from %d clients in %s.\n", cfg.calls, cfg.clients, took)
	return calls, nil
}

func importCatalogue(ctx context.Context, reg *registry.Registry, out io.Writer) (registry.ImportResult, error) {
	snapshot := catalog.Catwalk()
	bars, bar := newBar(out, "catalogue", int64(snapshot.Models()))
	report, err := reg.ImportCatalog(ctx, snapshot, func(done, _ int) { bar.SetCurrent(int64(done)) })
	bar.Abort(false) // without effect on a bar that is complete
	bars.Wait()
	return report, err
}

func newBar(out io.Writer, name string, total int64) (*mpb.Progress, *mpb.Bar) {
	bars := mpb.New(mpb.WithOutput(out), mpb.WithWidth(60))
	return bars, bars.AddBar(total,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.CountersNoUnit("%d / %d", decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Percentage()),
	)
}
