// For the Atlas CLI (community edition is enough):
//
//   atlas migrate status --env sqlite --var url="sqlite:///srv/modelscan.db?_fk=1"
//   atlas migrate apply  --env sqlite --var url="sqlite:///srv/modelscan.db?_fk=1"
//   atlas migrate status --env postgres --var postgres_url="postgres://localhost/modelscan?search_path=public"
//
// PostgreSQL's URL must say search_path=public (or the schema the library works in): else the CLI
// looks at the whole database, and for its history in a schema of its own.
//
// The CLI and the library keep one history and may take turns.

variable "url" {
  type    = string
  default = "sqlite://modelscan.db?_fk=1"
}

variable "postgres_url" {
  type    = string
  default = "postgres://localhost:5432/modelscan?search_path=public"
}

env "sqlite" {
  url = var.url
  dev = "sqlite://dev?mode=memory&_fk=1"
  migration {
    dir = "file://migrate/sqlite"
  }
}

env "postgres" {
  url = var.postgres_url
  migration {
    dir = "file://migrate/postgres"
  }
}
