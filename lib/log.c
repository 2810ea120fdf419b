/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds each line in a buffer of fixed size and writes it with one write(2) to a descriptor that
 * appends. Nothing is allocated, so that it works when memory is what has run out. Read beside
 * this: RFC 8259 (JSON), RFC 3339 (time), write(2) on O_APPEND.
 */
#include "lib/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/decimal.h"
#include "lib/utf8.h"

enum {
	LINE_BYTES = 8192, /* longest line, its newline included */
	REQUEST_ID_BYTES = 256, /* longest request id, escaped */
	/* Kept free by everything before it, for what ends a line that was cut: a closing quote,
	 * the request id, the mark, the brace, the newline. */
	TAIL_BYTES = 1 + 18 + REQUEST_ID_BYTES + 12 + 2,
};

static const char *const level_names[] = { "debug", "info", "warn", "error" };

/* The log is of the process, not of a piece of work: the one place that may say what happened. */
static struct {
	int fd;
	enum log_format format;
	enum log_level level;
	char path[PATH_MAX];
	char process[32];
	const char *request_id;
	uint64_t dropped;
} the_log = {
	.fd = STDERR_FILENO,
	.format = LOG_FORMAT_JSON,
	.level = LOG_LEVEL_INFO,
	.path = "stderr",
	.process = "areg",
};

struct line {
	size_t len;
	size_t end; /* of what may be written for now */
	bool cut; /* something did not fit: nothing more goes in until `end` is moved */
	char bytes[LINE_BYTES];
};

/* How a text is written: what is escaped differs, and whether quotes go round it. */
enum dress {
	BARE, /* the message of a text line: control characters escaped */
	QUOTED, /* a JSON string, or a value of a text line that needs it */
};

static int open_path(const char *path, const char **why)
{
	int fd, high;

	if (strcmp(path, "stderr") == 0)
		return STDERR_FILENO;
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
	if (fd >= 0 && fd <= STDERR_FILENO) {
		/* Some standard descriptor is closed; what is printed to it must not end up here. */
		high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		close(fd);
		fd = high;
	}
	if (fd < 0)
		*why = strerror(errno);
	return fd;
}

static void use_fd(int fd)
{
	if (the_log.fd != STDERR_FILENO)
		close(the_log.fd);
	the_log.fd = fd;
}

bool log_open(const char *path, enum log_format format, enum log_level level, const char **why)
{
	int fd;

	if (strlen(path) >= sizeof the_log.path) {
		*why = strerror(ENAMETOOLONG);
		return false;
	}
	fd = open_path(path, why);
	if (fd < 0)
		return false;
	use_fd(fd);
	memcpy(the_log.path, path, strlen(path) + 1);
	the_log.format = format;
	the_log.level = level;
	return true;
}

bool log_reopen(const char **why)
{
	int fd = open_path(the_log.path, why);

	if (fd < 0)
		return false;
	use_fd(fd);
	return true;
}

void log_process(const char *name)
{
	snprintf(the_log.process, sizeof the_log.process, "%s", name);
}

void log_request_id(const char *id)
{
	the_log.request_id = id;
}

bool log_enabled(enum log_level level)
{
	return level >= the_log.level;
}

uint64_t log_dropped(void)
{
	return the_log.dropped;
}

static void log_put(struct line *line, const char *bytes, size_t len)
{
	if (line->cut || line->len + len > line->end) {
		line->cut = true;
		return;
	}
	memcpy(line->bytes + line->len, bytes, len);
	line->len += len;
}

static void puts_line(struct line *line, const char *text)
{
	log_put(line, text, strlen(text));
}

/* Whether a line or a terminal would be upset by this sequence: C0 and C1 controls, DEL, and the
 * two separators of Unicode that some readers take for a new line. */
static bool unprintable(const unsigned char *at, size_t size)
{
	return (size == 1 && (at[0] < 0x20 || at[0] == 0x7f)) ||
	       (size == 2 && at[0] == 0xc2 && at[1] < 0xa0) ||
	       (size == 3 && at[0] == 0xe2 && at[1] == 0x80 && (at[2] == 0xa8 || at[2] == 0xa9));
}

