package org

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/mail/mailtest"
	"github.com/testflow/testflow/internal/vault"
)

const newPassword = "TFCANARY seven brave otters"

// postHouse is a house that sends mail, into a box, and answers as fast as it can.
func postHouse(t *testing.T) (*house, *mailtest.Box) {
	t.Helper()
	h := newHouse(t)
	master, err := vault.NewMaster(vault.GenerateMasterKey())
	require.NoError(t, err)
	box := mailtest.New(t, h.db.DB, master, h.Log)
	h.Accounts.Mail, h.Accounts.LeastTime = box.Service, time.Millisecond
	return h, box
}

func adaAt(n int) account.Client {
	return account.Client{Address: fmt.Sprintf("198.51.100.%d", n), Agent: fmt.Sprintf("agent/%d", n), Request: "req"}
}

func (h *house) login(t *testing.T, name, password string, from account.Client) (SignedIn, error) {
	t.Helper()
	return h.SignIn(t.Context(), SignInInput{Email: name + "@example.com", Password: vault.NewSecret(password)}, from)
}

func (h *house) alive(t *testing.T, in SignedIn) bool {
	t.Helper()
	_, err := h.Authenticate(t.Context(), in.AccessToken.Reveal(), nil)
	if err != nil {
		require.Equal(t, "auth.session_ended", code(err))
	}
	return err == nil
}

func TestVerifyEmail(t *testing.T) {
	t.Parallel()
	h, box := postHouse(t)
	ada := h.signUp(t, "ada")
	require.False(t, ada.User.EmailVerified)
	ctx := h.as(t, ada)
	first := box.Code(t, "ada@example.com", "account.verify")
	require.NoError(t, h.ResendVerification(ctx))
	second := box.Code(t, "ada@example.com", "account.verify")
	require.NotEqual(t, first, second)

	for name, wrong := range map[string]string{
		"none": "", "not ours": "tfo_x", "another": "tfo_" + strings.Repeat("A", 43), "a refresh token": ada.RefreshToken.Reveal(),
		"bent": first[:len(first)-1], "twice": first + first,
	} {
		_, err := h.VerifyEmail(t.Context(), wrong, browser)
		require.Equal(t, "account.code_invalid", code(err), name)
		require.Equal(t, fault.Invalid, fault.KindOf(err), name)
	}
	position, err := h.VerifyEmail(t.Context(), " "+first+"\n", browser)
	require.NoError(t, err, "the older code is good too, until one is used")
	require.Positive(t, position)
	for _, used := range []string{first, second} {
		_, err = h.VerifyEmail(t.Context(), used, browser)
		require.Equal(t, "account.code_invalid", code(err))
	}
	me, err := h.Me(ctx)
	require.NoError(t, err)
	require.True(t, me.User.EmailVerified)
	require.NoError(t, h.ResendVerification(ctx))
	require.Equal(t, []string{"account.verify", "account.verify"}, box.Kinds(t, "ada@example.com"), "none for a verified address")
	require.Equal(t, 1, countOf(h.types(t, ada.User.ID), account.TypeEmailVerified))
	require.Equal(t, 1, countOf(h.types(t, ada.Organization.ID), TypeEmailVerified))
}

