/* SPDX-License-Identifier: Apache-2.0 */
/* What areg.conf and the environment make of areg, and how a wrong one is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/build.h"
#include "app/cache/seal_key.h"
#include "app/cache/wal_position.h"
#include "app/process/host_checks.h"
#include "app/registry/settings.h"

#define MIB (INT64_C(1) << 20)
#define LONG_ROLE "aaaaaaaabbbbbbbbccccccccddddddddaaaaaaaabbbbbbbbccccccccdddddddd"
#define MAINNET_IDENTITY "0x8004A169FB4a3325136EB29fA0ceB6D2e539a432"
#define MAINNET_REPUTATION "0x8004BAa17C55a88189AE136b182e5fdA19dE9b63"
#define TESTNET_IDENTITY "0x8004A818BFB912233c491871b3d84c89A494BD9e"
#define TESTNET_REPUTATION "0x8004B663056A597Dffe9eCcC1965A193B7388713"

static char folder[] = "/tmp/areg-test-settings-XXXXXX";
static char *sample, *manual;

static char *source_file(const char *name)
{
	const char *srcdir = getenv("srcdir");
	char path[4096];

	snprintf(path, sizeof path, "%s/%s", srcdir == NULL ? "." : srcdir, name);
	return realpath(path, NULL);
}

static int make_folder(void **state)
{
	(void)state;
	sample = source_file("conf/areg.conf.in");
	manual = source_file("man/areg.conf.5.in");
	if (sample == NULL || manual == NULL)
		return -1;
	return mkdtemp(folder) == NULL ? -1 : chdir(folder);
}

static int remove_folder(void **state)
{
	(void)state;
	free(sample);
	free(manual);
	unlink("areg.conf");
	return rmdir(folder);
}

struct loading {
	struct arena *arena;
	struct settings settings;
	struct settings_faults faults;
};

/* Each test begins with an empty environment, but for what cmocka itself reads there. */
static int new_loading(void **state)
{
	static struct loading loading;
	const char *output = getenv("CMOCKA_MESSAGE_OUTPUT");

	clearenv();
	if (output != NULL)
		setenv("CMOCKA_MESSAGE_OUTPUT", output, 1);
	loading.arena = arena_new(1024, 2 * 1024 * 1024);
	*state = &loading;
	return 0;
}

static int end_loading(void **state)
{
	struct loading *loading = *state;

	arena_free(loading->arena);
	return 0;
}

