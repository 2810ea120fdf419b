/* SPDX-License-Identifier: Apache-2.0 */
/* Registration files, right ones and those found on chains: what is read, and what is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "app/problem_list.h"
#include "app/registry/registration_file.h"
#include "lib/buf.h"

static struct arena *arena;
static struct registration_file file;
static struct faults faults;

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

static void read_file(const char *text, const char *base)
{
	struct json_doc doc;
	struct json_error error;

	if (!json_parse(arena, text, strlen(text), &json_rules_wild, &doc, &error))
		fail_msg("%s: %s at %zu", text, error.reason, error.offset);
	faults_init(&faults, arena, PROBLEM_VALIDATION_FAILED);
	registration_file_read(arena, &doc.root, base, &file, &faults);
}

/* Reads a file with a good name and description and these members besides. */
static void read_members(const char *members)
{
	read_file(arena_printf(arena, "{\"name\":\"A\",\"description\":\"D\",%s}", members), "");
}

static void assert_words(const char *const *list, size_t count, const char *expected)
{
	struct buf joined;

	buf_init(&joined, arena, 64);
	for (size_t i = 0; i < count; i++)
		buf_printf(&joined, "%s%s", i == 0 ? "" : " ", list[i]);
	assert_string_equal(joined.data, expected);
}

static void a_file_that_is_right_is_read_without_a_fault(void **state)
{
	(void)state;
	read_file("{\"type\":\"https://eips.ethereum.org/EIPS/eip-8004#registration-v1\","
		  "\"name\":\"Café\",\"description\":\"Finds tokens\",\"image\":\"ipfs://abc\","
		  "\"services\":[{\"name\":\"MCP\",\"endpoint\":\"https://a/\",\"version\":\"1\"},"
		  "{\"name\":\"OASF\",\"endpoint\":\"https://b/\",\"skills\":[\"s1\",\"s2\"],"
		  "\"domains\":[\"d1\"]},{\"name\":\"mcp\",\"endpoint\":\"\",\"skills\":[\"s2\"]}],"
		  "\"registrations\":[{\"agentId\":0,\"agentRegistry\":\"eip155:1:0x80\"},"
		  "{\"agentId\":null,\"agentRegistry\":\"x\"},"
		  "{\"agentId\":115792089237316195423570985008687907853269984665640564039457584007"
		  "913129639935,\"agentRegistry\":\"x\"}],"
		  "\"supportedTrust\":[\"reputation\",\"tee-attestation\",\"reputation\"],"
		  "\"x402Support\":true,\"active\":false,\"unknown\":{\"kept\":[1]}}",
		"");
	assert_int_equal(faults.count, 0);
	assert_string_equal(registration_file_conformance(arena, &faults), "[]");
	assert_string_equal(file.name, "Café");
	assert_string_equal(file.description, "Finds tokens");
	assert_string_equal(file.image, "ipfs://abc");
	assert_words(file.services, file.service_count, "mcp oasf");
	assert_words(file.skills, file.skill_count, "s1 s2");
	assert_words(file.domains, file.domain_count, "d1");
	assert_words(file.supported_trust, file.trust_count, "reputation tee-attestation");
	assert_string_equal(file.x402_support, "true");
	assert_string_equal(file.active, "false");
}

static void name_and_description_suffice(void **state)
{
	(void)state;
	read_file("{\"name\":\"A\",\"description\":\"D\"}", "/registration_file");
	assert_int_equal(faults.count, 0);
	assert_null(file.image);
	assert_null(file.x402_support);
	assert_null(file.active);
	assert_int_equal(file.service_count, 0);
	assert_int_equal(file.trust_count, 0);
}

