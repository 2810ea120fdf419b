/* SPDX-License-Identifier: Apache-2.0 */
/* Reads lines through zlib. Read beside this: zlib.h, gzread() and gzerror(). */
#include "app/ctl/line_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 2 * LINE_BYTES_MAX };

bool line_reader_open(struct line_reader *lines, struct arena *arena, const char *path)
{
	struct stat status;
	int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);

	*lines = (struct line_reader){ .file = NULL };
	if (fd < 0)
		return false;
	if (fstat(fd, &status) == 0) {
		if (S_ISDIR(status.st_mode))
			errno = EISDIR;
		else
			lines->file = gzdopen(fd, "rb");
	}
	if (lines->file == NULL) {
		int why = errno;

		close(fd);
		errno = why;
		return false;
	}
	gzbuffer(lines->file, 256 * 1024);
	lines->size = S_ISREG(status.st_mode) ? status.st_size : 0;
	lines->buffer = arena_alloc(arena, BUFFER_BYTES);
	return true;
}

void line_reader_close(struct line_reader *lines)
{
	gzclose(lines->file);
}

/* Moves what is left to the front and reads more behind it. */
static void fill(struct line_reader *lines)
{
	int got, code;

	memmove(lines->buffer, lines->buffer + lines->at, lines->len - lines->at);
	lines->len -= lines->at;
	lines->at = 0;
	got = gzread(
		lines->file, lines->buffer + lines->len, (unsigned)(BUFFER_BYTES - lines->len));
	if (got > 0) {
		lines->len += (size_t)got;
		return;
	}
	lines->ended = true;
	lines->failed = gzerror(lines->file, &code);
	if (code == Z_ERRNO)
		lines->failed = strerror(errno);
	else if (code == Z_BUF_ERROR)
		lines->failed = "the gzip file is cut off: its end is missing";
	else if (code == Z_OK || code == Z_STREAM_END)
		lines->failed = NULL;
}

enum line_reader_status line_reader_next(struct line_reader *lines, const char **line, size_t *len)
{
	for (;;) {
		char *start = lines->buffer + lines->at;
		size_t have = lines->len - lines->at;
		char *newline = memchr(start, '\n', have);

		if (newline == NULL && !lines->ended && have <= LINE_BYTES_MAX) {
			fill(lines);
			continue;
		}
		if (newline == NULL && lines->ended && (have == 0 || lines->failed != NULL))
			return LINES_END;
		*line = start;
		*len = newline != NULL ? (size_t)(newline - start) : have;
		lines->at += *len + (newline != NULL ? 1 : 0);
		if (lines->skipping) {
			lines->skipping = newline == NULL;
			continue;
		}
		lines->line++;
		if (*len <= LINE_BYTES_MAX)
			return LINES_LINE;
		lines->skipping = newline == NULL;
		return LINES_TOO_LONG;
	}
}

double line_reader_part(const struct line_reader *lines)
{
	double part = lines->size > 0 ? (double)gzoffset(lines->file) / (double)lines->size : 0;

	return part < 1 ? part : 1;
}
