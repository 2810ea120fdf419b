/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Search is one statement, composed from the filters that the request names, so that PostgreSQL
 * plans for just those; the total comes with it.
 */
#include "app/api/agents_search.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "app/api/agents_stats.h"
#include "app/http/metering.h"
#include "app/http/paging.h"
#include "app/http/query.h"
#include "app/problem_list.h"
#include "lib/clock.h"
#include "lib/random.h"
#include "lib/rfc3339.h"
#include "lib/siphash.h"

/* Where a column is found. */
enum tables {
	OF_AGENTS = 1, /* erc8004_agents a */
	OF_STATS = 2, /* erc8004_agent_stats s */
};

/*
 * How a list can be sorted. The key and the id that breaks ties are of one table, so that the index
 * over both gives the order and goes on behind a cursor.
 */
struct sorting {
	const char *name;
	const char *key, *id; /* SQL */
	const char *type; /* of the key's text in a cursor */
	const char *as_text; /* SQL function that gives that text exactly */
	bool descending; /* unless `order` says otherwise */
	enum tables table;
};

static const struct sorting sortings[] = {
	{ "registered_at", "a.created_at", "a.agent_uuid", "timestamptz", "rfc3339", true,
		OF_AGENTS },
	{ "reputation_score", "s.reputation_sort", "s.agent_uuid", "numeric", "text", true,
		OF_STATS },
	{ "total_feedback", "s.total_feedback", "s.agent_uuid", "bigint", "text", true, OF_STATS },
	{ "last_activity_at", "s.last_activity_at", "s.agent_uuid", "timestamptz", "rfc3339", true,
		OF_STATS },
	{ "name", "a.name_sort", "a.agent_uuid", "text COLLATE \"C\"", "text", false, OF_AGENTS },
	/* Best first. How good a match is depends on how it was found: see add_matches(). */
	{ "relevance", NULL, "a.agent_uuid", "real", "text", true, OF_AGENTS },
};
enum {
	REGISTERED_AT,
	REPUTATION_SCORE,
	SORTINGS = sizeof sortings / sizeof sortings[0],
	RELEVANCE = SORTINGS - 1
};

/* The same time, where erc8004_agent_stats has the index: behind a trust_level. */
static const struct sorting registered_at_by_trust = { "registered_at", "s.registered_at",
	"s.agent_uuid", "timestamptz", "rfc3339", true, OF_STATS };
/* reputation_score with automatic_feedback=exclude. */
static const struct sorting direct_score = { "direct_score", "s.direct_sort", "s.agent_uuid",
	"numeric", "text", true, OF_STATS };

/* The order that replaces relevance when too many agents match. */
static const struct sorting best_of_many = { "best_of_many", "s.reputation_sort", "s.agent_uuid",
	"numeric", "text", true, OF_STATS };

static const char *const statuses[] = { "pending", "active", "suspended", "revoked", NULL };
static const char *const levels[] = { "excellent", "good", "fair", "poor", "new", NULL };

/* Parameters that each leave fewer agents: what they must be, and what they add to WHERE. */
struct filter {
	const char *name;
	enum {
		ADDRESS, /* EIP-55 holds where it is in mixed case */
		HASH, /* 0x and 64 hex digits in any case */
		ONE_OF, /* `words` */
		SCORE, /* 0..100 with at most 2 decimals */
		COUNT, /* a whole number */
		WORD, /* 1..200 characters */
		FLAG, /* true or false */
		TIME, /* RFC 3339 */
	} kind;
	enum tables table;
	const char *sql; /* ? is the value; of a FLAG: for true, without it */
	const char *sql_else; /* of a FLAG: for false; of a SCORE: without automatic feedback */
	const char *const *words;
};