static void each_oddity_is_one_fault_with_its_pointer(void **state)
{
	static const struct {
		const char *members, *pointer, *detail;
	} cases[] = {
		{ "\"type\":\"https://eips.ethereum.org/EIPs/eip-8004#registration-v1\"", "/type",
			"is not https://eips.ethereum.org/EIPS/eip-8004#registration-v1" },
		{ "\"type\":\"\"", "/type",
			"is not https://eips.ethereum.org/EIPS/eip-8004#registration-v1" },
		{ "\"image\":7", "/image", "is not a string" },
		{ "\"image\":\"logo.png\"", "/image", "not an absolute URI" },
		{ "\"image\":\"JavaScript:alert(1)\"", "/image",
			"is a URI that runs code or reads files where it is followed" },
		{ "\"image\":\"data:text/html,x\"", "/image",
			"is a URI that runs code or reads files where it is followed" },
		{ "\"external_url\":\"vbscript:x\"", "/external_url",
			"is a URI that runs code or reads files where it is followed" },
		{ "\"services\":[{\"name\":\"n\",\"endpoint\":\" java\\tscript:x\"}]",
			"/services/0/endpoint",
			"is a URI that runs code or reads files where it is followed" },
		{ "\"services\":[{\"name\":\"n\\u202e\",\"endpoint\":\"e\"}]", "/services/0/name",
			"holds U+202E, which is not seen or turns the direction of the text" },
		{ "\"services\":\"mcp\"", "/services", "is not a list" },
		{ "\"services\":{\"MCP\":\"https://a/\"}", "/services",
			"is an object, not a list of services" },
		{ "\"services\":[1]", "/services/0", "is not an object" },
		{ "\"services\":[\"web\"]", "/services/0",
			"is a string, not an object with name and endpoint" },
		{ "\"services\":[{\"endpoint\":\"e\"}]", "/services/0/name", "is missing" },
		{ "\"services\":[{\"name\":1,\"endpoint\":\"e\"}]", "/services/0/name",
			"is not a string" },
		{ "\"services\":[{\"type\":\"t\",\"endpoint\":\"e\"}]", "/services/0/name",
			"is missing; \"type\" stands in its place" },
		{ "\"services\":[{\"name\":\"n\",\"serviceEndpoint\":\"e\"}]",
			"/services/0/endpoint",
			"is missing; \"serviceEndpoint\" stands in its place" },
		{ "\"endpoints\":[{\"name\":\"n\"}]", "/endpoints/0/endpoint", "is missing" },
		{ "\"registrations\":{}", "/registrations", "is not a list" },
		{ "\"registrations\":[7]", "/registrations/0", "is not an object" },
		{ "\"registrations\":[{\"agentRegistry\":\"r\"}]", "/registrations/0/agentId",
			"is missing" },
		{ "\"registrations\":[{\"agentId\":\"1\",\"agentRegistry\":\"r\"}]",
			"/registrations/0/agentId", "is not a whole number or null" },
		{ "\"registrations\":[{\"agentId\":-1,\"agentRegistry\":\"r\"}]",
			"/registrations/0/agentId", "is not a whole number or null" },
		{ "\"registrations\":[{\"agentId\":1.0,\"agentRegistry\":\"r\"}]",
			"/registrations/0/agentId", "is not a whole number or null" },
		{ "\"registrations\":[{\"agentId\":1}]", "/registrations/0/agentRegistry",
			"is missing" },
		{ "\"registrations\":[{\"agentId\":1,\"agentRegistry\":1}]",
			"/registrations/0/agentRegistry", "is not a string" },
		{ "\"supportedTrust\":\"reputation\"", "/supportedTrust", "is not a list" },
		{ "\"supportedTrust\":[\"a\",1]", "/supportedTrust/1", "is not a string" },
		{ "\"supportedTrusts\":[]", "/supportedTrusts",
			"is written supportedTrusts; the standard says supportedTrust" },
		{ "\"x402support\":true", "/x402support",
			"is written x402support; the standard says x402Support" },
		{ "\"x402Support\":\"yes\"", "/x402Support", "is not true or false" },
		{ "\"active\":1", "/active", "is not true or false" },
		{ "\"extra\":{\"a/b\":[\"\\u0000\"]}", "/extra/a~1b/0", "holds a NUL" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		read_members(cases[i].members);
		if (faults.count != 1)
			fail_msg("%s: %zu faults", cases[i].members, faults.count);
		assert_string_equal(faults.first->pointer, cases[i].pointer);
		assert_string_equal(faults.first->detail, cases[i].detail);
		assert_ptr_equal(faults.first->problem, PROBLEM_INVALID_REGISTRATION_FILE);
	}
}

static void null_and_no_image_mean_absent(void **state)
{
	static const char *const members[] = { "\"image\":\"\"", "\"image\":null", "\"type\":null",
		"\"services\":null", "\"endpoints\":null", "\"registrations\":null",
		"\"supportedTrust\":null", "\"x402Support\":null", "\"active\":null" };

	(void)state;
	for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
		read_members(members[i]);
		if (faults.count != 0)
			fail_msg("%s: %s", members[i], faults.first->detail);
		assert_null(file.image);
		assert_null(file.x402_support);
		assert_null(file.active);
		assert_string_equal(file.shown_services, "[]");
	}
	read_file("{\"name\":null,\"description\":null}", "");
	assert_int_equal(faults.count, 2);
	assert_string_equal(faults.first->detail, "is missing");
	read_members(
		"\"services\":null,\"endpoints\":[{\"name\":\"MCP\",\"endpoint\":\"https://a/\"}]");
	assert_int_equal(faults.count, 0);
	assert_words(file.services, file.service_count, "mcp");
	read_members("\"x402Support\":null,\"x402support\":true");
	assert_string_equal(file.x402_support, "true");
}

