// Package ent is the generated client of the graph that ent/schema describes. Everything in
// this folder but this file and schema/ is generated and never edited.
package ent

//go:generate go run ../cmd/ent-generate
