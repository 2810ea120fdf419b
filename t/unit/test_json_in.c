/* SPDX-License-Identifier: Apache-2.0 */
/* Which texts are JSON, what is said of those that are not, and bodies read by a table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "app/problem_list.h"
#include "lib/buf.h"
#include "lib/json_in.h"

static struct arena *arena;

static int set_up(void **state)
{
	(void)state;
	arena = arena_new(4096, 256 << 20);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	arena_free(arena);
	return 0;
}

static struct json_doc accepted(const struct json_rules *rules, const char *text)
{
	struct json_doc doc;
	struct json_error error;

	if (!json_parse(arena, text, strlen(text), rules, &doc, &error))
		fail_msg("%s: refused at %zu: %s", text, error.offset, error.reason);
	return doc;
}

static void refused(const struct json_rules *rules, const char *text, size_t len, size_t offset,
	const char *pointer, const char *reason)
{
	struct json_doc doc;
	struct json_error error;

	if (json_parse(arena, text, len, rules, &doc, &error))
		fail_msg("%s: accepted", text);
	assert_string_equal(error.reason, reason);
	assert_int_equal(error.offset, offset);
	assert_string_equal(error.pointer, pointer);
}

struct refusal {
	const char *text;
	size_t offset;
	const char *pointer;
	const char *reason;
};

static void check_refusals(const struct refusal *refusals, size_t count)
{
	for (size_t i = 0; i < count; i++)
		refused(&json_rules_strict, refusals[i].text, strlen(refusals[i].text),
			refusals[i].offset, refusals[i].pointer, refusals[i].reason);
}

#define CHECK_REFUSALS(list) check_refusals(list, sizeof list / sizeof *list)

static void every_form_of_rfc_8259_is_accepted(void **state)
{
	static const char *const texts[] = { "null", "true", "false", "0", "-0", "1e5", "-1.5E+10",
		"123456789012345678901234567890.5", "\"\"", "[]", "{}", " \t\r\n[ 1 , 2 ] \n",
		"{\"\":{\"\":[[],{}]}}", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\ude00\"",
		"\"\x7f/ \xc2\x80 \xed\x9f\xbf \xef\xbf\xbf \xf4\x8f\xbf\xbf\"" };

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		accepted(&json_rules_strict, texts[i]);
}

static void broken_structure_is_refused_where_it_breaks(void **state)
{
	static const struct refusal refusals[] = {
		{ "", 0, "", "empty" },
		{ " \n ", 3, "", "empty" },
		{ "\xef\xbb\xbf{}", 0, "", "begins with a byte order mark" },
		{ "{} {}", 3, "", "something follows the value" },
		{ "[1]]", 3, "", "something follows the value" },
		{ "[1", 2, "", "the text ends too early" },
		{ "[1 2]", 3, "", "\",\" or \"]\" is expected here" },
		{ "[1,]", 3, "/1", "a value is expected here" },
		{ "[,1]", 1, "/0", "a value is expected here" },
		{ "{\"a\":1,}", 7, "", "a key in double quotes is expected here" },
		{ "{a:1}", 1, "", "a key in double quotes is expected here" },
		{ "{\"a\" 1}", 5, "", "\":\" is expected here" },
		{ "{\"a\":}", 5, "/a", "a value is expected here" },
		{ "{\"a\":1 \"b\":2}", 7, "", "\",\" or \"}\" is expected here" },
		{ "{\"a\":[0,{\"b/~c\":nul}]}", 16, "/a/1/b~1~0c", "a value is expected here" },
		{ "{\"a\":", 5, "/a", "the text ends too early" },
		{ "NaN", 0, "", "a value is expected here" },
		{ "'a'", 0, "", "a value is expected here" },
		{ "// comment\n1", 0, "", "a value is expected here" },
	};

	(void)state;
	CHECK_REFUSALS(refusals);
	refused(&json_rules_strict, "[1]\0", 4, 3, "", "something follows the value");
	refused(&json_rules_strict, "[\0]", 3, 1, "/0", "a value is expected here");
}

static void broken_numbers_are_refused(void **state)
{
	static const struct refusal refusals[] = {
		{ "-", 1, "", "the text ends too early" },
		{ "+1", 0, "", "a value is expected here" },
		{ "01", 1, "", "something follows the value" },
		{ "0x10", 1, "", "something follows the value" },
		{ "[1.]", 3, "/0", "a digit is expected here" },
		{ ".5", 0, "", "a value is expected here" },
		{ "[1e]", 3, "/0", "a digit is expected here" },
		{ "[1e+-1]", 4, "/0", "a digit is expected here" },
		{ "1_000", 1, "", "something follows the value" },
	};

	(void)state;
	CHECK_REFUSALS(refusals);
}

static void broken_strings_are_refused(void **state)
{
	static const struct refusal refusals[] = {
		{ "\"abc", 4, "", "the text ends too early" },
		{ "\"a\\", 3, "", "the text ends too early" },
		{ "\"a\nb\"", 2, "", "a control character stands in a string without an escape" },
		{ "\"\\x41\"", 2, "", "a backslash escapes nothing known" },
		{ "\"\\u12g4\"", 5, "", "four hex digits are expected here" },
		{ "\"\\u12", 5, "", "the text ends too early" },
		{ "{\"a\":\"\\u0000\"}", 8, "/a", "a string holds a NUL" },
		{ "{\"\\u0000\":1}", 4, "", "a string holds a NUL" },
		{ "\"\\ud800\"", 3, "", "half of a surrogate pair stands alone" },
		{ "\"\\udc00\\ud800\"", 3, "", "half of a surrogate pair stands alone" },
		{ "\"\\ud800\\u0041\"", 3, "", "half of a surrogate pair stands alone" },
		{ "\"\\ud800\\\"", 3, "", "half of a surrogate pair stands alone" },
	};

	(void)state;
	CHECK_REFUSALS(refusals);
	refused(&json_rules_strict, "\"a\0b\"", 5, 2, "",
		"a control character stands in a string without an escape");
}

static void invalid_utf8_is_refused_at_its_first_byte(void **state)
{
	static const char *const bad[] = { "\x80", "\xc3", "\xc3(", "\xc0\x80", "\xc1\xbf",
		"\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf",
		"\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xe2\x82", "\xf0\x9f\x98" };

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		const char *text = arena_printf(arena, "{\"key\":[\"0123456789%s\"]}", bad[i]);

		assert_false(utf8_valid(bad[i], strlen(bad[i])));
		refused(&json_rules_strict, text, strlen(text), 19, "/key/0", "not valid UTF-8");
		refused(&json_rules_wild, text, strlen(text), 19, "/key/0", "not valid UTF-8");
	}
	refused(&json_rules_strict, "1 \xff", 3, 2, "", "not valid UTF-8");
	assert_true(utf8_valid("12345678\xe2\x82\xac 9", 13));
	assert_int_equal(utf8_length("a\xe2\x82\xac\xf0\x9f\x98\x80"), 3);
}

static const char *nested(size_t depth)
{
	char *text = arena_alloc(arena, 2 * depth + 1);

	memset(text, '[', depth);
	memset(text + depth, ']', depth);
	return text;
}

static void nesting_is_bounded(void **state)
{
	const char *deep = nested(33), *deepest = nested(500000);
	struct json_doc doc;
	struct json_error error;

	(void)state;
	accepted(&json_rules_strict, nested(32));
	accepted(&json_rules_wild, nested(64));
	assert_false(json_parse(arena, deep, strlen(deep), &json_rules_strict, &doc, &error));
	assert_string_equal(error.reason, "nested deeper than 32");
	assert_int_equal(error.offset, 32);
	assert_false(json_parse(arena, deepest, strlen(deepest), &json_rules_wild, &doc, &error));
	assert_string_equal(error.reason, "nested deeper than 64");
}

/* 1 MiB of empty objects would take hundreds of MiB as a tree. */
static void the_number_of_arrays_and_objects_is_bounded(void **state)
{
	struct json_doc doc;
	struct json_error error;
	struct buf text;

	(void)state;
	buf_init(&text, arena, 1 << 16);
	buf_putc(&text, '[');
	for (int i = 0; i < 9999; i++)
		buf_puts(&text, i == 0 ? "{}" : ",{}");
	assert_true(json_parse(arena, arena_printf(arena, "%s]", text.data), text.len + 1,
		&json_rules_strict, &doc, &error));
	buf_puts(&text, ",[]]");
	assert_false(json_parse(arena, text.data, text.len, &json_rules_strict, &doc, &error));
	assert_string_equal(error.reason, "more than 10000 arrays and objects");
	assert_string_equal(error.pointer, "/9999");
}

