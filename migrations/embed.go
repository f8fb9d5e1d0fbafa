// Package migrations carries the SQL that makes TestFlow's two databases: main (the log, read models and plain tables)
// and analytics (the read models that users may query). Files are goose migrations, numbered per database, forward
// only, and never edited after they have landed. They run as the installation's owner role, whose siblings a file
// reaches through current_setting('testflow.role_prefix'). The package runs nothing; postgres.Migrate does.
package migrations

import "embed"

// Main holds main/*.sql, the migrations of the main database.
//
//go:embed main/*.sql
var Main embed.FS

// Analytics holds analytics/*.sql, the migrations of the analytics database.
//
//go:embed analytics/*.sql
var Analytics embed.FS
