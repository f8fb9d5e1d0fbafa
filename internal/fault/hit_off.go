//go:build !faultpoints

package fault

// PointsEnabled reports whether this build can be made to die at a point.
const PointsEnabled = false

// Hit does nothing in this build.
func Hit(string) {}
