package registry_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestDegradeKeyForAnyReason: the key is out, however awkward the text is.
func TestDegradeKeyForAnyReason(t *testing.T) { eachEngine(t, testDegradeKeyForAnyReason) }

func testDegradeKeyForAnyReason(t *testing.T, e engine) {
	long := strings.Repeat("é", 1024)
	for name, c := range map[string]struct{ reason, stored string }{
		"too long":      {long + "é", long},
		"colours":       {"\x1b[31m429\x1b[0m", "[31m429[0m"},
		"invalid UTF-8": {"429 \xff\xfe slow down", "429 \ufffd slow down"},
		"invisible":     {"slow\u202e down\x00", "slow down"},
		"lines":         {"429\r\n\tslow down", "429\n\tslow down"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := e.newPoolTest(t, make([]registry.KeyInput, 1),
				registry.WithClassifier(func(registry.Failure, time.Time) registry.Diagnosis {
					return registry.Diagnosis{Class: registry.FailureAuth, Reason: c.reason}
				}))
			require.NoError(t, p.DegradeKey(t.Context(), p.keys[0].ID, c.reason, time.Minute))
			v := p.refused(t, p.want(1)).Keys[0]
			require.Equal(t, []any{registry.KeyDegraded, c.stored}, []any{v.Reason, v.Detail})
			p.clock.Advance(time.Minute)
			made, err := p.acquire(t, 1).Fail(t.Context(), registry.Failure{Status: 500})
			require.NoError(t, err)
			require.Equal(t, c.stored, made.Reason)
			v = p.refused(t, p.want(1)).Keys[0]
			require.Equal(t, registry.KeyDegraded, v.Reason)
			require.True(t, strings.HasPrefix("auth: "+c.stored, v.Detail), v.Detail)
		})
	}
}

func TestDegradeKey(t *testing.T) { eachEngine(t, testDegradeKey) }

func testDegradeKey(t *testing.T, e engine) {
	t.Parallel()
	reg, clock := e.setup(t)
	p := mustProvider(t, reg, "openai")
	k := mustKey(t, reg, p.ID, 1)
	find := func() (degraded bool, until time.Time, reason string) {
		t.Helper()
		got, err := reg.FindAPIKey(t.Context(), p.ID, secret(1))
		require.NoError(t, err)
		if got.DegradedUntil != nil {
			until = *got.DegradedUntil
		}
		return got.Degraded, until, got.DegradedReason
	}
	require.NoError(t, reg.DegradeKey(t.Context(), k.ID, "429", time.Hour))
	degraded, until, reason := find()
	require.True(t, degraded)
	require.Equal(t, clock.Now().Add(time.Hour), until)
	require.Equal(t, "429", reason)

	require.NoError(t, reg.DegradeKey(t.Context(), k.ID, "again", time.Minute))
	_, later, reason := find()
	require.Equal(t, until, later, "the end never moves back")
	require.Equal(t, "429", reason, "and the reason is that of the end")

	require.NoError(t, reg.RestoreKey(t.Context(), k.ID))
	degraded, until, reason = find()
	require.False(t, degraded)
	require.Zero(t, until)
	require.Empty(t, reason)

	require.ErrorIs(t, reg.DegradeKey(t.Context(), k.ID, "r", 0), registry.ErrInvalidData)
	require.ErrorIs(t, reg.DegradeKey(t.Context(), k.ID, "r", -time.Second), registry.ErrInvalidData)
	require.ErrorIs(t, reg.DegradeKey(t.Context(), uuid.New(), "r", time.Second), registry.ErrNotFound)
	require.ErrorIs(t, reg.RestoreKey(t.Context(), uuid.New()), registry.ErrNotFound)
}
