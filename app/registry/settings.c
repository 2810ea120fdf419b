/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of areg.conf and what each may hold: the tables that lib/conf.c reads by, the checks of
 * single values, and the checks across keys. Read beside this: areg.conf(5), libpq's "Connection
 * Strings", RFC 3986 section 3 (parts of a URL).
 */
#include "app/registry/settings.h"

#include <errno.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "app/build.h"
#include "lib/cache.h"
#include "lib/conf.h"
#include "lib/json_in.h"

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"
#define MASK "****"

enum { PORT_MAX = 65535, ROLE_BYTES_MAX = 63 };

/* ---- Checks of single values, and how secrets are shown ---- */

struct url {
	size_t scheme_len;
	const char *user; /* what stands before an @ */
	size_t user_len; /* 0: nothing */
	const char *host; /* with the port */
	size_t host_len;
	const char *path; /* the rest: path, query, fragment */
};

/* Host name or address, an IPv6 one in brackets, and perhaps a port. */
static bool host_is_right(const char *host, size_t len)
{
	const char *allowed = LETTERS DIGITS ".-";
	size_t name = 0, end;
	long port = 0;

	if (len > 0 && *host == '[') {
		allowed = DIGITS "abcdefABCDEF:.";
		name = 1;
	}
	end = name + strspn(host + name, allowed);
	if (end == name || end > len)
		return false;
	if (name == 1 && host[end++] != ']')
		return false;
	if (end == len)
		return true;
	if (host[end++] != ':' || end == len || len - end > 5)
		return false;
	for (; end < len; end++) {
		if (strchr(DIGITS, host[end]) == NULL)
			return false;
		port = port * 10 + (host[end] - '0');
	}
	return port >= 1 && port <= PORT_MAX;
}

/* Takes an absolute URL apart. Returns NULL, or what is wrong with it. */
static const char *split_url(const char *text, struct url *url)
{
	/* RFC 3986 section 2: unreserved, reserved, and the percent sign of escapes. */
	static const char allowed[] = LETTERS DIGITS "-._~:/?#[]@!$&'()*+,;=%";
	size_t authority;
	const char *at;

	if (strncmp(text, "https://", 8) == 0)
		url->scheme_len = 8;
	else if (strncmp(text, "http://", 7) == 0)
		url->scheme_len = 7;
	else
		return "does not begin with https:// or http://";
	if (text[strspn(text, allowed)] != '\0')
		return "holds a character that a URL cannot";

	url->user = url->host = text + url->scheme_len;
	authority = strcspn(url->host, "/?#");
	url->path = url->host + authority;
	url->user_len = 0;
	at = memchr(url->host, '@', authority);
	if (at != NULL) {
		url->user_len = (size_t)(at - url->host);
		url->host = at + 1;
	}
	url->host_len = (size_t)(url->path - url->host);
	if (!host_is_right(url->host, url->host_len))
		return "has no valid host, or no valid port behind it";
	return NULL;
}

static const char *check_public_url(struct arena *arena, const char *text, const char **value)
{
	struct url url;
	const char *why = split_url(text, &url);

	(void)arena, (void)value;
	if (why != NULL)
		return why;
	if (url.user_len > 0)
		return "has a user name in it";
	if (strpbrk(url.path, "?#") != NULL)
		return "has a query or a fragment";
	if (text[strlen(text) - 1] == '/')
		return "ends in a slash";
	return NULL;
}

static const char *check_rpc_url(struct arena *arena, const char *text, const char **value)
{
	struct url url;
	const char *why = split_url(text, &url);

	(void)arena, (void)value;
	if (why == NULL && strchr(url.path, '#') != NULL)
		return "has a fragment";
	return why;
}

/* Providers put the key of an account into user name, path or query. */
static const char *mask_rpc_url(struct arena *arena, const char *text)
{
	struct url url;

	if (split_url(text, &url) != NULL)
		return MASK;
	return arena_printf(arena, "%.*s%.*s%s", (int)url.scheme_len, text, (int)url.host_len,
		url.host, url.user_len > 0 || strlen(url.path) > 1 ? "/" MASK : url.path);
}

static bool host_is_loopback(const struct url *url)
{
	static const char *const names[] = { "localhost", "127.0.0.1", "[::1]" };

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		const size_t len = strlen(names[i]);

		if (url->host_len >= len && strncmp(url->host, names[i], len) == 0 &&
			(url->host_len == len || url->host[len] == ':'))
			return true;
	}
	return false;
}

