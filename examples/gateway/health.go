package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// printKeys prints whether each key may be used now, and why not, beside what it has been used for.
func printKeys(ctx context.Context, reg *registry.Registry, out io.Writer) error {
	t := newTable(out, "Key health",
		"key", "weight", "requests", "tokens", "in flight", "tightest limit", "state", "detail", "opens in")
	for _, name := range providerNames() {
		p, err := reg.FindProvider(ctx, name)
		if err != nil {
			return err
		}
		counters := map[uuid.UUID]*ent.APIKey{}
		keys, err := reg.ListAPIKeys(ctx, registry.KeyFilter{ProviderID: p.ID, Limit: registry.MaxLimit})
		if err != nil {
			return err
		}
		for _, key := range keys {
			counters[key.ID] = key
		}
		verdicts, err := reg.ExplainKeys(ctx, registry.AcquireInput{ProviderID: p.ID})
		if err != nil {
			return err
		}
		for _, v := range verdicts {
			key := counters[v.ID]
			if key == nil {
				continue // it was added this moment, by somebody else
			}
			t.AppendRow([]any{
				v.Label, v.Weight, key.UsageCount, key.TokenCount, v.InFlight, tightest(v.Limits), state(v), v.Detail,
				until(v.Until),
			})
		}
		t.AppendSeparator()
	}
	t.Render()
	return nil
}

func state(v registry.KeyVerdict) string {
	switch {
	case v.Reason != "":
		return string(v.Reason)
	case v.Probation:
		return "usable once" // whoever gets it tries it for all
	case v.Next:
		return "next"
	}
	return "usable"
}

// tightest is the limit of which the least is left.
func tightest(limits []registry.LimitState) string {
	if len(limits) == 0 {
		return ""
	}
	l := slices.MaxFunc(limits, func(a, b registry.LimitState) int {
		return cmp.Compare(float64(a.Used)/float64(a.Limit), float64(b.Used)/float64(b.Limit))
	})
	return strings.TrimSpace(fmt.Sprintf("%s %s %d/%d", l.Group, l.Name, l.Used, l.Limit))
}

// until is how long it is until then.
func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return time.Until(t).Round(100 * time.Millisecond).String()
}

// printPools prints a line for each provider that has keys.
func printPools(ctx context.Context, reg *registry.Registry, out io.Writer) error {
	pools, err := reg.PoolHealth(ctx)
	if err != nil {
		return err
	}
	for _, pool := range pools {
		if pool.Keys == 0 {
			continue
		}
		fmt.Fprintf(out, "%s: %d of %d keys usable, %d on probation, %d requests in flight",
			pool.Name, pool.Usable, pool.Keys, pool.Probation, pool.InFlight)
		if !pool.CoolingUntil.IsZero() {
			fmt.Fprintf(out, ", cools down for %s: %s", until(pool.CoolingUntil), pool.CoolingReason)
		}
		if pool.Alert() {
			fmt.Fprint(out, ", somebody should look")
		}
		fmt.Fprintln(out)
	}
	return nil
}

// newestEvents is how many events are printed.
const newestEvents = 12

// printEvents prints what has happened to keys since the run began, as the audit trail tells it.
func printEvents(ctx context.Context, reg *registry.Registry, start time.Time, out io.Writer) error {
	names, err := eventNames(ctx, reg)
	if err != nil {
		return err
	}
	events, err := keyEvents(ctx, reg, start)
	if err != nil {
		return err
	}
	t := newTable(out, "Key events of this run, newest first", "after", "of", "event", "why")
	for _, e := range events[:min(newestEvents, len(events))] {
		t.AppendRow([]any{e.At.Sub(start).Round(time.Millisecond), names[e.EntityID], e.Action, e.why})
	}
	t.Render()
	return nil
}

// keyEvent is an entry of the audit trail about whether a key may be used.
type keyEvent struct {
	*ent.AuditEntry
	why string
}

// keyEvents returns the newest events since start, newest first. Requests that are under way together fail together,
// and each of them may put off the end of what the first one began: that is one event here.
func keyEvents(ctx context.Context, reg *registry.Registry, start time.Time) (events []keyEvent, err error) {
	for _, action := range []string{
		registry.ActionDegrade, registry.ActionRestore, registry.ActionProbe, registry.ActionCoolDown,
	} {
		entries, err := reg.ListAudit(ctx, registry.AuditFilter{Action: action, Start: start, Limit: 10 * newestEvents})
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			why, err := whyOf(entry)
			if err != nil {
				return nil, err
			}
			events = append(events, keyEvent{entry, why})
		}
	}
	slices.SortFunc(events, func(a, b keyEvent) int {
		return cmp.Or(a.At.Compare(b.At), bytes.Compare(a.ID[:], b.ID[:]))
	})
	last := map[string]keyEvent{}
	events = slices.DeleteFunc(events, func(e keyEvent) bool {
		before, ok := last[e.EntityID]
		last[e.EntityID] = e
		return ok && e.Action == before.Action && e.why == before.why
	})
	slices.Reverse(events)
	return events, nil
}

// eventNames are those of the keys and providers that events can be of, by their ids.
func eventNames(ctx context.Context, reg *registry.Registry) (map[string]string, error) {
	names := map[string]string{}
	for _, name := range providerNames() {
		p, err := reg.FindProvider(ctx, name)
		if err != nil {
			return nil, err
		}
		names[p.ID.String()] = name
		keys, err := reg.ListAPIKeys(ctx, registry.KeyFilter{ProviderID: p.ID, Limit: registry.MaxLimit})
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			names[key.ID.String()] = key.Label
		}
	}
	return names, nil
}

// whyOf reads the reason that an entry tells.
func whyOf(entry *ent.AuditEntry) (string, error) {
	var after struct {
		Why            string `json:"why"`
		DegradedReason string `json:"degraded_reason"`
		CoolingReason  string `json:"cooling_reason"`
	}
	if err := json.Unmarshal(entry.After, &after); err != nil {
		return "", err
	}
	return cmp.Or(after.Why, after.DegradedReason, after.CoolingReason), nil
}