static void write_file(const char *text)
{
	FILE *file = fopen("areg.conf", "w");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/* All faults, one a line; "" for a configuration that is right. */
static const char *load(struct loading *loading, const char *path)
{
	const char *all = "";
	bool right = settings_load(loading->arena, path, &loading->settings, &loading->faults);

	assert_int_equal(right, loading->faults.count == 0);
	for (size_t i = 0; i < loading->faults.count; i++)
		all = arena_printf(loading->arena, "%s%s: %s\n", all, loading->faults.list[i].where,
			loading->faults.list[i].why);
	return all;
}

static const char *load_text(struct loading *loading, const char *text)
{
	write_file(text);
	return load(loading, "areg.conf");
}

static const char *printed(struct loading *loading)
{
	char *text, *copy;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	settings_print(&loading->settings, out);
	assert_int_equal(fclose(out), 0);
	copy = arena_strndup(loading->arena, text, len);
	free(text);
	return copy;
}

static const char *content_of(struct loading *loading, const char *path)
{
	char *text = arena_alloc(loading->arena, 64 * 1024);
	FILE *file = fopen(path, "r");

	assert_non_null(file);
	assert_true(fread(text, 1, 64 * 1024 - 1, file) > 0);
	fclose(file);
	return text;
}

/* ---- What is read ---- */

static void test_database_alone_is_enough_and_the_rest_has_defaults(void **state)
{
	struct loading *loading = *state;
	const struct settings *settings = &loading->settings;

	assert_string_equal(load_text(loading, "database_url = postgresql:///areg\n"), "");
	assert_string_equal(settings->source, "areg.conf");
	assert_string_equal(settings->database_url, "postgresql:///areg");
	assert_int_equal(settings->database_connect_timeout_ms, 2000);
	assert_int_equal(settings->database_statement_timeout_ms, 5000);
	assert_string_equal(settings->memcached_servers, "127.0.0.1:11211");
	assert_int_equal(settings->cache_timeout_ms, 50);
	assert_int_equal(settings->cache_retry_ms, 2000);
	assert_int_equal(settings->workers, 4);
	assert_int_equal(settings->feedback_writers, 8);
	assert_int_equal(settings->feedback_per_client_per_day, 20);
	assert_int_equal(settings->max_requests, 100000);
	assert_int_equal(settings->event_retention_days, 90);
	assert_int_equal(settings->request_timeout_ms, 30000);
	assert_int_equal(settings->shutdown_timeout_ms, 30000);
	assert_memory_equal(settings->rates, rate_defaults, sizeof rate_defaults);
	assert_memory_equal(settings->quotas,
		((quota_table){ [QUOTA_AGENTS] = { 0, 1000, 10000, 100000 },
			[QUOTA_BYTES] = { 0, 16 * MIB, 256 * MIB, 4096 * MIB } }),
		sizeof(quota_table));
	assert_int_equal(settings->hot_cache_bytes, 64 * 1024 * 1024);
	assert_true(settings->auto_feedback);
	assert_string_equal(settings->min_payment, "0.01");
	assert_string_equal(settings->log_file, "stderr");
	assert_int_equal(settings->log_format, LOG_FORMAT_JSON);
	assert_int_equal(settings->log_level, LOG_LEVEL_INFO);
	assert_string_equal(settings->public_url, "http://localhost:8080");
	assert_string_equal(settings->environment, "production");
	assert_null(settings->sentry_dsn);
	assert_int_equal(settings->chain_count, 0);
	assert_null(settings_chain(settings, "base"));
	assert_null(settings_chain_by_id(settings, 8453));
}

static void test_every_key_is_read_from_the_file(void **state)
{
	struct loading *loading = *state;
	const struct settings *settings = &loading->settings;
	const struct chain *chain;

	assert_string_equal(
		load_text(loading,
			"database_url = host=db1 user=areg password='a b'\n"
			"runtime_role = \"a reg\"\n"
			"database_connect_timeout = 10ms\n"
			"database_statement_timeout = 1h\n"
			"memcached_servers = none\n"
			"cache_timeout = 1ms\ncache_retry = 1m\n"
			"workers = 1024\nfeedback_writers = 0\nmax_requests = 0\n"
			"feedback_per_client_per_day = 1000000\n"
			"request_timeout = 100ms\nshutdown_timeout = 60m\n"
			"limit_register = 1 2 3 4\nlimit_feedback = - - - -\n"
			"limit_payments = 5 6 7 8\nlimit_search = 9  10\t11 12\n"
			"limit_read = 0 0 0 250000\nlimit_sign_in = 13 14 15 16\n"
			"quota_agents = 0\t1  1000000000\nquota_bytes = 1k 0 1000000000g\n"
			"hot_cache_size = 1g\nauto_feedback = off\nmin_payment = 12.000001\n"
			"control_socket = none\nhealth_socket = \"/run/a reg/h\"\n"
			"log_file = \"/var/log/areg log\"\nlog_format = text\n"
			"log_level = debug\npublic_url = https://[::1]:8443/registry\n"
			"environment = staging-2\n"
			"sentry_dsn = https://0aF@sentry.example:9000/7\n"
			"[chain base-sepolia]\nchain_id = 9007199254740991\n"
			"aliases = baseSepolia, bs\n"
			"identity_registry = " TESTNET_IDENTITY "\n"
			"reputation_registry = " TESTNET_REPUTATION "\n"
			"validation_registry = 0x0000000000000000000000000000000000000001\n"
			"first_block = 37174254\n"
			"authority = chain\n"
			"rpc_url = https://u:p@rpc.example/v2/KEY?a=b\n"),
		"");
	assert_string_equal(settings->database_url, "host=db1 user=areg password='a b'");
	assert_string_equal(settings->runtime_role, "a reg");
	assert_int_equal(settings->database_connect_timeout_ms, 10);
	assert_int_equal(settings->database_statement_timeout_ms, 3600000);
	assert_string_equal(settings->memcached_servers, "");
	assert_int_equal(settings->cache_timeout_ms, 1);
	assert_int_equal(settings->cache_retry_ms, 60000);
	assert_int_equal(settings->workers, 1024);
	assert_int_equal(settings->feedback_writers, 0);
	assert_int_equal(settings->feedback_per_client_per_day, 1000000);
	assert_int_equal(settings->max_requests, 0);
	assert_int_equal(settings->request_timeout_ms, 100);
	assert_int_equal(settings->shutdown_timeout_ms, 3600000);
	assert_memory_equal(settings->rates,
		((rate_table){ [RATE_REGISTER] = { 1, 2, 3, 4 },
			[RATE_PAYMENTS] = { 5, 6, 7, 8 },
			[RATE_SEARCH] = { 9, 10, 11, 12 },
			[RATE_READ] = { 0, 0, 0, 250000 },
			[RATE_SIGN_IN] = { 13, 14, 15, 16 } }),
		sizeof(rate_table));
	assert_memory_equal(settings->quotas,
		((quota_table){ [QUOTA_AGENTS] = { 0, INT64_MAX, 1, 1000000000 },
			[QUOTA_BYTES] = { 0, 1024, INT64_MAX, 1024 * MIB * 1000000000 } }),
		sizeof(quota_table));
	assert_int_equal(settings->hot_cache_bytes, 1024 * 1024 * 1024);
	assert_string_equal(settings->control_socket, "");
	assert_string_equal(settings->health_socket, "/run/a reg/h");
	assert_false(settings->auto_feedback);
	assert_string_equal(settings->min_payment, "12.000001");
	assert_string_equal(settings->log_file, "/var/log/areg log");
	assert_int_equal(settings->log_format, LOG_FORMAT_TEXT);
	assert_int_equal(settings->log_level, LOG_LEVEL_DEBUG);
	assert_string_equal(settings->public_url, "https://[::1]:8443/registry");
	assert_string_equal(settings->environment, "staging-2");
	assert_string_equal(settings->sentry_dsn, "https://0aF@sentry.example:9000/7");
	chain = settings_chain(settings, "base-sepolia");
	assert_non_null(chain);
	assert_ptr_equal(settings_chain(settings, "baseSepolia"), chain);
	assert_ptr_equal(settings_chain(settings, "bs"), chain);
	assert_null(settings_chain(settings, "BS"));
	assert_ptr_equal(settings_chain_by_id(settings, 9007199254740991), chain);
	assert_string_equal(chain->identity_registry, "0x8004a818bfb912233c491871b3d84c89a494bd9e");
	assert_string_equal(
		chain->reputation_registry, "0x8004b663056a597dffe9eccc1965a193b7388713");
	assert_string_equal(
		chain->validation_registry, "0x0000000000000000000000000000000000000001");
	assert_int_equal(chain->first_block, 37174254);
	assert_int_equal(chain->authority, AUTHORITY_CHAIN);
	assert_string_equal(chain->rpc_url, "https://u:p@rpc.example/v2/KEY?a=b");
}

static void test_empty_server_list_means_no_memcached(void **state)
{
	struct loading *loading = *state;

	assert_string_equal(
		load_text(loading, "database_url = dbname=a\nmemcached_servers =\n"), "");
	assert_string_equal(loading->settings.memcached_servers, "");
}

/* ---- What is refused ---- */

#define NO_AMOUNT "is not an amount of USDC such as 0.01, with at most 6 digits behind the point\n"

static const struct {
	const char *text; /* behind a first line that is right, unless it says otherwise */
	const char *faults;
} broken[] = {
	{ "workers = 0\n", "areg.conf:2: workers: 0 is not within 1..1024\n" },
	{ "workers = 1025\n", "areg.conf:2: workers: 1025 is not within 1..1024\n" },
	{ "workers = many\n", "areg.conf:2: workers: \"many\" is not a whole number\n" },
	{ "worker = 4\n", "areg.conf:2: unknown key worker; did you mean workers?\n" },
	{ "runtime_role = \"\"\n", "areg.conf:2: runtime_role: the value is empty\n" },
	{ "runtime_role = " LONG_ROLE "\n",
		"areg.conf:2: runtime_role: \"aaaaaaaabbbbbbbbccccccccddddddddaaaaaaaabbbbbbbbccccccccdddd…\" is longer than the 63 bytes of a name\n" },
	{ "runtime_role = pg_monitor\n", "areg.conf:2: runtime_role: \"pg_monitor\" is a name that "
					 "PostgreSQL keeps for itself\n" },
	{ "database_url = dbname=b\n",
		"areg.conf:2: database_url stands twice, first at areg.conf:1\n" },
	{ "request_timeout = 30\n",
		"areg.conf:2: request_timeout: \"30\" has no unit (ms, s, m or h)\n" },
	{ "cache_timeout = 11s\n", "areg.conf:2: cache_timeout: 11s is not within 1ms..10s\n" },
	{ "health_socket = run/health.sock\n",
		"areg.conf:2: health_socket: \"run/health.sock\" is neither none nor a path that begins with a slash\n" },
	{ "hot_cache_size = 1023k\n",
		"areg.conf:2: hot_cache_size: 1023k is not within 1m..64g\n" },
	{ "hot_cache_size = 64\n",
		"areg.conf:2: hot_cache_size: \"64\" has no unit (k, m or g)\n" },
	{ "limit_read = 1 2 3\n", "areg.conf:2: limit_read: \"1 2 3\" is not four numbers, for "
				  "anonymous, free, pro and enterprise\n" },
	{ "limit_read = 1 2 3 250001\n",
		"areg.conf:2: limit_read: \"1 2 3 250001\" has a number that is neither within "
		"0..250000 nor -\n" },
	{ "quota_agents = 1 2\n", "areg.conf:2: quota_agents: \"1 2\" is not three values, for "
				  "free, pro and enterprise\n" },
	{ "quota_agents = 1 2 3 4\n",
		"areg.conf:2: quota_agents: \"1 2 3 4\" is not three values, for free, pro and "
		"enterprise\n" },
	{ "quota_agents = 1 2 1000000001\n",
		"areg.conf:2: quota_agents: \"1 2 1000000001\" has a number that is not within "
		"0..1000000000\n" },
	{ "quota_agents = 1 2 3k\n",
		"areg.conf:2: quota_agents: \"1 2 3k\" has a number that is not within "
		"0..1000000000\n" },
	{ "quota_agents = 1 - 3\n",
		"areg.conf:2: quota_agents: \"1 - 3\" has a number that is not within "
		"0..1000000000\n" },
	{ "quota_bytes = 1m 2m 3\n",
		"areg.conf:2: quota_bytes: \"1m 2m 3\" has a size that is neither 0 nor within "
		"1..1000000000 with k, m or g behind it\n" },
	{ "quota_bytes = 1m 2m m\n",
		"areg.conf:2: quota_bytes: \"1m 2m m\" has a size that is neither 0 nor within "
		"1..1000000000 with k, m or g behind it\n" },
	{ "quota_bytes = 1m 1000000001k 1g\n",
		"areg.conf:2: quota_bytes: \"1m 1000000001k 1g\" has a size that is neither 0 nor "
		"within 1..1000000000 with k, m or g behind it\n" },
	{ "feedback_writers = 9\n", "areg.conf:2: feedback_writers: 9 is not within 0..8\n" },
	{ "feedback_per_client_per_day = -1\n",
		"areg.conf:2: feedback_per_client_per_day: -1 is not within 0..1000000\n" },
	{ "max_requests = -1\n", "areg.conf:2: max_requests: -1 is not within 0..1000000000\n" },
	{ "log_format = xml\n", "areg.conf:2: log_format: \"xml\" is not one of json, text\n" },
	{ "log_level = loud\n",
		"areg.conf:2: log_level: \"loud\" is not one of debug, info, warn, error\n" },
	{ "auto_feedback = yes\n", "areg.conf:2: auto_feedback: \"yes\" is neither on nor off\n" },
	{ "min_payment = 0.0000001\n", "areg.conf:2: min_payment: \"0.0000001\" " NO_AMOUNT },
	{ "min_payment = -1\n", "areg.conf:2: min_payment: \"-1\" " NO_AMOUNT },
	{ "min_payment = 1e-2\n", "areg.conf:2: min_payment: \"1e-2\" " NO_AMOUNT },
	{ "min_payment = .5\n", "areg.conf:2: min_payment: \".5\" " NO_AMOUNT },
	{ "min_payment = 5.\n", "areg.conf:2: min_payment: \"5.\" " NO_AMOUNT },
	{ "min_payment = 1 USDC\n", "areg.conf:2: min_payment: \"1 USDC\" " NO_AMOUNT },
	{ "log_file = areg.log\n", "areg.conf:2: log_file: \"areg.log\" is neither stderr nor a "
				   "path that begins with a slash\n" },
	{ "public_url = https://registry.example/\n",
		"areg.conf:2: public_url: \"https://registry.example/\" ends in a slash\n" },
	{ "public_url = https://registry.example/?a\n",
		"areg.conf:2: public_url: \"https://registry.example/?a\" has a query or a "
		"fragment\n" },
	{ "public_url = ftp://registry.example\n",
		"areg.conf:2: public_url: \"ftp://registry.example\" does not begin with https:// "
		"or http://\n" },
	{ "public_url = https://a@registry.example\n",
		"areg.conf:2: public_url: \"https://a@registry.example\" has a user name in it\n" },
	{ "public_url = https://registry.example:70000\n",
		"areg.conf:2: public_url: \"https://registry.example:70000\" has no valid host, or "
		"no valid port behind it\n" },
	{ "public_url = https://:80\n", "areg.conf:2: public_url: \"https://:80\" has no valid "
					"host, or no valid port behind it\n" },
	{ "public_url = https://[::1/a]\n", "areg.conf:2: public_url: \"https://[::1/a]\" has no "
					    "valid host, or no valid port behind it\n" },
	{ "public_url = https://registry example\n",
		"areg.conf:2: public_url: \"https://registry example\" holds a character that a "
		"URL cannot\n" },
	{ "environment = a/b\n",
		"areg.conf:2: environment: \"a/b\" is not 1 to 64 letters, digits, dots, "
		"underscores and hyphens\n" },
	{ "sentry_dsn = https://sentry.example/1\n",
		"areg.conf:2: sentry_dsn: the value is not https://KEY@HOST/PROJECT\n" },
	{ "sentry_dsn = http://hunter2@sentry.example/1\n",
		"areg.conf:2: sentry_dsn: the value is not https://KEY@HOST/PROJECT\n" },
	{ "sentry_dsn = http://hunter2@localhost.example/1\n",
		"areg.conf:2: sentry_dsn: the value is not https://KEY@HOST/PROJECT\n" },
	{ "sentry_dsn = https://hunter2@sentry.example\n",
		"areg.conf:2: sentry_dsn: the value is not https://KEY@HOST/PROJECT\n" },
	{ "[chain base]\nchain_id = 1\n", "areg.conf:2: [chain base] has no identity_registry\n" },
	{ "[chain base]\nidentity_registry = " MAINNET_IDENTITY "\n",
		"areg.conf:2: [chain base] has no chain_id\n" },
	{ "[chain base]\nchain_id = 0\nidentity_registry = 0x12\n",
		"areg.conf:3: chain_id: 0 is not within 1..9007199254740991\n"
		"areg.conf:4: identity_registry: \"0x12\" is no address: not 0x and 40 hex digits\n" },
	{ "[chain base]\nchain_id = 1\n"
	  "identity_registry = 0x8004a169FB4a3325136EB29fA0ceB6D2e539a432\n",
		"areg.conf:4: identity_registry: \"0x8004a169FB4a3325136EB29fA0ceB6D2e539a432\" is "
		"no address: the EIP-55 checksum is wrong\n" },
	{ "[chain base]\nchain_id = 1\n"
	  "identity_registry = 0x0000000000000000000000000000000000000000\n",
		"areg.conf:4: identity_registry: \"0x0000000000000000000000000000000000000000\" is "
		"the address of zero, where no contract can be\n" },
	{ "[chain a]\nchain_id = 1\nidentity_registry = " MAINNET_IDENTITY "\n"
	  "[chain b]\nidentity_registry = " MAINNET_IDENTITY "\nchain_id = 1\n",
		"areg.conf:7: chain_id: 1 is the id of [chain a]\n" },
	{ "[chain a]\nchain_id = 1\nidentity_registry = " MAINNET_IDENTITY "\naliases = b c\n"
	  "[chain b]\nchain_id = 2\nidentity_registry = " MAINNET_IDENTITY "\n",
		"areg.conf:6: b is an alias of [chain a]\n" },
	{ "[chain a]\nchain_id = 1\nidentity_registry = " MAINNET_IDENTITY "\naliases = x\n"
	  "[chain b]\nchain_id = 2\nidentity_registry = " MAINNET_IDENTITY "\naliases = a y x\n",
		"areg.conf:9: aliases: a is a name or an alias of [chain a]\n"
		"areg.conf:9: aliases: x is a name or an alias of [chain a]\n" },
	{ "[chain eip155]\nchain_id = 1\nidentity_registry = " MAINNET_IDENTITY "\n",
		"areg.conf:2: no chain can be called eip155\n" },
	{ "[chain a]\nchain_id = 1\nidentity_registry = " MAINNET_IDENTITY "\naliases = b:c\n",
		"areg.conf:5: aliases: \"b:c\" is not 1 to 32 letters, digits, underscores and "
		"hyphens\n" },
	{ "[chain a]\nchain_id = 1\nidentity_registry = " MAINNET_IDENTITY "\n"
	  "rpc_url = wss://hunter2@rpc.example\n",
		"areg.conf:5: rpc_url: the value does not begin with https:// or http://\n" },
	{ "[chain a]\nchain_id = 1\nidentity_registry = " MAINNET_IDENTITY "\nauthority = me\n",
		"areg.conf:5: authority: \"me\" is not one of registry, chain\n" },
	{ "[chain Base]\n", "areg.conf:2: [chain NAME]: \"Base\" is not 1 to 32 lower-case "
			    "letters, digits and hyphens\n" },
	{ "[chain a]\nworkers = 4\n", "areg.conf:3: workers belongs before the first section\n"
				      "areg.conf:2: [chain a] has no chain_id\n"
				      "areg.conf:2: [chain a] has no identity_registry\n" },
	{ "chain_id = 4\n", "areg.conf:2: chain_id belongs into a [chain NAME] section\n" },
};

static void test_each_broken_configuration_is_refused_with_file_line_and_reason(void **state)
{
	struct loading *loading = *state;

	for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++)
		assert_string_equal(
			load_text(loading, arena_printf(loading->arena,
						   "database_url = dbname=a\n%s", broken[i].text)),
			broken[i].faults);
}

