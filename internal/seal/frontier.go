package seal

import (
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Frontier is the right edge of a growing tree: all that must be kept to add leaves and to know the root, 64 hashes at
// most. The zero Frontier is the empty tree.
type Frontier struct {
	size  int64
	peaks []Hash // of the complete subtrees, largest first: one for each bit of size
}

// NewFrontier returns the frontier of a tree of that size; ok is false when the number of peaks doesn't fit the size.
// Whether they are the right ones shows in the root.
func NewFrontier(size int64, peaks []Hash) (f *Frontier, ok bool) {
	if size < 0 || bits.OnesCount64(uint64(size)) != len(peaks) {
		return nil, false
	}
	return &Frontier{size: size, peaks: append([]Hash(nil), peaks...)}, true
}

// Size returns the number of leaves.
func (f *Frontier) Size() int64 { return f.size }

// Peaks returns the hashes of the complete subtrees, largest first.
func (f *Frontier) Peaks() []Hash { return append([]Hash(nil), f.peaks...) }

// Add appends a leaf. complete, when not nil, is told of every subtree of more than one leaf that it completes: the n-th
// of 2^level leaves.
func (f *Frontier) Add(leaf Hash, complete func(level int, n int64, h Hash)) {
	h := leaf
	for level := 0; f.size>>level&1 == 1; level++ {
		last := len(f.peaks) - 1
		h = tlog.NodeHash(f.peaks[last], h)
		f.peaks = f.peaks[:last]
		if complete != nil {
			complete(level+1, f.size>>(level+1), h)
		}
	}
	f.peaks = append(f.peaks, h)
	f.size++
}

// Root returns the root of the tree, as RFC 6962 defines it.
func (f *Frontier) Root() Hash {
	if f.size == 0 {
		return emptyRoot
	}
	h := f.peaks[len(f.peaks)-1]
	for i := len(f.peaks) - 2; i >= 0; i-- {
		h = tlog.NodeHash(f.peaks[i], h)
	}
	return h
}

// PeakAt names the complete subtrees of a tree of that size, largest first: the n-th of 2^level leaves.
func PeakAt(size int64, peak func(level int, n int64)) {
	for level := bits.Len64(uint64(size)) - 1; level >= 0; level-- { //nolint:gosec // sizes are not negative
		if size>>level&1 == 1 {
			peak(level, size>>level-1)
		}
	}
}
