package testspec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/andybalholm/cascadia"
	"golang.org/x/net/html"
	"golang.org/x/net/html/charset"

	"github.com/testflow/testflow/internal/limits"
)

// compiledCSS is a CSS selector ready to run.
type compiledCSS struct {
	group cascadia.SelectorGroup
	// attribute is what is read of each element, "" its text.
	attribute string
	// climbs is how many combinators look at every ancestor or sibling, scans how many pseudo-classes look below or beside.
	climbs, scans int
}

// splitCSS takes `a.next@href` apart. An @ within brackets or quotes belongs to the selector.
func splitCSS(selector string) (css, attribute string) {
	at := strings.LastIndexByte(selector, '@')
	if at < 0 || strings.ContainsAny(selector[at:], `]")' `) {
		return selector, ""
	}
	return selector[:at], selector[at+1:]
}

// compileCSS parses a selector. The error's text is a clause.
func compileCSS(selector string) (*compiledCSS, error) {
	if len(selector) > limits.MaxProperty {
		return nil, fmt.Errorf("a CSS selector has at most %d bytes", limits.MaxProperty)
	}
	css, attribute := splitCSS(selector)
	if attribute == "" && len(css) < len(selector) {
		return nil, errors.New("behind the @ the name of an attribute is missing")
	}
	group, err := cascadia.ParseGroup(css)
	if err != nil {
		return nil, fmt.Errorf("this is not a CSS selector: %s", shorten(strings.ToValidUTF8(err.Error(), "\ufffd"), 200))
	}
	for _, one := range group {
		if one.PseudoElement() != "" {
			return nil, errors.New("a pseudo-element selects no element")
		}
	}
	c := &compiledCSS{group: group, attribute: attribute}
	c.climbs, c.scans = costOfCSS(css)
	return c, nil
}

// costOfCSS counts, quotes left out, what makes one comparison look at many nodes: blanks and ~ between parts (each
// counted for itself, so the count errs upwards), and pseudo-classes.
func costOfCSS(css string) (climbs, scans int) {
	for i := 0; i < len(css); i++ {
		switch c := css[i]; c {
		case '"', '\'':
			for i++; i < len(css) && css[i] != c; i++ {
				if css[i] == '\\' {
					i++
				}
			}
		case '~':
			if i+1 == len(css) || css[i+1] != '=' {
				climbs++
			}
		case ' ', '\t', '\n', '\r', '\f':
			if i > 0 && strings.IndexByte(" \t\n\r\f,>+~(", css[i-1]) < 0 {
				rest := strings.TrimLeft(css[i:], " \t\n\r\f")
				if rest != "" && strings.IndexByte(",>+~)", rest[0]) < 0 {
					climbs++
				}
			}
		case ':':
			scans++
		}
	}
	return climbs, scans
}

func checkCSS(selector string) string {
	if _, err := compileCSS(selector); err != nil {
		return sentence(err.Error()) + "."
	}
	return ""
}

// selectCSS selects from m, in the order of the document.
func (m *markup) selectCSS(ctx context.Context, selector string) value {
	if m.why != "" {
		return unreadable(m.why)
	}
	c, err := compileCSS(selector)
	if err != nil {
		return unreadable(err.Error())
	}
	// One comparison cannot be interrupted, so that it must be cheap; between two of them the clock is read.
	cost := math.Pow(float64(max(m.depth, m.siblings)), float64(c.climbs)) * math.Pow(float64(max(m.nodes, 2)), float64(max(c.scans-1, 0)))
	if c.climbs > 1 && cost > limits.MaxFilterCost || cost*float64(min(c.scans, 1)*m.nodes) > limits.MaxFilterCost {
		return unreadable("the selector is too costly for a body of this size")
	}
	ctx, stop := context.WithTimeout(ctx, selectorTime(ctx))
	defer stop()
	list := []any{}
	size := 0
	for n := range m.html.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if ctx.Err() != nil {
			return unreadable("the selector takes too long in a body of this size, or the run was stopped")
		}
		if !c.matches(n) {
			continue
		}
		text, ok := c.textOf(n)
		if !ok {
			continue
		}
		if size += len(text); len(list) == limits.MaxSelected || size > limits.MaxFiltered {
			return unreadable(fmt.Sprintf("the selector selects more than %d elements, or more than %d bytes", limits.MaxSelected, limits.MaxFiltered))
		}
		list = append(list, text)
	}
	return value{v: list, list: true, nodes: true, wire: true}
}

func (c *compiledCSS) matches(n *html.Node) bool {
	for _, one := range c.group {
		if one.Match(n) {
			return true
		}
	}
	return false
}

// textOf is an element's text without white space at its ends, or its attribute; false when it lacks that.
func (c *compiledCSS) textOf(n *html.Node) (string, bool) {
	if c.attribute == "" {
		var b strings.Builder
		for d := range n.Descendants() {
			if d.Type == html.TextNode {
				b.WriteString(d.Data)
			}
		}
		return strings.TrimSpace(b.String()), true
	}
	for _, a := range n.Attr {
		if strings.EqualFold(a.Key, c.attribute) {
			return a.Val, true
		}
	}
	return "", false
}

func readCSS(ctx context.Context, s *Subject, selector string) value {
	m := s.markupOf(ctx)
	if m.why == "" && m.html == nil {
		// Selectors are HTML's: XML is read as HTML for them.
		if s.xmlAsHTML == nil {
			s.xmlAsHTML = readMarkup(ctx, s.Body, s.Header.Get("Content-Type"), false)
		}
		m = s.xmlAsHTML
	}
	return m.selectCSS(ctx, selector)
}

func filterCSS(f *filtering, v value, argument any) value {
	text, ok := v.v.(string)
	if !ok {
		return notText(v)
	}
	selector, _ := argument.(string)
	return inText(readMarkup(f.ctx, []byte(text), "", false)).selectCSS(f.ctx, selector)
}

// decodeHTML decodes by what the transport says, else by what the document's beginning says of itself.
func decodeHTML(body []byte, contentType string) string {
	if charsetOf(body, contentType) == nil && !strings.Contains(strings.ToLower(contentType), "charset") && !bytes.HasPrefix(body, bomUTF8) {
		// Without a declaration the library says windows-1252, also of a beginning in ASCII alone.
		if _, name, _ := charset.DetermineEncoding(body, ""); name != "windows-1252" || !utf8.Valid(body) {
			if enc, why := charsetNamed(name); why == "" {
				return decodeWith(enc, body)
			}
		}
	}
	return decodeText(body, contentType)
}

func readRegex(ctx context.Context, s *Subject, pattern string) value {
	if ctx.Err() != nil {
		return unreadable("the assertions and captures of this step take too long, or the run was stopped")
	}
	return findPattern(s.text(), pattern, true)
}

func checkRegex(pattern string) string {
	if _, why := compilePattern(pattern); why != "" {
		return sentence(why) + "."
	}
	return ""
}
