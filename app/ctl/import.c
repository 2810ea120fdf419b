/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aregctl import: a file of JSON Lines into the registry, with progress and an exact report. Each
 * batch of lines is one transaction that passes over what is there already, so a run that was
 * killed is simply started again.
 */
#include "app/ctl/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "app/ctl/import_batch.h"
#include "app/ctl/line_reader.h"
#include "app/ctl/text_table.h"
#include "app/problem_list.h"
#include "lib/utf8.h"

enum {
	TIMEOUT_MS = 10 * 60 * 1000, /* of one statement over one batch */
	REFUSALS_REPORTED = 1000, /* in the JSON report; stderr has them all */
	PROGRESS_S = 5, /* between lines of --progress */
};

/* Of each arena: enough for a line of 1 MiB as a tree, and for a batch as text twice over. */
static const size_t arena_limit = (size_t)256 * 1024 * 1024;

static const char *const kind_names[IMPORT_KINDS] = { "agents", "feedback", "payments" };

struct values {
	bool progress, verbose;
};

struct refusal {
	struct refusal *next;
	uint64_t line;
	const char *errors; /* JSON array */
};

struct run {
	struct ctl *ctl;
	const struct values *values;
	const char *file; /* as named */
	struct line_reader lines;
	struct import_batch batch;
	struct arena *batch_arena; /* holds the batch's rows */
	struct arena *line_arena; /* until the next line */
	struct arena *store_arena; /* while a batch is stored */
	struct import_tally tallies[IMPORT_KINDS];
	uint64_t line_count; /* without blank ones */
	uint64_t refused; /* also those that are no record of any kind */
	struct refusal *refusals, **last_refusal; /* the first REFUSALS_REPORTED */
	double started, progress_at; /* seconds */
};

static volatile sig_atomic_t stop_signal;

static void on_signal(int signal)
{
	stop_signal = signal;
}

static double import_now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- While it runs ---- */

/* "12,345 lines, 5,940/s", and "43 %, 0:12 left" where the end is known. */
static const char *how_far(const struct run *run, struct arena *arena, double part)
{
	double elapsed = import_now_s() - run->started;
	double rate = elapsed > 0 ? (double)run->line_count / elapsed : 0;
	uint64_t left_s = part > 0 ? (uint64_t)(elapsed / part - elapsed + 0.5) : 0;
	const char *text = arena_printf(arena, "%s lines, %s/s",
		ctl_grouped(arena, run->line_count), ctl_grouped(arena, (uint64_t)rate));

	if (part <= 0)
		return text;
	return arena_printf(arena, "%s, %.0f %%, %" PRIu64 ":%02" PRIu64 " left", text, part * 100,
		left_s / 60, left_s % 60);
}

/* Between batches: a bar on a terminal, a line now and then with --progress, else nothing. */
static void import_show_progress(struct run *run)
{
	double now = import_now_s(), part = line_reader_part(&run->lines);
	const char *text = how_far(run, run->line_arena, part);

	if (run->values->progress) {
		if (now - run->progress_at < PROGRESS_S)
			return;
		fprintf(stderr, "%s\n", text);
	} else {
		ctl_show_bar(run->ctl, run->lines.size > 0 ? part : -1, text);
	}
	run->progress_at = now;
}

/* Says that a line was refused, and keeps it for the report. */
static void say_refused(struct run *run, uint64_t line, const struct faults *faults)
{
	struct json_out out;
	struct buf errors, text;

	buf_init(&errors, faults->arena, 256);
	buf_init(&text, faults->arena, 256);
	json_out_init(&out, &errors);
	json_open_array(&out);
	for (const struct fault *fault = faults->first; fault != NULL; fault = fault->next) {
		bool named = fault->pointer[0] == '/';

		json_open_object(&out);
		json_string(&out, "pointer", fault->pointer);
		json_string(&out, "detail", fault->detail);
		json_close_object(&out);
		buf_printf(&text, "%s%s%s%s", text.len > 0 ? "; " : "",
			named ? fault->pointer + 1 : "", named ? " " : "", fault->detail);
	}
	json_close_array(&out);
	ctl_clear_bar(run->ctl);
	fprintf(stderr, "line %" PRIu64 ": refused: %s\n", line,
		table_cell(faults->arena, text.data));
	if (run->refused++ < REFUSALS_REPORTED) {
		struct refusal *refusal = arena_alloc(run->ctl->arena, sizeof(*refusal));

		refusal->line = line;
		refusal->errors = arena_strdup(run->ctl->arena, errors.data);
		*run->last_refusal = refusal;
		run->last_refusal = &refusal->next;
	}
}

