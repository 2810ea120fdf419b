/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of keys that lib/conf.c reads areg.conf by, and the checks across keys; settings_checks.c
 * checks what a single key holds. Read beside this: areg.conf(5).
 */
#include "app/registry/settings.h"

#include <errno.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/build.h"
#include "app/registry/settings_checks.h"
#include "lib/conf.h"

/* ---- The keys ---- */

static const char *const authorities[] = { "registry", "chain", NULL };
static const char *const log_formats[] = { "json", "text", NULL };
static const char *const log_levels[] = { "debug", "info", "warn", "error", NULL };

#define MIB (INT64_C(1) << 20)
enum { MS = 1, SECOND = 1000 * MS, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE };

#define AT(member) .offset = offsetof(struct settings, member)
static const struct conf_key top_keys[] = {
	{ "database_url", CONF_TEXT, AT(database_url), .required = true,
		.check = settings_check_database_url, .mask = settings_mask_database_url,
		.help = "PostgreSQL: a URI or key=value pairs, as libpq takes them." },
	{ "runtime_role", CONF_TEXT, AT(runtime_role), "areg", .check = settings_check_role,
		.help = "The role of PostgreSQL that aregd runs as: aregctl migrate grants to it." },
	{ "database_connect_timeout", CONF_DURATION, AT(database_connect_timeout_ms), "2s", 10 * MS,
		5 * MINUTE, .help = "How long to wait for a connection to PostgreSQL." },
	{ "database_statement_timeout", CONF_DURATION, AT(database_statement_timeout_ms), "5s",
		10 * MS, 1 * HOUR, .help = "How long one SQL statement may take." },
	{ "database_read", CONF_LIST, AT(database_read), "", .check = settings_check_database_read,
		.mask = settings_mask_database_read, .may_be_empty = true,
		.help = "Replicas of PostgreSQL that may answer reads: URIs between blanks." },
	{ "database_read_timeout", CONF_DURATION, AT(database_read_timeout_ms), "1s", 10 * MS,
		5 * MINUTE, .help = "How long a replica may take, to connect and to answer." },
	{ "database_request_ids", CONF_BOOL, AT(database_request_ids), "off",
		.help = "Whether PostgreSQL's application_name carries a request's id." },
	{ "memcached_servers", CONF_TEXT, AT(memcached_servers), "127.0.0.1:11211",
		.check = settings_check_memcached_servers, .may_be_empty = true,
		.help = "Servers of memcached between commas, or none." },
	{ "cache_secret_file", CONF_TEXT, AT(cache_secret_file), AREG_CACHE_SECRET_DEFAULT,
		.check = settings_check_secret_file, .may_be_empty = true,
		.help = "What seals answers in memcached, the same on all hosts: a path, or none." },
	{ "cache_timeout", CONF_DURATION, AT(cache_timeout_ms), "50ms", 1 * MS, 10 * SECOND,
		.help = "How long to wait for memcached." },
	{ "cache_retry", CONF_DURATION, AT(cache_retry_ms), "2s", 10 * MS, 1 * HOUR,
		.help = "How long a memcached that failed is left alone." },
	{ "workers", CONF_INT, AT(workers), "4", 1, 1024,
		.help = "Worker processes; each serves one request at a time." },
	{ "feedback_writers", CONF_INT, AT(feedback_writers), "8", 0, WRITERS_MOST,
		.help = "Processes that store feedback together, at most: one for every 8 workers." },
	{ "feedback_per_client_per_day", CONF_INT, AT(feedback_per_client_per_day), "20", 0,
		1000000,
		.help = "Feedback that one client may give one agent on a day (UTC); 0: no limit." },
	{ "event_retention_days", CONF_INT, AT(event_retention_days), "90", 0, 36500,
		.help = "Days for which GET /events tells of a change; 0: for ever." },
	{ "max_requests", CONF_INT64, AT(max_requests), "100000", 0, 1000000000,
		.help = "Requests after which a worker is replaced; 0 never." },
	{ "request_timeout", CONF_DURATION, AT(request_timeout_ms), "30s", 100 * MS, 1 * HOUR,
		.help = "How long a request may take before its worker is replaced." },
	{ "shutdown_timeout", CONF_DURATION, AT(shutdown_timeout_ms), "30s", 100 * MS, 1 * HOUR,
		.help = "How long requests may go on after SIGTERM." },
	{ "limit_register", CONF_TEXT, AT(rate_texts[RATE_REGISTER]), "- 10 60 600",
		.check = settings_check_rates,
		.help = "Registrations and updates a minute: anonymous, free, pro, enterprise." },
	{ "limit_feedback", CONF_TEXT, AT(rate_texts[RATE_FEEDBACK]), "- 100 600 6000",
		.check = settings_check_rates, .help = "The same for feedback and validations." },
	{ "limit_payments", CONF_TEXT, AT(rate_texts[RATE_PAYMENTS]), "- 50 500 5000",
		.check = settings_check_rates, .help = "The same for payments." },
	{ "limit_search", CONF_TEXT, AT(rate_texts[RATE_SEARCH]), "60 300 1500 15000",
		.check = settings_check_rates, .help = "The same for searches and lists." },
	{ "limit_read", CONF_TEXT, AT(rate_texts[RATE_READ]), "120 1000 5000 50000",
		.check = settings_check_rates, .help = "The same for all other reads." },
	{ "limit_sign_in", CONF_TEXT, AT(rate_texts[RATE_SIGN_IN]), "10 10 10 10",
		.check = settings_check_rates, .help = "The same for signing in." },
	{ "quota_agents", CONF_TEXT, AT(quota_texts[QUOTA_AGENTS]), "1000 10000 100000",
		.check = settings_check_quota_agents,
		.help = "Agents that a user registers in all: free, pro, enterprise; 0: no limit." },
	{ "quota_bytes", CONF_TEXT, AT(quota_texts[QUOTA_BYTES]), "16m 256m 4g",
		.check = settings_check_quota_bytes,
		.help = "Bytes of registration files and metadata that a user stores, likewise." },
	{ "hot_cache_size", CONF_SIZE, AT(hot_cache_bytes), "64m", 1 * MIB, 64 * 1024 * MIB,
		.help = "Memory shared by the processes of this host: callers, limits." },
	{ "control_socket", CONF_TEXT, AT(control_socket), AREG_RUN_DIR "/control.sock",
		.check = settings_check_socket, .may_be_empty = true,
		.help = "Where aregctl asks the master: a path, or none." },
	{ "health_socket", CONF_TEXT, AT(health_socket), AREG_RUN_DIR "/health.sock",
		.check = settings_check_socket, .may_be_empty = true,
		.help = "Where nginx asks for /health and /metrics: a path, or none." },
	{ "auto_feedback", CONF_BOOL, AT(auto_feedback), "on",
		.help = "Whether a payment that settles gives its agent feedback: on or off." },
	{ "min_payment", CONF_TEXT, AT(min_payment), "0.01", .check = settings_check_min_payment,
		.help = "USDC that a payment must reach to count for trust." },
	{ "log_file", CONF_TEXT, AT(log_file), "stderr", .check = settings_check_log_file,
		.help = "Where the log goes: a path, or stderr." },
	{ "log_format", CONF_WORD, AT(log_format), "json", .words = log_formats,
		.help = "json or text." },
	{ "log_level", CONF_WORD, AT(log_level), "info", .words = log_levels,
		.help = "The least that is logged: debug, info, warn or error." },
	{ "slow_request", CONF_DURATION, AT(slow_request_ms), "1s", 0, 1 * HOUR,
		.help = "Requests that take that long are logged as slow; 0 none." },
	{ "public_url", CONF_TEXT, AT(public_url), "http://localhost:8080",
		.check = settings_check_public_url,
		.help = "Where clients reach this registry, without a slash at the end." },
	{ "environment", CONF_TEXT, AT(environment), "production",
		.check = settings_check_environment, .help = "Name of this installation." },
	{ "sentry_dsn", CONF_TEXT, AT(sentry_dsn), .check = settings_check_sentry_dsn,
		.mask = settings_mask_sentry_dsn,
		.help = "Where reports of errors go: the DSN of a Sentry project." },
	{ "sentry_per_minute", CONF_INT, AT(sentry_per_minute), "30", 1, 10000,
		.help = "Reports sent a minute at most; equal ones are sent as one." },
};
#undef AT