static void a_key_that_stands_twice_is_refused_however_it_is_escaped(void **state)
{
	static const struct refusal refusals[] = {
		{ "{\"a\":1,\"a\":1}", 7, "/a", "the key \"a\" stands twice" },
		{ "{\"a\":1,\"b\":2,\"\\u0061\":3}", 13, "/a", "the key \"a\" stands twice" },
		{ "[{\"x\":{\"/\":1,\"\\/\":2}}]", 13, "/0/x/~1", "the key \"/\" stands twice" },
		{ "{\"\":1,\"\":2}", 6, "/", "the key \"\" stands twice" },
	};
	const char *text;

	(void)state;
	CHECK_REFUSALS(refusals);
	accepted(&json_rules_strict, "{\"a\":{\"a\":[{\"a\":1}]},\"A\":1}");

	text = arena_printf(arena, "{\"%059d\xc3\xa9t\":1,\"%059d\xc3\xa9t\":1}", 0, 0);
	refused(&json_rules_strict, text, strlen(text), 68,
		arena_printf(arena, "/%059d\xc3\xa9t", 0),
		arena_printf(arena, "the key \"%059d…\" stands twice", 0));
}

static void a_hostile_object_of_100000_keys_is_read_quickly(void **state)
{
	struct buf text;
	struct json_doc doc;
	clock_t start;

	(void)state;
	buf_init(&text, arena, 2 << 20);
	buf_putc(&text, '{');
	for (int i = 0; i < 100000; i++)
		buf_printf(&text, "%s\"key%d\":%d", i == 0 ? "" : ",", i, i);
	buf_putc(&text, '}');
	start = clock();
	doc = accepted(&json_rules_wild, text.data);
	/* a quadratic search would take minutes */
	assert_true(clock() - start < 5 * CLOCKS_PER_SEC);
	assert_int_equal(doc.member_count, 100000);
	assert_string_equal(json_member(&doc, "key99999")->value.text, "99999");
}

