/* SPDX-License-Identifier: Apache-2.0 */
/* Which texts are sign-in messages of EIP-4361, and what is said of those that are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/siwe.h"

static struct arena *arena;

static int set_up(void **state)
{
	(void)state;
	arena = arena_new(4096, 64 << 20);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	arena_free(arena);
	return 0;
}

/* Lines 1 to 11 of a message that says all that areg uses. */
static const char *const lines[] = {
	"registry.example:8443 wants you to sign in with your Ethereum account:",
	"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
	"",
	"Sign in to areg.",
	"",
	"URI: https://registry.example:8443",
	"Version: 1",
	"Chain ID: 8453",
	"Nonce: 9ssJWvT0dPiXgOjXQ4nUMa",
	"Issued At: 2026-03-01T12:00:00Z",
	"Expiration Time: 2026-03-01T12:05:00Z",
};
enum { LINES = sizeof lines / sizeof lines[0] };

/* The message with line `number` (from 1) replaced; left out with NULL. */
static const char *with_line(unsigned number, const char *line)
{
	const char *text = "", *between = "";

	for (unsigned i = 0; i < LINES; i++) {
		const char *shown = i + 1 == number ? line : lines[i];

		if (shown == NULL)
			continue;
		text = arena_printf(arena, "%s%s%s", text, between, shown);
		between = "\n";
	}
	return text;
}

static const char *whole(void)
{
	return with_line(0, NULL);
}

static struct siwe accepted(const char *text)
{
	struct siwe siwe;
	const char *why;

	if (!siwe_read(arena, text, &siwe, &why))
		fail_msg("%s\n-- %s", text, why);
	return siwe;
}

static void refused(const char *text, const char *expected)
{
	struct siwe siwe;
	const char *why = NULL;

	if (siwe_read(arena, text, &siwe, &why))
		fail_msg("%s\n-- accepted", text);
	assert_string_equal(why, expected);
}

static void what_is_written_is_read_back(void **state)
{
	const struct siwe written = { .domain = "registry.example:8443",
		.address = "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
		.statement = "Sign in to areg.",
		.uri = "https://registry.example:8443",
		.chain_id = 8453,
		.nonce = "9ssJWvT0dPiXgOjXQ4nUMa",
		.issued_at = "2026-03-01T12:00:00Z",
		.expires_at = "2026-03-01T12:05:00Z" };
	const char *text = siwe_write(arena, &written);
	struct siwe read = accepted(text);

	(void)state;
	assert_string_equal(text, whole());
	assert_string_equal(read.domain, written.domain);
	assert_string_equal(read.address, written.address);
	assert_string_equal(read.statement, written.statement);
	assert_string_equal(read.uri, written.uri);
	assert_int_equal(read.chain_id, written.chain_id);
	assert_string_equal(read.nonce, written.nonce);
	assert_string_equal(read.issued_at, written.issued_at);
	assert_string_equal(read.expires_at, written.expires_at);
}

static void statement_and_expiry_may_be_left_out(void **state)
{
	const struct siwe written = { .domain = "localhost",
		.address = "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
		.uri = "http://localhost",
		.chain_id = UINT64_MAX,
		.nonce = "12345678",
		.issued_at = "2026-03-01T12:00:00Z" };
	const char *text = siwe_write(arena, &written);
	struct siwe read = accepted(text);

	(void)state;
	assert_string_equal(text, "localhost wants you to sign in with your Ethereum account:\n"
				  "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\n"
				  "\n"
				  "\n"
				  "URI: http://localhost\n"
				  "Version: 1\n"
				  "Chain ID: 18446744073709551615\n"
				  "Nonce: 12345678\n"
				  "Issued At: 2026-03-01T12:00:00Z");
	assert_null(read.statement);
	assert_null(read.expires_at);
	assert_int_equal(read.chain_id, UINT64_MAX);
}