static void test_every_fault_of_a_file_is_reported_at_once(void **state)
{
	struct loading *loading = *state;

	setenv("AREG_LOG_LEVEL", "none", 1);
	assert_string_equal(load_text(loading, "workers = 0\n[chain a]\nchain_id = x\n[chane b]\n"),
		"areg.conf:1: workers: 0 is not within 1..1024\n"
		"areg.conf:3: chain_id: \"x\" is not a whole number\n"
		"areg.conf:4: unknown section [chane]; sections are [chain NAME]\n"
		"environment variable AREG_LOG_LEVEL: log_level: \"none\" is not one of debug, "
		"info, warn, error\n"
		"areg.conf: database_url is required; set it here or as AREG_DATABASE_URL\n"
		"areg.conf:2: [chain a] has no identity_registry\n");
}

/* Whether the value is refused by a message that says nothing of it. */
static bool is_refused_without_secret(struct loading *loading, const char *text)
{
	const char *faults = load_text(loading, text);

	return strstr(faults, "areg.conf:1: database_url: the value ") == faults &&
	       strstr(faults, "hunter") == NULL && strstr(faults, "ter2") == NULL;
}

static void test_database_url_is_refused_without_showing_its_password(void **state)
{
	static const char *const urls[] = { "postgresql://areg:hunter2@[db/areg",
		"password=hunter2 hunter2", "host=db hunter2=x", "hunter2",
		"postgresql://areg@db/areg?hunter2=1", "postgresql+asyncpg://areg:hunter2@db/areg",
		"postgresql://areg:hun/ter2@db/areg", "postgresql://areg:hun@ter2@db/areg",
		"postgresql://areg:%hunter2@db/areg" };
	struct loading *loading = *state;

	for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++)
		assert_true(is_refused_without_secret(
			loading, arena_printf(loading->arena, "database_url = %s\n", urls[i])));
	assert_string_equal(load_text(loading, "database_url = postgresql:///a%0Ab\n"),
		"areg.conf:1: database_url: the value holds a control character, or what is not "
		"UTF-8, in a value\n");
}

