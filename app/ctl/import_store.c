/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts batches of staged rows into the database: COPY into temporary tables, and from there into
 * the real ones, whose triggers keep the statistics. Read beside this: the PostgreSQL manual on
 * COPY (text format) and on INSERT … ON CONFLICT.
 */
#include "app/ctl/import_batch.h"

#include "app/api/agent_columns.h"

/* Lists as in agent_columns.h. Of the columns that a row of an import has from that table: their names
 * and SQL types, and their names. Of those that are GIVEN: their names, and DIFFERS_IF_GIVEN(). */
#define STAGED_COLUMNS AGENT_COLUMNS(STAGED_COLUMN)
#define STAGED_NAMES AGENT_COLUMNS(STAGED_NAME)
#define GIVEN_NAMES AGENT_COLUMNS(GIVEN_NAME)
#define GIVEN_THAT_DIFFER AGENT_COLUMNS(GIVEN_DIFFERS)

#define STAGED_COLUMN(column, shown, kind, sql, registered, value, imported, type, ...) \
	STAGED_IF_##imported(#column " " type ", ")
#define STAGED_NAME(column, shown, kind, sql, registered, value, imported, ...) \
	STAGED_IF_##imported(#column ", ")
#define STAGED_IF_READ(sql) sql
#define STAGED_IF_GIVEN(sql) sql
#define STAGED_IF_BY_HAND(sql)

#define GIVEN_NAME(column, shown, kind, sql, registered, value, imported, ...) \
	GIVEN_IF_##imported(#column ", ")
#define GIVEN_DIFFERS(column, shown, kind, sql, registered, value, imported, ...) \
	GIVEN_IF_##imported(DIFFERS_IF_GIVEN(#column) ", ")
#define GIVEN_IF_READ(sql)
#define GIVEN_IF_GIVEN(sql) sql
#define GIVEN_IF_BY_HAND(sql)

/*
 * Nested loops, because each batch looks up a few thousand keys in tables of any size, and the
 * planner, which knows nothing of temporary tables, would now and then read a whole one instead.
 */
static const char make_staging[] =
	"SET LOCAL enable_hashjoin = off;"
	"SET LOCAL enable_mergejoin = off;"
	"CREATE TEMP TABLE IF NOT EXISTS import_agents ("
	" line bigint NOT NULL, agent_uuid uuid NOT NULL DEFAULT gen_random_uuid(),"
	" chain text COLLATE \"C\", chain_id bigint, registry_address text COLLATE \"C\","
	" agent_id numeric, owner_address text, status text, registration_file json,"
	" registration_digest bytea, conformance json, " STAGED_COLUMNS
	" created_at timestamptz, metadata json"
	") ON COMMIT DELETE ROWS;"
	"CREATE TEMP TABLE IF NOT EXISTS import_feedback ("
	" line bigint NOT NULL, chain text COLLATE \"C\", registry_address text COLLATE \"C\","
	" agent_id numeric, client_address text COLLATE \"C\", feedback_index bigint,"
	" has_explicit_score boolean, value numeric, value_decimals smallint, tag1 text,"
	" tag2 text, endpoint text, file_uri text, file_hash text, is_revoked boolean,"
	" created_at timestamptz"
	") ON COMMIT DELETE ROWS;"
	"CREATE TEMP TABLE IF NOT EXISTS import_payments ("
	" line bigint NOT NULL, tx_hash text COLLATE \"C\", chain text COLLATE \"C\","
	" amount_usdc numeric, payer text, payee text, status text, endpoint text,"
	" failure_reason text, created_at timestamptz, registry_address text COLLATE \"C\","
	" agent_id numeric, nonce text COLLATE \"C\", log_index bigint, min_payment numeric"
	") ON COMMIT DELETE ROWS";

/* Of a staged row s: its agent is a, by the key erc8004_agents_identity. */
#define NAMES_AGENT \
	"a.chain = s.chain AND a.registry_address = s.registry_address AND a.agent_id = s.agent_id"

/* For concat_ws(): the name of a field whose staged value is not that of row t. */
#define DIFFERS(field) "CASE WHEN s." field " IS DISTINCT FROM t." field " THEN '" field "' END"
/* The same for one that a line may leave out: then it does not differ. */
#define DIFFERS_IF_GIVEN(field) \
	"CASE WHEN s." field " IS NOT NULL AND s." field " IS DISTINCT FROM t." field \
	" THEN '" field "' END"

