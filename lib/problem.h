/* SPDX-License-Identifier: Apache-2.0 */
/* A problem that an answer can report (RFC 9457). app/problem_list.h names them all. */
#ifndef AREG_PROBLEM_H
#define AREG_PROBLEM_H

#include <stdbool.h>
#include <string.h>

struct problem {
	const char *code; /* a stable snake_case word: validation_failed, agent_not_found */
	int status; /* of HTTP */
};

/* Whether `code` is the code of this problem. For SQL functions, which return codes as text. */
static inline bool problem_is(const struct problem *problem, const char *code)
{
	return strcmp(problem->code, code) == 0;
}

#endif
