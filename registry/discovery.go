package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/ent/predicate"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// DiscoveryInput describes a discovery that begins now.
type DiscoveryInput struct {
	Identifier string    // what is looked for, such as a provider's name or URL, 1 to 2,048 characters
	ProviderID uuid.UUID // the live provider that it is about; zero: none yet
	Source     string    // where it is looked for, up to 128 characters
	LLMModel   string    // the model that reads the source, up to 256 characters; empty: no model
	CacheHit   bool      // the source was read from a cache
}

// CreateDiscoveryLog logs a discovery that begins now, with the status pending, and returns the log. It returns
// [ErrInvalidData] if the input breaks a rule, and [ErrForeignKey] if the provider is unknown.
func (r *Registry) CreateDiscoveryLog(ctx context.Context, in DiscoveryInput) (*ent.DiscoveryLog, error) {
	f := judge(draft.DiscoveryLog.Create(), in)
	return change(ctx, r.write, "create discovery log", f, func(tx *ent.Client) (*ent.DiscoveryLog, error) {
		if in.ProviderID != uuid.Nil {
			if err := requireProvider(ctx, tx, in.ProviderID); err != nil {
				return nil, err
			}
		}
		return filled(tx.DiscoveryLog.Create().SetStartedAt(timeOf(tx)), in).Save(ctx)
	})
}

// DiscoveryResult is the result of an attempt that may have found something and failed as well.
type DiscoveryResult struct {
	Data any   // what was found, as for UpdateDiscoveryResult
	Err  error // what went wrong, or nil
}

// UpdateDiscoveryResult stores the result of an attempt in place of the one before, counts the attempt, and returns the
// log. A status other than pending completes the discovery. Data can be:
//
//   - nil: nothing was found
//   - an error: its text, without control characters, becomes the error message
//   - a [DiscoveryResult], or a pointer to one: both data and an error
//   - bytes: JSON
//   - any other value, which is stored as JSON
//
// JSON may have up to 1 MiB. It returns [ErrInvalidData] if the status is unknown, or the data is too long or not valid
// JSON, and [ErrNotFound] if there is no such log.
func (r *Registry) UpdateDiscoveryResult(
	ctx context.Context, id uuid.UUID, data any, status discoverylog.Status,
) (*ent.DiscoveryLog, error) {
	f := faultsOf(draft.DiscoveryLog.UpdateOneID(id).SetStatus(status).Mutation())
	message, found := discovered(&f, data)
	op := fmt.Sprintf("update discovery %s", id)
	return change(ctx, r.write, op, f, func(tx *ent.Client) (*ent.DiscoveryLog, error) {
		update := tx.DiscoveryLog.UpdateOneID(id).AddAttemptCount(1).SetStatus(status).SetErrorMessage(message)
		if found == nil {
			update.ClearDiscoveredData()
		} else {
			update.SetDiscoveredData(found)
		}
		if status == discoverylog.StatusPending {
			update.ClearCompletedAt()
		} else {
			update.SetCompletedAt(timeOf(tx))
		}
		return update.Save(ctx)
	})
}

// discovered returns what to store of a discovery's data: an error message, JSON, or both.
func discovered(f *fault.List, data any) (message string, found json.RawMessage) {
	switch d := data.(type) {
	case nil:
		return "", nil
	case error:
		return fault.Clean(d.Error(), rule.MaxProse), nil
	case *DiscoveryResult:
		if d == nil {
			return "", nil
		}
		return discovered(f, *d)
	case DiscoveryResult:
		if d.Err != nil {
			message = fault.Clean(d.Err.Error(), rule.MaxProse)
		}
		_, isError := d.Data.(error)
		f.Check(!isError, "the Data of a DiscoveryResult is an error: set its Err instead")
		_, found = discovered(f, d.Data)
		return message, found
	case []byte:
		data = json.RawMessage(d)
	}
	found, err := json.Marshal(data)
	f.Check(err == nil, "data is no JSON: %v", err)
	f.Check(utf8.Valid(found), "data is no JSON: it is not valid UTF-8")
	f.Check(len(found) <= rule.MaxData, "data has %d bytes, more than %d", len(found), rule.MaxData)
	return "", found
}

// GetDiscoveryLog returns a discovery log. Several logs may have one identifier: GetRecentDiscoveries lists them. It
// returns [ErrNotFound] if there is no such log.
func (r *Registry) GetDiscoveryLog(ctx context.Context, id uuid.UUID) (*ent.DiscoveryLog, error) {
	log, err := r.client.DiscoveryLog.Get(ctx, id)
	return tied(r, log), translate(ctx, fmt.Sprintf("get discovery %s", id), err)
}

// DeleteDiscoveryLog removes a discovery log for good. It returns [ErrNotFound] if there is no such log.
func (r *Registry) DeleteDiscoveryLog(ctx context.Context, id uuid.UUID) error {
	return r.write(ctx, fmt.Sprintf("delete discovery %s", id), nil, func(tx *ent.Client) error {
		return tx.DiscoveryLog.DeleteOneID(id).Exec(ctx)
	})
}

// DiscoveryFilter selects discovery logs. All conditions must hold; a zero condition is ignored.
type DiscoveryFilter struct {
	ProviderID uuid.UUID
	Identifier string // the whole identifier
	Status     discoverylog.Status

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last log of the page before; zero: the first page
}

// Next returns the filter of the page that follows last, and the number of rows of a full page.
func (fl DiscoveryFilter) Next(last *ent.DiscoveryLog) (DiscoveryFilter, int) {
	fl.After = last.ID
	return fl, pageSize(fl.Limit)
}

func (fl DiscoveryFilter) faults() (f fault.List) {
	if fl.Status != "" {
		f = faultsOf(draft.DiscoveryLog.Create().SetStatus(fl.Status).Mutation())
	}
	f.Text("identifier", fl.Identifier, 0, rule.MaxURL)
	return f
}

// GetRecentDiscoveries returns a page of discovery logs, the last begun first. It returns [ErrInvalidData] if the
// filter breaks a rule, and [ErrNotFound] if the log that After names was deleted.
func (r *Registry) GetRecentDiscoveries(ctx context.Context, filter DiscoveryFilter) ([]*ent.DiscoveryLog, error) {
	l := listing[uuid.UUID]{newestFirst(discoverylog.FieldStartedAt, discoverylog.FieldID), filter.Limit, filter.After}
	c := l.client(r)
	return list(ctx, r, "get recent discoveries", filter.faults(), l, c.DiscoveryLog.Get,
		c.DiscoveryLog.Query().Where(matching[predicate.DiscoveryLog](filter)...))
}
