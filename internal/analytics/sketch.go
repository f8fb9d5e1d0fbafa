package analytics

import (
	"fmt"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"
)

// sketchAccuracy is the relative error of every percentile. It is for ever: sketches of another one can't be merged.
const sketchAccuracy = 0.01

// sketch holds latencies in microseconds. The same values make the same bytes, in whatever order and parts they came:
// a dense store is its counts from the lowest to the highest bin, and nothing else.
type sketch struct{ dd *ddsketch.DDSketch }

func newSketch() (*sketch, error) {
	m, err := mapping.NewLogarithmicMapping(sketchAccuracy)
	if err != nil {
		return nil, fmt.Errorf("make a sketch: %w", err)
	}
	return &sketch{ddsketch.NewDDSketch(m, store.NewDenseStore(), store.NewDenseStore())}, nil
}

func (s *sketch) add(us int64) error {
	if err := s.dd.Add(float64(us)); err != nil {
		return fmt.Errorf("add %d to a sketch: %w", us, err)
	}
	return nil
}

// merge adds an encoded sketch; an empty one is nothing.
func (s *sketch) merge(encoded []byte) error {
	if len(encoded) == 0 {
		return nil
	}
	if err := s.dd.DecodeAndMergeWith(encoded); err != nil {
		return fmt.Errorf("merge a sketch: %w", err)
	}
	return nil
}

func (s *sketch) encode() []byte {
	var b []byte
	s.dd.Encode(&b, false)
	return b
}

// quantiles returns the values at the given ranks, in microseconds.
func (s *sketch) quantiles(qs ...float64) ([]float64, error) {
	values, err := s.dd.GetValuesAtQuantiles(qs)
	if err != nil {
		return nil, fmt.Errorf("read quantiles: %w", err)
	}
	return values, nil
}
