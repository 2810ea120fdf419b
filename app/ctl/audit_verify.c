/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether anybody tampered with the log of changes. How its hashes are made stands in aregctl-audit(8);
 * they are computed here and not by the database, whose functions a tamperer could change along with the
 * rows.
 */
#include "app/ctl/audit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/json_in.h"
#include "lib/rfc3339.h"
#include "lib/sha256.h"

enum {
	FINDINGS_REPORTED = 1000, /* in the JSON report; people see them all */
	HASH_HEX = 2 * SHA256_BYTES,
	UUID_LEN = 36,
};

static const char no_hash[] = "0000000000000000000000000000000000000000000000000000000000000000";

bool audit_read_number(const char *text, int64_t most, int64_t *number)
{
	char *end;

	errno = 0;
	*number = strtoll(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *number <= most;
}

/* First in its transaction, as it demands. A standby cannot seal; it has what was sealed. */
static const struct db_statement seal = {
	.name = "ctl_audit_seal",
	.sql = "SELECT areg_seal_audit() WHERE NOT pg_is_in_recovery()",
	.effect = DB_CHANGES,
};

/* What is sealed up to that position was there when this was read, and is looked at. */
static const struct db_statement read_extent = {
	.name = "ctl_audit_extent",
	.sql = "SELECT seal_position, seal_hash, settled_id, (SELECT count(*) FROM audit_log),"
	       " (SELECT count(*) FROM audit_seals), sealed_position,"
	       " coalesce((SELECT max(id) FROM audit_log), 0),"
	       " (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END"
	       "  FROM audit_log_ids) "
	       "FROM areg_audit_head(), audit_sealing",
	.effect = DB_READS,
};
enum {
	HEAD_POSITION,
	HEAD_HASH,
	SETTLED_ID,
	ENTRY_COUNT,
	SEAL_COUNT,
	SEALED_POSITION,
	NEWEST_ID,
	LAST_NUMBER /* that audit_log_ids handed out */
};

static const struct db_statement next_seals = {
	.name = "ctl_audit_seals",
	.sql = "SELECT position, rfc3339(sealed_at), lane, lane_seq, encode(lane_hash, 'hex'),"
	       " encode(hash, 'hex') "
	       "FROM audit_seals WHERE position > $1 AND position <= $2 ORDER BY position LIMIT 500",
	.effect = DB_READS,
};

/* An entry is late when it was sealed so long after its time; transactions do not last so long. */
static const struct db_statement next_entries = {
	.name = "ctl_audit_entries",
	.sql = "SELECT " ENTRY_COLUMNS ", rfc3339(at + interval '5 minutes') "
	       "FROM audit_log WHERE (lane, lane_seq, id) > ($1::uuid, $2::bigint, $3::bigint) "
	       "ORDER BY lane, lane_seq, id LIMIT 200",
	.effect = DB_READS,
};

/* The last column: when others had been sealed before. */
static const struct db_statement next_lane_seals = {
	.name = "ctl_audit_lane_seals",
	.sql = "SELECT s.position, rfc3339(s.sealed_at), s.lane, s.lane_seq,"
	       " encode(s.lane_hash, 'hex'), s.position, rfc3339((SELECT p.sealed_at"
	       "  FROM audit_seals p WHERE p.position < s.position AND p.sealed_at < s.sealed_at"
	       "  ORDER BY p.position DESC LIMIT 1)) "
	       "FROM audit_seals s "
	       "WHERE (s.lane, s.lane_seq, s.position) > ($1::uuid, $2::bigint, $3::bigint)"
	       " AND s.position <= $4 "
	       "ORDER BY s.lane, s.lane_seq, s.position LIMIT 500",
	.effect = DB_READS,
};
enum { SEAL_POSITION, SEALED_AT, SEAL_LANE, SEAL_SEQ, LANE_HASH, SEAL_HASH, SEALED_BEFORE };

/* The planner takes a pair of columns that is compared for far rarer than it is, and would go
 * through the whole table for each batch. */
static const char walk_indexes[] = "SET plan_cache_mode = force_generic_plan;"
				   " SET enable_seqscan = off; SET enable_bitmapscan = off";

struct finding {
	struct finding *next;
	const char *what;
	const char *entry, *lane, *position; /* NULL where it is about none */
	const char *detail;
};

/* Entries, or seals, in order of their lanes, a batch at a time. */
struct stream {
	const struct db_statement *statement;
	const char *most; /* its fourth parameter, or NULL */
	int lane, seq, id; /* columns that it is ordered by */
	struct arena *arena; /* holds the batch */
	struct db_rows rows;
	size_t at;
	char last_lane[UUID_LEN + 1], last_seq[24], last_id[24]; /* of the batch before */
	bool ended;
};

struct lane {
	char id[UUID_LEN + 1];
	int64_t seq; /* of the entry looked at last; 0 for none */
	int64_t entry; /* its number */
	char hash[HASH_HEX + 1]; /* its hash */
	int64_t sealed_seq; /* of the seal looked at last */
	char sealed_hash[HASH_HEX + 1], sealed_at[RFC3339_LEN + 8];
	int64_t unsealed; /* entries that should have been sealed and are not */
	int64_t first_unsealed; /* number of the first of them */
};

struct verification {
	struct ctl *ctl;
	struct stream entries, seals;
	struct arena *seal_arena; /* holds a batch in order of position */
	struct buf text; /* that is hashed */
	int64_t head, settled; /* see read_extent and audit_sealing */
	char head_hash[HASH_HEX + 1];
	int64_t expected; /* position of --expect, -1 without it */
	const char *expected_hash;
	int64_t row_count, rows_done; /* entries and seals, for the bar */
	int64_t unused; /* numbers behind the newest entry that are in none */
	int64_t lane_count, entry_count, seal_count, finding_count;
	struct finding *findings, **last_finding; /* the first FINDINGS_REPORTED */
	uint64_t shown_us; /* when the bar was drawn */
};

/* Where a finding is: the words that are not known are NULL. */
struct place {
	const char *entry, *lane, *position;
};

static void verify_find(struct verification *v, const char *what, struct place place,
	const char *format, ...) PRINTF_LIKE(4, 5);

static void verify_find(
	struct verification *v, const char *what, struct place place, const char *format, ...)
{
	struct arena *arena = v->ctl->arena;
	struct finding *finding;
	char detail[512];
	va_list args;

	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	v->finding_count++;
	if (!v->ctl->json) {
		ctl_clear_bar(v->ctl);
		printf("%s: %s\n", what, detail);
		return;
	}
	if (v->finding_count > FINDINGS_REPORTED)
		return;
	finding = arena_alloc(arena, sizeof(*finding));
	*finding = (struct finding){ .what = what, .detail = arena_strdup(arena, detail) };
	finding->entry = place.entry != NULL ? arena_strdup(arena, place.entry) : NULL;
	finding->lane = place.lane != NULL ? arena_strdup(arena, place.lane) : NULL;
	finding->position = place.position != NULL ? arena_strdup(arena, place.position) : NULL;
	*v->last_finding = finding;
	v->last_finding = &finding->next;
}

static void verify_show_progress(struct verification *v, size_t more)
{
	double part;

	v->rows_done += (int64_t)more;
	if (clock_us() - v->shown_us < 100 * 1000)
		return;
	v->shown_us = clock_us();
	part = v->row_count > 0 ? (double)v->rows_done / (double)v->row_count : 1;
	ctl_show_bar(v->ctl, part < 1 ? part : 1,
		arena_printf(v->entries.arena, "%.0f %%", part < 1 ? part * 100 : 100));
}

/* ---- Hashes ---- */

/* A column as part of what is hashed. */
struct hashed {
	int column;
	bool quoted; /* a JSON string; else it is JSON already */
};

/* SHA-256 of the 32 bytes of `previous` and a JSON array of the columns, with a blank behind each
 * comma. json_out escapes in strings what PostgreSQL does. */
static void hash_row(struct buf *buf, const char *previous, const struct db_rows *rows, size_t row,
	const struct hashed *order, size_t count, char hash[HASH_HEX + 1])
{
	uint8_t digest[SHA256_BYTES] = { 0 };

	buf->len = 0;
	if (!hex_decode(previous, sizeof(digest), digest))
		memset(digest, 0, sizeof(digest)); /* no hash at all: fits nothing */
	buf_put(buf, digest, sizeof(digest));
	for (size_t i = 0; i < count; i++) {
		const char *text = db_text(rows, row, order[i].column);
		struct json_out out;

		buf_puts(buf, i == 0 ? "[" : ", ");
		json_out_init(&out, buf);
		if (order[i].quoted)
			json_put_string(&out, text);
		else
			json_put_raw(&out, text);
	}
	buf_putc(buf, ']');
	sha256(buf->data, buf->len, digest);
	hex_encode(digest, sizeof(digest), hash);
}

static void copy_hash(char to[HASH_HEX + 1], const char *from)
{
	snprintf(to, HASH_HEX + 1, "%s", from);
}

/* ---- The chain of seals ---- */

static void check_seal(struct verification *v, const struct db_rows *rows, size_t row,
	int64_t *position, char previous[HASH_HEX + 1])
{
	static const struct hashed order[] = { { SEAL_POSITION, false }, { SEALED_AT, true },
		{ SEAL_LANE, true }, { SEAL_SEQ, false }, { LANE_HASH, true } };
	const struct place place = { .position = db_text(rows, row, SEAL_POSITION) };
	const char *stored = db_text(rows, row, SEAL_HASH);
	int64_t here = db_int(rows, row, SEAL_POSITION);
	char hash[HASH_HEX + 1];

	if (here != *position + 1) {
		verify_find(v, "seals removed", place,
			"seals %" PRId64 " to %" PRId64 " are missing", *position + 1, here - 1);
	} else {
		hash_row(&v->text, previous, rows, row, order, sizeof(order) / sizeof(order[0]),
			hash);
		if (strcmp(hash, stored) != 0)
			verify_find(v, "seal changed", place,
				"seal %" PRId64 " of %s does not follow from the one before it",
				here, db_text(rows, row, SEALED_AT));
	}
	if (here == v->expected && strcmp(stored, v->expected_hash) != 0)
		verify_find(v, "seals replaced", place,
			"seal %" PRId64 " of %s is another than the one expected: its hash is %s",
			here, db_text(rows, row, SEALED_AT), stored);
	*position = here;
	copy_hash(previous, stored);
}

static enum db_status check_seals(struct verification *v)
{
	char previous[HASH_HEX + 1], from[24], to[24];
	int64_t position = 0;
	struct db_rows rows;
	enum db_status status;

	copy_hash(previous, no_hash);
	snprintf(to, sizeof(to), "%" PRId64, v->head);
	do {
		snprintf(from, sizeof(from), "%" PRId64, position);
		arena_reset(v->seal_arena);
		status = db_run(v->ctl->db, &next_seals, (const char *[]){ from, to }, 2,
			v->seal_arena, &rows);
		if (status != DB_OK)
			return status;
		for (size_t row = 0; row < rows.count; row++)
			check_seal(v, &rows, row, &position, previous);
		v->seal_count += (int64_t)rows.count;
		verify_show_progress(v, rows.count);
	} while (rows.count > 0);
	if (v->expected > v->head)
		verify_find(v, "seals removed", (struct place){ NULL },
			"the last seal is %" PRId64 ", but there was one of position %" PRId64,
			v->head, v->expected);
	return DB_OK;
}

/* ---- The lanes ---- */

static void stream_open(struct stream *stream, const struct db_statement *statement, int lane,
	int seq, int id, const char *most)
{
	static const char least[] = "-9223372036854775808";

	*stream = (struct stream){ .statement = statement,
		.lane = lane,
		.seq = seq,
		.id = id,
		.most = most,
		.arena = ctl_arena(AUDIT_BATCH_BYTES),
		.last_lane = "00000000-0000-0000-0000-000000000000" };
	memcpy(stream->last_seq, least, sizeof(least));
	memcpy(stream->last_id, least, sizeof(least));
}

/* Makes sure that there is a row at stream->at, unless the stream has ended. */
static enum db_status stream_fill(struct verification *v, struct stream *stream)
{
	const char *params[] = { stream->last_lane, stream->last_seq, stream->last_id,
		stream->most };
	enum db_status status;
	size_t last;

	if (stream->ended || stream->at < stream->rows.count)
		return DB_OK;
	verify_show_progress(v, stream == &v->entries ? stream->rows.count : 0);
	arena_reset(stream->arena);
	stream->at = 0;
	stream->rows.count = 0;
	status = db_run(v->ctl->db, stream->statement, params, stream->most != NULL ? 4 : 3,
		stream->arena, &stream->rows);
	if (status != DB_OK)
		return status;
	if (stream->rows.count == 0) {
		stream->ended = true;
		return DB_OK;
	}
	last = stream->rows.count - 1;
	snprintf(stream->last_lane, sizeof(stream->last_lane), "%s",
		db_text(&stream->rows, last, stream->lane));
	snprintf(stream->last_seq, sizeof(stream->last_seq), "%s",
		db_text(&stream->rows, last, stream->seq));
	snprintf(stream->last_id, sizeof(stream->last_id), "%s",
		db_text(&stream->rows, last, stream->id));
	return DB_OK;
}

static const char *stream_text(const struct stream *stream, int column)
{
	return db_text(&stream->rows, stream->at, column);
}

/* The stream's row is one of the lane; lane ids compare as text as they do as bytes. */
static bool stream_in(const struct stream *stream, const struct lane *lane)
{
	return !stream->ended && strcmp(stream_text(stream, stream->lane), lane->id) == 0;
}

static int64_t stream_seq(const struct stream *stream)
{
	return db_int(&stream->rows, stream->at, stream->seq);
}

/* Whether content and hash fit what comes before. After a gap only a seal can tell what that was. */
static void check_content(struct verification *v, const struct lane *lane, struct place place)
{
	static const struct hashed order[] = { { LANE, true }, { LANE_SEQ, false }, { ID, false },
		{ AT, true }, { USER, true }, { ACTOR, true }, { ACTION, true },
		{ SUBJECT_TYPE, true }, { SUBJECT_ID, true }, { BEFORE, false }, { AFTER, false },
		{ REQUEST_ID, true }, { ADDRESS, true } };
	const struct stream *entries = &v->entries;
	int64_t seq = stream_seq(entries);
	const char *previous = lane->seq == seq - 1	     ? lane->hash
			       : lane->sealed_seq == seq - 1 ? lane->sealed_hash
							     : NULL;
	char hash[HASH_HEX + 1];

	if (previous == NULL)
		return;
	hash_row(&v->text, previous, &entries->rows, entries->at, order,
		sizeof(order) / sizeof(order[0]), hash);
	if (strcmp(hash, stream_text(entries, HASH)) != 0)
		verify_find(v, "changed", place,
			"entry %s of %s (%" PRId64
			" of lane %s), or the hash of the entry before it",
			place.entry, stream_text(entries, AT), seq, lane->id);
}

/* Whether the entry's seal, which is its own or that of one behind it, confirms it. */
static void check_sealed(struct verification *v, struct lane *lane, struct place place)
{
	const struct stream *entries = &v->entries, *seals = &v->seals;
	const char *at = stream_text(entries, AT), *before;

	if (!stream_in(seals, lane)) {
		if (db_int(&entries->rows, entries->at, ID) <= v->settled && lane->unsealed++ == 0)
			lane->first_unsealed = db_int(&entries->rows, entries->at, ID);
		return;
	}
	before = stream_text(seals, SEALED_BEFORE);
	if (before != NULL && strcmp(before, stream_text(entries, LATE_AFTER)) > 0)
		verify_find(v, "inserted", place,
			"entry %s (lane %s) says %s, but was not there when the log was sealed "
			"at %s",
			place.entry, lane->id, at, before);
	if (stream_seq(seals) == stream_seq(entries) &&
		strcmp(stream_text(seals, LANE_HASH), stream_text(entries, HASH)) != 0)
		verify_find(v, "replaced", place,
			"entry %s of %s (%" PRId64 " of lane %s) is not the one of seal %s",
			place.entry, at, stream_seq(entries), lane->id,
			stream_text(seals, SEAL_POSITION));
}

static void check_entry(struct verification *v, struct lane *lane)
{
	const struct stream *entries = &v->entries;
	const struct place place = { .entry = stream_text(entries, ID), .lane = lane->id };
	const char *at = stream_text(entries, AT);
	int64_t seq = stream_seq(entries), id = db_int(&entries->rows, entries->at, ID);

	if (seq > lane->seq + 1)
		verify_find(v, "removed", place,
			"entries %" PRId64 " to %" PRId64 " of lane %s, before entry %s of %s",
			lane->seq + 1, seq - 1, lane->id, place.entry, at);
	else if (seq <= lane->seq)
		verify_find(v, "inserted", place,
			"entry %s of %s: lane %s had its entry %" PRId64 " already", place.entry,
			at, lane->id, seq);
	if (lane->seq > 0 && id <= lane->entry)
		verify_find(v, "reordered", place,
			"entry %s of %s stands behind entry %" PRId64 " in lane %s", place.entry,
			at, lane->entry, lane->id);
	check_content(v, lane, place);
	check_sealed(v, lane, place);
	lane->seq = seq;
	lane->entry = id;
	copy_hash(lane->hash, stream_text(entries, HASH));
	v->entry_count++;
}

static void note_seal(struct verification *v, struct lane *lane)
{
	lane->sealed_seq = stream_seq(&v->seals);
	copy_hash(lane->sealed_hash, stream_text(&v->seals, LANE_HASH));
	snprintf(lane->sealed_at, sizeof(lane->sealed_at), "%s", stream_text(&v->seals, SEALED_AT));
}

static void check_end(struct verification *v, const struct lane *lane)
{
	const struct place place = { .lane = lane->id };

	if (lane->sealed_seq > lane->seq && lane->seq == 0)
		verify_find(v, "removed", place,
			"lane %s, whole: its %" PRId64 " entries, the last sealed at %s", lane->id,
			lane->sealed_seq, lane->sealed_at);
	else if (lane->sealed_seq > lane->seq)
		verify_find(v, "removed", place,
			"entries %" PRId64 " to %" PRId64 " at the end of lane %s, sealed at %s",
			lane->seq + 1, lane->sealed_seq, lane->id, lane->sealed_at);
	if (lane->unsealed > 0)
		verify_find(v, "inserted", place,
			"%" PRId64 " entries of lane %s, the first of number %" PRId64
			", are not sealed, but ones of higher number are; or their seals were "
			"removed",
			lane->unsealed, lane->id, lane->first_unsealed);
}

/* Goes through the entries and the seals of one lane side by side. */
static enum db_status check_lane(struct verification *v, struct lane *lane)
{
	enum db_status status = DB_OK;

	while (status == DB_OK) {
		bool entry = stream_in(&v->entries, lane), sealed = stream_in(&v->seals, lane);

		if (!entry && !sealed)
			break;
		if (entry && (!sealed || stream_seq(&v->entries) <= stream_seq(&v->seals))) {
			check_entry(v, lane);
			v->entries.at++;
			status = stream_fill(v, &v->entries);
		} else {
			note_seal(v, lane);
			v->seals.at++;
			status = stream_fill(v, &v->seals);
		}
	}
	if (status == DB_OK)
		check_end(v, lane);
	return status;
}

static enum db_status check_lanes(struct verification *v)
{
	enum db_status status = stream_fill(v, &v->entries);

	if (status == DB_OK)
		status = stream_fill(v, &v->seals);
	while (status == DB_OK && !(v->entries.ended && v->seals.ended)) {
		const char *of_entry = v->entries.ended ? NULL : stream_text(&v->entries, LANE);
		const char *of_seal = v->seals.ended ? NULL : stream_text(&v->seals, SEAL_LANE);
		bool seal_first =
			of_entry == NULL || (of_seal != NULL && strcmp(of_seal, of_entry) < 0);
		struct lane lane = { .seq = 0 };

		snprintf(lane.id, sizeof(lane.id), "%s", seal_first ? of_seal : of_entry);
		copy_hash(lane.hash, no_hash);
		v->lane_count++;
		status = check_lane(v, &lane);
	}
	return status;
}

/* ---- The command ---- */

static void verify_report_json(struct verification *v)
{
	struct json_out out;
	struct buf buf;

	buf_init(&buf, v->ctl->arena, 4096);
	json_out_init(&out, &buf);
	json_open_object(&out);
	json_flag(&out, "intact", v->finding_count == 0);
	json_integer(&out, "entries", v->entry_count);
	json_integer(&out, "lanes", v->lane_count);
	json_integer(&out, "seals", v->seal_count);
	json_string(
		&out, "head", arena_printf(v->ctl->arena, "%" PRId64 ":%s", v->head, v->head_hash));
	json_integer(&out, "unused_numbers", v->unused);
	json_integer(&out, "finding_count", v->finding_count);
	json_key(&out, "findings");
	json_open_array(&out);
	for (const struct finding *finding = v->findings; finding != NULL;
		finding = finding->next) {
		json_open_object(&out);
		json_string(&out, "what", finding->what);
		json_raw(&out, "entry", finding->entry);
		json_string(&out, "lane", finding->lane);
		json_raw(&out, "seal", finding->position);
		json_string(&out, "detail", finding->detail);
		json_close_object(&out);
	}
	json_close_array(&out);
	json_close_object(&out);
	ctl_print_buf(&buf);
}

static void verify_report_text(struct verification *v)
{
	struct arena *arena = v->ctl->arena;

	printf("%s: %s entries in %s lanes, %s seals",
		v->finding_count == 0 ? "intact" : "TAMPERED",
		ctl_grouped(arena, (uint64_t)v->entry_count),
		ctl_grouped(arena, (uint64_t)v->lane_count),
		ctl_grouped(arena, (uint64_t)v->seal_count));
	if (v->finding_count > 0)
		printf(", %s findings", ctl_grouped(arena, (uint64_t)v->finding_count));
	printf("\nhead: %" PRId64 ":%s\n", v->head, v->head_hash);
	if (v->unused > 0)
		printf("note: %s numbers behind the newest entry are in no entry, as those of "
		       "transactions that failed are; only a head noted elsewhere tells them from "
		       "entries removed\n",
			ctl_grouped(arena, (uint64_t)v->unused));
}

/* --expect POSITION:HASH. */
static bool read_expected(struct verification *v, const char *text)
{
	const char *colon = strchr(text, ':');
	uint8_t digest[SHA256_BYTES];
	const char *position;

	if (colon == NULL)
		goto refuse;
	position = arena_strndup(v->ctl->arena, text, (size_t)(colon - text));
	if (!audit_read_number(position, INT64_MAX, &v->expected) ||
		strlen(colon + 1) != HASH_HEX || !hex_decode(colon + 1, sizeof(digest), digest))
		goto refuse;
	v->expected_hash = colon + 1;
	return true;
refuse:
	ctl_error("--expect %s: not the position of a seal, a colon and its hash of 64 hex digits, "
		  "as aregctl audit verify prints them behind \"head:\"",
		text);
	return false;
}

/* Whether rows, sequence and what the sealer remembers of them tell one story. A sequence is read no
 * earlier than the rows, and never goes back. */
static void check_counters(struct verification *v, const struct db_rows *rows)
{
	const int64_t sealed = db_int(rows, 0, SEALED_POSITION);
	const int64_t newest = db_int(rows, 0, NEWEST_ID);
	const int64_t last = db_int(rows, 0, LAST_NUMBER);
	const int64_t known = newest > v->settled ? newest : v->settled;

	if (sealed > v->head)
		verify_find(v, "seals removed", (struct place){ NULL },
			"the last seal is %" PRId64 ", but seals up to %" PRId64 " were made",
			v->head, sealed);
	else if (sealed < v->head)
		verify_find(v, "seals inserted", (struct place){ NULL },
			"the last seal is %" PRId64 ", but only seals up to %" PRId64
			" were made by areg_seal_audit()",
			v->head, sealed);
	if (known > last)
		verify_find(v, "numbers set back", (struct place){ NULL },
			"audit_log_ids stands at %" PRId64 ", but number %" PRId64
			" was handed out before",
			last, known);
	v->unused = last > newest ? last - newest : 0;
}

static enum db_status verify_read_head(struct verification *v)
{
	struct ctl *ctl = v->ctl;
	struct db_rows rows;
	enum db_status status = db_run(ctl->db, &seal, NULL, 0, ctl->arena, &rows);

	if (status == DB_OK)
		status = db_run(ctl->db, &read_extent, NULL, 0, ctl->arena, &rows);
	if (status == DB_OK)
		status = db_script(ctl->db, walk_indexes);
	if (status != DB_OK)
		return status;
	if (rows.count != 1) {
		verify_find(v, "seals removed", (struct place){ NULL },
			"the table audit_sealing has lost its row");
		copy_hash(v->head_hash, no_hash);
		return DB_OK;
	}
	v->head = db_int(&rows, 0, HEAD_POSITION);
	copy_hash(v->head_hash, db_text(&rows, 0, HEAD_HASH));
	v->settled = db_int(&rows, 0, SETTLED_ID);
	v->row_count = db_int(&rows, 0, ENTRY_COUNT) + db_int(&rows, 0, SEAL_COUNT);
	check_counters(v, &rows);
	return DB_OK;
}

enum ctl_exit audit_log_verify(struct ctl *ctl, const char *expect)
{
	struct verification *v = arena_alloc(ctl->arena, sizeof(*v));
	struct arena *text_arena;
	enum db_status status;
	char head[24];

	v->ctl = ctl;
	v->last_finding = &v->findings;
	v->expected = -1;
	v->shown_us = clock_us();
	if (expect != NULL && !read_expected(v, expect))
		return CTL_USAGE;
	ctl_open_db_to_read(ctl, AUDIT_TIMEOUT_MS);
	status = verify_read_head(v);
	if (status != DB_OK)
		return ctl_db_failed(ctl, "audit verify");
	snprintf(head, sizeof(head), "%" PRId64, v->head);
	stream_open(&v->entries, &next_entries, LANE, LANE_SEQ, ID, NULL);
	stream_open(&v->seals, &next_lane_seals, SEAL_LANE, SEAL_SEQ, SEAL_POSITION, head);
	v->seal_arena = ctl_arena(AUDIT_BATCH_BYTES);
	text_arena = ctl_arena(AUDIT_BATCH_BYTES);
	buf_init(&v->text, text_arena, 64 * 1024);
	status = check_seals(v);
	if (status == DB_OK)
		status = check_lanes(v);
	ctl_clear_bar(ctl);
	arena_free(text_arena);
	arena_free(v->seal_arena);
	arena_free(v->seals.arena);
	arena_free(v->entries.arena);
	if (status != DB_OK)
		return ctl_db_failed(ctl, "audit verify");
	if (ctl->json)
		verify_report_json(v);
	else
		verify_report_text(v);
	return v->finding_count == 0 ? CTL_DONE : CTL_REFUSED;
}
