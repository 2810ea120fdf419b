/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sign-in texts, written and read line by line. Every line is checked against its rule of the
 * grammar, so that nothing can hide in a text that a person agreed to. Read beside this: EIP-4361
 * (section "Message Format"), RFC 3986.
 */
#include "lib/siwe.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json_in.h"
#include "lib/rfc3339.h"

enum { TEXT_MAX = 4096 }; /* bytes */

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"
#define UNRESERVED LETTERS DIGITS "-._~"
#define SUB_DELIMS "!$&'()*+,;="
#define RESERVED ":/?#[]@" SUB_DELIMS

static const char greeting[] = " wants you to sign in with your Ethereum account:";

const char *siwe_write(struct arena *arena, const struct siwe *siwe)
{
	bool has_statement = siwe->statement != NULL, ends = siwe->expires_at != NULL;
	char address[ETH_ADDRESS_LEN + 1];

	eth_address_checksum(siwe->address, address);
	return arena_printf(arena,
		"%s%s\n%s\n\n%s%s\nURI: %s\nVersion: 1\nChain ID: %llu\nNonce: %s\n"
		"Issued At: %s%s%s",
		siwe->domain, greeting, address, has_statement ? siwe->statement : "",
		has_statement ? "\n" : "", siwe->uri, (unsigned long long)siwe->chain_id,
		siwe->nonce, siwe->issued_at, ends ? "\nExpiration Time: " : "",
		ends ? siwe->expires_at : "");
}

/* ---- Rules of RFC 3986 ---- */

/* Whether text[0..len) is of these characters and of percent-encoded bytes. */
static bool siwe_is_encoded(const char *text, size_t len, const char *allowed)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] != '%') {
			if (strchr(allowed, text[i]) == NULL)
				return false;
		} else if (len - i < 3 || !isxdigit((unsigned char)text[i + 1]) ||
			   !isxdigit((unsigned char)text[i + 2])) {
			return false;
		} else {
			i += 2;
		}
	}
	return true;
}

/* What stands between the brackets of an IP-literal. */
static bool is_ip_literal(struct arena *arena, const char *text, size_t len)
{
	struct in6_addr address;
	size_t version;

	if (len == 0 || (*text != 'v' && *text != 'V'))
		return inet_pton(AF_INET6, arena_strndup(arena, text, len), &address) == 1;
	version = strspn(text + 1, DIGITS "abcdefABCDEF");
	return version > 0 && len > version + 2 && text[1 + version] == '.' &&
	       strspn(text + version + 2, UNRESERVED SUB_DELIMS ":") == len - version - 2;
}

/* [ userinfo "@" ] host [ ":" port ]; the grammar of a host would let it be empty, this does not. */
static bool is_authority(struct arena *arena, const char *text)
{
	const char *at = strchr(text, '@'), *host = at == NULL ? text : at + 1, *end;

	if (at != NULL && !siwe_is_encoded(text, (size_t)(at - text), UNRESERVED SUB_DELIMS ":"))
		return false;
	if (*host == '[') {
		end = strchr(host, ']');
		if (end == NULL || !is_ip_literal(arena, host + 1, (size_t)(end - host - 1)))
			return false;
		end++;
	} else {
		end = host + strcspn(host, ":");
		if (end == host ||
			!siwe_is_encoded(host, (size_t)(end - host), UNRESERVED SUB_DELIMS))
			return false;
	}
	return *end == '\0' || (*end == ':' && end[1 + strspn(end + 1, DIGITS)] == '\0');
}

static bool is_scheme(const char *text, size_t len)
{
	return isalpha((unsigned char)*text) && strspn(text, LETTERS DIGITS "+-.") == len;
}

/* ---- Lines ---- */

struct reading {
	struct arena *arena;
	char *line; /* the one to be taken next; NULL behind the last */
	unsigned number; /* of that line, from 1 */
	const char **why;
};

static bool siwe_refuse(const struct reading *reading, unsigned number, const char *what)
{
	*reading->why = arena_printf(reading->arena, "line %u %s", number, what);
	return false;
}

