/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layout: a head, one row of 64-bit cells per slot, and a row for what earlier programs counted; rows
 * padded to cache lines. Behind them the directory, for a program that lays out its rows otherwise:
 * a line for each series, its first cell, its number of cells, its name with labels. Each metric owns a run of
 * cells in every row: one per series, or for a histogram one per bucket, one for the sum (in
 * microseconds) and none for the count, which is the sum of the buckets. Only the owner of a slot
 * writes it, so relaxed atomics are enough; a reader may see an observation half-way, by one.
 */
#include "lib/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/shm.h"

const uint32_t metric_bounds_us[] = { 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000,
	250000, 500000, 1000000, 2500000, 5000000, 10000000 };
const size_t metric_bound_count = sizeof metric_bounds_us / sizeof metric_bounds_us[0];

enum { CACHE_LINE = 64, CELLS_PER_LINE = CACHE_LINE / sizeof(uint64_t) };

enum { MAGIC = 0x61726d31 }; /* "arm1"; another layout gets another */

struct head {
	_Alignas(CACHE_LINE) uint64_t magic;
	uint64_t slots; /* without the row of what was inherited */
	uint64_t row; /* cells in a row */
	uint64_t directory_bytes;
	uint64_t is_settled; /* the last row counts, and the forerunners do no more */
};

/* The metrics of an earlier program, whose processes may still be counting. */
struct forerunner {
	const struct head *head;
	size_t bytes;
	int fd;
	int64_t *cell_of; /* by the cells of our row: theirs, or -1 */
};

struct metrics {
	const struct metric *table;
	size_t count;
	size_t slots;
	size_t *first_cell; /* of each metric, within a row */
	size_t row; /* cells in a row */
	struct head *head; /* shared, and the cells behind it */
	uint64_t *cells;
	uint64_t *mine; /* the row of this process */
	size_t bytes;
	int fd;
	struct forerunner forerunners[METRICS_FORERUNNERS];
	size_t forerunner_count;
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

static void print_labels(
	struct buf *out, const struct metric *metric, size_t a, size_t b, const char *more);

static void print_directory(const struct metrics *metrics, struct buf *out)
{
	for (size_t m = 0; m < metrics->count; m++) {
		const struct metric *metric = &metrics->table[m];
		size_t series = series_count(metric), each = cells_per_series(metric);
		size_t width = metric->labels[1].count > 0 ? metric->labels[1].count : 1;

		for (size_t i = 0; i < series; i++) {
			buf_printf(out, "%zu %zu %s", metrics->first_cell[m] + i * each, each,
				metric->name);
			print_labels(out, metric, i / width, i % width, NULL);
			buf_putc(out, '\n');
		}
	}
}

static bool make_memory(struct metrics *metrics, const struct buf *directory)
{
	size_t cells = (metrics->slots + 1) * metrics->row;

	metrics->bytes = sizeof *metrics->head + cells * sizeof(uint64_t) + directory->len;
	metrics->head = shm_new("areg-metrics", metrics->bytes, &metrics->fd);
	if (metrics->head == NULL)
		return false;
	*metrics->head = (struct head){ .magic = MAGIC,
		.slots = metrics->slots,
		.row = metrics->row,
		.directory_bytes = directory->len };
	metrics->cells = (uint64_t *)(metrics->head + 1);
	metrics->mine = metrics->cells;
	memcpy(metrics->cells + cells, directory->data, directory->len);
	return true;
}

struct metrics *metrics_new(const struct metric *table, size_t count, size_t slots)
{
	struct metrics *metrics = calloc(1, sizeof *metrics);
	struct arena *arena;
	struct buf directory;
	size_t cells = 0;
	bool is_made;

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
	arena = arena_new(64 * 1024, 64 * 1024 * 1024);
	buf_init(&directory, arena, 64 * 1024);
	print_directory(metrics, &directory);
	is_made = make_memory(metrics, &directory);
	arena_free(arena);
	if (is_made)
		return metrics;
failed:
	free(metrics->first_cell);
	free(metrics);
	return NULL;
}

static void forget_forerunners(struct metrics *metrics);

void metrics_free(struct metrics *metrics)
{
	if (metrics == NULL)
		return;
	forget_forerunners(metrics);
	shm_free(metrics->head, metrics->bytes, metrics->fd);
	free(metrics->first_cell);
	free(metrics);
}

int metrics_fd(const struct metrics *metrics)
{
	return metrics->fd;
}

/* ---- What earlier programs counted ---- */

/* The next line of a directory, taken apart; *name is its own memory's. False at the end. */
static bool next_series(const char **at, const char *end, size_t *cell, size_t *cells,
	const char **name, size_t *len)
{
	const char *newline = *at < end ? memchr(*at, '\n', (size_t)(end - *at)) : NULL;
	char *behind;

	if (newline == NULL)
		return false;
	*cell = strtoull(*at, &behind, 10);
	*cells = strtoull(behind, &behind, 10);
	*name = behind + 1;
	*len = (size_t)(newline - *name);
	*at = newline + 1;
	return true;
}

static const char *directory_of(const struct head *head, const char **end)
{
	const uint64_t *cells = (const uint64_t *)(head + 1);
	const char *directory = (const char *)(cells + (head->slots + 1) * head->row);

	*end = directory + head->directory_bytes;
	return directory;
}

/* Finds each of our series in their directory. Both are in the same order but for what was added
 * or removed, so each search begins where the last one ended. */
static void match(const struct metrics *metrics, struct forerunner *theirs)
{
	const char *end, *their_end, *name, *their_name;
	const char *at = directory_of(metrics->head, &end);
	const char *begin = directory_of(theirs->head, &their_end), *their_at = begin;
	size_t cell, cells, len, their_cell, their_cells, their_len;

	while (next_series(&at, end, &cell, &cells, &name, &len)) {
		const char *from = their_at;
		bool is_found = false, has_wrapped = false;

		while (!is_found) {
			if (!next_series(&their_at, their_end, &their_cell, &their_cells,
				    &their_name, &their_len)) {
				if (has_wrapped)
					break;
				has_wrapped = true;
				their_at = begin;
				continue;
			}
			is_found = their_cells == cells && their_len == len &&
				   memcmp(their_name, name, len) == 0;
			if (has_wrapped && their_at >= from)
				break;
		}
		if (!is_found)
			their_at = from;
		for (size_t i = 0; i < cells; i++)
			theirs->cell_of[cell + i] = is_found ? (int64_t)(their_cell + i) : -1;
	}
}

bool metrics_inherit(struct metrics *metrics, int fd)
{
	struct forerunner *theirs = &metrics->forerunners[metrics->forerunner_count];
	const struct head *head;
	struct stat status;

	errno = EINVAL;
	if (metrics->forerunner_count == METRICS_FORERUNNERS || fstat(fd, &status) != 0 ||
		(size_t)status.st_size < sizeof *head)
		return false;
	*theirs = (struct forerunner){ .bytes = (size_t)status.st_size, .fd = fd };
	head = theirs->head = shm_adopt(fd, theirs->bytes);
	theirs->cell_of = malloc(metrics->row * sizeof *theirs->cell_of);
	if (head == NULL || theirs->cell_of == NULL)
		goto failed;
	errno = EINVAL;
	if (head->magic != MAGIC ||
		theirs->bytes != sizeof *head + (head->slots + 1) * head->row * sizeof(uint64_t) +
					 head->directory_bytes)
		goto failed;
	for (size_t i = 0; i < metrics->row; i++)
		theirs->cell_of[i] = -1;
	match(metrics, theirs);
	metrics->forerunner_count++;
	return true;
failed:
	free(theirs->cell_of);
	if (head != NULL)
		munmap((void *)head, theirs->bytes);
	return false;
}

static void forget_forerunners(struct metrics *metrics)
{
	for (size_t i = 0; i < metrics->forerunner_count; i++) {
		struct forerunner *theirs = &metrics->forerunners[i];

		free(theirs->cell_of);
		shm_free((void *)theirs->head, theirs->bytes, theirs->fd);
	}
	metrics->forerunner_count = 0;
}

static bool is_settled(const struct head *head)
{
	return __atomic_load_n(&head->is_settled, __ATOMIC_ACQUIRE) != 0;
}

static uint64_t sum_rows(const struct head *head, size_t rows, size_t cell)
{
	const uint64_t *cells = (const uint64_t *)(head + 1);
	uint64_t sum = 0;

	for (size_t row = 0; row < rows; row++)
		sum += __atomic_load_n(cells + row * head->row + cell, __ATOMIC_RELAXED);
	return sum;
}

static uint64_t sum_inherited(const struct metrics *metrics, size_t cell)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < metrics->forerunner_count; i++) {
		const struct forerunner *theirs = &metrics->forerunners[i];

		if (theirs->cell_of[cell] >= 0)
			sum += sum_rows(theirs->head,
				theirs->head->slots + is_settled(theirs->head),
				(size_t)theirs->cell_of[cell]);
	}
	return sum;
}