/* Without TLS only to this machine, where a relay may stand (Sentry Relay). */
static const char *check_sentry_dsn(struct arena *arena, const char *text, const char **value)
{
	struct url url;
	const char *why = split_url(text, &url);

	(void)arena, (void)value;
	if (why != NULL || (url.scheme_len != 8 && !host_is_loopback(&url)) || url.user_len == 0 ||
		strspn(url.user, LETTERS DIGITS) != url.user_len || url.path[0] != '/' ||
		url.path[1] == '\0' || url.path[1 + strspn(url.path + 1, LETTERS DIGITS)] != '\0')
		return "is not https://KEY@HOST/PROJECT";
	return NULL;
}

static const char *mask_sentry_dsn(struct arena *arena, const char *text)
{
	struct url url;

	if (split_url(text, &url) != NULL || url.user_len == 0)
		return MASK;
	return arena_printf(arena, "%.*s" MASK "@%s", (int)url.scheme_len, text, url.host);
}

/* Whether what a URI's escapes stand for is text: %0A would begin a line of its own where the
 * configuration is printed. */
static bool is_plain_text(const char *text)
{
	for (const char *c = text; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			return false;
	return utf8_valid(text, strlen(text));
}

/* In a URI, a slash ends the part with user and password, and the first @ their end: what stands behind
 * such a character in a password is taken for host, port or database, and would be logged as such. */
static bool splits_a_password(const char *text, const PQconninfoOption *options)
{
	if (strstr(text, "://") == NULL)
		return false;
	for (const PQconninfoOption *option = options; option->keyword != NULL; option++) {
		const char *value = option->val == NULL ? "" : option->val;

		if ((strcmp(option->keyword, "host") == 0 && *value != '\0' &&
			    strchr(value + 1, '@') != NULL) ||
			(strcmp(option->keyword, "port") == 0 &&
				value[strspn(value, DIGITS ",")] != '\0') ||
			(strcmp(option->keyword, "dbname") == 0 && strpbrk(value, "@/") != NULL))
			return true;
	}
	return false;
}

/* libpq's own message is not passed on: it can quote a part of a password. */
static const char *check_database_url(struct arena *arena, const char *text, const char **value)
{
	PQconninfoOption *options = PQconninfoParse(text, NULL);
	const char *why = NULL;

	(void)arena, (void)value;
	if (options == NULL)
		return "is neither a postgresql:// URI nor a list of key=value that libpq knows; in a "
		       "URI, percent-encode what is not a letter or digit in user and password "
		       "(%25 for %)";
	for (const PQconninfoOption *option = options; option->keyword != NULL; option++)
		if (option->val != NULL && !is_plain_text(option->val))
			why = "holds a control character, or what is not UTF-8, in a value";
	if (splits_a_password(text, options))
		why = "has a character in its user or password that must be percent-encoded: "
		      "%40 for @, %2F for /, %3A for :";
	PQconninfoFree(options);
	return why;
}

/* As key='value' pairs, because that is how libpq gives back what it understood. */
static const char *mask_database_url(struct arena *arena, const char *text)
{
	PQconninfoOption *options = PQconninfoParse(text, NULL);
	const char *shown = "";

	if (options == NULL)
		return MASK;
	for (const PQconninfoOption *option = options; option->keyword != NULL; option++) {
		char *quoted, *to;

		if (option->val == NULL)
			continue;
		quoted = to = arena_alloc(arena, 2 * strlen(option->val) + 1);
		for (const char *from = option->val; *from != '\0'; *to++ = *from++)
			if (*from == '\'' || *from == '\\')
				*to++ = '\\';
		shown = arena_printf(arena, "%s%s%s='%s'", shown, *shown == '\0' ? "" : " ",
			option->keyword,
			/* libpq marks the fields that a dialogue must hide. */
			strcmp(option->dispchar, "*") == 0 ? MASK : quoted);
	}
	PQconninfoFree(options);
	return *shown == '\0' ? "postgresql:///" : shown; /* all by libpq's defaults */
}

static const char *check_role(struct arena *arena, const char *text, const char **value)
{
	(void)arena, (void)value;
	if (strlen(text) > ROLE_BYTES_MAX)
		return "is longer than the 63 bytes of a name";
	return strncmp(text, "pg_", 3) == 0 || strcmp(text, "public") == 0
		       ? "is a name that PostgreSQL keeps for itself"
		       : NULL;
}

/* Only as a URI, which has no blank in it: several stand in one value. */
static const char *check_database_read(struct arena *arena, const char *text, const char **value)
{
	if (strncmp(text, "postgresql://", 13) != 0 && strncmp(text, "postgres://", 11) != 0)
		return "does not begin with postgresql://";
	return check_database_url(arena, text, value);
}

/* As a URI, in which libpq takes every key as a parameter. */
static const char *mask_database_read(struct arena *arena, const char *text)
{
	PQconninfoOption *options = PQconninfoParse(text, NULL);
	const char *shown = "postgresql://";

	if (options == NULL)
		return MASK;
	for (const PQconninfoOption *option = options; option->keyword != NULL; option++) {
		if (option->val == NULL)
			continue;
		shown = arena_printf(arena, "%s%s%s=", shown,
			strchr(shown, '?') == NULL ? "/?" : "&", option->keyword);
		if (strcmp(option->dispchar, "*") == 0) {
			shown = arena_printf(arena, "%s" MASK, shown);
			continue;
		}
		for (const char *at = option->val; *at != '\0'; at++)
			shown = arena_printf(arena,
				strchr(LETTERS DIGITS "-._~/", *at) != NULL ? "%s%c" : "%s%%%02X",
				shown, (unsigned char)*at);
	}
	PQconninfoFree(options);
	return shown;
}

/* Whether a blank stands between two servers, where a comma belongs. */
static bool lacks_a_comma(const char *servers)
{
	for (const char *at = servers; (at = strpbrk(at, " \t")) != NULL;) {
		const char *next = at + strspn(at, " \t");

		if (at > servers && at[-1] != ',' && *next != '\0' && *next != ',')
			return true;
		at = next;
	}
	return false;
}

static const char *check_memcached_servers(
	struct arena *arena, const char *text, const char **value)
{
	const char *why;

	if (lacks_a_comma(text))
		return "has a blank between two servers: write a comma there";
	if (*text == '\0' || strcmp(text, "none") == 0) {
		*value = "";
		return NULL;
	}
	return cache_servers_check(arena, text, &why) ? NULL
						      : arena_printf(arena, "is refused: %s", why);
}

static const char *check_secret_file(struct arena *arena, const char *text, const char **value)
{
	(void)arena;
	if (*text == '\0' || strcmp(text, "none") == 0) {
		*value = "";
		return NULL;
	}
	return *text == '/' ? NULL : "is neither none nor a path that begins with a slash";
}

static const char *check_rates(struct arena *arena, const char *text, const char **value)
{
	uint32_t row[TIERS];
	const char *why;

	(void)arena, (void)value;
	return rate_row_parse(text, row, &why) ? NULL : why;
}

static const char *check_quota_agents(struct arena *arena, const char *text, const char **value)
{
	int64_t row[TIERS];
	const char *why;

	(void)arena, (void)value;
	return quota_row_parse(text, QUOTA_AGENTS, row, &why) ? NULL : why;
}

static const char *check_quota_bytes(struct arena *arena, const char *text, const char **value)
{
	int64_t row[TIERS];
	const char *why;

	(void)arena, (void)value;
	return quota_row_parse(text, QUOTA_BYTES, row, &why) ? NULL : why;
}

/* As amounts of payments are written: that is how they are compared, without rounding. */
static const char *check_min_payment(struct arena *arena, const char *text, const char **value)
{
	size_t whole = strspn(text, "0123456789"), fraction = 0;

	(void)arena, (void)value;
	if (text[whole] == '.')
		fraction = strspn(text + whole + 1, "0123456789");
	if (whole == 0 || whole > 18 || fraction > 6 ||
		text[whole + (text[whole] == '.') + fraction] != '\0' ||
		(text[whole] == '.' && fraction == 0))
		return "is not an amount of USDC such as 0.01, with at most 6 digits behind the "
		       "point";
	return NULL;
}

static const char *check_socket(struct arena *arena, const char *text, const char **value)
{
	(void)arena;
	if (*text == '\0' || strcmp(text, "none") == 0) {
		*value = "";
		return NULL;
	}
	if (*text != '/')
		return "is neither none nor a path that begins with a slash";
	return strlen(text) < sizeof((struct sockaddr_un){ 0 }).sun_path
		       ? NULL
		       : "is longer than the path of a socket may be";
}

static const char *check_log_file(struct arena *arena, const char *text, const char **value)
{
	(void)arena, (void)value;
	return *text == '/' || strcmp(text, "stderr") == 0
		       ? NULL
		       : "is neither stderr nor a path that begins with a slash";
}

static const char *check_environment(struct arena *arena, const char *text, const char **value)
{
	(void)arena, (void)value;
	return strlen(text) <= 64 && text[strspn(text, LETTERS DIGITS "._-")] == '\0'
		       ? NULL
		       : "is not 1 to 64 letters, digits, dots, underscores and hyphens";
}

static const char *check_alias(struct arena *arena, const char *text, const char **value)
{
	(void)arena, (void)value;
	return strlen(text) <= CONF_NAME_MAX && text[strspn(text, LETTERS DIGITS "_-")] == '\0'
		       ? NULL
		       : "is not 1 to 32 letters, digits, underscores and hyphens";
}

static const char *check_address(struct arena *arena, const char *text, const char **value)
{
	char canonical[ETH_ADDRESS_LEN + 1];
	const char *why;

	if (!eth_address_parse(text, canonical, &why))
		return arena_printf(arena, "is no address: %s", why);
	if (strspn(canonical + 2, "0") == ETH_ADDRESS_LEN - 2)
		return "is the address of zero, where no contract can be";
	*value = arena_strdup(arena, canonical);
	return NULL;
}

/* ---- The keys ---- */

static const char *const authorities[] = { "registry", "chain", NULL };
static const char *const log_formats[] = { "json", "text", NULL };
static const char *const log_levels[] = { "debug", "info", "warn", "error", NULL };

#define MIB (INT64_C(1) << 20)
enum { MS = 1, SECOND = 1000 * MS, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE };

#define AT(member) .offset = offsetof(struct settings, member)
static const struct conf_key top_keys[] = {
	{ "database_url", CONF_TEXT, AT(database_url), .required = true,
		.check = check_database_url, .mask = mask_database_url,
		.help = "PostgreSQL: a URI or key=value pairs, as libpq takes them." },
	{ "runtime_role", CONF_TEXT, AT(runtime_role), "areg", .check = check_role,
		.help = "The role of PostgreSQL that aregd runs as: aregctl migrate grants to it." },
	{ "database_connect_timeout", CONF_DURATION, AT(database_connect_timeout_ms), "2s", 10 * MS,
		5 * MINUTE, .help = "How long to wait for a connection to PostgreSQL." },
	{ "database_statement_timeout", CONF_DURATION, AT(database_statement_timeout_ms), "5s",
		10 * MS, 1 * HOUR, .help = "How long one SQL statement may take." },
	{ "database_read", CONF_LIST, AT(database_read), "", .check = check_database_read,
		.mask = mask_database_read, .may_be_empty = true,
		.help = "Replicas of PostgreSQL that may answer reads: URIs between blanks." },
	{ "database_read_timeout", CONF_DURATION, AT(database_read_timeout_ms), "1s", 10 * MS,
		5 * MINUTE, .help = "How long a replica may take, to connect and to answer." },
	{ "database_request_ids", CONF_BOOL, AT(database_request_ids), "off",
		.help = "Whether PostgreSQL's application_name carries a request's id." },
	{ "memcached_servers", CONF_TEXT, AT(memcached_servers), "127.0.0.1:11211",
		.check = check_memcached_servers, .may_be_empty = true,
		.help = "Servers of memcached between commas, or none." },
	{ "cache_secret_file", CONF_TEXT, AT(cache_secret_file), AREG_CACHE_SECRET_DEFAULT,
		.check = check_secret_file, .may_be_empty = true,
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
		.check = check_rates,
		.help = "Registrations and updates a minute: anonymous, free, pro, enterprise." },
	{ "limit_feedback", CONF_TEXT, AT(rate_texts[RATE_FEEDBACK]), "- 100 600 6000",
		.check = check_rates, .help = "The same for feedback and validations." },
	{ "limit_payments", CONF_TEXT, AT(rate_texts[RATE_PAYMENTS]), "- 50 500 5000",
		.check = check_rates, .help = "The same for payments." },
	{ "limit_search", CONF_TEXT, AT(rate_texts[RATE_SEARCH]), "60 300 1500 15000",
		.check = check_rates, .help = "The same for searches and lists." },
	{ "limit_read", CONF_TEXT, AT(rate_texts[RATE_READ]), "120 1000 5000 50000",
		.check = check_rates, .help = "The same for all other reads." },
	{ "limit_sign_in", CONF_TEXT, AT(rate_texts[RATE_SIGN_IN]), "10 10 10 10",
		.check = check_rates, .help = "The same for signing in." },
	{ "quota_agents", CONF_TEXT, AT(quota_texts[QUOTA_AGENTS]), "1000 10000 100000",
		.check = check_quota_agents,
		.help = "Agents that a user registers in all: free, pro, enterprise; 0: no limit." },
	{ "quota_bytes", CONF_TEXT, AT(quota_texts[QUOTA_BYTES]), "16m 256m 4g",
		.check = check_quota_bytes,
		.help = "Bytes of registration files and metadata that a user stores, likewise." },
	{ "hot_cache_size", CONF_SIZE, AT(hot_cache_bytes), "64m", 1 * MIB, 64 * 1024 * MIB,
		.help = "Memory shared by the processes of this host: callers, limits." },
	{ "control_socket", CONF_TEXT, AT(control_socket), AREG_RUN_DIR "/control.sock",
		.check = check_socket, .may_be_empty = true,
		.help = "Where aregctl asks the master: a path, or none." },
	{ "health_socket", CONF_TEXT, AT(health_socket), AREG_RUN_DIR "/health.sock",
		.check = check_socket, .may_be_empty = true,
		.help = "Where nginx asks for /health and /metrics: a path, or none." },
	{ "auto_feedback", CONF_BOOL, AT(auto_feedback), "on",
		.help = "Whether a payment that settles gives its agent feedback: on or off." },
	{ "min_payment", CONF_TEXT, AT(min_payment), "0.01", .check = check_min_payment,
		.help = "USDC that a payment must reach to count for trust." },
	{ "log_file", CONF_TEXT, AT(log_file), "stderr", .check = check_log_file,
		.help = "Where the log goes: a path, or stderr." },
	{ "log_format", CONF_WORD, AT(log_format), "json", .words = log_formats,
		.help = "json or text." },
	{ "log_level", CONF_WORD, AT(log_level), "info", .words = log_levels,
		.help = "The least that is logged: debug, info, warn or error." },
	{ "slow_request", CONF_DURATION, AT(slow_request_ms), "1s", 0, 1 * HOUR,
		.help = "Requests that take that long are logged as slow; 0 none." },
	{ "public_url", CONF_TEXT, AT(public_url), "http://localhost:8080",
		.check = check_public_url,
		.help = "Where clients reach this registry, without a slash at the end." },
	{ "environment", CONF_TEXT, AT(environment), "production", .check = check_environment,
		.help = "Name of this installation." },
	{ "sentry_dsn", CONF_TEXT, AT(sentry_dsn), .check = check_sentry_dsn,
		.mask = mask_sentry_dsn,
		.help = "Where reports of errors go: the DSN of a Sentry project." },
	{ "sentry_per_minute", CONF_INT, AT(sentry_per_minute), "30", 1, 10000,
		.help = "Reports sent a minute at most; equal ones are sent as one." },
};
#undef AT

#define AT(member) .offset = offsetof(struct chain, member)
static const struct conf_key chain_keys[] = {
	{ "chain_id", CONF_INT64, AT(chain_id), NULL, 1, (INT64_C(1) << 53) - 1, .required = true,
		.help = "Number of the chain (EIP-155)." },
	{ "aliases", CONF_LIST, AT(aliases), "", .check = check_alias, .may_be_empty = true,
		.help = "Other names that callers may use." },
	{ "identity_registry", CONF_TEXT, AT(identity_registry), .required = true,
		.check = check_address, .help = "Address of the identity registry." },
	{ "reputation_registry", CONF_TEXT, AT(reputation_registry), .check = check_address,
		.help = "Address of the reputation registry." },
	{ "validation_registry", CONF_TEXT, AT(validation_registry), .check = check_address,
		.help = "Address of the validation registry." },
	{ "first_block", CONF_INT64, AT(first_block), NULL, 0, INT64_MAX,
		.help = "Block in which the identity registry was deployed." },
	{ "authority", CONF_WORD, AT(authority), "registry", .words = authorities,
		.help = "Who hands out agent ids: registry. For a later version: chain." },
	{ "rpc_url", CONF_TEXT, AT(rpc_url), .check = check_rpc_url, .mask = mask_rpc_url,
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

static void check_chains(struct conf *conf, const struct chain *chains)
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
			abort(); /* check_quota_agents() or check_quota_bytes() let it pass */

	for (size_t class = 0; class < RATE_CLASSES; class ++)
		if (settings->rate_texts[class] != NULL &&
			!rate_row_parse(settings->rate_texts[class], settings->rates[class], &why))
			abort(); /* check_rates() let it pass */
}

static void check_replicas(struct conf *conf, const struct settings *settings)
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
	check_replicas(&conf, settings);
	check_chains(&conf, settings->chains);
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
	return mask_database_url(arena, settings->database_url);
}

void settings_print(const struct settings *settings, FILE *out)
{
	conf_print(&schema.top, settings, out);
	for (size_t i = 0; i < settings->chain_count; i++) {
		fprintf(out, "\n[%s %s]\n", schema.kind, settings->chains[i].name);
		conf_print(&schema.section, &settings->chains[i], out);
	}
}
