/* SPDX-License-Identifier: Apache-2.0 */
/* What somebody who writes a configuration is told about it, by a small table of keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/conf.h"

enum taste { SWEET, SOUR };

struct values {
	int size;
	int64_t big;
	int wait_ms;
	size_t room;
	bool host;
	enum taste taste;
	const char *label;
	const char *password;
};

struct pot {
	uint64_t id;
	const char *const *lids;
};

static const char *const tastes[] = { "sweet", "sour", NULL };

static const char *upper_case(struct arena *arena, const char *text, const char **value)
{
	char *copy = arena_strdup(arena, text);

	if (strpbrk(text, "0123456789") != NULL)
		return "has a digit in it";
	for (char *at = copy; *at != '\0'; at++)
		if (*at >= 'a' && *at <= 'z')
			*at = (char)(*at - 'a' + 'A');
	*value = copy;
	return NULL;
}

static const char *hide(struct arena *arena, const char *text)
{
	(void)arena, (void)text;
	return "****";
}

#define AT(member) offsetof(struct values, member)
static const struct conf_key top_keys[] = {
	{ "size", CONF_INT, AT(size), "3", 1, 10, .help = "How large." },
	{ "big", CONF_INT64, AT(big), "-1", INT64_MIN, INT64_MAX, .help = "Any number." },
	{ "wait", CONF_DURATION, AT(wait_ms), "1500ms", 0, 7200000, .help = "How long." },
	{ "room", CONF_SIZE, AT(room), "3m", 1024, INT64_C(3) << 30, .help = "How much." },
	{ "hot", CONF_BOOL, AT(host), "on", .help = "Whether." },
	{ "taste", CONF_WORD, AT(taste), "sour", .words = tastes, .help = "Which." },
	{ "label", CONF_TEXT, AT(label), .may_be_empty = true, .help = "What." },
	{ "password", CONF_TEXT, AT(password), .check = upper_case, .mask = hide, .required = true,
		.help = "Psst." },
};
static const struct conf_key pot_keys[] = {
	{ "id", CONF_INT64, offsetof(struct pot, id), NULL, 1, 99, .required = true,
		.help = "Which one." },
	{ "lids", CONF_LIST, offsetof(struct pot, lids), "", .check = upper_case,
		.may_be_empty = true, .help = "Its lids." },
};
static const char *const known[] = { "id", "7", NULL };
static const struct conf_alias aliases[] = {
	{ "OLD_SIZE", NULL, "size", NULL },
	{ "OLD_LIDS", "red-pot", "lids", known },
};
static const char *const others[] = { "K_OTHER", "K_TEST_*", NULL };
static const struct conf_schema schema = {
	.top = { top_keys, sizeof top_keys / sizeof top_keys[0] },
	.kind = "pot",
	.section = { pot_keys, sizeof pot_keys / sizeof pot_keys[0] },
	.section_size = sizeof(struct pot),
	.prefix = "K_",
	.aliases = aliases,
	.alias_count = sizeof aliases / sizeof aliases[0],
	.other_variables = others,
};

struct reading {
	struct arena *arena;
	struct conf conf;
	struct values values;
};

static char folder[] = "/tmp/areg-test-conf-XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) == NULL ? -1 : chdir(folder);
}

static int remove_folder(void **state)
{
	(void)state;
	unlink("k.conf");
	return rmdir(folder);
}

static int new_reading(void **state)
{
	static struct reading reading;

	reading.arena = arena_new(1024, 2 * 1024 * 1024);
	*state = &reading;
	return 0;
}

static int end_reading(void **state)
{
	struct reading *reading = *state;

	arena_free(reading->arena);
	return 0;
}

static void begin(struct reading *reading)
{
	memset(&reading->values, 0, sizeof reading->values);
	conf_init(&reading->conf, reading->arena, &schema, &reading->values, "k.conf");
}

/* Reads the bytes as a file k.conf in the folder of this test. */
static bool read_bytes(struct reading *reading, const char *bytes, size_t len, int *error)
{
	FILE *file = fopen("k.conf", "w");
	bool done;

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
	begin(reading);
	done = conf_read_file(&reading->conf, "k.conf");
	*error = errno;
	return done;
}

static void read_text(struct reading *reading, const char *text)
{
	int error;

	assert_true(read_bytes(reading, text, strlen(text), &error));
}

