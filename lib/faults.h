/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong with an input: every fault, in the order found, for one answer that names all. */
#ifndef AREG_FAULTS_H
#define AREG_FAULTS_H

#include <stddef.h>

#include "lib/arena.h"
#include "lib/problem.h"

struct fault {
	struct fault *next;
	const struct problem *problem; /* never NULL */
	const char *pointer; /* JSON pointer (RFC 6901) into the body; "" for the whole; for a query
				parameter its name alone, without a slash */
	const char *detail; /* a phrase for a person: "not 0x and 40 hex digits" */
};

enum {
	FAULTS_MOST = 100, /* more are counted but not kept: an answer stays readable */
	FAULT_POINTER_MOST = 1024, /* bytes; a longer pointer is cut to a value around it */
};

struct faults {
	struct arena *arena;
	const struct problem *usual; /* of a fault that was added without one of its own */
	struct fault *first, *last;
	size_t count; /* all found, also those past FAULTS_MOST */
};

/* `usual` is never NULL. */
void faults_init(struct faults *faults, struct arena *arena, const struct problem *usual);

/* Adds one, of the usual problem where `problem` is NULL. `pointer` is copied, up to FAULT_POINTER_MOST;
 * the problem is not, and must outlive the arena. */
void fault_add(struct faults *faults, const struct problem *problem, const char *pointer,
	const char *format, ...) PRINTF_LIKE(4, 5);
void fault_vadd(struct faults *faults, const struct problem *problem, const char *pointer,
	const char *format, va_list args) __attribute__((format(printf, 4, 0)));

/* `base` + "/" + `token`, the token escaped as RFC 6901 section 3 says. */
const char *json_pointer(struct arena *arena, const char *base, const char *token);
const char *json_pointer_index(struct arena *arena, const char *base, size_t index);

/* The way to a value, through the calls that read it: only what is at fault needs a pointer, and
 * there can be a million values below a key of many kilobytes. */
struct json_place {
	const struct json_place *outer; /* NULL right below the root */
	const char *key; /* NULL in an array */
	size_t index; /* in an array */
};

/* `base` and the pointer of the place from there; NULL is the root. */
const char *json_place_pointer(
	struct arena *arena, const char *base, const struct json_place *place);

#endif