static const struct filter filters[] = {
	{ "owner_address", ADDRESS, OF_AGENTS, " AND a.owner_address = ?", NULL, NULL },
	{ "agent_wallet", ADDRESS, OF_AGENTS, " AND a.agent_wallet = ?", NULL, NULL },
	{ "registered_tx", HASH, OF_AGENTS, " AND a.registered_tx = ?", NULL, NULL },
	{ "trust_level", ONE_OF, OF_STATS, " AND s.trust_level = ?", NULL, levels },
	/* -1 is no score */
	{ "min_reputation_score", SCORE, OF_STATS, " AND s.reputation_sort >= ?::numeric",
		" AND s.direct_sort >= ?::numeric", NULL },
	{ "max_reputation_score", SCORE, OF_STATS,
		" AND s.reputation_sort BETWEEN 0 AND ?::numeric",
		" AND s.direct_sort BETWEEN 0 AND ?::numeric", NULL },
	{ "min_success_rate", SCORE, OF_STATS, " AND s.payment_success_rate >= ?::numeric",
		" AND s.payment_success_rate >= ?::numeric", NULL },
	{ "min_feedback", COUNT, OF_STATS, " AND s.total_feedback >= ?::bigint", NULL, NULL },
	{ "skill", WORD, OF_AGENTS, " AND a.skills @> ARRAY[?]", NULL, NULL },
	{ "domain", WORD, OF_AGENTS, " AND a.domains @> ARRAY[?]", NULL, NULL },
	{ "supported_trust", WORD, OF_AGENTS, " AND a.supported_trust @> ARRAY[?]", NULL, NULL },
	{ "x402", FLAG, OF_AGENTS, " AND a.flags @> '{x402}'", " AND a.flags @> '{no x402}'",
		NULL },
	{ "has_registration_file", FLAG, OF_AGENTS, " AND a.flags @> '{file}'",
		" AND a.flags @> '{no file}'", NULL },
	{ "active", FLAG, OF_AGENTS, " AND a.flags @> '{active}'", " AND a.flags @> '{inactive}'",
		NULL },
	{ "registered_after", TIME, OF_AGENTS, " AND a.created_at > ?::timestamptz", NULL, NULL },
	{ "registered_before", TIME, OF_AGENTS, " AND a.created_at < ?::timestamptz", NULL, NULL },
};
enum { FILTERS = sizeof filters / sizeof filters[0], WORD_CHARS_MAX = 200 };

static const char *const params[] = { "q", "owner_address", "agent_wallet", "registered_tx",
	"status", "trust_level", "min_reputation_score", "max_reputation_score", "min_success_rate",
	"min_feedback", "skill", "domain", "supported_trust", "x402", "has_registration_file",
	"active", "registered_after", "registered_before", "automatic_feedback", "sort", "order",
	"limit", "offset", "cursor", NULL };
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
	const char *words, *has_words; /* SQL: the tsquery of q; whether an agent has them */
	struct names chains;
	struct names services; /* in lower case; all of them */
	const char *status;
	const char *filters[FILTERS]; /* value of each, canonical; NULL: not given */
	bool has_filters;
	bool leaves_out_automatic; /* feedback, of the score */
	const struct sorting *sorting;
	bool descending;
	struct page page;
	/* With q and a cursor: how the first page was found; the next page must be found in the
	 * same way. */
	bool goes_on;
	bool is_many; /* too many match: sorted by best_of_many instead of by relevance */
	bool has_names; /* that are merely near to q, beside words */
	/* SQL: the conditions but for q, status and chain; and numbers of parameters. */
	const char *conditions;
	size_t status_param, chains_param, services_param, after_key_param, after_id_param;
	struct crowd *crowd; /* where the total is remembered; NULL: with q it is not */
	int64_t crowd_total; /* what was remembered; 0: nothing */
};

/*
 * Totals past TOTAL_EXACT_MAX are estimates. Each worker remembers some estimates for
 * CROWD_SECONDS, because counting so many rows again costs more than the page itself.
 */
struct crowd {
	uint64_t search; /* hash of all that narrows it */
	uint64_t until_us; /* by clock_us() */
	int64_t total;
};
enum { CROWDS = 256, CROWD_SECONDS = 10 };

/* A list of a service that is longer is not looked through: what flags leave of it may be few. */
enum { LIST_LOOK_MAX = 2 * TOTAL_EXACT_MAX };

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
	fault_add(faults, PROBLEM_VALIDATION_FAILED, name, "is not one of %s", list.data);
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
	fault_add(faults, PROBLEM_VALIDATION_FAILED, name, "is not 1 to %d characters long",
		WORD_CHARS_MAX);
	return false;
}