#define AT(member) .offset = offsetof(struct chain, member)
static const struct conf_key chain_keys[] = {
	{ "chain_id", CONF_INT64, AT(chain_id), NULL, 1, (INT64_C(1) << 53) - 1, .required = true,
		.help = "Number of the chain (EIP-155)." },
	{ "aliases", CONF_LIST, AT(aliases), "", .check = settings_check_alias,
		.may_be_empty = true, .help = "Other names that callers may use." },
	{ "identity_registry", CONF_TEXT, AT(identity_registry), .required = true,
		.check = settings_check_address, .help = "Address of the identity registry." },
	{ "reputation_registry", CONF_TEXT, AT(reputation_registry),
		.check = settings_check_address, .help = "Address of the reputation registry." },
	{ "validation_registry", CONF_TEXT, AT(validation_registry),
		.check = settings_check_address, .help = "Address of the validation registry." },
	{ "first_block", CONF_INT64, AT(first_block), NULL, 0, INT64_MAX,
		.help = "Block in which the identity registry was deployed." },
	{ "authority", CONF_WORD, AT(authority), "registry", .words = authorities,
		.help = "Who hands out agent ids: registry. For a later version: chain." },
	{ "rpc_url", CONF_TEXT, AT(rpc_url), .check = settings_check_rpc_url,
		.mask = settings_mask_rpc_url,
		.help = "JSON-RPC node: for a later version; aregd -t refuses it." },
};
#undef AT

