package ratelimit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// remembered bounds what a node keeps in memory of callers, some 100 bytes each. Who is forgotten costs a read.
const remembered = 50_000

// full remembers whose windows are full, so that they cost the database nothing until the window ends.
type full struct {
	mu   sync.Mutex
	list map[counter]fullWindow
}

type fullWindow struct {
	ends time.Time
	most int // a caller whose limit was raised is asked for again
}

func newFull() *full { return &full{list: map[counter]fullWindow{}} }

// until returns how long the window of c stays full.
func (f *full) until(c counter, most int, now time.Time) (left time.Duration, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, ok := f.list[c]
	if !ok {
		return 0, false
	}
	if left = w.ends.Sub(now); left <= 0 || most > w.most {
		delete(f.list, c)
		return 0, false
	}
	return left, true
}

func (f *full) remember(c counter, most int, now time.Time, left time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.list) >= remembered {
		for other := range f.list { // a tenth of them, whoever it is, so that this is seldom
			if delete(f.list, other); len(f.list) <= remembered*9/10 {
				break
			}
		}
	}
	f.list[c] = fullWindow{ends: now.Add(left), most: most}
}

// alone counts for this node only, while the database is away. It lets through what a window allows, evenly after a first
// burst, and forgets everybody when there are too many.
type alone struct {
	mu   sync.Mutex
	list map[counter]*rate.Limiter
}

func newAlone() *alone { return &alone{list: map[counter]*rate.Limiter{}} }

func (a *alone) take(c counter, limit Limit, now time.Time) Verdict {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.list[c]
	if l == nil {
		if len(a.list) >= remembered {
			clear(a.list)
		}
		l = rate.NewLimiter(rate.Every(limit.Window/time.Duration(limit.Max)), limit.Max)
		a.list[c] = l
	}
	v := Verdict{Limit: limit, Admitted: l.AllowN(now, 1)}
	tokens := l.TokensAt(now)
	v.Left = max(int(tokens), 0)
	// One more comes in this long; a full burst takes the whole window.
	v.Reset = max(time.Duration((1-tokens+float64(v.Left))*float64(limit.Window)/float64(limit.Max)), time.Millisecond)
	return v
}