/* A megabyte of zeros is refused after as many values as a body may have, wherever they stand. */
static void a_body_of_too_many_values_is_refused_early(void **state)
{
	const struct json_field known = { .name = "known", .kind = JSON_ARRAY };
	const char *const begins[] = { "{\"known\":[", "{\"unknown\":[" };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct json_error error;
		struct json_doc doc;
		struct buf text;

		buf_init(&text, arena, 1 << 20);
		buf_puts(&text, begins[i]);
		while (text.len < 1 << 20)
			buf_puts(&text, "0,");
		assert_false(json_parse_fields(
			arena, text.data, text.len, &json_rules_strict, &known, 1, &doc, &error));
		assert_string_equal(error.reason, "more than 20000 values");
		assert_true(error.offset <= strlen(begins[i]) + 2 * 20000);
	}
}

/* Its text is checked all the same. */
static void a_member_that_no_field_names_is_not_built(void **state)
{
	const struct json_field known = { .name = "known", .kind = JSON_OBJECT };
	struct buf text;
	struct json_doc doc;
	struct json_error error;
	size_t used;

	(void)state;
	buf_init(&text, arena, 1 << 20);
	buf_puts(&text, "{\"unknown\":[[{\"a\":\"b\",\"a\":true}]");
	for (int i = 0; i < 15000; i++)
		buf_puts(&text, ",-1.5e3");
	buf_puts(&text, "],\"known\":{\"a\":[1]},\"also unknown\":null}");
	used = arena_used(arena);
	assert_true(json_parse_fields(
		arena, text.data, text.len, &json_rules_strict, &known, 1, &doc, &error));
	/* The text itself is kept twice, as one and as that of the root. */
	assert_true(arena_used(arena) - used < 2 * text.len + 8192);
	assert_int_equal(doc.member_count, 3);
	assert_string_equal(doc.members[0].key, "unknown");
	assert_null(doc.members[0].value.object);
	assert_null(json_object_object_get(doc.root.object, "unknown"));
	assert_string_equal(json_member(&doc, "known")->value.text, "{\"a\":[1]}");
	assert_string_equal(doc.members[2].key, "also unknown");
	assert_false(json_parse_fields(
		arena, "{\"unknown\":[1,]}", 16, &json_rules_strict, &known, 1, &doc, &error));
	assert_string_equal(error.pointer, "/unknown/1");
	assert_false(json_parse_fields(
		arena, "{\"u\":1,\"u\":2}", 13, &json_rules_strict, &known, 1, &doc, &error));
	assert_string_equal(error.reason, "the key \"u\" stands twice");
}

