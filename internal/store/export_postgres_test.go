package store

// What the tests of PostgreSQL reach into.
var (
	JudgeServer = judgeServer
	ParseURL    = parsePostgres
)

const (
	Farewell = farewell
	Patience = postgresPatience
)
