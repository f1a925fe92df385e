package custody

// ParseShare parses the plaintext of a share's file.
func ParseShare(plain []byte, s *Sharing) (*Share, error) { return parseShare(plain, s) }

// ParseRecoveryShare parses the plaintext of a share of a recovery key.
var ParseRecoveryShare = parseRecoveryShare

// Value returns the share's value.
func (x *RecoveryShare) Value() []byte { return x.value }