static void say_refused_because(void *arg, uint64_t line, const char *pointer, const char *why)
{
	struct run *run = arg;
	struct faults faults;

	arena_reset(run->line_arena);
	faults_init(&faults, run->line_arena, PROBLEM_VALIDATION_FAILED);
	fault_add(&faults, PROBLEM_VALIDATION_FAILED, pointer, "%s", why);
	say_refused(run, line, &faults);
}

static void say_differs(void *arg, uint64_t line, const char *fields)
{
	struct run *run = arg;

	if (!run->values->verbose)
		return;
	ctl_clear_bar(run->ctl);
	fprintf(stderr, "line %" PRIu64 ": already there, but differs: %s\n", line, fields);
}

static bool import_is_blank(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
			return false;
	}
	return true;
}

static void import_take_line(struct run *run, const char *line, size_t len)
{
	enum import_kind kind;
	struct faults faults;

	arena_reset(run->line_arena);
	faults_init(&faults, run->line_arena, PROBLEM_VALIDATION_FAILED);
	if (import_stage(
		    &run->batch, &run->ctl->settings, run->lines.line, line, len, &faults, &kind))
		return;
	if (kind != IMPORT_KINDS)
		run->tallies[kind].refused++;
	say_refused(run, run->lines.line, &faults);
}

static enum db_status store_batch(struct run *run)
{
	const struct import_listener listener = { run, say_refused_because, say_differs };
	enum db_status status =
		import_store(run->ctl->db, &run->batch, run->store_arena, run->tallies, &listener);

	arena_reset(run->batch_arena);
	import_begin(&run->batch, run->batch_arena);
	arena_reset(run->line_arena);
	import_show_progress(run);
	return status;
}

/* All lines, until the end, a failure or a signal; what was read whole is stored then. */
static enum db_status import_take_lines(struct run *run)
{
	enum db_status status = DB_OK;
	enum line_reader_status got;
	const char *line;
	size_t len;

	import_begin(&run->batch, run->batch_arena);
	while (status == DB_OK && stop_signal == 0 &&
		(got = line_reader_next(&run->lines, &line, &len)) != LINES_END) {
		if (got == LINES_LINE && import_is_blank(line, len))
			continue;
		run->line_count++;
		if (got == LINES_LINE)
			import_take_line(run, line, len);
		else
			say_refused_because(run, run->lines.line, "", "longer than 1 MiB");
		if (import_full(&run->batch))
			status = store_batch(run);
	}
	if (status == DB_OK)
		status = store_batch(run);
	ctl_clear_bar(run->ctl);
	return status;
}

/* ---- The report ---- */

static void put_counts(const struct run *run, struct json_out *out)
{
	json_integer(out, "lines", (int64_t)run->line_count);
	json_integer(out, "refused", (int64_t)run->refused);
	for (int kind = 0; kind < IMPORT_KINDS; kind++) {
		const struct import_tally *tally = &run->tallies[kind];

		json_key(out, kind_names[kind]);
		json_open_object(out);
		json_integer(out, "stored", (int64_t)tally->stored);
		json_integer(out, "already_there", (int64_t)tally->there);
		json_integer(out, "differs", (int64_t)tally->differs);
		json_integer(out, "refused", (int64_t)tally->refused);
		json_close_object(out);
	}
}

static void import_report_json(const struct run *run, double seconds, bool complete)
{
	struct json_out out;
	struct buf buf;

	buf_init(&buf, run->ctl->arena, 4096);
	json_out_init(&out, &buf);
	json_open_object(&out);
	json_string(&out, "file", utf8_shown(run->ctl->arena, run->file));
	json_flag(&out, "complete", complete);
	put_counts(run, &out);
	json_raw(&out, "seconds", arena_printf(run->ctl->arena, "%.3f", seconds));
	json_key(&out, "refusals");
	json_open_array(&out);
	for (const struct refusal *refusal = run->refusals; refusal != NULL;
		refusal = refusal->next) {
		json_open_object(&out);
		json_integer(&out, "line", (int64_t)refusal->line);
		json_raw(&out, "errors", refusal->errors);
		json_close_object(&out);
	}
	json_close_array(&out);
	json_close_object(&out);
	ctl_print_buf(&buf);
}

static void import_report_text(const struct run *run, double seconds)
{
	static const char *const headings[] = { "", "STORED", "ALREADY THERE", "OF THEM DIFFERING",
		"REFUSED", NULL };
	struct arena *arena = run->ctl->arena;
	struct text_table *table = text_table_new(arena, headings);
	double rate = (double)run->line_count / (seconds > 0.001 ? seconds : 0.001);

	printf("%s lines in %.1f s (%s/s), %s refused\n\n", ctl_grouped(arena, run->line_count),
		seconds, ctl_grouped(arena, (uint64_t)rate), ctl_grouped(arena, run->refused));
	for (int kind = 0; kind < IMPORT_KINDS; kind++) {
		const struct import_tally *tally = &run->tallies[kind];
		const char *cells[] = { kind_names[kind], ctl_grouped(arena, tally->stored),
			ctl_grouped(arena, tally->there), ctl_grouped(arena, tally->differs),
			ctl_grouped(arena, tally->refused) };

		text_table_row(table, cells);
	}
	text_table_print(table, stdout);
}

