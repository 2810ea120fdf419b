/*
 * Search is one statement, composed from the filters that the request names, so that PostgreSQL
 * plans for just those; the total comes with it.
 */
#include "app/search.h"

#include <stdlib.h>
#include <string.h>

#include "app/metering.h"
#include "app/page.h"
#include "app/query.h"
#include "app/stats.h"
#include "lib/clock.h"

/* How a list can be sorted. */
struct sorting {
	const char *name;
	const char *key; /* SQL */
	const char *type; /* of its text in a cursor */
	const char *as_text; /* SQL that gives that text exactly */
	bool descending; /* unless `order` says otherwise */
};

static const struct sorting sortings[] = {
	{ "registered_at", "a.created_at", "timestamptz", "rfc3339(a.created_at)", true },
	{ "reputation_score", "s.reputation_sort", "numeric", "s.reputation_sort::text", true },
	{ "total_feedback", "s.total_feedback", "bigint", "s.total_feedback::text", true },
	{ "last_activity_at", "s.last_activity_at", "timestamptz", "rfc3339(s.last_activity_at)",
		true },
	{ "name", "a.name_sort", "text COLLATE \"C\"", "a.name_sort", false },
	/* Best first: words by ts_rank, and how near the name is. */
	{ "relevance", "areg_relevance(a.search, a.name, $1)", "numeric",
		"areg_relevance(a.search, a.name, $1)::text", true },
};
enum { SORTINGS = sizeof sortings / sizeof sortings[0], RELEVANCE = SORTINGS - 1 };

struct search {
	const char *q;
	const char *owner_address;
	const char *chains[QUERY_PARAMS_MAX / 2];
	size_t chain_count;
	const char *status;
	const char *min_reputation_score;
	const char *trust_level;
	const struct sorting *sorting;
	bool descending;
	const char *order; /* names sorting and direction, for cursors */
	struct page page;
};

static const char *one_of(
	const struct call *call, const char *name, const char *const *words, struct faults *faults)
{
	const char *value = call_param(call, name);
	struct buf list;

	if (value == NULL)
		return NULL;
	buf_init(&list, call->arena, 64);
	for (size_t i = 0; words[i] != NULL; i++) {
		if (strcmp(words[i], value) == 0)
			return value;
		buf_printf(&list, "%s%s", i == 0 ? "" : ", ", words[i]);
	}
	fault_add(faults, "validation_failed", name, "is not one of %s", list.data);
	return NULL;
}

/* 0..100 with at most two fraction digits. */
static bool is_score(const char *text)
{
	size_t whole = strspn(text, "0123456789");
	size_t fraction = text[whole] == '.' ? strspn(text + whole + 1, "0123456789") : 0;
	size_t len = whole + (text[whole] == '.') + fraction;

	return whole >= 1 && whole <= 3 && text[len] == '\0' && fraction <= 2 &&
	       (text[whole] != '.' || fraction >= 1) && strtod(text, NULL) <= 100;
}

static void read_chains(const struct call *call, struct search *search, struct faults *faults)
{
	for (size_t i = 0; i < call->request->param_count; i++) {
		const struct http_param *param = &call->request->params[i];
		const struct chain *chain;

		if (strcmp(param->name, "chain") != 0)
			continue;
		chain = settings_chain(call->worker->settings, param->value);
		if (chain == NULL)
			fault_add(faults, "chain_not_supported", "chain",
				"this registry serves no chain of that name");
		else if (search->chain_count == sizeof search->chains / sizeof search->chains[0])
			fault_add(faults, "validation_failed", "chain", "stands too often");
		else
			search->chains[search->chain_count++] = chain->name;
	}
}

static void read_sorting(const struct call *call, struct search *search, struct faults *faults)
{
	static const char *const directions[] = { "asc", "desc", NULL };
	const char *names[SORTINGS + 1] = { NULL }, *sort, *order;

	for (size_t i = 0; i < SORTINGS; i++)
		names[i] = sortings[i].name;
	sort = one_of(call, "sort", names, faults);
	search->sorting = &sortings[search->q != NULL ? RELEVANCE : 0];
	for (size_t i = 0; sort != NULL && i < SORTINGS; i++)
		if (strcmp(sort, sortings[i].name) == 0)
			search->sorting = &sortings[i];
	if (search->sorting == &sortings[RELEVANCE] && search->q == NULL)
		fault_add(faults, "validation_failed", "sort", "is by relevance only with q");
	order = one_of(call, "order", directions, faults);
	search->descending =
		order == NULL ? search->sorting->descending : strcmp(order, "desc") == 0;
	search->order = arena_printf(
		call->arena, "%s %s", search->sorting->name, search->descending ? "desc" : "asc");
}

