package registry_test

// These operations are a part of those in operations_test.go.

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// withDimensions adds operations on dimensions to those of openOperations, with rows of their own.
func withDimensions(t *testing.T, reg *registry.Registry, operations map[string]operation) map[string]operation {
	t.Helper()
	dimensions := map[string]uuid.UUID{}
	for _, name := range []string{"kept", "updated", "retired"} {
		d, err := reg.CreateDimension(t.Context(), registry.DimensionInput{Name: name})
		require.NoError(t, err)
		dimensions[name] = d.ID
	}
	maps.Copy(operations, map[string]operation{
		"CreateDimension": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.CreateDimension(ctx, registry.DimensionInput{Name: "new"}))
		},
		"GetDimension": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.GetDimension(ctx, dimensions["kept"]))
		},
		"FindDimension": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.FindDimension(ctx, "kept"))
		},
		"ListDimensions": func(ctx context.Context, reg *registry.Registry) error {
			return openSecond(reg.ListDimensions(ctx, registry.DimensionFilter{}))
		},
		"UpdateDimension": func(ctx context.Context, reg *registry.Registry) error {
			more := registry.DimensionUpdate{MaxValues: ptr(2000)}
			return openSecond(reg.UpdateDimension(ctx, dimensions["updated"], more))
		},
		"RetireDimension": func(ctx context.Context, reg *registry.Registry) error {
			return reg.RetireDimension(ctx, dimensions["retired"])
		},
	})
	return operations
}

// dimensionLists are those of dimensions.
func dimensionLists(t *testing.T, reg *registry.Registry) map[string]aList {
	t.Helper()
	ctx := t.Context()
	return map[string]aList{
		"ListDimensions": {
			page: func(limit int, after string) ([]string, error) {
				return idsOf(reg.ListDimensions(ctx, registry.DimensionFilter{Limit: limit, After: afterID(after)}))
			},
			all: func(limit int) ([]string, error) {
				return idsOf(collect(registry.All(ctx, reg.ListDimensions, registry.DimensionFilter{Limit: limit})))
			},
			more: func(n int) {
				_, err := reg.CreateDimension(ctx, registry.DimensionInput{Name: fmt.Sprint("d", n)})
				require.NoError(t, err)
			},
		},
	}
}

// auditedDimensions are operations on dimensions.
func auditedDimensions(t *testing.T, reg *registry.Registry) map[string]auditTest {
	t.Helper()
	ctx := t.Context()
	create := func(name string) uuid.UUID {
		return must(reg.CreateDimension(ctx, registry.DimensionInput{Name: name})).ID
	}
	return map[string]auditTest{
		"CreateDimension and UpdateDimension": {call: func(thing) error {
			return second(reg.UpdateDimension(ctx, create("one"), registry.DimensionUpdate{MaxValues: ptr(2000)}))
		}, want: []string{"create dimension", "update dimension"}},
		"RetireDimension": {call: func(thing) error {
			id := create("two")
			return cmp.Or(reg.RetireDimension(ctx, id), reg.RetireDimension(ctx, id))
		}, want: []string{"create dimension", "update dimension"}},
	}
}
