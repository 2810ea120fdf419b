/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line per event, JSON or text, written with a single write(2) so that lines of
 * several processes never mix.
 */
#ifndef AREG_LOG_H
#define AREG_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/must_check.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_JSON, LOG_FORMAT_TEXT };

/* What a line carries beside time, level, pid and message. */
enum log_kind { LOG_END, LOG_STR, LOG_INT, LOG_MS, LOG_FLAG };

struct log_field {
	enum log_kind kind; /* LOG_END ends a list */
	const char *key;
	const char *text; /* LOG_STR; NULL leaves the field out */
	int64_t number; /* LOG_INT; LOG_FLAG 0 or 1; LOG_MS: microseconds, written as milliseconds
			     with three digits */
};

#define LOG_TEXT(key_, text_) ((struct log_field){ LOG_STR, (key_), (text_), 0 })
#define LOG_NUMBER(key_, number_) ((struct log_field){ LOG_INT, (key_), NULL, (number_) })
#define LOG_MICROS(key_, us_) ((struct log_field){ LOG_MS, (key_), NULL, (us_) })
#define LOG_BOOL(key_, flag_) ((struct log_field){ LOG_FLAG, (key_), NULL, (flag_) ? 1 : 0 })

/*
 * Opens the log. `path` is a file that is appended to (made with mode 0640), or "stderr". On
 * failure returns false, keeps the log that was open before (stderr at first) and sets *why.
 */
MUST_CHECK bool log_open(
	const char *path, enum log_format format, enum log_level level, const char **why);

/* Opens the same path again (after a rotation). As log_open() on failure. */
MUST_CHECK bool log_reopen(const char **why);

/* Named in every line as "process": "master", "worker 3", "aregctl". Copied, at most 31 bytes. */
void log_process(const char *name);

/* The request that lines from here on belong to; NULL for none. Not copied. */
void log_request_id(const char *id);

bool log_enabled(enum log_level level);

/* Lines of this process that could not be written whole: a full disk, a closed pipe. A line that
 * cannot be written is counted here and nothing else happens. */
uint64_t log_dropped(void);

/* A line with fields: log_event(LOG_LEVEL_INFO, "reply", LOG_NUMBER("status", 200), …). */
#define log_event(level, message, ...) \
	log_fields((level), (message), \
		(const struct log_field[]){ __VA_ARGS__, { LOG_END, 0, 0, 0 } })
void log_fields(enum log_level level, const char *message, const struct log_field *fields);

/* Lines with a printf(3) message and no fields. */
void log_debug(const char *format, ...) PRINTF_LIKE(1, 2);
void log_info(const char *format, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *format, ...) PRINTF_LIKE(1, 2);
void log_error(const char *format, ...) PRINTF_LIKE(1, 2);

#endif
