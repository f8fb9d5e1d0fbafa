package audit_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/auth"
)

// What the installation was started with is on record, with what was before; the same settings again are no event.
func TestRecordSettings_tellsWhatChanged(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	text := func(s string) *string { return &s }
	for _, c := range []struct {
		now  map[string]string
		want []audit.SettingChange
	}{
		{map[string]string{"PORT": "3000", "JWT_SECRET": "fingerprint 1"}, []audit.SettingChange{{Name: "JWT_SECRET", To: text("fingerprint 1")}, {Name: "PORT", To: text("3000")}}},
		{map[string]string{"PORT": "3000", "JWT_SECRET": "fingerprint 1"}, nil},
		{map[string]string{"JWT_SECRET": "fingerprint 2"}, []audit.SettingChange{{Name: "JWT_SECRET", From: text("fingerprint 1"), To: text("fingerprint 2")}, {Name: "PORT", From: text("3000")}}},
		{map[string]string{"JWT_SECRET": "fingerprint 2", "PORT": "1"}, []audit.SettingChange{{Name: "PORT", To: text("1")}}},
	} {
		changes, err := f.service.RecordSettings(t.Context(), "serve", "test", c.now)
		require.NoError(t, err)
		require.Equal(t, c.want, changes)
	}
	history, err := f.service.SettingsHistory(t.Context())
	require.NoError(t, err)
	require.Len(t, history, 3)
	require.Equal(t, audit.TypeSettingsChanged, history[0].Type)

	who := principal(newID(), auth.Admin)
	items, _, err := f.service.List(auth.With(t.Context(), who), who.OrgID, audit.Filter{})
	require.NoError(t, err)
	require.Empty(t, items, "no organization sees the installation's settings")
}
