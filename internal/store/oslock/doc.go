// Package oslock has locks between processes that die with their process,
// however it dies: leases on single devices, and the lock between renewing
// runs. The kernel keeps them, so there is nothing to clean up after a crash
// and no time after which a slow holder loses what it holds.
package oslock