/* What the environment of the service being replaced leaves unsaid of its four chains. */
static const char *const ethereum_facts[] = { "chain_id", "1", NULL };
static const char *const base_facts[] = { "chain_id", "8453", NULL };
static const char *const sepolia_facts[] = { "chain_id", "11155111", NULL };
static const char *const base_sepolia_facts[] = { "chain_id", "84532", "aliases", "baseSepolia",
	NULL };

#define REGISTRIES(word, chain, facts) \
	{ "ERC8004_" word "_IDENTITY_REGISTRY", chain, "identity_registry", facts }, \
	{ \
		"ERC8004_" word "_REPUTATION_REGISTRY", chain, "reputation_registry", facts \
	}

static const struct conf_alias aliases[] = {
	{ "DATABASE_URL", NULL, "database_url", NULL },
	{ "MEMCACHED_SERVERS", NULL, "memcached_servers", NULL },
	{ "SENTRY_DSN", NULL, "sentry_dsn", NULL },
	{ "ENVIRONMENT", NULL, "environment", NULL },
	REGISTRIES("ETH", "ethereum", ethereum_facts),
	REGISTRIES("BASE", "base", base_facts),
	REGISTRIES("SEPOLIA", "sepolia", sepolia_facts),
	REGISTRIES("BASE_SEPOLIA", "base-sepolia", base_sepolia_facts),
};

/* What scripts and tests export with the same prefix. */
static const char *const other_variables[] = { "AREG_CONF", "AREG_URL", "AREG_TLS_URL",
	"AREG_API_KEY", "AREG_WALLET", "AREG_TEST_*", NULL };

#define COUNT(table) (sizeof(table) / sizeof(table)[0])
static const struct conf_schema schema = {
	.top = { top_keys, COUNT(top_keys) },
	.kind = "chain",
	.section = { chain_keys, COUNT(chain_keys) },
	.section_size = sizeof(struct chain),
	.prefix = "AREG_",
	.aliases = aliases,
	.alias_count = COUNT(aliases),
	.other_variables = other_variables,
};

/* ---- Checks across keys ---- */

static bool chain_has_name(const struct chain *chain, const char *name)
{
	if (strcmp(chain->name, name) == 0)
		return true;
	for (const char *const *alias = chain->aliases; *alias != NULL; alias++)
		if (strcmp(*alias, name) == 0)
			return true;
	return false;
}

/* Names by which both chains could be meant. */
static void check_names_apart(struct conf *conf, const char *where, const struct chain *chain,
	const struct chain *earlier)
{
	if (chain_has_name(earlier, chain->name))
		conf_fault(conf, where, "%s is an alias of [chain %s]", chain->name, earlier->name);
	for (const char *const *alias = chain->aliases; *alias != NULL; alias++)
		if (chain_has_name(earlier, *alias))
			conf_fault(conf, where, "aliases: %s is a name or an alias of [chain %s]",
				*alias, earlier->name);
}

static void settings_check_chains(struct conf *conf, const struct chain *chains)
{
	const struct conf_section *section = conf->sections;

	for (size_t i = 0; section != NULL; i++, section = section->next) {
		const struct chain *chain = &chains[i];
		const char *aliases_at = conf_set_at(section, "aliases");

		/* An agent's id may be eip155:CHAIN_ID:…, where others have a chain's name. */
		if (chain_has_name(chain, "eip155"))
			conf_fault(conf, section->where, "no chain can be called eip155");
		for (const struct chain *earlier = chains; earlier < chain; earlier++) {
			if (chain->chain_id != 0 && chain->chain_id == earlier->chain_id)
				conf_fault(conf, conf_set_at(section, "chain_id"),
					"chain_id: %llu is the id of [chain %s]",
					(unsigned long long)chain->chain_id, earlier->name);
			check_names_apart(conf, aliases_at != NULL ? aliases_at : section->where,
				chain, earlier);
		}
	}
}

