package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/testflow/testflow/internal/seal"
)

const (
	// tileHeight is how many levels of the tree lie between two that are stored: es.sealed_node has levels 8, 16, 24 …
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	// cachedTiles bounds the memory of one reader: 8 KiB each.
	cachedTiles = 64
)

// errTreeDamaged says that what the sealer stored of a tree isn't all there.
var errTreeDamaged = errors.New("the stored tree of the audit log is damaged")

// tile names tileWidth hashes side by side: the n-th of its level.
type tile struct {
	level int
	n     int64
}

// tree reads the stored hashes of an organization's tree in one transaction. It keeps what it read.
type tree struct {
	ctx   context.Context //nolint:containedctx // tlog's reader takes none; a tree lives as long as one call
	tx    pgx.Tx
	orgID uuid.UUID
	size  int64
	tiles *lru.Cache[tile, []seal.Hash]
}

func newTree(ctx context.Context, tx pgx.Tx, orgID uuid.UUID, size int64) *tree {
	tiles, err := lru.New[tile, []seal.Hash](cachedTiles)
	if err != nil {
		panic("audit: " + err.Error()) // only for a size below 1
	}
	return &tree{ctx: ctx, tx: tx, orgID: orgID, size: size, tiles: tiles}
}

// in returns the tree for another transaction; what was read stays, since nothing that was stored changes.
func (t *tree) in(ctx context.Context, tx pgx.Tx) *tree {
	return &tree{ctx: ctx, tx: tx, orgID: t.orgID, size: t.size, tiles: t.tiles}
}

// ReadHashes is tlog's HashReader.
func (t *tree) ReadHashes(indexes []int64) ([]seal.Hash, error) {
	out := make([]seal.Hash, len(indexes))
	for i, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		h, err := t.hash(level, n)
		if err != nil {
			return nil, err
		}
		out[i] = h
	}
	return out, nil
}

// hash returns the root of the n-th 2^level leaves.
func (t *tree) hash(level int, n int64) (seal.Hash, error) {
	within := level % tileHeight
	hashes, err := t.tile(tile{level: level - within, n: n >> (tileHeight - within)})
	if err != nil {
		return seal.Hash{}, err
	}
	width := int64(1) << within
	from := n << within % tileWidth
	if int64(len(hashes)) < from+width {
		return seal.Hash{}, fmt.Errorf("%w: %d hashes of level %d behind number %d are missing", errTreeDamaged, from+width-int64(len(hashes)), level-within, n>>(tileHeight-within)*tileWidth)
	}
	run := append([]seal.Hash(nil), hashes[from:from+width]...)
	for ; len(run) > 1; run = run[:len(run)/2] {
		for i := range len(run) / 2 {
			run[i] = tlog.NodeHash(run[2*i], run[2*i+1])
		}
	}
	return run[0], nil
}

// tile returns as many of its hashes as the tree has, without a gap.
func (t *tree) tile(at tile) ([]seal.Hash, error) {
	if hashes, ok := t.tiles.Get(at); ok {
		return hashes, nil
	}
	first := at.n * tileWidth
	end := min(first+tileWidth, t.size>>at.level)
	sql, args := `SELECT leaf, hash FROM es.sealed_leaf WHERE org_id = $1 AND leaf >= $2 AND leaf < $3 ORDER BY leaf`, []any{t.orgID, first, end}
	if at.level > 0 {
		sql, args = `SELECT n, hash FROM es.sealed_node WHERE org_id = $1 AND n >= $2 AND n < $3 AND level = $4 ORDER BY n`, append(args, at.level)
	}
	rows, err := t.tx.Query(t.ctx, sql, args...) //nolint:rowserrcheck // ForEachRow does
	if err != nil {
		return nil, fmt.Errorf("read the tree of %s: %w", t.orgID, err)
	}
	hashes := make([]seal.Hash, 0, max(end-first, 0))
	var n int64
	var raw []byte
	_, err = pgx.ForEachRow(rows, []any{&n, &raw}, func() error {
		if n != first+int64(len(hashes)) || len(raw) != len(seal.Hash{}) {
			return fmt.Errorf("%w: number %d of level %d is missing", errTreeDamaged, first+int64(len(hashes)), at.level)
		}
		hashes = append(hashes, seal.Hash(raw))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the tree of %s: %w", t.orgID, err)
	}
	t.tiles.Add(at, hashes)
	return hashes, nil
}

// frontier returns the right edge of the first size leaves.
func (t *tree) frontier(size int64) (*seal.Frontier, error) {
	var peaks []seal.Hash
	var failed error
	seal.PeakAt(size, func(level int, n int64) {
		if failed != nil {
			return
		}
		var h seal.Hash
		if h, failed = t.hash(level, n); failed == nil {
			peaks = append(peaks, h)
		}
	})
	if failed != nil {
		return nil, failed
	}
	f, ok := seal.NewFrontier(size, peaks)
	if !ok {
		return nil, errTreeDamaged
	}
	return f, nil
}
