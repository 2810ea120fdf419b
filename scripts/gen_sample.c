/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints sample agents, feedback and payments as JSON Lines for `aregctl import`, or the same records
 * as COPY for the tables themselves. The same arguments always print the same bytes; proportions and
 * oddities are those of the agents found on Ethereum mainnet in March 2026, but every name, text and
 * address is made up here.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <getopt.h>

#include "app/ctl/import_batch.h"
#include "lib/json_in.h"

enum {
	AGENTS_MAX = 100 * 1000 * 1000,
	FEEDBACK_MAX = 10000, /* for each agent, on average */
	TAIL = 20, /* the busiest agents share evenly up to about this rank, then it falls off */
};

/* Registrations begin with the first block of the registry on Ethereum and go on for 120 days. */
static const int64_t FIRST_SECOND = 1769688000; /* 2026-01-29T12:00:00Z */
static const int64_t SPAN_SECONDS = 120 * 86400;

struct network {
	const char *name;
	const char *registry;
	uint64_t chain_id;
	uint64_t first_block;
	unsigned block_seconds;
	unsigned share; /* of all agents, in 1000 */
};

/* Of conf/areg.conf.in: "areg-demo-identities". No agent of a sample is one of a real chain. */
#define DEMO_REGISTRY "0x617265672d64656d6f2d6964656e746974696573"

static const struct network CHAINS[] = {
	{ "ethereum", DEMO_REGISTRY, 1, 24339871, 12, 500 },
	{ "base", DEMO_REGISTRY, 8453, 41663783, 2, 350 },
	{ "sepolia", DEMO_REGISTRY, 11155111, 9989393, 12, 80 },
	{ "base-sepolia", DEMO_REGISTRY, 84532, 36304145, 2, 70 },
};
enum { CHAIN_COUNT = sizeof CHAINS / sizeof *CHAINS };

/* What must be remembered of an agent once its line is printed. */
struct agent {
	uint32_t id;
	uint32_t owner;
	uint8_t chain;
};

struct sample {
	uint64_t seed;
	uint32_t count;
	struct agent *agents;
	uint32_t next_id[CHAIN_COUNT];
	uint32_t owners;
	uint32_t files;
	bool as_copy; /* and not as JSON Lines */
};

/* What an address, a hash or a stream of draws is for, so that no two of them meet. */
enum domain {
	OWNER = 1,
	CLIENT,
	PAYER,
	TX,
	PAYMENT_TX,
	DRAWS_AGENT,
	DRAWS_FEEDBACK,
	DRAWS_PAYMENT,
	AGENT_UUID
};