/* ---- Agents ---- */

static const char copy_agents[] =
	"COPY import_agents (line, chain, chain_id, registry_address, agent_id, owner_address, status,"
	" registration_file, registration_digest, conformance, " AGENT_READ GIVEN_NAMES
	" created_at, metadata) FROM STDIN";

/* A registration through the API takes the counter first and inserts then; in the other order the
 * two could wait for each other. */
static const struct db_statement take_counters = {
	.name = "import_counters",
	.sql = "WITH held AS (SELECT areg_hold_off_suspensions()) "
	       "INSERT INTO erc8004_agent_counters AS c (chain, registry_address, next_agent_id) "
	       "SELECT chain, registry_address, max(agent_id) + 1 FROM import_agents "
	       "GROUP BY chain, registry_address, (SELECT true FROM held) "
	       "ORDER BY chain, registry_address "
	       "ON CONFLICT (chain, registry_address) DO UPDATE"
	       " SET next_agent_id = EXCLUDED.next_agent_id"
	       " WHERE c.next_agent_id < EXCLUDED.next_agent_id",
	.effect = DB_CHANGES,
};

/* A suspension holds: what would be the twin of a suspended agent, or is of a suspended owner, is stored
 * as it was found, and is suspended. */
static const struct db_statement insert_agents = {
	.name = "import_agents",
	.sql = "INSERT INTO erc8004_agents (agent_uuid, chain, chain_id, registry_address, agent_id,"
	       " owner_address, registration_file, registration_digest, conformance, " STAGED_NAMES
	       " status, source, created_at, suspended_with_owner) "
	       "SELECT agent_uuid, chain, chain_id, registry_address, agent_id, owner_address,"
	       " registration_file, registration_digest, conformance, " STAGED_NAMES
	       " CASE WHEN coalesce(status, 'active') = 'active'"
	       "  AND (of_suspended.is OR EXISTS (SELECT FROM erc8004_agents twin"
	       "   WHERE twin.owner_address = s.owner_address"
	       "    AND twin.registration_digest = s.registration_digest"
	       "    AND twin.status = 'suspended')) THEN 'suspended'"
	       "  ELSE coalesce(status, 'active') END, 'import', coalesce(created_at, now()),"
	       " of_suspended.is AND coalesce(status, 'active') = 'active' "
	       "FROM import_agents s CROSS JOIN LATERAL (SELECT EXISTS (SELECT"
	       " FROM erc8004_suspended_owners o WHERE o.owner_address = s.owner_address) AS is)"
	       " AS of_suspended ORDER BY chain, agent_id, line "
	       "ON CONFLICT (chain, registry_address, agent_id) DO NOTHING",
	.effect = DB_CHANGES,
};

/* The agent_uuid of a staged row is in the real table only if that row was stored. */
static const struct db_statement insert_metadata = {
	.name = "import_metadata",
	.sql = "INSERT INTO erc8004_agent_metadata (agent_uuid, key, value) "
	       "SELECT s.agent_uuid, m.key, convert_to(m.value, 'UTF8') "
	       "FROM import_agents s JOIN erc8004_agents USING (agent_uuid),"
	       " json_each_text(s.metadata) m",
	.effect = DB_CHANGES,
};

static const struct db_statement examine_agents = {
	.name = "import_agents_examine",
	/* clang-format off */
	.sql = "SELECT line, false, differing FROM ("
	       " SELECT s.line, concat_ws(', ', " DIFFERS("owner_address") ", "
	       "  CASE WHEN s.registration_digest IS DISTINCT FROM t.registration_digest"
	       "   THEN 'registration_file' END, " GIVEN_THAT_DIFFER DIFFERS_IF_GIVEN("status") ", "
	       "  CASE WHEN s.created_at <> t.created_at THEN 'registered_at' END,"
	       "  CASE WHEN EXISTS (SELECT FROM json_each_text(s.metadata) m"
	       "   WHERE NOT EXISTS (SELECT FROM erc8004_agent_metadata d"
	       "    WHERE d.agent_uuid = t.agent_uuid AND d.key = m.key"
	       "     AND d.value = convert_to(m.value, 'UTF8'))) THEN 'metadata' END) AS differing"
	       " FROM import_agents s JOIN erc8004_agents t"
	       "  USING (chain, registry_address, agent_id)) AS compared "
	       "WHERE differing <> '' ORDER BY line",
	/* clang-format on */
	.effect = DB_READS,
};