static void members_keep_their_order_and_their_own_text(void **state)
{
	struct json_doc doc = accepted(&json_rules_strict,
		" { \"n\" : 1.50e2 , \"o\":{ \"a\" : [ 1 ] },\"s\":\"\\u00e9\",\"z\":null} ");

	(void)state;
	assert_string_equal(doc.root.text,
		"{ \"n\" : 1.50e2 , \"o\":{ \"a\" : [ 1 ] },\"s\":\"\\u00e9\",\"z\":null}");
	assert_int_equal(doc.root.len, strlen(doc.root.text));
	assert_int_equal(doc.member_count, 4);
	assert_string_equal(doc.members[0].key, "n");
	assert_string_equal(doc.members[0].value.text, "1.50e2");
	assert_string_equal(doc.members[1].value.text, "{ \"a\" : [ 1 ] }");
	assert_int_equal(doc.members[1].value.len, 15);
	assert_string_equal(doc.members[2].value.text, "\"\\u00e9\"");
	assert_string_equal(json_object_get_string(doc.members[2].value.object), "é");
	assert_null(json_member(&doc, "z")->value.object);
	assert_string_equal(json_member(&doc, "z")->value.text, "null");
	assert_null(json_member(&doc, "absent"));
	assert_int_equal(accepted(&json_rules_strict, "[{\"a\":1}]").member_count, 0);
}

static void wild_files_keep_nul_and_lose_lone_surrogates(void **state)
{
	struct json_doc doc = accepted(&json_rules_wild,
		"{\"a\":\"x\\u0000y\",\"b\":\"\\ud800\\u0041\\udc00\",\"k\\u0000\":1}");
	struct json_object *a = json_member(&doc, "a")->value.object;

	(void)state;
	assert_int_equal(json_object_get_string_len(a), 3);
	assert_memory_equal(json_object_get_string(a), "x\0y", 3);
	assert_string_equal(json_object_get_string(json_member(&doc, "b")->value.object),
		"\xef\xbf\xbd"
		"A\xef\xbf\xbd");
	assert_non_null(json_member(&doc, "k\xef\xbf\xbd"));
}

static const char *canonical(const char *text)
{
	struct json_doc doc = accepted(&json_rules_wild, text);
	size_t len;
	const char *result = json_canonical(arena, doc.root.object, &len);

	assert_int_equal(len, strlen(result));
	return result;
}

