/* SPDX-License-Identifier: Apache-2.0 */
/* Times of single requests, and what stands at a share of them. */
#ifndef AREG_BENCH_SAMPLES_H
#define AREG_BENCH_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

struct samples {
	uint32_t *us; /* microseconds; samples_free() frees them */
	size_t count, room;
};

/* Keeps one; what is longer than 71 minutes counts as that. Ends the program without memory. */
void samples_add(struct samples *samples, uint64_t us);

void samples_sort(struct samples *samples);

/*
 * The percentile by nearest rank, of sorted samples: the least sample that at least `per_mille`
 * (1..1000) thousandths of all are not above. 0 of none.
 */
uint32_t samples_at(const struct samples *samples, unsigned per_mille);

void samples_free(struct samples *samples);

#endif
