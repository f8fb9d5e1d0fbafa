package testspec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"github.com/testflow/testflow/internal/limits"
)

// An expression is for what no operator says: `json.total == len(json.items)`. The language is expr-lang's, less what
// is not deterministic (the clock) and what cannot be bounded. Its library stops only where it allocates, so every body
// of a loop, every call and every operator that may make something large is wrapped when it is compiled: each passes by
// a meter, which counts values and text and reads the clock.

// ExpressionName is a name that an expression may use.
type ExpressionName struct{ Name, Doc string }

var expressionNames = []ExpressionName{
	{"status", "The response's status code; nil before the first response."},
	{"headers", "The response's headers: an object of text by lower-case name, lines of one name joined with a comma and a space."},
	{"body", "The response's body as text; nil before the first response."},
	{"json", "The response's body read as JSON; nil when it is not JSON."},
	{"responseTime", "Milliseconds that the response took; nil before the first response."},
	{"vars", "The variables by name: text, or the JSON value of one that was captured."},
	{"index", "The iteration within repeat or forEach, from 0; nil outside."},
	{"row", "The row of forEach; nil outside."},
}

// ExpressionNames lists the names that an expression may use, for documents.
func ExpressionNames() []ExpressionName { return slices.Clone(expressionNames) }

// meterName is the name under which the compiled code finds its meter. No user's expression can have it: the first
// pass of the compiler knows only expressionNames.
const meterName = "__meter"

// expression is a compiled expression, safe for concurrent use.
type expression struct {
	program *vm.Program
	uses    map[string]bool // the names of expressionNames in it
	loops   bool
}

// expressionCache keeps compiled expressions; they are the same in every run of a test.
var expressionCache = mustCache[string, *expression](2048)

// compileExpression compiles src. The error's text is a clause with the position of the mistake.
func compileExpression(src string) (*expression, error) {
	if e, ok := expressionCache.Get(src); ok {
		return e, nil
	}
	if len(src) > limits.MaxExpression {
		return nil, fmt.Errorf("an expression has at most %d bytes", limits.MaxExpression)
	}
	if strings.TrimSpace(src) == "" {
		return nil, errors.New("an expression is not empty")
	}
	// The first pass finds the mistakes, with the positions and words of what was written.
	seen := &nameVisitor{uses: map[string]bool{}}
	options := append([]expr.Option{
		expr.Env(emptyEnv()), expr.AsAny(), expr.Optimize(false), expr.MaxNodes(limits.MaxExpressionNodes),
		expr.DisableAllBuiltins(),
	}, expressionBuiltins()...)
	if _, err := expr.Compile(src, append(slices.Clone(options), append(ownFunctions(true), expr.Patch(seen))...)...); err != nil {
		return nil, expressionError("this is not an expression", src, err)
	}
	if seen.refused != "" {
		return nil, errors.New("this is not an expression: " + seen.refused)
	}
	env := emptyEnv()
	env[meterName] = types.Any
	options[0] = expr.Env(env)
	options[3] = expr.MaxNodes(0)
	program, err := expr.Compile(src, append(options, append(ownFunctions(false), expr.Patch(meterVisitor{}))...)...)
	if err != nil {
		return nil, expressionError("this is not an expression", src, err)
	}
	e := &expression{program: program, uses: seen.uses, loops: seen.loops}
	expressionCache.Add(src, e)
	return e, nil
}

func emptyEnv() types.Map {
	env := make(types.Map, len(expressionNames)+1)
	for _, n := range expressionNames {
		env[n.Name] = types.Any
	}
	return env
}

// nameVisitor notes which names an expression uses and whether it loops.
type nameVisitor struct {
	uses    map[string]bool
	loops   bool
	refused string
}

// Visit looks at one node.
func (v *nameVisitor) Visit(n *ast.Node) {
	switch n := (*n).(type) {
	case *ast.IdentifierNode:
		v.uses[n.Value] = true
		if n.Value == "$env" {
			v.refused = "$env is not available; use the names themselves"
		}
	case *ast.PredicateNode:
		v.loops = true
	}
}

// meterVisitor wraps what may loop or grow.
type meterVisitor struct{}

// Visit wraps one node; its children are wrapped already.
func (meterVisitor) Visit(n *ast.Node) {
	switch x := (*n).(type) {
	case *ast.PredicateNode:
		x.Node = call("__tick", x.Node)
	case *ast.BinaryNode:
		if _, ours := binaryOperators[x.Operator]; ours {
			ast.Patch(n, call("__binary", &ast.StringNode{Value: x.Operator}, x.Left, x.Right))
		}
	case *ast.CallNode:
		if callee, ok := x.Callee.(*ast.IdentifierNode); ok && !strings.HasPrefix(callee.Value, "__") {
			x.Arguments = append([]ast.Node{&ast.IdentifierNode{Value: meterName}}, x.Arguments...)
		}
	case *ast.BuiltinNode, *ast.ArrayNode, *ast.MapNode:
		ast.Patch(n, call("__made", x))
	}
}

