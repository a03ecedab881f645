package proof_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/internal/proof"
)

// TestDays damages the days of a consumer. Events and quarters are there, so that all can be mended.
func TestDays(t *testing.T) {
	t.Parallel()
	d := newValued(t)
	for statement, want := range map[string][]string{
		"UPDATE consumer_days SET cost = cost + 1, unpriced_requests = 1": {
			"wrong sum consumer_days cost", "wrong sum consumer_days unpriced_requests",
		},
		"UPDATE consumer_days SET tokens = 1.5": {"unreadable row consumer_days "},
		"DELETE FROM consumer_days": {
			"wrong sum consumer_days cost", "wrong sum consumer_days requests", "wrong sum consumer_days tokens",
		},
		"UPDATE consumer_days SET day = '2000-01-01 00:00:00+00:00'": {
			"wrong sum consumer_days cost", "wrong sum consumer_days requests", "wrong sum consumer_days tokens",
		},
	} {
		d.exec(statement)
		require.Equal(t, want, d.find(), statement)
		require.Empty(t, d.mend(), statement)
		require.Empty(t, d.find(), statement)
		require.Equal(t, 1, d.client.ConsumerDay.Query().CountX(t.Context()), statement)
	}
}

// TestDaysUnproven leaves the day of a consumer as it is where the rows by consumer lack something for good.
func TestDaysUnproven(t *testing.T) {
	t.Parallel()
	d := newValued(t)
	d.exec("DELETE FROM usage_events")
	d.exec("INSERT INTO usage_horizons (part, complete_from) VALUES ('events', '2100-01-01 00:00:00+00:00')," +
		" ('quarters', '2100-01-01 00:00:00+00:00')")
	d.exec("DELETE FROM usage_by_value WHERE value_id IN (SELECT id FROM consumers)")
	have := d.client.ConsumerDay.Query().OnlyX(t.Context()).Requests
	require.Contains(t, d.find(), "wrong sum consumer_days requests")
	left := d.mend()
	require.NotEmpty(t, left)
	require.Equal(t, proof.WrongValues, left[0].Kind)
	require.Equal(t, have, d.client.ConsumerDay.Query().OnlyX(t.Context()).Requests)
}
