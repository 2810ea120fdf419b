/*
 * Layout: one row of 64-bit cells per slot, rows padded to cache lines. Each metric owns a run of
 * cells in every row: one per series, or for a histogram one per bucket, one for the sum (in
 * microseconds) and none for the count, which is the sum of the buckets. Only the owner of a slot
 * writes it, so relaxed atomics are enough; a reader may see an observation half-way, by one.
 */
#include "lib/metrics.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/shm.h"

const uint32_t metric_bounds_us[] = { 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000,
	250000, 500000, 1000000, 2500000, 5000000, 10000000 };
const size_t metric_bound_count = sizeof metric_bounds_us / sizeof metric_bounds_us[0];

enum { CACHE_LINE = 64, CELLS_PER_LINE = CACHE_LINE / sizeof(uint64_t) };

struct metrics {
	const struct metric *table;
	size_t count;
	size_t slots;
	size_t *first_cell; /* of each metric, within a row */
	size_t row; /* cells in a row */
	uint64_t *cells; /* shared */
	uint64_t *mine; /* the row of this process */
	int fd;
};

static size_t series_count(const struct metric *metric)
{
	size_t count = 1;

	for (size_t d = 0; d < METRIC_DIMENSIONS; d++)
		if (metric->labels[d].count > 0)
			count *= metric->labels[d].count;
	return count;
}

/* Buckets with +Inf, and the sum. */
static size_t cells_per_series(const struct metric *metric)
{
	return metric->type == METRIC_HISTOGRAM ? metric_bound_count + 2 : 1;
}

struct metrics *metrics_new(const struct metric *table, size_t count, size_t slots)
{
	struct metrics *metrics = calloc(1, sizeof *metrics);
	size_t cells = 0;

	if (metrics == NULL)
		return NULL;
	metrics->table = table;
	metrics->count = count;
	metrics->slots = slots;
	metrics->first_cell = calloc(count, sizeof *metrics->first_cell);
	if (metrics->first_cell == NULL)
		goto failed;
	for (size_t m = 0; m < count; m++) {
		metrics->first_cell[m] = cells;
		cells += series_count(&table[m]) * cells_per_series(&table[m]);
	}
	metrics->row = (cells + CELLS_PER_LINE - 1) / CELLS_PER_LINE * CELLS_PER_LINE;
	metrics->cells =
		shm_new("areg-metrics", slots * metrics->row * sizeof(uint64_t), &metrics->fd);
	if (metrics->cells == NULL)
		goto failed;
	metrics->mine = metrics->cells;
	return metrics;
failed:
	free(metrics->first_cell);
	free(metrics);
	return NULL;
}

void metrics_free(struct metrics *metrics)
{
	if (metrics == NULL)
		return;
	shm_free(metrics->cells, metrics->slots * metrics->row * sizeof(uint64_t), metrics->fd);
	free(metrics->first_cell);
	free(metrics);
}

void metrics_use_slot(struct metrics *metrics, size_t slot)
{
	if (slot >= metrics->slots)
		abort();
	metrics->mine = metrics->cells + slot * metrics->row;
}

/* Where a series begins within a row. */
static size_t series_cell(const struct metrics *metrics, size_t metric, size_t a, size_t b)
{
	const struct metric *m = &metrics->table[metric];
	size_t width = m->labels[1].count > 0 ? m->labels[1].count : 1;
	size_t height = m->labels[0].count > 0 ? m->labels[0].count : 1;

	if (metric >= metrics->count || a >= height || b >= width)
		abort();
	return metrics->first_cell[metric] + (a * width + b) * cells_per_series(m);
}

static void add(uint64_t *cell, uint64_t amount)
{
	__atomic_fetch_add(cell, amount, __ATOMIC_RELAXED);
}

void metrics_add(struct metrics *metrics, size_t metric, size_t a, size_t b, uint64_t amount)
{
	add(metrics->mine + series_cell(metrics, metric, a, b), amount);
}

