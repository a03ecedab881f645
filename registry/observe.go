package registry

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/upstream"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
)

// ObserveHeaders learns a provider's own limits, and what is left of them, from the headers of its answer:
// x-ratelimit-*, ratelimit-*, anthropic-ratelimit-* and Retry-After. If nothing is left for a key, AcquireKey passes
// over it until the time at which the provider resets the limit. [KeyVerdict] shows what was learned. Keys of a quota
// group share it.
//
// [Lease.ObserveHeaders] does the same in the transaction that ends the lease.
//
// Headers that say nothing, or cannot be read, change nothing. It returns [ErrNotFound] if there is no such key.
func (r *Registry) ObserveHeaders(ctx context.Context, keyID uuid.UUID, header http.Header) error {
	op := fmt.Sprintf("observe headers of key %s", keyID)
	now := r.now()
	said := r.quotasOf(header, now)
	if len(said) == 0 {
		return nil
	}
	e := &commit.End{Key: keyID, Said: said, Outcome: commit.Observed}
	return translate(ctx, op, r.commit(ctx, commit.Call{Now: now, Actor: r.actor, End: e}))
}

// limitsSaid reads the provider's limits from headers, except Retry-After.
func (r *Registry) limitsSaid(header http.Header, now time.Time) []upstream.Quota {
	said := upstream.Quotas(header, now)
	for i := range said {
		said[i].Reset = utc.Min(said[i].Reset, now.Add(r.mostRetryAfter)) // zero stays zero
	}
	return said
}

// quotasOf reads the provider's limits from headers. Retry-After counts as a limit of requests with nothing left.
func (r *Registry) quotasOf(header http.Header, now time.Time) []upstream.Quota {
	said := r.limitsSaid(header, now)
	until, ok := upstream.RetryAfter(header, now)
	until = utc.Min(until, now.Add(r.mostRetryAfter))
	if !ok || !until.After(now) {
		return said
	}
	i := slices.IndexFunc(said, func(q upstream.Quota) bool { return q.Meter == upstream.Requests })
	if i < 0 {
		return append(said, upstream.Quota{Meter: upstream.Requests, Limit: -1, Remaining: 0, Reset: until})
	}
	if said[i].Remaining == 0 {
		until = utc.Max(until, said[i].Reset)
	}
	said[i].Remaining, said[i].Reset = 0, until
	return said
}