static const char *const params[] = { "q", "owner_address", "status", "min_reputation_score",
	"trust_level", "sort", "order", "limit", "offset", "cursor", NULL };
static const char *const repeatable_params[] = { "chain", NULL };
const struct route_input agents_search_input = { .params = params,
	.repeatable = repeatable_params };

static void read_search(const struct call *call, struct search *search, struct faults *faults)
{
	static const char *const statuses[] = { "pending", "active", "suspended", "revoked", NULL };
	static const char *const levels[] = { "excellent", "good", "fair", "poor", "new", NULL };
	const char *owner = call_param(call, "owner_address"), *why;
	char *canonical = arena_alloc(call->arena, ETH_ADDRESS_LEN + 1);

	*search = (struct search){ 0 };
	call_params(call, faults);
	search->q = call_param(call, "q");
	if (search->q != NULL && (*search->q == '\0' || utf8_length(search->q) > 200))
		fault_add(faults, "validation_failed", "q", "is not 1 to 200 characters long");
	if (owner != NULL && !eth_address_parse(owner, canonical, &why))
		fault_add(faults, "invalid_address", "owner_address", "%s", why);
	search->owner_address = owner == NULL ? NULL : canonical;
	read_chains(call, search, faults);
	search->status = one_of(call, "status", statuses, faults);
	if (search->status == NULL)
		search->status = "active";
	search->min_reputation_score = call_param(call, "min_reputation_score");
	if (search->min_reputation_score != NULL && !is_score(search->min_reputation_score))
		fault_add(faults, "invalid_score", "min_reputation_score",
			"is not a number within 0..100 with at most 2 decimals");
	search->trust_level = one_of(call, "trust_level", levels, faults);
	read_sorting(call, search, faults);
	page_read(call, search->order, &search->page, faults);
}

/* What the filters leave: FROM and WHERE. With q, parameter 1 is q. */
static void add_filters(struct query *query, const struct search *search)
{
	query_text(query, " FROM erc8004_agents a JOIN erc8004_agent_stats s USING (agent_uuid)");
	if (search->q != NULL)
		query_add(query,
			" WHERE (a.search @@ plainto_tsquery('simple', ?)"
			" OR lower(?) <% lower(a.name))",
			search->q);
	else
		query_text(query, " WHERE true");
	query_add(query, " AND a.status = ?", search->status);
	if (search->owner_address != NULL)
		query_add(query, " AND a.owner_address = ?", search->owner_address);
	for (size_t i = 0; i < search->chain_count; i++)
		query_add(query, i == 0 ? " AND a.chain IN (?" : ", ?", search->chains[i]);
	if (search->chain_count > 0)
		query_text(query, ")");
	if (search->min_reputation_score != NULL)
		query_add(query, " AND s.reputation_sort >= ?::numeric",
			search->min_reputation_score);
	if (search->trust_level != NULL)
		query_add(query, " AND s.trust_level = ?", search->trust_level);
}

/* Whether nothing but chain and status narrows the search: then the total is on record. */
static bool is_counted(const struct search *search)
{
	return search->q == NULL && search->owner_address == NULL &&
	       search->min_reputation_score == NULL && search->trust_level == NULL;
}

static void add_total(struct query *query, const struct search *search, struct arena *arena)
{
	if (!is_counted(search)) {
		query_text(query, "(SELECT count(*) FROM (SELECT");
		add_filters(query, search);
		query_text(
			query, arena_printf(arena, " LIMIT %d) AS counted)", TOTAL_EXACT_MAX + 1));
		return;
	}
	query_add(query,
		"(SELECT coalesce(sum(c.agents), 0) FROM erc8004_agent_counts c"
		" WHERE c.status = ?",
		search->status);
	for (size_t i = 0; i < search->chain_count; i++)
		query_add(query, i == 0 ? " AND c.chain IN (?" : ", ?", search->chains[i]);
	query_text(query, search->chain_count > 0 ? "))" : ")");
}

/* The page as rows: total, sort key as text, the Stats object's columns, the agent's own. Where the
 * page is empty there is one row still, with the total and nothing else. */