static void log_put_escape(struct line *line, const unsigned char *at, size_t size)
{
	static const char short_escapes[] = "btn.fr"; /* of U+0008 .. U+000D; U+000B has none */
	unsigned code = size == 1 ? at[0] : size == 2 ? at[1] : at[2] == 0xa8 ? 0x2028 : 0x2029;
	char escape[8];

	if (code >= 0x08 && code <= 0x0d && code != 0x0b)
		snprintf(escape, sizeof escape, "\\%c", short_escapes[code - 0x08]);
	else
		snprintf(escape, sizeof escape, "\\u%04x", code & 0xffff);
	puts_line(line, escape);
}

/* How many bytes from here on are written as they are, however dressed: most texts, to their end. */
static size_t plain_run(const char *text)
{
	size_t len = 0;

	while (text[len] >= ' ' && text[len] <= '~' && text[len] != '"' && text[len] != '\\')
		len++;
	return len;
}

/* Writes the text, whatever its bytes are, up to where the line is cut; never half a character or
 * half an escape. */
static void log_put_text(struct line *line, const char *text, enum dress dress)
{
	size_t left = strlen(text), size;

	for (; left > 0 && !line->cut; text += size, left -= size) {
		const unsigned char *at = (const unsigned char *)text;

		size = plain_run(text);
		if (size > 0 && line->len + size <= line->end) {
			log_put(line, text, size);
			continue;
		}
		size = utf8_sequence(text, left);
		if (size == 0) {
			size = 1;
			puts_line(line, "\xef\xbf\xbd"); /* U+FFFD for a byte that is not UTF-8 */
		} else if (unprintable(at, size)) {
			log_put_escape(line, at, size);
		} else if (dress == QUOTED && (*text == '"' || *text == '\\')) {
			log_put(line, (const char[]){ '\\', *text }, 2);
		} else {
			log_put(line, text, size);
		}
	}
}

/* The closing quote always goes in, at worst one byte past `end`: TAIL_BYTES has a place for it. */
static void log_put_quoted(struct line *line, const char *text)
{
	puts_line(line, "\"");
	if (line->cut)
		return;
	log_put_text(line, text, QUOTED);
	line->bytes[line->len++] = '"';
}

static bool needs_quotes(const char *text)
{
	if (*text == '\0')
		return true;
	for (; *text != '\0'; text++)
		if (*text <= ' ' || *text > '~' || strchr("\"\\=", *text) != NULL)
			return true;
	return false;
}

/* With zeros before it, up to so many digits; at most 9. */
static void put_padded(struct line *line, uint64_t number, size_t digits)
{
	char padded[9];

	for (size_t i = digits; i-- > 0; number /= 10)
		padded[i] = (char)('0' + number % 10);
	log_put(line, padded, digits);
}

static void log_put_number(struct line *line, const struct log_field *field)
{
	const bool is_ms = field->kind == LOG_MS;
	char digits[DECIMAL_BYTES];

	if (is_ms && field->number < 0 && field->number > -1000)
		puts_line(line, "-"); /* which a whole part of 0 has not */
	log_put(line, digits, decimal(digits, is_ms ? field->number / 1000 : field->number));
	if (is_ms) {
		puts_line(line, ".");
		put_padded(line, (uint64_t)llabs(field->number % 1000), 3);
	}
}

static void put_value(struct line *line, const struct log_field *field)
{
	if (field->kind == LOG_FLAG)
		puts_line(line, field->number ? "true" : "false");
	else if (field->kind != LOG_STR)
		log_put_number(line, field);
	else if (the_log.format == LOG_FORMAT_JSON || needs_quotes(field->text))
		log_put_quoted(line, field->text);
	else
		log_put_text(line, field->text, BARE);
}