static void test_replicas_are_read_from_one_value_and_printed_without_their_passwords(void **state)
{
	struct loading *loading = *state;
	const char *many = "";

	assert_string_equal(
		load_text(loading,
			"database_url = dbname=a\ndatabase_read = "
			"postgresql://areg:hunter2@r1/a postgres:///a?host=/run/r%202\n"),
		"");
	assert_int_equal(settings_replicas(&loading->settings), 2);
	assert_string_equal(loading->settings.database_read[1], "postgres:///a?host=/run/r%202");
	assert_non_null(strstr(printed(loading),
		"\ndatabase_read = postgresql:///?user=areg&password=****&dbname=a&host=r1 "
		"postgresql:///?dbname=a&host=/run/r%202\n"));
	assert_string_equal(
		load_text(loading, "database_url = dbname=a\ndatabase_read = host=hunter2\n"),
		"areg.conf:2: database_read: the value does not begin with postgresql://\n");
	for (int i = 0; i <= REPLICAS_MAX; i++)
		many = arena_printf(loading->arena, "%s postgresql://r%d/a", many, i);
	assert_string_equal(load_text(loading, arena_printf(loading->arena,
						       "database_url = dbname=a\n"
						       "database_read =%s\n",
						       many)),
		"areg.conf:2: database_read: names 17 replicas where 16 are the most\n");
	assert_string_equal(load_text(loading, "database_url = dbname=a\n"), "");
	assert_int_equal(settings_replicas(&loading->settings), 0);
}

static void test_server_list_that_the_cache_refuses_is_refused(void **state)
{
	static const char expected[] =
		"areg.conf:2: memcached_servers: \"localhost:x\" is refused: ";
	struct loading *loading = *state;
	const char *faults =
		load_text(loading, "database_url = dbname=a\nmemcached_servers = localhost:x\n");

	assert_int_equal(loading->faults.count, 1);
	assert_memory_equal(faults, expected, sizeof expected - 1);
}

static void test_file_named_but_absent_is_refused(void **state)
{
	struct loading *loading = *state;

	setenv("DATABASE_URL", "dbname=a", 1);
	assert_string_equal(load(loading, "absent.conf"),
		"absent.conf: cannot be read: No such file or directory\n");
	setenv("AREG_CONF", "also-absent.conf", 1);
	assert_string_equal(load(loading, NULL),
		"also-absent.conf: cannot be read: No such file or directory\n");
}

