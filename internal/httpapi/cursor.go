package httpapi

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

const (
	cursorVersion = 1
	cursorMAC     = 16 // bytes of HMAC-SHA256, which nobody guesses
)

// pageLimit returns how many items a list gives.
func (s *Server) pageLimit(limit *int32) int {
	if limit == nil {
		return min(limits.DefaultPage, s.deps.Limits.PageSize)
	}
	return min(int(*limit), s.deps.Limits.PageSize)
}

// nextPage returns the cursor behind the last item of a page and the Link to it, both nil when next is nil. The cursor
// is signed and bound to organization, operation and filters, so that it is good for nothing else.
func nextPage[C any](ctx context.Context, s *Server, next *C) (cursor, link *string, err error) {
	if next == nil {
		return nil, nil, nil
	}
	payload, err := json.Marshal(next)
	if err != nil {
		return nil, nil, fmt.Errorf("write cursor: %w", err)
	}
	raw := append([]byte{cursorVersion}, s.signCursor(ctx, payload)...)
	text := base64.RawURLEncoding.EncodeToString(append(raw, payload...))
	r := requestOf(ctx)
	query := url.Values{}
	for name, values := range r.query {
		query[name] = values
	}
	query.Set("cursor", text)
	to := "<" + r.path + "?" + query.Encode() + `>; rel="next"`
	return &text, &to, nil
}

// after reads the cursor of a list; nil is the first page.
func after[C any](ctx context.Context, s *Server, cursor *string) (*C, error) {
	if cursor == nil {
		return nil, nil //nolint:nilnil // the first page has no cursor, and that is no error
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(*cursor)
	if err != nil || strings.ContainsAny(*cursor, "\r\n") || // which base64 skips
		len(raw) < 1+cursorMAC || raw[0] != cursorVersion {
		return nil, badCursor(err)
	}
	mac, payload := raw[1:1+cursorMAC], raw[1+cursorMAC:]
	if !hmac.Equal(mac, s.signCursor(ctx, payload)) {
		return nil, badCursor(nil)
	}
	c := new(C)
	if err := json.NewDecoder(bytes.NewReader(payload)).Decode(c); err != nil {
		return nil, badCursor(err)
	}
	return c, nil
}

func badCursor(cause error) error {
	e := fault.New(fault.Invalid, "cursor.invalid", "The cursor is not one of this list with these filters.").Because(cause)
	e.Fields = []fault.Field{{Parameter: "cursor", Detail: "must be the nextCursor of the page before, with the same filters"}}
	return e
}

// signCursor binds a cursor's payload to who asks and to what they ask. Each part goes in with its length, so that no
// two questions look the same.
func (s *Server) signCursor(ctx context.Context, payload []byte) []byte {
	r, who := requestOf(ctx), auth.From(ctx)
	mac := hmac.New(sha256.New, s.deps.CursorKey)
	part := func(b []byte) { fmt.Fprintf(mac, "%d:", len(b)); mac.Write(b) }
	part([]byte("testflow cursor"))
	part(who.OrgID[:])
	if r.op != nil && r.op.permission == permissionSelf {
		part(who.AccountID[:]) // the list is the person's, not the organization's
	}
	part([]byte(r.path))
	names := make([]string, 0, len(r.query))
	for name := range r.query {
		if name != "cursor" && name != "limit" && name != "minPosition" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		part([]byte(name))
		for _, value := range slices.Sorted(slices.Values(r.query[name])) {
			part([]byte(value))
		}
	}
	part(payload)
	return mac.Sum(nil)[:cursorMAC]
}