/* The value of a filter in canonical form; NULL where it is not given or wrong. */
static const char *search_read_filter(
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
		fault_add(faults, PROBLEM_INVALID_ADDRESS, filter->name, "%s", why);
		return NULL;
	case HASH:
		canonical = arena_alloc(call->arena, ETH_HASH_LEN + 1);
		if (eth_hash_parse(value, canonical, &why))
			return canonical;
		fault_add(faults, PROBLEM_VALIDATION_FAILED, filter->name, "%s", why);
		return NULL;
	case ONE_OF:
		return one_of(call, filter->name, filter->words, faults);
	case SCORE:
		if (is_score(value))
			return value;
		fault_add(faults, PROBLEM_INVALID_SCORE, filter->name,
			"is not a number within 0..100 with at most 2 decimals");
		return NULL;
	case COUNT:
		if (is_count(value))
			return value;
		fault_add(faults, PROBLEM_VALIDATION_FAILED, filter->name,
			"is not a whole number of at most 18 digits");
		return NULL;
	case WORD:
		return is_word(filter->name, value, faults) ? value : NULL;
	case FLAG:
		return one_of(call, filter->name, booleans, faults);
	case TIME:
		if (rfc3339_check(value, &why))
			return value;
		fault_add(faults, PROBLEM_VALIDATION_FAILED, filter->name, "%s", why);
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
		search->filters[i] = search_read_filter(call, &filters[i], faults);
		search->has_filters |= search->filters[i] != NULL;
	}
	least = filter_value(search, "min_reputation_score");
	most = filter_value(search, "max_reputation_score");
	if (least != NULL && most != NULL && strtod(least, NULL) > strtod(most, NULL))
		fault_add(faults, PROBLEM_INVALID_SCORE, "max_reputation_score",
			"is less than min_reputation_score");
	least = filter_value(search, "registered_after");
	most = filter_value(search, "registered_before");
	if (least != NULL && most != NULL &&
		rfc3339_microseconds(least) > rfc3339_microseconds(most))
		fault_add(faults, PROBLEM_VALIDATION_FAILED, "registered_before",
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
static const char *search_lower_case(struct arena *arena, const char *text)
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
				settings_chain(call->context->settings, param->value);

			if (chain != NULL)
				add_name(&search->chains, chain->name);
			else
				fault_add(faults, PROBLEM_CHAIN_NOT_SUPPORTED, "chain",
					"this registry serves no chain of that name");
		} else if (strcmp(param->name, "service") == 0 &&
			   is_word("service", param->value, faults)) {
			add_name(&search->services, search_lower_case(call->arena, param->value));
		}
	}
}

static bool is_by_relevance(const struct search *search)
{
	return search->sorting == &sortings[RELEVANCE];
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
	if (is_by_relevance(search) && search->q == NULL)
		fault_add(faults, PROBLEM_VALIDATION_FAILED, "sort", "is by relevance only with q");
	if (search->sorting == &sortings[REGISTERED_AT] && filter_value(search, "trust_level"))
		search->sorting = &registered_at_by_trust;
	if (search->sorting == &sortings[REPUTATION_SCORE] && search->leaves_out_automatic)
		search->sorting = &direct_score;
	order = one_of(call, "order", directions, faults);
	search->descending =
		order == NULL ? search->sorting->descending : strcmp(order, "desc") == 0;
}

static const char *name_order(
	const struct call *call, const struct search *search, bool is_many, bool has_names)
{
	return arena_printf(call->arena, "%s %s%s",
		is_many ? best_of_many.name : search->sorting->name,
		search->descending ? "desc" : "asc",
		search->q != NULL && !has_names ? " of words" : "");
}

/* A list that goes on from a cursor keeps the variant of its first page, because matching and order
 * depend on how many agents match. */
static void read_page(const struct call *call, struct search *search, struct faults *faults)
{
	const char *order = name_order(call, search, false, true);

	for (int variant = 0; search->q != NULL && variant < 4; variant++) {
		bool is_many = variant & 1, has_names = variant & 2;
		const char *other = name_order(call, search, is_many, has_names);

		if ((is_many && !is_by_relevance(search)) || !page_goes_on(call, other))
			continue;
		search->goes_on = true;
		search->is_many = is_many;
		search->has_names = has_names;
		order = other;
	}
	page_read(call, order, &search->page, faults);
}

/* All the words, or a name near to q. Both have an index. */
#define WORDS "plainto_tsquery('simple', $1)"
#define WORDS_WITHOUT_BLANKS "plainto_tsquery('simple', areg_words_to_find($1))"
#define HAS "a.search @@ "
#define HAS_NAME "lower($1) <% lower(a.name)"

/* Every script that has no blanks between words is encoded from this byte on: see
 * areg_words_to_find(). */
enum { UNSPACED_FIRST = 0xe0 };