func TestVerifyEmail_codesAreForOnePurposeAddressAndTime(t *testing.T) {
	t.Parallel()
	h, box := postHouse(t)
	h.signUp(t, "ada")
	verify := box.Code(t, "ada@example.com", "account.verify")
	require.NoError(t, h.ForgotPassword(t.Context(), "ada@example.com", browser))
	reset := box.Code(t, "ada@example.com", "account.reset")
	_, err := h.VerifyEmail(t.Context(), reset, browser)
	require.Equal(t, "account.code_invalid", code(err), "a code for a password")
	_, err = h.ResetPassword(t.Context(), verify, vault.NewSecret(newPassword), browser)
	require.Equal(t, "account.code_invalid", code(err), "and the other way round")

	h.exec(t, "UPDATE accounts SET email = 'ada2@example.com'")
	_, err = h.VerifyEmail(t.Context(), verify, browser)
	require.Equal(t, "account.code_invalid", code(err), "it was sent to another address")
	_, err = h.ResetPassword(t.Context(), reset, vault.NewSecret(newPassword), browser)
	require.Equal(t, "account.code_invalid", code(err))
	h.exec(t, "UPDATE accounts SET email = 'ada@example.com'")
	h.exec(t, "UPDATE account_codes SET expires_at = now() - interval '1 second'")
	_, err = h.VerifyEmail(t.Context(), verify, browser)
	require.Equal(t, "account.code_invalid", code(err), "too late")
	_, err = h.ResetPassword(t.Context(), reset, vault.NewSecret(newPassword), browser)
	require.Equal(t, "account.code_invalid", code(err))
	require.Equal(t, 0, h.count(t, "SELECT count(*) FROM account_codes WHERE expires_at > created_at + CASE purpose WHEN 'reset_password' THEN interval '1 hour' ELSE interval '48 hours' END"))
	h.exec(t, "UPDATE account_codes SET expires_at = now() - interval '25 hours'")
	_, err = h.Accounts.Purge(t.Context())
	require.NoError(t, err)
	require.Zero(t, h.count(t, "SELECT count(*) FROM account_codes"))
}

func TestForgotAndReset(t *testing.T) {
	t.Parallel()
	h, box := postHouse(t)
	ada, bob := h.signUp(t, "ada"), h.signUp(t, "bob")
	phone, err := h.login(t, "ada", goodPassword, adaAt(1))
	require.NoError(t, err)
	require.NoError(t, h.ForgotPassword(t.Context(), " ADA@Example.com ", adaAt(9)))
	first := box.Code(t, "ada@example.com", "account.reset")
	require.NoError(t, h.ForgotPassword(t.Context(), "ada@example.com", adaAt(9)))
	second := box.Code(t, "ada@example.com", "account.reset")

	_, err = h.ResetPassword(t.Context(), second, vault.NewSecret("password123"), browser)
	require.Equal(t, []string{"/newPassword"}, pointers(err), "a bad password doesn't use the code up")
	position, err := h.ResetPassword(t.Context(), second, vault.NewSecret(newPassword), adaAt(9))
	require.NoError(t, err)
	require.Positive(t, position)
	for _, in := range []SignedIn{ada, phone} {
		require.False(t, h.alive(t, in), "every session ends")
		_, err = h.Refresh(t.Context(), in.RefreshToken, browser)
		require.Equal(t, "auth.session_ended", code(err))
	}
	require.True(t, h.alive(t, bob))
	for _, used := range []string{first, second} {
		_, err = h.ResetPassword(t.Context(), used, vault.NewSecret(newPassword+"!"), browser)
		require.Equal(t, "account.code_invalid", code(err), "one use, and it ends the others")
	}
	_, err = h.login(t, "ada", goodPassword, browser)
	require.Equal(t, "account.credentials_wrong", code(err))
	in, err := h.login(t, "ada", newPassword, browser)
	require.NoError(t, err)
	require.True(t, in.User.EmailVerified, "who reads its mail has the address")
	require.Equal(t, []string{"account.verify", "account.reset", "account.reset", "account.password_changed"}, box.Kinds(t, "ada@example.com"))
	require.Equal(t, 2, countOf(h.types(t, ada.User.ID), account.TypeResetRequested))
	require.Equal(t, 1, countOf(h.types(t, ada.User.ID), account.TypePasswordChanged))
	require.Equal(t, 2, countOf(h.types(t, ada.Organization.ID), TypePasswordResetRequested))
	require.Equal(t, 1, countOf(h.types(t, ada.Organization.ID), TypePasswordChanged))
}

