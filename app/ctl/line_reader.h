/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of a file or of standard input, plain or compressed with gzip, in bounded memory. */
#ifndef AREG_CTL_LINE_READER_H
#define AREG_CTL_LINE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <zlib.h>

#include "lib/arena.h"

enum { LINE_BYTES_MAX = 1024 * 1024 };

struct line_reader {
	gzFile file; /* plain files pass through it as they are */
	off_t size; /* bytes of the file as it lies on the disk; 0 when not known */
	uint64_t line; /* number of the line handed out last, from 1 */
	const char *failed; /* why the reading stopped before the end, or NULL */
	/* Private: what is read and not handed out yet is buffer[at..len). */
	char *buffer;
	size_t at, len;
	bool skipping; /* the rest of a line that is too long */
	bool ended;
};

/* Opens `path`, "-" for standard input. False with errno set when that fails. */
MUST_CHECK bool line_reader_open(struct line_reader *lines, struct arena *arena, const char *path);
void line_reader_close(struct line_reader *lines);

enum line_reader_status { LINES_LINE, LINES_TOO_LONG, LINES_END };

/*
 * The next line, without its newline, valid until the next call. A last line without a newline is
 * one too, but not when the reading failed there: it may have lost its end. A line of more than
 * LINE_BYTES_MAX bytes is passed over and said.
 */
MUST_CHECK enum line_reader_status line_reader_next(
	struct line_reader *lines, const char **line, size_t *len);

/* How much of the file is read, 0..1; 0 when its size is not known. */
double line_reader_part(const struct line_reader *lines);

#endif
