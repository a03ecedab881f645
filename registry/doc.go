// Package registry is the system of record inside a service that calls LLM providers. It keeps five things:
//
//   - the catalogue of providers, families, models and prices
//   - the pool of API keys
//   - the consumers for whom calls are made, their access keys and their budgets
//   - the ledger of usage and cost
//   - discovery logs, SDK versions and settings
//
// It stores them in a SQLite file or in PostgreSQL:
//
//	reg, err := registry.Open(ctx, "modelscan.db")
//	if err != nil { ... }
//	defer reg.Close()
//
// # Operations
//
// Catalogue: providers, families and models.
//
//   - [Registry.CreateProvider] creates a provider
//   - [Registry.GetProvider] returns a provider by id, also a deleted one
//   - [Registry.FindProvider] returns a live provider by name
//   - [Registry.ListProviders] lists live or deleted providers
//   - [Registry.UpdateProvider] changes a provider
//   - [Registry.DeleteProvider] hides a provider with its models and keys
//   - [Registry.UndeleteProvider] brings a deleted provider back
//   - [Registry.PurgeProvider] removes a provider that has no usage for good
//   - [Registry.CreateFamily] creates a family of models
//   - [Registry.GetFamily] returns a family by id
//   - [Registry.FindFamily] returns a family by provider and name
//   - [Registry.ListFamilies] lists families
//   - [Registry.UpdateFamily] changes a family
//   - [Registry.DeleteFamily] removes a family; its models stay
//   - [Registry.CreateModel] creates a model with its first price
//   - [Registry.CreateModels] creates several models, all or none
//   - [Registry.GetModel] returns a model by id, also a deleted one
//   - [Registry.FindModel] returns a live model by provider and model id
//   - [Registry.ListModels] lists models by capability, cost, context window or text
//   - [Registry.GetModelsByProvider] lists the live models of a provider
//   - [Registry.UpdateModel] changes a model
//   - [Registry.DeprecateModel] marks a model as deprecated
//   - [Registry.DeleteModel] hides a model
//   - [Registry.UndeleteModel] brings a deleted model back
//   - [Registry.PurgeModel] removes a model that has no usage for good
//   - [Registry.ImportCatalog] brings the catalogue up to date with a published one
//
// Prices.
//
//   - [Registry.UpdateModelPricing] sets a price, from now on or from an earlier time
//   - [Registry.GetPrice] returns a price by id, also one that has ended
//   - [Registry.PriceAt] returns the standard price of a model at a time
//   - [Registry.PriceHistory] lists all prices of a model
//
// API keys.
//
//   - [Registry.AddAPIKey] adds a key to a provider
//   - [Registry.GetAPIKey] returns a key by id, also a deleted one
//   - [Registry.FindAPIKey] returns the row of an API key
//   - [Registry.ListAPIKeys] lists keys
//   - [Registry.UpdateAPIKey] changes, disables or enables a key
//   - [Registry.RotateAPIKey] replaces a key by a new one, with an overlap
//   - [Registry.RevealAPIKey] returns the API key itself
//   - [Registry.DeleteAPIKey] hides a key
//   - [Registry.UndeleteAPIKey] brings a deleted key back
//   - [Registry.PurgeAPIKey] removes a key that has no usage for good
//   - [Registry.RotateKeyring] wraps data keys, and seals API keys, anew
//   - [Registry.CreateQuotaGroup] creates an account whose keys share limits
//   - [Registry.GetQuotaGroup] returns a quota group by id
//   - [Registry.FindQuotaGroup] returns a quota group by provider and name
//   - [Registry.ListQuotaGroups] lists quota groups
//   - [Registry.UpdateQuotaGroup] changes a quota group
//   - [Registry.DeleteQuotaGroup] removes a quota group without live keys
//
// Consumers and access keys: for whom calls are made, and how they show it.
//
//   - [Registry.CreateConsumer] creates a consumer: an organisation, a team or a user
//   - [Registry.EnsureConsumer] finds a consumer by its external id, or creates it
//   - [Registry.GetConsumer] returns a consumer by id, also a deleted one
//   - [Registry.FindConsumer] returns a live consumer by its external id
//   - [Registry.ListConsumers] lists consumers: all, those of a parent or those of a subtree
//   - [Registry.UpdateConsumer] changes, disables or enables a consumer
//   - [Registry.MoveConsumer] moves a consumer, with all below it, to another parent
//   - [Registry.DeleteConsumer] hides a consumer, with all below it and all their access keys
//   - [Registry.UndeleteConsumer] brings a deleted consumer back
//   - [Registry.PurgeConsumer] removes a consumer, with all below it, for good
//   - [Registry.CreateAccessKey] creates an access key for a consumer, and returns its secret
//   - [Registry.GetAccessKey] returns an access key by id, also a deleted one
//   - [Registry.ListAccessKeys] lists access keys
//   - [Registry.UpdateAccessKey] changes, disables or enables an access key
//   - [Registry.RotateAccessKey] replaces an access key by a new one
//   - [Registry.DeleteAccessKey] ends an access key
//   - [Registry.Authenticate] says for whom the caller acts who shows a secret
//
// Budgets: what may be spent for a consumer, and for all below it.
//
//   - [Registry.CreateBudget] creates a budget: ceilings over the windows of a calendar
//   - [Registry.GetBudget] returns a budget by id
//   - [Registry.FindBudget] returns a consumer's budget by name
//   - [Registry.ListBudgets] lists budgets
//   - [Registry.UpdateBudget] changes the ceilings and the mode of a budget
//   - [Registry.DeleteBudget] removes a budget for good
//   - [Registry.GrantBudget] raises the ceilings for some windows
//   - [Registry.RevokeGrant] takes a grant back
//   - [Registry.GetGrant] returns a grant by id
//   - [Registry.ListGrants] lists grants
//   - [Registry.ExplainBudgets] shows all ceilings that bind a request, and what is left
//   - [Registry.ListBudgetCrossings] lists thresholds that were passed, and first refusals
//   - [Registry.AckBudgetCrossings] takes crossings out of that list
//
// Dimensions: what usage is summed by beside models, keys and consumers.
//
//   - [Registry.CreateDimension] creates a dimension, such as the feature that requests are made for
//   - [Registry.GetDimension] returns a dimension by id, also a retired one
//   - [Registry.FindDimension] returns a dimension by name
//   - [Registry.ListDimensions] lists dimensions
//   - [Registry.UpdateDimension] gives a dimension room for more values
//   - [Registry.RetireDimension] ends a dimension
//
// Key pool: leases. [Lease.Renew] lets a [Lease] last longer, and reserve more. It ends with [Lease.Settle],
// [Lease.Fail] or [Lease.Release].
//
//   - [Registry.AcquireKey] leases a key for one request
//   - [Registry.GetLease] returns an open lease, for another process to end
//   - [Registry.ExplainKeys] shows for each key whether it can be used, and why not
//   - [Registry.PoolHealth] summarizes the keys of every provider
//   - [Registry.ObserveHeaders] learns the provider's limits from the headers of its answer
//   - [Registry.DegradeKey] takes a key out of use for a while
//   - [Registry.RestoreKey] puts a degraded key back into use
//   - [Registry.GetLeastUsedKey] returns the key with the fewest requests and reserves nothing
//   - [Registry.IncrementUsage] counts a request for a key, outside of the ledger
//   - [Registry.ResetDailyUsage] sets all daily counters to zero
//
// Usage and cost.
//
//   - [Registry.RecordUsage] records a request with its cost
//   - [Registry.RecordUsageBatch] records many requests, all or none
//   - [Registry.GetUsageStats] sums the usage of a model over a range of time
//   - [Registry.GetCostBreakdown] sums the cost of a provider by model
//   - [Registry.UsageReport] groups usage by provider, family, model or key, or by consumers and tags; and by time
//   - [Registry.ListUsageEvents] lists single requests
//   - [Registry.UnpricedUsage] lists the models with usage whose cost is unknown
//
// Ledger upkeep.
//
//   - [Registry.Prune] removes old requests, quarters of an hour and logs
//   - [Registry.Reprice] prices past usage anew after a price was corrected
//   - [Registry.VerifyLedger] proves that the ledger adds up
//   - [Registry.RepairLedger] mends what VerifyLedger finds
//
// Audit trail.
//
//   - [Registry.As] names the actor of the changes that follow
//   - [Registry.ListAudit] lists who changed what, and when
//
// Discovery logs, SDK versions, settings.
//
//   - [Registry.CreateDiscoveryLog] logs that a discovery has begun
//   - [Registry.UpdateDiscoveryResult] stores the result of an attempt
//   - [Registry.GetDiscoveryLog] returns a discovery log by id
//   - [Registry.GetRecentDiscoveries] lists discovery logs
//   - [Registry.DeleteDiscoveryLog] removes a discovery log
//   - [Registry.CreateSDKVersion] creates a version of a generated SDK
//   - [Registry.GetSDKVersion] returns an SDK version by id
//   - [Registry.FindSDKVersion] returns an SDK version by provider and version
//   - [Registry.LatestSDKVersion] returns the newest SDK version of a provider
//   - [Registry.ListSDKVersions] lists SDK versions
//   - [Registry.UpdateSDKVersion] changes an SDK version
//   - [Registry.DeleteSDKVersion] removes an SDK version
//   - [Registry.GetSetting] returns the value of a setting
//   - [Registry.SetSetting] creates or changes a setting
//   - [Registry.ListSettings] lists settings
//   - [Registry.DeleteSetting] removes a setting
//
// Transactions and opening.
//
//   - [Open] opens a database, creates it if needed, and brings it up to date
//   - [Registry.Close] closes the database
//   - [Registry.InTx] runs several operations in one transaction
//   - [Registry.Client] returns an Ent client for reading
//   - [All] iterates over all pages of a list
//   - [Move] copies a database, from SQLite to PostgreSQL for example
//
// # Rows
//
// Operations return rows of the graph, as package ent generates them. [Registry.Client] walks the graph and only reads.
// To change rows, use the methods of Registry: they check what the database alone cannot. [Registry.InTx] puts several
// of them into one transaction.
//
// # Time
//
// Every time is in UTC, in microseconds, and comes from one clock: see [WithClock]. Times of other zones are converted.
// Each operation reads the clock once.
//
// # Money
//
// Prices and costs are of type money.USD: whole nano-dollars. A price is USD per one million tokens. The cost of a
// request is the sum of meter times rate over its meters, rounded once, half to even.
//
// An unknown amount is nil or absent, never zero: a free model has rates of 0.
//
// JSON shows money as a number of dollars with all its digits, in rows, the audit trail, rates and reports. The names
// of such fields end with _usd or USD; in a money.Rates they are the names of meters.
//
// # Usage
//
// A recorded request becomes an event. It is also counted in four periods: a quarter of an hour and a UTC day, each by
// model, key and price, and each by model alone. Statistics and reports read periods. A request id counts once while
// its event is kept.
//
// Events are kept for days, quarters for weeks, days for ever: see [Registry.Prune]. [Registry.VerifyLedger] proves
// that all of it adds up.
//
// # Texts
//
// There are three kinds of text:
//
//   - Names that identify something, such as slugs, model ids, request ids and keys of settings, have no control
//     characters and no invisible characters.
//   - Texts for people, such as labels, descriptions, test results and values of settings, may be any Unicode text
//     except NUL, which PostgreSQL cannot store. They are stored unchanged, with terminal codes, markup and characters
//     that reverse the direction of text: a program that shows them must make them safe.
//   - Reasons and error texts, which others write, are cleaned and cut to length.
//
// Text that is not valid UTF-8 is [ErrInvalidData], in JSON too; reasons and error texts are cleaned instead.
//
// # Deletes
//
// Deleting a provider, a model, a key, a consumer or an access key hides it and makes its name available again, but not
// the secret of an access key. The ledger keeps pointing at it:
//
//   - Get returns a deleted row, with its DeletedAt set.
//   - Find and List return live rows. Their filters can ask for the deleted ones.
//   - Update refuses a deleted row.
//   - Undelete takes the deletion back.
//   - Purge removes a row for good. It is refused if usage was recorded.
//
// Deleting any other entity removes it for good. docs/entities.md shows what can be done with each entity, and why
// something cannot.
//
// # Lists
//
// Every list returns a page. Limit is the most rows of a page, 100 by default; After is the last row of the page
// before. [All] iterates over all pages.
//
// # Audit trail
//
// Changes of the catalogue, of keys, of consumers and of settings are recorded in the transaction that makes them, with
// the row before and after. [Registry.As] names the actor; [Registry.ListAudit] lists the entries.
//
// # Errors
//
// Tell errors apart with errors.Is and the variables of this package. If the context has ended, the error also matches
// context.Canceled or context.DeadlineExceeded.
//
// Every operation can return [ErrBusy], [ErrUncertain] if it writes, and [ErrUnavailable] or one of its kinds. Comments
// of operations name the other errors, and these where there is more to say.
//
// An operation that returns an error has changed nothing, with two exceptions: after [ErrUncertain] it may have been
// done; and operations that work in several transactions, such as Prune, RepairLedger and Move, keep what they have
// done.
//
// # Engines
//
// SQLite and PostgreSQL give the same answers. [Open] says what can be opened; [Move] copies a database from one engine
// to the other.
package registry
