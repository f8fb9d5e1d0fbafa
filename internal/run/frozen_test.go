package run_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/run"
)

// An organization that is going to be erased executes nothing, whoever asks: the system, in whose name schedules and the
// demo run, is stopped by no permission.
func TestAttack_frozenOrganizationExecutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	test := w.test(t, w.get("/a"))
	before := w.begin(t, test, run.StartInput{})
	require.NoError(t, w.db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE orgs SET erase_at = now() + interval '1 day' WHERE org_id = $1`, w.org)
		return err
	}))
	system := auth.With(t.Context(), auth.Principal{Kind: auth.System, OrgID: w.org})
	for name, start := range map[string]func() error{
		"start": func() error { _, err := w.Start(system, w.org, test.ID, run.StartInput{}); return err },
		"suite": func() error { _, err := w.StartSuite(system, w.org, w.project.ID, run.SuiteInput{}); return err },
		"rerun": func() error { _, err := w.Rerun(system, w.org, before.ID); return err },
	} {
		err := start()
		require.Equal(t, fault.Conflict, fault.KindOf(err), name)
		require.ErrorContains(t, err, "going to be deleted", name)
	}
	list, _, err := w.List(system, w.org, run.Filter{Limit: 10})
	require.NoError(t, err)
	require.Len(t, list, 1)
}
