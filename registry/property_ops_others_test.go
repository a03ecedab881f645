package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/ent/sdkversion"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// otherOperations are those of discoveries, SDK versions and settings.
var otherOperations = map[string]func(inputs) op{
	"CreateDiscoveryLog": func(in inputs) op {
		d := registry.DiscoveryInput{Identifier: in.name(), Source: in.text(), LLMModel: in.text(),
			CacheHit: in.bool("cache hit")}
		if in.bool("of a provider") {
			d.ProviderID = in.provider()
		}
		return op1((*reg).CreateDiscoveryLog, (*world).createDiscoveryLog, d)
	},
	"UpdateDiscoveryResult": func(in inputs) op {
		found := results[draw(in.T, "result", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)]
		status := draw[discoverylog.Status](in.T, "status", "success", "success", "failed", "failed", "pending",
			"unknown")
		return op1(func(r *reg, ctx context.Context, id uuid.UUID) (*ent.DiscoveryLog, error) {
			return r.UpdateDiscoveryResult(ctx, id, found.data, status)
		}, func(w *world, id uuid.UUID) (*ent.DiscoveryLog, error) {
			return w.updateDiscoveryResult(id, found, status)
		}, in.log())
	},
	"GetRecentDiscoveries": func(in inputs) op {
		return op1(func(r *reg, ctx context.Context, limit int) ([]*ent.DiscoveryLog, error) {
			return r.GetRecentDiscoveries(ctx, registry.DiscoveryFilter{Limit: limit})
		}, (*world).getRecentDiscoveries, draw(in.T, "limit", 0, 1, 2, 1000, -1, 1001))
	},
	"CreateSDKVersion": func(in inputs) op {
		return op1((*reg).CreateSDKVersion, (*world).createSDKVersion, registry.SDKVersionInput{
			ProviderID: in.provider(), Version: in.name(), SDKPath: in.text(), GeneratedAt: in.time(),
			TestResults: in.prose(),
			CompilationStatus: draw[sdkversion.CompilationStatus](in.T, "status", "", "success", "success", "success",
				"failed", "failed", "pending", "unknown"),
			CodeHash: draw(in.T, "hash", "", "", hashOf("x"), hashOf("x"), hashOf("y"), hashOf("y"),
				strings.ToUpper(hashOf("x")), "f00"),
		})
	},
	"ListSDKVersions": func(in inputs) op {
		return op1(func(r *reg, ctx context.Context, id uuid.UUID) ([]*ent.SDKVersion, error) {
			return r.ListSDKVersions(ctx, registry.SDKVersionFilter{ProviderID: id, Limit: registry.MaxLimit})
		}, (*world).listSDKVersions, in.provider())
	},
	"LatestSDKVersion": func(in inputs) op {
		return op1((*reg).LatestSDKVersion, (*world).latestSDKVersion, in.provider())
	},
	"GetSetting": func(in inputs) op { return op1((*reg).GetSetting, (*world).getSetting, in.lookup()) },
	"SetSetting": func(in inputs) op {
		return do2((*reg).SetSetting, (*world).setSetting, in.name(),
			in.prose())
	},
	"DeleteSetting": func(in inputs) op { return do1((*reg).DeleteSetting, (*world).deleteSetting, in.lookup()) },
	"ListSettings": func(inputs) op {
		return op0(func(r *reg, ctx context.Context) ([]*ent.Setting, error) {
			return r.ListSettings(ctx, registry.SettingFilter{Limit: registry.MaxLimit})
		}, (*world).listSettings)
	},
}

// results of discoveries.
var results = []result{
	{},
	{data: map[string]any{"b": 1, "a": []int{1, 2}}, json: `{"a":[1,2],"b":1}`},
	{data: []byte(`{"z": 1.50, "a": "\u0000", "a": 1e400}`), json: `{"z":1.50,"a":"\u0000","a":1e400}`},
	{data: "text <é>", json: `"text \u003cé\u003e"`},
	{data: json.RawMessage("null"), json: "null"},
	{data: 7, json: "7"},
	{data: errors.New("not\x00 found\u202e:\n\xff"), message: "not found:\n\ufffd"},
	{data: errors.New(strings.Repeat("é", 5000)), message: strings.Repeat("é", 4096)},
	{data: []byte("{"), invalid: true},
	{data: math.NaN(), invalid: true},
}
