"""Events, the log, the hash chain, snapshots and upcasting. Imports nothing else of the project."""
