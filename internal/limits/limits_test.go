package limits

import (
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDefaults_areWhatTheTagsSay(t *testing.T) {
	t.Parallel()
	s := Defaults()
	require.Equal(t, 30*time.Second, s.RequestTimeout)
	require.Equal(t, Size(1<<20), s.RequestBody)
	require.Equal(t, 200, s.PageSize)
	require.LessOrEqual(t, s.PageSize, MaxPage)
	require.LessOrEqual(t, int(s.ResponseBody), MaxResponseBytes)
	require.LessOrEqual(t, int(s.ResponseKept), MaxStoredBody)
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		least := int64(1)
		if text := f.Tag.Get("least"); text != "" {
			var err error
			least, err = strconv.ParseInt(text, 10, 64)
			require.NoError(t, err, f.Name)
		}
		require.GreaterOrEqual(t, v.Field(i).Int(), least, f.Name)
		if text := f.Tag.Get("most"); text != "" {
			most, err := strconv.ParseInt(text, 10, 64)
			require.NoError(t, err, f.Name)
			require.LessOrEqual(t, v.Field(i).Int(), most, f.Name)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Size{"0": 0, "4096": 4096, "512KiB": 512 << 10, "10 MiB": 10 << 20, "1GiB": 1 << 30, "7B": 7} {
		var s Size
		require.NoError(t, s.UnmarshalText([]byte(text)), text)
		require.Equal(t, want, s, text)
	}
	for _, text := range []string{"", "KiB", "-1", "1.5MiB", "9999999999GiB", "10 parsecs"} {
		var s Size
		require.Error(t, s.UnmarshalText([]byte(text)), text)
	}
	require.Equal(t, "512KiB", Size(512<<10).String())
	require.Equal(t, "1000", Size(1000).String())
}

func TestTests_orMost(t *testing.T) {
	t.Parallel()
	require.Equal(t, (Tests{}).OrMost(), Tests{Steps: 1 << 30, RunTime: time.Hour, ResponseHeaders: 1 << 40}.OrMost())
	require.Equal(t, 7, Tests{Steps: 7}.OrMost().Steps)
}
