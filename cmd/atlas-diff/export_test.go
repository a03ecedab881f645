package main

// Run is the command, for the tests.
var Run = run