/* Gives the next line; false with *why when there is none. */
static bool siwe_take_line(struct reading *reading, const char *what, const char **line)
{
	char *end;

	if (reading->line == NULL)
		return siwe_refuse(reading, reading->number,
			arena_printf(reading->arena, "is missing: %s is expected", what));
	*line = reading->line;
	end = strchr(reading->line, '\n');
	reading->line = end == NULL ? NULL : end + 1;
	reading->number++;
	if (end != NULL)
		*end = '\0';
	return true;
}

/* Refuses the line that was taken last. */
static bool refuse_line(const struct reading *reading, const char *what)
{
	return siwe_refuse(reading, reading->number - 1, what);
}

static bool take_empty(struct reading *reading)
{
	const char *line;

	if (!siwe_take_line(reading, "an empty line", &line))
		return false;
	return *line == '\0' || refuse_line(reading, "is not empty");
}

static bool has_tag(const struct reading *reading, const char *tag)
{
	return reading->line != NULL && strncmp(reading->line, tag, strlen(tag)) == 0;
}

/* Gives what stands behind "Tag: ". */
static bool take_tagged(struct reading *reading, const char *tag, const char **value)
{
	bool is_tagged = has_tag(reading, tag);

	if (!siwe_take_line(reading, arena_printf(reading->arena, "\"%s\"", tag), value))
		return false;
	*value += is_tagged ? strlen(tag) : 0;
	return is_tagged || refuse_line(reading, arena_printf(reading->arena,
							 "does not begin with \"%s\"", tag));
}

static bool take_greeting(struct reading *reading, struct siwe *siwe)
{
	const char *line, *blank, *scheme_end;

	if (!siwe_take_line(reading, "the domain", &line))
		return false;
	blank = line + strcspn(line, " ");
	if (strcmp(blank, greeting) != 0)
		return refuse_line(reading,
			arena_printf(reading->arena, "is not a domain and \"%s\"", greeting + 1));
	line = arena_strndup(reading->arena, line, (size_t)(blank - line));
	scheme_end = strstr(line, "://");
	if (scheme_end != NULL && !is_scheme(line, (size_t)(scheme_end - line)))
		return refuse_line(reading, "does not begin with a URI scheme");
	siwe->domain = scheme_end == NULL ? line : scheme_end + 3;
	return is_authority(reading->arena, siwe->domain) ||
	       refuse_line(reading, "does not name a domain");
}

/* EIP-4361 wants the checksum of EIP-55, so that an address has one form only. */
static bool take_address(struct reading *reading, struct siwe *siwe)
{
	char *canonical = arena_alloc(reading->arena, ETH_ADDRESS_LEN + 1);
	char mixed[ETH_ADDRESS_LEN + 1];
	const char *line, *why;

	if (!siwe_take_line(reading, "an address", &line))
		return false;
	if (!eth_address_parse(line, canonical, &why))
		return refuse_line(reading, arena_printf(reading->arena, "is no address: %s", why));
	eth_address_checksum(canonical, mixed);
	if (strcmp(line, mixed) != 0)
		return refuse_line(reading, "is an address without its EIP-55 checksum");
	siwe->address = canonical;
	return true;
}

/* Without a statement there are two empty lines: the one before it and the one behind it. */
static bool take_statement(struct reading *reading, struct siwe *siwe)
{
	const char *line;

	if (!take_empty(reading) || !siwe_take_line(reading, "a statement", &line))
		return false;
	if (*line == '\0')
		return true;
	if (line[strspn(line, UNRESERVED RESERVED " ")] != '\0')
		return refuse_line(reading, "holds a character that a statement must not hold");
	siwe->statement = line;
	return take_empty(reading);
}

static bool take_uri(struct reading *reading, const char *tag, const char **uri)
{
	const char *why;

	if (!take_tagged(reading, tag, uri))
		return false;
	return uri_check(*uri, TEXT_MAX, &why) ||
	       refuse_line(reading, arena_printf(reading->arena, "is no URI: %s", why));
}

