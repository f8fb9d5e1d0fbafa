package testspec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/testflow/testflow/internal/limits"
)

// Filter changes what a source yields before it is judged or kept. In JSON it is an object with one field, its name,
// whose value is its argument, true when it takes none: {"count": true}, {"nth": 2}.
type Filter struct {
	Name     string
	Argument json.RawMessage
}

// MarshalJSON writes the object.
func (f Filter) MarshalJSON() ([]byte, error) {
	argument := f.Argument
	if argument == nil {
		argument = json.RawMessage("true")
	}
	return json.Marshal(map[string]json.RawMessage{f.Name: argument})
}

// UnmarshalJSON reads the object.
func (f *Filter) UnmarshalJSON(b []byte) error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil || len(m) != 1 {
		return errors.New("a filter is an object with one field")
	}
	for f.Name, f.Argument = range m {
	}
	return nil
}

// ArgumentKind says what a filter's argument must be.
type ArgumentKind string

// The kinds of arguments.
const (
	ArgumentNothing    ArgumentKind = "true"
	ArgumentIndex      ArgumentKind = "a whole number, from the end when below 0"
	ArgumentText       ArgumentKind = "text"
	ArgumentPattern    ArgumentKind = "a regular expression (RE2)"
	ArgumentReplace    ArgumentKind = `an object {"from": text, "to": text}`
	ArgumentReplaceRE2 ArgumentKind = `an object {"pattern": a regular expression (RE2), "to": text}`
	ArgumentPath       ArgumentKind = "a JSONPath (RFC 9535)"
	ArgumentXPath      ArgumentKind = "an XPath 1.0"
	ArgumentCSS        ArgumentKind = "a CSS selector, with @ and an attribute's name behind it or not"
	ArgumentCharset    ArgumentKind = "the name of a charset, such as iso-8859-1"
	ArgumentFormat     ArgumentKind = "a format such as %Y-%m-%d"
	ArgumentDateForm   ArgumentKind = "true, or the format of the text, such as %d.%m.%Y"
)

// FilterInfo describes one filter.
type FilterInfo struct {
	Name string
	// Doc is one sentence for documents and messages.
	Doc      string
	Takes    Kind
	Yields   Kind
	Argument ArgumentKind

	// whole says that a list is the filter's own to take; any other is applied to each member of a list.
	whole  bool
	costly bool // it may take long even with a small body
	apply  func(f *filtering, v value, argument any) value
}

// filtering is one application of filters.
type filtering struct {
	ctx     context.Context //nolint:containedctx // lives as long as one call of filter
	subject *Subject
}

const (
	anyText = KindText | KindJSON | KindDate
	anyList = KindList | KindJSON
)

var filterByName = indexBy(filters, func(f *FilterInfo) string { return f.Name })

// Filters anyList every filter in the order of the documents.
func Filters() []FilterInfo { return append([]FilterInfo(nil), filters...) }

// FilterNames anyList their names.
func FilterNames() []string { return namesOf(filters, func(f *FilterInfo) string { return f.Name }) }

// filter applies list to v. What a filter cannot take is a value that cannot be had.
func (s *Subject) filter(ctx context.Context, v value, list []Filter) value {
	if len(list) == 0 {
		return v
	}
	f := &filtering{ctx: ctx, subject: s}
	for i := range list {
		if v.none != "" {
			return v
		}
		info, ok := filterByName[list[i].Name]
		if !ok {
			return unreadable("there is no filter " + shorten(list[i].Name, 40))
		}
		argument, why := decodeArgument(list[i].Argument)
		if why != "" {
			return unreadable(why)
		}
		v = f.applyTo(info, v, argument)
	}
	return v
}

func decodeArgument(raw json.RawMessage) (any, string) {
	if raw == nil {
		return true, ""
	}
	v, err := decodeJSON(raw)
	if err != nil {
		return nil, "the argument of a filter is not JSON"
	}
	return v, ""
}

// applyTo applies one filter: to a list as a whole, or to each of its members.
func (f *filtering) applyTo(info *FilterInfo, v value, argument any) value {
	if f.ctx.Err() != nil {
		return unreadable("the assertions and captures of this step take too long, or the run was stopped")
	}
	list, isList := v.v.([]any)
	if isList && v.nodes && len(list) == 1 && !info.whole {
		v, isList = v.only(), false
	}
	if !isList || info.whole {
		return cannotFilter(info, info.apply(f, v, argument))
	}
	out := make([]any, 0, len(list))
	result := value{list: v.list, nodes: v.nodes, wire: v.wire}
	for i, member := range list {
		if i&0xff == 0xff && f.ctx.Err() != nil {
			return unreadable("the assertions and captures of this step take too long, or the run was stopped")
		}
		got := info.apply(f, value{v: member, wire: v.wire, date: v.date}, argument)
		if got.none != "" {
			return cannotFilter(info, unreadable(fmt.Sprintf("of member %d %s", i, got.none)))
		}
		result.wire, result.date = got.wire, got.date
		out = append(out, got.v)
	}
	result.v = out
	return result
}