static void test_variable_areg_conf_names_the_file_unless_an_argument_does(void **state)
{
	struct loading *loading = *state;

	write_file("database_url = dbname=a\nworkers = 7\n");
	setenv("AREG_CONF", "areg.conf", 1);
	assert_string_equal(load(loading, NULL), "");
	assert_int_equal(loading->settings.workers, 7);
	setenv("AREG_CONF", "absent.conf", 1);
	assert_string_equal(load(loading, "areg.conf"), "");
}

/* ---- The environment ---- */

static void test_every_key_is_read_from_the_environment_over_the_file(void **state)
{
	static const char *const variables[][2] = { { "AREG_DATABASE_URL", "dbname=b" },
		{ "AREG_DATABASE_CONNECT_TIMEOUT", "1s" },
		{ "AREG_DATABASE_STATEMENT_TIMEOUT", "3s" }, { "AREG_MEMCACHED_SERVERS", "none" },
		{ "AREG_CACHE_TIMEOUT", "20ms" }, { "AREG_CACHE_RETRY", "4s" },
		{ "AREG_WORKERS", "2" }, { "AREG_MAX_REQUESTS", "5" },
		{ "AREG_REQUEST_TIMEOUT", "6s" }, { "AREG_SHUTDOWN_TIMEOUT", "7s" },
		{ "AREG_LIMIT_REGISTER", "1 1 1 1" }, { "AREG_LIMIT_FEEDBACK", "2 2 2 2" },
		{ "AREG_LIMIT_PAYMENTS", "3 3 3 3" }, { "AREG_LIMIT_SEARCH", "4 4 4 4" },
		{ "AREG_LIMIT_READ", "5 5 5 5" }, { "AREG_LIMIT_SIGN_IN", "6 6 6 6" },
		{ "AREG_HOT_CACHE_SIZE", "2048k" }, { "AREG_LOG_FILE", "/log" },
		{ "AREG_LOG_FORMAT", "text" }, { "AREG_LOG_LEVEL", "warn" },
		{ "AREG_PUBLIC_URL", "https://b.example" }, { "AREG_ENVIRONMENT", "b" },
		{ "AREG_SENTRY_DSN", "https://b@b.example/1" },
		{ "AREG_CHAIN_BASE_CHAIN_ID", "8453" }, { "AREG_CHAIN_BASE_ALIASES", "b2" },
		{ "AREG_CHAIN_BASE_IDENTITY_REGISTRY", MAINNET_IDENTITY },
		{ "AREG_CHAIN_BASE_REPUTATION_REGISTRY", MAINNET_REPUTATION },
		{ "AREG_CHAIN_BASE_VALIDATION_REGISTRY", TESTNET_IDENTITY },
		{ "AREG_CHAIN_BASE_FIRST_BLOCK", "9" },
		{ "AREG_CHAIN_BASE_RPC_URL", "http://b.example" },
		{ "AREG_CHAIN_BASE_SEPOLIA_CHAIN_ID", "84532" },
		{ "AREG_CHAIN_BASE_SEPOLIA_IDENTITY_REGISTRY", TESTNET_IDENTITY } };
	struct loading *loading = *state;
	const struct settings *settings = &loading->settings;
	const struct chain *chain;

	for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
		setenv(variables[i][0], variables[i][1], 1);
	assert_string_equal(load_text(loading, "database_url = dbname=a\nworkers = 9\n"
					       "[chain base]\nchain_id = 3\n"
					       "identity_registry = " TESTNET_IDENTITY "\n"),
		"");
	assert_string_equal(settings->database_url, "dbname=b");
	assert_int_equal(settings->database_connect_timeout_ms, 1000);
	assert_int_equal(settings->database_statement_timeout_ms, 3000);
	assert_string_equal(settings->memcached_servers, "");
	assert_int_equal(settings->cache_timeout_ms, 20);
	assert_int_equal(settings->cache_retry_ms, 4000);
	assert_int_equal(settings->workers, 2);
	assert_int_equal(settings->max_requests, 5);
	assert_int_equal(settings->request_timeout_ms, 6000);
	assert_int_equal(settings->shutdown_timeout_ms, 7000);
	for (uint32_t class = RATE_REGISTER; class < RATE_CLASSES; class ++)
		for (size_t tier = 0; tier < TIERS; tier++)
			assert_int_equal(settings->rates[class][tier], class);
	assert_int_equal(settings->hot_cache_bytes, 2 * 1024 * 1024);
	assert_string_equal(settings->log_file, "/log");
	assert_int_equal(settings->log_format, LOG_FORMAT_TEXT);
	assert_int_equal(settings->log_level, LOG_LEVEL_WARN);
	assert_string_equal(settings->public_url, "https://b.example");
	assert_string_equal(settings->environment, "b");
	assert_string_equal(settings->sentry_dsn, "https://b@b.example/1");
	assert_int_equal(settings->chain_count, 2);
	chain = settings_chain(settings, "b2");
	assert_non_null(chain);
	assert_string_equal(chain->name, "base");
	assert_int_equal(chain->chain_id, 8453);
	assert_string_equal(chain->identity_registry, "0x8004a169fb4a3325136eb29fa0ceb6d2e539a432");
	assert_string_equal(
		chain->reputation_registry, "0x8004baa17c55a88189ae136b182e5fda19de9b63");
	assert_string_equal(
		chain->validation_registry, "0x8004a818bfb912233c491871b3d84c89a494bd9e");
	assert_int_equal(chain->first_block, 9);
	assert_string_equal(chain->rpc_url, "http://b.example");
	assert_string_equal(settings_chain_by_id(settings, 84532)->name, "base-sepolia");
}

static void set_older_environment(void)
{
	setenv("DATABASE_URL", "postgresql://areg:hunter2@db/areg", 1);
	setenv("MEMCACHED_SERVERS", "127.0.0.1:11212", 1);
	setenv("SENTRY_DSN", "https://key@sentry.example/1", 1);
	setenv("ENVIRONMENT", "staging", 1);
	setenv("ERC8004_ETH_IDENTITY_REGISTRY", MAINNET_IDENTITY, 1);
	setenv("ERC8004_ETH_REPUTATION_REGISTRY", MAINNET_REPUTATION, 1);
	setenv("ERC8004_BASE_IDENTITY_REGISTRY", MAINNET_IDENTITY, 1);
	setenv("ERC8004_BASE_REPUTATION_REGISTRY", MAINNET_REPUTATION, 1);
	setenv("ERC8004_SEPOLIA_IDENTITY_REGISTRY", TESTNET_IDENTITY, 1);
	setenv("ERC8004_SEPOLIA_REPUTATION_REGISTRY", TESTNET_REPUTATION, 1);
	setenv("ERC8004_BASE_SEPOLIA_IDENTITY_REGISTRY", TESTNET_IDENTITY, 1);
	setenv("ERC8004_BASE_SEPOLIA_REPUTATION_REGISTRY", TESTNET_REPUTATION, 1);
}

