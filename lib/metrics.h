/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters and histograms in shared memory, for Prometheus (text exposition format 0.0.4). Every
 * process writes its own slot and nobody waits; a reader adds the slots up. A slot outlives the
 * process that used it, so that counters never go back when a worker is replaced.
 */
#ifndef AREG_METRICS_H
#define AREG_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/must_check.h"

enum metric_type { METRIC_COUNTER, METRIC_HISTOGRAM };

/* One dimension of a metric: the texts its label or labels can take, as they are printed:
 * `chain="base"`. Values must be escaped already. */
struct metric_labels {
	const char *const *texts;
	size_t count;
};

enum { METRIC_DIMENSIONS = 2 };

struct metric {
	const char *name;
	const char *help;
	enum metric_type type;
	struct metric_labels labels[METRIC_DIMENSIONS]; /* count 0: no such dimension */
	bool from_zero; /* every series is printed from the start: an increase from nothing is none
			   to Prometheus */
};

/* Upper bounds of the buckets of every histogram, in microseconds; +Inf follows. Histograms are
 * printed in seconds. */
extern const uint32_t metric_bounds_us[];
extern const size_t metric_bound_count;

struct metrics;

/* Lays the metrics out in shared memory, `slots` times. The table must outlive the result. NULL
 * with errno set when the system refuses the memory. */
MUST_CHECK struct metrics *metrics_new(const struct metric *table, size_t count, size_t slots);
/*
 * Goes on with what an earlier program counted, whose processes may still be counting: `fd` is the
 * descriptor that its metrics_fd() told, which is taken. Series are known by name and labels; those
 * that this program has not are left out. At most METRICS_FORERUNNERS of them. Before forking.
 * False with errno set when what is there cannot be understood.
 */
enum { METRICS_FORERUNNERS = 4 };
MUST_CHECK bool metrics_inherit(struct metrics *metrics, int fd);

/* The processes of all earlier programs are gone: from here on this one keeps what they counted. For
 * one process only. */
void metrics_settle(struct metrics *metrics);

/* The descriptor of the shared memory, to hand over an exec. */
int metrics_fd(const struct metrics *metrics);

void metrics_free(struct metrics *metrics);

/* The slot that this process writes from here on: 0 .. slots - 1. */
void metrics_use_slot(struct metrics *metrics, size_t slot);

/* Adds to a counter. `metric` is its place in the table; a and b are places in its labels, 0 for
 * a dimension it has not. */
void metrics_add(struct metrics *metrics, size_t metric, size_t a, size_t b, uint64_t amount);

/* Counts one observation of a histogram, in microseconds. */
void metrics_observe(struct metrics *metrics, size_t metric, size_t a, size_t b, uint64_t us);

/* All slots together, for tests and for answers. */
uint64_t metrics_sum(const struct metrics *metrics, size_t metric, size_t a, size_t b);

/* Writes the exposition text. Series of counters and histograms that were never touched are left
 * out, but for metrics without labels and those that are printed from zero. */
void metrics_print(const struct metrics *metrics, struct buf *out);

#endif