static void a_uri_is_whole_or_absent(void **state)
{
	char uri[2060] = "data:image/png;base64,";

	(void)state;
	memset(uri + strlen(uri), 'A', 2048 - strlen(uri));
	read_members(arena_printf(arena, "\"image\":\"%s\"", uri));
	assert_int_equal(faults.count, 0);
	assert_string_equal(file.image, uri);
	read_members(arena_printf(arena,
		"\"image\":\"%sA\",\"supportedTrust\":[\"%s\",\"t\"],"
		"\"services\":[{\"name\":\"n\",\"endpoint\":\"e\","
		"\"skills\":[\"%s\",\"s\"],\"domains\":[\"%s\",\"d\"]}]",
		uri, uri, uri, uri));
	assert_int_equal(faults.count, 1);
	assert_string_equal(faults.first->detail, "is longer than 2048 characters");
	assert_null(file.image);
	assert_words(file.supported_trust, file.trust_count, "t");
	assert_words(file.skills, file.skill_count, "s");
	assert_words(file.domains, file.domain_count, "d");
	read_members("\"image\":\"https://a/\\u0000b\"");
	assert_null(file.image);
}

static void skills_are_found_where_sdks_write_them(void **state)
{
	(void)state;
	read_members("\"services\":[{\"name\":\"A2A\",\"endpoint\":\"e\",\"a2aSkills\":[\"a\"]},"
		     "{\"name\":\"MCP\",\"endpoint\":\"e\",\"mcpTools\":[\"b\",{\"name\":\"c\"}],"
		     "\"mcpPrompts\":[\"d\"],\"mcpResources\":[\"file:///e\",7,null,{}]},"
		     "{\"name\":\"OASF\",\"endpoint\":\"e\",\"skills\":[\"a\",{\"id\":\"f\"}]}],"
		     "\"skills\":[\"g\"],\"a2aSkills\":\"no list\"");
	assert_int_equal(faults.count, 0);
	assert_words(file.skills, file.skill_count, "a b c d file:///e f g");
	read_members("\"services\":null,\"mcpTools\":[\"h\"]");
	assert_words(file.skills, file.skill_count, "h");
}

static void what_lists_show_is_readable_by_everybody(void **state)
{
	(void)state;
	read_members(
		"\"services\": [ {\"b\\u0000\" : \"\\ud800\\u0000x/\\u0001\", \"a\":-1.50e3}, [null, \"s\"] ]");
	assert_string_equal(file.shown_services,
		"[{\"b\xef\xbf\xbd\":\"\xef\xbf\xbd\xef\xbf\xbdx/\\u0001\",\"a\":-1.50e3},[null,\"s\"]]");
}