static void assert_older_environment(const struct settings *settings)
{
	static const struct {
		const char *name;
		uint64_t chain_id;
		const char *identity, *reputation;
	} chains[] = {
		{ "ethereum", 1, "0x8004a169fb4a3325136eb29fa0ceb6d2e539a432",
			"0x8004baa17c55a88189ae136b182e5fda19de9b63" },
		{ "base", 8453, "0x8004a169fb4a3325136eb29fa0ceb6d2e539a432",
			"0x8004baa17c55a88189ae136b182e5fda19de9b63" },
		{ "sepolia", 11155111, "0x8004a818bfb912233c491871b3d84c89a494bd9e",
			"0x8004b663056a597dffe9eccc1965a193b7388713" },
		{ "base-sepolia", 84532, "0x8004a818bfb912233c491871b3d84c89a494bd9e",
			"0x8004b663056a597dffe9eccc1965a193b7388713" },
	};

	assert_string_equal(settings->database_url, "postgresql://areg:hunter2@db/areg");
	assert_string_equal(settings->memcached_servers, "127.0.0.1:11212");
	assert_string_equal(settings->sentry_dsn, "https://key@sentry.example/1");
	assert_string_equal(settings->environment, "staging");
	assert_int_equal(settings->chain_count, 4);
	for (size_t i = 0; i < 4; i++) {
		const struct chain *chain = settings_chain(settings, chains[i].name);

		assert_non_null(chain);
		assert_int_equal(chain->chain_id, chains[i].chain_id);
		assert_string_equal(chain->identity_registry, chains[i].identity);
		assert_string_equal(chain->reputation_registry, chains[i].reputation);
	}
	assert_ptr_equal(
		settings_chain(settings, "baseSepolia"), settings_chain(settings, "base-sepolia"));
}

static void test_every_older_name_is_understood(void **state)
{
	struct loading *loading = *state;

	set_older_environment();
	assert_string_equal(load_text(loading, ""), "");
	assert_older_environment(&loading->settings);
}

static void test_older_environment_alone_is_enough(void **state)
{
	struct loading *loading = *state;

	set_older_environment();
	/* Not the installed default, which may be there on this machine. */
	assert_true(settings_load_installed(
		loading->arena, "/nonexistent/areg.conf", &loading->settings, &loading->faults));
	assert_string_equal(loading->settings.source, "the environment");
	assert_older_environment(&loading->settings);
}

static void test_new_names_win_over_older_ones(void **state)
{
	struct loading *loading = *state;

	setenv("DATABASE_URL", "of another program", 1);
	setenv("AREG_DATABASE_URL", "dbname=b", 1);
	setenv("ERC8004_BASE_IDENTITY_REGISTRY", MAINNET_IDENTITY, 1);
	setenv("AREG_CHAIN_BASE_IDENTITY_REGISTRY", TESTNET_IDENTITY, 1);
	assert_string_equal(load_text(loading, ""), "");
	assert_string_equal(loading->settings.database_url, "dbname=b");
	assert_string_equal(loading->settings.chains[0].identity_registry,
		"0x8004a818bfb912233c491871b3d84c89a494bd9e");
}

static void test_empty_variables_count_as_unset(void **state)
{
	struct loading *loading = *state;

	setenv("AREG_CONF", "", 1);
	setenv("DATABASE_URL", "dbname=b", 1);
	setenv("AREG_DATABASE_URL", "", 1);
	setenv("AREG_WORKERS", "", 1);
	setenv("AREG_WORKER", "", 1);
	setenv("ERC8004_BASE_IDENTITY_REGISTRY", "", 1);
	assert_string_equal(load_text(loading, ""), "");
	assert_string_equal(loading->settings.database_url, "dbname=b");
	assert_int_equal(loading->settings.workers, 4);
	assert_int_equal(loading->settings.chain_count, 0);
}

static void test_names_that_scripts_export_are_let_pass_and_others_refused(void **state)
{
	static const char *const passed[] = { "AREG_CONF", "AREG_URL", "AREG_TLS_URL",
		"AREG_API_KEY", "AREG_WALLET", "AREGD_PID", "AREG_TEST_ANYTHING" };
	struct loading *loading = *state;

	for (size_t i = 0; i < sizeof passed / sizeof passed[0]; i++)
		setenv(passed[i], "x", 1);
	assert_string_equal(load_text(loading, "database_url = dbname=a\n"), "");
	setenv("AREG_WORKRES", "x", 1);
	setenv("AREG_URLS", "x", 1);
	setenv("AREG_CHAIN_BASE_REGISTRY", "x", 1);
	assert_string_equal(load_text(loading, "database_url = dbname=a\n"),
		"environment variable AREG_CHAIN_BASE_REGISTRY: there is no such setting\n"
		"environment variable AREG_URLS: there is no such setting\n"
		"environment variable AREG_WORKRES: there is no such setting; did you mean "
		"AREG_WORKERS?\n");
}

static void test_chain_made_by_a_variable_must_be_whole(void **state)
{
	struct loading *loading = *state;

	setenv("AREG_CHAIN_GNOSIS_RPC_URL", "https://rpc.example", 1);
	assert_string_equal(load_text(loading, "database_url = dbname=a\n"),
		"environment variable AREG_CHAIN_GNOSIS_RPC_URL: [chain gnosis] has no chain_id\n"
		"environment variable AREG_CHAIN_GNOSIS_RPC_URL: [chain gnosis] has no "
		"identity_registry\n");
}

/* ---- What is printed ---- */

static void test_printed_settings_are_read_back_the_same(void **state)
{
	struct loading *loading = *state;
	const char *first;

	assert_string_equal(
		load_text(loading, "database_url = \"host=/run user='a \\\"b\\\\\\\\ c'\"\n"
				   "memcached_servers = none\nworkers = 3\nmax_requests = 0\n"
				   "cache_timeout = 1500ms\nrequest_timeout = 60s\n"
				   "limit_search = - 1 2 3\nhot_cache_size = 1025k\n"
				   "log_file = /a b\nlog_format = text\nlog_level = error\n"
				   "[chain base]\nchain_id = 8453\naliases = x, y\n"
				   "identity_registry = " MAINNET_IDENTITY "\n"
				   "rpc_url = http://localhost:8545\n"
				   "[chain sepolia]\nchain_id = 5\nfirst_block = 7\n"
				   "identity_registry = " TESTNET_IDENTITY "\n"
				   "reputation_registry = " TESTNET_REPUTATION "\n"),
		"");
	first = printed(loading);
	assert_string_equal(load_text(loading, first), "");
	assert_string_equal(printed(loading), first);
	assert_string_equal(loading->settings.database_url, "user='a \"b\\\\ c' host='/run'");
	assert_string_equal(loading->settings.memcached_servers, "");
	assert_int_equal(loading->settings.cache_timeout_ms, 1500);
	assert_int_equal(loading->settings.rates[RATE_SEARCH][TIER_ENTERPRISE], 3);
	assert_int_equal(loading->settings.hot_cache_bytes, 1025 * 1024);
	assert_int_equal(loading->settings.log_level, LOG_LEVEL_ERROR);
	assert_string_equal(loading->settings.chains[0].aliases[1], "y");
	assert_string_equal(loading->settings.chains[0].rpc_url, "http://localhost:8545");
	assert_int_equal(loading->settings.chains[1].first_block, 7);
}

