package ledger

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/money"
)

// TestPrint: a fingerprint changes with the contents of a request alone, and never with a version of this program.
func TestPrint(t *testing.T) {
	t.Parallel()
	one := func(change func(*Event)) int64 {
		e := Event{
			ID: NewEventID(noon), Model: model, Key: key, Price: price, RequestID: "r", At: noon, Success: true,
			Tokens: [5]int64{1, 2, 3, 4, 5}, Latency: 7, Status: usageevent.UsageStatusReported, HTTPStatus: 200,
		}
		change(&e)
		return e.Print()
	}
	same := one(func(*Event) {})
	require.EqualValues(t, -4996530284772809393, same, "it is stored")
	for name, change := range map[string]func(*Event){
		"id": func(e *Event) { e.ID = model }, "key": func(e *Event) { e.Key = model },
		"at":          func(e *Event) { e.At = noon.Add(time.Hour) },
		"latency":     func(e *Event) { e.Latency++ },
		"first token": func(e *Event) { e.FirstToken = new(int64(1)) },
		"attempt":     func(e *Event) { e.AttemptGroup, e.Attempt = "g", 2 },
		"source":      func(e *Event) { e.ProviderCostSource = "x" },
		"access key":  func(e *Event) { e.AccessKey = &key },
	} {
		require.Equal(t, same, one(change), name)
	}
	seen := map[int64]bool{same: true}
	for name, change := range map[string]func(*Event){
		"model": func(e *Event) { e.Model = key }, "tokens": func(e *Event) { e.Tokens[4]++ },
		"other tokens": func(e *Event) { e.Tokens[0], e.Tokens[1] = 2, 1 },
		"success":      func(e *Event) { e.Success = false },
		"class":        func(e *Event) { e.Success, e.ErrorClass = false, "server" },
		"status":       func(e *Event) { e.HTTPStatus = 201 },
		"usage":        func(e *Event) { e.Status = usageevent.UsageStatusEstimated },
		"free":         func(e *Event) { e.ProviderCost = new(money.USD(0)) },
		"cost":         func(e *Event) { e.ProviderCost = new(money.USD(1)) },
		"consumer":     func(e *Event) { e.Consumer = &key },
	} {
		changed := one(change)
		require.False(t, seen[changed], name)
		seen[changed] = true
	}
}