/* Whole entries up to the limit to the byte; one that is left out leaves room for those behind it. */
static void lists_show_as_much_as_fits(void **state)
{
	const size_t frame = strlen("[\"\"]");
	char *text = arena_alloc(arena, REGISTRATION_FILE_SHOWN_BYTES + 1);

	(void)state;
	memset(text, 'x', REGISTRATION_FILE_SHOWN_BYTES - frame);
	read_members(arena_printf(arena, "\"services\":[\"%s\"]", text));
	assert_int_equal(strlen(file.shown_services), REGISTRATION_FILE_SHOWN_BYTES);
	read_members(arena_printf(arena, "\"services\":[1,\"%s\",2]", text));
	assert_string_equal(file.shown_services, "[1,2]");
	read_members(arena_printf(arena, "\"services\":[\"%sx\",1]", text));
	assert_string_equal(file.shown_services, "[1]");
	read_members("\"services\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21]");
	assert_string_equal(
		file.shown_services, "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]");
}

static void wild_spellings_are_read_where_their_meaning_is_plain(void **state)
{
	(void)state;
	read_members("\"x402support\":true,\"supportedTrusts\":[\"reputation\"],"
		     "\"services\":[\"Web\",\"https://a/\",{\"type\":\"DID\",\"url\":\"u\"}],"
		     "\"endpoints\":{\"never\":\"read\"}");
	assert_string_equal(file.x402_support, "true");
	assert_words(file.supported_trust, file.trust_count, "reputation");
	assert_words(file.services, file.service_count, "web did");
	read_members("\"endpoints\":{\"MCP\":\"https://a/\",\"A2A\":{}}");
	assert_words(file.services, file.service_count, "mcp a2a");
}

static void the_standard_spelling_counts_beside_a_wild_one(void **state)
{
	(void)state;
	read_members("\"x402support\":true,\"x402Support\":false,\"supportedTrusts\":[\"b\"],"
		     "\"supportedTrust\":[\"a\"]");
	assert_int_equal(faults.count, 2);
	assert_string_equal(file.x402_support, "false");
	assert_words(file.supported_trust, file.trust_count, "a");
}

static void all_faults_are_named_below_the_base_pointer(void **state)
{
	(void)state;
	read_file("{\"name\":7,\"active\":\"\\\"\"}", "/registration_file");
	assert_int_equal(faults.count, 3);
	assert_string_equal(registration_file_conformance(arena, &faults),
		"[{\"pointer\":\"/registration_file/name\",\"detail\":\"is not a string\"},"
		"{\"pointer\":\"/registration_file/description\",\"detail\":\"is missing\"},"
		"{\"pointer\":\"/registration_file/active\",\"detail\":\"is not true or false\"}]");
	read_file("[]", "/registration_file");
	assert_int_equal(faults.count, 1);
	assert_string_equal(faults.first->pointer, "/registration_file");
	assert_string_equal(faults.first->detail, "is not an object");
	assert_null(file.name);
}

/* A string of `count` characters of two bytes each, in quotes. */
static const char *accented(size_t count)
{
	struct buf text;

	buf_init(&text, arena, 2 * count + 2);
	buf_putc(&text, '"');
	while (count-- > 0)
		buf_puts(&text, "é");
	buf_putc(&text, '"');
	return text.data;
}

static void long_texts_are_a_fault_and_are_cut_at_whole_characters(void **state)
{
	(void)state;
	read_file(arena_printf(
			  arena, "{\"name\":%s,\"description\":%s}", accented(200), accented(2000)),
		"");
	assert_int_equal(faults.count, 0);
	read_file(arena_printf(
			  arena, "{\"name\":%s,\"description\":%s}", accented(201), accented(2001)),
		"");
	assert_int_equal(faults.count, 2);
	assert_string_equal(faults.first->detail, "is longer than 200 characters");
	assert_string_equal(faults.last->detail, "is longer than 2000 characters");
	assert_int_equal(strlen(file.name), 400);
	assert_int_equal(utf8_length(file.name), 200);
	assert_true(utf8_valid(file.name, strlen(file.name)));
	assert_int_equal(utf8_length(file.description), 2000);
}