/* splitmix64: a step of its state and the mixing of it (Steele, Lea and Flood, 2014). */
static uint64_t mixed(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static uint64_t stream(const struct sample *sample, enum domain domain, uint64_t index)
{
	uint64_t state = sample->seed ^ ((uint64_t)domain << 56);

	state = mixed(&state) + index;
	return mixed(&state);
}

/* 0 .. bound - 1; bound is far below 2^32, so that the bias does not show. */
static uint32_t draw(uint64_t *state, uint32_t bound)
{
	return (uint32_t)(((mixed(state) >> 32) * bound) >> 32);
}

static bool chance(uint64_t *state, unsigned in_1000)
{
	return draw(state, 1000) < in_1000;
}

#define PICK(state, list) ((list)[draw((state), sizeof(list) / sizeof *(list))])

/* stdout, or where a registration file is put together. */
static FILE *out;

static void put(const char *text)
{
	fputs_unlocked(text, out);
}

static void put_number(int64_t number)
{
	char digits[24];
	char *at = digits + sizeof digits - 1;
	uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;

	*at = '\0';
	do
		*--at = (char)('0' + rest % 10);
	while (rest /= 10);
	if (number < 0)
		*--at = '-';
	put(at);
}

/* Writes `len` hexadecimal digits that belong to (domain, index) alone, and a NUL. */
static void hex_of(
	const struct sample *sample, enum domain domain, uint64_t index, size_t len, char *digits)
{
	uint64_t state = stream(sample, domain, index);
	uint64_t word = 0;

	for (size_t i = 0; i < len; i++) {
		if (i % 16 == 0)
			word = mixed(&state);
		digits[i] = "0123456789abcdef"[word & 15];
		word >>= 4;
	}
	digits[len] = '\0';
}

static void put_hex(const struct sample *sample, enum domain domain, uint64_t index, size_t len)
{
	char digits[2 + 64 + 1] = "0x";

	hex_of(sample, domain, index, len, digits + 2);
	put(digits);
}

static void put_address(const struct sample *sample, enum domain domain, uint64_t index)
{
	put_hex(sample, domain, index, 40);
}

/* Two digits of a date; value is 0..99. */
static void digits2(char *at, int value)
{
	at[0] = (char)('0' + value / 10);
	at[1] = (char)('0' + value % 10);
}

/* Seconds since 1970 as RFC 3339. All of them lie in 2026 and 2027. */
static void put_time(int64_t seconds)
{
	static const int month_days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	char text[] = "2026-00-00T00:00:00Z";
	int day = (int)(seconds / 86400) - 20454; /* days since 2026-01-01 */
	int second = (int)(seconds % 86400);
	int month = 0;

	if (day >= 365) {
		text[3] = '7';
		day -= 365;
	}
	while (day >= month_days[month])
		day -= month_days[month++];
	digits2(text + 5, month + 1);
	digits2(text + 8, day + 1);
	digits2(text + 11, second / 3600);
	digits2(text + 14, second / 60 % 60);
	digits2(text + 17, second % 60);
	put(text);
}

static int64_t registered_at(const struct sample *sample, uint32_t index)
{
	return FIRST_SECOND + (int64_t)((double)SPAN_SECONDS * index / sample->count);
}

static const char *const FIRST_WORDS[] = { "Amber", "Atlas", "Birch", "Brisk", "Cinder", "Clear",
	"Cobalt", "Copper", "Coral", "Delta", "Drift", "Ember", "Fable", "Fern", "Flint", "Gentle",
	"Granite", "Harbor", "Hazel", "Heron", "Indigo", "Ivory", "Juniper", "Keen", "Lantern",
	"Lark", "Linden", "Lunar", "Maple", "Marble", "Meadow", "Nimble", "North", "Ochre", "Olive",
	"Onyx", "Opal", "Pepper", "Pine", "Plain", "Quartz", "Quiet", "Raven", "Ridge", "River",
	"Rowan", "Sable", "Saffron", "Silver", "Slate", "Solar", "Spruce", "Stone", "Swift",
	"Tidal", "Timber", "Umber", "Velvet", "Vivid", "Willow", "Winter", "Yarrow", "Zephyr",
	"Zürich" };
static const char *const TRADES[] = { "Arbitrage", "Archive", "Audit", "Bridge", "Calendar",
	"Catalogue", "Compliance", "Contract", "Courier", "Data", "Deploy", "Escrow", "Forecast",
	"Gas", "Grant", "Index", "Insurance", "Invoice", "Ledger", "Lending", "Mail", "Market",
	"Metrics", "News", "Oracle", "Payroll", "Portfolio", "Pricing", "Privacy", "Recipe",
	"Research", "Risk", "Route", "Search", "Security", "Social", "Storage", "Support", "Swap",
	"Tax", "Test", "Trading", "Translation", "Travel", "Treasury", "Voice", "Weather",
	"Yield" };
static const char *const ROLES[] = { "Agent", "Analyst", "Assistant", "Bot", "Broker", "Clerk",
	"Guide", "Keeper", "Monitor", "Pilot", "Ranger", "Scout", "Sentinel", "Watcher", "助手",
	"\xf0\x9f\xa4\x96" };
static const char *const VERBS[] = { "Answers questions about", "Buys and sells", "Checks",
	"Collects", "Compares", "Explains", "Keeps watch over", "Plans", "Quotes prices for",
	"Reports on", "Summarises", "Translates" };
static const char *const THINGS[] = { "token prices on several exchanges",
	"contracts before they are signed", "public data sets", "open pull requests",
	"supply chains of small shops", "lending positions that come near liquidation",
	"weather along a route", "invoices and receipts", "proposals of on-chain votes",
	"gas costs for the next hour", "news in twelve languages", "calendars of whole teams",
	"bug reports \\\"as they come\\\"", "research papers", "travel offers", "storage deals" };
static const char *const WAYS[] = { "Paid per call.", "Free up to a hundred calls a day.",
	"Answers within a second.", "Every answer names its sources.",
	"Works together with other agents.", "Runs around the clock.",
	"Results come as JSON and as plain text.", "Experimental: expect changes." };
static const char *const TYPE_RIGHT = "https://eips.ethereum.org/EIPS/eip-8004#registration-v1";
static const char *const TYPES_ODD[] = { "agent", "Agent", "AIAgent", "erc8004:agent:1",
	"https://eips.ethereum.org/EIP/eip-8004#registration-v1",
	"https://eips.ethereum.org/eip-8004" };
static const char *const SKILLS[] = { "natural_language_processing/summarization",
	"natural_language_processing/translation", "analytical_skills/coding_skills",
	"retrieval_augmented_generation/document_search", "tool_interaction/workflow_automation",
	"data_engineering/data_transformation" };
static const char *const DOMAINS[] = { "finance_and_business/finance", "technology/blockchain",
	"technology/software_engineering", "education/e_learning", "media/news",
	"trust_and_safety/data_privacy" };

struct weighted {
	const char *text;
	unsigned weight; /* of WEIGHTS_SUM */
};
enum { WEIGHTS_SUM = 1000 };

static const char *pick_weighted(uint64_t *state, const struct weighted *list)
{
	uint32_t at = draw(state, WEIGHTS_SUM);

	while (at >= list->weight)
		at -= list++->weight;
	return list->text;
}

static const struct weighted SERVICES[] = { { "web", 300 }, { "MCP", 200 }, { "OASF", 140 },
	{ "A2A", 115 }, { "agentWallet", 35 }, { "custom", 35 }, { "twitter", 25 }, { "email", 25 },
	{ "ENS", 25 }, { "x402", 15 }, { "telegram", 15 }, { "DID", 20 }, { "a2a", 10 },
	{ "mcp", 10 }, { "API", 15 }, { "docs", 15 } };

static void put_service(const struct sample *sample, uint64_t *state, uint32_t index)
{
	const char *name = pick_weighted(state, SERVICES);
	bool skilled = !strcmp(name, "OASF") || (!strcmp(name, "A2A") && chance(state, 300));

	if (chance(state, 6)) {
		fprintf(out, "\"https://agent-%" PRIu32 ".example.com/\"", index);
		return;
	}
	fprintf(out, "{\"name\":\"%s\",\"endpoint\":\"", name);
	if (!strcmp(name, "ENS")) {
		fprintf(out, "agent-%" PRIu32 ".eth", index);
	} else if (!strcmp(name, "email")) {
		fprintf(out, "agent-%" PRIu32 "@example.com", index);
	} else if (!strcmp(name, "agentWallet")) {
		put("eip155:1:");
		put_address(sample, OWNER, sample->agents[index].owner);
	} else if (!strcmp(name, "A2A") || !strcmp(name, "a2a")) {
		fprintf(out, "https://agent-%" PRIu32 ".example.com/.well-known/agent-card.json",
			index);
	} else if (!strcmp(name, "DID")) {
		fprintf(out, "did:web:agent-%" PRIu32 ".example.com", index);
	} else {
		fprintf(out, "https://agent-%" PRIu32 ".example.com/%s", index, name);
	}
	put("\"");
	if (!strcmp(name, "MCP"))
		put(",\"version\":\"2025-06-18\"");
	else if (skilled || chance(state, 200))
		put(",\"version\":\"0.3.0\"");
	if (skilled)
		fprintf(out, ",\"skills\":[\"%s\"],\"domains\":[\"%s\"]", PICK(state, SKILLS),
			PICK(state, DOMAINS));
	put("}");
}

/* The key of the list is the older one for a few; fewer still have an object there. */
static void put_services(const struct sample *sample, uint64_t *state, uint32_t index, bool rare)
{
	static const unsigned lengths[] = { 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5 };
	unsigned length = PICK(state, lengths);

	if (rare) {
		fprintf(out, ",\"endpoints\":{\"web\":\"https://agent-%" PRIu32 ".example.com/\"}",
			index);
		return;
	}
	put(chance(state, 45) ? ",\"endpoints\":[" : ",\"services\":[");
	for (unsigned i = 0; i < length; i++) {
		if (i)
			put(",");
		put_service(sample, state, index);
	}
	put("]");
}

static void put_supported_trust(uint64_t *state)
{
	fprintf(out, ",\"%s\":[\"reputation\"",
		chance(state, 370) ? "supportedTrusts" : "supportedTrust");
	if (chance(state, 600))
		put(",\"crypto-economic\"");
	if (chance(state, 450))
		put(",\"tee-attestation\"");
	put("]");
}

static void put_registration_file(struct sample *sample, uint64_t *state, uint32_t index)
{
	const struct agent *agent = &sample->agents[index];
	uint32_t rare = sample->files++ % 400; /* rarities come once in 400, the first ones soon */
	unsigned type = draw(state, 1000);

	put("{");
	if (rare == 11)
		fprintf(out, "\"type\":\"%s\",", PICK(state, TYPES_ODD));
	else if (rare == 23 || rare == 123 || rare == 223)
		; /* no type at all */
	else if (type < 200)
		put("\"type\":\"https://eips.ethereum.org/EIPS/eip-8004#registration\",");
	else if (type < 300)
		put("\"type\":\"https://eips.ethereum.org/EIPs/eip-8004#registration-v1\",");
	else
		fprintf(out, "\"type\":\"%s\",", TYPE_RIGHT);
	if (rare != 37)
		fprintf(out, "\"name\":\"%s %s %s\",", PICK(state, FIRST_WORDS),
			PICK(state, TRADES), PICK(state, ROLES));
	fprintf(out, "\"description\":\"%s %s. %s\"", PICK(state, VERBS), PICK(state, THINGS),
		PICK(state, WAYS));
	if (chance(state, 990))
		fprintf(out, ",\"image\":\"https://images.example.com/agents/%" PRIu32 ".png\"",
			index);
	if (rare == 59 || chance(state, 125))
		put_services(sample, state, index, rare == 59);
	type = draw(state, 1000);
	if (type < 715)
		fprintf(out, ",\"x402Support\":%s", chance(state, 250) ? "true" : "false");
	else if (type < 780)
		fprintf(out, ",\"x402support\":%s", chance(state, 250) ? "true" : "false");
	if (chance(state, 200))
		put(",\"8004Support\":true");
	if (chance(state, 986))
		fprintf(out, ",\"active\":%s", chance(state, 960) ? "true" : "false");
	if (chance(state, 100))
		fprintf(out,
			",\"registrations\":[{\"agentId\":%" PRIu32
			",\"agentRegistry\":\"eip155:%" PRIu64 ":%s\"}]",
			agent->id, CHAINS[agent->chain].chain_id, CHAINS[agent->chain].registry);
	if (chance(state, 157))
		put_supported_trust(state);
	if (chance(state, 9))
		fprintf(out, ",\"updatedAt\":%" PRId64, registered_at(sample, index));
	put("}");
}

/* Three in four agents go to an owner who has some already, in proportion to how many: the few
 * with hundreds come about as they do on the chains. The first ones have an owner each, or one
 * owner would have most of all. */
static uint32_t draw_owner(struct sample *sample, uint64_t *state, uint32_t index)
{
	if (index >= 12 && chance(state, 770))
		return sample->agents[draw(state, index)].owner;
	return sample->owners++;
}

/* Draws what an agent is; its file is drawn from *state then. Returns when it was registered. */
static int64_t draw_agent(struct sample *sample, uint32_t index, uint64_t *state)
{
	struct agent *agent = &sample->agents[index];
	uint32_t share;

	*state = stream(sample, DRAWS_AGENT, index);
	share = draw(state, 1000);
	agent->chain = 0;
	while (share >= CHAINS[agent->chain].share)
		share -= CHAINS[agent->chain++].share;
	agent->id = sample->next_id[agent->chain]++;
	agent->owner = draw_owner(sample, state, index);
	return registered_at(sample, index);
}

static int64_t registered_block(const struct network *chain, int64_t time)
{
	return (int64_t)chain->first_block + (time - FIRST_SECOND) / chain->block_seconds;
}

static bool draw_has_file(uint64_t *state)
{
	return chance(state, 406);
}

static void put_agent(struct sample *sample, uint32_t index)
{
	uint64_t state;
	int64_t time = draw_agent(sample, index, &state);
	const struct agent *agent = &sample->agents[index];
	const struct network *chain = &CHAINS[agent->chain];

	put("{\"agent_id\":");
	put_number(agent->id);
	put(",\"chain\":\"");
	put(chain->name);
	put("\",\"registry_address\":\"");
	put(chain->registry);
	put("\",\"owner_address\":\"");
	put_address(sample, OWNER, agent->owner);
	put("\",\"registered_block\":");
	put_number(registered_block(chain, time));
	put(",\"tx_hash\":\"");
	put_hex(sample, TX, index, 64);
	put("\",\"registration_file\":");
	if (draw_has_file(&state))
		put_registration_file(sample, &state, index);
	else
		put("null");
	put(",\"registered_at\":\"");
	put_time(time);
	put("\"}\n");
}

/* How a tag is used on the chains: a value between low and high, of which `decimals` digits stand
 * behind the point. */
struct tag {
	const char *tag1;
	const char *tag2;
	unsigned share; /* of all feedback, in 1000 */
	int low, high;
	unsigned decimals;
};

static const struct tag TAGS[] = {
	{ "starred", "", 420, 40, 100, 0 },
	{ "starred", "quality", 120, 0, 1000, 1 },
	{ "", "", 100, 0, 100, 0 },
	{ "reachable", "", 90, 0, 1, 0 },
	{ "uptime", "", 80, 9000, 10000, 2 },
	{ "responseTime", "", 70, 12, 4000, 0 },
	{ "successRate", "", 50, 600, 1000, 1 },
	{ "tradingYield", "week", 25, -500, 900, 1 },
	{ "tradingYield", "month", 15, -900, 2500, 1 },
	{ "ownerVerified", "", 15, 0, 1, 0 },
	{ "revenues", "", 15, 0, 2000000, 2 },
};

struct feedback {
	uint32_t agent, client;
	uint64_t feedback_index;
	const struct tag *tag;
	int64_t value;
	bool is_revoked;
	int64_t time;
};

/* Whether it is given as a score; otherwise as a value with decimals. */
static bool is_score(const struct tag *tag)
{
	return tag->decimals == 0 && tag->low >= 0 && tag->high == 100;
}

/* The j-th feedback of an agent: its clients take turns, so that index and client follow from j. */
static struct feedback draw_feedback(const struct sample *sample, uint32_t index, uint64_t j,
	uint64_t first_client, uint64_t clients)
{
	uint64_t state = stream(sample, DRAWS_FEEDBACK, ((uint64_t)index << 24) + j);
	struct feedback feedback = { .agent = index, .tag = TAGS };
	uint32_t share = draw(&state, 1000);
	uint64_t pool = sample->count / 4 + 50;
	uint32_t span;

	while (share >= feedback.tag->share)
		share -= feedback.tag++->share;
	span = (uint32_t)(feedback.tag->high - feedback.tag->low) + 1;
	/* The better of two draws: people praise more often than they complain. */
	feedback.value = feedback.tag->low + (int64_t)draw(&state, span);
	if (chance(&state, 700)) {
		int64_t other = feedback.tag->low + (int64_t)draw(&state, span);

		feedback.value = other > feedback.value ? other : feedback.value;
	}
	feedback.client = (uint32_t)((first_client + j % clients) % pool);
	feedback.feedback_index = j / clients + 1;
	feedback.is_revoked = chance(&state, 20);
	feedback.time = registered_at(sample, index) + 3600 + (int64_t)(j * 7919 % 100000) * 60;
	return feedback;
}

static void put_feedback(const struct sample *sample, const struct feedback *feedback)
{
	const struct agent *agent = &sample->agents[feedback->agent];

	put("{\"record\":\"feedback\",\"chain\":\"");
	put(CHAINS[agent->chain].name);
	put("\",\"agent_id\":");
	put_number(agent->id);
	put(",\"client_address\":\"");
	put_address(sample, CLIENT, feedback->client);
	put("\",\"feedback_index\":");
	put_number((int64_t)feedback->feedback_index);
	put(is_score(feedback->tag) ? ",\"score\":" : ",\"value\":");
	put_number(feedback->value);
	if (!is_score(feedback->tag)) {
		put(",\"value_decimals\":");
		put_number(feedback->tag->decimals);
	}
	put(",\"tag1\":\"");
	put(feedback->tag->tag1);
	put("\",\"tag2\":\"");
	put(feedback->tag->tag2);
	put(feedback->is_revoked ? "\",\"is_revoked\":true" : "\",\"is_revoked\":false");
	put(",\"created_at\":\"");
	put_time(feedback->time);
	put("\"}\n");
}

/* ---- COPY: columns between tabs, in the order of the COPY statements below ---- */

static void put_flag(bool flag)
{
	put(flag ? "t" : "f");
}

/* The agent_uuid that an agent has where it is loaded this way. */
static void put_agent_uuid(const struct sample *sample, uint32_t index)
{
	char digits[33];

	hex_of(sample, AGENT_UUID, index, 32, digits);
	digits[12] = '4'; /* RFC 9562: version 4, variant 10 */
	digits[16] = "89ab"[digits[16] & 3];
	fprintf(out, "%.8s-%.4s-%.4s-%.4s-%s", digits, digits + 8, digits + 12, digits + 16,
		digits + 20);
}

static const char COPY_AGENTS[] =
	"COPY erc8004_agents (agent_uuid, chain, chain_id, registry_address, agent_id,"
	" owner_address, status, source, registered_tx, registered_block, created_at,"
	" registration_file, registration_digest, conformance, name, description, image,"
	" shown_services, x402_support, file_active, services, skills, domains, supported_trust)"
	" FROM STDIN;\n";
static const char COPY_FEEDBACK[] =
	"COPY erc8004_reputation (id, agent_uuid, client_address, feedback_index,"
	" has_explicit_score, value, value_decimals, tag1, tag2, is_revoked, revoked_at, source,"
	" created_at) FROM STDIN;\n";
static const char COPY_PAYMENTS[] =
	"COPY x402_payments (id, tx_hash, chain, amount_usdc, payer, payee, status,"
	" failure_reason, created_at, settled_at, reaches_minimum) FROM STDIN;\n";
static const char COPY_LINKS[] =
	"COPY erc8004_agent_payments (payment_id, agent_uuid, linked_at) FROM STDIN;\n";

/* The columns of a registration file, as an import reads them out of it. */
static void copy_file(struct sample *sample, uint64_t *state, uint32_t index, struct arena *arena)
{
	struct json_text none = { .object = NULL };
	char *text = NULL;
	size_t len = 0;
	struct json_doc doc;
	struct json_error error;
	struct buf columns;

	arena_reset(arena);
	buf_init(&columns, arena, 4096);
	if (!draw_has_file(state)) {
		import_put_file(&columns, arena, &none);
		put(columns.data);
		return;
	}
	out = open_memstream(&text, &len);
	if (!out)
		abort();
	put_registration_file(sample, state, index);
	if (fclose(out) != 0)
		abort();
	out = stdout;
	if (!json_parse(arena, text, len, &json_rules_wild, &doc, &error)) {
		fprintf(stderr, "gen-sample: agent %" PRIu32 ": %s\n", index, error.reason);
		exit(1);
	}
	import_put_file(&columns, arena, &doc.root);
	put(columns.data);
	free(text);
}

static void copy_agent(struct sample *sample, uint32_t index, struct arena *arena)
{
	uint64_t state;
	int64_t time = draw_agent(sample, index, &state);
	const struct agent *agent = &sample->agents[index];
	const struct network *chain = &CHAINS[agent->chain];

	put_agent_uuid(sample, index);
	fprintf(out, "\t%s\t%" PRIu64 "\t%s\t%" PRIu32 "\t", chain->name, chain->chain_id,
		chain->registry, agent->id);
	put_address(sample, OWNER, agent->owner);
	put("\tactive\timport\t");
	put_hex(sample, TX, index, 64);
	fprintf(out, "\t%" PRId64 "\t", registered_block(chain, time));
	put_time(time);
	copy_file(sample, &state, index, arena);
	put("\n");
}

static void copy_feedback(
	const struct sample *sample, const struct feedback *feedback, uint64_t number)
{
	put_number((int64_t)number);
	put("\t");
	put_agent_uuid(sample, feedback->agent);
	put("\t");
	put_address(sample, CLIENT, feedback->client);
	put("\t");
	put_number((int64_t)feedback->feedback_index);
	put("\t");
	put_flag(is_score(feedback->tag));
	put("\t");
	put_number(feedback->value);
	put("\t");
	put_number(feedback->tag->decimals);
	put("\t");
	put(feedback->tag->tag1);
	put("\t");
	put(feedback->tag->tag2);
	put("\t");
	put_flag(feedback->is_revoked);
	put("\t");
	if (feedback->is_revoked)
		put_time(feedback->time);
	else
		put("\\N");
	put("\timport\t");
	put_time(feedback->time);
	put("\n");
}

/* ---- All records of a kind ---- */

/* Says on stderr every tenth that is done, where it takes long enough to wait for. */
static void say_progress(const char *what, uint64_t done, uint64_t all)
{
	if (all >= 100000 && done % (all / 10) == 0)
		fprintf(stderr, "%s: %" PRIu64 " of %" PRIu64 "\n", what, done, all);
}

/* Two agents in five have feedback at all; who has most is spread over the whole list. */
static void put_all_feedback(const struct sample *sample, uint64_t per_agent)
{
	uint64_t total = sample->count * per_agent;
	uint32_t ranked = sample->count * 2 / 5 ? sample->count * 2 / 5 : 1;
	uint64_t pool = sample->count / 4 + 50;
	uint64_t printed = 0;
	double all = 0;
	double sum = 0;

	for (uint32_t rank = 0; rank < ranked; rank++)
		all += 1.0 / (rank + TAIL);
	for (uint32_t rank = 0; rank < ranked; rank++) {
		/* 2654435761 is prime and larger than any count: each rank gets its own agent. */
		uint32_t index = (uint32_t)((rank + 1) * UINT64_C(2654435761) % sample->count);
		uint64_t state = stream(sample, CLIENT, index);
		uint64_t until, clients;

		sum += 1.0 / (rank + TAIL);
		until = rank + 1 == ranked ? total : (uint64_t)((double)total * (sum / all));
		clients = (until - printed) * 4 / 5 + 1;
		if (clients > pool)
			clients = pool;
		for (uint64_t j = 0; printed < until; j++) {
			struct feedback feedback =
				draw_feedback(sample, index, j, state % pool, clients);

			printed++;
			if (sample->as_copy) {
				copy_feedback(sample, &feedback, printed);
				say_progress("feedback", printed, total);
			} else {
				put_feedback(sample, &feedback);
			}
		}
	}
}

static const struct weighted PAYMENT_STATES[] = { { "verified", 850 }, { "failed", 80 },
	{ "pending", 50 }, { "rejected", 20 } };

struct payment {
	uint32_t agent, payer;
	uint32_t millionths; /* of a USDC */
	const char *status;
	bool is_linked;
	int64_t time;
};

static struct payment draw_payment(const struct sample *sample, uint32_t number)
{
	uint64_t state = stream(sample, DRAWS_PAYMENT, number);
	struct payment payment;
	uint32_t a = draw(&state, sample->count);
	uint32_t b = draw(&state, sample->count);
	uint32_t largest = 10000;

	payment.agent = a < b ? a : b; /* who came early has been paid more often */
	payment.status = pick_weighted(&state, PAYMENT_STATES);
	while (largest < 500000000 && chance(&state, 550))
		largest *= 10; /* amounts of all sizes, most of them small */
	payment.millionths = 1 + draw(&state, largest);
	payment.payer = draw(&state, sample->count / 2 + 20);
	payment.is_linked = strcmp(payment.status, "rejected") && chance(&state, 950);
	payment.time = registered_at(sample, payment.agent) + 7200 + draw(&state, 5000000);
	return payment;
}

enum {
	MIN_PAYMENT = 10000
}; /* min_payment where areg.conf does not say it, in millionths of a USDC */

static const char FAILURE_REASON[] = "insufficient funds";

static void put_payment(const struct sample *sample, uint32_t number)
{
	struct payment payment = draw_payment(sample, number);
	const struct agent *agent = &sample->agents[payment.agent];

	put("{\"record\":\"payment\",\"tx_hash\":\"");
	put_hex(sample, PAYMENT_TX, number, 64);
	fprintf(out,
		"\",\"chain\":\"%s\",\"amount_usdc\":\"%" PRIu32 ".%06" PRIu32 "\",\"payer\":\"",
		CHAINS[agent->chain].name, payment.millionths / 1000000,
		payment.millionths % 1000000);
	put_address(sample, PAYER, payment.payer);
	put("\",\"payee\":\"");
	put_address(sample, OWNER, agent->owner);
	fprintf(out, "\",\"status\":\"%s\"", payment.status);
	if (!strcmp(payment.status, "failed"))
		fprintf(out, ",\"failure_reason\":\"%s\"", FAILURE_REASON);
	if (payment.is_linked)
		fprintf(out, ",\"agent_id\":%" PRIu32, agent->id);
	put(",\"created_at\":\"");
	put_time(payment.time);
	put("\"}\n");
}

static void copy_payment(const struct sample *sample, uint32_t number)
{
	struct payment payment = draw_payment(sample, number);
	const struct agent *agent = &sample->agents[payment.agent];

	fprintf(out, "%" PRIu64 "\t", (uint64_t)number + 1);
	put_hex(sample, PAYMENT_TX, number, 64);
	fprintf(out, "\t%s\t%" PRIu32 ".%06" PRIu32 "\t", CHAINS[agent->chain].name,
		payment.millionths / 1000000, payment.millionths % 1000000);
	put_address(sample, PAYER, payment.payer);
	put("\t");
	put_address(sample, OWNER, agent->owner);
	fprintf(out, "\t%s\t%s\t", payment.status,
		strcmp(payment.status, "failed") ? "\\N" : FAILURE_REASON);
	put_time(payment.time);
	put("\t");
	if (strcmp(payment.status, "pending"))
		put_time(payment.time);
	else
		put("\\N");
	fprintf(out, "\t%c\n", payment.millionths >= MIN_PAYMENT ? 't' : 'f');
}

static void copy_link(const struct sample *sample, uint32_t number)
{
	struct payment payment = draw_payment(sample, number);

	if (!payment.is_linked)
		return;
	fprintf(out, "%" PRIu64 "\t", (uint64_t)number + 1);
	put_agent_uuid(sample, payment.agent);
	put("\t");
	put_time(payment.time);
	put("\n");
}

static void put_all(struct sample *sample, uint64_t feedback, uint32_t payments)
{
	for (uint32_t i = 0; i < sample->count; i++)
		put_agent(sample, i);
	put_all_feedback(sample, feedback);
	for (uint32_t i = 0; i < payments; i++)
		put_payment(sample, i);
}

static void copy_all(struct sample *sample, uint64_t feedback, uint32_t payments)
{
	struct arena *arena = arena_new(1 << 20, 64 << 20);

	put(COPY_AGENTS);
	for (uint32_t i = 0; i < sample->count; i++) {
		copy_agent(sample, i, arena);
		say_progress("agents", i + 1, sample->count);
	}
	put("\\.\n");
	put(COPY_FEEDBACK);
	put_all_feedback(sample, feedback);
	put("\\.\n");
	put(COPY_PAYMENTS);
	for (uint32_t i = 0; i < payments; i++)
		copy_payment(sample, i);
	put("\\.\n");
	put(COPY_LINKS);
	for (uint32_t i = 0; i < payments; i++)
		copy_link(sample, i);
	put("\\.\n");
	arena_free(arena);
}

static const char USAGE[] =
	"Usage: gen-sample AGENTS [--feedback PER_AGENT] [--payments NUMBER] [--seed SEED]\n"
	"                  [--copy | --into DATABASE_URL]\n"
	"Prints sample agents, feedback and payments as JSON Lines for `aregctl import -`.\n"
	"  --feedback PER_AGENT  feedback records for each agent, on average (default 5)\n"
	"  --payments NUMBER     payments in all (default: half as many as agents)\n"
	"  --seed SEED           another sample of the same kind (default 1)\n"
	"  --copy                the same records as COPY of the tables themselves, for psql;\n"
	"                        what triggers derive from them is missing there\n"
	"  --into DATABASE_URL   load them that way into an empty registry, with all that\n"
	"                        triggers would have derived: a million agents in minutes.\n"
	"                        Needs a superuser; aregd must not run meanwhile\n"
	"The same arguments always print the same lines.\n";

/* A number from the command line; says what is wrong with it and exits otherwise. */
static uint64_t argument(const char *name, const char *text, uint64_t min, uint64_t max)
{
	char *end;
	unsigned long long number;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || errno || number < min || number > max) {
		fprintf(stderr,
			"gen-sample: %s: '%s' is not a number within %" PRIu64 "..%" PRIu64 "\n",
			name, text, min, max);
		exit(2);
	}
	return number;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "feedback", required_argument, NULL, 'f' },
		{ "payments", required_argument, NULL, 'p' },
		{ "seed", required_argument, NULL, 's' }, { "copy", no_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	struct sample sample = { .seed = 1 };
	uint64_t feedback = 5;
	uint64_t payments = UINT64_MAX;
	int option;

	out = stdout;
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (option) {
		case 'f':
			feedback = argument("--feedback", optarg, 0, FEEDBACK_MAX);
			break;
		case 'p':
			payments = argument("--payments", optarg, 0, UINT32_MAX);
			break;
		case 's':
			sample.seed = argument("--seed", optarg, 0, UINT64_MAX);
			break;
		case 'c':
			sample.as_copy = true;
			break;
		case 'h':
			put(USAGE);
			return 0;
		default:
			fputs(USAGE, stderr);
			return 2;
		}
	}
	if (optind + 1 != argc) {
		fputs(USAGE, stderr);
		return 2;
	}
	sample.count = (uint32_t)argument("AGENTS", argv[optind], 1, AGENTS_MAX);
	if (payments == UINT64_MAX)
		payments = sample.count / 2;
	sample.agents = calloc(sample.count, sizeof *sample.agents);
	if (!sample.agents) {
		fprintf(stderr, "gen-sample: no memory for %" PRIu32 " agents\n", sample.count);
		return 1;
	}

	if (sample.as_copy)
		copy_all(&sample, feedback, (uint32_t)payments);
	else
		put_all(&sample, feedback, (uint32_t)payments);
	free(sample.agents);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "gen-sample: cannot write: %s\n", strerror(errno));
		return 1;
	}
	return 0;
}
