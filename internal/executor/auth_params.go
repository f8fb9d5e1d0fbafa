package executor

import "strings"

// challenge is one of a WWW-Authenticate line: a scheme with its parameters, their names in lower case.
type challenge struct {
	scheme string
	params map[string]string
}

// maxAuthParams bounds the parameters of one line, all its challenges together.
const maxAuthParams = 100

// parseChallenges reads RFC 9110's list of challenges, several of which may stand in one line. What does not fit is
// left out.
func parseChallenges(line string) []challenge { return parseAfter(nil, line) }

// parseAfter reads line; parameters before the first scheme in it belong to the last challenge of list.
func parseAfter(list []challenge, line string) []challenge {
	p := paramReader{rest: line}
	for range maxAuthParams {
		p.skip()
		word := p.token()
		if word == "" {
			return list
		}
		if p.equals() {
			value, ok := p.value()
			if !ok {
				return list
			}
			if len(list) > 0 {
				list[len(list)-1].params[strings.ToLower(word)] = value
			}
			continue
		}
		list = append(list, challenge{scheme: word, params: map[string]string{}})
	}
	return list
}

// parseParams reads a line of parameters without a scheme, as in Authentication-Info.
func parseParams(line string) map[string]string {
	return parseAfter([]challenge{{params: map[string]string{}}}, line)[0].params
}

// paramReader reads what is left of a line.
type paramReader struct{ rest string }

// skip leaves out white space and commas.
func (p *paramReader) skip() { p.rest = strings.TrimLeft(p.rest, " \t,") }

func (p *paramReader) token() string {
	end := strings.IndexAny(p.rest, " \t,=\"")
	if end < 0 {
		end = len(p.rest)
	}
	word := p.rest[:end]
	p.rest = p.rest[end:]
	return word
}

// equals takes a = with white space around it, if one follows.
func (p *paramReader) equals() bool {
	rest, ok := strings.CutPrefix(strings.TrimLeft(p.rest, " \t"), "=")
	if ok {
		p.rest = strings.TrimLeft(rest, " \t")
	}
	return ok
}

// value reads a token or a quoted-string; false when a quote does not end.
func (p *paramReader) value() (string, bool) {
	rest, quoted := strings.CutPrefix(p.rest, `"`)
	if !quoted {
		return p.token(), true
	}
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '"':
			p.rest = rest[i+1:]
			return b.String(), true
		case '\\':
			if i++; i == len(rest) {
				return "", false
			}
		}
		b.WriteByte(rest[i])
	}
	return "", false
}
