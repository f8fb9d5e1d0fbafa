package run

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/run/internal/rundb"
)

// body is what a target answered to one step, to be stored beside the step's event.
type body struct {
	org, run      uuid.UUID
	attempt, step int
	iteration     int
	request       *executor.RequestSummary
	response      *executor.ResponseSummary
}

// bodies travel with the events of a sink's batch.
type bodies []body

// Size is what the bodies weigh, for the sink's budget.
func (b bodies) Size() int {
	n := 0
	for i := range b {
		n += len(b[i].response.Body) + bodyOverhead
	}
	return n
}

// StoreBodies writes the bodies that came with a batch of events, in the transaction that stores them: the sink's OnBatch.
func StoreBodies(ctx context.Context, tx pgx.Tx, attachments []any) error {
	var p rundb.InsertBodiesParams
	for _, a := range attachments {
		list, ok := a.(bodies)
		if !ok {
			return fmt.Errorf("store bodies: a %T came with run events", a)
		}
		for _, b := range list {
			if err := addBody(&p, b); err != nil {
				return err
			}
		}
	}
	if len(p.RunIds) == 0 {
		return nil
	}
	if err := rundb.New(tx).InsertBodies(ctx, p); err != nil {
		return fmt.Errorf("store bodies: %w", err)
	}
	return nil
}

func addBody(p *rundb.InsertBodiesParams, b body) error {
	var sent []executor.Header
	if b.request != nil {
		sent = b.request.Headers
	}
	requestHeaders, err := headersJSON(sent)
	if err != nil {
		return err
	}
	headers, err := headersJSON(b.response.Headers)
	if err != nil {
		return err
	}
	kept := b.response.Body
	if kept == nil {
		kept = []byte{}
	}
	p.RunIds = append(p.RunIds, b.run)
	p.Attempts = append(p.Attempts, count(b.attempt))
	p.Steps = append(p.Steps, count(b.step))
	p.Iterations = append(p.Iterations, count(b.iteration))
	p.OrgIds = append(p.OrgIds, b.org)
	p.Statuses = append(p.Statuses, count(b.response.StatusCode))
	p.ContentTypes = append(p.ContentTypes, []byte(b.response.ContentType))
	p.Headers = append(p.Headers, headers)
	p.HeadersTruncated = append(p.HeadersTruncated, b.response.HeadersTruncated)
	p.RequestHeaders = append(p.RequestHeaders, requestHeaders)
	p.Sizes = append(p.Sizes, b.response.Size)
	p.Truncated = append(p.Truncated, b.response.BodyTruncated)
	p.Bodies = append(p.Bodies, kept)
	return nil
}

func headersJSON(list []executor.Header) ([]byte, error) {
	if list == nil {
		list = []executor.Header{}
	}
	raw, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("write headers: %w", err)
	}
	return raw, nil
}

// EnsureBodyPartitions makes the daily tables of bodies that are missing, up to a week ahead. It is called at start and
// daily.
func EnsureBodyPartitions(ctx context.Context, tx pgx.Tx) (made int, err error) {
	if err := tx.QueryRow(ctx, `SELECT es.ensure_run_body()`).Scan(&made); err != nil {
		return 0, fmt.Errorf("make partitions of bodies: %w", err)
	}
	return made, nil
}
