/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the commands of aregctl share: options, output for people and for programs, the database,
 * exit codes. A command is one function, described by one row of its file's table.
 */
#ifndef AREG_CTL_CTL_H
#define AREG_CTL_CTL_H

#include <stdbool.h>
#include <stddef.h>

#include "app/registry/settings.h"
#include "lib/arena.h"
#include "lib/db.h"
#include "lib/json_out.h"
#include "lib/router.h"

/* Exit codes, as aregctl(8) documents them. */
enum ctl_exit {
	CTL_DONE = 0,
	CTL_FAILED = 1, /* the database, a file or the system failed */
	CTL_USAGE = 2, /* the command line or the configuration is wrong */
	CTL_REFUSED = 3, /* not found, or not possible in the state it is in */
	CTL_INCOMPLETE = 4, /* an import refused lines */
};

struct ctl {
	struct arena *arena; /* lives as long as the program */
	struct router *router; /* of all routes of the API */
	struct settings settings;
	struct db *db; /* see ctl_open_db() */
	struct db_options db_options; /* of that */
	bool json; /* --json: output is for a program */
	bool bar; /* a progress bar stands in the terminal's last line */
	const char *const *operands; /* what is left of the command line */
	size_t operand_count;
};

enum ctl_option_kind {
	CTL_FLAG, /* bool */
	CTL_TEXT, /* const char *, NULL when not given */
	CTL_LIST, /* struct ctl_list, empty when not given */
};

struct ctl_list {
	const char **texts;
	size_t count;
};

struct ctl_option {
	const char *name; /* without the dashes */
	enum ctl_option_kind kind;
	size_t offset; /* in the command's values */
	const char *argument; /* as help names it: "ADDRESS"; NULL for a flag */
	const char *help;
};

struct ctl_command {
	const char *name; /* "key create"; NULL ends a table */
	const char *operands; /* as help shows them: "FILE|-"; "" for none */
	size_t operand_count; /* exactly so many */
	const char *summary; /* one line, no full stop */
	const char *notes; /* more for --help, lines ended by \n; or NULL */
	const struct ctl_option *options;
	size_t option_count;
	size_t values_size; /* bytes of the struct that holds the options' values */
	enum ctl_exit (*run)(struct ctl *ctl, const void *values);
};

extern const struct ctl_command ctl_migrate_commands[];
extern const struct ctl_command ctl_user_commands[];
extern const struct ctl_command ctl_key_commands[];
extern const struct ctl_command ctl_agent_commands[];
extern const struct ctl_command ctl_payment_commands[];
extern const struct ctl_command ctl_import_commands[];
extern const struct ctl_command ctl_audit_commands[];
extern const struct ctl_command ctl_cache_commands[];
extern const struct ctl_command ctl_sweep_commands[];
extern const struct ctl_command ctl_status_commands[];
extern const struct ctl_command ctl_workers_commands[];
extern const struct ctl_command ctl_reload_commands[];

/* "aregctl: …" and a newline, to stderr. */
void ctl_error(const char *format, ...) PRINTF_LIKE(1, 2);

/* An arena that ends the program when `limit` bytes are exhausted. arena_free() ends it. */
struct arena *ctl_arena(size_t limit);

/* Makes ctl->db, for statements of at most `timeout_ms`. Connects when first used. */
void ctl_open_db(struct ctl *ctl, int timeout_ms);
/* The same for what changes nothing: a replica will do. */
void ctl_open_db_to_read(struct ctl *ctl, int timeout_ms);

/* Says what failed and what to do next ("import: the database has not been set up: run aregctl
 * migrate"). Returns CTL_FAILED, or CTL_REFUSED when a constraint was in the way. */
enum ctl_exit ctl_db_failed(const struct ctl *ctl, const char *doing);

/* Who acts, for audit_log: "aregctl:" and the login name. */
const char *ctl_actor(struct ctl *ctl);

/* ---- Output. Columns stand in the order of the statement's. ---- */

enum ctl_column_kind {
	CTL_STRING,
	CTL_RAW, /* a number, or JSON already */
	CTL_BOOL,
	CTL_WORDS, /* separated by blanks: an array of strings in JSON */
};

struct ctl_column {
	const char *key; /* in JSON */
	const char *heading; /* for people; NULL shows it in JSON only */
	enum ctl_column_kind kind;
};

/* All rows: a table, or a JSON array of objects; `nothing` is said to people when there are
 * none. */
void ctl_print_rows(struct ctl *ctl, const struct db_rows *rows, const struct ctl_column *columns,
	size_t count, const char *nothing);

/* The first row: one "heading: value" a line, or a JSON object. */
void ctl_print_row(struct ctl *ctl, const struct db_rows *rows, const struct ctl_column *columns,
	size_t count);

/* One row as a JSON object in a line of its own; `arena` is for its text. */
void ctl_print_json_line(struct arena *arena, const struct db_rows *rows, size_t row,
	const struct ctl_column *columns, size_t count);

/* 1234567 as 1,234,567. */
const char *ctl_grouped(struct arena *arena, uint64_t number);

/* A bar of `part` (0..1; below 0 for none) and a text in the last line of the terminal that stderr
 * is, if it is one. To be cleared before anything else is written. */
void ctl_show_bar(struct ctl *ctl, double part, const char *text);
void ctl_clear_bar(struct ctl *ctl);

/* The buffer and a newline, to stdout. */
void ctl_print_buf(const struct buf *buf);

/* ---- Values that several commands take ---- */

/* Each checks one text, says what is wrong with it and returns false. */
MUST_CHECK bool ctl_parse_wallet(const char *text, char canonical[ETH_ADDRESS_LEN + 1]);

/* The text[] literal of the scopes, of at most that many bytes with a blank between them; the one word
 * "none" gives the empty list. NULL when refused. */
const char *ctl_parse_scopes(struct ctl *ctl, const struct ctl_list *scopes, size_t most);

/* A user, named by id or wallet: one of the two is set, the other NULL. */
struct ctl_user_name {
	const char *id;
	const char *wallet;
};
MUST_CHECK bool ctl_parse_user(struct ctl *ctl, const char *text, struct ctl_user_name *name);

#endif
