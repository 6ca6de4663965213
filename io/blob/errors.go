package blob

import (
	"errors"
	"fmt"
)

// What callers may tell apart with errors.Is. All errors of this package also
// name the operation and the URL.
var (
	ErrNotFound   = errors.New("not found")
	ErrExists     = errors.New("already exists")
	ErrChanged    = errors.New("changed since it was read")
	ErrPermission = errors.New("permission denied")
	ErrScheme     = errors.New("unknown URL scheme")
)

func fail(op, url string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("blob: %s %s: %w", op, url, err)
}

// denied is ErrPermission saying which permission would have been needed.
func denied(permission string, cause error) error {
	return fmt.Errorf("%w: this needs %s: %w", ErrPermission, permission, cause)
}
