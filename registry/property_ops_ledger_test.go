package registry_test

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// ledgerOperations are those of what was used.
var ledgerOperations = map[string]func(inputs) op{
	"RecordUsage": func(in inputs) op { return do1((*reg).RecordUsage, (*world).recordUsage, in.usage()) },
	"GetUsageStats": func(in inputs) op {
		start, end := in.span()
		return op3((*reg).GetUsageStats, (*world).getUsageStats, in.model(), start, end)
	},
	"GetCostBreakdown": func(in inputs) op {
		return op1((*reg).GetCostBreakdown, (*world).getCostBreakdown, in.provider())
	},
	"UsageReport": func(in inputs) op {
		r := registry.ReportInput{
			Step: draw(in.T, "step", "", registry.StepQuarter, registry.StepDay, registry.StepDay),
			By: draw(in.T, "by", nil, []registry.Dimension{registry.ByKey}, []registry.Dimension{registry.ByModel},
				[]registry.Dimension{registry.ByProvider, registry.ByModel, registry.ByKey}),
		}
		r.Start, r.End = in.span()
		if in.bool("of a provider") {
			r.ProviderID = in.provider()
		}
		return op1((*reg).UsageReport, (*world).usageReport, r)
	},
	"ListUsageEvents": func(in inputs) op {
		f := registry.EventFilter{Failed: in.rarely("failed"), Unpriced: in.rarely("unpriced"),
			Limit: registry.MaxLimit}
		if in.bool("of a model") {
			f.ModelID = in.model()
		}
		if in.bool("of a key") {
			f.APIKeyID = in.key()
		}
		if in.bool("of a time") {
			f.Start, f.End = in.span()
		}
		return op1(func(r *reg, ctx context.Context, f registry.EventFilter) ([]*ent.UsageEvent, error) {
			all, err := r.ListUsageEvents(ctx, f)
			for i, e := range all {
				if i > 0 && e.At.After(all[i-1].At) {
					return nil, errOrder
				}
			}
			for _, e := range all {
				withoutID(e)
			}
			slices.SortFunc(all, compareEvents)
			return all, err
		}, (*world).listUsageEvents, f)
	},
	"Prune": func(in inputs) op {
		const day = 24 * time.Hour
		keep := registry.PruneInput{
			Events: draw(in.T, "events", 0, day, 2*day, 7*day), Discoveries: draw(in.T, "discoveries", 0, 0, day,
				30*day),
			Quarters: draw(in.T, "quarters", 0, 0, day, 7*day, 8*day),
		}
		if in.rarely("bad retention") {
			keep.Events = day - 1
		}
		return op1((*reg).Prune, (*world).prune, keep)
	},
}

// errOrder is for events that are not in the order of time.
var errOrder = errors.New("an older event comes first")

// span draws a range of time, rarely one that ends before it starts.
func (in inputs) span() (start, end time.Time) {
	start, end = in.time(), in.time()
	if end.Before(start) && !in.rarely("wrong order") {
		start, end = end, start
	}
	return start, end
}
