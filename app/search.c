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
#include "lib/rfc3339.h"

/*
 * How a list can be sorted. The key and the id that breaks ties are of one table, so that the index
 * over both gives the order and goes on behind a cursor.
 */
struct sorting {
	const char *name;
	const char *key, *id; /* SQL */
	const char *type; /* of the key's text in a cursor */
	const char *as_text; /* SQL that gives that text exactly */
	bool descending; /* unless `order` says otherwise */
	bool of_stats; /* the table is erc8004_agent_stats as s */
};

static const struct sorting sortings[] = {
	{ "registered_at", "a.created_at", "a.agent_uuid", "timestamptz", "rfc3339(a.created_at)",
		true, false },
	{ "reputation_score", "s.reputation_sort", "s.agent_uuid", "numeric",
		"s.reputation_sort::text", true, true },
	{ "total_feedback", "s.total_feedback", "s.agent_uuid", "bigint", "s.total_feedback::text",
		true, true },
	{ "last_activity_at", "s.last_activity_at", "s.agent_uuid", "timestamptz",
		"rfc3339(s.last_activity_at)", true, true },
	{ "name", "a.name_sort", "a.agent_uuid", "text COLLATE \"C\"", "a.name_sort", false,
		false },
	/* Best first: words by ts_rank, and how near the name is. $1 is q. */
	{ "relevance", "areg_relevance(a.search, a.name, $1)", "a.agent_uuid", "numeric",
		"areg_relevance(a.search, a.name, $1)::text", true, false },
};
enum {
	REGISTERED_AT,
	REPUTATION_SCORE,
	SORTINGS = sizeof sortings / sizeof sortings[0],
	RELEVANCE = SORTINGS - 1
};

/* The same time, where erc8004_agent_stats has the index: behind a trust_level. */
static const struct sorting registered_at_by_trust = { "registered_at", "s.registered_at",
	"s.agent_uuid", "timestamptz", "rfc3339(s.registered_at)", true, true };
/* reputation_score with automatic_feedback=exclude. */
static const struct sorting direct_score = { "direct_score", "s.direct_sort", "s.agent_uuid",
	"numeric", "s.direct_sort::text", true, true };

/* What relevance is of too many. */
static const struct sorting best_of_many = { "best_of_many", "s.reputation_sort", "s.agent_uuid",
	"numeric", "s.reputation_sort::text", true, true };

static const char *const statuses[] = { "pending", "active", "suspended", "revoked", NULL };
static const char *const levels[] = { "excellent", "good", "fair", "poor", "new", NULL };

/* Parameters that each leave fewer agents: what they must be, and what they add to WHERE. */
struct filter {
	const char *name;
	enum {
		ADDRESS, /* EIP-55 holds where it is in mixed case */
		ONE_OF, /* `words` */
		SCORE, /* 0..100 with at most 2 decimals */
		COUNT, /* a whole number */
		WORD, /* 1..200 characters */
		FLAG, /* true or false */
		TIME, /* RFC 3339 */
	} kind;
	bool of_stats; /* needs erc8004_agent_stats */
	const char *sql; /* ? is the value; of a FLAG: for true, without it */
	const char *sql_else; /* of a FLAG: for false; of a SCORE: without automatic feedback */
	const char *const *words;
};

static const struct filter filters[] = {
	{ "owner_address", ADDRESS, false, " AND a.owner_address = ?", NULL, NULL },
	{ "agent_wallet", ADDRESS, false, " AND a.agent_wallet = ?", NULL, NULL },
	{ "trust_level", ONE_OF, true, " AND s.trust_level = ?", NULL, levels },
	/* -1 is no score */
	{ "min_reputation_score", SCORE, true, " AND s.reputation_sort >= ?::numeric",
		" AND s.direct_sort >= ?::numeric", NULL },
	{ "max_reputation_score", SCORE, true, " AND s.reputation_sort BETWEEN 0 AND ?::numeric",
		" AND s.direct_sort BETWEEN 0 AND ?::numeric", NULL },
	{ "min_success_rate", SCORE, true, " AND s.payment_success_rate >= ?::numeric",
		" AND s.payment_success_rate >= ?::numeric", NULL },
	{ "min_feedback", COUNT, true, " AND s.total_feedback >= ?::bigint", NULL, NULL },
	{ "skill", WORD, false, " AND a.skills @> ARRAY[?]", NULL, NULL },
	{ "domain", WORD, false, " AND a.domains @> ARRAY[?]", NULL, NULL },
	{ "supported_trust", WORD, false, " AND a.supported_trust @> ARRAY[?]", NULL, NULL },
	{ "x402", FLAG, false, " AND a.flags @> '{x402}'", " AND a.flags @> '{no x402}'", NULL },
	{ "has_registration_file", FLAG, false, " AND a.flags @> '{file}'",
		" AND a.flags @> '{no file}'", NULL },
	{ "active", FLAG, false, " AND a.flags @> '{active}'", " AND a.flags @> '{inactive}'",
		NULL },
	{ "registered_after", TIME, false, " AND a.created_at > ?::timestamptz", NULL, NULL },
	{ "registered_before", TIME, false, " AND a.created_at < ?::timestamptz", NULL, NULL },
};
enum { FILTERS = sizeof filters / sizeof filters[0], WORD_CHARS_MAX = 200 };