static const struct db_statement insert_audit = {
	.name = "import_audit",
	.sql = "INSERT INTO audit_log (actor, action, subject_type, subject_id, after)"
	       " VALUES ($1, 'import', 'registry', $2, $3::jsonb)",
	.effect = DB_CHANGES,
};

/* One entry with the counts; none when nothing was stored, for then nothing was changed. */
static enum ctl_exit audit(struct run *run)
{
	uint64_t stored = 0;
	struct json_out out;
	struct db_rows rows;
	struct buf buf;

	for (int kind = 0; kind < IMPORT_KINDS; kind++)
		stored += run->tallies[kind].stored;
	if (stored == 0)
		return CTL_DONE;
	buf_init(&buf, run->ctl->arena, 512);
	json_out_init(&out, &buf);
	json_open_object(&out);
	put_counts(run, &out);
	json_close_object(&out);
	if (db_run(run->ctl->db, &insert_audit,
		    (const char *[]){
			    ctl_actor(run->ctl), utf8_shown(run->ctl->arena, run->file), buf.data },
		    3, run->ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(run->ctl, "import: the audit entry");
	return CTL_DONE;
}

/* Takes the file in and says how it went. */
static enum ctl_exit take_file(struct run *run)
{
	enum db_status status = import_take_lines(run);
	enum ctl_exit code = CTL_FAILED;

	if (status != DB_OK) {
		(void)ctl_db_failed(run->ctl, "import");
		ctl_error("%s: not all was stored: run the import again", run->file);
	} else if (stop_signal != 0) {
		ctl_error("%s: stopped by signal %d after line %" PRIu64
			  "; what was read is stored: "
			  "run the import again for the rest",
			run->file, (int)stop_signal, run->lines.line);
	} else if (run->lines.failed != NULL) {
		ctl_error("%s: reading failed after line %" PRIu64 ": %s; what was read is stored",
			run->file, run->lines.line, run->lines.failed);
	} else {
		code = run->refused > 0 ? CTL_INCOMPLETE : CTL_DONE;
	}
	if (status == DB_OK && audit(run) != CTL_DONE)
		code = CTL_FAILED;
	if (run->ctl->json)
		import_report_json(run, import_now_s() - run->started, code != CTL_FAILED);
	else
		import_report_text(run, import_now_s() - run->started);
	return code;
}

static enum ctl_exit import(struct ctl *ctl, const void *values)
{
	const struct sigaction action = { .sa_handler = on_signal }; /* without SA_RESTART: a read
									from a pipe must end */
	struct run *run = arena_alloc(ctl->arena, sizeof(*run));
	enum ctl_exit code;

	run->ctl = ctl;
	run->values = values;
	run->file = ctl->operands[0];
	run->last_refusal = &run->refusals;
	if (!line_reader_open(&run->lines, ctl->arena, run->file)) {
		ctl_error("%s: %s", run->file, strerror(errno));
		return CTL_FAILED;
	}
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_connect(ctl->db) != DB_OK) {
		line_reader_close(&run->lines);
		return ctl_db_failed(ctl, "import");
	}
	run->batch_arena = ctl_arena(arena_limit);
	run->line_arena = ctl_arena(arena_limit);
	run->store_arena = ctl_arena(arena_limit);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	run->started = run->progress_at = import_now_s();
	code = take_file(run);
	arena_free(run->batch_arena);
	arena_free(run->line_arena);
	arena_free(run->store_arena);
	line_reader_close(&run->lines);
	return code;
}

static const struct ctl_option options[] = {
	{ "progress", CTL_FLAG, offsetof(struct values, progress), NULL,
		"say every 5 s how far it is; a terminal shows a bar anyway" },
	{ "verbose", CTL_FLAG, offsetof(struct values, verbose), NULL,
		"list the lines that are already there with other content" },
};

const struct ctl_command ctl_import_commands[] = {
	{ "import", "FILE|-", 1, "store the agents, feedback and payments of a file",
		"JSON Lines, plain or compressed with gzip; - reads standard input. What is there\n"
		"already stays as it is, so that a file can be imported any number of times.\n",
		options, 2, sizeof(struct values), import },
	{ .name = NULL },
};
