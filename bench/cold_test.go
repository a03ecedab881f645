package bench_test

import (
	"flag"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/registry"
)

var chill = flag.String(
	"chill", "", "shell command that restarts the server of the kept year, and has the system forget its files",
)

// BenchmarkCold asks for a model's usage of a month, and of a year, from cold pages of the kept year: each question is
// the first one after -chill. It logs the median and the longest.
//
//	go test -run '^$' -bench Cold -benchtime 1x -engine postgres -requests 1000000 -kept postgres://... \
//		-chill 'pg_ctl restart ...'
func BenchmarkCold(b *testing.B) {
	if *yearKept == "" || *chill == "" {
		b.Skip("-kept and -chill are needed")
	}
	d, until := year(b)
	for _, question := range []struct {
		name string
		from time.Time
	}{{"stats/month", until.AddDate(0, -7, 0)}, {"stats/year", until.AddDate(-1, 0, 0)}} {
		b.Run(question.name, func(b *testing.B) {
			const asked = 15
			var took []time.Duration
			for i := range asked {
				//nolint:gosec // the caller's own command
				out, err := exec.CommandContext(b.Context(), "sh", "-c", *chill).CombinedOutput()
				require.NoError(b, err, string(out))
				reg, err := registry.Open(b.Context(), d.name)
				require.NoError(b, err)
				model := d.models[i*7%len(d.models)]
				end := until
				if question.name == "stats/month" {
					end = question.from.AddDate(0, 1, 0)
				}
				// Nothing was used then: this warms the connection and its plans alone.
				_, err = reg.GetUsageStats(b.Context(), model, until.AddDate(1, 0, 0), until.AddDate(2, 0, 0))
				require.NoError(b, err)
				began := time.Now()
				stats, err := reg.GetUsageStats(b.Context(), model, question.from, end)
				took = append(took, time.Since(began))
				require.NoError(b, err)
				require.NotZero(b, stats.Requests)
				require.NoError(b, reg.Close())
			}
			slices.Sort(took)
			b.ReportMetric(took[asked/2].Seconds()*1000, "median-ms")
			b.ReportMetric(took[asked-1].Seconds()*1000, "longest-ms")
		})
	}
}