/* All faults, one a line. */
static const char *faults(const struct reading *reading)
{
	static char all[64 * 1024];
	size_t len = 0;

	all[0] = '\0';
	for (const struct conf_fault *fault = reading->conf.faults; fault != NULL;
		fault = fault->next) {
		len += (size_t)snprintf(
			all + len, sizeof all - len, "%s: %s\n", fault->where, fault->why);
		assert_true(len < sizeof all);
	}
	return all;
}

static void assert_refused(struct reading *reading, const char *text, const char *expected)
{
	read_text(reading, text);
	assert_string_equal(faults(reading), expected);
}

static void test_nothing_said_leaves_the_defaults(void **state)
{
	struct reading *reading = *state;

	read_text(reading, "");
	assert_string_equal(faults(reading), "");
	assert_int_equal(reading->values.size, 3);
	assert_int_equal(reading->values.big, -1);
	assert_int_equal(reading->values.wait_ms, 1500);
	assert_int_equal(reading->values.room, 3 * 1024 * 1024);
	assert_true(reading->values.host);
	assert_int_equal(reading->values.taste, SOUR);
	assert_null(reading->values.label);
	conf_check_required(&reading->conf);
	assert_string_equal(
		faults(reading), "k.conf: password is required; set it here or as K_PASSWORD\n");
}

static void test_every_kind_of_value_is_read(void **state)
{
	struct reading *reading = *state;
	const struct pot *pot;

	read_text(reading,
		"\xef\xbb\xbf# comment\r\n\r\nsize=10\r\n  big = -9223372036854775808 \t\n"
		"wait\t=\t2m\nhot = off\ntaste = sweet\nlabel = a = \"b\" # c\n"
		"password = \"  pass \\\"\\\\ \"\n"
		"[pot red]\nid = 99\nlids = one, two,three  four ,\n[ pot  x-2 ]\nid = 1");
	assert_string_equal(faults(reading), "");
	assert_int_equal(reading->values.size, 10);
	assert_int_equal(reading->values.big, INT64_MIN);
	assert_int_equal(reading->values.wait_ms, 120000);
	assert_false(reading->values.host);
	assert_int_equal(reading->values.taste, SWEET);
	assert_string_equal(reading->values.label, "a = \"b\" # c");
	assert_string_equal(reading->values.password, "  PASS \"\\ ");
	assert_int_equal(reading->conf.section_count, 2);
	assert_string_equal(reading->conf.sections->name, "red");
	pot = reading->conf.sections->values;
	assert_int_equal(pot->id, 99);
	assert_string_equal(pot->lids[0], "ONE");
	assert_string_equal(pot->lids[1], "TWO");
	assert_string_equal(pot->lids[2], "THREE");
	assert_string_equal(pot->lids[3], "FOUR");
	assert_null(pot->lids[4]);
	assert_string_equal(reading->conf.sections->next->name, "x-2");
	pot = reading->conf.sections->next->values;
	assert_null(pot->lids[0]);
}

static void test_durations_are_exact_in_each_unit(void **state)
{
	static const struct {
		const char *line;
		int ms;
	} cases[] = { { "wait = 0s", 0 }, { "wait = 1ms", 1 }, { "wait = 7s", 7000 },
		{ "wait = 90m", 5400000 }, { "wait = 2h", 7200000 } };
	struct reading *reading = *state;

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_refused(reading, cases[i].line, "");
		assert_int_equal(reading->values.wait_ms, cases[i].ms);
	}
}

static void test_sizes_are_exact_in_each_unit(void **state)
{
	static const struct {
		const char *line;
		size_t bytes;
	} cases[] = { { "room = 1k", 1024 }, { "room = 1025k", 1025 * 1024 },
		{ "room = 64m", 64 * 1024 * 1024 }, { "room = 3g", (size_t)3 << 30 } };
	struct reading *reading = *state;

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_refused(reading, cases[i].line, "");
		assert_int_equal(reading->values.room, cases[i].bytes);
	}
	assert_refused(reading, "room = 0k", "k.conf:1: room: 0k is not within 1k..3g\n");
	assert_refused(reading, "room = 3073m", "k.conf:1: room: 3073m is not within 1k..3g\n");
	assert_refused(reading, "room = 9223372036854775807g",
		"k.conf:1: room: 9223372036854775807g is not within 1k..3g\n");
	assert_refused(reading, "room = 64", "k.conf:1: room: \"64\" has no unit (k, m or g)\n");
	assert_refused(reading, "room = 64M",
		"k.conf:1: room: \"64M\" is not a size such as 512k, 64m or 1g\n");
}

