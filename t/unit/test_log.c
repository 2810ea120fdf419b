/* SPDX-License-Identifier: Apache-2.0 */
/* What a reader of the log finds in it: whole lines that parse, whatever was logged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/log.h"

enum { LINE_BYTES = 8192 };

static char folder[] = "/tmp/areg-test-log-XXXXXX";
static char path[64], moved[64];
static char content[64 * 1024];

static int make_folder(void **state)
{
	(void)state;
	if (mkdtemp(folder) == NULL)
		return -1;
	snprintf(path, sizeof path, "%s/log", folder);
	snprintf(moved, sizeof moved, "%s/log.1", folder);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	unlink(path);
	unlink(moved);
	return rmdir(folder);
}

static void open_log(enum log_format format, enum log_level level)
{
	const char *why = NULL;

	unlink(path);
	log_process("worker 3");
	log_request_id(NULL);
	assert_true(log_open(path, format, level, &why));
}

static const char *read_file(const char *name)
{
	FILE *file = fopen(name, "r");
	size_t len;

	assert_non_null(file);
	len = fread(content, 1, sizeof content - 1, file);
	content[len] = '\0';
	fclose(file);
	return content;
}

static struct json_object *parsed(const char *text, size_t len, int flags)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *object;

	json_tokener_set_flags(tokener, flags);
	object = json_tokener_parse_ex(tokener, text, (int)len);
	if (object == NULL)
		object = json_tokener_parse_ex(tokener, "", 1);
	assert_int_equal(json_tokener_get_error(tokener), json_tokener_success);
	assert_non_null(object);
	json_tokener_free(tokener);
	return object;
}

/*
 * The one line in the log, as JSON; the caller puts it back. Strict JSON is asked for with all but ASCII
 * taken out: json-c 0.18 takes any other byte for a control character when it is strict.
 */
static struct json_object *logged_json(void)
{
	static char ascii[LINE_BYTES];
	const char *line = read_file(path);
	size_t len = strlen(line);

	assert_true(len > 0 && len <= LINE_BYTES);
	assert_ptr_equal(strchr(line, '\n'), line + len - 1);
	for (size_t i = 0; i < len; i++)
		ascii[i] = (unsigned char)line[i] < 0x80 ? line[i] : '?';
	json_object_put(parsed(ascii, len - 1, JSON_TOKENER_STRICT));
	return parsed(line, len - 1, JSON_TOKENER_VALIDATE_UTF8);
}

static const char *member(struct json_object *object, const char *key)
{
	return json_object_get_string(json_object_object_get(object, key));
}

