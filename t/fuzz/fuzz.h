/* SPDX-License-Identifier: Apache-2.0 */
/* What all fuzz targets share: memory with the limits of a request, and rules that must hold. */
#ifndef AREG_FUZZ_H
#define AREG_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/arena.h"

/* What libFuzzer calls with each input; every target is one of these. Always 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The one arena of the program, emptied. It ends the program at a worker's limit. */
struct arena *fuzz_arena(void);

/* data[0..size) as a NUL-terminated string; what it holds of NULs ends it earlier. */
const char *fuzz_text(struct arena *arena, const uint8_t *data, size_t size);

/* Requires that no more memory was taken than an input of that size can ask for: what grows with
 * the square of the input is an attack. */
void fuzz_require_little_memory(const struct arena *arena, size_t size);

/* Ends the program, as a finding, where a rule does not hold. */
#define REQUIRE(rule) ((rule) ? (void)0 : fuzz_fail(#rule, __FILE__, __LINE__))
_Noreturn void fuzz_fail(const char *rule, const char *file, int line);

bool fuzz_same(const char *a, const char *b); /* as strings; NULL is like NULL only */

#endif