static void test_wrong_values_are_refused_with_line_and_reason(void **state)
{
	struct reading *reading = *state;

	assert_refused(reading, "size = 0", "k.conf:1: size: 0 is not within 1..10\n");
	assert_refused(reading, "\nsize = 11", "k.conf:2: size: 11 is not within 1..10\n");
	assert_refused(reading, "size = 99999999999999999999",
		"k.conf:1: size: 99999999999999999999 is not within 1..10\n");
	assert_refused(reading, "size = 4x", "k.conf:1: size: \"4x\" is not a whole number\n");
	assert_refused(reading, "size = +4", "k.conf:1: size: \"+4\" is not a whole number\n");
	assert_refused(reading, "size = ", "k.conf:1: size: the value is empty\n");
	assert_refused(reading, "size = \"\"", "k.conf:1: size: the value is empty\n");
	assert_refused(
		reading, "wait = 30", "k.conf:1: wait: \"30\" has no unit (ms, s, m or h)\n");
	assert_refused(reading, "wait = 1d",
		"k.conf:1: wait: \"1d\" is not a duration such as 500ms, 30s, 5m or 1h\n");
	assert_refused(reading, "wait = s",
		"k.conf:1: wait: \"s\" is not a duration such as 500ms, 30s, 5m or 1h\n");
	assert_refused(reading, "wait = -1s", "k.conf:1: wait: -1s is not within 0s..2h\n");
	assert_refused(reading, "wait = 121m", "k.conf:1: wait: 121m is not within 0s..2h\n");
	assert_refused(reading, "wait = 9223372036854775807h",
		"k.conf:1: wait: 9223372036854775807h is not within 0s..2h\n");
	assert_refused(reading, "hot = yes", "k.conf:1: hot: \"yes\" is neither on nor off\n");
	assert_refused(
		reading, "taste = Sour", "k.conf:1: taste: \"Sour\" is not one of sweet, sour\n");
	assert_refused(
		reading, "[pot a]\nlids = a b2 c", "k.conf:2: lids: \"b2\" has a digit in it\n");
}

static void test_refused_value_leaves_the_default(void **state)
{
	struct reading *reading = *state;

	assert_refused(reading, "size = 11", "k.conf:1: size: 11 is not within 1..10\n");
	assert_int_equal(reading->values.size, 3);
}

static void test_broken_lines_are_refused_with_line_and_reason(void **state)
{
	struct reading *reading = *state;

	assert_refused(reading, "size 4",
		"k.conf:1: no = in this line, which is neither a comment nor a section header\n");
	assert_refused(reading, "Size = 4",
		"k.conf:1: what stands before the = is not a key (lower-case letters, digits, _)\n");
	assert_refused(reading, "= 4",
		"k.conf:1: what stands before the = is not a key (lower-case letters, digits, _)\n");
	assert_refused(
		reading, "label = \"a", "k.conf:1: label: the quoted value has no closing quote\n");
	assert_refused(reading, "label = \"a\\",
		"k.conf:1: label: in quotes, a backslash stands only before \" or another \\\n");
	assert_refused(reading, "label = \"a\\n\"",
		"k.conf:1: label: in quotes, a backslash stands only before \" or another \\\n");
	assert_refused(reading, "label = \"a\" # b",
		"k.conf:1: label: something stands behind the closing quote\n");
	assert_refused(reading, "size = 1\nbig = 2\nsize = 1\n",
		"k.conf:3: size stands twice, first at k.conf:1\n");
	assert_refused(reading, "label = \xff", "k.conf:1: the line is not valid UTF-8\n");
	assert_refused(reading, "# \xc3", "k.conf:1: the line is not valid UTF-8\n");
	assert_refused(
		reading, "label = a\x1b[1m", "k.conf:1: the line holds a control character\n");
	assert_refused(
		reading, "label = a\rsize = 1", "k.conf:1: the line holds a control character\n");
}

static void test_unknown_keys_are_refused_with_the_likely_one(void **state)
{
	struct reading *reading = *state;

	assert_refused(reading, "sise = 4", "k.conf:1: unknown key sise; did you mean size?\n");
	assert_refused(
		reading, "passwd = A", "k.conf:1: unknown key passwd; did you mean password?\n");
	assert_refused(reading, "colour = red", "k.conf:1: unknown key colour\n");
	assert_refused(reading, "id = 1", "k.conf:1: id belongs into a [pot NAME] section\n");
	assert_refused(
		reading, "[pot a]\nsize = 1", "k.conf:2: size belongs before the first section\n");
}