static void test_secrets_are_printed_as_stars(void **state)
{
	struct loading *loading = *state;
	const char *text;

	assert_string_equal(load_text(loading, "database_url = postgresql://areg:hunter2@db/areg\n"
					       "sentry_dsn = https://hunter2@sentry.example/1\n"
					       "[chain a]\nchain_id = 1\n"
					       "identity_registry = " MAINNET_IDENTITY "\n"
					       "rpc_url = https://rpc.example:1/v2/hunter2\n"
					       "[chain b]\nchain_id = 2\n"
					       "identity_registry = " MAINNET_IDENTITY "\n"
					       "rpc_url = https://hunter2@rpc.example\n"
					       "[chain c]\nchain_id = 3\n"
					       "identity_registry = " MAINNET_IDENTITY "\n"
					       "rpc_url = https://rpc.example?hunter2\n"),
		"");
	text = printed(loading);
	assert_null(strstr(text, "hunter2"));
	assert_non_null(strstr(
		text, "\ndatabase_url = user='areg' password='****' dbname='areg' host='db'\n"));
	assert_non_null(strstr(text, "\nsentry_dsn = https://****@sentry.example/1\n"));
	assert_non_null(strstr(text, "\nrpc_url = https://rpc.example:1/****\n"));
	assert_non_null(strstr(text, "\nrpc_url = https://rpc.example/****\n"));
}

/* ---- The secret for memcached ---- */

static const char secret_path[] = "secret";

static void write_secret(const char *text, size_t len, mode_t mode)
{
	FILE *file;

	unlink(secret_path);
	file = fopen(secret_path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, len, file), len);
	fclose(file);
	assert_int_equal(chmod(secret_path, mode), 0);
}

static bool reads_key(struct loading *loading)
{
	loading->settings.cache_secret_file = secret_path;
	memset(loading->settings.cache_key, 0, SEAL_KEY_BYTES);
	return seal_key_read(loading->arena, &loading->settings, &loading->faults);
}

static void test_hosts_with_the_same_secret_have_the_same_key(void **state)
{
	struct loading *loading = *state;
	uint8_t key[SEAL_KEY_BYTES];

	assert_string_equal(load_text(loading, "database_url = dbname=a\n"), "");
	write_secret("0123456789abcdef", 16, 0640);
	assert_true(reads_key(loading));
	assert_true(loading->settings.is_cache_key_secret);
	memcpy(key, loading->settings.cache_key, sizeof key);
	write_secret("0123456789abcdef\r\n\n", 19, 0600); /* as an editor leaves it */
	assert_true(reads_key(loading));
	assert_memory_equal(loading->settings.cache_key, key, sizeof key);
	loading->settings.database_url = "dbname=b";
	assert_true(reads_key(loading));
	assert_memory_equal(loading->settings.cache_key, key, sizeof key);
	write_secret("0123456789abcdeg", 16, 0600);
	assert_true(reads_key(loading));
	assert_memory_not_equal(loading->settings.cache_key, key, sizeof key);
	unlink(secret_path);
}

static void test_a_secret_that_is_none_is_refused(void **state)
{
	char longest[CACHE_SECRET_MOST + 1];
	struct loading *loading = *state;

	assert_string_equal(load_text(loading, "database_url = dbname=a\n"), "");
	memset(longest, 'x', sizeof longest);
	assert_false(reads_key(loading));
	assert_string_equal(loading->faults.list[0].where, secret_path);
	assert_string_equal(
		loading->faults.list[0].why, "cache_secret_file: No such file or directory");
	write_secret("0123456789abcde\n", 16, 0600);
	assert_false(reads_key(loading));
	assert_string_equal(
		loading->faults.list[0].why, "cache_secret_file: it is shorter than 16 bytes");
	write_secret(longest, sizeof longest, 0600);
	assert_false(reads_key(loading));
	assert_string_equal(
		loading->faults.list[0].why, "cache_secret_file: it is longer than 4096 bytes");
	write_secret(longest, sizeof longest - 1, 0600);
	assert_true(reads_key(loading));
	write_secret(longest, 100, 0644);
	assert_false(reads_key(loading));
	assert_non_null(strstr(loading->faults.list[0].why, "every user of this host can read it"));
	unlink(secret_path);
	assert_int_equal(mkfifo(secret_path, 0600), 0);
	assert_false(reads_key(loading));
	assert_string_equal(
		loading->faults.list[0].why, "cache_secret_file: it is no regular file");
	unlink(secret_path);
}

static void test_without_a_secret_the_password_of_the_database_is_one(void **state)
{
	struct loading *loading = *state;
	uint8_t key[SEAL_KEY_BYTES];

	assert_string_equal(
		load_text(loading, "database_url = dbname=a\ncache_secret_file = none\n"), "");
	assert_string_equal(loading->settings.cache_secret_file, "");
	assert_true(seal_key_read(loading->arena, &loading->settings, &loading->faults));
	assert_false(loading->settings.is_cache_key_secret);
	memcpy(key, loading->settings.cache_key, sizeof key);
	loading->settings.database_url = "dbname=a password=b";
	assert_true(seal_key_read(loading->arena, &loading->settings, &loading->faults));
	assert_true(loading->settings.is_cache_key_secret);
	assert_memory_not_equal(loading->settings.cache_key, key, sizeof key);
}

static bool warns(struct loading *loading, const char *text)
{
	const struct host_finding *findings;
	bool found = false;
	size_t count;

	assert_string_equal(load_text(loading, text), "");
	assert_true(seal_key_read(loading->arena, &loading->settings, &loading->faults));
	count = host_checks(loading->arena, &loading->settings, &findings);
	for (size_t i = 0; i < count; i++)
		found = found || strstr(findings[i].what, "make cache_secret_file") != NULL;
	return found;
}