static void nul_is_cut_from_what_is_searched(void **state)
{
	(void)state;
	read_file("{\"name\":\"a\\u0000b\",\"description\":\"\\u0000\","
		  "\"supportedTrust\":[\"x\\u0000\",\"x\"]}",
		"");
	assert_int_equal(faults.count, 3);
	assert_string_equal(file.name, "ab");
	assert_null(file.description);
	assert_words(file.supported_trust, file.trust_count, "x");
}

static void an_escaped_backslash_before_u0000_is_no_nul(void **state)
{
	(void)state;
	read_members("\"note\":\"\\\\u0000\"");
	assert_int_equal(faults.count, 0);
}

static void lists_that_are_too_long_are_a_fault(void **state)
{
	struct buf services, registrations;

	(void)state;
	buf_init(&services, arena, 1024);
	buf_init(&registrations, arena, 1024);
	for (int i = 0; i < 21; i++) {
		if (i == 20)
			read_members(arena_printf(arena, "\"services\":[%s]", services.data));
		buf_printf(
			&services, "%s{\"name\":\"s%d\",\"endpoint\":\"e\"}", i == 0 ? "" : ",", i);
	}
	assert_int_equal(faults.count, 0);
	read_members(arena_printf(arena, "\"services\":[%s]", services.data));
	assert_int_equal(faults.count, 1);
	assert_string_equal(faults.first->pointer, "/services");
	assert_string_equal(faults.first->detail, "has more than 20 entries");
	assert_int_equal(file.service_count, 21);

	for (int i = 0; i < 11; i++)
		buf_printf(&registrations, "%s{\"agentId\":1,\"agentRegistry\":\"r\"}",
			i == 0 ? "" : ",");
	read_members(arena_printf(arena, "\"registrations\":[%s]", registrations.data));
	assert_int_equal(faults.count, 1);
	assert_string_equal(faults.first->detail, "has more than 10 entries");
}

static void words_for_search_are_bounded(void **state)
{
	struct buf trust;

	(void)state;
	buf_init(&trust, arena, 4096);
	for (int i = 0; i < 300; i++)
		buf_printf(&trust, "%s\"t%d\"", i == 0 ? "" : ",", i / 2);
	read_members(arena_printf(arena, "\"supportedTrust\":[%s]", trust.data));
	assert_int_equal(file.trust_count, 100);
	assert_string_equal(file.supported_trust[99], "t99");
}

static void a_file_above_64_kib_is_a_fault_and_read_nevertheless(void **state)
{
	char *padding = arena_alloc(arena, REGISTRATION_FILE_BYTES_MAX + 1);
	const size_t frame = strlen("{\"name\":\"A\",\"description\":\"D\",\"p\":\"\"}");

	(void)state;
	memset(padding, 'p', REGISTRATION_FILE_BYTES_MAX - frame);
	read_members(arena_printf(arena, "\"p\":\"%s\"", padding));
	assert_int_equal(file.len, REGISTRATION_FILE_BYTES_MAX);
	assert_int_equal(faults.count, 0);
	padding[REGISTRATION_FILE_BYTES_MAX - frame] = 'p';
	read_members(arena_printf(arena, "\"p\":\"%s\"", padding));
	assert_int_equal(faults.count, 1);
	assert_string_equal(faults.first->pointer, "");
	assert_string_equal(faults.first->detail, "is larger than 64 KiB");
	assert_string_equal(file.name, "A");
}

