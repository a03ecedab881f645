package proof

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/internal/bulk"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
)

// Counter has a key's counters, and what its days add up to.
type Counter struct {
	Key        uuid.UUID
	Have, Want [2]int64 // usage_count and token_count
	Fits       bool     // Want
	days       [4]int64 // requests in billions and the rest, then tokens: sums of damaged rows need not fit
	extra      [2]int64
}

const billion = 1_000_000_000

// countersSQL reads the counters of all keys, including deleted ones, or of the keys in a list.
func countersSQL(where string) string {
	const tokens = "(u.input_tokens%[1]s + u.output_tokens%[1]s + u.cache_read_tokens%[1]s +" +
		" u.cache_write_tokens%[1]s + u.reasoning_tokens%[1]s)"
	sum := func(column, operator string) string {
		column = strings.ReplaceAll(column, "%[1]s", fmt.Sprintf(" %s %d", operator, billion))
		return "CAST(COALESCE(SUM(" + column + "), 0) AS bigint)"
	}
	return "SELECT k.id, k.usage_count, k.token_count, k.extra_requests, k.extra_tokens, " + strings.Join([]string{
		sum("u.request_count%[1]s", "/"), sum("u.request_count%[1]s", "%"), sum(tokens, "/"), sum(tokens, "%"),
	}, ", ") + " FROM api_keys AS k LEFT JOIN usage_tracking AS u ON u.api_key_id = k.id" +
		where + " GROUP BY k.id"
}

// Counters calls each for the counters of all keys, or of some. One statement reads them in one state.
func Counters(ctx context.Context, client *ent.Client, some []uuid.UUID, each func(Counter) error) error {
	where, args := "", []any(nil)
	if some != nil {
		where, args = bulk.In(some)
		where = " WHERE k.id IN " + where
	}
	return bulk.Scan(ctx, client, countersSQL(where), args, func(scan func(...any) error) error {
		var c Counter
		if err := scan(
			&c.Key, &c.Have[0], &c.Have[1], &c.extra[0], &c.extra[1], &c.days[0], &c.days[1], &c.days[2], &c.days[3],
		); err != nil {
			return err
		}
		c.Fits = true
		for i := range c.Want {
			billions, rest := c.days[2*i]+c.days[2*i+1]/billion, c.days[2*i+1]%billion
			c.Want[i] = billions*billion + rest + c.extra[i]
			c.Fits = c.Fits && billions < fault.MaxAmount/billion && c.Want[i] <= fault.MaxAmount
		}
		return each(c)
	})
}

// Differences returns what is wrong with the counters.
func (c Counter) Differences() (all []Difference) {
	for i, field := range []string{apikey.FieldUsageCount, apikey.FieldTokenCount} {
		if c.Fits && c.Have[i] == c.Want[i] {
			continue
		}
		want := strconv.FormatInt(c.Want[i], 10)
		if !c.Fits {
			want = fault.ErrOverflow.Error()
		}
		all = append(all, Difference{
			Kind: WrongKeyCounter, Table: apikey.Table, Key: c.Key, Field: field, Want: want,
			Have: strconv.FormatInt(c.Have[i], 10),
		})
	}
	return all
}