static void compose(struct query *query, const struct search *search, struct arena *arena)
{
	const struct sorting *by = search->sorting;
	const char *direction = search->descending ? "DESC" : "ASC";

	query_text(query, "WITH page AS (SELECT a.agent_uuid,");
	query_text(query,
		arena_printf(arena, " %s AS sort_key, %s AS sort_text", by->key, by->as_text));
	add_filters(query, search);
	if (search->page.after_key != NULL) {
		const char *than = search->descending ? "<" : ">";

		query_add(query,
			arena_printf(arena, " AND (%s, a.agent_uuid) %s (?::%s", by->key, than,
				by->type),
			search->page.after_key);
		query_add(query, ", ?::uuid)", search->page.after_id);
	}
	query_text(query,
		arena_printf(arena,
			" ORDER BY sort_key %s, a.agent_uuid %s LIMIT %zu OFFSET %zu) SELECT ",
			direction, direction, search->page.limit + 1, search->page.offset));
	add_total(query, search, arena);
	query_text(query,
		arena_printf(arena,
			", page.sort_text, " STATS_COLUMNS ", a.description, a.image,"
			" areg_services(a.registration_file), a.x402_support"
			" FROM (SELECT) AS one LEFT JOIN page ON true"
			" LEFT JOIN v_erc8004_agent_stats v ON v.agent_uuid = page.agent_uuid"
			" LEFT JOIN erc8004_agents a ON a.agent_uuid = page.agent_uuid"
			" ORDER BY page.sort_key %s, page.agent_uuid %s",
			direction, direction));
}

/* What PostgreSQL expects the filters to leave, for totals past TOTAL_EXACT_MAX. */
static enum db_status estimate(const struct call *call, const struct search *search, int64_t *total)
{
	static const char field[] = "\"Plan Rows\": ";
	struct query query;
	struct db_rows rows;
	enum db_status status;
	const char *found;

	query_init(&query, call->arena);
	query_text(&query, "EXPLAIN (FORMAT JSON) SELECT 1");
	add_filters(&query, search);
	status = query_run(&query, call->worker->db, call->arena, &rows);
	if (status != DB_OK)
		return status;
	found = strstr(db_text(&rows, 0, 0), field);
	if (found != NULL) {
		int64_t expected = strtoll(found + sizeof field - 1, NULL, 10);

		if (expected > *total)
			*total = expected;
	}
	return DB_OK;
}

static void write_page(struct call *call, const struct search *search, const struct db_rows *rows,
	int64_t total, bool is_estimate)
{
	static const struct column own[] = { { "description", COLUMN_TEXT },
		{ "image", COLUMN_TEXT }, { "services", COLUMN_JSON },
		{ "x402_support", COLUMN_FLAG } };
	const int stats = 2, more = stats + STATS_COLUMN_COUNT;
	bool is_empty = db_text(rows, 0, stats) == NULL;
	size_t shown = is_empty ? 0 : rows->count;
	bool has_more = shown > search->page.limit;
	struct json_out out = call_answer(call, 200);

	if (has_more)
		shown = search->page.limit;
	json_open_object(&out);
	json_key(&out, "agents");
	json_open_array(&out);
	for (size_t row = 0; row < shown; row++) {
		json_open_object(&out);
		columns_write(&out, stats_columns, STATS_COLUMN_COUNT, rows, row, stats);
		columns_write(&out, own, sizeof own / sizeof own[0], rows, row, more);
		json_close_object(&out);
	}
	json_close_array(&out);
	page_write(call, &out, &search->page, total, is_estimate, search->order,
		has_more ? db_text(rows, shown - 1, 1) : NULL,
		has_more ? db_text(rows, shown - 1, stats) : NULL);
	json_close_object(&out);
}

static void search_agents(struct call *call)
{
	struct search search;
	struct faults faults;
	struct query query;
	struct db_rows rows;
	enum db_status status;
	bool is_estimate = false;
	int64_t total;

	faults_init(&faults, call->arena);
	read_search(call, &search, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	query_init(&query, call->arena);
	compose(&query, &search, call->arena);
	status = query_run(&query, call->worker->db, call->arena, &rows);
	if (status == DB_CALLER && search.page.after_key != NULL) {
		/* A cursor that somebody made up: what it holds is not what it should. */
		fault_add(&faults, "validation_failed", "cursor", "is not one that a list gave");
		call_refuse(call, &faults);
		return;
	}
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	total = db_int(&rows, 0, 0);
	if (total > TOTAL_EXACT_MAX && !is_counted(&search)) {
		is_estimate = true;
		status = estimate(call, &search, &total);
	}
	if (status != DB_OK)
		call_db_failed(call, status);
	else
		write_page(call, &search, &rows, total, is_estimate);
}

void agents_search(struct call *call)
{
	uint64_t began = clock_us();

	search_agents(call);
	metrics_observe(call->worker->metrics, METER_SEARCH_DURATION, 0, 0, clock_us() - began);
}