static void search_read_words(struct search *search)
{
	const unsigned char *c = (const unsigned char *)search->q;

	while (*c != '\0' && *c < UNSPACED_FIRST)
		c++;
	search->words = *c == '\0' ? WORDS : WORDS_WITHOUT_BLANKS;
	search->has_words = *c == '\0' ? HAS WORDS : HAS WORDS_WITHOUT_BLANKS;
}

static void read_search(const struct call *call, struct search *search, struct faults *faults)
{
	static const char *const automatic[] = { "include", "exclude", NULL };
	const char *word;

	*search = (struct search){ 0 };
	call_params(call, faults);
	search->q = call_param(call, "q");
	if (search->q != NULL && (*search->q == '\0' || utf8_length(search->q) > 200))
		fault_add(
			faults, PROBLEM_VALIDATION_FAILED, "q", "is not 1 to 200 characters long");
	if (search->q != NULL)
		search_read_words(search);
	read_names(call, search, faults);
	word = one_of(call, "status", statuses, faults);
	search->status = word == NULL ? "active" : word;
	read_filters(call, search, faults);
	word = one_of(call, "automatic_feedback", automatic, faults);
	search->leaves_out_automatic = word != NULL && strcmp(word, "exclude") == 0;
	read_sorting(call, search, faults);
	read_page(call, search, faults);
}

/* The place of a search, which may be another's; its conditions and values are in *query. */
static struct crowd *crowd_of(const struct query *query, size_t chains)
{
	static struct crowd crowds[CROWDS];
	static char key[16];
	uint64_t hash;
	struct buf all;
	struct crowd *crowd;

	buf_init(&all, query->sql.arena, 512);
	buf_printf(&all, "%zu%s", chains, query->sql.data);
	for (size_t i = 0; i < query->param_count; i++)
		buf_printf(&all, "%c%s", '\0', query->params[i]);
	if (key[0] == '\0' && !random_text(key, sizeof key))
		return NULL;
	hash = siphash((const uint8_t *)key, all.data, all.len);
	crowd = &crowds[hash % CROWDS];
	if (crowd->search != hash)
		*crowd = (struct crowd){ .search = hash };
	return crowd;
}

/* Takes in the values that narrow the search. q becomes parameter 1 where there is one. */
static void add_values(struct query *query, struct search *search, struct arena *arena)
{
	if (search->q != NULL)
		query_param(query, search->q);
	search->status_param = query_param(query, search->status);
	if (search->chains.count == 1)
		search->chains_param = query_param(query, search->chains.list[0]);
	else if (search->chains.count > 1)
		search->chains_param = query_param(
			query, db_array(arena, search->chains.list, search->chains.count));
	if (search->services.count > 0) {
		search->services_param = query_param(
			query, db_array(arena, search->services.list, search->services.count));
		buf_printf(&query->sql, " AND a.services @> $%zu::text[]", search->services_param);
	}
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
	search->conditions = query->sql.data;
	if (search->q == NULL)
		search->crowd = crowd_of(query, search->chains.count);
	if (search->crowd != NULL && search->crowd->until_us > clock_us())
		search->crowd_total = search->crowd->total;
	buf_init(&query->sql, arena, 4096);
	if (search->page.after_key != NULL) {
		search->after_key_param = query_param(query, search->page.after_key);
		search->after_id_param = query_param(query, search->page.after_id);
	}
}

/* What the conditions need, as a set. */
static unsigned needed_tables(const struct search *search)
{
	unsigned tables = search->q != NULL || search->services.count > 0 ? OF_AGENTS : 0;

	for (size_t i = 0; i < FILTERS; i++)
		if (search->filters[i] != NULL)
			tables |= filters[i].table;
	return tables;
}

/* The FROM clause for every filter except `q`, over the tables that those filters need. Both tables
 * have status and chain, so one is often enough. */
static const char *found(
	const struct search *search, unsigned tables, const char *match, struct arena *arena)
{
	static const char *const sources[] = { [OF_AGENTS] = "erc8004_agents a",
		[OF_STATS] = "erc8004_agent_stats s",
		[OF_AGENTS | OF_STATS] =
			"erc8004_agents a JOIN erc8004_agent_stats s USING (agent_uuid, status)" };
	const char *of = tables & OF_STATS ? "s" : "a", *chains = "";

	/* One is said so that an index can give the order behind it. */
	if (search->chains.count > 0)
		chains = arena_printf(arena,
			search->chains.count == 1 ? " AND %s.chain = $%zu"
						  : " AND %s.chain = ANY ($%zu::text[])",
			of, search->chains_param);
	return arena_printf(arena, "%s WHERE %s%s.status = $%zu%s%s", sources[tables], match, of,
		search->status_param, chains, search->conditions);
}

