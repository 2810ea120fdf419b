/* SPDX-License-Identifier: Apache-2.0 */
/* Every sample is kept: a histogram would be smaller, and its tail a guess. */
#include "t/bench/samples.h"

#include <stdio.h>
#include <stdlib.h>

void samples_add(struct samples *samples, uint64_t us)
{
	if (samples->count == samples->room) {
		samples->room = samples->room ? 2 * samples->room : 65536;
		samples->us = realloc(samples->us, samples->room * sizeof *samples->us);
		if (!samples->us) {
			fputs("no memory for samples\n", stderr);
			exit(1);
		}
	}
	samples->us[samples->count++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static int by_time(const void *a, const void *b)
{
	const uint32_t *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

void samples_sort(struct samples *samples)
{
	if (samples->count > 0)
		qsort(samples->us, samples->count, sizeof *samples->us, by_time);
}

uint32_t samples_at(const struct samples *samples, unsigned per_mille)
{
	size_t rank = (samples->count * per_mille + 999) / 1000;

	return samples->count ? samples->us[rank - 1] : 0;
}

void samples_free(struct samples *samples)
{
	free(samples->us);
	*samples = (struct samples){ 0 };
}
