package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/list"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/modelfamily"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func newTable(out io.Writer, title string, header ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(out)
	t.SetStyle(table.StyleRounded)
	t.SetTitle(title)
	t.AppendHeader(header)
	return t
}

func printImport(out io.Writer, report registry.ImportResult) {
	t := newTable(out, "Catalogue: "+report.Source, "", "created", "updated", "unchanged", "left alone")
	for _, row := range []struct {
		name string
		registry.ImportChanges
	}{
		{"providers", report.Providers}, {"families", report.Families},
		{"models", report.Models}, {"prices", report.Prices},
	} {
		t.AppendRow(table.Row{row.name, row.Created, row.Updated, row.Unchanged, row.Skipped})
	}
	t.Render()
	for _, note := range report.Notes {
		fmt.Fprintf(out, "  %s: %s\n", cmp.Or(note.Provider, "all"), note.Text)
	}
}

// printTally prints how the provider answered.
func printTally(out io.Writer, t tally) {
	fmt.Fprint(out, "The provider's answers:")
	for _, status := range slices.Sorted(maps.Keys(t.answers)) {
		if status > statusOfCut {
			fmt.Fprintf(out, " %d × %d,", t.answers[status], status)
		}
	}
	fmt.Fprintf(out, " %d × none in time, %d × a stream that broke off."+
		" Requests beyond what a key may have at once: %d.\n",
		t.answers[statusOfLost], t.answers[statusOfCut], t.crowded)
}

func printReports(ctx context.Context, reg *registry.Registry, start time.Time, out io.Writer) error {
	for _, print := range []func(context.Context, *registry.Registry, io.Writer) error{
		printModels, printKeys, printPools,
		func(ctx context.Context, reg *registry.Registry, out io.Writer) error {
			return printEvents(ctx, reg, start, out)
		},
		printCosts, printGraph,
	} {
		fmt.Fprintln(out)
		if err := print(ctx, reg, out); err != nil {
			return err
		}
	}
	return nil
}

// printModels prints the cheapest models that reason and take a large context, without the free ones.
func printModels(ctx context.Context, reg *registry.Registry, out io.Writer) error {
	most := 10 * money.Dollar
	models, err := reg.ListModels(ctx, registry.ModelFilter{
		CanReason: true, MinContextWindow: 400_000, MaxInputCost: &most,
		Order: registry.OrderByInputCost, Limit: registry.MaxLimit,
	})
	if err != nil {
		return err
	}
	models = slices.DeleteFunc(models, func(m *ent.Model) bool { return *m.CostPer1mInput == 0 })
	models = models[:min(12, len(models))]
	t := newTable(out, "Models that reason over 400k tokens, cheapest first",
		"provider", "model", "context", "input $/1M", "output $/1M")
	for _, m := range models {
		p, err := reg.GetProvider(ctx, m.ProviderID)
		if err != nil {
			return err
		}
		t.AppendRow(table.Row{p.Name, m.ModelID, m.ContextWindow, m.CostPer1mInput, m.CostPer1mOutput})
	}
	t.Render()
	return nil
}

func printCosts(ctx context.Context, reg *registry.Registry, out io.Writer) error {
	t := newTable(out, "Cost by model today", "model", "requests", "failed", "p50", "p95", "cost $")
	now := time.Now()
	rows, err := reg.UsageReport(ctx, registry.ReportInput{
		Start: now.Truncate(24 * time.Hour), End: now, By: []registry.Dimension{registry.ByModel},
	})
	if err != nil {
		return err
	}
	var total money.USD
	for _, row := range rows {
		t.AppendRow(table.Row{row.Model, row.Requests, row.Errors, row.P50, row.P95, row.TotalCost})
		if total, err = money.Sum(total, row.TotalCost); err != nil {
			return err
		}
	}
	t.AppendFooter(table.Row{"total", "", "", "", "", total})
	t.Render()
	return nil
}

// printGraph walks the graph from providers over families and models to usage, in Ent.
func printGraph(ctx context.Context, reg *registry.Registry, out io.Writer) error {
	used := model.HasUsage()
	providers, err := reg.Client().Provider.Query().
		Where(provider.HasModelsWith(used)).
		Order(provider.ByName()).
		WithFamilies(func(q *ent.ModelFamilyQuery) {
			q.Where(modelfamily.HasModelsWith(used)).Order(modelfamily.ByName())
			q.WithModels(func(q *ent.ModelQuery) {
				q.Where(used).Order(model.ByModelID())
				q.WithUsage(func(q *ent.UsageQuery) { q.WithKey() })
			})
		}).All(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "The graph: provider → family → model → usage by day and key")
	tree := list.NewWriter()
	tree.SetStyle(list.StyleConnectedRounded)
	for _, p := range providers {
		tree.AppendItem(p.DisplayName)
		tree.Indent()
		for _, family := range p.Edges.Families {
			tree.AppendItem(family.Name)
			tree.Indent()
			for _, m := range family.Edges.Models {
				tree.AppendItem(m.ModelID)
				tree.Indent()
				for _, period := range m.Edges.Usage {
					tree.AppendItem(fmt.Sprintf("%s  %s  %4d requests  %3d errors  %8d in  %7d out  %5.1f ms  $%s",
						period.PeriodStart.Format(time.DateOnly), period.Edges.Key.Label,
						period.RequestCount, period.ErrorCount, period.InputTokens+period.CacheReadTokens,
						period.OutputTokens+period.ReasoningTokens, period.AverageLatencyMs, text(period.TotalCost)))
				}
				tree.UnIndent()
			}
			tree.UnIndent()
		}
		tree.UnIndent()
	}
	fmt.Fprintln(out, tree.Render())
	return nil
}

// text returns a cost that may not be known.
func text(usd *money.USD) string {
	if usd == nil {
		return "?"
	}
	return usd.String()
}
