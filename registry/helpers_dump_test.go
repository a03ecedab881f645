package registry_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/ent/accesskey"
	"github.com/jeffersonwarrior/modelscan/ent/apikey"
	"github.com/jeffersonwarrior/modelscan/ent/auditentry"
	"github.com/jeffersonwarrior/modelscan/ent/budget"
	"github.com/jeffersonwarrior/modelscan/ent/budgetcrossing"
	"github.com/jeffersonwarrior/modelscan/ent/budgetgrant"
	"github.com/jeffersonwarrior/modelscan/ent/budgetwindow"
	"github.com/jeffersonwarrior/modelscan/ent/consumer"
	"github.com/jeffersonwarrior/modelscan/ent/consumerday"
	"github.com/jeffersonwarrior/modelscan/ent/datakey"
	"github.com/jeffersonwarrior/modelscan/ent/dimension"
	"github.com/jeffersonwarrior/modelscan/ent/dimensionvalue"
	"github.com/jeffersonwarrior/modelscan/ent/discoverylog"
	"github.com/jeffersonwarrior/modelscan/ent/expiredlease"
	"github.com/jeffersonwarrior/modelscan/ent/keylease"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/modelfamily"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/ent/quotagroup"
	"github.com/jeffersonwarrior/modelscan/ent/sdkversion"
	"github.com/jeffersonwarrior/modelscan/ent/setting"
	"github.com/jeffersonwarrior/modelscan/ent/usage"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvalue"
	"github.com/jeffersonwarrior/modelscan/ent/usagebyvaluequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usageevent"
	"github.com/jeffersonwarrior/modelscan/ent/usagefold"
	"github.com/jeffersonwarrior/modelscan/ent/usagehorizon"
	"github.com/jeffersonwarrior/modelscan/ent/usagequarter"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotal"
	"github.com/jeffersonwarrior/modelscan/ent/usagetotalquarter"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// dump returns all rows of all tables as text.
func dump(tb testing.TB, reg *registry.Registry) string {
	tb.Helper()
	ctx, c := tb.Context(), reg.Client()
	var all []any
	add := func(rows any, err error) {
		require.NoError(tb, err)
		all = append(all, rows)
	}
	add(c.Installation.Query().All(ctx))
	add(c.DataKey.Query().Order(datakey.ByID()).All(ctx))
	add(c.Provider.Query().Order(provider.ByID()).All(ctx))
	add(c.ModelFamily.Query().Order(modelfamily.ByID()).All(ctx))
	add(c.Model.Query().Order(model.ByID()).All(ctx))
	add(c.Price.Query().Order(price.ByID()).All(ctx))
	add(c.QuotaGroup.Query().Order(quotagroup.ByID()).All(ctx))
	add(c.APIKey.Query().Order(apikey.ByID()).All(ctx))
	add(c.Consumer.Query().Order(consumer.ByID()).All(ctx))
	add(c.AccessKey.Query().Order(accesskey.ByID()).All(ctx))
	add(c.Budget.Query().Order(budget.ByID()).All(ctx))
	add(c.BudgetGrant.Query().Order(budgetgrant.ByID()).All(ctx))
	add(c.BudgetWindow.Query().Order(budgetwindow.ByID()).All(ctx))
	add(c.BudgetCrossing.Query().Order(budgetcrossing.ByID()).All(ctx))
	add(c.PolicyVersion.Query().All(ctx))
	add(c.KeyLease.Query().Order(keylease.ByID()).All(ctx))
	add(c.ExpiredLease.Query().Order(expiredlease.ByID()).All(ctx))
	add(c.Usage.Query().Order(usage.ByID()).All(ctx))
	add(c.UsageQuarter.Query().Order(usagequarter.ByID()).All(ctx))
	add(c.UsageTotal.Query().Order(usagetotal.ByID()).All(ctx))
	add(c.UsageTotalQuarter.Query().Order(usagetotalquarter.ByID()).All(ctx))
	add(c.UsageEvent.Query().Order(usageevent.ByID()).All(ctx))
	add(c.Dimension.Query().Order(dimension.ByID()).All(ctx))
	add(c.DimensionValue.Query().Order(dimensionvalue.ByID()).All(ctx))
	add(c.UsageByValue.Query().Order(usagebyvalue.ByID()).All(ctx))
	add(c.ConsumerDay.Query().Order(consumerday.ByID()).All(ctx))
	add(c.UsageByValueQuarter.Query().Order(usagebyvaluequarter.ByID()).All(ctx))
	add(c.UsageFold.Query().Order(usagefold.ByID()).All(ctx))
	add(c.UsageHorizon.Query().Order(usagehorizon.ByID()).All(ctx))
	add(c.DiscoveryLog.Query().Order(discoverylog.ByID()).All(ctx))
	add(c.SDKVersion.Query().Order(sdkversion.ByID()).All(ctx))
	add(c.Setting.Query().Order(setting.ByID()).All(ctx))
	add(c.AuditEntry.Query().Order(auditentry.ByID()).All(ctx))
	text, err := json.Marshal(all)
	require.NoError(tb, err)
	return string(text)
}
