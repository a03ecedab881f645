// For the Atlas CLI (community edition is enough):
//
//   atlas migrate status --env sqlite --var url="sqlite:///srv/modelscan.db?_fk=1"
//   atlas migrate apply  --env sqlite --var url="sqlite:///srv/modelscan.db?_fk=1"
//
// The CLI and the library keep one history and may take turns.

variable "url" {
  type    = string
  default = "sqlite://modelscan.db?_fk=1"
}

env "sqlite" {
  url = var.url
  dev = "sqlite://dev?mode=memory&_fk=1"
  migration {
    dir = "file://migrate/sqlite"
  }
}
