package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/jeffersonwarrior/modelscan/money"
	"github.com/jeffersonwarrior/modelscan/registry"
)

// serveOn serves the gateway on the loopback interface, and returns what makes a call by the secret of a user.
func (f *fixture) serveOn(t *testing.T) (call func(secret string) answer) {
	t.Helper()
	front := httptest.NewServer(f)
	t.Cleanup(front.Close)
	return func(secret string) answer {
		request := f.newCall(t.Context(), front.URL, hello)
		request.Header.Set("Authorization", "Bearer "+secret)
		response, err := send(front.Client(), request)
		require.NoError(t, err)
		return response
	}
}

// errorOf reads what an answer says is wrong.
func errorOf(t *testing.T, a answer) chatError {
	t.Helper()
	var e chatError
	require.NoError(t, json.Unmarshal(a.body, &e))
	return e
}

// TestStranger: a caller with no access key, or with a secret that nobody has, is not let in.
func TestStranger(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	call := f.serveOn(t)
	for _, secret := range []string{"", "msk-stranger-0123456789", f.secret + "0"} {
		refused := call(secret)
		require.Equal(t, http.StatusUnauthorized, refused.status)
		require.Equal(t, "Bearer", refused.header.Get("WWW-Authenticate"))
		require.Equal(t, "invalid_api_key", errorOf(t, refused).Error.Code)
	}
	require.Empty(t, f.provider.counted().answers)
	require.Equal(t, http.StatusOK, call(f.secret).status)
}

// TestForbidden: who is known, but may not, is told why.
func TestForbidden(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	ctx, call := t.Context(), f.serveOn(t)
	requireForbidden := func(who string, reason registry.ForbiddenReason) {
		t.Helper()
		refused := call(reveal(t, f.users[who].secret))
		require.Equal(t, http.StatusForbidden, refused.status)
		require.Equal(t, string(reason), errorOf(t, refused).Error.Code)
	}
	keys, err := f.reg.ListAccessKeys(ctx, registry.AccessKeyFilter{ConsumerID: f.users["ada"].ID})
	require.NoError(t, err)
	require.NoError(t, f.reg.DeleteAccessKey(ctx, keys[0].ID))
	requireForbidden("ada", registry.AccessKeyDeleted)

	disabled := true
	_, err = f.reg.UpdateConsumer(ctx, f.users["ben"].ID, registry.ConsumerUpdate{Disabled: &disabled})
	require.NoError(t, err)
	requireForbidden("ben", registry.ConsumerDisabled)

	_, err = f.reg.UpdateConsumer(ctx, f.users["carol"].ID, registry.ConsumerUpdate{
		Permissions: &[]registry.Permission{{ProviderID: f.routes["xai/grok-4.5"].ProviderID}},
	})
	require.NoError(t, err)
	requireForbidden("carol", registry.ModelDenied)

	f.clock.Advance(time.Hour)
	requireForbidden(trialUser, registry.AccessKeyExpired)
	require.Empty(t, f.provider.counted().answers)
}

// TestTrialRunsOut: a caller whose budget has run out is told what is left, and is let in again when it opens.
func TestTrialRunsOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	ctx, call := t.Context(), f.serveOn(t)
	secret := reveal(t, f.users[trialUser].secret)
	for range trialRequests {
		require.Equal(t, http.StatusOK, call(secret).status)
	}
	refused := call(secret)
	require.Equal(t, http.StatusTooManyRequests, refused.status)
	require.Equal(t, "43200", refused.header.Get("Retry-After"), "from noon to midnight")
	require.JSONEq(t, `{"error": {
		"code": "over_budget",
		"message": "over budget: \"trial\": 0 of 2 requests left, 1 asked, opens at 2026-07-16T00:00:00Z",
		"opens_at": "2026-07-16T00:00:00Z",
		"budgets": [{"budget": "trial", "metric": "requests", "left": 0, "asked": 1}]
	}}`, string(refused.body))
	require.Equal(t, http.StatusOK, call(f.secret).status, "others have theirs")

	f.clock.Advance(12 * time.Hour)
	_, fresh, err := f.reg.CreateAccessKey(ctx, registry.AccessKeyInput{ConsumerID: f.users[trialUser].ID})
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, call(reveal(t, fresh)).status)
}

// TestCostRunsOut: amounts of cost are dollars, and what never fits has no time to come back.
func TestCostRunsOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	over := &registry.BudgetError{Closed: []registry.BudgetState{
		{Name: "all", Metric: registry.BudgetCost, Left: int64(money.Dollar / 2), Asked: int64(2 * money.Dollar)},
	}}
	refused := f.refusal(over)
	require.Equal(t, http.StatusTooManyRequests, refused.status)
	require.Empty(t, refused.header.Get("Retry-After"))
	require.Contains(t, string(refused.body), `{"budget":"all","metric":"cost","left":0.5,"asked":2}`)
	over.Sooner = true
	require.Equal(t, "1", f.refusal(over).header.Get("Retry-After"))
}

// TestSecondRun: consumers and budgets of an earlier run stay, and users get new access keys.
func TestSecondRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t, faults{})
	again, err := f.setUpConsumers(t.Context(), trialRequests+1)
	require.NoError(t, err)
	require.Len(t, again, len(f.users))
	for _, u := range again {
		require.Equal(t, f.users[u.Name].ID, u.ID)
		require.False(t, f.users[u.Name].secret.Equal(u.secret))
	}
	trial, err := f.reg.FindBudget(t.Context(), f.users[trialUser].ID, "trial")
	require.NoError(t, err)
	require.EqualValues(t, trialRequests, trial.Requests)
	require.Equal(t, 4, f.reg.Client().Budget.Query().CountX(t.Context()))
}