// cannotFilter says which filter it was that made nothing.
func cannotFilter(info *FilterInfo, v value) value {
	if v.none != "" {
		v.none = "after the filter " + info.Name + " " + v.none
	}
	return v
}

// only is the one node that an XPath or CSS selector selected, when it is one; else v itself.
func (x value) only() value {
	list, ok := x.v.([]any)
	if !x.nodes || !ok {
		return x
	}
	switch len(list) {
	case 0:
		return missing("nothing is selected")
	case 1:
		return value{v: list[0], wire: x.wire, date: x.date}
	default:
		return x
	}
}

// checkFilters says what is wrong with filters on a value of these kinds, and which kinds they yield.
func (v *validator) filters(list []Filter, kinds Kind, at string) Kind {
	if len(list) > limits.MaxFilters {
		v.refuse(at, "There are at most %d filters.", limits.MaxFilters)
		return kinds
	}
	for i, f := range list {
		here := fmt.Sprintf("%s/%d/%s", at, i, escapePointer(f.Name))
		info, ok := filterByName[f.Name]
		if !ok {
			v.refuse(here, "%s", unknownName("filter", f.Name, FilterNames()))
			return KindJSON | KindText // told; what follows is judged by itself
		}
		if why := info.checkArgument(f.Argument); why != "" {
			v.refuse(here, "%s", why)
		}
		members := kinds
		if !info.whole && kinds&KindList != 0 {
			members |= KindJSON | KindText // a list's members, one by one
		}
		if kinds != 0 && members&info.Takes == 0 {
			v.refuse(here, "The filter %s takes %s, and here comes %s.", info.Name, info.Takes.names(), kinds.names())
			return info.Yields
		}
		yields := info.Yields
		if !info.whole && kinds&KindList != 0 {
			yields |= KindList
		}
		if !info.whole && kinds&KindJSON != 0 {
			yields |= KindJSON
		}
		kinds = yields
	}
	return kinds
}

// checkArgument says what is wrong with a filter's argument, "" when nothing is.
func (info *FilterInfo) checkArgument(raw json.RawMessage) string {
	if len(raw) > limits.MaxFilterArg {
		return fmt.Sprintf("The argument of a filter has at most %d bytes.", limits.MaxFilterArg)
	}
	argument, why := decodeArgument(raw)
	if why != "" {
		return sentence(why) + "."
	}
	refused := fmt.Sprintf("The filter %s takes %s.", info.Name, info.Argument)
	text, isText := argument.(string)
	told := func(why string) string {
		if why == "" {
			return ""
		}
		return sentence(why) + "."
	}
	switch info.Argument {
	case ArgumentNothing:
		if argument != true {
			return fmt.Sprintf("The filter %s takes no argument; write {%q: true}.", info.Name, info.Name)
		}
		return ""
	case ArgumentIndex:
		if n, ok := asDecimal(argument); !ok || !n.isWhole() || n.exp > 9 {
			return refused
		}
		return ""
	case ArgumentReplace:
		if _, _, ok := replacement(argument, "from"); !ok {
			return refused
		}
		return ""
	case ArgumentReplaceRE2:
		pattern, _, ok := replacement(argument, "pattern")
		if !ok {
			return refused
		}
		_, why := compilePattern(pattern)
		return told(why)
	case ArgumentDateForm:
		if argument == true {
			return ""
		}
	default: // text
	}
	if !isText || text == "" {
		return refused
	}
	switch info.Argument {
	case ArgumentPattern:
		_, why = compilePattern(text)
	case ArgumentPath:
		return checkPath(text)
	case ArgumentXPath:
		return checkXPath(text)
	case ArgumentCSS:
		return checkCSS(text)
	case ArgumentCharset:
		_, why = charsetNamed(text)
	case ArgumentFormat, ArgumentDateForm:
		why = checkFormat(text)
	default:
	}
	return told(why)
}

// replacement takes the argument of a replacing filter apart; its first field is not empty.
func replacement(argument any, first string) (from, to string, ok bool) {
	object, _ := argument.(map[string]any)
	from, ok1 := object[first].(string)
	to, ok2 := object["to"].(string)
	return from, to, ok1 && ok2 && from != "" && len(object) == 2
}