void metrics_observe(struct metrics *metrics, size_t metric, size_t a, size_t b, uint64_t us)
{
	uint64_t *cells = metrics->mine + series_cell(metrics, metric, a, b);
	size_t bucket = 0;

	while (bucket < metric_bound_count && us > metric_bounds_us[bucket])
		bucket++;
	add(cells + bucket, 1);
	add(cells + metric_bound_count + 1, us);
}

static uint64_t sum_cell(const struct metrics *metrics, size_t cell)
{
	uint64_t sum = 0;

	for (size_t slot = 0; slot < metrics->slots; slot++)
		sum += __atomic_load_n(
			metrics->cells + slot * metrics->row + cell, __ATOMIC_RELAXED);
	return sum;
}

uint64_t metrics_sum(const struct metrics *metrics, size_t metric, size_t a, size_t b)
{
	const struct metric *m = &metrics->table[metric];
	size_t cell = series_cell(metrics, metric, a, b);
	uint64_t sum = 0;

	if (m->type != METRIC_HISTOGRAM)
		return sum_cell(metrics, cell);
	for (size_t bucket = 0; bucket <= metric_bound_count; bucket++)
		sum += sum_cell(metrics, cell + bucket);
	return sum;
}

/* The label texts of a series with commas between, then `more`; braces only round something. */
static void print_labels(
	struct buf *out, const struct metric *metric, size_t a, size_t b, const char *more)
{
	const size_t at[METRIC_DIMENSIONS] = { a, b };
	const char *separator = "{";

	for (size_t d = 0; d < METRIC_DIMENSIONS; d++) {
		if (metric->labels[d].count == 0)
			continue;
		buf_puts(out, separator);
		buf_puts(out, metric->labels[d].texts[at[d]]);
		separator = ",";
	}
	if (more != NULL) {
		buf_puts(out, separator);
		buf_puts(out, more);
		separator = ",";
	}
	if (*separator == ',')
		buf_putc(out, '}');
}

static void print_histogram(const struct metrics *metrics, size_t index, size_t a, size_t b,
	size_t cell, struct buf *out)
{
	const struct metric *metric = &metrics->table[index];
	uint64_t running = 0;

	for (size_t bucket = 0; bucket <= metric_bound_count; bucket++) {
		char le[32] = "le=\"+Inf\"";

		if (bucket < metric_bound_count)
			snprintf(le, sizeof le, "le=\"%g\"", metric_bounds_us[bucket] / 1e6);
		running += sum_cell(metrics, cell + bucket);
		buf_printf(out, "%s_bucket", metric->name);
		print_labels(out, metric, a, b, le);
		buf_printf(out, " %llu\n", (unsigned long long)running);
	}
	buf_printf(out, "%s_sum", metric->name);
	print_labels(out, metric, a, b, NULL);
	buf_printf(out, " %.6f\n", (double)sum_cell(metrics, cell + metric_bound_count + 1) / 1e6);
	buf_printf(out, "%s_count", metric->name);
	print_labels(out, metric, a, b, NULL);
	buf_printf(out, " %llu\n", (unsigned long long)running);
}

void metrics_print(const struct metrics *metrics, struct buf *out)
{
	static const char *const type_names[] = { "counter", "histogram" };

	for (size_t index = 0; index < metrics->count; index++) {
		const struct metric *m = &metrics->table[index];
		size_t height = m->labels[0].count > 0 ? m->labels[0].count : 1;
		size_t width = m->labels[1].count > 0 ? m->labels[1].count : 1;

		buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name,
			type_names[m->type]);
		for (size_t a = 0; a < height; a++) {
			for (size_t b = 0; b < width; b++) {
				uint64_t value = metrics_sum(metrics, index, a, b);

				if (value == 0 && m->labels[0].count > 0 && !m->from_zero)
					continue;
				if (m->type == METRIC_HISTOGRAM) {
					print_histogram(metrics, index, a, b,
						series_cell(metrics, index, a, b), out);
					continue;
				}
				buf_puts(out, m->name);
				print_labels(out, m, a, b, NULL);
				buf_printf(out, " %llu\n", (unsigned long long)value);
			}
		}
	}
}