/* ---- Feedback ---- */

static const char copy_feedback[] =
	"COPY import_feedback (line, chain, registry_address, agent_id, client_address,"
	" feedback_index, has_explicit_score, value, value_decimals, tag1, tag2, endpoint,"
	" file_uri, file_hash, is_revoked, created_at) FROM STDIN";

/* In the order of the file, because lists show feedback by its id. What is there already is left
 * out before the conflict clause would: that computes the generated columns first. */
static const struct db_statement insert_feedback = {
	.name = "import_feedback",
	.sql = "INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index,"
	       " has_explicit_score, value, value_decimals, tag1, tag2, endpoint, file_uri,"
	       " file_hash, is_revoked, revoked_at, source, created_at) "
	       "SELECT a.agent_uuid, s.client_address, s.feedback_index, s.has_explicit_score,"
	       " s.value, s.value_decimals, s.tag1, s.tag2, s.endpoint, s.file_uri, s.file_hash,"
	       " s.is_revoked, CASE WHEN s.is_revoked THEN coalesce(s.created_at, now()) END,"
	       " 'import', coalesce(s.created_at, now()) "
	       "FROM import_feedback s JOIN erc8004_agents a ON " NAMES_AGENT " "
	       "WHERE NOT EXISTS (SELECT FROM erc8004_reputation t"
	       " WHERE t.agent_uuid = a.agent_uuid AND t.client_address = s.client_address"
	       "  AND t.feedback_index = s.feedback_index) "
	       "ORDER BY s.line "
	       "ON CONFLICT (agent_uuid, client_address, feedback_index) DO NOTHING",
	.effect = DB_CHANGES,
};

static const struct db_statement examine_feedback = {
	.name = "import_feedback_examine",
	/* clang-format off */
	.sql = "SELECT line, unknown, differing FROM ("
	       " SELECT s.line, a.agent_uuid IS NULL AS unknown, concat_ws(', ', "
	       "  CASE WHEN (s.value, s.value_decimals, s.has_explicit_score) <>"
	       "   (t.value, t.value_decimals, t.has_explicit_score) THEN 'score or value' END, "
	       DIFFERS("tag1") ", " DIFFERS("tag2") ", " DIFFERS_IF_GIVEN("endpoint") ", "
	       DIFFERS_IF_GIVEN("file_uri") ", " DIFFERS_IF_GIVEN("file_hash") ", "
	       DIFFERS("is_revoked") ", " DIFFERS_IF_GIVEN("created_at") ") AS differing"
	       " FROM import_feedback s LEFT JOIN erc8004_agents a ON " NAMES_AGENT
	       " LEFT JOIN erc8004_reputation t ON t.agent_uuid = a.agent_uuid"
	       "  AND t.client_address = s.client_address"
	       "  AND t.feedback_index = s.feedback_index) AS compared "
	       "WHERE unknown OR differing <> '' ORDER BY line",
	/* clang-format on */
	.effect = DB_READS,
};

/* ---- Payments ---- */

static const char copy_payments[] =
	"COPY import_payments (line, tx_hash, chain, amount_usdc, payer, payee, status, endpoint,"
	" failure_reason, created_at, registry_address, agent_id, nonce, log_index, min_payment)"
	" FROM STDIN";

/* Of a staged row s: the payment t is the same one, by the index x402_payments_identity. */
#define IS_PAYMENT \
	"t.tx_hash = s.tx_hash AND t.chain = s.chain AND t.payer = s.payer AND t.payee = s.payee" \
	" AND t.nonce IS NOT DISTINCT FROM s.nonce AND t.log_index IS NOT DISTINCT FROM s.log_index"

/* A payment is linked to its agent in the statement that stores it, or never: one that is there
 * already stays as it is. */
