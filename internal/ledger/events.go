package ledger

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
)

// EventTime returns the time that an event's id begins with.
func EventTime(id uuid.UUID) time.Time {
	bits := binary.BigEndian.Uint64(id[:])
	return time.UnixMicro(int64(bits>>16)*1000 + int64(bits&0xfff)).UTC() //nolint:gosec // 48 bits
}

// NewEventID returns a UUIDv7 of a request at an instant: its first 48 bits are the milliseconds and the 12 bits
// after its version the microseconds within them, so that ids are in the order of time; the rest is random.
func NewEventID(at time.Time) uuid.UUID {
	id := FirstEventID(at)
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()>>2|1<<63) //nolint:gosec // it is no secret
	return id
}

// FirstEventID returns the least id of a request at an instant, or after it.
func FirstEventID(at time.Time) (id uuid.UUID) {
	micros := at.UnixMicro()
	binary.BigEndian.PutUint64(id[:], uint64(micros/1000)<<16|7<<12|uint64(micros%1000)) //nolint:gosec // from 1970 on
	return id
}
