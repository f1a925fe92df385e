// Package sqlite keeps the inventory in one SQLite file.
//
// # Files
//
// The database and its companions (-wal, -shm) have mode 0600. Beside it lies
// leases.lock, for the leases on devices. The schema is in migrations/, one
// file for each version; Open brings an older database up to date in one
// transaction and refuses a later one untouched.
//
// # Durability
//
// The journal is a write-ahead log with synchronous = FULL: a commit appends
// to the log and syncs it, once (fdatasync); a power failure tears the last record at
// most, which its checksum reveals. A call that changes something returns
// after that sync.
//
// # Concurrency
//
// One goroutine writes (writer.go). What several callers want changed while it
// waits for the disk goes into its next transaction, each change in a
// savepoint of its own, so that one sync serves them all and a change that is
// refused touches no other. Readers have connections of their own and see the
// last commit. Other processes may have the file open too: a transaction
// begins with the write lock, so that what it compares is what it swaps.
package sqlite
