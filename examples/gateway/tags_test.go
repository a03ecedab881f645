package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

// TestTags: the tags of a request are recorded with it.
func TestTags(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	require.NoError(t, f.setUpDimensions(t.Context()))
	require.Equal(t, http.StatusOK, f.tagged(t, "feature=summary, customer=initech,").Code)
	events := f.events(t)
	require.Len(t, events, 1)
	require.Equal(t, registry.Tags{"feature": {"summary"}, "customer": {"initech"}}, events[0].Tags)
}

// TestBadTags: a request whose tags cannot be read, or are not those that are known, is not made.
func TestBadTags(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	require.NoError(t, f.setUpDimensions(t.Context()))
	for header, message := range map[string]string{
		"summary":                         "not a name and a value",
		"planet=mars":                     "planet",
		"feature=":                        "feature",
		"feature=summary, feature=search": "feature",
	} {
		refused := f.tagged(t, header)
		require.Equal(t, http.StatusBadRequest, refused.Code, header)
		require.Contains(t, refused.Body.String(), message)
	}
	require.Empty(t, f.provider.counted().answers)
	require.Empty(t, f.events(t))
	require.Zero(t, f.reg.Client().KeyLease.Query().CountX(t.Context()))
}

// tagged makes a call with a header of tags.
func (f *fixture) tagged(t *testing.T, header string) *httptest.ResponseRecorder {
	t.Helper()
	call := f.newCall(t.Context(), "/", hello)
	call.Header.Set(tagsHeader, header)
	answer := httptest.NewRecorder()
	f.ServeHTTP(answer, call)
	return answer
}
