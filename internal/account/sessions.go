package account

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account/internal/accountdb"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
)

// maxListed is how many sessions are shown; a person with more has lost count long before.
const maxListed = 200

// LiveSession is a session as its person sees it.
type LiveSession struct {
	ID         uuid.UUID
	CreatedAt  time.Time
	LastSeenAt time.Time // of the sign-in or the last refresh
	ExpiresAt  time.Time // whatever is done with it
	Address    string
	Agent      string
}

// Sessions returns the sessions of an account that live, the last used first.
func (s *Service) Sessions(ctx context.Context, accountID uuid.UUID) ([]LiveSession, error) {
	rows, err := accountdb.New(s.DB.System).ListSessions(ctx, accountdb.ListSessionsParams{AccountID: accountID, RowLimit: maxListed})
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	list := make([]LiveSession, 0, len(rows))
	for _, r := range rows {
		list = append(list, LiveSession{
			ID: r.SessionID, CreatedAt: r.CreatedAt, LastSeenAt: r.LastSeenAt, ExpiresAt: r.ExpiresAt, Address: r.Address, Agent: r.Agent,
		})
	}
	return list, nil
}

// RevokeTx ends one session of an account, or returns fault.NotFound for one that isn't theirs or lives no more.
func (s *Service) RevokeTx(ctx context.Context, tx pgx.Tx, session Session, from Client) (SessionsEnded, eventstore.Appended, error) {
	ended, err := s.endTx(ctx, tx, session, endRevoked)
	if err != nil {
		return SessionsEnded{}, eventstore.Appended{}, err
	}
	if !ended {
		return SessionsEnded{}, eventstore.Appended{}, fault.New(fault.NotFound, "account.session_not_found", "You have no such session, or it has ended.")
	}
	event := SessionsEnded{Sessions: []uuid.UUID{session.ID}}
	done, err := s.Store.Append(ctx, tx, stream(session.AccountID), eventstore.AnyVersion, from.Actor(session.AccountID), event)
	return event, done, err
}

// RevokeAllTx ends the sessions of an account, but for the spared one (uuid.Nil = none), and records it.
func (s *Service) RevokeAllTx(ctx context.Context, tx pgx.Tx, accountID, spared uuid.UUID, from Client) (SessionsEnded, eventstore.Appended, error) {
	ended, err := s.endAllTx(ctx, tx, accountID, spared, endRevoked)
	if err != nil || len(ended) == 0 {
		return SessionsEnded{Sessions: ended}, eventstore.Appended{}, err
	}
	event := SessionsEnded{Sessions: ended}
	done, err := s.Store.Append(ctx, tx, stream(accountID), eventstore.AnyVersion, from.Actor(accountID), event)
	return event, done, err
}

func (*Service) endAllTx(ctx context.Context, tx pgx.Tx, accountID, spared uuid.UUID, reason string) ([]uuid.UUID, error) {
	ended, err := accountdb.New(tx).EndSessions(ctx, accountdb.EndSessionsParams{Reason: &reason, AccountID: accountID, Spared: spared})
	if err != nil {
		return nil, fmt.Errorf("end sessions: %w", err)
	}
	if ended == nil {
		ended = []uuid.UUID{}
	}
	return ended, nil
}

// What a User-Agent says of browsers and systems; of several that fit, the first is meant, since every browser also says
// that it is another.
var (
	browsers = []struct{ token, name string }{
		{"Edg/", "Edge"},
		{"OPR/", "Opera"},
		{"Vivaldi/", "Vivaldi"},
		{"SamsungBrowser/", "Samsung Internet"},
		{"Firefox/", "Firefox"},
		{"FxiOS/", "Firefox"},
		{"CriOS/", "Chrome"},
		{"Chrome/", "Chrome"},
		{"Safari/", "Safari"},
	}
	systems = []struct{ token, name string }{
		{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"Windows", "Windows"}, {"CrOS", "ChromeOS"}, {"Mac OS X", "macOS"}, {"Linux", "Linux"},
	}
	program = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9._-]{0,39})/v?([0-9][0-9.]{0,19})`)
)

// Device says in plain words what a User-Agent is, such as "Firefox on Linux" or "curl 8.5.0"; text that says nothing is
// "unknown device". It is for people: anybody can send any User-Agent.
func Device(agent string) string {
	on := ""
	for _, s := range systems {
		if strings.Contains(agent, s.token) {
			on = " on " + s.name
			break
		}
	}
	if strings.HasPrefix(agent, "Mozilla/") {
		for _, b := range browsers {
			if strings.Contains(agent, b.token) {
				return b.name + on
			}
		}
		return "browser" + on
	}
	if m := program.FindStringSubmatch(agent); m != nil {
		return m[1] + " " + m[2]
	}
	return "unknown device"
}
