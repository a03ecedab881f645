package registry_test

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

func (in inputs) quantity(label string) int64 {
	if in.rarely("odd " + label) {
		return draw[int64](in.T, label, -1, 1_000_000_000_001, math.MaxInt64, 1_000_000_000_000, 9_000_000_000)
	}
	return draw[int64](in.T, label, 0, 0, 1, 3, 5, 99, 100, 150, 199_999, 200_000, 1_234_567)
}

// time returns a time around now, rarely one far away; in any zone.
func (in inputs) time() time.Time {
	if in.rarely("far time") {
		return draw(in.T, "time", firstTime, firstTime.Add(-time.Microsecond), lastTime, lastTime.Add(time.Hour),
			time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC))
	}
	zone := draw(in.T, "zone", time.UTC, time.FixedZone("", 19800), time.FixedZone("", -28800))
	if in.bool("zero time") {
		return time.Time{}
	}
	return in.world.now.In(zone).Add(draw(in.T, "offset", 0, time.Nanosecond, -time.Nanosecond, -time.Microsecond,
		-time.Minute, -14*time.Minute, -time.Hour, -13*time.Hour, -24*time.Hour, -100*time.Hour, -40*24*time.Hour,
		20*time.Minute, time.Hour, time.Hour+time.Microsecond, 30*time.Hour))
}

func (in inputs) usage() registry.UsageInput {
	u := registry.UsageInput{
		ModelID: in.model(), At: in.time(), Failed: in.bool("failed"), ServiceTier: in.tier(),
		Tokens: meter.Tokens{InputTokens: in.quantity("input"), OutputTokens: in.quantity("output")},
		Latency: draw(in.T, "latency", 0, 999*time.Microsecond, 7*time.Millisecond, 1234567*time.Microsecond,
			7*24*time.Hour),
	}
	if in.bool("named") {
		u.RequestID = draw(in.T, "request id", "a", "b", "c", "d", "e", "f", "a\x00", strings.Repeat("x", 129))
	}
	if u.Failed && in.bool("said how") {
		u.ErrorClass = draw(in.T, "error class", "", "rate_limited", "server", "a\x00")
		u.HTTPStatus = draw(in.T, "status", 0, 429, 500, 99, 600)
	}
	in.addFacts(&u)
	if in.rarely("bad latency") {
		u.Latency = draw(in.T, "latency", -1, 7*24*time.Hour+1)
	}
	if in.bool("other meters") {
		u.CacheReadTokens, u.CacheWriteTokens = in.quantity("cache read"), in.quantity("cache write")
		u.ReasoningTokens = in.quantity("reasoning")
	}
	var keys []uuid.UUID
	of := first(in.world.models, func(m *ent.Model) bool { return m.ID == u.ModelID })
	for _, k := range in.world.keys {
		if of != nil && k.ProviderID == of.ProviderID {
			keys = append(keys, k.ID)
		}
	}
	if u.APIKeyID = in.id("key", keys); in.rarely("any key") {
		u.APIKeyID = in.key()
	}
	named := where(in.world.events, func(e *ent.UsageEvent) bool { return len(e.RequestID) == 1 }) // not after a lease
	if len(named) > 0 && in.bool("a request that there is") {
		e := draw(in.T, "event", named...)
		u.RequestID, u.ModelID, u.Failed, u.ErrorClass, u.HTTPStatus = e.RequestID, e.ModelID, !e.Success, e.ErrorClass,
			e.HTTPStatus
		u.Usage, u.ProviderCost, u.ProviderCostSource = registry.UsageStatus(e.UsageStatus), e.ProviderCost, ""
		u.Tokens = meter.Tokens{
			InputTokens: e.InputTokens, OutputTokens: e.OutputTokens, CacheReadTokens: e.CacheReadTokens,
			CacheWriteTokens: e.CacheWriteTokens, ReasoningTokens: e.ReasoningTokens,
		}
		return u
	}
	if len(in.world.usage) > 0 && in.bool("in a period that there is") {
		period := draw(in.T, "period", slices.Concat(in.world.quarters, in.world.usage)...)
		u.ModelID, u.APIKeyID, u.At = period.ModelID, period.APIKeyID, period.PeriodStart.Add(time.Minute)
	}
	return u
}

// addFacts adds what a request says of itself beside what it used.
func (in inputs) addFacts(u *registry.UsageInput) {
	if u.Usage = draw(in.T, "usage", "", "", registry.UsageReported, registry.UsageEstimated,
		registry.UsageUnknown); u.Usage == registry.UsageUnknown && !in.rarely("unknown, with tokens") {
		u.Tokens = meter.Tokens{}
	}
	if in.bool("first token") {
		u.TimeToFirstToken = draw(in.T, "time to first token", time.Microsecond, 7*time.Millisecond, time.Second,
			7*24*time.Hour)
	}
	if in.bool("attempt") {
		u.AttemptGroup = draw(in.T, "attempt group", "", "g", "h", "a\x00")
		u.Attempt = draw(in.T, "attempt", 0, 1, 2, 3, -1)
	}
	if in.bool("provider cost") {
		u.ProviderCost = new(draw[money.USD](in.T, "provider cost", 0, 1, 500_000, -1))
		u.ProviderCostSource = draw(in.T, "provider cost source", "", "bill", strings.Repeat("x", 65))
	}
	if in.rarely("bad usage") {
		u.Usage = "guessed"
	}
}

func (in inputs) filter() registry.ModelFilter {
	f := registry.ModelFilter{
		Order: draw(in.T, "order", registry.OrderByModelID, registry.OrderByInputCost, registry.OrderByOutputCost,
			registry.OrderByContextWindow),
		Limit:          draw(in.T, "limit", 0, 0, 1, 2, 1000),
		WithDeprecated: in.bool("deprecated"),
		Deleted:        in.rarely("deleted"),
	}
	if in.bool("not the first page") {
		f.After = in.model()
	}
	if in.bool("by flags") {
		for _, flag := range []*bool{
			&f.SupportsImages, &f.SupportsAudio, &f.SupportsTools, &f.SupportsStructuredOutput,
			&f.CanReason, &f.CanStream,
		} {
			*flag = in.rarely("flag")
		}
		f.MinContextWindow = draw[int64](in.T, "min window", 0, 4096, 4097)
	}
	if in.bool("search") {
		f.Search = draw(in.T, "text", "g", "GPT", "t-4", "_", ".", "%", `\`, "é", "ß", "💡", "", " ", "a b", "K", "É")
	}
	if in.bool("by owner") {
		f.ProviderID = in.provider()
		if in.bool("by family") {
			f.FamilyID = in.family(f.ProviderID)
		}
	}
	if in.bool("by cost") {
		f.MaxInputCost = maybe(in, "max input cost",
			draw[money.USD](in.T, "max input cost", -1, 0, 3, 500_000, 30_000_000_000))
		f.MaxOutputCost = maybe(in, "max output cost",
			draw[money.USD](in.T, "max output cost", -1, 0, 3, 500_000, 30_000_000_000))
	}
	if in.rarely("bad filter") {
		return draw(in.T, "filter", registry.ModelFilter{Search: "a\x00b"}, registry.ModelFilter{MinContextWindow: -1},
			registry.ModelFilter{Order: 4}, registry.ModelFilter{Limit: 1001}, registry.ModelFilter{Limit: -1})
	}
	return f
}
