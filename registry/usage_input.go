package registry

import (
	"cmp"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent/schema"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/dimension"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/latency"
	"github.com/jeffersonwarrior/modelscan/internal/ledger"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
	"github.com/jeffersonwarrior/modelscan/internal/utc"
	"github.com/jeffersonwarrior/modelscan/meter"
	"github.com/jeffersonwarrior/modelscan/money"
)

const (
	maxLatency    = latency.Max * time.Millisecond // of one request: a week
	maxRequestID  = 128                            // characters
	maxErrorClass = 64                             // characters
	maxAhead      = time.Hour                      // how far ahead a request's time may be, for skewed clocks

	maxAttemptGroup = 128 // characters
	maxAttempt      = 1_000_000
	maxSource       = 64 // characters

	// maxTagged is how many dimensions a request may have tags of, and how many tags of each.
	maxTagged = 16
	maxTag    = 256 // characters
	maxTagSet = 512 // characters of the tags of a dimension together, as JSON
)

// StandardTier is the service tier in which every model has a price.
const StandardTier = ledger.StandardTier

// UsageInput describes one request to a model.
type UsageInput struct {
	ModelID  uuid.UUID // the model's id, live or deleted
	APIKeyID uuid.UUID // the id of a key of the model's provider, live or deleted

	// ConsumerID is the consumer that it was for, live or deleted, and AccessKeyID the access key by which it was made;
	// zero: nobody. Without a consumer it is the access key's. Nobody is refused: what was spent is counted.
	ConsumerID  uuid.UUID
	AccessKeyID uuid.UUID

	// RequestID is the caller's name for the request, up to 128 characters. A request that is recorded again under the
	// same id is not counted again, as long as its event is kept; another request under it is refused. Empty: each call
	// is a new request.
	RequestID string

	meter.Tokens // what it used; no token is in two meters

	At          time.Time     // when it began, from 1970 to an hour ahead. Defaults to now; in a lease, to AcquiredAt
	Latency     time.Duration // up to a week, stored in whole milliseconds
	Failed      bool          // it ended with an error
	ErrorClass  string        // the kind of error if it failed, such as rate_limited, up to 64 characters
	HTTPStatus  int           // status of the provider's answer, 100 to 599; 0: no answer, or unknown
	ServiceTier string        // the tier that served it, up to 64 characters. Defaults to StandardTier

	// Usage says who counted the tokens. It defaults to UsageReported; but to UsageUnknown without tokens for a request
	// that failed after a status of 2xx: its answer broke off.
	Usage UsageStatus

	TimeToFirstToken time.Duration // up to Latency if that is given, stored in whole milliseconds; 0: unknown
	// AttemptGroup is the caller's name for the user's request that this is an attempt of, up to 128 characters.
	AttemptGroup string
	Attempt      int // number of the attempt, from 1 to a million; from 2 on it is a retry. 0: unknown

	// Tags are what usage is summed by beside models and keys: see CreateDimension. A tag has 1 to 256 characters.
	Tags Tags

	ProviderCost       *money.USD // what the provider says it cost; nil: it does not say. It changes no cost
	ProviderCostSource string     // where it says so, such as "usage.cost" or a bill, up to 64 characters
}

// UsageStatus says who counted the tokens of a request.
type UsageStatus string

// The statuses.
const (
	UsageReported  UsageStatus = "reported"  // the provider
	UsageEstimated UsageStatus = "estimated" // somebody else
	// UsageUnknown: nobody, as in a stream that broke off before its usage. The request has no tokens, and its cost is
	// unknown instead of nothing.
	UsageUnknown UsageStatus = "unknown"
)

func (in UsageInput) withDefaults(now time.Time) UsageInput {
	if in.At.IsZero() {
		in.At = now
	}
	in.At = utc.Of(in.At)
	in.ServiceTier = cmp.Or(in.ServiceTier, StandardTier)
	if in.Usage == "" && in.Failed && in.HTTPStatus/100 == 2 && in.Tokens == (meter.Tokens{}) {
		in.Usage = UsageUnknown
	}
	in.Usage = cmp.Or(in.Usage, UsageReported)
	return in
}

func (in UsageInput) faults(now time.Time) (f fault.List) {
	if err := in.Validate(); err != nil {
		f.Check(false, "%s", err)
	}
	f.Check(!in.At.Before(utc.Beginning), "at %s is before 1970", in.At.Format(time.RFC3339))
	f.Check(!in.At.After(now.Add(maxAhead)), "at %s is in the future", in.At.Format(time.RFC3339))
	f.Check(in.Latency >= 0 && in.Latency <= maxLatency, "latency %s is not between 0 and %s", in.Latency, maxLatency)
	f.Text("service_tier", in.ServiceTier, 1, rule.MaxWord)
	f.Text("request_id", in.RequestID, 0, maxRequestID)
	f.Text("error_class", in.ErrorClass, 0, maxErrorClass)
	f.Check(in.Failed || in.ErrorClass == "", "error_class is set, but the request did not fail")
	f.Check(in.HTTPStatus == 0 || in.HTTPStatus >= 100 && in.HTTPStatus <= 599,
		"http_status %d is not between 100 and 599", in.HTTPStatus)
	checkTags(&f, in.Tags)
	if in.Usage != UsageReported || in.TimeToFirstToken != 0 || in.AttemptGroup != "" || in.Attempt != 0 ||
		in.ProviderCost != nil || in.ProviderCostSource != "" {
		in.checkSaid(&f)
	}
	return f
}

