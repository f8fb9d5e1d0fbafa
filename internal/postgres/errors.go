package postgres

import (
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SQLState returns the five-letter SQLSTATE of the Postgres error in err, or "" when there is none.
func SQLState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// ConstraintName returns the constraint that err says was violated, or "".
func ConstraintName(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.ConstraintName
	}
	return ""
}

// IsUniqueViolation says whether err is a unique violation of the named constraint or index; "" means any.
func IsUniqueViolation(err error, constraint string) bool {
	return violates(err, "23505", constraint)
}

// IsForeignKeyViolation says whether err is a foreign key violation of the named constraint; "" means any.
func IsForeignKeyViolation(err error, constraint string) bool {
	return violates(err, "23503", constraint)
}

// IsCheckViolation says whether err is a violation of the named CHECK constraint; "" means any.
func IsCheckViolation(err error, constraint string) bool {
	return violates(err, "23514", constraint)
}

// IsNoRows says whether a query that had to find a row found none.
func IsNoRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

// IsRetryable says whether the same transaction, begun anew, may well succeed: serialization failures, deadlocks,
// lock timeouts, a server that starts, stops or is full, and connections lost before anything was sent. After a lost
// COMMIT the outcome is unknown, and only work that is idempotent may be repeated: see IsUnknownOutcome.
func IsRetryable(err error) bool {
	switch state := SQLState(err); state {
	case "40001", "40P01", "55P03", "53300", "57P01", "57P02", "57P03":
		return true
	case "":
		return pgconn.SafeToRetry(err) || IsConnect(err)
	default:
		return strings.HasPrefix(state, "08")
	}
}

// IsUnknownOutcome says whether the connection broke when something had been sent, so that a commit may or may not
// have happened.
func IsUnknownOutcome(err error) bool {
	return err != nil && SQLState(err) == "" && !pgconn.SafeToRetry(err) && !IsConnect(err) && !errors.Is(err, pgx.ErrNoRows) && isNetwork(err)
}

// IsConnect says whether no connection could be made at all.
func IsConnect(err error) bool {
	var ce *pgconn.ConnectError
	return errors.As(err, &ce)
}

// IsUnavailable says whether the database could not be reached or turned us away for want of room: an answer of "try
// again later" is right.
func IsUnavailable(err error) bool {
	switch state := SQLState(err); state {
	case "53300", "53400", "57P01", "57P02", "57P03", "25006":
		return true
	case "":
		return err != nil && (pgconn.SafeToRetry(err) || IsConnect(err) || isNetwork(err))
	default:
		return strings.HasPrefix(state, "08") || strings.HasPrefix(state, "53")
	}
}

func violates(err error, state, constraint string) bool {
	return SQLState(err) == state && (constraint == "" || ConstraintName(err) == constraint)
}

// isNetwork says whether err came from the socket rather than from the server or from us.
func isNetwork(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || pgconn.Timeout(err)
}
