package registry

import (
	"context"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/auditentry"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
)

// deleteKeyEvents removes the oldest audit entries of the key pool.
func (p *pruner) deleteKeyEvents(ctx context.Context) (outcome, error) {
	return p.transact(ctx, func(tx *ent.Client) (outcome, error) {
		return p.deleteSome(&p.report.KeyEvents, func() ([]uuid.UUID, error) {
			return tx.AuditEntry.Query().Where(auditentry.Automatic(true), auditentry.AtLT(p.keyEvents)).
				Order(auditentry.ByAt()).Limit(pruneRows).IDs(ctx)
		}, func(ids []uuid.UUID) (int, error) {
			return tx.AuditEntry.Delete().Where(auditentry.IDIn(ids...)).Exec(ctx)
		})
	})
}

// deleteDiscoveries removes the oldest discovery logs.
func (p *pruner) deleteDiscoveries(ctx context.Context) (outcome, error) {
	return p.transact(ctx, func(tx *ent.Client) (outcome, error) {
		return p.deleteSome(&p.report.Discoveries, func() ([]uuid.UUID, error) {
			return tx.DiscoveryLog.Query().Where(discoverylog.StartedAtLT(p.discoveries)).
				Order(discoverylog.ByStartedAt()).Limit(pruneRows).IDs(ctx)
		}, func(ids []uuid.UUID) (int, error) {
			return tx.DiscoveryLog.Delete().Where(discoverylog.IDIn(ids...)).Exec(ctx)
		})
	})
}

// deleteSome removes up to pruneRows of the rows that find returns, and adds their number to done.
func (*pruner) deleteSome(
	done *int64, find func() ([]uuid.UUID, error), remove func([]uuid.UUID) (int, error),
) (outcome, error) {
	ids, err := find()
	if err != nil || len(ids) == 0 {
		return finished, err
	}
	n, err := remove(ids)
	*done += int64(n)
	if err != nil || len(ids) < pruneRows {
		return finished, err
	}
	return unfinished, nil
}
