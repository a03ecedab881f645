package commit

import (
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/pool"
)

// changes are what the calls of a batch add to the ledger and the pools.
type changes struct {
	events  []ledger.Event
	late    []ledger.Event                // those of them that a fold has passed
	periods map[ledger.Period]ledger.Sums // what is added to them
	opened  []*pool.Lease                 // to be inserted
	renewed []*pool.Lease                 // to be updated
	overdue []*pool.Lease                 // to be inserted among the expired ones
	refused []uuid.UUID                   // leases whose end was refused
	did     []did
}

// did is what the pool did by itself when somebody called.
type did struct {
	actor  string
	events []pool.Event
}

// audit adds what the pool did by itself.
func (e *changes) audit(actor string, events []pool.Event) {
	if len(events) > 0 {
		e.did = append(e.did, did{actor, events})
	}
}

// addToPeriods adds an event to the four periods that it is counted in.
func (e *changes) addToPeriods(event *ledger.Event) error {
	one, quarterly := event.Sums(), event.Quarter()
	daily := quarterly.Day()
	for _, p := range []ledger.Period{quarterly, daily, quarterly.Total(), daily.Total()} {
		s := e.periods[p]
		if err := s.Merge(one); err != nil {
			return err
		}
		e.periods[p] = s
	}
	return nil
}