func TestReset_manyAtOnce(t *testing.T) {
	t.Parallel()
	h, box := postHouse(t)
	h.signUp(t, "ada")
	require.NoError(t, h.ForgotPassword(t.Context(), "ada@example.com", browser))
	token := box.Code(t, "ada@example.com", "account.reset")
	var wg sync.WaitGroup
	results := make([]error, 8)
	for i := range results {
		wg.Go(func() {
			_, results[i] = h.ResetPassword(t.Context(), token, vault.NewSecret(fmt.Sprint(newPassword, i)), browser)
		})
	}
	wg.Wait()
	won := -1
	for i, err := range results {
		if err == nil {
			require.Equal(t, -1, won, "a code is good once")
			won = i
			continue
		}
		require.Equal(t, "account.code_invalid", code(err))
	}
	require.GreaterOrEqual(t, won, 0)
	_, err := h.login(t, "ada", fmt.Sprint(newPassword, won), browser)
	require.NoError(t, err)
}

// Somebody can fill nobody's mailbox, and what they do shows to nobody else.
func TestForgot_aFewMailsAnHour(t *testing.T) {
	t.Parallel()
	h, box := postHouse(t)
	h.signUp(t, "ada")
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() { assert.NoError(t, h.ForgotPassword(t.Context(), "ada@example.com", browser)) })
	}
	wg.Wait()
	require.Len(t, box.Kinds(t, "ada@example.com"), 1+5)
	for _, nobody := range []string{"nobody@example.com", "no address", "", "a@b@c", strings.Repeat("x", 300)} {
		require.NoError(t, h.ForgotPassword(t.Context(), nobody, browser))
	}
	require.Equal(t, 6, h.count(t, "SELECT count(*) FROM river.river_job"))
	h.exec(t, "UPDATE account_codes SET created_at = created_at - interval '61 minutes'")
	require.NoError(t, h.ForgotPassword(t.Context(), "ada@example.com", browser))
	require.Len(t, box.Kinds(t, "ada@example.com"), 7)
}

func TestPassword_whereNoMailIsSent(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	for _, email := range []string{"ada@example.com", "nobody@example.com"} {
		err := h.ForgotPassword(t.Context(), email, browser)
		require.Equal(t, "mail.not_configured", code(err), "the same for everybody")
		require.Equal(t, fault.Unavailable, fault.KindOf(err))
	}
	require.Equal(t, "mail.not_configured", code(h.ResendVerification(h.as(t, ada))))
	// The operator makes a code by hand.
	var token string
	require.NoError(t, h.DB.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) (err error) {
		token, err = h.Accounts.ResetCodeTx(ctx, tx, "Ada@Example.com")
		return err
	}))
	_, err := h.ResetPassword(t.Context(), token, vault.NewSecret(newPassword), browser)
	require.NoError(t, err)
	require.False(t, h.alive(t, ada))
	require.Equal(t, fault.NotFound, fault.KindOf(h.DB.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := h.Accounts.ResetCodeTx(ctx, tx, "nobody@example.com")
		return err
	})))
}