void metrics_settle(struct metrics *metrics)
{
	uint64_t *inherited = metrics->cells + metrics->slots * metrics->row;

	if (metrics->forerunner_count == 0)
		return;
	for (size_t cell = 0; cell < metrics->row; cell++)
		inherited[cell] = sum_inherited(metrics, cell);
	__atomic_store_n(&metrics->head->is_settled, 1, __ATOMIC_RELEASE);
	forget_forerunners(metrics);
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

static void metrics_own_add(uint64_t *cell, uint64_t amount)
{
	__atomic_fetch_add(cell, amount, __ATOMIC_RELAXED);
}

void metrics_add(struct metrics *metrics, size_t metric, size_t a, size_t b, uint64_t amount)
{
	metrics_own_add(metrics->mine + series_cell(metrics, metric, a, b), amount);
}

void metrics_observe(struct metrics *metrics, size_t metric, size_t a, size_t b, uint64_t us)
{
	uint64_t *cells = metrics->mine + series_cell(metrics, metric, a, b);
	size_t bucket = 0;

	while (bucket < metric_bound_count && us > metric_bounds_us[bucket])
		bucket++;
	metrics_own_add(cells + bucket, 1);
	metrics_own_add(cells + metric_bound_count + 1, us);
}

static uint64_t sum_cell(const struct metrics *metrics, size_t cell)
{
	if (is_settled(metrics->head))
		return sum_rows(metrics->head, metrics->slots + 1, cell);
	return sum_rows(metrics->head, metrics->slots, cell) + sum_inherited(metrics, cell);
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