static void equal_files_have_equal_digests_and_different_ones_have_not(void **state)
{
	char digest[65];

	(void)state;
	read_file("{\"name\":\"A\",\"n\":[1.0,\"\\u00e9\"]}", "");
	strcpy(digest, file.digest);
	assert_int_equal(strlen(digest), 64);
	assert_string_equal(file.text, "{\"name\":\"A\",\"n\":[1.0,\"\\u00e9\"]}");
	read_file("{ \"n\" : [ 1, \"é\" ], \"name\" : \"A\" }", "");
	assert_string_equal(file.digest, digest);
	read_file("{\"name\":\"A\",\"n\":[1.1,\"\\u00e9\"]}", "");
	assert_string_not_equal(file.digest, digest);
}

static void the_list_of_faults_says_how_many_it_leaves_out(void **state)
{
	struct buf services;
	const char *conformance;

	(void)state;
	buf_init(&services, arena, 4096);
	for (int i = 0; i < 103; i++)
		buf_puts(&services, i == 0 ? "1" : ",1");
	read_members(arena_printf(arena, "\"services\":[%s]", services.data));
	assert_int_equal(faults.count, 104);
	conformance = registration_file_conformance(arena, &faults);
	assert_non_null(
		strstr(conformance, "{\"pointer\":\"\",\"detail\":\"has 4 more faults\"}]"));
}

/* Naming each value on the way to look for NULs took 30 KiB for each of them: 300 MB of a worker's
 * 64 MB, by one body of 50 KB. */
static void many_values_below_a_long_key_take_little_memory(void **state)
{
	enum { KEY = 30000, VALUES = 10000 };
	struct buf text;

	(void)state;
	buf_init(&text, arena, KEY + 2 * VALUES);
	buf_puts(&text, "\"k");
	for (int i = 0; i < KEY; i++)
		buf_putc(&text, 'k');
	buf_puts(&text, "\":[0");
	for (int i = 1; i < VALUES; i++)
		buf_puts(&text, ",0");
	buf_puts(&text, "],\"looks like a NUL\":\"\\\\u0000\"");
	read_members(text.data);
	assert_int_equal(faults.count, 0);
	assert_true(arena_used(arena) < 8 << 20);
}

static void pointers_below_a_long_key_do_not_fill_the_list(void **state)
{
	enum { KEY = 60000 };
	struct buf text;
	const char *conformance;

	(void)state;
	buf_init(&text, arena, 2 * KEY);
	buf_puts(&text, "\"x\":{\"");
	for (int i = 0; i < KEY; i++)
		buf_putc(&text, 'k');
	buf_puts(&text, "\":[\"\\u0000\"");
	for (int i = 1; i < FAULTS_MOST; i++)
		buf_puts(&text, ",\"\\u0000\"");
	buf_puts(&text, "]}");
	read_members(text.data);
	assert_int_equal(faults.count, FAULTS_MOST);
	conformance = registration_file_conformance(arena, &faults);
	assert_true(strlen(conformance) < 20000);
	assert_string_equal(faults.first->pointer, "/x");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_file_that_is_right_is_read_without_a_fault),
		TEST(name_and_description_suffice),
		TEST(each_oddity_is_one_fault_with_its_pointer),
		TEST(null_and_no_image_mean_absent),
		TEST(a_uri_is_whole_or_absent),
		TEST(skills_are_found_where_sdks_write_them),
		TEST(what_lists_show_is_readable_by_everybody),
		TEST(lists_show_as_much_as_fits),
		TEST(wild_spellings_are_read_where_their_meaning_is_plain),
		TEST(the_standard_spelling_counts_beside_a_wild_one),
		TEST(all_faults_are_named_below_the_base_pointer),
		TEST(long_texts_are_a_fault_and_are_cut_at_whole_characters),
		TEST(nul_is_cut_from_what_is_searched),
		TEST(an_escaped_backslash_before_u0000_is_no_nul),
		TEST(lists_that_are_too_long_are_a_fault),
		TEST(words_for_search_are_bounded),
		TEST(a_file_above_64_kib_is_a_fault_and_read_nevertheless),
		TEST(equal_files_have_equal_digests_and_different_ones_have_not),
		TEST(the_list_of_faults_says_how_many_it_leaves_out),
		TEST(pointers_below_a_long_key_do_not_fill_the_list),
		TEST(many_values_below_a_long_key_take_little_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
