package run_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/run"
)

func TestStart_manyAtOnce_eachGetsItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := w.test(t, w.get("/1")), w.test(t, w.get("/2"), `"regions": ["default", "eu"]`)
	type answer struct {
		test uuid.UUID
		runs []run.Run
		err  error
	}
	const calls = 60
	answers := make(chan answer, calls)
	for i := range calls {
		go func() {
			id := []uuid.UUID{one.ID, two.ID, newID()}[i%3]
			runs, err := w.Start(w.ctx, w.org, id, run.StartInput{})
			answers <- answer{id, runs, err}
		}()
	}
	seen := map[uuid.UUID]bool{}
	positions := map[int64]bool{}
	for range calls {
		a := <-answers
		switch a.test {
		case one.ID, two.ID:
			require.NoError(t, a.err)
			assert.Len(t, a.runs, map[uuid.UUID]int{one.ID: 1, two.ID: 2}[a.test])
		default:
			assert.Equal(t, fault.NotFound, kind(a.err))
			assert.Empty(t, a.runs)
		}
		for _, r := range a.runs {
			assert.Equal(t, a.test, r.TestID)
			assert.False(t, seen[r.ID] || positions[r.Position])
			seen[r.ID], positions[r.Position] = true, true
			row, err := w.Summary(w.ctx, w.org, r.ID)
			require.NoError(t, err)
			r.Position = 0
			assert.Equal(t, row, r, "the answer is what a reader sees")
			assert.Equal(t, r.ID, w.job(t, r.ID, 1).Args.RunID)
		}
	}
	assert.Len(t, seen, calls)
}

func TestStart_inATransaction_isUndoneWithIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	test := w.test(t, w.get("/"))
	undo := errors.New("undo")
	var id uuid.UUID
	err := w.db.InOrg(w.ctx, w.org, func(ctx context.Context, _ postgres.OrgTx) error {
		runs, err := w.Start(ctx, w.org, test.ID, run.StartInput{})
		require.NoError(t, err)
		id = runs[0].ID
		return undo
	})
	require.ErrorIs(t, err, undo)
	_, err = w.Summary(w.ctx, w.org, id)
	assert.Equal(t, fault.NotFound, kind(err))
	runs, _, err := w.List(w.ctx, w.org, run.Filter{Limit: 5})
	require.NoError(t, err)
	assert.Empty(t, runs)
}
