package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// tagsHeader is where a client says what a request is for.
const tagsHeader = "X-Tags" // feature=summary, customer=initech

// The dimensions that usage is summed by, beside models, keys and consumers.
const (
	byFeature  = registry.Dimension("feature")
	byCustomer = registry.Dimension("customer")
)

// features and customers are those of the demo's requests.
var (
	features  = []string{"chat", "summary", "search"}
	customers = []string{"initech", "globex", "hooli", "umbrella"}
)

// tagsOf reads the tags of a request. Those of dimensions that are not there are refused when a key is leased.
func tagsOf(r *http.Request) (registry.Tags, error) {
	tags := registry.Tags{}
	for part := range strings.SplitSeq(r.Header.Get(tagsHeader), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("%s: %.40q is not a name and a value", tagsHeader, part)
		}
		tags[name] = append(tags[name], value)
	}
	return tags, nil
}

// setUpDimensions creates the dimensions that are missing: those of tags, and one of teams with features.
func (g *gateway) setUpDimensions(ctx context.Context) error {
	for _, in := range []registry.DimensionInput{
		{Name: string(byFeature)}, {Name: string(byCustomer), MaxValues: 10_000},
		{Name: "consumer-feature", Of: []string{"consumer", string(byFeature)}},
	} {
		if _, err := g.reg.CreateDimension(ctx, in); err != nil && !errors.Is(err, registry.ErrConflict) {
			return err
		}
	}
	return nil
}

// printAttribution prints what each team spent on each feature since a moment, and what each customer cost.
func (g *gateway) printAttribution(ctx context.Context, users []user, since time.Time, out io.Writer) error {
	span := registry.ReportInput{Start: since, End: g.now().Add(time.Minute)}
	span.By = []registry.Dimension{registry.BySubtree, byFeature}
	rows, err := g.reg.UsageReport(ctx, span)
	if err != nil {
		return err
	}
	isTeam := func(name string) bool {
		return slices.ContainsFunc(users, func(u user) bool { return u.team == name })
	}
	fmt.Fprintln(out)
	t := newTable(out, "Cost by team and feature", "team", "feature", "requests", "p95", "cost $")
	for _, row := range rows {
		if isTeam(row.Consumer) {
			t.AppendRow([]any{row.Consumer, row.Values[byFeature], row.Requests, row.P95, row.TotalCost})
		}
	}
	t.Render()
	span.By = []registry.Dimension{byCustomer}
	if rows, err = g.reg.UsageReport(ctx, span); err != nil {
		return err
	}
	fmt.Fprintln(out)
	t = newTable(out, "Cost by customer", "customer", "requests", "retries", "cost $")
	for _, row := range rows {
		name := row.Values[byCustomer]
		if name == "" {
			name = "(none)"
		}
		t.AppendRow([]any{name, row.Requests, row.Retries, row.TotalCost})
	}
	t.Render()
	return nil
}