static const struct db_statement insert_payments = {
	.name = "import_payments",
	.sql = "WITH first AS ("
	       " SELECT DISTINCT ON (s.tx_hash, s.chain, s.payer, s.payee, s.nonce, s.log_index) s.*,"
	       "  a.agent_uuid"
	       " FROM import_payments s LEFT JOIN erc8004_agents a ON " NAMES_AGENT
	       " WHERE s.agent_id IS NULL OR a.agent_uuid IS NOT NULL"
	       " ORDER BY s.tx_hash, s.chain, s.payer, s.payee, s.nonce, s.log_index, s.line), "
	       "stored AS ("
	       " INSERT INTO x402_payments (tx_hash, chain, nonce, log_index, amount_usdc, payer,"
	       "  payee, status, endpoint, failure_reason, created_at, settled_at, reaches_minimum)"
	       " SELECT tx_hash, chain, nonce, log_index, amount_usdc, payer, payee, status, endpoint,"
	       "  failure_reason, coalesce(created_at, now()),"
	       "  CASE WHEN status <> 'pending' THEN coalesce(created_at, now()) END,"
	       "  amount_usdc >= min_payment"
	       " FROM first ORDER BY line"
	       " ON CONFLICT DO NOTHING"
	       " RETURNING *), "
	       "linked AS ("
	       " INSERT INTO erc8004_agent_payments (payment_id, agent_uuid, linked_at)"
	       " SELECT t.id, s.agent_uuid, t.created_at"
	       " FROM stored t JOIN first s ON " IS_PAYMENT " WHERE s.agent_uuid IS NOT NULL) "
	       "SELECT FROM stored",
	.effect = DB_CHANGES,
};

static const struct db_statement examine_payments = {
	.name = "import_payments_examine",
	/* clang-format off */
	.sql = "SELECT line, unknown, differing FROM ("
	       " SELECT s.line, s.agent_id IS NOT NULL AND a.agent_uuid IS NULL AS unknown,"
	       "  concat_ws(', ', " DIFFERS("amount_usdc") ", " DIFFERS("status") ", " DIFFERS_IF_GIVEN("endpoint") ", "
	       DIFFERS_IF_GIVEN("failure_reason") ", " DIFFERS_IF_GIVEN("created_at") ", "
	       "  CASE WHEN a.agent_uuid IS NOT NULL AND l.agent_uuid IS DISTINCT FROM a.agent_uuid"
	       "   THEN 'agent_id' END) AS differing"
	       " FROM import_payments s LEFT JOIN erc8004_agents a ON " NAMES_AGENT
	       " LEFT JOIN x402_payments t ON " IS_PAYMENT
	       " LEFT JOIN erc8004_agent_payments l ON l.payment_id = t.id) AS compared "
	       "WHERE unknown OR differing <> '' ORDER BY line",
	/* clang-format on */
	.effect = DB_READS,
};

/* How a kind gets from its staging table into its own. `examine` gives, of the lines that were not
 * stored, those to talk about: number, whether the agent is unknown, the fields that differ. */
struct way {
	const char *copy;
	const struct db_statement *prepare; /* or NULL */
	const struct db_statement *insert; /* counts the rows stored */
	const struct db_statement *complete; /* or NULL */
	const struct db_statement *examine;
};

static const struct way ways[IMPORT_KINDS] = {
	[IMPORT_AGENT] = { copy_agents, &take_counters, &insert_agents, &insert_metadata,
		&examine_agents },
	[IMPORT_FEEDBACK] = { copy_feedback, NULL, &insert_feedback, NULL, &examine_feedback },
	[IMPORT_PAYMENT] = { copy_payments, NULL, &insert_payments, NULL, &examine_payments },
};

/* ---- Storing ---- */

/* Rows from..to of a batch, and what storing them did. */
struct piece {
	const struct import_batch *batch;
	size_t from, to;
	struct arena *arena;
	size_t staged[IMPORT_KINDS], stored[IMPORT_KINDS];
	struct db_rows examined[IMPORT_KINDS]; /* count 0: nothing to talk about */
};

/* The text of one kind within the piece: a stretch without gaps. False when there is none. */
static bool batch_text_of(
	const struct piece *piece, enum import_kind kind, size_t *start, size_t *end)
{
	bool any = false;

	for (size_t i = piece->from; i < piece->to; i++) {
		const struct import_row *row = &piece->batch->rows[i];

		if (row->kind != kind)
			continue;
		if (!any)
			*start = row->start;
		*end = row->end;
		any = true;
	}
	return any;
}

