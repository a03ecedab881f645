package registry

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/internal/commit"
	"github.com/jeffersonwarrior/modelscan/internal/proof"
)

// budgets mends the paths of consumers, and then the counters of budgets, each budget in a transaction.
func (done *repair) budgets(ctx context.Context) error {
	r := done.r
	if err := done.paths(ctx); err != nil {
		return err
	}
	v, err := r.verifyBudgets(ctx)
	if err != nil {
		return err
	}
	done.left.Add(slices.DeleteFunc(v.found, func(d proof.Difference) bool {
		return d.Kind == proof.WrongBudgetCounter && !done.doubtful
	})...)
	if len(v.wrong) == 0 || done.doubtful {
		return nil
	}
	done.Counters, err = r.setCounters(ctx, "counters of budgets", v.wrong)
	return err
}

// paths writes the paths of consumers anew that do not follow from their parents, also in their open leases. A consumer
// that is below itself, or too deep, is left.
func (done *repair) paths(ctx context.Context) error {
	r := done.r
	if wrong, err := wrongPaths(ctx, r.fresh); err != nil || len(wrong) == 0 {
		return err
	}
	n := 0
	err := r.writePolicy(ctx, "paths of consumers", nil, func(tx *ent.Client) error {
		n = 0
		// The leases are rows of pools: see commit.Hold.
		if err := r.holdPools(ctx, tx, commit.AllPools); err != nil {
			return err
		}
		all, err := tx.Consumer.Query().All(ctx)
		if err != nil {
			return err
		}
		byID := make(map[uuid.UUID]*ent.Consumer, len(all))
		for _, c := range all {
			byID[c.ID] = c
		}
		for _, c := range all {
			path := pathByParents(byID, c)
			if path == "" || path == c.Path {
				continue
			}
			n++
			if err := tx.Consumer.UpdateOneID(c.ID).SetPath(path).Exec(ctx); err != nil {
				return err
			}
			err := tx.KeyLease.Update().Where(keylease.ConsumerID(c.ID)).SetConsumerPath(path).Exec(ctx)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		done.Paths += int64(n)
	}
	return err
}

// pathByParents returns the path of a consumer by its parents, or "" if it has too many.
func pathByParents(byID map[uuid.UUID]*ent.Consumer, c *ent.Consumer) string {
	path := c.ID.String()
	for levels := 1; c.ParentID != nil; levels++ {
		if c = byID[*c.ParentID]; c == nil || levels == MaxConsumerLevels {
			return ""
		}
		path = c.ID.String() + "/" + path
	}
	return path
}