func call(name string, args ...ast.Node) ast.Node {
	return &ast.CallNode{
		Callee:    &ast.IdentifierNode{Value: name},
		Arguments: append([]ast.Node{&ast.IdentifierNode{Value: meterName}}, args...),
	}
}

var (
	conversion = regexp.MustCompile(`interface conversion: interface \{\} is ([^,]+), not (.+)`)
	goTypes    = strings.NewReplacer("map[string]interface {}", "an object", "[]interface {}", "a list", "interface {}", "any value",
		"<nil>", "nothing", "float64", "a number")
	goTypeNames = map[string]string{
		"nil": "nothing", "string": "text", "bool": "true or false", "int": "a number", "float64": "a number",
		"[]interface {}": "a list", "map[string]interface {}": "an object",
	}
)

// expressionError turns an error of the library's into a clause of ours.
func expressionError(what, src string, err error) error {
	var own errSelector
	if errors.As(err, &own) {
		return own
	}
	message, where := err.Error(), ""
	var at *file.Error
	if errors.As(err, &at) {
		message = at.Message
		if at.Line > 0 {
			where = fmt.Sprintf(" (at character %d)", at.Column+1)
			if strings.Contains(src, "\n") {
				where = fmt.Sprintf(" (in line %d at character %d)", at.Line, at.Column+1)
			}
		}
	}
	if m := conversion.FindStringSubmatch(message); m != nil {
		message = fmt.Sprintf("%s stands where %s is needed", typeWord(m[1]), typeWord(m[2]))
	}
	message, _, _ = strings.Cut(message, "\n")
	if strings.HasPrefix(message, "reflect: ") {
		message = "a list is needed here" // what filter, map and the like are given
	}
	return errSelector{what + ": " + shorten(goTypes.Replace(message), 200) + where}
}

func typeWord(goType string) string {
	if w, ok := goTypeNames[goType]; ok {
		return w
	}
	return goType
}

// eval runs e over env, whose values are those of plain. The error's text is a clause.
func (e *expression) eval(ctx context.Context, src string, env map[string]any) (any, error) {
	ctx, stop := context.WithTimeout(ctx, limits.ExpressionTime)
	defer stop()
	env[meterName] = &meter{ctx: ctx}
	machine := vm.VM{MemoryBudget: limits.MaxExpressionWork}
	out, err := machine.Run(e.program, env)
	if err != nil {
		return nil, expressionError("the expression cannot be evaluated", src, err)
	}
	m := &meter{ctx: ctx}
	v, err := m.jsonOf(reflect.ValueOf(out), 0)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// expressionEnv is what e may see. Only what e uses is made: reading a body as JSON costs.
func (s *Subject) expressionEnv(e *expression, scope *Scope) map[string]any {
	env := map[string]any{}
	for _, n := range expressionNames {
		env[n.Name] = nil
	}
	if s != nil {
		env["status"] = s.Status
		env["responseTime"] = float64(s.ResponseTime.Microseconds()) / 1000
		if e.uses["body"] {
			env["body"] = s.text()
		}
		if e.uses["headers"] {
			headers := make(map[string]any, len(s.Header))
			for name, lines := range s.Header {
				headers[strings.ToLower(name)] = strings.Join(lines, ", ")
			}
			env["headers"] = headers
		}
		if e.uses["json"] {
			env["json"] = s.plain()
		}
	}
	if scope == nil {
		return env
	}
	if e.uses["vars"] {
		env["vars"] = scope.plainVariables()
	}
	if it := scope.iteration; it != nil {
		env["index"] = it.index
		for it != nil && !it.has {
			it = it.outer
		}
		if it != nil {
			env["row"] = plainValue(it.row)
		}
	}
	return env
}

// plain returns the body's JSON as an expression sees it, nil when it is not JSON. It is made once.
func (s *Subject) plain() any {
	doc, why := s.json()
	if why != "" {
		return nil
	}
	if !s.plainMade {
		s.plainDocument, s.plainMade = plainValue(doc), true
	}
	return s.plainDocument
}

// plainVariables returns every variable by name as an expression sees it.
func (s *Scope) plainVariables() map[string]any {
	vars := map[string]any{}
	lay := func(layer map[string]string) {
		for name, v := range layer {
			if !strings.Contains(name, ".") { // nor secrets
				vars[name] = v
			}
		}
	}
	for i, layer := range slices.Backward(s.layers) {
		if i == 0 {
			for _, variables := range s.steps {
				lay(variables)
			}
		}
		lay(layer)
	}
	for name, raw := range s.captured {
		if v, err := decodeJSON(raw); err == nil {
			vars[name] = plainValue(v)
		}
	}
	for _, parameters := range s.fragments {
		lay(parameters)
	}
	return vars
}

// ExpressionError says why an expression has no value. Its text is a clause.
type ExpressionError struct{ Reason string }

// Error returns the reason.
func (e *ExpressionError) Error() string { return e.Reason }

// CheckExpression says what is wrong with an expression: a *ExpressionError, nil when nothing is.
func CheckExpression(src string) error {
	if _, err := compileExpression(src); err != nil {
		return &ExpressionError{err.Error()}
	}
	return nil
}

// EvalExpression returns the value of an expression as JSON. scope and last, the response that was read last, may be nil.
// The error is an *ExpressionError.
func EvalExpression(ctx context.Context, src string, scope *Scope, last *Subject) (json.RawMessage, error) {
	v, err := evalExpression(ctx, src, scope, last)
	if err != nil {
		return nil, err
	}
	return cleanNUL(encodeJSON(nil, v)), nil
}

// EvalBool returns the value of an expression that is true or false; anything else is an error: nothing is taken for
// one of them silently. scope and last, the response that was read last, may be nil. The error is an *ExpressionError.
func EvalBool(ctx context.Context, src string, scope *Scope, last *Subject) (bool, error) {
	v, err := evalExpression(ctx, src, scope, last)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, &ExpressionError{"the expression yields " + typeName(v) + ", not true or false"}
	}
	return b, nil
}