static void equal_files_have_one_canonical_text(void **state)
{
	static const char *const pairs[][2] = {
		{ " { \"b\" : [ 1 , true ] , \"a\" : { \"d\":null, \"c\":\"\\u0041\\/\" } } ",
			"{\"a\":{\"c\":\"A/\",\"d\":null},\"b\":[1,true]}" },
		{ "\"\\u0000\\u00e9\\n\"", "\"\\u0000é\\n\"" },
		{ "{\"é\":1,\"z\":2,\"Z\":3,\"\":4}", "{\"\":4,\"Z\":3,\"z\":2,\"é\":1}" },
		{ "100", "1e2" },
		{ "100.0", "1e2" },
		{ "0.01E+4", "1e2" },
		{ "-0.0e99999999999999999999", "0" },
		{ "-12.50", "-125e-1" },
		{ "18446744073709551615", "18446744073709551615" },
		{ "18446744073709551616", "18446744073709551616" },
		{ "-9223372036854775809", "-9223372036854775809" },
		{ "1e400", "1e400" },
		{ "1E0000000000000000000400", "1e400" },
		{ "1E-1234567890123456", "1E-1234567890123456" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
		assert_string_equal(canonical(pairs[i][0]), pairs[i][1]);
		assert_string_equal(canonical(pairs[i][1]), pairs[i][1]);
	}
}

static void different_big_numbers_stay_different(void **state)
{
	(void)state;
	assert_string_not_equal(canonical("[123456789012345678901234567890]"),
		canonical("[123456789012345678901234567891]"));
	assert_string_not_equal(canonical("0.1000000000000000000000001"), canonical("0.1"));
	assert_string_not_equal(canonical("1e999"), canonical("1e998"));
}

/* ---- Bodies ---- */

struct body {
	const char *name, *owner, *hash, *uuid, *uri, *count, *value, *score, *amount, *flag, *word,
		*time;
	struct json_text file, list;
	struct json_words scopes;
};

static const char *const words[] = { "pending", "verified", NULL };

static const struct json_field fields[] = {
	{ "name", JSON_STRING, true, offsetof(struct body, name), 1, 5, NULL, NULL },
	{ "owner", JSON_ADDRESS, false, offsetof(struct body, owner), 0, 0, PROBLEM_INVALID_ADDRESS,
		NULL },
	{ "hash", JSON_HASH, false, offsetof(struct body, hash), 0, 0, NULL, NULL },
	{ "uuid", JSON_UUID, false, offsetof(struct body, uuid), 0, 0, NULL, NULL },
	{ "uri", JSON_URI, false, offsetof(struct body, uri), 0, 30, NULL, NULL },
	{ "count", JSON_INTEGER, false, offsetof(struct body, count), -5, 18, NULL, NULL },
	{ "value", JSON_VALUE, false, offsetof(struct body, value), 0, 0, NULL, NULL },
	{ "score", JSON_DECIMAL, false, offsetof(struct body, score), 0, 100, PROBLEM_INVALID_SCORE,
		NULL },
	{ "amount", JSON_AMOUNT, false, offsetof(struct body, amount), 0, 1000000, NULL, NULL },
	{ "flag", JSON_BOOL, false, offsetof(struct body, flag), 0, 0, NULL, NULL },
	{ "word", JSON_STRING, false, offsetof(struct body, word), 0, 0, NULL, words },
	{ "file", JSON_OBJECT, false, offsetof(struct body, file), 0, 0, NULL, NULL },
	{ "list", JSON_ARRAY, false, offsetof(struct body, list), 1, 2, NULL, NULL },
	{ "time", JSON_TIME, false, offsetof(struct body, time), 0, 0, NULL, NULL },
	{ "scopes", JSON_WORDS, false, offsetof(struct body, scopes), 0, 2, NULL, words },
};

static bool read_body(const char *text, struct body *body, struct faults *faults)
{
	struct json_doc doc = accepted(&json_rules_wild, text);

	memset(body, 0xaa, sizeof *body);
	faults_init(faults, arena, PROBLEM_VALIDATION_FAILED);
	return json_read(&doc, fields, sizeof fields / sizeof *fields, body, faults);
}

static void a_good_body_is_read_whole(void **state)
{
	struct body body;
	struct faults faults;

	(void)state;
	assert_true(read_body("{\"name\":\"été\",\"owner\":"
			      "\"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\","
			      "\"uuid\":\"A0000000-0000-4000-8000-00000000000F\","
			      "\"uri\":\"https://[::1]:80/a?b=%20#c\",\"count\":-0,"
			      "\"value\":-100000000000000000000000000000000000000,"
			      "\"score\":50.25,\"amount\":\"0.000001\",\"flag\":false,"
			      "\"word\":\"verified\",\"file\":{ },\"list\":[1, 2],\"hash\":null}",
		&body, &faults));
	assert_int_equal(faults.count, 0);
	assert_string_equal(body.name, "été");
	assert_string_equal(body.owner, "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed");
	assert_string_equal(body.uuid, "a0000000-0000-4000-8000-00000000000f");
	assert_string_equal(body.uri, "https://[::1]:80/a?b=%20#c");
	assert_string_equal(body.count, "0");
	assert_string_equal(body.value, "-100000000000000000000000000000000000000");
	assert_string_equal(body.score, "50.25");
	assert_string_equal(body.amount, "0.000001");
	assert_string_equal(body.flag, "false");
	assert_string_equal(body.word, "verified");
	assert_string_equal(body.file.text, "{ }");
	assert_string_equal(body.list.text, "[1, 2]");
	assert_null(body.hash);
}

static void what_a_body_leaves_out_is_empty(void **state)
{
	struct body body;
	struct faults faults;

	(void)state;
	assert_true(read_body("{\"name\":\"x\",\"file\":null}", &body, &faults));
	assert_null(body.owner);
	assert_null(body.count);
	assert_null(body.file.object);
	assert_null(body.list.object);
}

/* Each body has one fault; `name` is good unless it is what is wrong. */
static void each_fault_is_named_with_its_pointer(void **state)
{
	static const struct {
		const char *member, *pointer, *detail;
	} cases[] = {
		{ "\"owner\":1", "/owner", "is not a string" },
		{ "\"owner\":\"0x12\"", "/owner", "not 0x and 40 hex digits" },
		{ "\"owner\":\"0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\"", "/owner",
			"the EIP-55 checksum is wrong" },
		{ "\"hash\":\"0x\"", "/hash", "not 0x and 64 hex digits" },
		{ "\"uuid\":\"a0000000-0000-4000-8000-00000000000\"", "/uuid", "not a UUID" },
		{ "\"uuid\":\"a00000000000-4000-8000-000000000000-\"", "/uuid", "not a UUID" },
		{ "\"uri\":\"\"", "/uri", "not an absolute URI" },
		{ "\"uri\":\"/path\"", "/uri", "not an absolute URI" },
		{ "\"uri\":\"https:///x\"", "/uri", "a URI without a host" },
		{ "\"uri\":\"https://a/b c\"", "/uri",
			"holds a character that must be escaped in a URI" },
		{ "\"uri\":\"https://a/%2\"", "/uri",
			"holds a character that must be escaped in a URI" },
		{ "\"uri\":\"ipfs://a#b#c\"", "/uri",
			"holds a character that must be escaped in a URI" },
		{ "\"uri\":\"https://a/[b]\"", "/uri",
			"holds a character that must be escaped in a URI" },
		{ "\"uri\":\"https://example.com/01234567890\"", "/uri",
			"is longer than 30 characters" },
		{ "\"count\":\"1\"", "/count", "is not a number" },
		{ "\"count\":1.0", "/count", "is not an integer in plain digits" },
		{ "\"count\":1e1", "/count", "is not an integer in plain digits" },
		{ "\"count\":19", "/count", "is not within -5..18" },
		{ "\"count\":-6", "/count", "is not within -5..18" },
		{ "\"count\":123456789012345678901234567890123456789012", "/count",
			"is not within -5..18" },
		{ "\"count\":-18446744073709551616", "/count", "is not within -5..18" },
		{ "\"value\":1.5", "/value", "not an integer without leading zeros" },
		{ "\"value\":100000000000000000000000000000000000001", "/value",
			"not within -1e38..1e38" },
		{ "\"value\":true", "/value", "is not a number" },
		{ "\"score\":100.01", "/score", "is not within 0..100" },
		{ "\"score\":-0.01", "/score", "is not within 0..100" },
		{ "\"score\":50.123", "/score", "has more than 2 digits behind the point" },
		{ "\"score\":5e1", "/score", "is not a decimal number in plain digits" },
		{ "\"amount\":\"1.1234567\"", "/amount",
			"has more than 6 digits behind the point" },
		{ "\"amount\":\"01\"", "/amount", "is not a decimal number in plain digits" },
		{ "\"amount\":\"1.\"", "/amount", "is not a decimal number in plain digits" },
		{ "\"amount\":\"\"", "/amount", "is not a decimal number in plain digits" },
		{ "\"amount\":\"1 \"", "/amount", "is not a decimal number in plain digits" },
		{ "\"amount\":\"1.2.3\"", "/amount", "is not a decimal number in plain digits" },
		{ "\"amount\":1000000.000001", "/amount", "is not within 0..1000000" },
		{ "\"amount\":-0.000001", "/amount", "is not within 0..1000000" },
		{ "\"amount\":1e-7", "/amount", "has more than 6 digits behind the point" },
		{ "\"amount\":1234567e-7", "/amount", "has more than 6 digits behind the point" },
		{ "\"amount\":1e-99999999999999999999", "/amount",
			"has more than 6 digits behind the point" },
		{ "\"amount\":1e99999999999999999999", "/amount", "is not within 0..1000000" },
		{ "\"amount\":99999999999999999e-11", "/amount", /* a double would round it */
			"has more than 6 digits behind the point" },
		{ "\"amount\":10000001e-1", "/amount", "is not within 0..1000000" },
		{ "\"amount\":-1e-6", "/amount", "is not within 0..1000000" },
		{ "\"amount\":\"1e-5\"", "/amount", "is not a decimal number in plain digits" },
		{ "\"amount\":[]", "/amount", "is not a decimal number, as a string or a number" },
		{ "\"flag\":\"true\"", "/flag", "is not true or false" },
		{ "\"word\":\"Verified\"", "/word", "is not one of pending, verified" },
		{ "\"word\":\"pending\\u0000\"", "/word", "holds a NUL" },
		{ "\"file\":[]", "/file", "is not an object" },
		{ "\"list\":{}", "/list", "is not an array" },
		{ "\"list\":[]", "/list", "has fewer than 1 elements" },
		{ "\"list\":[1,2,3]", "/list", "has more than 2 elements" },
		{ "\"time\":\"2026-02-30T00:00:00Z\"", "/time",
			"not an RFC 3339 time such as 2026-03-01T12:00:00Z" },
		{ "\"time\":1772366400", "/time", "is not a string" },
		{ "\"scopes\":\"pending\"", "/scopes", "is not an array" },
		{ "\"scopes\":[\"pending\",\"other\"]", "/scopes/1",
			"is not one of pending, verified" },
		{ "\"scopes\":[null]", "/scopes/0", "is not a string" },
		{ "\"scopes\":[\"pending\",\"pending\"]", "/scopes/1", "stands twice" },
		{ "\"scopes\":[1,2,3]", "/scopes", "has more than 2 elements" },
		{ "\"a/b\":1", "/a~1b", "is not a field of this request" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct body body;
		struct faults faults;
		const char *text = arena_printf(arena, "{\"name\":\"x\",%s}", cases[i].member);

		if (read_body(text, &body, &faults))
			fail_msg("%s: accepted", text);
		assert_int_equal(faults.count, 1);
		assert_string_equal(faults.first->pointer, cases[i].pointer);
		assert_string_equal(faults.first->detail, cases[i].detail);
	}
}

static void an_empty_list_of_words_differs_from_none(void **state)
{
	struct body body;
	struct faults faults;

	(void)state;
	assert_true(read_body("{\"name\":\"x\",\"time\":\"2027-01-31T00:00:00Z\","
			      "\"scopes\":[\"verified\",\"pending\"]}",
		&body, &faults));
	assert_string_equal(body.time, "2027-01-31T00:00:00Z");
	assert_int_equal(body.scopes.count, 2);
	assert_string_equal(body.scopes.texts[0], "verified");
	assert_string_equal(body.scopes.texts[1], "pending");
	assert_true(read_body("{\"name\":\"x\",\"scopes\":[]}", &body, &faults));
	assert_int_equal(body.scopes.count, 0);
	assert_non_null(body.scopes.texts);
	assert_null(body.time);
	assert_true(read_body("{\"name\":\"x\",\"scopes\":null}", &body, &faults));
	assert_null(body.scopes.texts);
}

static void an_amount_is_a_number_in_any_notation(void **state)
{
	static const char *const amounts[][2] = { { "1e-05", "0.00001" }, { "1E-6", "0.000001" },
		{ "0.1e-5", "0.000001" }, { "1.0000000", "1" }, { "12.50", "12.5" },
		{ "1e5", "100000" }, { "1.234567E+1", "12.34567" },
		{ "1000000000000e-6", "1000000" }, { "123456.789012", "123456.789012" },
		{ "0e99", "0" }, { "-0.0e-9", "0" }, { "100", "100" } };

	(void)state;
	for (size_t i = 0; i < sizeof amounts / sizeof *amounts; i++) {
		struct body body;
		struct faults faults;

		if (!read_body(arena_printf(arena, "{\"name\":\"x\",\"amount\":%s}", amounts[i][0]),
			    &body, &faults))
			fail_msg("%s: %s", amounts[i][0], faults.first->detail);
		assert_string_equal(body.amount, amounts[i][1]);
	}
}

static void the_bounds_themselves_are_allowed(void **state)
{
	static const char *const members[] = { "\"count\":-5", "\"count\":18", "\"score\":0",
		"\"score\":100", "\"score\":100.00", "\"score\":0.01", "\"amount\":1000000",
		"\"amount\":\"1000000.000000\"", "\"amount\":0", "\"value\":0", "\"list\":[1]",
		"\"uri\":\"https://example.com/0123456789\"", "\"uri\":\"data:,\"" };

	(void)state;
	for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
		struct body body;
		struct faults faults;

		if (!read_body(arena_printf(arena, "{\"name\":\"12345\",%s}", members[i]), &body,
			    &faults))
			fail_msg("%s: %s", members[i], faults.first->detail);
	}
}

static void all_faults_come_in_one_answer_with_their_codes(void **state)
{
	struct body body;
	struct faults faults;
	const struct fault *fault;

	(void)state;
	assert_false(read_body(
		"{\"extra\":1,\"score\":\"high\",\"owner\":null,\"name\":\"\"}", &body, &faults));
	assert_int_equal(faults.count, 3);
	fault = faults.first;
	assert_string_equal(fault->pointer, "/name");
	assert_string_equal(fault->detail, "is empty");
	assert_ptr_equal(fault->problem, PROBLEM_VALIDATION_FAILED);
	fault = fault->next;
	assert_string_equal(fault->pointer, "/score");
	assert_string_equal(fault->detail, "is not a number");
	assert_ptr_equal(fault->problem, PROBLEM_INVALID_SCORE);
	fault = fault->next;
	assert_string_equal(fault->pointer, "/extra");
	assert_null(fault->next);

	assert_false(read_body("{}", &body, &faults));
	assert_string_equal(faults.first->detail, "is missing");
	assert_false(read_body("{\"name\":null}", &body, &faults));
	assert_string_equal(faults.first->detail, "is null");
	assert_false(read_body("{\"name\":\"éééééé\"}", &body, &faults));
	assert_string_equal(faults.first->detail, "is longer than 5 characters");
	assert_false(read_body("[]", &body, &faults));
	assert_int_equal(faults.count, 1);
	assert_string_equal(faults.first->pointer, "");
	assert_string_equal(faults.first->detail, "is not an object");
}

static void faults_past_the_hundredth_are_counted_but_not_kept(void **state)
{
	struct faults faults;
	struct body body;
	struct buf text;
	size_t kept = 0;

	(void)state;
	buf_init(&text, arena, 4096);
	buf_puts(&text, "{\"name\":\"x\"");
	for (int i = 0; i < 150; i++)
		buf_printf(&text, ",\"k%d\":1", i);
	buf_putc(&text, '}');
	assert_false(read_body(text.data, &body, &faults));
	assert_int_equal(faults.count, 150);
	for (const struct fault *fault = faults.first; fault != NULL; fault = fault->next)
		kept++;
	assert_int_equal(kept, FAULTS_MOST);
	assert_string_equal(faults.last->pointer, "/k99");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_form_of_rfc_8259_is_accepted),
		TEST(broken_structure_is_refused_where_it_breaks),
		TEST(broken_numbers_are_refused),
		TEST(broken_strings_are_refused),
		TEST(invalid_utf8_is_refused_at_its_first_byte),
		TEST(nesting_is_bounded),
		TEST(the_number_of_arrays_and_objects_is_bounded),
		TEST(a_key_that_stands_twice_is_refused_however_it_is_escaped),
		TEST(a_hostile_object_of_100000_keys_is_read_quickly),
		TEST(a_body_of_too_many_values_is_refused_early),
		TEST(a_member_that_no_field_names_is_not_built),
		TEST(members_keep_their_order_and_their_own_text),
		TEST(wild_files_keep_nul_and_lose_lone_surrogates),
		TEST(equal_files_have_one_canonical_text),
		TEST(different_big_numbers_stay_different),
		TEST(a_good_body_is_read_whole),
		TEST(what_a_body_leaves_out_is_empty),
		TEST(each_fault_is_named_with_its_pointer),
		TEST(an_empty_list_of_words_differs_from_none),
		TEST(an_amount_is_a_number_in_any_notation),
		TEST(the_bounds_themselves_are_allowed),
		TEST(all_faults_come_in_one_answer_with_their_codes),
		TEST(faults_past_the_hundredth_are_counted_but_not_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