static void test_json_line_has_time_level_process_pid_message_fields_request(void **state)
{
	static const char *const order[] = { "time", "level", "process", "pid", "message", "path",
		"status", "ms", "cached", "request_id" };
	struct json_object *object;
	size_t at = 0;
	int year, month, day, hour, minute, second, micros, end = 0;

	(void)state;
	open_log(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
	log_request_id("r-1");
	log_event(LOG_LEVEL_WARN, "reply", LOG_TEXT("path", "/a"), LOG_TEXT("absent", NULL),
		LOG_NUMBER("status", -200), LOG_MICROS("ms", 1234005), LOG_BOOL("cached", 7));
	object = logged_json();
	json_object_object_foreach (object, key, value) {
		(void)value;
		assert_true(at < sizeof order / sizeof order[0]);
		assert_string_equal(key, order[at++]);
	}
	assert_int_equal(at, sizeof order / sizeof order[0]);
	assert_string_equal(member(object, "level"), "warn");
	assert_string_equal(member(object, "process"), "worker 3");
	assert_int_equal(json_object_get_int(json_object_object_get(object, "pid")), getpid());
	assert_string_equal(member(object, "message"), "reply");
	assert_string_equal(member(object, "path"), "/a");
	assert_int_equal(json_object_get_int(json_object_object_get(object, "status")), -200);
	assert_non_null(strstr(content, "\"ms\":1234.005,"));
	assert_non_null(strstr(content, "\"cached\":true,"));
	assert_string_equal(member(object, "request_id"), "r-1");
	assert_int_equal(sscanf(member(object, "time"), "%4d-%2d-%2dT%2d:%2d:%2d.%6dZ%n", &year,
				 &month, &day, &hour, &minute, &second, &micros, &end),
		7);
	assert_int_equal(end, 27);
	assert_int_equal(strlen(member(object, "time")), 27);
	json_object_put(object);
}

static void test_numbers_at_their_bounds_are_exact(void **state)
{
	(void)state;
	open_log(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
	log_event(LOG_LEVEL_INFO, "m", LOG_NUMBER("low", INT64_MIN), LOG_NUMBER("high", INT64_MAX),
		LOG_MICROS("before", -1500), LOG_MICROS("least", INT64_MIN), LOG_MICROS("none", 0));
	json_object_put(logged_json());
	assert_non_null(strstr(content,
		"\"low\":-9223372036854775808,\"high\":9223372036854775807,\"before\":-1.500,"
		"\"least\":-9223372036854775.808,\"none\":0.000}"));
}

static void test_text_line_quotes_only_what_needs_it(void **state)
{
	char expected[256];
	const char *line;

	(void)state;
	open_log(LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
	log_request_id("r-1");
	log_event(LOG_LEVEL_INFO, "it \"says\" so\nand\x1b[31m more", LOG_TEXT("plain", "a/b:c"),
		LOG_TEXT("blank", "a b"), LOG_TEXT("empty", ""), LOG_TEXT("quote", "\"x\\"),
		LOG_TEXT("equals", "a=b"), LOG_NUMBER("n", 3), LOG_MICROS("ms", 20),
		LOG_BOOL("flag", 0));
	line = read_file(path);
	assert_int_equal(line[10], 'T');
	assert_int_equal(line[26], 'Z');
	snprintf(expected, sizeof expected,
		" info worker 3[%d] it \"says\" so\\nand\\u001b[31m more plain=a/b:c blank=\"a b\" "
		"empty=\"\" quote=\"\\\"x\\\\\" equals=\"a=b\" n=3 ms=0.020 flag=false "
		"request_id=r-1\n",
		(int)getpid());
	assert_string_equal(line + 27, expected);
}

static void test_every_byte_comes_out_as_valid_json_on_one_line(void **state)
{
	char all[256];
	struct json_object *object;
	const char *value;

	(void)state;
	for (int i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	all[255] = '\0';
	open_log(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
	log_event(LOG_LEVEL_INFO, all, LOG_TEXT("value", all));
	object = logged_json();
	value = member(object, "value");
	assert_string_equal(member(object, "message"), value);
	/* ASCII as it was, and one replacement for each of the 128 bytes that are no UTF-8. */
	assert_int_equal(strlen(value), 127 + 128 * 3);
	assert_memory_equal(value, all, 127);
	assert_string_equal(value + 127 + 127 * 3, "\xef\xbf\xbd");
	for (const char *at = content; *at != '\0' && *at != '\n'; at++)
		assert_true((unsigned char)*at >= ' ' && *at != 0x7f);
	json_object_put(object);
}

static void test_broken_utf8_is_replaced_and_good_utf8_kept(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80",
			"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80" },
		{ "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd" }, /* overlong */
		{ "\xe0\x9f\xbf!", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd!" }, /* overlong */
		{ "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" }, /* a surrogate */
		{ "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
		{ "a\xe2\x82", "a\xef\xbf\xbd\xef\xbf\xbd" }, /* ends too early */
	};
	struct json_object *object;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		open_log(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
		log_event(LOG_LEVEL_INFO, "m", LOG_TEXT("value", cases[i].in));
		object = logged_json();
		assert_string_equal(member(object, "value"), cases[i].out);
		json_object_put(object);
	}
}

static void test_unicode_line_ends_and_terminal_controls_are_escaped(void **state)
{
	struct json_object *object;

	(void)state;
	open_log(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
	log_event(LOG_LEVEL_INFO, "m",
		LOG_TEXT("value", "\xc2\x85\xe2\x80\xa8\xe2\x80\xa9\xc2\x9b\xc2\xa0"));
	object = logged_json();
	assert_non_null(strstr(content, "\"\\u0085\\u2028\\u2029\\u009b\xc2\xa0\""));
	assert_string_equal(
		member(object, "value"), "\xc2\x85\xe2\x80\xa8\xe2\x80\xa9\xc2\x9b\xc2\xa0");
	json_object_put(object);
}

/* Every length around the limit, so that the cut falls on each byte of an escape or a character. */
static void test_long_line_is_cut_to_valid_json_and_keeps_the_request(void **state)
{
	static const char *const fillers[] = { "a", "\xf0\x9f\x98\x80", "\"", "\x01", "\xff" };
	static char text[3 * LINE_BYTES];
	struct json_object *object;

	(void)state;
	for (size_t f = 0; f < sizeof fillers / sizeof fillers[0]; f++)
		for (size_t shift = 0; shift < 16; shift++) {
			size_t len = shift;

			memset(text, 'x', shift);
			while (len < sizeof text - 8)
				len += (size_t)sprintf(text + len, "%s", fillers[f]);
			open_log(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
			log_request_id("r-1");
			log_event(LOG_LEVEL_INFO, "m", LOG_TEXT("value", text),
				LOG_TEXT("later", "lost"));
			object = logged_json();
			assert_true(strlen(content) > LINE_BYTES - 320);
			assert_true(strlen(member(object, "value")) > 1000);
			assert_string_equal(member(object, "request_id"), "r-1");
			assert_string_equal(member(object, "cut"), "true");
			assert_null(member(object, "later"));
			json_object_put(object);
		}
}

static void test_long_message_request_id_and_many_fields_still_make_one_line(void **state)
{
	static char text[2 * LINE_BYTES];
	struct log_field fields[1200];
	struct json_object *object;

	(void)state;
	memset(text, '\t', sizeof text - 1);
	open_log(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
	log_request_id(text);
	log_info("%s", text);
	object = logged_json();
	assert_string_equal(member(object, "cut"), "true");
	assert_int_equal(
		strspn(member(object, "request_id"), "\t"), strlen(member(object, "request_id")));
	json_object_put(object);

	/* Fields that are cut go as a whole, key and all. */
	for (size_t i = 0; i < 1199; i++)
		fields[i] = LOG_NUMBER("number", 1234567);
	fields[1199] = (struct log_field){ LOG_END, 0, 0, 0 };
	for (size_t len = 0; len < 32; len++) {
		open_log(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
		text[len] = '\0';
		log_fields(LOG_LEVEL_INFO, text, fields);
		text[len] = '\t';
		object = logged_json();
		assert_int_equal(
			json_object_get_int(json_object_object_get(object, "number")), 1234567);
		json_object_put(object);
	}

	open_log(LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
	log_info("%s", text);
	read_file(path);
	assert_true(strlen(content) <= LINE_BYTES);
	assert_ptr_equal(strstr(content, " cut=true\n"), content + strlen(content) - 10);
}

static void test_only_the_level_asked_for_and_above_is_logged(void **state)
{
	static const char *const messages[] = { "it is debug", "it is info", "it is warn",
		"it is error" };

	(void)state;
	for (int level = LOG_LEVEL_DEBUG; level <= LOG_LEVEL_ERROR; level++) {
		open_log(LOG_FORMAT_TEXT, (enum log_level)level);
		log_debug("it is %s", "debug");
		log_info("it is %s", "info");
		log_warn("it is %s", "warn");
		log_error("it is %s", "error");
		read_file(path);
		for (int other = LOG_LEVEL_DEBUG; other <= LOG_LEVEL_ERROR; other++) {
			assert_int_equal(log_enabled((enum log_level)other), other >= level);
			assert_int_equal(strstr(content, messages[other]) != NULL, other >= level);
		}
	}
}

static void test_rotation_moves_on_to_a_new_file(void **state)
{
	const char *why = NULL;
	struct stat before;

	(void)state;
	open_log(LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
	log_info("first");
	assert_int_equal(stat(path, &before), 0);
	assert_int_equal(
		before.st_mode & 0137, 0); /* nothing for others, no writing for the group */
	assert_int_equal(rename(path, moved), 0);
	log_info("second");
	assert_true(log_reopen(&why));
	log_info("third");
	read_file(moved);
	assert_non_null(strstr(content, "first\n"));
	assert_non_null(strstr(content, "second\n"));
	read_file(path);
	assert_null(strstr(content, "second"));
	assert_non_null(strstr(content, "third\n"));
}

static void test_log_that_cannot_be_opened_keeps_the_old_one(void **state)
{
	static char long_path[5000];
	const char *why = NULL;

	(void)state;
	memset(long_path, 'a', sizeof long_path - 1);
	open_log(LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
	assert_false(log_open("/nowhere/at/all", LOG_FORMAT_JSON, LOG_LEVEL_ERROR, &why));
	assert_string_equal(why, strerror(ENOENT));
	assert_false(log_open(folder, LOG_FORMAT_JSON, LOG_LEVEL_ERROR, &why));
	assert_string_equal(why, strerror(EISDIR));
	assert_false(log_open(long_path, LOG_FORMAT_JSON, LOG_LEVEL_ERROR, &why));
	assert_string_equal(why, strerror(ENAMETOOLONG));
	log_info("still here");
	assert_non_null(strstr(read_file(path), " info worker 3["));
	assert_non_null(strstr(content, "still here\n"));
}

static void test_full_disk_is_counted_and_disturbs_nobody(void **state)
{
	const char *why = NULL;
	uint64_t before = log_dropped();

	(void)state;
	assert_true(log_open("/dev/full", LOG_FORMAT_JSON, LOG_LEVEL_INFO, &why));
	errno = ERANGE;
	log_info("lost");
	log_error("lost");
	log_debug("not even tried");
	assert_int_equal(errno, ERANGE);
	assert_int_equal(log_dropped() - before, 2);
	open_log(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
	log_info("back");
	json_object_put(logged_json());
	assert_int_equal(log_dropped() - before, 2);
}

static void test_log_never_becomes_a_standard_descriptor(void **state)
{
	const char *why = NULL;
	int status;
	pid_t child;

	(void)state;
	open_log(LOG_FORMAT_TEXT, LOG_LEVEL_INFO);
	child = fork();
	if (child == 0) {
		close(STDIN_FILENO);
		close(STDOUT_FILENO);
		if (!log_reopen(&why))
			_exit(1);
		/* Both are still closed: nothing printed can land in the log. */
		_exit(write(STDOUT_FILENO, "x", 1) < 0 && fcntl(STDIN_FILENO, F_GETFD) < 0 ? 0 : 2);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void test_lines_of_several_processes_never_mix(void **state)
{
	enum { PROCESSES = 4, LINES = 200 };
	static char value[3000];
	pid_t children[PROCESSES];
	FILE *file;
	char *line = NULL;
	size_t size = 0, lines = 0;
	uint64_t before = log_dropped();
	int status;

	(void)state;
	open_log(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
	memset(value, 'v', sizeof value - 1);
	for (size_t i = 0; i < PROCESSES; i++) {
		children[i] = fork();
		if (children[i] == 0) {
			for (int n = 0; n < LINES; n++)
				log_event(LOG_LEVEL_INFO, "m", LOG_TEXT("value", value),
					LOG_NUMBER("n", n));
			_exit(log_dropped() > before);
		}
	}
	for (size_t i = 0; i < PROCESSES; i++) {
		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(status, 0);
	}
	file = fopen(path, "r");
	assert_non_null(file);
	while (getline(&line, &size, file) > 0) {
		struct json_object *object = json_tokener_parse(line);

		assert_non_null(object);
		assert_string_equal(member(object, "value"), value);
		json_object_put(object);
		lines++;
	}
	assert_int_equal(lines, PROCESSES * LINES);
	free(line);
	fclose(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json_line_has_time_level_process_pid_message_fields_request),
		cmocka_unit_test(test_numbers_at_their_bounds_are_exact),
		cmocka_unit_test(test_text_line_quotes_only_what_needs_it),
		cmocka_unit_test(test_every_byte_comes_out_as_valid_json_on_one_line),
		cmocka_unit_test(test_broken_utf8_is_replaced_and_good_utf8_kept),
		cmocka_unit_test(test_unicode_line_ends_and_terminal_controls_are_escaped),
		cmocka_unit_test(test_long_line_is_cut_to_valid_json_and_keeps_the_request),
		cmocka_unit_test(test_long_message_request_id_and_many_fields_still_make_one_line),
		cmocka_unit_test(test_only_the_level_asked_for_and_above_is_logged),
		cmocka_unit_test(test_rotation_moves_on_to_a_new_file),
		cmocka_unit_test(test_log_that_cannot_be_opened_keeps_the_old_one),
		cmocka_unit_test(test_full_disk_is_counted_and_disturbs_nobody),
		cmocka_unit_test(test_log_never_becomes_a_standard_descriptor),
		cmocka_unit_test(test_lines_of_several_processes_never_mix),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
