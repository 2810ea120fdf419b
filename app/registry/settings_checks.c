/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a single key of areg.conf may hold. Read beside this: areg.conf(5), libpq's "Connection Strings",
 * RFC 3986 section 3 (parts of a URL).
 */
#include "app/registry/settings_checks.h"

#include <errno.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "app/registry/limits.h"
#include "lib/cache.h"
#include "lib/conf.h"
#include "lib/eth.h"
#include "lib/json_in.h"

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"
#define MASK "****"

enum { PORT_MAX = 65535, ROLE_BYTES_MAX = 63 };

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

const char *settings_check_public_url(struct arena *arena, const char *text, const char **value)
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

const char *settings_check_rpc_url(struct arena *arena, const char *text, const char **value)
{
	struct url url;
	const char *why = split_url(text, &url);

	(void)arena, (void)value;
	if (why == NULL && strchr(url.path, '#') != NULL)
		return "has a fragment";
	return why;
}

/* Providers put the key of an account into user name, path or query. */
const char *settings_mask_rpc_url(struct arena *arena, const char *text)
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
const char *settings_check_sentry_dsn(struct arena *arena, const char *text, const char **value)
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

const char *settings_mask_sentry_dsn(struct arena *arena, const char *text)
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
const char *settings_check_database_url(struct arena *arena, const char *text, const char **value)
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
const char *settings_mask_database_url(struct arena *arena, const char *text)
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

const char *settings_check_role(struct arena *arena, const char *text, const char **value)
{
	(void)arena, (void)value;
	if (strlen(text) > ROLE_BYTES_MAX)
		return "is longer than the 63 bytes of a name";
	return strncmp(text, "pg_", 3) == 0 || strcmp(text, "public") == 0
		       ? "is a name that PostgreSQL keeps for itself"
		       : NULL;
}

/* Only as a URI, which has no blank in it: several stand in one value. */
const char *settings_check_database_read(struct arena *arena, const char *text, const char **value)
{
	if (strncmp(text, "postgresql://", 13) != 0 && strncmp(text, "postgres://", 11) != 0)
		return "does not begin with postgresql://";
	return settings_check_database_url(arena, text, value);
}

/* As a URI, in which libpq takes every key as a parameter. */
const char *settings_mask_database_read(struct arena *arena, const char *text)
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

const char *settings_check_memcached_servers(
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

const char *settings_check_secret_file(struct arena *arena, const char *text, const char **value)
{
	(void)arena;
	if (*text == '\0' || strcmp(text, "none") == 0) {
		*value = "";
		return NULL;
	}
	return *text == '/' ? NULL : "is neither none nor a path that begins with a slash";
}

const char *settings_check_rates(struct arena *arena, const char *text, const char **value)
{
	uint32_t row[TIERS];
	const char *why;

	(void)arena, (void)value;
	return rate_row_parse(text, row, &why) ? NULL : why;
}

const char *settings_check_quota_agents(struct arena *arena, const char *text, const char **value)
{
	int64_t row[TIERS];
	const char *why;

	(void)arena, (void)value;
	return quota_row_parse(text, QUOTA_AGENTS, row, &why) ? NULL : why;
}

const char *settings_check_quota_bytes(struct arena *arena, const char *text, const char **value)
{
	int64_t row[TIERS];
	const char *why;

	(void)arena, (void)value;
	return quota_row_parse(text, QUOTA_BYTES, row, &why) ? NULL : why;
}

/* As amounts of payments are written: that is how they are compared, without rounding. */
const char *settings_check_min_payment(struct arena *arena, const char *text, const char **value)
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

const char *settings_check_socket(struct arena *arena, const char *text, const char **value)
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

const char *settings_check_log_file(struct arena *arena, const char *text, const char **value)
{
	(void)arena, (void)value;
	return *text == '/' || strcmp(text, "stderr") == 0
		       ? NULL
		       : "is neither stderr nor a path that begins with a slash";
}

const char *settings_check_environment(struct arena *arena, const char *text, const char **value)
{
	(void)arena, (void)value;
	return strlen(text) <= 64 && text[strspn(text, LETTERS DIGITS "._-")] == '\0'
		       ? NULL
		       : "is not 1 to 64 letters, digits, dots, underscores and hyphens";
}

const char *settings_check_alias(struct arena *arena, const char *text, const char **value)
{
	(void)arena, (void)value;
	return strlen(text) <= CONF_NAME_MAX && text[strspn(text, LETTERS DIGITS "_-")] == '\0'
		       ? NULL
		       : "is not 1 to 32 letters, digits, underscores and hyphens";
}

const char *settings_check_address(struct arena *arena, const char *text, const char **value)
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