static void test_broken_sections_are_refused_and_their_lines_still_checked(void **state)
{
	struct reading *reading = *state;

	assert_refused(reading, "[pot a\nid = 0", "k.conf:1: a section header ends in ]\n");
	assert_refused(
		reading, "[]\nid = 0", "k.conf:1: unknown section; sections are [pot NAME]\n");
	assert_refused(reading, "[pan a]\nid\n",
		"k.conf:1: unknown section [pan]; sections are [pot NAME]\n"
		"k.conf:2: no = in this line, which is neither a comment nor a section header\n");
	assert_refused(reading, "[pot]\n",
		"k.conf:1: [pot NAME]: \"\" is not 1 to 32 lower-case letters, digits and hyphens\n");
	assert_refused(reading, "[pot A]\nid = 0\nlid = a\n",
		"k.conf:1: [pot NAME]: \"A\" is not 1 to 32 lower-case letters, digits and hyphens\n"
		"k.conf:2: id: 0 is not within 1..99\n"
		"k.conf:3: unknown key lid; did you mean lids?\n");
	assert_refused(reading, "[pot abcdefghijklmnopqrstuvwxyz-01234]", "");
	assert_refused(reading, "[pot abcdefghijklmnopqrstuvwxyz-012345]",
		"k.conf:1: [pot NAME]: \"abcdefghijklmnopqrstuvwxyz-012345\" is not 1 to 32 lower-case "
		"letters, digits and hyphens\n");
	assert_refused(reading, "[pot a]\nid = 1\n[pot b]\n[pot a]\nid = 2\nid = 100\n",
		"k.conf:4: [pot a] stands twice, first at k.conf:1\n"
		"k.conf:6: id stands twice, first at k.conf:5\n");
	conf_check_required(&reading->conf);
	assert_int_equal(reading->conf.section_count, 2);
	assert_string_equal(faults(reading),
		"k.conf:4: [pot a] stands twice, first at k.conf:1\n"
		"k.conf:6: id stands twice, first at k.conf:5\n"
		"k.conf: password is required; set it here or as K_PASSWORD\n"
		"k.conf:3: [pot b] has no id\n");
}

static void test_secrets_stand_in_no_fault(void **state)
{
	static const char *const texts[] = { "password = hunter2\n", "password = \"hunter\n",
		"password = \"hunter\" 2\n", "password hunter\n", "hunter:x@y=1\n", "[hunter!]\n",
		"password = \"hunter\\x\"\n", "password = hunter\x01\n" };
	struct reading *reading = *state;
	char *environment[] = { "K_PASSWORD=hunter2", NULL };

	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		read_text(reading, texts[i]);
		assert_int_equal(reading->conf.fault_count, 1);
		assert_null(strstr(faults(reading), "hunter"));
	}
	begin(reading);
	conf_read_environment(&reading->conf, environment);
	assert_string_equal(faults(reading),
		"environment variable K_PASSWORD: password: the value has a digit in it\n");
}

static void test_nul_byte_and_long_line_are_refused(void **state)
{
	struct reading *reading = *state;
	static char line[CONF_LINE_MAX + 1];
	int error;

	assert_true(read_bytes(reading, "size = 4\nlabel = a\0b\nsize = x", 29, &error));
	assert_string_equal(faults(reading),
		"k.conf:2: the line holds a NUL byte\nk.conf:3: size stands twice, first at k.conf:1\n");

	memset(line, 'a', sizeof line);
	memcpy(line, "label = ", 8);
	assert_true(read_bytes(reading, line, CONF_LINE_MAX, &error));
	assert_string_equal(faults(reading), "");
	assert_int_equal(strlen(reading->values.label), CONF_LINE_MAX - 8);
	assert_true(read_bytes(reading, line, CONF_LINE_MAX + 1, &error));
	assert_string_equal(faults(reading), "k.conf:1: the line is longer than 4096 bytes\n");
}

static void test_long_values_are_quoted_cut_at_a_whole_character(void **state)
{
	struct reading *reading = *state;

	read_text(reading,
		"size = aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeefffffffff\xe2\x82\xac!");
	assert_string_equal(faults(reading),
		"k.conf:1: size: \"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeefffffffff\xe2\x80\xa6\" "
		"is not a whole number\n");
}

