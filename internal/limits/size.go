package limits

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Defaults returns the settings of an environment in which none is set.
func Defaults() Settings {
	var s Settings
	v := reflect.ValueOf(&s).Elem()
	for i := range v.NumField() {
		text := v.Type().Field(i).Tag.Get("default")
		var err error
		switch to := v.Field(i).Addr().Interface().(type) {
		case *int:
			*to, err = strconv.Atoi(text)
		case *time.Duration:
			*to, err = time.ParseDuration(text)
		case *Size:
			err = to.UnmarshalText([]byte(text))
		default:
			err = fmt.Errorf("a setting of type %T", to)
		}
		if err != nil {
			panic(fmt.Sprintf("limits: default of %s: %v", v.Type().Field(i).Name, err)) // a test reads them all
		}
	}
	return s
}

// Size is a number of bytes, written as 4096, 512KiB, 10MiB or 1GiB.
type Size int64

var units = []struct {
	suffix string
	factor int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}, {"", 1}}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	for _, u := range units {
		digits, ok := strings.CutSuffix(string(text), u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.factor {
			return fmt.Errorf("no size: a number of bytes with KiB, MiB or GiB")
		}
		*s = Size(n * u.factor)
		return nil
	}
	return nil
}

// String writes the size in its largest whole unit.
func (s Size) String() string {
	for i := 2; i >= 0; i-- {
		if n := int64(s); n > 0 && n%units[i].factor == 0 {
			return strconv.FormatInt(n/units[i].factor, 10) + units[i].suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}