static bool take_chain_id(struct reading *reading, uint64_t *chain_id)
{
	const char *value;

	if (!take_tagged(reading, "Chain ID: ", &value))
		return false;
	errno = 0;
	*chain_id = strtoull(value, NULL, 10);
	if (*value == '\0' || value[strspn(value, DIGITS)] != '\0')
		return refuse_line(reading, "is not a number in decimal digits");
	return errno == 0 || refuse_line(reading, "is larger than 2^64 - 1");
}

static bool take_nonce(struct reading *reading, const char **nonce)
{
	size_t len;

	if (!take_tagged(reading, "Nonce: ", nonce))
		return false;
	len = strspn(*nonce, LETTERS DIGITS);
	return (len >= 8 && (*nonce)[len] == '\0') ||
	       refuse_line(reading, "is not at least 8 letters and digits");
}

static bool take_time(struct reading *reading, const char *tag, const char **time)
{
	const char *why;

	if (!take_tagged(reading, tag, time))
		return false;
	return rfc3339_check(*time, &why) ||
	       refuse_line(reading, arena_printf(reading->arena, "is %s", why));
}

static bool take_request_id(struct reading *reading)
{
	const char *id;

	if (!take_tagged(reading, "Request ID: ", &id))
		return false;
	return siwe_is_encoded(id, strlen(id), UNRESERVED SUB_DELIMS ":@") ||
	       refuse_line(reading, "holds a character that a request id must not hold");
}

static bool take_resources(struct reading *reading)
{
	const char *line;

	if (!siwe_take_line(reading, "\"Resources:\"", &line))
		return false;
	if (strcmp(line, "Resources:") != 0)
		return refuse_line(reading, "holds more than \"Resources:\"");
	while (has_tag(reading, "- "))
		if (!take_uri(reading, "- ", &line))
			return false;
	return true;
}

/* The lines that may be left out, in the order of the grammar. */
static bool take_optional(struct reading *reading, struct siwe *siwe)
{
	const char *not_before;

	if (has_tag(reading, "Expiration Time:") &&
		!take_time(reading, "Expiration Time: ", &siwe->expires_at))
		return false;
	if (has_tag(reading, "Not Before:") && !take_time(reading, "Not Before: ", &not_before))
		return false;
	if (has_tag(reading, "Request ID:") && !take_request_id(reading))
		return false;
	if (has_tag(reading, "Resources:") && !take_resources(reading))
		return false;
	return reading->line == NULL ||
	       siwe_refuse(reading, reading->number, "is not expected here");
}

/* Nothing that the grammar allows holds more than printable ASCII. */
static bool check_characters(const struct reading *reading)
{
	unsigned number = 1;

	for (const char *at = reading->line; *at != '\0'; at++) {
		if (*at == '\r')
			return siwe_refuse(reading, number,
				"holds a carriage return: lines end in a line feed alone");
		if (*at != '\n' && (*at < ' ' || *at > '~'))
			return siwe_refuse(
				reading, number, "holds a character that is not printable ASCII");
		number += *at == '\n';
	}
	return true;
}

bool siwe_read(struct arena *arena, const char *text, struct siwe *siwe, const char **why)
{
	struct reading reading = { .arena = arena, .number = 1, .why = why };
	const char *version;

	*siwe = (struct siwe){ .domain = NULL };
	if (strnlen(text, TEXT_MAX + 1) > TEXT_MAX) {
		*why = "longer than 4096 bytes";
		return false;
	}
	reading.line = arena_strdup(arena, text);
	if (!check_characters(&reading) || !take_greeting(&reading, siwe) ||
		!take_address(&reading, siwe) || !take_statement(&reading, siwe) ||
		!take_uri(&reading, "URI: ", &siwe->uri) ||
		!take_tagged(&reading, "Version: ", &version))
		return false;
	if (strcmp(version, "1") != 0)
		return refuse_line(&reading, "is of another version than 1");
	return take_chain_id(&reading, &siwe->chain_id) && take_nonce(&reading, &siwe->nonce) &&
	       take_time(&reading, "Issued At: ", &siwe->issued_at) &&
	       take_optional(&reading, siwe);
}
