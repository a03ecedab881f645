package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"entgo.io/ent/dialect/sql"
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
	ProviderID uuid.UUID // a live provider it is about; zero: none yet
	Source     string    // where it is looked for, up to 128 characters
	LLMModel   string    // the model that reads the source, up to 256 characters; empty: none
	CacheHit   bool      // the source was read from a cache
}

// CreateDiscoveryLog logs a discovery that is pending. It returns [ErrInvalidData], or
// [ErrForeignKey] for an unknown provider.
func (r *Registry) CreateDiscoveryLog(ctx context.Context, in DiscoveryInput) (log *ent.DiscoveryLog, err error) {
	f := judge(draft.DiscoveryLog.Create(), in)
	if err := f.Err(); err != nil {
		return nil, translate(ctx, "create discovery log", err)
	}
	err = r.write(ctx, "create discovery log", func(tx *ent.Client) error {
		if in.ProviderID != uuid.Nil {
			if err := requireProvider(ctx, tx, in.ProviderID); err != nil {
				return err
			}
		}
		log, err = filled(tx.DiscoveryLog.Create().SetStartedAt(timeOf(tx)), in).Save(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return log.Unwrap(), nil
}

// DiscoveryResult is the result of an attempt that found something and failed, too.
type DiscoveryResult struct {
	Data any   // what was found, as for UpdateDiscoveryResult
	Err  error // what went wrong; nil: nothing
}

// UpdateDiscoveryResult notes the result of an attempt, in place of the one before, which counts it, and returns the
// log. Data is what was found, stored as JSON of up to 1 MiB; nil: nothing; bytes are JSON already. If data is an
// error, its text, without control characters, becomes the error message instead; a [DiscoveryResult], or a pointer to
// one, has both. A status other than pending completes the discovery. It returns [ErrInvalidData] for an unknown status
// or data that is no JSON, or [ErrNotFound].
func (r *Registry) UpdateDiscoveryResult(
	ctx context.Context, id uuid.UUID, data any, status discoverylog.Status,
) (log *ent.DiscoveryLog, err error) {
	op := fmt.Sprintf("update discovery %s", id)
	f := faultsOf(draft.DiscoveryLog.UpdateOneID(id).SetStatus(status).Mutation())
	message, found := discovered(&f, data)
	if err := f.Err(); err != nil {
		return nil, translate(ctx, op, err)
	}
	err = r.write(ctx, op, func(tx *ent.Client) error {
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
		log, err = update.Save(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return log.Unwrap(), nil
}

// discovered returns what to store of a discovery's data: an error's text, or JSON.
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
		f.Check(!isError, "the data of a DiscoveryResult is an error, which belongs into its Err")
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

// GetDiscoveryLog returns a discovery log, or [ErrNotFound]. Several logs may have one identifier:
// GetRecentDiscoveries lists them.
func (r *Registry) GetDiscoveryLog(ctx context.Context, id uuid.UUID) (*ent.DiscoveryLog, error) {
	log, err := r.client.DiscoveryLog.Get(ctx, id)
	return tied(r, log), translate(ctx, fmt.Sprintf("get discovery %s", id), err)
}

// DeleteDiscoveryLog removes a discovery log for good. It returns [ErrNotFound].
func (r *Registry) DeleteDiscoveryLog(ctx context.Context, id uuid.UUID) error {
	return r.write(ctx, fmt.Sprintf("delete discovery %s", id), func(tx *ent.Client) error {
		return tx.DiscoveryLog.DeleteOneID(id).Exec(ctx)
	})
}

// DiscoveryFilter selects discovery logs. Conditions that are zero are none; the others must all hold.
type DiscoveryFilter struct {
	ProviderID uuid.UUID
	Identifier string // the whole one
	Status     discoverylog.Status

	Limit int       // up to MaxLimit. Defaults to DefaultLimit
	After uuid.UUID // the last log of the page before; zero: from the newest
}

// Next returns the filter of the page after the one that ends with last, and how many rows a full page has.
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

// GetRecentDiscoveries returns a page of the discovery logs that the filter selects, those first that began last. It
// returns [ErrInvalidData], or [ErrNotFound] for an After that was deleted.
func (r *Registry) GetRecentDiscoveries(ctx context.Context, filter DiscoveryFilter) ([]*ent.DiscoveryLog, error) {
	return listing[*ent.DiscoveryLog, uuid.UUID]{
		order: newestFirst(discoverylog.FieldStartedAt, discoverylog.FieldID),
		get: func(ctx context.Context, c *ent.Client, id uuid.UUID) (*ent.DiscoveryLog, error) {
			return c.DiscoveryLog.Get(ctx, id)
		},
		place: func(l *ent.DiscoveryLog) []any { return []any{l.StartedAt, l.ID} },
		all: func(ctx context.Context, c *ent.Client, page func(*sql.Selector)) ([]*ent.DiscoveryLog, error) {
			query := c.DiscoveryLog.Query().Where(matching[predicate.DiscoveryLog]("DiscoveryLog", filter)...)
			query.Modify(page)
			return query.All(ctx)
		},
	}.page(ctx, r, "get recent discoveries", filter.faults(), filter.Limit, filter.After)
}
