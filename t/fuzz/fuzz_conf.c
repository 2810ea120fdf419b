/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration: a file of any bytes, and an environment. What is accepted is printed, read again
 * and printed the same, but for secrets, which are masked.
 *
 * An input is the file; behind a line "----" each line is a variable of the environment.
 */
#include "t/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "app/registry/settings.h"
#include "lib/json_in.h"

enum { VARIABLES_MAX = 64 };

static char *no_variables[] = { NULL };

/* Loads the bytes as a file that is nowhere but in memory. */
static bool load(struct arena *arena, const char *bytes, size_t len, struct settings *settings,
	struct settings_faults *faults)
{
	static char path[64];
	static int fd = -1;

	if (fd < 0) {
		fd = memfd_create("areg.conf", MFD_CLOEXEC);
		REQUIRE(fd >= 0);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	}
	REQUIRE(ftruncate(fd, 0) == 0);
	REQUIRE(pwrite(fd, bytes, len, 0) == (ssize_t)len);
	return settings_load(arena, path, settings, faults);
}

static const char *print(struct arena *arena, const struct settings *settings, size_t *len)
{
	char *text, *copy;
	FILE *out = open_memstream(&text, len);

	REQUIRE(out != NULL);
	settings_print(settings, out);
	REQUIRE(fclose(out) == 0);
	copy = arena_strndup(arena, text, *len);
	free(text);
	return copy;
}

static void set_environment(struct arena *arena, const char *lines)
{
	static char *variables[VARIABLES_MAX + 1];
	size_t count = 0;

	while (*lines != '\0' && count < VARIABLES_MAX) {
		size_t len = strcspn(lines, "\n");

		variables[count++] = arena_strndup(arena, lines, len);
		lines += len + (lines[len] == '\n');
	}
	variables[count] = NULL;
	environ = variables;
}

/* Whether a secret is set: what is printed of it is no value any more. */
static bool has_secret(const struct settings *settings)
{
	if (settings->sentry_dsn != NULL || strstr(settings->database_url, "pass") != NULL ||
		strchr(settings->database_url, '@') != NULL)
		return true;
	for (size_t i = 0; i < settings->chain_count; i++)
		if (settings->chains[i].rpc_url != NULL)
			return true;
	return false;
}

enum { LINE_MAX_BYTES = 4096 };

static size_t longest_line(const char *text)
{
	size_t longest = 0;

	while (*text != '\0') {
		size_t len = strcspn(text, "\n");

		longest = len > longest ? len : longest;
		text += len + (text[len] == '\n');
	}
	return longest;
}

static void check_settings(struct arena *arena, const struct settings *settings)
{
	struct settings again;
	struct settings_faults faults;
	size_t len, again_len;
	const char *text = print(arena, settings, &len);

	REQUIRE(utf8_valid(text, len) && strlen(text) == len);
	REQUIRE(settings->workers >= 1 && settings->workers <= 1024);
	REQUIRE(settings->request_timeout_ms >= 100 && settings->max_requests >= 0);
	for (size_t i = 0; i < settings->chain_count; i++) {
		const struct chain *chain = &settings->chains[i];

		REQUIRE(settings_chain(settings, chain->name) == chain);
		REQUIRE(settings_chain_by_id(settings, chain->chain_id) == chain);
		REQUIRE(chain->identity_registry != NULL);
	}
	/* Quoting may make a line longer than a file's may be. */
	if (has_secret(settings) || longest_line(text) > LINE_MAX_BYTES / 2)
		return;
	environ = no_variables;
	REQUIRE(load(arena, text, len, &again, &faults));
	REQUIRE(strcmp(text, print(arena, &again, &again_len)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char divide[] = "\n----\n";
	char *const *own = environ;
	struct arena *arena = fuzz_arena();
	const char *bytes = (const char *)data;
	const char *divided = memmem(bytes, size, divide, sizeof divide - 1);
	size_t len = divided == NULL ? size : (size_t)(divided + 1 - bytes);
	struct settings settings;
	struct settings_faults faults = { 0 };

	set_environment(arena, divided == NULL ? ""
					       : arena_strndup(arena, divided + sizeof divide - 1,
							 size - len - (sizeof divide - 2)));
	if (load(arena, bytes, len, &settings, &faults)) {
		REQUIRE(faults.count == 0);
		check_settings(arena, &settings);
	} else {
		REQUIRE(faults.count > 0);
		for (size_t i = 0; i < faults.count; i++) {
			REQUIRE(faults.list[i].where[0] != '\0' && faults.list[i].why[0] != '\0');
			REQUIRE(utf8_valid(faults.list[i].why, strlen(faults.list[i].why)));
		}
	}
	environ = (char **)own;
	return 0;
}
