package proof

// What tests see of the package.
var (
	Settled = settled
	Load    = (*Reader).load
	Faulty  = (*Day).faulty
)
