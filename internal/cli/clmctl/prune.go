package clmctl

import "context"

func (k *keeper) prune(context.Context) {}
