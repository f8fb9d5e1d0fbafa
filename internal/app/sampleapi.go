package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// sampleAPI is the small pet store that the demo's tests talk to: fast, slow, flaky and broken routes, so that every
// kind of result can be seen without reaching out of the machine. It listens on loopback only, and forgets at its end.
type sampleAPI struct {
	// Address is where it listens, as host:port; set by listen.
	Address string

	listener net.Listener
	server   *http.Server
	calls    atomic.Int64 // of the flaky route: every third one fails

	mu   sync.Mutex
	born []pet // by POST /pets: the last maxBorn of them
	last int   // id that was given last
}

// maxBorn bounds what visitors can make it remember.
const maxBorn = 100

type pet struct {
	ID   int      `json:"id"`
	Name string   `json:"name"`
	Kind string   `json:"kind"`
	Tags []string `json:"tags"`
}

var pets = []pet{
	{ID: 1, Name: "Ada", Kind: "cat", Tags: []string{"calm", "indoor"}},
	{ID: 2, Name: "Linus", Kind: "penguin", Tags: []string{"cold"}},
	{ID: 3, Name: "Grace", Kind: "dog", Tags: []string{"loud", "outdoor"}},
}

// listen takes a port of 127.0.0.1: the preferred one or, where that one is taken, any free one.
func (s *sampleAPI) listen(ctx context.Context, preferred int) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(preferred)))
	if err != nil {
		if l, err = lc.Listen(ctx, "tcp4", "127.0.0.1:0"); err != nil {
			return fmt.Errorf("listen for the sample API on loopback: %w", err)
		}
	}
	s.listener = l
	s.Address = l.Addr().String()
	s.server = &http.Server{Handler: s.routes(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	return nil
}

// serve answers until ctx ends.
func (s *sampleAPI) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.server.Close() }) // closing is the end; its error has no reader
	defer stop()
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the sample API: %w", err)
	}
	return nil
}

func (s *sampleAPI) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /pets", func(w http.ResponseWriter, r *http.Request) {
		found := pets
		if kind := r.URL.Query().Get("kind"); kind != "" {
			found = nil
			for _, p := range pets {
				if p.Kind == kind {
					found = append(found, p)
				}
			}
		}
		answer(w, http.StatusOK, map[string]any{"items": found, "total": len(found)})
	})
	mux.HandleFunc("POST /pets", s.create)
	mux.HandleFunc("GET /pets/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if p, ok := s.pet(id); err == nil && ok {
			answer(w, http.StatusOK, p)
			return
		}
		answer(w, http.StatusNotFound, map[string]string{"error": "no such pet"})
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ User string }
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&in); err != nil || in.User == "" {
			answer(w, http.StatusBadRequest, map[string]string{"error": `send {"user":"…"}`})
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "s-" + in.User, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: false}) //nolint:gosec // the sample API speaks plain HTTP on loopback
		answer(w, http.StatusCreated, map[string]string{"token": "t-" + in.User})
	})
	mux.HandleFunc("GET /profile", func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("session")
		if err != nil || r.Header.Get("Authorization") != "Bearer t-"+c.Value[min(2, len(c.Value)):] {
			answer(w, http.StatusUnauthorized, map[string]string{"error": "sign in first"})
			return
		}
		answer(w, http.StatusOK, map[string]any{"user": c.Value[2:], "plan": "demo"})
	})
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(1200 * time.Millisecond):
			answer(w, http.StatusOK, map[string]string{"status": "finally"})
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("GET /flaky", func(w http.ResponseWriter, _ *http.Request) {
		if s.calls.Add(1)%3 == 0 {
			answer(w, http.StatusServiceUnavailable, map[string]string{"status": "down"})
			return
		}
		answer(w, http.StatusOK, map[string]string{"status": "up"})
	})
	mux.HandleFunc("GET /broken", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusInternalServerError, map[string]string{"error": "the database is on fire"})
	})
	mux.HandleFunc("GET /old-pets", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/pets", http.StatusMovedPermanently)
	})
	return mux
}

// create makes a pet of {"name", "kind"} and answers 201 with it.
func (s *sampleAPI) create(w http.ResponseWriter, r *http.Request) {
	var in pet
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&in); err != nil || in.Name == "" {
		answer(w, http.StatusBadRequest, map[string]string{"error": `send {"name":"…"}`})
		return
	}
	s.mu.Lock()
	s.last = max(s.last, len(pets)) + 1
	in.ID, in.Tags = s.last, []string{"new"}
	s.born = append(s.born, in)
	s.born = s.born[max(0, len(s.born)-maxBorn):]
	s.mu.Unlock()
	w.Header().Set("Location", "/pets/"+strconv.Itoa(in.ID))
	answer(w, http.StatusCreated, in)
}

// pet returns the one with that id, of the first ones or of those that were made.
func (s *sampleAPI) pet(id int) (pet, bool) {
	if id >= 1 && id <= len(pets) {
		return pets[id-1], true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.born {
		if p.ID == id {
			return p, true
		}
	}
	return pet{}, false
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client went away; there is nobody left to tell
}