/* The rows as numbers. A row that was refused is still the default. */
static void collect_limits(struct settings *settings)
{
	const char *why;

	for (enum quota_kind kind = 0; kind < QUOTAS; kind++)
		if (settings->quota_texts[kind] != NULL &&
			!quota_row_parse(
				settings->quota_texts[kind], kind, settings->quotas[kind], &why))
			/* Settings_check_quota_agents() or settings_check_quota_bytes() let it
			 * pass. */
			abort();

	for (size_t class = 0; class < RATE_CLASSES; class ++)
		if (settings->rate_texts[class] != NULL &&
			!rate_row_parse(settings->rate_texts[class], settings->rates[class], &why))
			abort(); /* settings_check_rates() let it pass */
}

static void settings_check_replicas(struct conf *conf, const struct settings *settings)
{
	const size_t count = settings_replicas(settings);

	if (count > REPLICAS_MAX)
		conf_fault(conf, conf_set_at(&conf->top, "database_read"),
			"database_read: names %zu replicas where %d are the most", count,
			REPLICAS_MAX);
}

static const struct chain *collect_chains(const struct conf *conf)
{
	struct chain *chains = arena_alloc(conf->arena, conf->section_count * sizeof *chains);
	struct chain *chain = chains;

	for (const struct conf_section *section = conf->sections; section != NULL;
		section = section->next, chain++) {
		memcpy(chain, section->values, sizeof *chain);
		chain->name = section->name;
	}
	return chains;
}

/* ---- Loading, finding, printing ---- */

static void collect_faults(const struct conf *conf, struct settings_faults *faults)
{
	struct settings_fault *to = arena_alloc(conf->arena, conf->fault_count * sizeof *to);

	faults->count = conf->fault_count;
	faults->list = to;
	for (const struct conf_fault *fault = conf->faults; fault != NULL; fault = fault->next)
		*to++ = (struct settings_fault){ fault->where, fault->why };
}

static bool settings_read(struct arena *arena, const char *path, bool may_be_absent,
	struct settings *settings, struct settings_faults *faults)
{
	struct conf conf;

	path = arena_strdup(arena, path);
	*settings = (struct settings){ .source = path };
	conf_init(&conf, arena, &schema, settings, path);

	if (conf_read_file(&conf, path)) {
		conf_read_environment(&conf, environ);
		conf_check_required(&conf);
	} else if (may_be_absent && errno == ENOENT) {
		settings->source = "the environment";
		conf.top.where = arena_printf(arena, "%s (no such file)", path);
		conf_read_environment(&conf, environ);
		conf_check_required(&conf);
	} else {
		/* What is missing is in this file, most likely. */
		conf_fault(&conf, path, "cannot be read: %s", strerror(errno));
		conf_read_environment(&conf, environ);
	}
	collect_limits(settings);
	settings->chains = collect_chains(&conf);
	settings->chain_count = conf.section_count;
	settings_check_replicas(&conf, settings);
	settings_check_chains(&conf, settings->chains);
	collect_faults(&conf, faults);
	return faults->count == 0;
}

bool settings_load(struct arena *arena, const char *path, struct settings *settings,
	struct settings_faults *faults)
{
	if (path == NULL)
		path = getenv("AREG_CONF");
	if (path == NULL || *path == '\0')
		return settings_load_installed(arena, AREG_CONF_DEFAULT, settings, faults);
	return settings_read(arena, path, false, settings, faults);
}

bool settings_load_installed(struct arena *arena, const char *path, struct settings *settings,
	struct settings_faults *faults)
{
	return settings_read(arena, path, true, settings, faults);
}

const struct chain *settings_chain(const struct settings *settings, const char *name)
{
	for (size_t i = 0; i < settings->chain_count; i++)
		if (chain_has_name(&settings->chains[i], name))
			return &settings->chains[i];
	return NULL;
}

const struct chain *settings_chain_by_id(const struct settings *settings, uint64_t chain_id)
{
	for (size_t i = 0; i < settings->chain_count; i++)
		if (settings->chains[i].chain_id == chain_id)
			return &settings->chains[i];
	return NULL;
}

size_t settings_replicas(const struct settings *settings)
{
	size_t count = 0;

	while (settings->database_read != NULL && settings->database_read[count] != NULL)
		count++;
	return count;
}

const char *settings_database(struct arena *arena, const struct settings *settings)
{
	return settings_mask_database_url(arena, settings->database_url);
}

void settings_print(const struct settings *settings, FILE *out)
{
	conf_print(&schema.top, settings, out);
	for (size_t i = 0; i < settings->chain_count; i++) {
		fprintf(out, "\n[%s %s]\n", schema.kind, settings->chains[i].name);
		conf_print(&schema.section, &settings->chains[i], out);
	}
}
