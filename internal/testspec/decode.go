package testspec

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/testflow/testflow/internal/fault"
)

// decoder lays a tree into Go values by their json tags and names every place that does not fit. Field names are
// matched exactly; encoding/json would take METHOD for method.
type decoder struct{ faults []fault.Field }

var (
	typeRaw      = reflect.TypeFor[json.RawMessage]()
	typeDuration = reflect.TypeFor[Duration]()
	typeValues   = reflect.TypeFor[Values]()
	typeFilter   = reflect.TypeFor[Filter]()
)

func (d *decoder) refuse(at, format string, args ...any) {
	d.faults = append(d.faults, fault.Field{Pointer: at, Detail: fmt.Sprintf(format, args...)})
}

func (d *decoder) decode(n *node, v reflect.Value, at string) {
	switch v.Type() {
	case typeRaw:
		v.SetBytes(n.appendJSON(nil))
		return
	case typeDuration:
		d.duration(n, v, at)
		return
	case typeValues:
		d.values(n, v, at)
		return
	case typeFilter:
		d.filter(n, v, at)
		return
	case typeSkip:
		d.skip(n, v, at)
		return
	case typeUntil:
		d.until(n, v, at)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		before := len(d.faults)
		d.decode(n, p.Elem(), at)
		if len(d.faults) == before || p.Elem().Kind() == reflect.Struct {
			v.Set(p)
		}
	case reflect.Struct:
		d.object(n, v, at)
	case reflect.Map:
		d.mapOf(n, v, at)
	case reflect.Slice:
		if n.kind != '[' {
			d.refuse(at, "A list belongs here, not %s.", n.kindName())
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.kids), len(n.kids)))
		for i, kid := range n.kids {
			d.decode(kid, v.Index(i), at+"/"+strconv.Itoa(i))
		}
	default:
		d.scalar(n, v, at)
	}
}

func (d *decoder) scalar(n *node, v reflect.Value, at string) {
	switch v.Kind() {
	case reflect.String:
		if n.kind != 's' {
			d.refuse(at, "Text belongs here, not %s%s.", n.kindName(), quoteHint(n))
			return
		}
		v.SetString(n.text)
	case reflect.Bool:
		if n.kind != 't' && n.kind != 'f' {
			d.refuse(at, "true or false belongs here, not %s.", n.kindName())
			return
		}
		v.SetBool(n.kind == 't')
	case reflect.Int:
		i, err := strconv.ParseInt(n.text, 10, 32)
		if n.kind != 'n' || err != nil {
			d.refuse(at, "A whole number belongs here.")
			return
		}
		v.SetInt(i)
	default:
		d.refuse(at, "This cannot be set.")
	}
}

// quoteHint helps with what YAML and JSON writers forget most.
func quoteHint(n *node) string {
	switch n.kind {
	case 'n', 't', 'f':
		return "; put it in quotes"
	}
	return ""
}

func (d *decoder) duration(n *node, v reflect.Value, at string) {
	if n.kind != 's' {
		d.refuse(at, `A duration is text such as "30s", not %s.`, n.kindName())
		return
	}
	dur, err := ParseDuration(n.text)
	if err != nil {
		d.refuse(at, "%s.", sentence(err.Error()))
		return
	}
	v.SetInt(int64(dur))
}

func (d *decoder) values(n *node, v reflect.Value, at string) {
	switch n.kind {
	case 's':
		v.Set(reflect.ValueOf(Values{n.text}))
	case '[':
		list := make(Values, 0, len(n.kids))
		for i, kid := range n.kids {
			if kid.kind != 's' {
				d.refuse(at+"/"+strconv.Itoa(i), "Text belongs here, not %s%s.", kid.kindName(), quoteHint(kid))
				continue
			}
			list = append(list, kid.text)
		}
		v.Set(reflect.ValueOf(list))
	default:
		d.refuse(at, "Text or a list of texts belongs here, not %s%s.", n.kindName(), quoteHint(n))
	}
}

func (d *decoder) filter(n *node, v reflect.Value, at string) {
	if n.kind != '{' || len(n.keys) != 1 {
		d.refuse(at, "A filter is an object with one field, such as {\"count\": true} or {\"nth\": 2}.")
		return
	}
	v.Set(reflect.ValueOf(Filter{Name: n.keys[0], Argument: n.kids[0].appendJSON(nil)}))
}

func (d *decoder) mapOf(n *node, v reflect.Value, at string) {
	if n.kind != '{' {
		d.refuse(at, "An object belongs here, not %s.", n.kindName())
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.keys)))
	for i, key := range n.keys {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.decode(n.kids[i], elem, at+"/"+escapePointer(key))
		v.SetMapIndex(reflect.ValueOf(key), elem)
	}
}

func (d *decoder) object(n *node, v reflect.Value, at string) {
	if n.kind != '{' {
		d.refuse(at, "An object belongs here, not %s.", n.kindName())
		return
	}
	fields := fieldsOf(v.Type())
	for i, key := range n.keys {
		index, known := fields.index[key]
		if !known {
			d.refuse(at+"/"+escapePointer(key), "There is no such field; here belong %s.", fields.names)
			continue
		}
		d.decode(n.kids[i], v.Field(index), at+"/"+key)
	}
}

// structFields are the JSON names of a struct type.
type structFields struct {
	index map[string]int
	names string // for messages
}

var fieldCache sync.Map // reflect.Type → structFields

func fieldsOf(t reflect.Type) structFields {
	if f, ok := fieldCache.Load(t); ok {
		return f.(structFields) //nolint:forcetypeassert // only structFields are stored
	}
	f := structFields{index: map[string]int{}}
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		f.index[name] = i
		names = append(names, name)
	}
	f.names = strings.Join(names, ", ")
	fieldCache.Store(t, f)
	return f
}

// sentence gives s a capital letter.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
