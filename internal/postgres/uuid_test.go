package postgres_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/postgres/pgtest"
)

func TestUUIDs_travelThereAndBack(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).System
	one, two := uuid.MustParse("019a8d3e-6d00-7a4e-8b55-2f4c1f3f9d11"), uuid.MustParse("019a8d3e-6d00-7a4e-8b55-2f4c1f3f9d12")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		var id uuid.UUID
		var text string
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT $1::uuid, $1::uuid::text`, mode, one).Scan(&id, &text))
		assert.Equal(t, one, id)
		assert.Equal(t, one.String(), text)
		var null, some *uuid.UUID
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT $1::uuid, $2::uuid`, mode, null, &two).Scan(&null, &some))
		assert.Nil(t, null)
		assert.Equal(t, two, *some)
	}
	for _, list := range [][]uuid.UUID{{one, two}, {two}, {}} {
		var got []uuid.UUID
		var n int
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT $1::uuid[], cardinality($1::uuid[])`, list).Scan(&got, &n))
		assert.Equal(t, list, got)
		assert.Equal(t, len(list), n)
	}
	var isNull bool
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT $1::uuid[] IS NULL`, []uuid.UUID(nil)).Scan(&isNull))
	assert.True(t, isNull)
	var some []*uuid.UUID
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT $1::uuid[]`, []*uuid.UUID{&one, nil}).Scan(&some))
	assert.Equal(t, []*uuid.UUID{&one, nil}, some)
	var id uuid.UUID
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT NULL::uuid`).Scan(&id))
	assert.Equal(t, uuid.Nil, id)
	require.Error(t, pool.QueryRow(t.Context(), `SELECT 'x'`).Scan(&id))
}
