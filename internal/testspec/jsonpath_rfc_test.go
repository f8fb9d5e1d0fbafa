package testspec_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/testflow/testflow/internal/testspec"
)

// pathCase is a path over a document with the values that it selects, in order; for a path that can select at most one,
// that value, or "" when it selects nothing.
type pathCase struct{ path, doc, want string }

// store is the document of RFC 9535, figure 1.
const store = `{"store":{"book":[
	{"category":"reference","author":"Nigel Rees","title":"Sayings of the Century","price":8.95},
	{"category":"fiction","author":"Evelyn Waugh","title":"Sword of Honour","price":12.99},
	{"category":"fiction","author":"Herman Melville","title":"Moby Dick","isbn":"0-553-21311-3","price":8.99},
	{"category":"fiction","author":"J. R. R. Tolkien","title":"The Lord of the Rings","isbn":"0-395-19395-8","price":22.99}],
	"bicycle":{"color":"red","price":399}}}`

const (
	names2311 = `{"o":{"j j":{"k.k":3}},"'":{"@":2}}`
	wild      = `{"o":{"j":1,"k":2},"a":[5,3]}`
	abc       = `["a","b"]`
	letters   = `["a","b","c","d","e","f","g"]`
	filtered  = `{"a":[3,5,1,2,4,6,{"b":"j"},{"b":"k"},{"b":{}},{"b":"kilo"}],"o":{"p":1,"q":2,"r":3,"s":5,"t":{"u":6}},"e":"f"}`
	compared  = `{"obj":{"x":"y"},"arr":[2,3]}`
	descend   = `{"o":{"j":1,"k":2},"a":[5,3,[{"j":4},{"k":6}]]}`
	nulls     = `{"a":null,"b":[null],"c":[{}],"null":1}`
)

