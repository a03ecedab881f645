// Package registry is the system of record inside a service that calls LLM providers: the
// catalogue of providers, families, models and prices; the pool of API keys; the ledger of
// usage and cost; discovery logs, SDK versions and settings.
//
//	reg, err := registry.Open(ctx, "modelscan.db")
//	if err != nil { ... }
//	defer reg.Close()
//
// # Rows
//
// Operations return the rows of the graph as package ent generates them. To walk the graph, use [Registry.Client],
// which only reads; to change it, use the registry's methods, which check what the database alone cannot.
// [Registry.InTx] puts several of them into one transaction.
//
// # Time
//
// Every time is UTC in microseconds and comes from one clock, see [WithClock]. Times in other zones may be given; they
// are converted. Each operation looks at the clock once.
//
// # Money
//
// Prices and costs are money.USD, whole nano-dollars. A price is USD per one million tokens. A request costs the sum of
// its meters times their rates, rounded once, half to even. What is not known is nil or absent, never zero: a free
// model has rates of 0. In JSON, of rows, the audit trail, rates and reports, money is a number of dollars with all its
// digits, under a name that ends with _usd or USD, but for the rates of a money.Rates, which go by their meters.
//
// # Usage
//
// A request that is recorded becomes an event and is counted in periods: a quarter of an hour and a UTC day, by model,
// key and price, and by model alone. Events are kept for some days and quarters for some weeks, see [Registry.Prune];
// days for ever. Answers come from periods. A request id counts once, as long as its event is kept.
// [Registry.VerifyLedger] proves that all of it adds up.
//
// # Texts
//
// Names that identify something, such as slugs, model ids, request ids and keys of settings, have no control characters
// and no invisible ones. Texts for people, such as labels, descriptions, test results and values of settings, are any
// Unicode text but NUL, which PostgreSQL cannot store. They are stored as they are: with terminal codes, markup, and
// characters that turn text around. To show them safely is up to the program that shows them. What is not valid UTF-8
// is [ErrInvalidData], in JSON too. Reasons and texts of errors, which others write, are cleaned and cut instead.
//
// # Deletes
//
// Deleting a provider, a model or a key hides it and frees its name; the ledger keeps pointing at it. What is deleted
// can be read by its id: GetProvider, GetModel and the like return it, and its DeletedAt tells. Find and List show what
// is live, updates refuse what is deleted, Undelete takes a deletion back. Purging removes for good, and is refused
// while there is usage. The other entities are removed for good when they are deleted; docs/entities.md says of each
// what can be done with it, and why something can't.
//
// # Lists
//
// Every list is a page of up to Limit rows, 100 unless its filter says otherwise, and After is the last row of the page
// before. [All] goes through all pages.
//
// # Audit trail
//
// Changes of the catalogue, of keys and of settings are recorded in the transaction that makes them, with the row
// before and after. [Registry.As] says by whom, [Registry.ListAudit] lists them.
//
// # Errors
//
// All errors are told apart with errors.Is by the variables of this package. When a context ends, the error matches
// context.Canceled or context.DeadlineExceeded. An operation that returned an error has changed nothing, but for
// [ErrUncertain], and for Prune, RepairLedger and Move, which work in several transactions.
//
// # Engines
//
// SQLite and PostgreSQL give the same answers. See [Open] for what may be opened and [Move] for the way from one to the
// other.
package registry