static void optional_lines_of_the_grammar_are_allowed_in_their_order(void **state)
{
	static const char *const tails[] = {
		"\nNot Before: 2026-03-01T12:00:00.5+01:00",
		"\nRequest ID: ",
		"\nRequest ID: abc-~!$&'()*+,;=:@%2F",
		"\nResources:",
		"\nResources:\n- ipfs://bafy\n- https://example.com/a?b=c#d",
		"\nNot Before: 2026-03-01T12:00:00Z\nRequest ID: 1\nResources:\n- https://a.b/",
	};

	(void)state;
	for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
		accepted(arena_printf(arena, "%s%s", whole(), tails[i]));
		accepted(arena_printf(arena, "%s%s", with_line(11, NULL), tails[i]));
	}
}

static void optional_lines_that_break_their_rule_are_refused(void **state)
{
	static const struct {
		const char *tail, *why;
	} cases[] = {
		{ "\nNot Before: soon",
			"line 12 is not an RFC 3339 time such as 2026-03-01T12:00:00Z" },
		{ "\nNot Before:2026-03-01T12:00:00Z",
			"line 12 does not begin with \"Not Before: \"" },
		{ "\nRequest ID: a b",
			"line 12 holds a character that a request id must not hold" },
		{ "\nRequest ID: %2", "line 12 holds a character that a request id must not hold" },
		{ "\nRequest ID: a/b",
			"line 12 holds a character that a request id must not hold" },
		{ "\nResources: all", "line 12 holds more than \"Resources:\"" },
		{ "\nResources:\n- example.com", "line 13 is no URI: not an absolute URI" },
		{ "\nResources:\n-https://a.b", "line 13 is not expected here" },
		{ "\nResources:\n- https://a.b\n", "line 14 is not expected here" },
		{ "\nRequest ID: 1\nNot Before: 2026-03-01T12:00:00Z",
			"line 13 is not expected here" },
		{ "\nRequest ID: 1\nRequest ID: 1", "line 13 is not expected here" },
		{ "\nExpiration Time: 2026-03-01T12:05:00Z", "line 12 is not expected here" },
		{ "\n", "line 12 is not expected here" },
		{ "\nanything", "line 12 is not expected here" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		refused(arena_printf(arena, "%s%s", whole(), cases[i].tail), cases[i].why);
}

#define GREETING " wants you to sign in with your Ethereum account:"
#define NO_GREETING \
	"line 1 is not a domain and \"wants you to sign in with your Ethereum account:\""

static void each_line_that_breaks_its_rule_is_named(void **state)
{
	static const struct {
		unsigned line;
		const char *text, *why;
	} cases[] = {
		{ 1, "", NO_GREETING },
		{ 1, "registry.example wants you to sign in with your Ethereum account",
			NO_GREETING },
		{ 1, "registry.example  wants you to sign in with your Ethereum account:",
			NO_GREETING },
		{ 1, "registry.example Wants you to sign in with your Ethereum account:",
			NO_GREETING },
		{ 1, "two words" GREETING, NO_GREETING },
		{ 1, GREETING, "line 1 does not name a domain" },
		{ 1, ":8443" GREETING, "line 1 does not name a domain" },
		{ 1, "registry.example:port" GREETING, "line 1 does not name a domain" },
		{ 1, "registry.example/path" GREETING, "line 1 does not name a domain" },
		{ 1, "a@b@registry.example" GREETING, "line 1 does not name a domain" },
		{ 1, "registry%2" GREETING, "line 1 does not name a domain" },
		{ 1, "[::1" GREETING, "line 1 does not name a domain" },
		{ 1, "[::g]" GREETING, "line 1 does not name a domain" },
		{ 1, "[]" GREETING, "line 1 does not name a domain" },
		{ 1, "[v1.]" GREETING, "line 1 does not name a domain" },
		{ 1, "[::1]a" GREETING, "line 1 does not name a domain" },
		{ 1, "1s://registry.example" GREETING, "line 1 does not begin with a URI scheme" },
		{ 1, "://registry.example" GREETING, "line 1 does not begin with a URI scheme" },
		{ 1, "https://" GREETING, "line 1 does not name a domain" },
		{ 2, "", "line 2 is no address: not 0x and 40 hex digits" },
		{ 2, "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
			"line 2 is no address: not 0x and 40 hex digits" },
		{ 2, "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
			"line 2 is no address: the EIP-55 checksum is wrong" },
		{ 2, "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
			"line 2 is an address without its EIP-55 checksum" },
		{ 2, "0x5AAEB6053F3E94C9B9A09F33669435E7EF1BEAED",
			"line 2 is an address without its EIP-55 checksum" },
		{ 2, "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed ",
			"line 2 is no address: not 0x and 40 hex digits" },
		{ 3, " ", "line 3 is not empty" },
		{ 3, "Sign in to areg.", "line 3 is not empty" },
		{ 4, "Sign \"in\"", "line 4 holds a character that a statement must not hold" },
		{ 4, "100 %", "line 4 holds a character that a statement must not hold" },
		{ 4, "", "line 5 does not begin with \"URI: \"" },
		{ 5, "more", "line 5 is not empty" },
		{ 6, "URI: registry.example", "line 6 is no URI: not an absolute URI" },
		{ 6, "URI:https://registry.example", "line 6 does not begin with \"URI: \"" },
		{ 6, "URI: https://registry.example/a b",
			"line 6 is no URI: holds a character that must be escaped in a URI" },
		{ 6, "uri: https://registry.example", "line 6 does not begin with \"URI: \"" },
		{ 7, "Version: 2", "line 7 is of another version than 1" },
		{ 7, "Version: 1 ", "line 7 is of another version than 1" },
		{ 7, "Version: 01", "line 7 is of another version than 1" },
		{ 7, "Version: ", "line 7 is of another version than 1" },
		{ 8, "Chain ID: ", "line 8 is not a number in decimal digits" },
		{ 8, "Chain ID: -1", "line 8 is not a number in decimal digits" },
		{ 8, "Chain ID: +1", "line 8 is not a number in decimal digits" },
		{ 8, "Chain ID: 0x1", "line 8 is not a number in decimal digits" },
		{ 8, "Chain ID:  1", "line 8 is not a number in decimal digits" },
		{ 8, "Chain ID: 18446744073709551616", "line 8 is larger than 2^64 - 1" },
		{ 9, "Nonce: 1234567", "line 9 is not at least 8 letters and digits" },
		{ 9, "Nonce: ", "line 9 is not at least 8 letters and digits" },
		{ 9, "Nonce: 12345678-", "line 9 is not at least 8 letters and digits" },
		{ 9, "Nonce: 1234 5678", "line 9 is not at least 8 letters and digits" },
		{ 10, "Issued At: 2026-02-30T12:00:00Z",
			"line 10 is not an RFC 3339 time such as 2026-03-01T12:00:00Z" },
		{ 10, "Issued At: 2026-03-01 12:00:00Z",
			"line 10 is not an RFC 3339 time such as 2026-03-01T12:00:00Z" },
		{ 11, "Expiration Time: ",
			"line 11 is not an RFC 3339 time such as 2026-03-01T12:00:00Z" },
		{ 11, "Expiration Time:", "line 11 does not begin with \"Expiration Time: \"" },
		{ 11, "Expires: 2026-03-01T12:00:00Z", "line 11 is not expected here" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		refused(with_line(cases[i].line, cases[i].text), cases[i].why);
}

static void each_line_left_out_is_missed(void **state)
{
	static const char *const whys[LINES - 1] = {
		NO_GREETING,
		"line 2 is no address: not 0x and 40 hex digits",
		"line 3 is not empty",
		/* what is left reads as a message without a statement, but for one empty line */
		NULL,
		"line 5 is not empty",
		"line 6 does not begin with \"URI: \"",
		"line 7 does not begin with \"Version: \"",
		"line 8 does not begin with \"Chain ID: \"",
		"line 9 does not begin with \"Nonce: \"",
		"line 10 does not begin with \"Issued At: \"",
	};

	(void)state;
	for (unsigned i = 0; i < LINES - 1; i++) {
		if (whys[i] == NULL)
			assert_null(accepted(with_line(i + 1, NULL)).statement);
		else
			refused(with_line(i + 1, NULL), whys[i]);
	}
}

static void a_message_cut_short_says_what_is_expected(void **state)
{
	static const char *const whys[] = {
		NO_GREETING,
		"line 2 is missing: an address is expected",
		"line 3 is missing: an empty line is expected",
		"line 4 is missing: a statement is expected",
		"line 5 is missing: an empty line is expected",
		"line 6 is missing: \"URI: \" is expected",
		"line 7 is missing: \"Version: \" is expected",
		"line 8 is missing: \"Chain ID: \" is expected",
		"line 9 is missing: \"Nonce: \" is expected",
		"line 10 is missing: \"Issued At: \" is expected",
	};
	const char *text = "", *between = "";

	(void)state;
	for (size_t i = 0; i < sizeof whys / sizeof *whys; i++) {
		refused(text, whys[i]);
		text = arena_printf(arena, "%s%s%s", text, between, lines[i]);
		between = "\n";
	}
	accepted(text);
}

static void a_carriage_return_is_refused_on_any_line(void **state)
{
	(void)state;
	for (unsigned i = 1; i <= LINES; i++)
		refused(with_line(i, arena_printf(arena, "%s\r", lines[i - 1])),
			arena_printf(arena,
				"line %u holds a carriage return: lines end in a line feed alone",
				i));
}

static void what_is_not_printable_ascii_is_refused(void **state)
{
	static const char *const statements[] = { "tab\there", "caf\xc3\xa9", "\x7f",
		"\xe2\x80\xaeright to left" };

	(void)state;
	for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
		refused(with_line(4, statements[i]),
			"line 4 holds a character that is not printable ASCII");
}

static void every_authority_of_rfc_3986_is_a_domain(void **state)
{
	static const char *const domains[] = { "localhost", "localhost:", "registry.example:8443",
		"192.0.2.1:80", "[2001:db8::1]", "[::ffff:192.0.2.1]:8443", "[v7.a:b]",
		"user:pass@registry.example", "a%2Db.example", "under_score~!$&'()*+,;=" };

	(void)state;
	for (size_t i = 0; i < sizeof domains / sizeof *domains; i++) {
		struct siwe siwe =
			accepted(with_line(1, arena_printf(arena, "%s" GREETING, domains[i])));

		assert_string_equal(siwe.domain, domains[i]);
		siwe = accepted(
			with_line(1, arena_printf(arena, "https://%s" GREETING, domains[i])));
		assert_string_equal(siwe.domain, domains[i]);
	}
}

static void a_message_holds_4096_bytes_at_most(void **state)
{
	size_t room = 4096 - (strlen(whole()) - strlen(lines[3]));
	char *statement = arena_alloc(arena, room + 2);

	(void)state;
	memset(statement, 'a', room);
	accepted(with_line(4, statement));
	statement[room] = 'a';
	refused(with_line(4, statement), "longer than 4096 bytes");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_written_is_read_back),
		TEST(statement_and_expiry_may_be_left_out),
		TEST(optional_lines_of_the_grammar_are_allowed_in_their_order),
		TEST(optional_lines_that_break_their_rule_are_refused),
		TEST(each_line_that_breaks_its_rule_is_named),
		TEST(each_line_left_out_is_missed),
		TEST(a_message_cut_short_says_what_is_expected),
		TEST(a_carriage_return_is_refused_on_any_line),
		TEST(what_is_not_printable_ascii_is_refused),
		TEST(every_authority_of_rfc_3986_is_a_domain),
		TEST(a_message_holds_4096_bytes_at_most),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