static void test_file_that_cannot_be_read_says_why(void **state)
{
	struct reading *reading = *state;
	static char bytes[CONF_FILE_MAX + 1];
	int error;

	begin(reading);
	assert_false(conf_read_file(&reading->conf, "/nowhere/k.conf"));
	assert_int_equal(errno, ENOENT);
	assert_false(conf_read_file(&reading->conf, "/tmp"));
	assert_int_equal(errno, EISDIR);
	memset(bytes, '\n', sizeof bytes);
	assert_true(read_bytes(reading, bytes, CONF_FILE_MAX, &error));
	assert_false(read_bytes(reading, bytes, CONF_FILE_MAX + 1, &error));
	assert_int_equal(error, EFBIG);
	assert_string_equal(faults(reading), "");
}

/* The arena of these tests ends the program when 2 MiB are not enough. */
static void test_worst_files_stay_within_two_mebibytes(void **state)
{
	struct reading *reading = *state;
	static char bytes[CONF_FILE_MAX + 64];
	static const char *const fillers[] = { "[\n", "#\n", "x\n", "size=1\n", "[pot %zu]\n",
		"[pot a]\n" };
	size_t len;
	int error;

	for (size_t f = 0; f < sizeof fillers / sizeof fillers[0]; f++) {
		len = 0;
		for (size_t n = 0; len < CONF_FILE_MAX - 16; n++)
			len += (size_t)(f == 4 ? sprintf(bytes + len, "[pot %zu]\n", n)
					       : sprintf(bytes + len, "%s", fillers[f]));
		arena_reset(reading->arena);
		assert_true(read_bytes(reading, bytes, len, &error));
		conf_check_required(&reading->conf);
		assert_true(reading->conf.fault_count <= CONF_FAULTS_MAX);
		assert_true(reading->conf.section_count <= CONF_SECTIONS_MAX);
		if (f == 0)
			assert_non_null(strstr(faults(reading),
				"k.conf:500: too many faults; there may be more from here on\n"));
	}
}

static void test_environment_wins_over_the_file(void **state)
{
	struct reading *reading = *state;
	const struct pot *pot;
	char *environment[] = { "PATH=/bin", "K_SIZE=5", "K_HOT=", "K_POT_RED_ID=8",
		"K_POT_NEW_POT_ID=9", "K_POT_NEW_POT_LIDS=a", "K_OTHER=x", "K_TEST_ANY=x",
		"K_LABEL= \"as it is\" ", "K_NOTHING=", NULL };

	read_text(reading, "size = 4\nhot = off\n[pot red]\nid = 7\n");
	conf_read_environment(&reading->conf, environment);
	assert_string_equal(faults(reading), "");
	assert_int_equal(reading->values.size, 5);
	assert_false(reading->values.host);
	assert_string_equal(reading->values.label, " \"as it is\" ");
	assert_int_equal(reading->conf.section_count, 2);
	pot = reading->conf.sections->values;
	assert_int_equal(pot->id, 8);
	assert_string_equal(reading->conf.sections->next->name, "new-pot");
	pot = reading->conf.sections->next->values;
	assert_int_equal(pot->id, 9);
	assert_string_equal(pot->lids[0], "A");
	assert_string_equal(
		conf_set_at(reading->conf.sections, "id"), "environment variable K_POT_RED_ID");
	assert_null(conf_set_at(reading->conf.sections, "lids"));
}

static void test_older_names_count_unless_the_new_one_is_set(void **state)
{
	struct reading *reading = *state;
	const struct pot *pot;
	char *older[] = { "OLD_SIZE=6", "OLD_LIDS=a", NULL };
	char *both[] = { "OLD_SIZE=of another program", "K_SIZE=7", "K_POT_RED_POT_ID=8",
		"OLD_LIDS=a", "K_POT_RED_POT_LIDS=b", NULL };

	read_text(reading, "size = 4\n");
	conf_read_environment(&reading->conf, older);
	assert_string_equal(faults(reading), "");
	assert_int_equal(reading->values.size, 6);
	assert_string_equal(reading->conf.sections->name, "red-pot");
	pot = reading->conf.sections->values;
	assert_int_equal(pot->id, 7); /* implied */
	assert_string_equal(pot->lids[0], "A");

	read_text(reading, "size = 4\n");
	conf_read_environment(&reading->conf, both);
	assert_string_equal(faults(reading), "");
	assert_int_equal(reading->values.size, 7);
	pot = reading->conf.sections->values;
	assert_int_equal(pot->id, 8);
	assert_string_equal(pot->lids[0], "B");

	read_text(reading, "[pot red-pot]\nid = 5\n");
	conf_read_environment(&reading->conf, older);
	assert_string_equal(faults(reading), "");
	pot = reading->conf.sections->values;
	assert_int_equal(pot->id, 5);
}