func evalExpression(ctx context.Context, src string, scope *Scope, last *Subject) (any, error) {
	e, err := compileExpression(src)
	if err != nil {
		return nil, &ExpressionError{err.Error()}
	}
	v, err := e.eval(ctx, src, last.expressionEnv(e, scope))
	if err != nil {
		return nil, &ExpressionError{err.Error()}
	}
	return v, nil
}

// readExpression is the source expression.
func (s *Subject) readExpression(ctx context.Context, src string) value {
	v, err := evalExpression(ctx, src, s.Scope, s)
	if err != nil {
		return unreadable(err.Error())
	}
	return value{v: v}
}

// meter bounds one evaluation.
type meter struct {
	ctx   context.Context //nolint:containedctx // lives as long as one call of eval
	work  int             // values looked at or made
	text  int             // bytes of text made
	ticks int
	// pattern is the regular expression that was used last, re what it compiled to.
	pattern string
	re      *regexp.Regexp
}

var (
	errExpressionTime = errSelector{fmt.Sprintf("the expression takes longer than %d ms", limits.ExpressionTime/time.Millisecond)}
	errExpressionWork = errSelector{fmt.Sprintf("the expression makes or looks at more than %d values", limits.MaxExpressionWork)}
	errExpressionText = errSelector{fmt.Sprintf("the expression makes more than %d bytes of text", limits.MaxExpressionText)}
)

// spend counts n values and reads the clock now and then.
func (m *meter) spend(n int) error {
	if m.work += n; m.work > limits.MaxExpressionWork {
		return errExpressionWork
	}
	return m.tick()
}

func (m *meter) tick() error {
	if m.ticks++; m.ticks&15 != 0 {
		return nil
	}
	return m.clock()
}

func (m *meter) clock() error {
	switch {
	case m.ctx.Err() == nil:
		return nil
	case errors.Is(m.ctx.Err(), context.DeadlineExceeded):
		return errExpressionTime
	}
	return errSelector{"the run was stopped"}
}

// write counts n bytes of new text, before they are made.
func (m *meter) write(n int) error {
	if m.text += n; n < 0 || m.text > limits.MaxExpressionText {
		return errExpressionText
	}
	return nil
}

// made counts a new value with all that is in it. A list that holds another one twice weighs twice: what is small in
// memory is written out whole in the end.
func (m *meter) made(v any) error {
	switch x := v.(type) {
	case string:
		if err := m.write(len(x)); err != nil {
			return err
		}
		return m.clock()
	case []any:
		if err := m.spend(1 + len(x)); err != nil {
			return err
		}
		for _, e := range x {
			if err := m.weigh(e); err != nil {
				return err
			}
		}
		return m.clock()
	case map[string]any:
		if err := m.weigh(v); err != nil {
			return err
		}
		return m.clock()
	default:
		return m.tick()
	}
}

func (m *meter) weigh(v any) error {
	switch x := v.(type) {
	case []any:
		if err := m.spend(len(x)); err != nil {
			return err
		}
		for _, e := range x {
			if err := m.weigh(e); err != nil {
				return err
			}
		}
	case map[string]any:
		if err := m.spend(len(x)); err != nil {
			return err
		}
		for _, e := range x {
			if err := m.weigh(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkExpressionProperty says what is wrong with an assertion's or capture's expression, "" when nothing is.
func checkExpressionProperty(src string) string {
	if err := CheckExpression(src); err != nil {
		return sentence(err.Error()) + "."
	}
	return ""
}
