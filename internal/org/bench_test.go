package org

import (
	"fmt"
	"testing"

	"github.com/testflow/testflow/internal/vault"
)

// BenchmarkAuthenticate is what every request pays: the token and one query.
func BenchmarkAuthenticate(b *testing.B) {
	h := newHouse(b)
	in, err := h.SignUp(b.Context(), input("ada"), browser)
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := h.Authenticate(b.Context(), in.AccessToken.Reveal(), nil); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkSignIn is a hash and a transaction of two events.
func BenchmarkSignIn(b *testing.B) {
	h := newHouse(b)
	in, err := h.SignUp(b.Context(), input("ada"), browser)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := h.SignIn(b.Context(), SignInInput{Email: in.User.Email, Password: vault.NewSecret(goodPassword)}, browser); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRefresh is a rotation, with as many tokens of others in the table as were rotated before.
func BenchmarkRefresh(b *testing.B) {
	h := newHouse(b)
	in, err := h.SignUp(b.Context(), input(fmt.Sprint("p", b.N)), browser)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if in, err = h.Refresh(b.Context(), in.RefreshToken, browser); err != nil {
			b.Fatal(err)
		}
	}
}