/* Whether nothing but chain and status narrows the search: then the total is on record. */
static bool search_is_counted(const struct search *search)
{
	return search->q == NULL && search->services.count == 0 && !search->has_filters;
}

static void add_total(struct query *query, const struct search *search)
{
	if (search->crowd_total > 0) {
		buf_printf(&query->sql, "%" PRId64, search->crowd_total);
		return;
	}
	if (!search_is_counted(search)) {
		query_text(query, "(SELECT total FROM counted)");
		return;
	}
	query_text(query, "(SELECT coalesce(sum(agents), 0) FROM erc8004_agent_counts c");
	buf_printf(&query->sql, " WHERE status = $%zu", search->status_param);
	if (search->chains.count > 0)
		buf_printf(&query->sql,
			search->chains.count == 1 ? " AND chain = $%zu"
						  : " AND chain = ANY ($%zu::text[])",
			search->chains_param);
	query_text(query, ")");
}

/* The part of a list that is asked for, one row more than that, behind what follows FROM. Only its keys
 * become text. */
static void add_page(struct query *query, const struct search *search, const struct sorting *by,
	const char *key, const char *id, const char *source)
{
	const char *direction = search->descending ? "DESC" : "ASC";

	buf_printf(&query->sql,
		"(SELECT agent_uuid, sort_key, %s(sort_key) AS sort_text, %s AS is_many"
		" FROM (SELECT %s AS agent_uuid, %s AS sort_key FROM %s",
		by->as_text, by == &best_of_many ? "true" : "false", id, key, source);
	if (search->page.after_key != NULL)
		buf_printf(&query->sql, " AND (%s, %s) %s ($%zu::%s, $%zu::uuid)", key, id,
			search->descending ? "<" : ">", search->after_key_param, by->type,
			search->after_id_param);
	buf_printf(&query->sql, " ORDER BY %s %s, %s %s LIMIT %zu OFFSET %zu) AS part)", key,
		direction, id, direction, search->page.limit + 1, search->page.offset);
}

/* By walking the index of the order. */
static void add_walk(struct query *query, const struct search *search, const struct sorting *by,
	const char *match, const char *condition, struct arena *arena)
{
	const char *source = found(search, needed_tables(search) | by->table, match, arena);

	add_page(
		query, search, by, by->key, by->id, arena_printf(arena, "%s%s", source, condition));
}

/* By sorting what was gathered, whose keys came with it or are looked up now. */
static void add_sorted(struct query *query, const struct search *search, const char *condition,
	struct arena *arena)
{
	const struct sorting *by = search->sorting;

	if (needed_tables(search) & by->table)
		add_page(query, search, by, "matched.sort_key", "matched.agent_uuid",
			arena_printf(arena, "matched WHERE %s", condition));
	else
		add_page(query, search, by, by->key, by->id,
			arena_printf(arena,
				"matched JOIN erc8004_agent_stats s USING (agent_uuid) WHERE %s",
				condition));
}

/* What is gathered of an agent: its id, and the key where it is at hand. */
static const char *gathered(const struct search *search, const char *key, struct arena *arena)
{
	unsigned tables = needed_tables(search);

	return arena_printf(arena, "%s.agent_uuid%s%s", tables & OF_STATS ? "s" : "a",
		tables & search->sorting->table ? ", " : "",
		tables & search->sorting->table ? arena_printf(arena, "%s AS sort_key", key) : "");
}

#define IS_MANY "(SELECT is_many FROM counted)"

/* Filters by what is said in the list of a service, too: bits of areg_facets(). */
static const struct facet {
	const char *filter;
	const char *sql, *sql_else; /* for true, for false */
} facets[] = {
	{ "x402", " AND facets & 1 <> 0", " AND facets & 1 = 0" },
	{ "has_registration_file", " AND facets & 2 <> 0", " AND facets & 2 = 0" },
	{ "active", " AND facets & 4 <> 0", " AND facets & 8 <> 0" },
};
enum { FACETS = sizeof facets / sizeof facets[0] };

/* The FROM clause for the agents of one service, newest first, in the order of an index. NULL if
 * other filters or another sort order are given. Sets *conditions to the conditions on facets. */