static const char *const params[] = { "q", "owner_address", "agent_wallet", "status", "trust_level",
	"min_reputation_score", "max_reputation_score", "min_success_rate", "min_feedback", "skill",
	"domain", "supported_trust", "x402", "has_registration_file", "active", "registered_after",
	"registered_before", "automatic_feedback", "sort", "order", "limit", "offset", "cursor",
	NULL };
static const char *const repeatable_params[] = { "chain", "service", NULL };
const struct route_input agents_search_input = { .params = params,
	.repeatable = repeatable_params };

/* Distinct values of a parameter that may stand several times. */
struct names {
	const char *list[HTTP_PARAMS_MAX];
	size_t count;
};

struct search {
	const char *q;
	struct names chains;
	struct names services; /* in lower case; all of them */
	const char *status;
	const char *filters[FILTERS]; /* value of each, canonical; NULL: not given */
	bool has_filters;
	bool leaves_out_automatic; /* feedback, of the score */
	const struct sorting *sorting;
	bool descending;
	const char *order; /* names sorting and direction, for cursors */
	const char *order_among_many; /* the same where relevance is best_of_many */
	bool is_among_many; /* the cursor is of that order */
	struct page page;
};

/* The value of a parameter if it is one of the words; NULL where it is not given or wrong. */
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

/* Fits a bigint. */
static bool is_count(const char *text)
{
	size_t digits = strspn(text, "0123456789");

	return digits >= 1 && digits <= 18 && text[digits] == '\0';
}

static bool is_word(const char *name, const char *value, struct faults *faults)
{
	if (*value != '\0' && utf8_length(value) <= WORD_CHARS_MAX)
		return true;
	fault_add(faults, "validation_failed", name, "is not 1 to %d characters long",
		WORD_CHARS_MAX);
	return false;
}

/* The value of a filter in canonical form; NULL where it is not given or wrong. */
static const char *read_filter(
	const struct call *call, const struct filter *filter, struct faults *faults)
{
	static const char *const booleans[] = { "true", "false", NULL };
	const char *value = call_param(call, filter->name), *why;
	char *canonical;

	if (value == NULL)
		return NULL;
	switch (filter->kind) {
	case ADDRESS:
		canonical = arena_alloc(call->arena, ETH_ADDRESS_LEN + 1);
		if (eth_address_parse(value, canonical, &why))
			return canonical;
		fault_add(faults, "invalid_address", filter->name, "%s", why);
		return NULL;
	case ONE_OF:
		return one_of(call, filter->name, filter->words, faults);
	case SCORE:
		if (is_score(value))
			return value;
		fault_add(faults, "invalid_score", filter->name,
			"is not a number within 0..100 with at most 2 decimals");
		return NULL;
	case COUNT:
		if (is_count(value))
			return value;
		fault_add(faults, "validation_failed", filter->name,
			"is not a whole number of at most 18 digits");
		return NULL;
	case WORD:
		return is_word(filter->name, value, faults) ? value : NULL;
	case FLAG:
		return one_of(call, filter->name, booleans, faults);
	case TIME:
		if (rfc3339_check(value, &why))
			return value;
		fault_add(faults, "validation_failed", filter->name, "%s", why);
		return NULL;
	}
	return NULL;
}

static const char *filter_value(const struct search *search, const char *name)
{
	size_t i = 0;

	while (strcmp(filters[i].name, name) != 0)
		i++;
	return search->filters[i];
}

static void read_filters(const struct call *call, struct search *search, struct faults *faults)
{
	const char *least, *most;

	for (size_t i = 0; i < FILTERS; i++) {
		search->filters[i] = read_filter(call, &filters[i], faults);
		search->has_filters |= search->filters[i] != NULL;
	}
	least = filter_value(search, "min_reputation_score");
	most = filter_value(search, "max_reputation_score");
	if (least != NULL && most != NULL && strtod(least, NULL) > strtod(most, NULL))
		fault_add(faults, "invalid_score", "max_reputation_score",
			"is less than min_reputation_score");
	least = filter_value(search, "registered_after");
	most = filter_value(search, "registered_before");
	if (least != NULL && most != NULL &&
		rfc3339_microseconds(least) > rfc3339_microseconds(most))
		fault_add(faults, "validation_failed", "registered_before",
			"is before registered_after");
}

