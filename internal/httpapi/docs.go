package httpapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	swaggerfiles "github.com/swaggo/files/v2"

	"github.com/testflow/testflow/openapi"
)

// docsPage and docsScript show the document with Swagger UI; the script is ours, since the packaged one shows another
// document. `try it out` calls this server alone.
const (
	docsPage = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TestFlow API</title>
<link rel="stylesheet" href="/api-docs/swagger-ui.css">
<link rel="icon" type="image/png" sizes="32x32" href="/api-docs/favicon-32x32.png">
</head>
<body>
<div id="docs"><noscript>This page needs JavaScript. The document itself is at <a href="/openapi.yaml">/openapi.yaml</a>.</noscript></div>
<script src="/api-docs/swagger-ui-bundle.js"></script>
<script src="/api-docs/docs.js"></script>
</body>
</html>
`
	docsScript = `window.ui = SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#docs',
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: 'list',
  filter: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
`
	// docsPolicy: Swagger UI sets style attributes and shows its icons as data.
	docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// docsFiles are what the page loads of Swagger UI, with their types.
var docsFiles = map[string]string{
	"swagger-ui.css":       "text/css; charset=utf-8",
	"swagger-ui-bundle.js": "text/javascript; charset=utf-8",
	"favicon-32x32.png":    "image/png",
}

// asset is a file that never changes while the process lives, also packed.
type asset struct {
	mime, etag   string
	plain, gzip  []byte
	cacheControl string
}

func newAsset(mime string, data []byte, cacheControl string) (*asset, error) {
	sum := sha256.Sum256(data)
	a := &asset{mime: mime, plain: data, etag: `"` + hex.EncodeToString(sum[:8]) + `"`, cacheControl: cacheControl}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("pack an asset: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack an asset: %w", err)
	}
	a.gzip = b.Bytes()
	return a, nil
}

func (a *asset) serve(policy string) echo.HandlerFunc {
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Cross-Origin-Embedder-Policy", "require-corp")
		h.Set("Cache-Control", a.cacheControl)
		h.Set("ETag", a.etag)
		h.Add("Vary", "Accept-Encoding")
		if strings.Contains(c.Request().Header.Get("If-None-Match"), a.etag) {
			return c.NoContent(http.StatusNotModified)
		}
		data := a.plain
		if strings.Contains(c.Request().Header.Get("Accept-Encoding"), "gzip") {
			h.Set("Content-Encoding", "gzip")
			data = a.gzip
		}
		return c.Blob(http.StatusOK, a.mime, data)
	}
}

const noPolicy = "default-src 'none'; frame-ancestors 'none'"

// mountService adds the routes that aren't JSON or are handed in.
func (s *Server) mountService() error {
	s.echo.GET("/api/live", func(c echo.Context) error {
		s.deps.Live.ServeHTTP(c.Response(), c.Request())
		return nil
	})
	s.echo.GET("/health", s.healthz)
	s.echo.GET("/livez", s.livez)
	s.echo.GET("/readyz", s.readyz)
	s.echo.GET("/metrics", s.serveMetrics())
	doc, err := loadDocument()
	if err != nil {
		return fmt.Errorf("read the API document: %w", err)
	}
	asJSON, err := doc.MarshalJSON()
	if err != nil {
		return fmt.Errorf("write the API document as JSON: %w", err)
	}
	const fresh, day = "no-cache", "public, max-age=86400"
	for _, f := range []struct {
		path, mime, policy, cache string
		data                      []byte
	}{
		{"/openapi.yaml", "application/yaml; charset=utf-8", noPolicy, fresh, openapi.YAML},
		{"/asyncapi.yaml", "application/yaml; charset=utf-8", noPolicy, fresh, openapi.AsyncYAML},
		{"/openapi.json", "application/json", noPolicy, fresh, asJSON},
		{"/api-docs", "text/html; charset=utf-8", docsPolicy, fresh, []byte(docsPage)},
		{"/api-docs/docs.js", "text/javascript; charset=utf-8", noPolicy, fresh, []byte(docsScript)},
	} {
		a, err := newAsset(f.mime, f.data, f.cache)
		if err != nil {
			return err
		}
		s.echo.GET(f.path, a.serve(f.policy))
	}
	for name, mime := range docsFiles {
		data, err := fs.ReadFile(swaggerfiles.FS, name)
		if err != nil {
			return fmt.Errorf("read Swagger UI: %w", err)
		}
		a, err := newAsset(mime, data, day)
		if err != nil {
			return err
		}
		s.echo.GET("/api-docs/"+name, a.serve(noPolicy))
	}
	return nil
}

// sameToken compares without telling by its time where the two differ.
func sameToken(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
