package targettest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"strings"
	"testing"
)

// recorded keeps what is written to a connection.
type recorded struct {
	net.Conn
	sent bytes.Buffer
}

func (c *recorded) Write(p []byte) (int, error) {
	c.sent.Write(p)
	return c.Conn.Write(p) //nolint:wrapcheck // a connection's own error
}

// startRenegotiating speaks TLS 1.2 and, in place of an answer, asks to shake hands anew. Go's own TLS can't ask for that,
// so the one record is made by hand from the session's keys.
func (s *Server) startRenegotiating(tb testing.TB, cert tls.Certificate) string {
	tb.Helper()
	return s.startRaw(tb, func(raw net.Conn) {
		var log bytes.Buffer
		c := &recorded{Conn: raw}
		secured := tls.Server(c, &tls.Config{
			Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, KeyLogWriter: &log,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}, SessionTicketsDisabled: true,
		})
		if secured.HandshakeContext(tb.Context()) != nil {
			return
		}
		buf := make([]byte, 4096)
		if _, err := secured.Read(buf); err != nil {
			return
		}
		record, ok := helloRequest(log.String(), c.sent.Bytes())
		if !ok {
			return
		}
		_, _ = raw.Write(record)
		_, _ = raw.Read(buf) // what it says to that
	})
}

// helloRequest is the record of a HelloRequest, the server's second one under its keys (its Finished was the first).
func helloRequest(keyLog string, sent []byte) ([]byte, bool) {
	words := strings.Fields(keyLog)
	const randomAt = 5 + 4 + 2 // of ServerHello: behind the heads of record and message, and the version
	if len(words) != 3 || len(sent) < randomAt+32 {
		return nil, false
	}
	clientRandom, err := hex.DecodeString(words[1])
	if err != nil {
		return nil, false
	}
	master, err := hex.DecodeString(words[2])
	if err != nil {
		return nil, false
	}
	seed := append(append([]byte("key expansion"), sent[randomAt:randomAt+32]...), clientRandom...)
	keys := prf(master, seed, 2*16+2*4)
	aes128, err := aes.NewCipher(keys[16:32])
	if err != nil {
		return nil, false
	}
	gcm, err := cipher.NewGCM(aes128)
	if err != nil {
		return nil, false
	}
	message := []byte{0, 0, 0, 0} // HelloRequest, empty
	sequence := binary.BigEndian.AppendUint64(nil, 1)
	nonce := append(append([]byte{}, keys[36:40]...), sequence...)
	additional := append(append([]byte{}, sequence...), 22, 3, 3, 0, byte(len(message)))
	sealed := gcm.Seal(sequence, nonce, message, additional)
	return append([]byte{22, 3, 3, 0, byte(len(sealed))}, sealed...), true
}

// prf is TLS 1.2's P_SHA256 (RFC 5246, 5).
func prf(secret, seed []byte, n int) []byte {
	mac := func(data ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, d := range data {
			_, _ = h.Write(d) // never fails
		}
		return h.Sum(nil)
	}
	var out []byte
	for a := mac(seed); len(out) < n; a = mac(a) {
		out = append(out, mac(a, seed)...)
	}
	return out[:n]
}
