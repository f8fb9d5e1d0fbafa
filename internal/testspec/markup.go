package testspec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"

	"github.com/antchfx/htmlquery"
	"github.com/antchfx/xmlquery"
	"github.com/antchfx/xpath"
	"golang.org/x/net/html"

	"github.com/testflow/testflow/internal/limits"
)

// markup is text read as XML or as HTML. Exactly one of xml, html and why is set.
type markup struct {
	xml  *xmlquery.Node
	html *html.Node
	// nodes bounds how many nodes there are from above, depth is how deep they nest at most.
	nodes, depth int
	// siblings is the most children that one node has.
	siblings int
	why      string // a clause: why it cannot be read
}

// navigator returns a cursor of the XPath library at the document's root.
func (m *markup) navigator() xpath.NodeNavigator {
	if m.xml != nil {
		return xmlquery.CreateXPathNavigator(m.xml)
	}
	return htmlquery.CreateXPathNavigator(m.html)
}

// document returns the body as XML or HTML, as its content type says; without one that says either, it is XML when it
// begins as XML does.
func (s *Subject) markupOf(ctx context.Context) *markup {
	if s.markup == nil {
		contentType := s.Header.Get("Content-Type")
		s.markup = readMarkup(ctx, s.Body, contentType, isXML(contentType, s.Body))
	}
	return s.markup
}

// isXML says whether a body is to be read as XML.
func isXML(contentType string, body []byte) bool {
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case err == nil && (media == "text/html" || media == "application/xhtml+xml"):
		return false
	case err == nil && (media == "text/xml" || media == "application/xml" || strings.HasSuffix(media, "+xml")):
		return true
	}
	return bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(body, bomUTF8), " \t\r\n"), []byte("<?xml"))
}

// ctxReader ends reading when its context is done, so that a parser can be stopped, and hands out little at a time.
type ctxReader struct {
	ctx context.Context //nolint:containedctx // lives as long as one parsing
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err //nolint:wrapcheck // readMarkup words it
	}
	return c.r.Read(p[:min(len(p), 4<<10)]) //nolint:wrapcheck // io.EOF must stay itself
}

// readMarkup reads a body under limits.MaxMarkupBytes, limits.MaxMarkupNodes and limits.MaxMarkupDepth. Entities of a
// document type are not known and nothing is ever loaded: a document that uses them cannot be read.
func readMarkup(ctx context.Context, body []byte, contentType string, asXML bool) *markup {
	what := "HTML"
	if asXML {
		what = "XML"
	}
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return &markup{why: "the body is empty"}
	case len(body) > limits.MaxMarkupBytes:
		return &markup{why: fmt.Sprintf("the body is longer than the %d bytes that are read as %s", limits.MaxMarkupBytes, what)}
	case bytes.Count(body, []byte{'<'}) > limits.MaxMarkupNodes || bytes.Count(body, []byte{'='}) > limits.MaxMarkupNodes:
		return &markup{why: fmt.Sprintf("the body holds more than %d elements or attributes", limits.MaxMarkupNodes)}
	}
	ctx, stop := context.WithTimeout(ctx, selectorTime(ctx))
	defer stop()
	var m *markup
	if asXML {
		m = readXML(ctx, body, contentType)
	} else {
		m = readHTML(ctx, body, contentType)
	}
	switch {
	case m.why != "":
	case ctx.Err() != nil:
		return &markup{why: "the body takes too long to read as " + what}
	case m.depth > limits.MaxMarkupDepth:
		return &markup{why: fmt.Sprintf("the body nests deeper than %d elements", limits.MaxMarkupDepth)}
	}
	return m
}

func readXML(ctx context.Context, body []byte, contentType string) *markup {
	// The charset of the transport wins over the document's own declaration (RFC 7303), which then must not be heeded.
	decoder := &xmlquery.DecoderOptions{Strict: true}
	if charsetOf(body, contentType) != nil || bytes.HasPrefix(body, bomUTF8) {
		body = []byte(decodeText(body, contentType))
		decoder.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	} else {
		decoder.CharsetReader = xmlCharset
	}
	if why := scanXML(ctx, body, decoder.CharsetReader); why != "" {
		return &markup{why: why}
	}
	doc, err := xmlquery.ParseWithOptions(ctxReader{ctx, bytes.NewReader(body)}, xmlquery.ParserOptions{Decoder: decoder})
	if err != nil {
		return &markup{why: "the body is not XML"}
	}
	dropInstructions(doc)
	m := &markup{xml: doc}
	for n, depth := doc, 0; n != nil; {
		m.nodes += 1 + len(n.Attr)
		switch {
		case n.FirstChild != nil:
			n = n.FirstChild
			depth++
			m.depth = max(m.depth, depth)
			continue
		}
		for n != nil && n.NextSibling == nil {
			n = n.Parent
			depth--
		}
		if n != nil {
			n = n.NextSibling
		}
	}
	return m
}

func xmlCharset(label string, in io.Reader) (io.Reader, error) {
	enc, why := charsetNamed(label)
	if why != "" {
		return nil, errors.New(why)
	}
	if enc == nil {
		return in, nil
	}
	return enc.NewDecoder().Reader(in), nil
}

func readHTML(ctx context.Context, body []byte, contentType string) *markup {
	text := []byte(decodeHTML(body, contentType))
	doc, err := html.Parse(ctxReader{ctx, bytes.NewReader(text)})
	if err != nil {
		return &markup{why: "the body cannot be read as HTML: it nests too deep"}
	}
	m := &markup{html: doc}
	for n := range doc.Descendants() {
		m.nodes += 1 + len(n.Attr)
	}
	m.measure(doc, 0)
	return m
}

// measure notes depth and siblings. HTML nests at most 512 elements deep, which its parser sees to.
func (m *markup) measure(n *html.Node, depth int) {
	m.depth = max(m.depth, depth)
	kids := 0
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		kids++
		m.measure(c, depth+1)
	}
	m.siblings = max(m.siblings, kids)
}

// dropInstructions takes processing instructions out of a document: to the XPath library they are elements, so that /*
// selected two where a stylesheet is named.
func dropInstructions(doc *xmlquery.Node) {
	var drop []*xmlquery.Node
	for n := doc; n != nil; {
		if n.Type == xmlquery.ProcessingInstruction {
			drop = append(drop, n)
		}
		if n.FirstChild != nil {
			n = n.FirstChild
			continue
		}
		for n != nil && n.NextSibling == nil {
			n = n.Parent
		}
		if n != nil {
			n = n.NextSibling
		}
	}
	for _, n := range drop {
		xmlquery.RemoveFromTree(n)
	}
}
