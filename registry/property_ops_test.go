package registry_test

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// op is an operation with its inputs, which have the world's ids.
type op struct {
	input   string
	onSide  func(context.Context, *side) (any, error)
	onWorld func(*world) (any, error)
	fails   func() uuid.UUID // the key of a lease whose call fails; nil: of none
}

type reg = registry.Registry

// op1 is an operation of one input that returns something; op0 to op3 and do1 to do3 are of more or
// fewer, and of those that return an error alone.
func op1[A, R any](call func(*reg, context.Context, A) (R, error), model func(*world, A) (R, error), a A) op {
	return op{
		input:   fmt.Sprintf("%+v", a),
		onSide:  func(ctx context.Context, s *side) (any, error) { return call(s.reg, ctx, own(s, a)) },
		onWorld: func(w *world) (any, error) { return model(w, a) },
	}
}

func op0[R any](call func(*reg, context.Context) (R, error), model func(*world) (R, error)) op {
	return op1(func(r *reg, ctx context.Context, _ struct{}) (R, error) { return call(r, ctx) },
		func(w *world, _ struct{}) (R, error) { return model(w) }, struct{}{})
}

func op2[A, B, R any](
	call func(*reg, context.Context, A, B) (R, error), model func(*world, A, B) (R, error), a A, b B,
) op {
	return op{
		input:   fmt.Sprintf("%+v %+v", a, b),
		onSide:  func(ctx context.Context, s *side) (any, error) { return call(s.reg, ctx, own(s, a), own(s, b)) },
		onWorld: func(w *world) (any, error) { return model(w, a, b) },
	}
}

func op3[A, B, C, R any](
	call func(*reg, context.Context, A, B, C) (R, error), model func(*world, A, B, C) (R, error), a A, b B, c C,
) op {
	return op{
		input: fmt.Sprintf("%+v %+v %+v", a, b, c),
		onSide: func(ctx context.Context, s *side) (any, error) {
			return call(s.reg, ctx, own(s, a), own(s, b), own(s, c))
		},
		onWorld: func(w *world) (any, error) { return model(w, a, b, c) },
	}
}

func do1[A any](call func(*reg, context.Context, A) error, model func(*world, A) error, a A) op {
	return op1(func(r *reg, ctx context.Context, a A) (bool, error) { return true, call(r, ctx, a) },
		func(w *world, a A) (bool, error) { return true, model(w, a) }, a)
}

func do2[A, B any](call func(*reg, context.Context, A, B) error, model func(*world, A, B) error, a A, b B) op {
	return op2(func(r *reg, ctx context.Context, a A, b B) (bool, error) { return true, call(r, ctx, a, b) },
		func(w *world, a A, b B) (bool, error) { return true, model(w, a, b) }, a, b)
}

func do3[A, B, C any](
	call func(*reg, context.Context, A, B, C) error, model func(*world, A, B, C) error, a A, b B, c C,
) op {
	return op3(func(r *reg, ctx context.Context, a A, b B, c C) (bool, error) { return true, call(r, ctx, a, b, c) },
		func(w *world, a A, b B, c C) (bool, error) { return true, model(w, a, b, c) }, a, b, c)
}

// poolActions are what a step can be, each as often as it is to be drawn; ledgerActions are those without leases.
var poolActions, ledgerActions = func() (pool, ledger []string) {
	often := map[string]int{
		"clock": 5, "InTx": 6, "RecordUsage": 8, "UpdateModelPricing": 4, "CreateProvider": 2, "CreateFamily": 2,
		"CreateModel": 4, "AddAPIKey": 3, "DegradeKey": 2, "GetUsageStats": 4, "GetLeastUsedKey": 2,
		"IncrementUsage": 2, "ListModels": 3, "SetSetting": 2, "AcquireKey": 24, "Settle": 14, "Fail": 14, "Release": 4,
		"Renew": 8, "GetLease": 1, "ExplainKeys": 4, "Prune": 2, "UsageReport": 3, "ListUsageEvents": 3,
	}
	leases := []string{"AcquireKey", "Settle", "Fail", "Release", "Renew", "GetLease", "ExplainKeys"}
	names := slices.Concat(slices.Collect(maps.Keys(operations)), []string{"clock", "InTx"})
	slices.Sort(names)
	for _, name := range names {
		each := slices.Repeat([]string{name}, max(1, often[name]))
		pool = append(pool, each...)
		if !slices.Contains(leases, name) {
			ledger = append(ledger, each...)
		}
	}
	return pool, ledger
}()

// operations are all of them, with inputs that fit the world and some that do not.
var operations = func() map[string]func(inputs) op {
	all := map[string]func(inputs) op{}
	for _, some := range []map[string]func(inputs) op{
		catalogueOperations, keyOperations, leaseOperations, ledgerOperations, otherOperations,
	} {
		maps.Copy(all, some)
	}
	return all
}()