// rfcPaths are the examples of RFC 9535 and what its text says beside them, section by section. An object's members come
// in the order of their names.
var rfcPaths = []pathCase{
	// 1.5
	{`$.store.book[*].author`, store, `["Nigel Rees","Evelyn Waugh","Herman Melville","J. R. R. Tolkien"]`},
	{`$..author`, store, `["Nigel Rees","Evelyn Waugh","Herman Melville","J. R. R. Tolkien"]`},
	{`$.store..price`, store, `[399,8.95,12.99,8.99,22.99]`},
	{`$..book[2].title`, store, `["Moby Dick"]`},
	{`$..book[2].publisher`, store, `[]`},
	{`$..book[-1].title`, store, `["The Lord of the Rings"]`},
	{`$..book[0,1].title`, store, `["Sayings of the Century","Sword of Honour"]`},
	{`$..book[:2].title`, store, `["Sayings of the Century","Sword of Honour"]`},
	{`$..book[?@.isbn].title`, store, `["Moby Dick","The Lord of the Rings"]`},
	{`$..book[?@.price<10].title`, store, `["Sayings of the Century","Moby Dick"]`},
	// 2.2 root
	{`$`, `{"k":"v"}`, `{"k":"v"}`},
	{`$`, `1`, `1`},
	{`$`, `null`, `null`},
	{`$`, `[]`, `[]`},
	// 2.3.1 names, with every escape
	{`$.o['j j']`, names2311, `{"k.k":3}`},
	{`$.o['j j']['k.k']`, names2311, `3`},
	{`$.o["j j"]["k.k"]`, names2311, `3`},
	{`$["'"]["@"]`, names2311, `2`},
	{`$['\'']`, `{"'":1}`, `1`},
	{`$["\""]`, `{"\"":1}`, `1`},
	{`$['"']`, `{"\"":1}`, `1`},
	{`$["'"]`, `{"'":1}`, `1`},
	{`$['\\']`, `{"\\":1}`, `1`},
	{`$['\/']`, `{"/":1}`, `1`},
	{`$['\b\f\n\r\t']`, `{"\b\f\n\r\t":1}`, `1`},
	{`$["\u0061"]`, `{"a":1}`, `1`},
	{`$["\u00E9"]`, `{"é":1}`, `1`},
	{`$["\uD83D\uDE00"]`, `{"😀":1}`, `1`},
	{`$["\ud83d\ude00"]`, `{"😀":1}`, `1`},
	{`$["😀"]`, `{"😀":1}`, `1`},
	{`$.😀`, `{"😀":1}`, `1`},
	{`$.é_1`, `{"é_1":1}`, `1`},
	{`$['']`, `{"":1}`, `1`},
	{`$[" "]`, `{" ":1}`, `1`},
	{`$["a","a"]`, `{"a":1}`, `[1,1]`},
	{`$["a","b"]`, `{"a":1,"b":2}`, `[1,2]`},
	{`$["b","a","x"]`, `{"a":1,"b":2}`, `[2,1]`},
	{`$.a`, `{"b":1}`, ``},
	{`$.a`, `[1]`, ``},
	{`$.a`, `"a"`, ``},
	{`$.a`, `null`, ``},
	{`$['0']`, `[1]`, ``},
	{`$["\u0000"]`, `{"\u0000":1}`, `1`},
	{`$.true`, `{"true":1}`, `1`},
	{`$.null`, nulls, `1`},
	{`$.length`, `[1,2]`, ``},
	{`$.and`, `{"and":1}`, `1`},
	{`$.A`, `{"a":1}`, ``},
	{`$["\u0065\u0301"]`, `{"é":1}`, ``},
	// 2.3.2 wildcards
	{`$[*]`, wild, `[[5,3],{"j":1,"k":2}]`},
	{`$.o[*]`, wild, `[1,2]`},
	{`$.o[*,*]`, wild, `[1,2,1,2]`},
	{`$.a[*]`, wild, `[5,3]`},
	{`$.*`, `1`, `[]`},
	{`$[*]`, `"abc"`, `[]`},
	{`$.*.*`, wild, `[5,3,1,2]`},
	{`$[*]`, `[]`, `[]`},
	{`$[*]`, `{}`, `[]`},
	// 2.3.3 indexes
	{`$[1]`, abc, `"b"`},
	{`$[-2]`, abc, `"a"`},
	{`$[0]`, abc, `"a"`},
	{`$[2]`, abc, ``},
	{`$[-3]`, abc, ``},
	{`$[0]`, `{"0":1}`, ``},
	{`$[0]`, `"abc"`, ``},
	{`$[9007199254740991]`, abc, ``},
	{`$[-9007199254740991]`, abc, ``},
	{`$[0,0,1]`, abc, `["a","a","b"]`},
	{`$[0]`, `[]`, ``},
	// 2.3.4 slices
	{`$[1:3]`, letters, `["b","c"]`},
	{`$[5:]`, letters, `["f","g"]`},
	{`$[1:5:2]`, letters, `["b","d"]`},
	{`$[5:1:-2]`, letters, `["f","d"]`},
	{`$[::-1]`, letters, `["g","f","e","d","c","b","a"]`},
	{`$[:]`, letters, `["a","b","c","d","e","f","g"]`},
	{`$[::]`, letters, `["a","b","c","d","e","f","g"]`},
	{`$[:2]`, letters, `["a","b"]`},
	{`$[-2:]`, letters, `["f","g"]`},
	{`$[:-5]`, letters, `["a","b"]`},
	{`$[-3:-1]`, letters, `["e","f"]`},
	{`$[0:0]`, letters, `[]`},
	{`$[3:1]`, letters, `[]`},
	{`$[1:3:0]`, letters, `[]`},
	{`$[::0]`, letters, `[]`},
	{`$[::3]`, letters, `["a","d","g"]`},
	{`$[-1:-4:-1]`, letters, `["g","f","e"]`},
	{`$[2::-1]`, letters, `["c","b","a"]`},
	{`$[:2:-1]`, letters, `["g","f","e","d"]`},
	{`$[100:]`, letters, `[]`},
	{`$[-100:2]`, letters, `["a","b"]`},
	{`$[0:100]`, letters, `["a","b","c","d","e","f","g"]`},
	{`$[100:-100:-1]`, letters, `["g","f","e","d","c","b","a"]`},
	{`$[ 1 : 3 : 1 ]`, letters, `["b","c"]`},
	{`$[1:3]`, `{"1":2}`, `[]`},
	{`$[1:3]`, `"abc"`, `[]`},
	{`$[-9007199254740991:9007199254740991:9007199254740991]`, letters, `["a"]`},
	{`$[::-9007199254740991]`, letters, `["g"]`},
	{`$[1:2,0]`, letters, `["b","a"]`},
	{`$[1:1:1]`, letters, `[]`},
	// 2.3.5 filters: the table of comparisons
	{`$[?$.absent1 == $.absent2]`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?$.absent1 <= $.absent2]`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?$.absent == 'g']`, compared, `[]`},
	{`$[?$.absent1 != $.absent2]`, compared, `[]`},
	{`$[?$.absent != 'g']`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?1 <= 2]`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?1 > 2]`, compared, `[]`},
	{`$[?13 == '13']`, compared, `[]`},
	{`$[?'a' <= 'b']`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?'a' > 'b']`, compared, `[]`},
	{`$[?$.obj == $.arr]`, compared, `[]`},
	{`$[?$.obj != $.arr]`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?$.obj == $.obj]`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?$.obj != $.obj]`, compared, `[]`},
	{`$[?$.arr == $.arr]`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?$.arr != $.arr]`, compared, `[]`},
	{`$[?$.obj == 17]`, compared, `[]`},
	{`$[?$.obj != 17]`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?$.obj <= $.arr]`, compared, `[]`},
	{`$[?$.obj < $.arr]`, compared, `[]`},
	{`$[?$.obj <= $.obj]`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?$.arr <= $.arr]`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?1 <= $.arr]`, compared, `[]`},
	{`$[?1 >= $.arr]`, compared, `[]`},
	{`$[?1 > $.arr]`, compared, `[]`},
	{`$[?1 < $.arr]`, compared, `[]`},
	{`$[?true <= true]`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?true > true]`, compared, `[]`},
	{`$[?true > false]`, compared, `[]`},
	{`$[?@ > @.x]`, `[[1],{"x":{}}]`, `[]`},
	{`$[?@.x >= @.y]`, `[{"x":{},"y":{"a":1}},{"x":[1],"y":[]},{"x":true,"y":false}]`, `[]`},
	{`$[?true < false]`, compared, `[]`},
	{`$[?null <= null]`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?null < null]`, compared, `[]`},
	{`$[?$.absent < 1]`, compared, `[]`},
	{`$[?$.absent == null]`, compared, `[]`},
	{`$[?null == $.absent]`, compared, `[]`},
	{`$[?$.absent >= $.absent]`, compared, `[[2,3],{"x":"y"}]`},
	{`$[?$.absent > $.absent]`, compared, `[]`},
	// 2.3.5 filters: the examples
	{`$.a[?@.b == 'kilo']`, filtered, `[{"b":"kilo"}]`},
	{`$.a[?(@.b == 'kilo')]`, filtered, `[{"b":"kilo"}]`},
	{`$.a[?@>3.5]`, filtered, `[5,4,6]`},
	{`$.a[?@.b]`, filtered, `[{"b":"j"},{"b":"k"},{"b":{}},{"b":"kilo"}]`},
	{`$[?@.*]`, filtered, `[[3,5,1,2,4,6,{"b":"j"},{"b":"k"},{"b":{}},{"b":"kilo"}],{"p":1,"q":2,"r":3,"s":5,"t":{"u":6}}]`},
	{`$[?@[?@.b]]`, filtered, `[[3,5,1,2,4,6,{"b":"j"},{"b":"k"},{"b":{}},{"b":"kilo"}]]`},
	{`$.o[?@<3, ?@<3]`, filtered, `[1,2,1,2]`},
	{`$.a[?@<2 || @.b == "k"]`, filtered, `[1,{"b":"k"}]`},
	{`$.a[?match(@.b, "[jk]")]`, filtered, `[{"b":"j"},{"b":"k"}]`},
	{`$.a[?search(@.b, "[jk]")]`, filtered, `[{"b":"j"},{"b":"k"},{"b":"kilo"}]`},
	{`$.o[?@>1 && @<4]`, filtered, `[2,3]`},
	{`$.o[?@.u || @.x]`, filtered, `[{"u":6}]`},
	{`$.a[?@.b == $.x]`, filtered, `[3,5,1,2,4,6]`},
	{`$.a[?@ == @]`, filtered, `[3,5,1,2,4,6,{"b":"j"},{"b":"k"},{"b":{}},{"b":"kilo"}]`},
	// 2.3.5 precedence, negation, existence
	{`$[?@.a && @.b || @.c]`, `[{"c":1},{"a":1},{"a":1,"b":1}]`, `[{"c":1},{"a":1,"b":1}]`},
	{`$[?@.a || @.b && @.c]`, `[{"b":1},{"a":1},{"b":1,"c":1}]`, `[{"a":1},{"b":1,"c":1}]`},
	{`$[?(@.a || @.b) && @.c]`, `[{"a":1},{"a":1,"c":1},{"b":1,"c":1}]`, `[{"a":1,"c":1},{"b":1,"c":1}]`},
	{`$[?!@.a]`, `[{"a":1},{"b":1},1]`, `[{"b":1},1]`},
	{`$[?!(@.a && @.b)]`, `[{"a":1},{"a":1,"b":1}]`, `[{"a":1}]`},
	{`$[?!(@ == 1)]`, `[1,2]`, `[2]`},
	{`$[?!!@.a]`, `[]`, `INVALID`},
	{`$[?@.a]`, `[{"a":null},{"a":false},{"a":0},{"a":""},{}]`, `[{"a":null},{"a":false},{"a":0},{"a":""}]`},
	{`$[?@]`, `[null,false,0]`, `[null,false,0]`},
	{`$[?$]`, `[1]`, `[1]`},
	{`$[?@[0]]`, `[[1],[],{"0":1}]`, `[[1]]`},
	{`$[?@..a]`, `[{"b":{"a":1}},{"b":1}]`, `[{"b":{"a":1}}]`},
	{`$[?((@.a))]`, `[{"a":1},2]`, `[{"a":1}]`},
	{`$[?@.a==1&&@.b==2]`, `[{"a":1,"b":2}]`, `[{"a":1,"b":2}]`},
	{"$[?\n@.a\t==\r1 ]", `[{"a":1}]`, `[{"a":1}]`},
	{`$[?@[?@>1]]`, `[[1],[2]]`, `[[2]]`},
	{`$[?@['a','b']]`, `[{"b":1},{}]`, `[{"b":1}]`},
	// literals
	{`$[?@==1]`, `[1,1.0,1e0,10e-1,"1",true]`, `[1,1.0,1e0,10e-1]`},
	{`$[?@==1e2]`, `[100,1e2,100.0]`, `[100,1e2,100.0]`},
	{`$[?@==1E+2]`, `[100]`, `[100]`},
	{`$[?@==1.5e-1]`, `[0.15]`, `[0.15]`},
	{`$[?@==-0]`, `[0,-0,0.0]`, `[0,-0,0.0]`},
	{`$[?@==-0.0]`, `[0]`, `[0]`},
	{`$[?@==-1]`, `[-1,1]`, `[-1]`},
	{`$[?@==0.1]`, `[0.1,0.10]`, `[0.1,0.10]`},
	{`$[?@=="a"]`, `["a","b"]`, `["a"]`},
	{`$[?@=='\u0061']`, `["a"]`, `["a"]`},
	{`$[?@=='a<b' || @=="==" && @!='!=']`, `["a<b","==","x"]`, `["a<b","=="]`},
	{`$[?@['a==b']==1]`, `[{"a==b":1}]`, `[{"a==b":1}]`},
	{`$[?@[?@>1 && @<3]]`, `[[2],[3]]`, `[[2]]`},
	{`$[?(@>1) && (@<3), 0]`, `[1,2,3]`, `[2,1]`},
	{`$[?@==9007199254740993]`, `[9007199254740992,9007199254740993]`, `[9007199254740993]`},
	{`$[?@==null]`, `[null,0,false]`, `[null]`},
	{`$[?@==true]`, `[true,1,"true"]`, `[true]`},
	{`$[?@==false]`, `[false,0,null]`, `[false]`},
	{`$[?@.a==null]`, `[{"a":null},{}]`, `[{"a":null}]`},
	{`$[?@!=null]`, `[null,1]`, `[1]`},
	{`$[?1==@]`, `[1,2]`, `[1]`},
	{`$[?@<'b']`, `["a","b","B",1]`, `["a","B"]`},
	{`$[?@>'é']`, `["😀","z"]`, `["😀"]`},
	{`$[?@=='']`, `["",null]`, `[""]`},
	{`$[?@<=2]`, `[1,2,2.0,3]`, `[1,2,2.0]`},
	{`$[?@>=9007199254740993]`, `[9007199254740993]`, `[9007199254740993]`},
	{`$[?@=='"']`, `["\""]`, `["\""]`},
	{`$[?@=="\\"]`, `["\\"]`, `["\\"]`},
	{`$[?@.a>0]`, `[{"a":"1"},{"a":1}]`, `[{"a":1}]`},
	{`$[?@==0]`, `[false,null,"",0]`, `[0]`},
	{`$[?@.x==@.y]`, `[{"x":[1,{"a":2}],"y":[1.0,{"a":2}]},{"x":{"a":1,"b":2},"y":{"b":2,"a":1}},{"x":[1],"y":[1,2]}]`, `[{"x":[1,{"a":2}],"y":[1.0,{"a":2}]},{"x":{"a":1,"b":2},"y":{"b":2,"a":1}}]`},
	// 2.4 functions
	{`$[?length(@)==2]`, `["ab","😀é",[1,2],{"a":1,"b":2},12,null,"a"]`, `["ab","😀é",[1,2],{"a":1,"b":2}]`},
	{`$[?length(@.a)>=1]`, `[{"a":"x"},{"a":[]},{}]`, `[{"a":"x"}]`},
	{`$[?length("abc")==3]`, `[1]`, `[1]`},
	{`$[?length(@)==length(@.x)]`, `[1,{"x":"a"}]`, `[1,{"x":"a"}]`},
	{`$[?count(@.*)==2]`, `[[1,2],{"a":1,"b":2},[1],"ab",1]`, `[[1,2],{"a":1,"b":2}]`},
	{`$[?count(@..*)>2]`, `[[1,[2]],[1]]`, `[[1,[2]]]`},
	{`$[?count(@['a','b'])==1]`, `[{"a":1},{"a":1,"b":1}]`, `[{"a":1}]`},
	{`$[?count($.x)==0]`, `[1]`, `[1]`},
	{`$[?value(@..a)==1]`, `[{"a":1},{"b":{"a":1}},{"a":1,"b":{"a":1}}]`, `[{"a":1},{"b":{"a":1}}]`},
	{`$[?value(@.a)==value(@.b)]`, `[{},{"a":1}]`, `[{}]`},
	{`$[?match(@,'a.*')]`, `["abc","ba",1,null,["abc"]]`, `["abc"]`},
	{`$[?match(@,'a|b')]`, `["a","b","ax","xb"]`, `["a","b"]`},
	{`$[?search(@,'a|b')]`, `["ax","xb","c"]`, `["ax","xb"]`},
	{`$[?match(@,'a.c')]`, `["abc","a\nc","a\rc","a\u2028c","a😀c"]`, `["abc","a\u2028c","a😀c"]`},
	{`$[?search(@,'a.c')]`, `["xabcx","a\nc"]`, `["xabcx"]`},
	{`$[?match(@,'a[.]c')]`, `["a.c","abc"]`, `["a.c"]`},
	{`$[?match(@,'a\\.c')]`, `["a.c","abc"]`, `["a.c"]`},
	{`$[?match(@,'a\\\\.c')]`, `["a\\bc","a.c"]`, `["a\\bc"]`},
	{`$[?match(@,'[^.]b')]`, `["ab",".b"]`, `["ab"]`},
	{`$[?match(@,'a\\[.c')]`, `["a[bc","a[\nc"]`, `["a[bc"]`},
	{`$[?match(@,'[\\].]')]`, `["]",".","a"]`, `["]","."]`},
	{`$[?match(@,'\\p{Lu}')]`, `["Ж","ж","1"]`, `["Ж"]`},
	{`$[?match(@,'\\P{Lu}')]`, `["Ж","ж"]`, `["ж"]`},
	{`$[?match(@,'[0-9]{2,3}')]`, `["1","12","1234"]`, `["12"]`},
	{`$[?match(@,'')]`, `["","a"]`, `[""]`},
	{`$[?search(@,'')]`, `["","a",1]`, `["","a"]`},
	{`$[?match(@,'(')]`, `["("]`, `[]`},
	{`$[?match(@,'a)(b')]`, `["ab"]`, `[]`},
	{`$[?!match(@,'(')]`, `["("]`, `["("]`},
	{`$[?match('a',@)]`, `["a","b",1]`, `["a"]`},
	{`$[?match(@.a,@.b)]`, `[{"a":"x","b":"x"},{"a":"x"},{"b":"x"}]`, `[{"a":"x","b":"x"}]`},
	{`$[?match(@.x, $[0].p)]`, `[{"p":"a+"},{"x":"aa"}]`, `[{"x":"aa"}]`},
	{`$[?search(@,'^ab')]`, `["abc","xab"]`, `["abc"]`},
	{`$[?search(@,'bc$')]`, `["abc","bcx"]`, `["abc"]`},
	{`$[?search(@,'[a-c]') && !match(@,'b.*')]`, `["bx","xa"]`, `["xa"]`},
	{`$[?match(value(@.a),'x')]`, `[{"a":"x"}]`, `[{"a":"x"}]`},
	{`$[?length(value(@..a))==1]`, `[{"a":"x"}]`, `[{"a":"x"}]`},
	{`$[?match( @ , 'a' )]`, `["a"]`, `["a"]`},
	{`$[?match(@,'.{2}')]`, `["😀😀","ab","a"]`, `["😀😀","ab"]`},
	// 2.5 segments
	{`$..j`, descend, `[4,1]`},
	{`$..[0]`, descend, `[5,{"j":4}]`},
	{`$..[*]`, `[[1],[2]]`, `[[1],[2],1,2]`},
	{`$..*`, `[[1],[2]]`, `[[1],[2],1,2]`},
	{`$..o`, descend, `[{"j":1,"k":2}]`},
	{`$.o..[*,*]`, descend, `[1,2,1,2]`},
	{`$.a..[0,1]`, descend, `[5,3,{"j":4},{"k":6}]`},
	{`$..a`, `{"a":{"a":1}}`, `[{"a":1},1]`},
	{`$..[?@>1]`, `[1,[2,3]]`, `[2,3]`},
	{`$..a..b`, `{"a":{"a":{"b":1}}}`, `[1,1]`},
	{`$..['a']`, `{"a":1}`, `[1]`},
	{`$..[1:]`, `[1,[2,3]]`, `[[2,3],3]`},
	{`$..`, `1`, `INVALID`},
	{`$..x`, `1`, `[]`},
	{`$..[-1]`, `[[1],2]`, `[2,1]`},
	{`$.a.b`, `{"a":{"b":1}}`, `1`},
	{`$.a['b'].c`, `{"a":{"b":{"c":1}}}`, `1`},
	{"$ .a", `{"a":1}`, `1`},
	{"$\n['a']\t[0]", `{"a":[1]}`, `1`},
	{`$[ 'a' , 'b' ]`, `{"a":1,"b":2}`, `[1,2]`},
	{`$[0][0]`, `[[1]]`, `1`},
	{`$[?@.a].a`, `[{"a":1},{"a":2}]`, `[1,2]`},
	// 2.6 null
	{`$.a`, nulls, `null`},
	{`$.a[0]`, nulls, ``},
	{`$.a.d`, nulls, ``},
	{`$.b[0]`, nulls, `null`},
	{`$.b[*]`, nulls, `[null]`},
	{`$.b[?@]`, nulls, `[null]`},
	{`$.b[?@==null]`, nulls, `[null]`},
	{`$.c[?@.d==null]`, nulls, `[]`},
}

// rfcInvalid are no paths: not well-formed, or not valid (2.1).
var rfcInvalid = []string{
	"", " ", " $", "$ ", "$\n", "a", "@", "@.a", "$a", "$.", "$..", "$.[0]", "$. a", "$.. a", "$.a.", "$...a", "$.a..", "$$", "$.'a'", `$."a"`, "$.0", "$.1a", "$.-a", "$.a-b", "$.a b", "$.&", "$.#",
	"$[", "$]", "$[]", "$[a]", "$['a'", "$['a]", `$["a]`, `$["a']`, `$['a"]`, "$[,]", "$['a',]", "$[,'a']", "$[0,]", "$['a''b']", "$['a' 'b']", "$[*", "$[**]", "$[0 1]", "$[0].", "$(0)", "$[(0)]", "$[@]", "$[$]", "$[@.a]", "$[#]", "$[''''", "$[-]", "$[+1]", "$[:a]", "$[a:]",
	// numbers: no leading zeros, no -0, no fractions, within ±(2^53-1)
	"$[00]", "$[01]", "$[-0]", "$[-01]", "$[1.0]", "$[1e0]", "$[0x1]", "$[9007199254740992]", "$[-9007199254740992]", "$[999999999999999999999]", "$[1:9007199254740992]", "$[::9007199254740992]", "$[-9007199254740992:]", "$[01:]", "$[:01]", "$[::01]", "$[-0:]", "$[:-0]", "$[::-0]", "$[1:2:3:4]", "$[1;2]", "$[1.5:2]", "$[1:2:]x", "$['a':]",
	// strings: only the escapes of the grammar, whole surrogate pairs, no control characters
	`$["\'"]`, `$['\"']`, `$["\a"]`, `$["\x61"]`, `$["\0"]`, `$["\u"]`, `$["\u12"]`, `$["\u12G4"]`, `$["\U0061"]`, `$["\uD800"]`, `$["\uDC00"]`, `$["\uD800\u0061"]`, `$["\uD800\uD800"]`, `$["\uD800x"]`, `$["\uDC00\uD800"]`, "$[\"\n\"]", "$[\"\x00\"]", "$['\x1f']", "$['\t']", `$["\"]`, `$['\']`, `$["\ "]`, "$[\"a\\\n\"]",
	// filters: well-formed
	"$[?]", "$[? ]", "$[?()]", "$[?@.a", "$[?(@.a]", "$[?@.a)]", "$[?@.a==]", "$[?==1]", "$[?@.a=1]", "$[?@.a===1]", "$[?@.a!==1]", "$[?@.a=<1]", "$[?@.a=>1]", "$[?@.a<>1]", "$[?@.a &1]", "$[?@.a&@.b]", "$[?@.a|@.b]", "$[?@.a and @.b]", "$[?@.a or @.b]", "$[?not @.a]", "$[?@.a &&]", "$[?&& @.a]", "$[?|| @.a]", "$[?!]", "$[?! ==1]", "$[?@.a==1==1]", "$[?1==1==1]", "$[?@.a<1<2]", "$[?@ .. ]", "$[?@.]", "$[?@[]]", "$[?@a]", "$?@.a", "$.?@.a", "$[?@.a=='b]", "$[?@.a in [1]]", "$[?@.a=~/x/]", "$[?[1]==@]", "$[?@=={}]", "$[?@==[]]", "$[?@==[1]]", "$[?@.a + 1 == 2]", "$[?(1)==1]", "$[?(@.a)==1]", "$[?@.a==(1)]", "$[?!@.a==1]", "$[?!1==1]",
	// filters: literals alone are no test; true, false and null are written small; numbers as in JSON
	"$[?1]", "$[?'a']", "$[?true]", "$[?false]", "$[?null]", "$[?true && @.a]", "$[?@.a && 1]", "$[?@.a || 'x']", "$[?!1]", "$[?@==True]", "$[?@==TRUE]", "$[?@==False]", "$[?@==Null]", "$[?@==NULL]", "$[?@==nil]", "$[?@==undefined]", "$[?@==01]", "$[?@==1.]", "$[?@==.1]", "$[?@==+1]", "$[?@==1e]", "$[?@==1e+]", "$[?@==-]", "$[?@==00]", "$[?@==-01]", "$[?@==0x10]", "$[?@==1_000]", "$[?@==Infinity]", "$[?@==NaN]", "$[?@==1.e2]", "$[?@==a]",
	// filters: only a singular query is compared
	"$[?@.*==1]", "$[?@..a==1]", "$[?@[*]==1]", "$[?@[0,1]==1]", "$[?@[0:1]==1]", "$[?@['a','b']==1]", "$[?@[?@.a]==1]", "$[?1==@.*]", "$[?$..a==1]", "$[?$.*==$.*]", "$[?@.a<@..b]",
	// functions: known names, lower case, no space before the parenthesis, well-typed
	"$[?nope(@)]", "$[?nope(@)==1]", "$[?LENGTH(@)==1]", "$[?Length(@)==1]", "$[?length (@)==1]", "$[?length(@]", "$[?length@==1]", "$[?length()==1]", "$[?length(@,@)==1]", "$[?length(@.*)==1]", "$[?length(@..a)==1]", "$[?length(@)]", "$[?!length(@)]", "$[?length(@) && @.a]", "$[?length(1==1)==1]", "$[?length(match(@,'a'))==1]",
	"$[?count(@)]", "$[?count()==1]", "$[?count(1)==1]", "$[?count('a')==1]", "$[?count(true)==1]", "$[?count(@.*,@.*)==1]", "$[?count(length(@))==1]", "$[?count(@.*)>@.*]", "$[?value(@.a)]", "$[?value()==1]", "$[?value(1)==1]", "$[?value('a')==1]", "$[?value(@.a,@.b)==1]",
	"$[?match(@)]", "$[?match(@,'a')==true]", "$[?match(@,'a')==1]", "$[?match(@,'a','b')]", "$[?match(@.*,'a')]", "$[?match(@,@.*)]", "$[?match()]", "$[?true==match(@,'a')]", "$[?search(@)]", "$[?search(@,'a')==false]", "$[?search(@.*,'a')]", "$[?search(@,'a',1)]", "$[?search(@ 'a')]", "$[?search(@,)]", "$[?search(,@)]", "$[?_a(@)==1]", "$[?1a(@)==1]", "length($)", "$.length()", "$[length(@)]",
	// what other dialects have
	"$.a^", "$.a~", "$[?(@.length-1)]", "$[(@.length-1)]", "$.a[?(@.b)].", "$[?@.a matches 'x']", "$..[", "$.a;$.b", "$.a|length", "/a/b", "store.book", "$['a']b", "$[*]a", "$.store.book[0",
}

// TestJSONPath_isRFC9535: every path of the table selects what the standard says, through an assertion as people write it.
func TestJSONPath_isRFC9535(t *testing.T) {
	t.Parallel()
	for _, c := range rfcPaths {
		if c.want == "INVALID" {
			if !refusesPath(c.path) {
				t.Errorf("%s is accepted", c.path)
			}
			continue
		}
		if refusesPath(c.path) {
			t.Errorf("%s is refused", c.path)
			continue
		}
		s := subjectOf(c.doc)
		if c.want == "" {
			v := s.Judge(t.Context(), testspec.Assertion{Source: "jsonpath", Property: c.path, Operator: "exists", Not: true})
			if !v.Pass {
				t.Errorf("%s of %s: %s", c.path, c.doc, v.Message)
			}
			continue
		}
		v := s.Judge(t.Context(), testspec.Assertion{Source: "jsonpath", Property: c.path, Operator: "equals", Expected: json.RawMessage(c.want)})
		if !v.Pass {
			t.Errorf("%s of %.80s: %s", c.path, c.doc, v.Message)
		}
	}
}

// TestJSONPath_refusesWhatIsNone: a path that RFC 9535 doesn't know is refused when the test is saved, with its place.
func TestJSONPath_refusesWhatIsNone(t *testing.T) {
	t.Parallel()
	for _, path := range rfcInvalid {
		if !refusesPath(path) {
			t.Errorf("%q is accepted", path)
		}
	}
}

func refusesPath(path string) bool {
	faults := testspec.Validate(testspec.Spec{Steps: []testspec.Step{{
		Request:    testspec.Request{Method: "GET", URL: "http://a.example/"},
		Assertions: []testspec.Assertion{{Source: "jsonpath", Property: path, Operator: "exists"}},
	}}})
	for _, f := range faults {
		if strings.HasPrefix(f.Pointer, "/steps/0/assertions/0/property") {
			return true
		}
	}
	return false
}