static void add_name(struct names *names, const char *name)
{
	for (size_t i = 0; i < names->count; i++)
		if (strcmp(names->list[i], name) == 0)
			return;
	names->list[names->count++] = name;
}

/* As the registration file is read into the column: ASCII only. */
static const char *lower_case(struct arena *arena, const char *text)
{
	char *copy = arena_strdup(arena, text);

	for (char *c = copy; *c != '\0'; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	return copy;
}

static void read_names(const struct call *call, struct search *search, struct faults *faults)
{
	for (size_t i = 0; i < call->request->param_count; i++) {
		const struct http_param *param = &call->request->params[i];

		if (strcmp(param->name, "chain") == 0) {
			const struct chain *chain =
				settings_chain(call->worker->settings, param->value);

			if (chain != NULL)
				add_name(&search->chains, chain->name);
			else
				fault_add(faults, "chain_not_supported", "chain",
					"this registry serves no chain of that name");
		} else if (strcmp(param->name, "service") == 0 &&
			   is_word("service", param->value, faults)) {
			add_name(&search->services, lower_case(call->arena, param->value));
		}
	}
}

static const char *name_order(struct arena *arena, const struct sorting *sorting, bool descending)
{
	return arena_printf(arena, "%s %s", sorting->name, descending ? "desc" : "asc");
}

static void read_sorting(const struct call *call, struct search *search, struct faults *faults)
{
	static const char *const directions[] = { "asc", "desc", NULL };
	const char *names[SORTINGS + 1] = { NULL }, *sort, *order;

	for (size_t i = 0; i < SORTINGS; i++)
		names[i] = sortings[i].name;
	sort = one_of(call, "sort", names, faults);
	search->sorting = &sortings[search->q != NULL ? RELEVANCE : REGISTERED_AT];
	for (size_t i = 0; sort != NULL && i < SORTINGS; i++)
		if (strcmp(sort, sortings[i].name) == 0)
			search->sorting = &sortings[i];
	if (search->sorting == &sortings[RELEVANCE] && search->q == NULL)
		fault_add(faults, "validation_failed", "sort", "is by relevance only with q");
	if (search->sorting == &sortings[REGISTERED_AT] && filter_value(search, "trust_level"))
		search->sorting = &registered_at_by_trust;
	if (search->sorting == &sortings[REPUTATION_SCORE] && search->leaves_out_automatic)
		search->sorting = &direct_score;
	order = one_of(call, "order", directions, faults);
	search->descending =
		order == NULL ? search->sorting->descending : strcmp(order, "desc") == 0;
	search->order = name_order(call->arena, search->sorting, search->descending);
	search->order_among_many = name_order(call->arena, &best_of_many, search->descending);
}

static void read_search(const struct call *call, struct search *search, struct faults *faults)
{
	static const char *const automatic[] = { "include", "exclude", NULL };
	const char *word;

	*search = (struct search){ 0 };
	call_params(call, faults);
	search->q = call_param(call, "q");
	if (search->q != NULL && (*search->q == '\0' || utf8_length(search->q) > 200))
		fault_add(faults, "validation_failed", "q", "is not 1 to 200 characters long");
	read_names(call, search, faults);
	word = one_of(call, "status", statuses, faults);
	search->status = word == NULL ? "active" : word;
	read_filters(call, search, faults);
	word = one_of(call, "automatic_feedback", automatic, faults);
	search->leaves_out_automatic = word != NULL && strcmp(word, "exclude") == 0;
	read_sorting(call, search, faults);
	search->is_among_many = search->sorting == &sortings[RELEVANCE] &&
				page_goes_on(call, search->order_among_many);
	page_read(call, search->is_among_many ? search->order_among_many : search->order,
		&search->page, faults);
}

/* One of the names, or any of them; one is said so that an index can give the order behind it. */
static void add_chains(
	struct query *query, const struct names *chains, const char *column, struct arena *arena)
{
	if (chains->count == 1)
		query_add(query, arena_printf(arena, " AND %s = ?", column), chains->list[0]);
	else if (chains->count > 1)
		query_add(query, arena_printf(arena, " AND %s = ANY (?::text[])", column),
			db_array(arena, chains->list, chains->count));
}

/* The conditions but for q. Begins with parameter 1, which is q where there is one. */
static void add_conditions(struct query *query, const struct search *search, struct arena *arena)
{
	if (search->q != NULL)
		query->params[query->param_count++] = search->q;
	query_add(query, "a.status = ?", search->status);
	add_chains(query, &search->chains, "a.chain", arena);
	if (search->services.count > 0)
		query_add(query, " AND a.services @> ?::text[]",
			db_array(arena, search->services.list, search->services.count));
	for (size_t i = 0; i < FILTERS; i++) {
		const struct filter *filter = &filters[i];
		const char *value = search->filters[i];

		if (value == NULL)
			continue;
		if (filter->kind == FLAG)
			query_text(
				query, strcmp(value, "true") == 0 ? filter->sql : filter->sql_else);
		else
			query_add(query,
				filter->kind == SCORE && search->leaves_out_automatic
					? filter->sql_else
					: filter->sql,
				value);
	}
}

static bool needs_stats(const struct search *search)
{
	for (size_t i = 0; i < FILTERS; i++)
		if (search->filters[i] != NULL && filters[i].of_stats)
			return true;
	return false;
}

#define AGENTS "erc8004_agents a"
#define WITH_STATS " JOIN erc8004_agent_stats s USING (agent_uuid)"
/* All the words, or a name near to q. Both have an index; none is used for (…) IS TRUE: where
 * matches are many, walking the index of the order beats gathering them all. */
#define HAS_WORDS "a.search @@ plainto_tsquery('simple', $1)"
#define HAS_NAME "lower($1) <% lower(a.name)"
#define MATCHES "(" HAS_WORDS " OR " HAS_NAME ")"

/* What follows FROM for the agents that the filters and q leave. */
static const char *all_found(
	const struct search *search, const char *conditions, struct arena *arena)
{
	return arena_printf(arena, AGENTS "%s WHERE %s%s", needs_stats(search) ? WITH_STATS : "",
		search->q != NULL ? MATCHES " AND " : "", conditions);
}

/* Whether nothing but chain and status narrows the search: then the total is on record. */
static bool is_counted(const struct search *search)
{
	return search->q == NULL && search->services.count == 0 && !search->has_filters;
}

static void add_total(struct query *query, const struct search *search, const char *conditions,
	struct arena *arena)
{
	if (search->q != NULL) {
		query_text(query, "(SELECT total FROM counted)");
	} else if (!is_counted(search)) {
		query_text(query,
			arena_printf(arena, "(SELECT count(*) FROM (SELECT FROM %s LIMIT %d) AS c)",
				all_found(search, conditions, arena), TOTAL_EXACT_MAX + 1));
	} else {
		query_add(query,
			"(SELECT coalesce(sum(c.agents), 0) FROM erc8004_agent_counts c"
			" WHERE c.status = ?",
			search->status);
		add_chains(query, &search->chains, "c.chain", arena);
		query_text(query, ")");
	}
}

/* Puts aside what was composed so far, and goes on with the same parameters. */
static const char *take_text(struct query *query, struct arena *arena)
{
	const char *text = query->sql.data;

	buf_init(&query->sql, arena, 2048);
	return text;
}

/* The page out of what stands behind FROM, one row more than asked for. */
static void add_page(struct query *query, const struct search *search, const struct sorting *by,
	const char *source, struct arena *arena)
{
	const char *direction = search->descending ? "DESC" : "ASC";

	query_text(query, arena_printf(arena,
				  "(SELECT %s AS agent_uuid, %s AS sort_key, %s AS sort_text,"
				  " %s AS is_among_many FROM %s",
				  by->id, by->key, by->as_text,
				  by == &best_of_many ? "true" : "false", source));
	if (search->page.after_key != NULL) {
		const char *than = search->descending ? "<" : ">";

		query_add(query,
			arena_printf(
				arena, " AND (%s, %s) %s (?::%s", by->key, by->id, than, by->type),
			search->page.after_key);
		query_add(query, ", ?::uuid)", search->page.after_id);
	}
	query_text(query,
		arena_printf(arena, " ORDER BY %s %s, %s %s LIMIT %zu OFFSET %zu)", by->key,
			direction, by->id, direction, search->page.limit + 1, search->page.offset));
}

/*
 * With q: up to TOTAL_EXACT_MAX matches are found by their words and sorted. Of more the page is
 * found by walking the index of the order, of which few steps lead to the next match; and where the
 * order is relevance, words that common say little, and reputation goes for it. A walk by relevance
 * stays with what it began with. PostgreSQL runs only the one that its condition lets it.
 */
static void add_pages_of_words(struct query *query, const struct search *search,
	const char *conditions, struct arena *arena)
{
	bool by_relevance = search->sorting == &sortings[RELEVANCE];
	bool goes_on = by_relevance && search->page.after_key != NULL;
	const struct sorting *of_many = by_relevance ? &best_of_many : search->sorting;

	const char *agents = needs_stats(search) ? AGENTS WITH_STATS : AGENTS;

	/* Names are looked at only when the words do not find enough. */
	query_text(query,
		arena_printf(arena,
			"matched AS MATERIALIZED (SELECT agent_uuid FROM"
			" ((SELECT agent_uuid FROM %s WHERE %s AND %s)"
			" UNION ALL (SELECT agent_uuid FROM %s WHERE %s AND NOT %s AND %s)) AS m"
			" LIMIT %d),"
			" counted AS MATERIALIZED (SELECT count(*) AS total, count(*) > %d AS is_many"
			" FROM matched), page AS MATERIALIZED (",
			agents, HAS_WORDS, conditions, agents, HAS_NAME, HAS_WORDS, conditions,
			TOTAL_EXACT_MAX + 1, TOTAL_EXACT_MAX));
	if (goes_on && !search->is_among_many)
		add_page(query, search, search->sorting, all_found(search, conditions, arena),
			arena);
	if (!goes_on) {
		add_page(query, search, search->sorting,
			arena_printf(arena,
				"matched JOIN " AGENTS " USING (agent_uuid)%s"
				" WHERE NOT (SELECT is_many FROM counted)",
				search->sorting->of_stats ? WITH_STATS : ""),
			arena);
		query_text(query, " UNION ALL ");
	}
	if (!goes_on || search->is_among_many)
		add_page(query, search, of_many,
			arena_printf(arena, AGENTS "%s WHERE %s IS TRUE AND %s%s",
				of_many->of_stats || needs_stats(search) ? WITH_STATS : "", MATCHES,
				conditions, goes_on ? "" : " AND (SELECT is_many FROM counted)"),
			arena);
}

/* The page as rows: total, sort key as text, whether it is of best_of_many, the Stats object's
 * columns, the agent's own. Where the page is empty there is one row still, with the total and
 * nothing else. The page is found first and by itself; what is shown of its agents is looked up
 * afterwards. */
static void compose(struct query *query, const struct search *search, struct arena *arena)
{
	const char *direction = search->descending ? "DESC" : "ASC", *conditions;

	add_conditions(query, search, arena);
	conditions = take_text(query, arena);
	query_text(query, "WITH ");
	if (search->q != NULL) {
		add_pages_of_words(query, search, conditions, arena);
	} else {
		query_text(query, "page AS MATERIALIZED (");
		add_page(query, search, search->sorting,
			arena_printf(arena, AGENTS "%s WHERE %s",
				search->sorting->of_stats || needs_stats(search) ? WITH_STATS : "",
				conditions),
			arena);
	}
	query_text(query, ") SELECT ");
	add_total(query, search, conditions, arena);
	query_text(query,
		arena_printf(arena,
			", page.sort_text, page.is_among_many, %s, a.description, a.image,"
			" areg_services(a.registration_file), a.x402_support"
			" FROM (SELECT) AS one LEFT JOIN page ON true"
			" LEFT JOIN v_erc8004_agent_stats v ON v.agent_uuid = page.agent_uuid"
			" LEFT JOIN erc8004_agents a ON a.agent_uuid = page.agent_uuid"
			" ORDER BY page.sort_key %s, page.agent_uuid %s",
			search->leaves_out_automatic ? STATS_COLUMNS_SCORED("v.direct_score")
						     : STATS_COLUMNS,
			direction, direction));
}

/* What PostgreSQL expects the filters to leave, for totals past TOTAL_EXACT_MAX. */
static enum db_status estimate(const struct call *call, const struct search *search, int64_t *total)
{
	static const char field[] = "\"Plan Rows\": ";
	struct query query;
	struct db_rows rows;
	enum db_status status;
	const char *conditions, *found;

	query_init(&query, call->arena);
	add_conditions(&query, search, call->arena);
	conditions = take_text(&query, call->arena);
	query_text(&query, "EXPLAIN (FORMAT JSON) SELECT FROM ");
	query_text(&query, all_found(search, conditions, call->arena));
	status = query_run(&query, call, &rows);
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
	const int stats = 3, more = stats + STATS_COLUMN_COUNT;
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
	page_write(call, &out, &search->page, total, is_estimate,
		db_bool(rows, 0, 2) ? search->order_among_many : search->order,
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
	status = query_run(&query, call, &rows);
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