static const char *list_of_service(
	const struct search *search, const char **conditions, struct arena *arena)
{
	size_t known = 0, given = 0;

	*conditions = "";
	for (size_t i = 0; i < FACETS; i++) {
		const char *value = filter_value(search, facets[i].filter);

		if (value == NULL)
			continue;
		known++;
		*conditions = arena_printf(arena, "%s%s", *conditions,
			strcmp(value, "true") == 0 ? facets[i].sql : facets[i].sql_else);
	}
	for (size_t i = 0; i < FILTERS; i++)
		given += search->filters[i] != NULL;
	if (given > known || search->services.count != 1 || search->chains.count > 0 ||
		strcmp(search->status, "active") != 0 ||
		search->sorting != &sortings[REGISTERED_AT])
		return NULL;
	return arena_printf(arena, "erc8004_agent_services WHERE service = ($%zu::text[])[1]",
		search->services_param);
}

/*
 * Without q. The page is mostly found by walking the index of the order, and what the filters leave
 * is counted beside it. If the tables that are counted also hold the sort key, the count collects
 * the keys, and a small result is sorted from them. If the agents of the one service are few enough
 * to look at all of them, nothing is collected.
 */
static void add_pages_of_filters(
	struct query *query, const struct search *search, struct arena *arena)
{
	const char *all = found(search, needed_tables(search), "", arena), *conditions;
	const char *list = list_of_service(search, &conditions, arena);
	bool sorts = needed_tables(search) & search->sorting->table;

	if (list != NULL)
		query_text(query,
			arena_printf(arena,
				"listed AS MATERIALIZED (SELECT count(*) FILTER (WHERE true%s) AS total,"
				" count(*) > %d AS is_long FROM (SELECT facets FROM %s LIMIT %d) AS these), ",
				conditions, LIST_LOOK_MAX, list, LIST_LOOK_MAX + 1));
	query_text(query,
		arena_printf(arena,
			"matched AS MATERIALIZED (SELECT %s FROM %s%s LIMIT %d),"
			" counted AS MATERIALIZED (SELECT total, total > %d%s AS is_many FROM (%s) AS these),"
			" page AS MATERIALIZED (",
			sorts ? gathered(search, search->sorting->key, arena) : "", all,
			list != NULL ? " AND (SELECT is_long FROM listed)" : "",
			TOTAL_EXACT_MAX + 1, TOTAL_EXACT_MAX, list != NULL ? " AND is_long" : "",
			list != NULL
				? "SELECT CASE WHEN is_long THEN (SELECT count(*) FROM matched)"
				  " ELSE total END AS total, is_long FROM listed"
				: "SELECT count(*) AS total FROM matched"));
	if (list != NULL) {
		add_page(query, search, search->sorting, "registered_at", "agent_uuid",
			arena_printf(arena, "%s%s AND NOT (SELECT is_long FROM listed)", list,
				conditions));
		query_text(query, " UNION ALL ");
	}
	if (sorts) {
		add_sorted(query, search, "NOT " IS_MANY, arena);
		query_text(query, " UNION ALL ");
	}
	add_walk(query, search, search->sorting, "", sorts ? " AND " IS_MANY : "", arena);
}

/* Whether q is one word, with no doubt about where words end, and nothing else narrows the search: its
 * agents are on record then, best first. */