static void test_wrong_variables_are_refused_by_name(void **state)
{
	struct reading *reading = *state;
	char *environment[] = { "K_SISE=1", "K_size=1", "K_POT_ID=1", "K_POT_RED_COLOUR=1", "K_=1",
		"K_POT_RED_ID=0", "K_LABEL=\xff", "K_WAIT=5", "K_\x1b[1m=1", "OLD_SIZE=x", NULL };

	read_text(reading, "");
	conf_read_environment(&reading->conf, environment);
	assert_string_equal(faults(reading),
		"environment variable OLD_SIZE: size: \"x\" is not a whole number\n"
		"environment variable K_...: there is no such setting\n"
		"environment variable K_: there is no such setting\n"
		"environment variable K_LABEL: label: the value is not valid UTF-8\n"
		"environment variable K_POT_ID: there is no such setting\n"
		"environment variable K_POT_RED_COLOUR: there is no such setting\n"
		"environment variable K_POT_RED_ID: id: 0 is not within 1..99\n"
		"environment variable K_SISE: there is no such setting; did you mean K_SIZE?\n"
		"environment variable K_WAIT: wait: \"5\" has no unit (ms, s, m or h)\n"
		"environment variable K_size: there is no such setting; did you mean K_SIZE?\n");
}

static void test_printed_values_are_read_back_the_same(void **state)
{
	struct reading *reading = *state;
	static const char *const labels[] = { "", " a ", "\"q\"", "a\\b", " \"\\\" ", "# x", "\t",
		"caf\xc3\xa9" };
	struct values written;
	char *text;
	size_t len;
	FILE *out;

	for (size_t i = 0; i < sizeof labels / sizeof labels[0]; i++) {
		begin(reading);
		reading->values.wait_ms = 61000;
		reading->values.room = 1536 * 1024;
		reading->values.host = false;
		reading->values.taste = SWEET;
		reading->values.label = labels[i];
		reading->values.password = "hunter";
		written = reading->values;
		out = open_memstream(&text, &len);
		conf_print(&schema.top, &written, out);
		fclose(out);
		assert_null(strstr(text, "hunter"));
		read_text(reading, text);
		assert_string_equal(faults(reading), "");
		assert_string_equal(reading->values.label, labels[i]);
		assert_string_equal(reading->values.password, "****");
		assert_int_equal(reading->values.wait_ms, 61000);
		assert_int_equal(reading->values.room, 1536 * 1024);
		assert_int_equal(reading->values.big, written.big);
		assert_int_equal(reading->values.size, written.size);
		assert_false(reading->values.host);
		assert_int_equal(reading->values.taste, SWEET);
		free(text);
	}
}

static void test_printed_text_is_as_expected(void **state)
{
	struct reading *reading = *state;
	char *text;
	size_t len;
	FILE *out;

	begin(reading);
	out = open_memstream(&text, &len);
	conf_print(&schema.top, &reading->values, out);
	fclose(out);
	assert_string_equal(text,
		"# How large.\nsize = 3\n# Any number.\nbig = -1\n# How long.\nwait = 1500ms\n"
		"# How much.\nroom = 3m\n# Whether.\nhot = on\n# Which.\ntaste = sour\n# What.\n#label =\n"
		"# Psst.\n#password =\n");
	free(text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, new_reading, end_reading)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_nothing_said_leaves_the_defaults),
		TEST(test_every_kind_of_value_is_read),
		TEST(test_durations_are_exact_in_each_unit),
		TEST(test_sizes_are_exact_in_each_unit),
		TEST(test_wrong_values_are_refused_with_line_and_reason),
		TEST(test_refused_value_leaves_the_default),
		TEST(test_broken_lines_are_refused_with_line_and_reason),
		TEST(test_unknown_keys_are_refused_with_the_likely_one),
		TEST(test_broken_sections_are_refused_and_their_lines_still_checked),
		TEST(test_secrets_stand_in_no_fault),
		TEST(test_nul_byte_and_long_line_are_refused),
		TEST(test_long_values_are_quoted_cut_at_a_whole_character),
		TEST(test_file_that_cannot_be_read_says_why),
		TEST(test_worst_files_stay_within_two_mebibytes),
		TEST(test_environment_wins_over_the_file),
		TEST(test_older_names_count_unless_the_new_one_is_set),
		TEST(test_wrong_variables_are_refused_by_name),
		TEST(test_printed_values_are_read_back_the_same),
		TEST(test_printed_text_is_as_expected),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