static void test_a_port_of_memcached_without_a_secret_is_warned_of(void **state)
{
	static const char none[] = "cache_secret_file = none\n";
	struct loading *loading = *state;

	assert_true(warns(loading,
		arena_printf(loading->arena,
			"database_url = dbname=a\nmemcached_servers = unix:/a, h:1\n%s", none)));
	assert_false(warns(loading,
		arena_printf(loading->arena,
			"database_url = dbname=a\nmemcached_servers = unix:/a, unix:/b\n%s",
			none)));
	assert_false(warns(
		loading, arena_printf(loading->arena,
				 "database_url = dbname=a\nmemcached_servers = none\n%s", none)));
	assert_false(warns(loading,
		arena_printf(loading->arena,
			"database_url = dbname=a password=b\nmemcached_servers = h:1\n%s", none)));
}

/* ---- Sample and manual page say what the program does ---- */

static void test_sample_is_right_and_has_the_four_chains(void **state)
{
	static const struct {
		const char *name;
		uint64_t chain_id, first_block;
	} chains[] = { { "ethereum", 1, 24339871 }, { "base", 8453, 41663783 },
		{ "sepolia", 11155111, 9989393 }, { "base-sepolia", 84532, 36304145 } };
	struct loading *loading = *state;

	assert_string_equal(load(loading, sample), "");
	assert_int_equal(loading->settings.chain_count, 4);
	for (size_t i = 0; i < 4; i++) {
		const struct chain *chain = &loading->settings.chains[i];

		assert_string_equal(chain->name, chains[i].name);
		assert_int_equal(chain->chain_id, chains[i].chain_id);
		assert_int_equal(chain->first_block, chains[i].first_block);
		assert_string_equal(
			chain->identity_registry, "0x617265672d64656d6f2d6964656e746974696573");
		assert_string_equal(
			chain->reputation_registry, "0x617265672d64656d6f2d72657075746174696f6e");
		assert_null(chain->validation_registry);
		assert_int_equal(chain->authority, AUTHORITY_REGISTRY);
		assert_false(chain_is_official(chain));
	}
	assert_ptr_equal(
		settings_chain(&loading->settings, "baseSepolia"), &loading->settings.chains[3]);
}

/* Of settings at their defaults, the printed text holds "key = default" or "#key =" for each. */
static void test_sample_and_manual_name_every_key_with_its_default(void **state)
{
	struct loading *loading = *state;
	const char *sample_text, *manual_text;
	char *line, *rest;
	size_t keys = 0;

	assert_string_equal(
		load_text(loading, "database_url = postgresql:///areg\n[chain x]\n"
				   "chain_id = 1\nidentity_registry = " MAINNET_IDENTITY "\n"),
		"");
	sample_text = content_of(loading, sample);
	manual_text = content_of(loading, manual);
	rest = arena_strdup(loading->arena, printed(loading));
	for (bool in_chain = false; (line = strsep(&rest, "\n")) != NULL;) {
		char *equals = strstr(line, " =");
		const char *name = line + (*line == '#'), *value;

		in_chain = in_chain || *line == '[';
		if (equals == NULL || strncmp(line, "# ", 2) == 0)
			continue;
		value = equals + 2 + strspn(equals + 2, " ");
		keys++;
		*equals = '\0';
		/* Where it is known only when the files are installed. */
		if (strncmp(value, AREG_RUN_DIR "/", strlen(AREG_RUN_DIR "/")) == 0)
			value = arena_printf(loading->arena, "@%s@", name);
		if (strcmp(value, AREG_CACHE_SECRET_DEFAULT) == 0)
			value = "@sysconfdir@/areg/cache.secret";
		assert_non_null(
			strstr(manual_text, arena_printf(loading->arena, "\n.It Ic %s\n", name)));
		if (in_chain) {
			assert_non_null(strstr(
				sample_text, arena_printf(loading->arena, "\n#   %s ", name)));
			continue;
		}
		if (strcmp(name, "database_url") == 0)
			continue; /* is set in the sample, as the test of the chains shows */
		assert_non_null(strstr(sample_text,
			arena_printf(loading->arena, *value == '\0' ? "\n#%s =\n" : "\n#%s = %s\n",
				name, value)));
		if (*value != '\0')
			assert_non_null(strstr(strstr(manual_text, arena_printf(loading->arena,
									   "\n.It Ic %s\n", name)),
				arena_printf(loading->arena, "The default is\n.Li %s .\n", value)));
	}
	assert_int_equal(keys, 39 + 8);
}

static void test_manual_names_every_variable_of_the_replaced_service(void **state)
{
	static const char *const names[] = { "DATABASE_URL", "MEMCACHED_SERVERS", "SENTRY_DSN",
		"ENVIRONMENT", "ERC8004_ETH_IDENTITY_REGISTRY", "ERC8004_ETH_REPUTATION_REGISTRY",
		"ERC8004_BASE_IDENTITY_REGISTRY", "ERC8004_BASE_REPUTATION_REGISTRY",
		"ERC8004_SEPOLIA_IDENTITY_REGISTRY", "ERC8004_SEPOLIA_REPUTATION_REGISTRY",
		"ERC8004_BASE_SEPOLIA_IDENTITY_REGISTRY",
		"ERC8004_BASE_SEPOLIA_REPUTATION_REGISTRY" };
	struct loading *loading = *state;
	const char *text = content_of(loading, manual);

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		assert_non_null(
			strstr(text, arena_printf(loading->arena, "\n.It Ev %s Ta ", names[i])));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, new_loading, end_loading)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_database_alone_is_enough_and_the_rest_has_defaults),
		TEST(test_every_key_is_read_from_the_file),
		TEST(test_empty_server_list_means_no_memcached),
		TEST(test_each_broken_configuration_is_refused_with_file_line_and_reason),
		TEST(test_every_fault_of_a_file_is_reported_at_once),
		TEST(test_database_url_is_refused_without_showing_its_password),
		TEST(test_replicas_are_read_from_one_value_and_printed_without_their_passwords),
		TEST(test_server_list_that_the_cache_refuses_is_refused),
		TEST(test_file_named_but_absent_is_refused),
		TEST(test_variable_areg_conf_names_the_file_unless_an_argument_does),
		TEST(test_every_key_is_read_from_the_environment_over_the_file),
		TEST(test_every_older_name_is_understood),
		TEST(test_older_environment_alone_is_enough),
		TEST(test_new_names_win_over_older_ones),
		TEST(test_empty_variables_count_as_unset),
		TEST(test_names_that_scripts_export_are_let_pass_and_others_refused),
		TEST(test_chain_made_by_a_variable_must_be_whole),
		TEST(test_printed_settings_are_read_back_the_same),
		TEST(test_secrets_are_printed_as_stars),
		TEST(test_hosts_with_the_same_secret_have_the_same_key),
		TEST(test_a_secret_that_is_none_is_refused),
		TEST(test_without_a_secret_the_password_of_the_database_is_one),
		TEST(test_a_port_of_memcached_without_a_secret_is_warned_of),
		TEST(test_sample_is_right_and_has_the_four_chains),
		TEST(test_sample_and_manual_name_every_key_with_its_default),
		TEST(test_manual_names_every_variable_of_the_replaced_service),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
