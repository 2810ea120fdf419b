/* SPDX-License-Identifier: Apache-2.0 */
/* The list behind an answer that names every fault, and the pointers in it. */
#include "lib/faults.h"

#include <string.h>

#include "lib/buf.h"

void faults_init(struct faults *faults, struct arena *arena, const struct problem *usual)
{
	*faults = (struct faults){ .arena = arena, .usual = usual };
}

/* A pointer below a key of many kilobytes, in each of FAULTS_MOST faults, makes an answer or a
 * column of megabytes: a long one is cut to that of a value around it. */
static const char *fault_pointer(struct arena *arena, const char *pointer)
{
	size_t len = strlen(pointer);

	if (len > FAULT_POINTER_MOST) {
		len = FAULT_POINTER_MOST;
		while (len > 0 && pointer[len] != '/')
			len--;
	}
	return arena_strndup(arena, pointer, len);
}

void fault_vadd(struct faults *faults, const struct problem *problem, const char *pointer,
	const char *format, va_list args)
{
	struct fault *fault;

	if (faults->count++ >= FAULTS_MOST)
		return;
	fault = arena_alloc(faults->arena, sizeof *fault);
	fault->problem = problem != NULL ? problem : faults->usual;
	fault->pointer = fault_pointer(faults->arena, pointer);
	fault->detail = arena_vprintf(faults->arena, format, args);
	if (faults->last == NULL)
		faults->first = fault;
	else
		faults->last->next = fault;
	faults->last = fault;
}

void fault_add(struct faults *faults, const struct problem *problem, const char *pointer,
	const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fault_vadd(faults, problem, pointer, format, args);
	va_end(args);
}

const char *json_pointer(struct arena *arena, const char *base, const char *token)
{
	struct buf pointer;

	buf_init(&pointer, arena, strlen(base) + 1 + strlen(token));
	buf_puts(&pointer, base);
	buf_putc(&pointer, '/');
	for (;;) {
		size_t run = strcspn(token, "~/");

		buf_put(&pointer, token, run);
		if (token[run] == '\0')
			return pointer.data;
		buf_puts(&pointer, token[run] == '~' ? "~0" : "~1");
		token += run + 1;
	}
}

const char *json_pointer_index(struct arena *arena, const char *base, size_t index)
{
	return arena_printf(arena, "%s/%zu", base, index);
}

const char *json_place_pointer(
	struct arena *arena, const char *base, const struct json_place *place)
{
	if (place == NULL)
		return base;
	base = json_place_pointer(arena, base, place->outer);
	if (place->key != NULL)
		return json_pointer(arena, base, place->key);
	return json_pointer_index(arena, base, place->index);
}