static enum db_status copy(
	struct db *db, const char *copy_sql, const char *text, size_t len, size_t *copied)
{
	enum { SLICE = 256 * 1024 };
	enum db_status status = db_copy_begin(db, copy_sql);

	for (size_t at = 0; status == DB_OK && at < len; at += SLICE)
		status = db_copy_put(db, text + at, len - at < SLICE ? len - at : SLICE);
	return status == DB_OK ? db_copy_end(db, NULL, copied) : status;
}

static enum db_status store_kind(struct db *db, struct piece *piece, enum import_kind kind)
{
	const struct way *way = &ways[kind];
	struct db_rows rows;
	size_t start, end;
	enum db_status status;

	piece->staged[kind] = piece->stored[kind] = 0;
	piece->examined[kind].count = 0;
	if (!batch_text_of(piece, kind, &start, &end))
		return DB_OK;
	status = copy(db, way->copy, piece->batch->text[kind].data + start, end - start,
		&piece->staged[kind]);
	if (status == DB_OK && way->prepare != NULL)
		status = db_run(db, way->prepare, NULL, 0, piece->arena, &rows);
	if (status == DB_OK)
		status = db_run(db, way->insert, NULL, 0, piece->arena, &rows);
	if (status != DB_OK)
		return status;
	piece->stored[kind] = rows.count;
	if (way->complete != NULL)
		status = db_run(db, way->complete, NULL, 0, piece->arena, &rows);
	/* All stored: none was there before, and every agent was known. */
	if (status == DB_OK && piece->stored[kind] < piece->staged[kind])
		status = db_run(db, way->examine, NULL, 0, piece->arena, &piece->examined[kind]);
	return status;
}

static enum db_status store_piece(struct db *db, void *arg)
{
	struct piece *piece = arg;
	enum db_status status = db_script(db, make_staging);

	for (int kind = 0; kind < IMPORT_KINDS && status == DB_OK; kind++)
		status = store_kind(db, piece, (enum import_kind)kind);
	return status;
}

/* Adds what was committed to the tallies, and says which lines were refused or differ. */
static void count_piece(const struct piece *piece, struct import_tally *tallies,
	const struct import_listener *listener)
{
	for (int kind = 0; kind < IMPORT_KINDS; kind++) {
		const struct db_rows *examined = &piece->examined[kind];
		struct import_tally *tally = &tallies[kind];
		uint64_t unknown = 0;

		for (size_t i = 0; i < examined->count; i++) {
			uint64_t line = (uint64_t)db_int(examined, i, 0);

			if (db_bool(examined, i, 1)) {
				listener->refused(listener->arg, line, "/agent_id",
					"there is no such agent in the registry");
				unknown++;
			} else {
				listener->differs(listener->arg, line, db_text(examined, i, 2));
				tally->differs++;
			}
		}
		tally->refused += unknown;
		tally->stored += piece->stored[kind];
		tally->there += piece->staged[kind] - piece->stored[kind] - unknown;
	}
}

/* Stores the rows of the piece. Should a constraint refuse them for a reason that was not checked
 * before, halves them until the line is found that it is about, and refuses that alone. */
static enum db_status batch_store(struct db *db, struct piece piece, struct import_tally *tallies,
	const struct import_listener *listener)
{
	struct piece rest = piece;
	enum db_status status;

	arena_reset(piece.arena);
	status = db_transact(db, store_piece, &piece);
	if (status == DB_OK)
		count_piece(&piece, tallies, listener);
	if (status != DB_CALLER)
		return status;
	if (piece.to - piece.from == 1) {
		const struct import_row *row = &piece.batch->rows[piece.from];

		tallies[row->kind].refused++;
		listener->refused(listener->arg, row->line, "", db_last_error(db)->message);
		return DB_OK;
	}
	piece.to = rest.from = piece.from + (piece.to - piece.from) / 2;
	status = batch_store(db, piece, tallies, listener);
	return status == DB_OK ? batch_store(db, rest, tallies, listener) : status;
}

enum db_status import_store(struct db *db, const struct import_batch *batch, struct arena *arena,
	struct import_tally tallies[IMPORT_KINDS], const struct import_listener *listener)
{
	struct piece piece = { .batch = batch, .to = batch->count, .arena = arena };

	return batch->count > 0 ? batch_store(db, piece, tallies, listener) : DB_OK;
}
