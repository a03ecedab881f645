// Command gateway shows the registry at work: it imports a real catalogue of providers and
// models, serves some thousands of chat calls through a small gateway that picks keys and
// records usage, and prints what the registry knows then. The providers' side is a server on
// the loopback interface; nothing leaves the machine.
//
// The database stays, and a second run continues with it.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
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
	limit   int           // every how many requests of a key one is answered 429
	rest    time.Duration // how long a key rests then
}

func main() {
	cfg := config{limit: 150, rest: 3 * time.Second}
	flag.StringVar(&cfg.db, "db", "gateway.db", "database `file`")
	flag.IntVar(&cfg.calls, "calls", 3000, "chat calls to serve")
	flag.IntVar(&cfg.clients, "clients", 32, "clients that call at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, cfg, os.Stdout); err != nil {
		log.Fatal("gateway: ", err)
	}
}

func run(ctx context.Context, cfg config, out io.Writer) (err error) {
	keyring, err := loadKeyring(cfg.db + ".key")
	if err != nil {
		return err
	}
	reg, err := registry.Open(ctx, cfg.db, registry.WithKeyring(keyring))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()

	report, err := importCatalogue(ctx, reg, out)
	if err != nil {
		return err
	}
	printImport(out, report)

	g := &gateway{
		reg:    reg,
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: cfg.clients}},
		routes: map[string]*ent.Model{},
	}
	keys, err := g.setUp(ctx)
	if err != nil {
		return err
	}
	provider := newUpstream(keys, cfg.limit, cfg.rest)
	defer provider.Close()
	g.upstream = provider.URL
	front := httptest.NewServer(g)
	defer front.Close()

	start := time.Now()
	if err := serveCalls(ctx, cfg, front.URL, g.routes, out); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nServed %d calls from %d clients in %s.\n", cfg.calls, cfg.clients, time.Since(start).Round(time.Millisecond))
	if err := printReports(ctx, reg, out); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nThe database is %s: look into it, or run again to continue with it.\n", cfg.db)
	return nil
}

func importCatalogue(ctx context.Context, reg *registry.Registry, out io.Writer) (registry.ImportReport, error) {
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

// routes are the models that the gateway offers, by provider.
var routes = map[string][]string{
	"openai":   {"gpt-5.4", "gpt-5-mini"},
	"deepseek": {"deepseek-v4-pro", "deepseek-v4-flash"},
	"xai":      {"grok-4.5"},
}

const keysPerProvider = 4

// loadKeyring reads the key that API keys are sealed with, and makes one at the first run. A service would keep it away from
// the database.
func loadKeyring(path string) (registry.Keyring, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key := make([]byte, registry.KeyringKeySize)
		if _, err := rand.Read(key); err != nil {
			return nil, err
		}
		text = []byte("demo = " + base64.StdEncoding.EncodeToString(key) + "\n")
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return registry.ParseKeyring(string(text))
}

// setUp looks up the models to offer and adds the keys that are missing. It returns all keys for the provider's side, which
// knows them too.
func (g *gateway) setUp(ctx context.Context) (secrets []string, err error) {
	for name, models := range routes {
		provider, err := g.reg.FindProvider(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, modelID := range models {
			model, err := g.reg.FindModel(ctx, provider.ID, modelID)
			if err != nil {
				return nil, fmt.Errorf("%s/%s: %w", name, modelID, err)
			}
			g.routes[name+"/"+modelID] = model
		}
		for i := range keysPerProvider {
			secret := fmt.Sprintf("sk-%s-demo-%012d", name, i+1)
			key, err := g.reg.FindAPIKey(ctx, provider.ID, secret)
			switch {
			case errors.Is(err, registry.ErrNotFound):
				_, err = g.reg.AddAPIKey(ctx, registry.KeyInput{
					ProviderID: provider.ID, APIKey: secret, Label: fmt.Sprintf("%s %d", name, i+1),
				})
			case err == nil && key.DataKeyID == nil: // added by a demo that did not seal
				_, err = g.reg.UpdateAPIKey(ctx, key.ID, registry.KeyUpdate{APIKey: &secret})
			}
			if err != nil {
				return nil, err
			}
			secrets = append(secrets, secret)
		}
	}
	return secrets, nil
}

// serveCalls makes calls of several clients at once.
func serveCalls(ctx context.Context, cfg config, url string, routes map[string]*ent.Model, out io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var names []string
	for name := range routes {
		names = append(names, name)
	}
	bars, bar := newBar(out, "calls", int64(cfg.calls))
	var (
		next    atomic.Int64
		clients sync.WaitGroup
	)
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: cfg.clients}}
	for range cfg.clients {
		clients.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(cfg.calls) || ctx.Err() != nil {
					return
				}
				if err := chat(ctx, client, url, names[i%int64(len(names))]); err != nil {
					cancel(err)
					return
				}
				bar.Increment()
			}
		})
	}
	clients.Wait()
	bar.Abort(false)
	bars.Wait()
	return context.Cause(ctx)
}

// chat makes one call, and waits as long as it is told when no key is free.
func chat(ctx context.Context, client *http.Client, url, model string) error {
	body, err := json.Marshal(chatRequest{Model: model, Messages: []chatMessage{{Role: "user", Content: "Say hello."}}})
	if err != nil {
		return err
	}
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		answer, err := io.ReadAll(response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil {
			return err
		}
		switch response.StatusCode {
		case http.StatusOK:
			return nil
		case http.StatusServiceUnavailable:
			seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
			if err != nil {
				return fmt.Errorf("gateway has no key, and none to wait for: %s", answer)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Duration(seconds) * time.Second):
			}
		default:
			return fmt.Errorf("gateway answered %s: %s", response.Status, answer)
		}
	}
}