static void put_field(struct line *line, const struct log_field *field)
{
	size_t start = line->len;
	size_t value;

	if (line->cut || (field->kind == LOG_STR && field->text == NULL))
		return;
	if (the_log.format == LOG_FORMAT_JSON) {
		puts_line(line, ",");
		log_put_quoted(line, field->key);
		puts_line(line, ":");
	} else {
		puts_line(line, " ");
		log_put_text(line, field->key, BARE);
		puts_line(line, "=");
	}
	value = line->len;
	put_value(line, field);
	/* Of what is cut, a beginning of the text may stay, but no key without a value. */
	if (line->cut && line->len <= value)
		line->len = start;
}

static void put_time(struct line *line)
{
	static _Thread_local time_t second = -1; /* that the text is of */
	static _Thread_local char text[32];
	struct timespec now;
	struct tm utc;

	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec != second) {
		gmtime_r(&now.tv_sec, &utc);
		strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S.", &utc);
		second = now.tv_sec;
	}
	puts_line(line, text);
	put_padded(line, (uint64_t)now.tv_nsec / 1000, 6);
	puts_line(line, "Z");
}

static void put_head(struct line *line, enum log_level level, const char *message)
{
	struct log_field pid = LOG_NUMBER("pid", getpid());

	if (the_log.format == LOG_FORMAT_JSON) {
		puts_line(line, "{\"time\":\"");
		put_time(line);
		puts_line(line, "\",\"level\":\"");
		puts_line(line, level_names[level]);
		puts_line(line, "\"");
		put_field(line, &LOG_TEXT("process", the_log.process));
		put_field(line, &pid);
		put_field(line, &LOG_TEXT("message", message));
		return;
	}
	put_time(line);
	puts_line(line, " ");
	puts_line(line, level_names[level]);
	puts_line(line, " ");
	log_put_text(line, the_log.process, BARE);
	puts_line(line, "[");
	log_put_number(line, &pid);
	puts_line(line, "] ");
	log_put_text(line, message, BARE);
}

static void put_tail(struct line *line)
{
	bool cut = line->cut;

	line->cut = false;
	line->end = line->len + 18 + REQUEST_ID_BYTES;
	put_field(line, &LOG_TEXT("request_id", the_log.request_id));
	cut = cut || line->cut;

	line->cut = false;
	line->end = LINE_BYTES;
	if (cut)
		put_field(line, &LOG_BOOL("cut", true));
	puts_line(line, the_log.format == LOG_FORMAT_JSON ? "}\n" : "\n");
}

static void write_line(const struct line *line)
{
	ssize_t written;

	do
		written = write(the_log.fd, line->bytes, line->len);
	while (written < 0 && errno == EINTR);
	if (written < 0 || (size_t)written < line->len)
		the_log.dropped++;
}

void log_fields(enum log_level level, const char *message, const struct log_field *fields)
{
	int caller_errno = errno;
	struct line line;

	if (!log_enabled(level))
		return;
	line.len = 0;
	line.end = LINE_BYTES - TAIL_BYTES;
	line.cut = false;
	put_head(&line, level, message);
	for (; fields->kind != LOG_END; fields++)
		put_field(&line, fields);
	put_tail(&line);
	write_line(&line);
	errno = caller_errno;
}

__attribute__((format(printf, 2, 0))) static void log_printf(
	enum log_level level, const char *format, va_list args)
{
	static const struct log_field none[] = { { LOG_END, 0, 0, 0 } };
	char message[LINE_BYTES];

	if (!log_enabled(level))
		return;
	vsnprintf(message, sizeof message, format, args);
	log_fields(level, message, none);
}

#define LOG_PRINTF(level) \
	do { \
		va_list args; \
		va_start(args, format); \
		log_printf(level, format, args); \
		va_end(args); \
	} while (0)

void log_debug(const char *format, ...)
{
	LOG_PRINTF(LOG_LEVEL_DEBUG);
}

void log_info(const char *format, ...)
{
	LOG_PRINTF(LOG_LEVEL_INFO);
}

void log_warn(const char *format, ...)
{
	LOG_PRINTF(LOG_LEVEL_WARN);
}

void log_error(const char *format, ...)
{
	LOG_PRINTF(LOG_LEVEL_ERROR);
}