func TestChangePassword(t *testing.T) {
	t.Parallel()
	h, box := postHouse(t)
	ada := h.signUp(t, "ada")
	phone, err := h.login(t, "ada", goodPassword, adaAt(1))
	require.NoError(t, err)
	ctx := h.as(t, ada)
	change := func(current, next string) error {
		_, err := h.ChangePassword(ctx, vault.NewSecret(current), vault.NewSecret(next))
		return err
	}
	require.Equal(t, "account.password_wrong", code(change("TFCANARY wrong one", newPassword)))
	require.Equal(t, []string{"/newPassword"}, pointers(change(goodPassword, goodPassword)))
	require.Equal(t, []string{"/newPassword"}, pointers(change(goodPassword, "ada@example.com")))
	require.Equal(t, 1, h.count(t, "SELECT failed_count FROM accounts"), "a wrong one counts as a failed sign-in")
	require.True(t, h.alive(t, phone))
	require.NoError(t, change(goodPassword, newPassword))
	require.True(t, h.alive(t, ada), "the session that did it goes on")
	require.False(t, h.alive(t, phone), "the others end")
	_, err = h.login(t, "ada", goodPassword, browser)
	require.Equal(t, "account.credentials_wrong", code(err))
	_, err = h.login(t, "ada", newPassword, browser)
	require.NoError(t, err)
	require.Contains(t, box.Kinds(t, "ada@example.com"), "account.password_changed")
	_, err = h.ChangePassword(t.Context(), vault.NewSecret(newPassword), vault.NewSecret(goodPassword))
	require.Equal(t, fault.Unauthenticated, fault.KindOf(err))

	for _, e := range h.events(t, ada.Organization.ID) {
		if e.Type == TypePasswordChanged {
			var data MemberPasswordChanged
			require.NoError(t, json.Unmarshal(e.Data, &data))
			require.Equal(t, "person", data.By)
			require.Equal(t, []uuid.UUID{phone.SessionID}, data.Sessions)
		}
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	h, _ := postHouse(t)
	ada, bob := h.signUp(t, "ada"), h.signUp(t, "bob")
	phone, err := h.login(t, "ada", goodPassword, account.Client{Address: "2001:db8::7", Agent: "Mozilla/5.0 (iPhone) Version/19 Safari/604.1"})
	require.NoError(t, err)
	tablet, err := h.login(t, "ada", goodPassword, adaAt(3))
	require.NoError(t, err)
	ctx := h.as(t, ada)
	list, current, err := h.Sessions(ctx)
	require.NoError(t, err)
	require.Equal(t, ada.SessionID, current)
	require.Len(t, list, 3)
	i := slices.IndexFunc(list, func(s account.LiveSession) bool { return s.ID == phone.SessionID })
	require.Equal(t, "2001:db8::7", list[i].Address)
	require.Equal(t, "Safari on iPhone", account.Device(list[i].Agent))
	require.WithinDuration(t, list[i].CreatedAt.Add(30*24*time.Hour), list[i].ExpiresAt, time.Second)

	position, err := h.EndSession(ctx, phone.SessionID)
	require.NoError(t, err)
	require.Positive(t, position)
	require.False(t, h.alive(t, phone))
	for name, id := range map[string]uuid.UUID{"ended": phone.SessionID, "another's": bob.SessionID, "nobody's": newID(), "zero": uuid.Nil} {
		_, err = h.EndSession(ctx, id)
		require.Equal(t, fault.NotFound, fault.KindOf(err), name)
	}
	require.True(t, h.alive(t, bob))

	_, err = h.EndSessions(ctx, true)
	require.NoError(t, err)
	require.False(t, h.alive(t, tablet))
	require.True(t, h.alive(t, ada))
	position, err = h.EndSessions(ctx, true)
	require.NoError(t, err)
	require.Zero(t, position, "nothing to end, nothing to tell")
	_, err = h.EndSessions(ctx, false)
	require.NoError(t, err)
	require.False(t, h.alive(t, ada))
	require.True(t, h.alive(t, bob))
	require.Equal(t, 3, countOf(h.types(t, ada.User.ID), account.TypeSessionsEnded))
	require.Equal(t, 3, countOf(h.types(t, ada.Organization.ID), TypeSessionsEnded))
	// What a live stream asks every few seconds.
	_, err = h.Check(t.Context(), auth.From(ctx))
	require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
}

func TestConfirmedRegistration(t *testing.T) {
	t.Parallel()
	h, box := postHouse(t)
	h.Policy = Confirmed
	ada := h.signUp(t, "ada")
	require.False(t, ada.Pending, "the first one is the operator's")
	bob, err := h.SignUp(t.Context(), input("bob"), browser)
	require.NoError(t, err)
	require.Equal(t, SignedIn{Pending: true}, bob)
	require.Equal(t, 1, h.count(t, "SELECT count(*) FROM accounts"), "nothing was made")
	_, err = h.login(t, "bob", goodPassword, browser)
	require.Equal(t, "account.credentials_wrong", code(err), "nor does signing in tell")
	token := box.Code(t, "bob@example.com", "account.confirm")

	taken, err := h.SignUp(t.Context(), input("ada"), browser)
	require.NoError(t, err)
	require.Equal(t, bob, taken, "the answer is the same")
	require.Contains(t, box.Kinds(t, "ada@example.com"), "account.registration_tried")
	require.Equal(t, 1, countOf(h.types(t, ada.User.ID), account.TypeRegistrationTried))

	_, err = h.ConfirmSignUp(t.Context(), token, vault.NewSecret(newPassword), browser)
	require.Equal(t, "account.password_wrong", code(err))
	_, err = h.ConfirmSignUp(t.Context(), "tfo_"+strings.Repeat("A", 43), vault.NewSecret(goodPassword), browser)
	require.Equal(t, "account.code_invalid", code(err))
	in, err := h.ConfirmSignUp(t.Context(), token, vault.NewSecret(goodPassword), browser)
	require.NoError(t, err)
	require.True(t, in.User.EmailVerified)
	require.Equal(t, "bob's", in.Organization.Name)
	require.False(t, in.User.Operator)
	require.True(t, h.alive(t, in))
	_, err = h.ConfirmSignUp(t.Context(), token, vault.NewSecret(goodPassword), browser)
	require.Equal(t, "account.code_invalid", code(err), "good once")
	require.Zero(t, h.count(t, "SELECT count(*) FROM pending_registrations"))
	require.Equal(t, []string{"account.confirm"}, box.Kinds(t, "bob@example.com"), "the address needs no second code")
}

// Somebody registers with another's address and a password of their own, and hopes that the owner confirms it.
func TestAttack_confirmedRegistration_isNotHijacked(t *testing.T) {
	t.Parallel()
	h, box := postHouse(t)
	h.Policy = Confirmed
	h.signUp(t, "ada")
	evil := input("vic")
	evil.Password = vault.NewSecret("purple thieves juggle 7 kettles")
	_, err := h.SignUp(t.Context(), evil, adaAt(66))
	require.NoError(t, err)
	theirs := box.Code(t, "vic@example.com", "account.confirm")
	_, err = h.SignUp(t.Context(), input("vic"), browser)
	require.NoError(t, err)
	own := box.Code(t, "vic@example.com", "account.confirm")
	_, err = h.ConfirmSignUp(t.Context(), theirs, vault.NewSecret(goodPassword), browser)
	require.Equal(t, "account.password_wrong", code(err), "the owner's password isn't the thief's")
	_, err = h.ConfirmSignUp(t.Context(), own, vault.NewSecret(goodPassword), browser)
	require.NoError(t, err)
	_, err = h.ConfirmSignUp(t.Context(), theirs, evil.Password, adaAt(66))
	require.Equal(t, "account.code_invalid", code(err), "and afterwards there is nothing to confirm")
	_, err = h.login(t, "vic", evil.Password.Reveal(), adaAt(66))
	require.Equal(t, "account.credentials_wrong", code(err))
}

func TestSignUp_addressTaken_tellsItsOwner(t *testing.T) {
	t.Parallel()
	h, box := postHouse(t)
	ada := h.signUp(t, "ada")
	for range 9 {
		_, err := h.SignUp(t.Context(), input("ada"), adaAt(5))
		require.Equal(t, "account.email_taken", code(err))
	}
	require.Equal(t, 5, countOf(box.Kinds(t, "ada@example.com"), "account.registration_tried"), "a few an hour")
	require.Equal(t, 5, countOf(h.types(t, ada.User.ID), account.TypeRegistrationTried))
}

func TestRefreshReuse_isMailed(t *testing.T) {
	t.Parallel()
	h, box := postHouse(t)
	ada := h.signUp(t, "ada")
	_, err := h.Refresh(t.Context(), ada.RefreshToken, browser)
	require.NoError(t, err)
	_, err = h.Refresh(t.Context(), ada.RefreshToken, adaAt(66))
	require.Equal(t, "auth.refresh_reused", code(err))
	_, err = h.Refresh(t.Context(), ada.RefreshToken, adaAt(66))
	require.Error(t, err)
	require.Equal(t, 1, countOf(box.Kinds(t, "ada@example.com"), "account.refresh_reused"), "once")
	letters := box.To(t, "ada@example.com")
	require.Contains(t, letters[len(letters)-1].Text, "198.51.100.66")
}

// What somebody calls themselves or their client is no way into a mail, and no secret is stored or logged on the way.
func TestMails_holdWhatTheyMust(t *testing.T) {
	t.Parallel()
	h, box := postHouse(t)
	in := input("o'brien|x")
	in.Name = "Ada <b>'; rm -rf ~; '"
	_, err := h.SignUp(t.Context(), in, browser)
	require.NoError(t, err)
	address := "o'brien|x@example.com"
	require.NoError(t, h.ForgotPassword(t.Context(), address, account.Client{Address: "203.0.113.5\r\nBcc: x", Agent: "x\r\nBcc: eve@example.com"}))
	for _, l := range box.To(t, address) {
		require.NotContains(t, l.Text, "\r\nBcc", l.Kind)
		require.Contains(t, l.Text, "https://testflow.example/api/auth/", "a line that works")
		require.NotContains(t, l.Text, "?token=", "no code in an address")
		for line := range strings.SplitSeq(l.Text, "\n") {
			if strings.Contains(line, "-d '") {
				require.Zero(t, strings.Count(strings.ReplaceAll(line, `'\''`, ""), "'")%2, "an open quote: %s", line)
			}
		}
	}
	verify := box.Code(t, address, "account.verify")
	var stored string
	require.NoError(t, h.db.System.QueryRow(t.Context(), `SELECT (SELECT string_agg(c::text, '') FROM account_codes c) || (SELECT string_agg(j::text, '') FROM river.river_job j)`).Scan(&stored))
	require.NotContains(t, stored, verify)
	require.NotContains(t, h.log.String(), verify)
	require.NotContains(t, h.log.String(), "o'brien")
}

// Fifty who hold the same refresh token use it at the same moment, from fifty places: one may win the race, and nothing
// that any of them holds is worth anything afterwards.
func TestAttack_refresh_replayedByFiftyAtOnce(t *testing.T) {
	t.Parallel()
	h, box := postHouse(t)
	ada := h.signUp(t, "ada")
	other, err := h.login(t, "ada", goodPassword, browser)
	require.NoError(t, err)
	var wg sync.WaitGroup
	got, errs := make([]SignedIn, 50), make([]error, 50)
	for i := range got {
		wg.Go(func() { got[i], errs[i] = h.Refresh(t.Context(), ada.RefreshToken, adaAt(i)) })
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		if err == nil {
			won++
			require.False(t, h.alive(t, got[i]), "the family has ended")
			_, err = h.Refresh(t.Context(), got[i].RefreshToken, adaAt(i))
			require.Equal(t, "auth.session_ended", code(err))
			continue
		}
		require.Contains(t, []string{"auth.refresh_reused", "auth.session_ended"}, code(err))
	}
	require.Equal(t, 1, won, "one statement marks it used")
	require.False(t, h.alive(t, ada))
	require.True(t, h.alive(t, other), "another sign-in lives on")
	require.Equal(t, 1, countOf(h.types(t, ada.User.ID), account.TypeRefreshReused))
	require.Equal(t, 1, countOf(h.types(t, ada.Organization.ID), TypeRefreshReused))
	require.Equal(t, 1, countOf(box.Kinds(t, "ada@example.com"), "account.refresh_reused"))
}