// checkSaid adds the faults of what most requests do not say.
func (in UsageInput) checkSaid(f *fault.List) {
	f.Check(slices.Contains([]UsageStatus{UsageReported, UsageEstimated, UsageUnknown}, in.Usage),
		"there is no usage status %.40q", in.Usage)
	f.Check(in.Usage != UsageUnknown || in.Tokens == (meter.Tokens{}), "the usage is unknown, but has tokens")
	longest := maxLatency
	if in.Latency > 0 {
		longest = in.Latency
	}
	f.Check(in.TimeToFirstToken >= 0 && in.TimeToFirstToken <= longest,
		"time to first token %s is not between 0 and %s", in.TimeToFirstToken, longest)
	checkAttempt(f, in.AttemptGroup, in.Attempt)
	f.Check(in.ProviderCost == nil || *in.ProviderCost >= 0 && *in.ProviderCost <= fault.MaxAmount,
		"the provider's cost is not between 0 and %d nano-dollars", int64(fault.MaxAmount))
	f.Text("provider_cost_source", in.ProviderCostSource, 0, maxSource)
	f.Check(in.ProviderCost != nil || in.ProviderCostSource == "", "provider_cost_source is set without a cost")
}

// checkAttempt checks which attempt of a user's request a request is.
func checkAttempt(f *fault.List, group string, attempt int) {
	f.Text("attempt_group", group, 0, maxAttemptGroup)
	f.Check(attempt >= 0 && attempt <= maxAttempt, "attempt %d is not between 0 and %d", attempt, maxAttempt)
}

// Tags are what a caller says of a request, by the names of dimensions: Tags{"feature": {"chat"}}. A dimension takes
// one tag, or several if it was created with Multi.
type Tags = schema.Tags

// checkTags adds the faults of tags, as far as they need no look at the dimensions.
func checkTags(f *fault.List, tags Tags) {
	if len(tags) == 0 {
		return
	}
	f.Check(len(tags) <= maxTagged, "there are tags of %d dimensions, more than %d", len(tags), maxTagged)
	for name, texts := range tags {
		f.Text("name of a dimension", name, 1, rule.MaxWord)
		f.Check(len(texts) <= maxTagged, "%d tags of %.64q are more than %d", len(texts), name, maxTagged)
		for _, text := range texts {
			if rule.Text(1, maxTag)(text) != nil {
				f.Text(fmt.Sprintf("tag of %.64q", name), text, 1, maxTag)
			}
		}
		f.Check(utf8.RuneCountInString(dimension.NameOf(texts)) <= maxTagSet,
			"the tags of %.64q have more than %d characters together, as JSON", name, maxTagSet)
	}
}

// newRequest returns a request to record, or the faults of the input.
func newRequest(in UsageInput, now time.Time) (commit.Request, fault.List) {
	in = in.withDefaults(now)
	if f := in.faults(now); len(f) > 0 {
		return commit.Request{}, f
	}
	id := ledger.NewEventID(in.At)
	var firstToken *int64
	if in.TimeToFirstToken > 0 {
		firstToken = new(in.TimeToFirstToken.Milliseconds())
	}
	if in.ProviderCost != nil {
		in.ProviderCost = new(*in.ProviderCost) // the caller's may change
	}
	request := commit.Request{
		Event: ledger.Event{
			ID: id, Model: in.ModelID, Key: in.APIKeyID, RequestID: cmp.Or(in.RequestID, id.String()), At: in.At,
			Tokens: ledger.InColumns(in.Tokens), Latency: in.Latency.Milliseconds(), Success: !in.Failed,
			ErrorClass: in.ErrorClass, HTTPStatus: in.HTTPStatus, Status: usageevent.UsageStatus(in.Usage),
			FirstToken: firstToken, AttemptGroup: in.AttemptGroup, Attempt: in.Attempt,
			ProviderCost: in.ProviderCost, ProviderCostSource: in.ProviderCostSource,
			Consumer: idOrNil(in.ConsumerID), AccessKey: idOrNil(in.AccessKeyID), Tags: dimension.Marshal(in.Tags),
		},
		ServiceTier: in.ServiceTier, Named: in.RequestID != "",
	}
	request.Fingerprint = request.Print()
	return request, nil
}

// idOrNil returns a pointer to an id, or nil for a zero id.
func idOrNil(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	given := id // so that nothing is allocated for a zero id
	return &given
}
