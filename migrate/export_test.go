package migrate

// What the tests reach to work with other files than the embedded ones.
var (
	Files     = files
	Load      = load
	ApplyDir  = apply
	StatusDir = status
)
