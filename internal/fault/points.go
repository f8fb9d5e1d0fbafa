package fault

// The points at which a process can be made to die, for tests of recovery. A build without the tag faultpoints has no
// such code: Hit is empty there and is compiled away.
const (
	PointCommandBeforeTx  = "command.before_tx" // a command was decoded, its transaction hasn't begun
	PointCommandInTx      = "command.in_tx"     // everything is written, nothing is committed
	PointCommandCommitted = "command.committed" // committed and not answered
	PointJobFetched       = "job.fetched"       // a worker has the job, nothing was appended
	PointRunStarted       = "run.started"       // run.started is committed, nothing was sent
	PointRunDuringCall    = "run.during_call"   // the target is being talked to
	PointRunAfterHTTP     = "run.after_http"    // the call is done, its result isn't written
	PointRunEnded         = "run.ended"         // run.finished is committed, the job isn't completed
	PointProjectionApply  = "projection.apply"  // a batch is applied, its checkpoint isn't committed
	PointPulse            = "eventstore.pulse"  // events are committed, nobody has been told

	PointSealTaken     = "seal.taken"     // the sealer has its turn, nothing is written
	PointSealInTx      = "seal.in_tx"     // leaves and heads are written, nothing is committed
	PointSealCommitted = "seal.committed" // heads are committed and published nowhere
	PointSealPublished = "seal.published" // heads are in the file, the sealer doesn't know that it has done
)

// SealPoints returns the points of the sealer, for the test that dies at each of them while the log is sealed.
func SealPoints() []string {
	return []string{PointSealTaken, PointSealInTx, PointSealCommitted, PointSealPublished}
}

// Points returns every point but the sealer's, for the test that dies at each of them while runs are made.
func Points() []string {
	return []string{
		PointCommandBeforeTx, PointCommandInTx, PointCommandCommitted,
		PointJobFetched, PointRunStarted, PointRunDuringCall, PointRunAfterHTTP, PointRunEnded,
		PointProjectionApply, PointPulse,
	}
}
