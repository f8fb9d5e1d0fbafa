package mail

import (
	"context"
	"fmt"
	"time"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/mail/internal/maildb"
)

// late is how long a message may be tried before /health says so.
const late = 15 * time.Minute

// Check says what is wrong with the mail on its way: an error when messages wait for long or were given up. A server that
// refuses one recipient is no fault of ours.
func (s *Service) Check(ctx context.Context) error {
	if !s.Enabled() {
		return nil
	}
	b, err := maildb.New(s.DB.System).Backlog(ctx, late.Seconds())
	switch {
	case err != nil:
		return fmt.Errorf("look at the mail on its way: %w", err)
	case b.Late > 0 || b.Dead > 0:
		return fault.New(fault.Unavailable, "mail.backlog", "%d mails wait for longer than %s, %d were given up in the last day: %s.", b.Late, late, b.Dead, b.Problem)
	}
	return nil
}
