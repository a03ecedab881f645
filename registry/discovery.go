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
)

const (
	maxIdentifier = 2048
	maxData       = 1 << 20 // bytes of JSON, and characters of a test's results
	maxMessage    = 4096    // characters of an error's text; what is longer is cut
)

// DiscoveryInput describes a discovery that begins now.
type DiscoveryInput struct {
	Identifier string    // what is looked for, such as a provider's name or URL, 1 to 2,048 characters
	ProviderID uuid.UUID // a live provider it is about; zero: none yet
	Source     string    // where it is looked for, up to 128 characters
	LLMModel   string    // the model that reads the source, up to 256 characters; empty: none
	CacheHit   bool      // the source was read from a cache
}

func (in DiscoveryInput) faults() faults {
	var f faults
	f.text("identifier", in.Identifier, 1, maxIdentifier)
	f.text("source", in.Source, 0, maxName)
	f.text("llm_model", in.LLMModel, 0, maxModelID)
	return f
}

// CreateDiscoveryLog logs a discovery that is pending. It returns [ErrInvalidData], or
// [ErrForeignKey] for an unknown provider.
func (r *Registry) CreateDiscoveryLog(ctx context.Context, in DiscoveryInput) (log *ent.DiscoveryLog, err error) {
	f := in.faults()
	if err := f.err(); err != nil {
		return nil, translate(ctx, "create discovery log", err)
	}
	err = r.write(ctx, "create discovery log", func(tx *ent.Client) error {
		create := tx.DiscoveryLog.Create().
			SetIdentifier(in.Identifier).SetSource(in.Source).SetLlmModel(in.LLMModel).
			SetCacheHit(in.CacheHit).SetStartedAt(r.now())
		if in.ProviderID != uuid.Nil {
			if err := requireProvider(ctx, tx, in.ProviderID); err != nil {
				return err
			}
			create.SetProviderID(in.ProviderID)
		}
		log, err = create.Save(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return log.Unwrap(), nil
}

// UpdateDiscoveryResult notes the result of an attempt, which counts it, and returns the log.
// Data is what was found, stored as JSON of up to 1 MiB; nil: nothing; bytes are JSON already. If
// data is an error, its text, without control characters, becomes the error message instead. A status other than pending completes the discovery.
// It returns [ErrInvalidData] for an unknown status or data that is no JSON, or [ErrNotFound].
func (r *Registry) UpdateDiscoveryResult(
	ctx context.Context, id uuid.UUID, data any, status discoverylog.Status,
) (log *ent.DiscoveryLog, err error) {
	op := fmt.Sprintf("update discovery %s", id)
	var f faults
	f.check(discoverylog.StatusValidator(status) == nil, "status is not one of pending, success, failed")
	message, found := f.result(data)
	if err := f.err(); err != nil {
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
			update.SetCompletedAt(r.now())
		}
		log, err = update.Save(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return log.Unwrap(), nil
}

// result returns what to store of a discovery's data: an error's text, or JSON.
func (f *faults) result(data any) (message string, found json.RawMessage) {
	switch d := data.(type) {
	case nil:
		return "", nil
	case error:
		return cleaned(d.Error(), maxMessage), nil
	case []byte:
		data = json.RawMessage(d)
	}
	found, err := json.Marshal(data)
	f.check(err == nil, "data is no JSON: %v", err)
	f.check(utf8.Valid(found), "data is no JSON: it is not valid UTF-8")
	f.check(len(found) <= maxData, "data has %d bytes, more than %d", len(found), maxData)
	return "", found
}

// GetRecentDiscoveries returns the newest discoveries, newest first: up to limit, which is 1 to
// [MaxLimit], or 0 for [DefaultLimit]. It returns [ErrInvalidData] for another limit.
func (r *Registry) GetRecentDiscoveries(ctx context.Context, limit int) ([]*ent.DiscoveryLog, error) {
	var f faults
	f.check(limit >= 0 && limit <= MaxLimit, "limit %d is not within 0 and %d", limit, MaxLimit)
	if err := f.err(); err != nil {
		return nil, translate(ctx, "get recent discoveries", err)
	}
	if limit == 0 {
		limit = DefaultLimit
	}
	logs, err := r.client.DiscoveryLog.Query().
		Order(discoverylog.ByStartedAt(sql.OrderDesc()), discoverylog.ByID(sql.OrderDesc())).
		Limit(limit).All(ctx)
	return allTied(r, logs), translate(ctx, "get recent discoveries", err)
}
