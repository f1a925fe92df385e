package custody

// ParseShare parses the plaintext of a share's file.
func ParseShare(plain []byte, s *Sharing) (*Share, error) { return parseShare(plain, s) }