static bool search_is_listed(const struct search *search)
{
	static const char word[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	const char *letters = word + 10;

	return is_by_relevance(search) && !search->has_filters && search->chains.count == 0 &&
	       search->services.count == 0 && strcmp(search->status, "active") == 0 &&
	       strchr(letters, *search->q) != NULL && search->q[strspn(search->q, word)] == '\0';
}

/* Who has the one word, best first: as ORDER BY has it, an index gives it. */
#define LISTED "erc8004_agent_words WHERE word = lower($1)"

/* Who has the words, as by_words: all of them, up to `most`. Where they are listed, only few of them:
 * of more, the list gives the page. known says how many they are. */
static void add_by_words(struct query *query, const struct search *search, const char *has_names,
	const char *most, struct arena *arena)
{
	static const char known[] =
		"known AS MATERIALIZED (SELECT count(*) AS words, count(*) < %d AS has_names FROM %s)";
	const char *key =
		is_by_relevance(search)
			? arena_printf(arena, "areg_words_relevance(a.search, %s)", search->words)
			: search->sorting->key;

	if (search_is_listed(search)) {
		query_text(query,
			arena_printf(arena, known, PAGE_LIMIT_MAX,
				arena_printf(arena, "(SELECT FROM " LISTED " LIMIT %d) AS these",
					TOTAL_EXACT_MAX + 1)));
		query_text(
			query, arena_printf(arena,
				       ", by_words AS MATERIALIZED (SELECT agent_uuid, relevance AS"
				       " sort_key FROM " LISTED " AND %s)",
				       has_names));
		return;
	}
	query_text(query, arena_printf(arena, "by_words AS MATERIALIZED (SELECT %s FROM %s%s), ",
				  gathered(search, key, arena),
				  found(search, needed_tables(search),
					  arena_printf(arena, "%s AND ", search->has_words), arena),
				  most));
	query_text(query, arena_printf(arena, known, PAGE_LIMIT_MAX, "by_words"));
}

/*
 * With q: up to TOTAL_EXACT_MAX matches are gathered and sorted, unless a list has them sorted. If
 * there are more matches, the page comes from a scan of the index of the sort order, where the next
 * match is never far. Words that match so many agents say little, so such a search by relevance is
 * sorted by reputation. The statement holds both ways, and a condition in each makes PostgreSQL run
 * only one of them. A search by relevance that goes on from a cursor keeps the order of its first
 * page.
 *
 * Names that are merely near to q are looked for where the words do not fill the longest page.
 */
static void add_pages_of_words(
	struct query *query, const struct search *search, struct arena *arena)
{
	bool by_relevance = is_by_relevance(search);
	bool stays = by_relevance && search->goes_on;
	const struct sorting *of_many = by_relevance ? &best_of_many : search->sorting;
	const char *has_names = search->goes_on ? search->has_names ? "true" : "false"
						: "(SELECT has_names FROM known)";
	const char *most = stays ? "" : arena_printf(arena, " LIMIT %d", TOTAL_EXACT_MAX + 1);
	const char *not_many = stays ? "true" : "NOT " IS_MANY;

	add_by_words(query, search, has_names, most, arena);
	query_text(query,
		arena_printf(arena,
			", by_names AS MATERIALIZED (SELECT %s FROM %s AND %s%s),"
			" matched AS NOT MATERIALIZED"
			" (SELECT * FROM by_words UNION ALL SELECT * FROM by_names),"
			" counted AS MATERIALIZED (SELECT total, total > %d AS is_many,"
			" %s AS has_names FROM (SELECT words + (SELECT count(*) FROM by_names)"
			" AS total FROM known) AS these), page AS MATERIALIZED (",
			gathered(search,
				by_relevance ? "areg_name_relevance(a.name, $1)"
					     : search->sorting->key,
				arena),
			found(search, needed_tables(search),
				arena_printf(
					arena, "%s AND NOT %s AND ", HAS_NAME, search->has_words),
				arena),
			has_names, most, TOTAL_EXACT_MAX, has_names));
	if (!stays || !search->is_many)
		add_sorted(query, search, not_many, arena);
	if (search_is_listed(search) && (!stays || !search->is_many)) {
		query_text(query, " UNION ALL ");
		add_page(query, search, search->sorting, "relevance", "agent_uuid",
			arena_printf(arena, LISTED " AND NOT %s AND %s", has_names, not_many));
	}
	if (!stays)
		query_text(query, " UNION ALL ");
	/* (…) IS TRUE keeps the indexes of q out of it. */
	if (!stays || search->is_many)
		add_walk(query, search, of_many,
			arena_printf(arena, "(%s OR %s AND %s) IS TRUE AND ", search->has_words,
				has_names, HAS_NAME),
			stays ? "" : " AND " IS_MANY, arena);
}

/* The page as rows: total, sort key as text, whether it is of best_of_many, whether names are in it,
 * the Stats object's columns, the agent's own. Where the page is empty there is one row still, with
 * the total and nothing else. The page is found first and by itself; what is shown of its agents is
 * looked up afterwards. */
static void search_compose(struct query *query, struct search *search, struct arena *arena)
{
	const char *direction = search->descending ? "DESC" : "ASC";

	add_values(query, search, arena);
	query_text(query, "WITH ");
	if (search->q != NULL) {
		add_pages_of_words(query, search, arena);
	} else if (!search_is_counted(search) && search->crowd_total == 0) {
		add_pages_of_filters(query, search, arena);
	} else {
		query_text(query, "page AS MATERIALIZED (");
		add_walk(query, search, search->sorting, "", "", arena);
	}
	query_text(query, ") SELECT ");
	add_total(query, search);
	query_text(query,
		arena_printf(arena,
			", page.sort_text, page.is_many, %s, %s, v.description, v.image,"
			" v.shown_services, v.x402_support"
			" FROM (SELECT) AS one LEFT JOIN page ON true"
			" LEFT JOIN v_erc8004_agent_stats v ON v.agent_uuid = page.agent_uuid"
			" ORDER BY page.sort_key %s, page.agent_uuid %s",
			search->q != NULL ? "(SELECT has_names FROM counted)" : "true",
			search->leaves_out_automatic ? STATS_COLUMNS_SCORED("v.direct_score")
						     : STATS_COLUMNS,
			direction, direction));
}

/* What PostgreSQL expects the filters to leave, for totals past TOTAL_EXACT_MAX. */
static enum db_status estimate(
	const struct call *call, const struct search *search, bool has_names, int64_t *total)
{
	static const char field[] = "\"Plan Rows\": ";
	const char *match = search->q == NULL ? ""
			    : has_names	      ? arena_printf(call->arena, "(%s OR %s) AND ",
							search->has_words, HAS_NAME)
					: arena_printf(call->arena, "%s AND ", search->has_words);
	struct search all = *search;
	struct query query;
	struct db_rows rows;
	enum db_status status;
	const char *expected;

	query_init(&query, call->arena);
	all.page.after_key = NULL;
	add_values(&query, &all, call->arena);
	query_text(&query, "EXPLAIN (FORMAT JSON) SELECT FROM ");
	query_text(&query, found(&all, needed_tables(&all), match, call->arena));
	status = query_run(&query, call, &rows);
	if (status != DB_OK)
		return status;
	expected = strstr(db_text(&rows, 0, 0), field);
	if (expected != NULL) {
		int64_t count = strtoll(expected + sizeof field - 1, NULL, 10);

		if (count > *total)
			*total = count;
	}
	return DB_OK;
}

static void write_page(struct call *call, const struct search *search, const struct db_rows *rows,
	int64_t total, bool is_estimate)
{
	static const struct column own[] = { { "description", COLUMN_TEXT },
		{ "image", COLUMN_TEXT }, { "services", COLUMN_JSON },
		{ "x402_support", COLUMN_FLAG } };
	const int stats = 4, more = stats + STATS_COLUMN_COUNT;
	const size_t found = db_text(rows, 0, stats) == NULL ? 0 : rows->count;
	const size_t fits = found > search->page.limit ? search->page.limit : found;
	struct json_out out = call_answer(call, 200);
	struct page part = search->page;
	size_t shown = 0;
	bool has_more;

	json_open_object(&out);
	json_key(&out, "agents");
	json_open_array(&out);
	while (shown < fits && (shown == 0 || !page_is_full(&out))) {
		json_open_object(&out);
		row_json_write(&out, stats_columns, STATS_COLUMN_COUNT, rows, shown, stats);
		row_json_write(&out, own, sizeof own / sizeof own[0], rows, shown++, more);
		json_close_object(&out);
	}
	json_close_array(&out);
	has_more = found > shown;
	if (shown < fits)
		part = page_cut(&part, shown);
	page_write(call, &out, &part, total, is_estimate,
		name_order(call, search, db_bool(rows, 0, 2), db_bool(rows, 0, 3)),
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

	faults_init(&faults, call->arena, PROBLEM_VALIDATION_FAILED);
	read_search(call, &search, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	query_init(&query, call->arena);
	search_compose(&query, &search, call->arena);
	status = query_run(&query, call, &rows);
	if (status == DB_CALLER && search.page.after_key != NULL) {
		/* A cursor that somebody made up: what it holds is not what it should. */
		fault_add(&faults, PROBLEM_VALIDATION_FAILED, "cursor",
			"is not one that a list gave");
		call_refuse(call, &faults);
		return;
	}
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	total = db_int(&rows, 0, 0);
	if (total > TOTAL_EXACT_MAX && !search_is_counted(&search)) {
		is_estimate = true;
		if (search.crowd_total == 0)
			status = estimate(call, &search, db_bool(&rows, 0, 3), &total);
		if (search.crowd_total == 0 && status == DB_OK && search.crowd != NULL)
			*search.crowd = (struct crowd){ .search = search.crowd->search,
				.until_us = clock_us() + CROWD_SECONDS * 1000000,
				.total = total };
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
	metrics_observe(call->context->metrics, METER_SEARCH_DURATION, 0, 0, clock_us() - began);
}
