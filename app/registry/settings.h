/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of areg: areg.conf and the environment, checked whole before it is used. */
#ifndef AREG_REGISTRY_SETTINGS_H
#define AREG_REGISTRY_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "app/registry/limits.h"
#include "lib/arena.h"
#include "lib/eth.h"
#include "lib/log.h"
#include "lib/seal.h"

enum {
	REPLICAS_MAX = 16, /* that database_read may name */
	WRITERS_MOST = 8, /* processes of a host that store feedback together */
};

/* Either the registry or the chain hands out the agent ids of a chain; in the order of the words of
 * areg.conf. Only the registry does until chains are read; see app/process/host_checks.c. */
enum chain_authority { AUTHORITY_REGISTRY, AUTHORITY_CHAIN };

/* A chain that this registry serves: a [chain NAME] section. */
struct chain {
	const char *name; /* as in API answers: "base-sepolia" */
	const char *const *aliases; /* NULL-terminated: "baseSepolia" */
	uint64_t chain_id; /* EIP-155; 1..2^53 - 1 */
	const char *identity_registry; /* canonical address */
	const char *reputation_registry; /* canonical address, or NULL */
	const char *validation_registry; /* canonical address, or NULL */
	uint64_t first_block;
	enum chain_authority authority;
	const char
		*rpc_url; /* for a program that will read chains; see app/process/host_checks.c */
};

struct settings {
	const char *source; /* the file read, or "the environment", for messages */

	const char *database_url;
	const char *runtime_role; /* of PostgreSQL: what aregctl migrate makes the tables for */
	int database_connect_timeout_ms;
	int database_statement_timeout_ms;
	const char *const
		*database_read; /* URLs of replicas, NULL-terminated, at most REPLICAS_MAX */
	int database_read_timeout_ms; /* for connecting to one, and for its answer */
	bool database_request_ids; /* PostgreSQL's application_name carries the request's id */

	const char *memcached_servers; /* "" for none */
	const char *cache_secret_file; /* path; "" for none */
	uint8_t cache_key[SEAL_KEY_BYTES]; /* by seal_key_read(); zero before that */
	bool is_cache_key_secret; /* likewise: whether it is made of a secret */
	int cache_timeout_ms;
	int cache_retry_ms;

	int workers; /* 1..1024 */
	int64_t max_requests; /* a worker recycles after that many; 0 never */
	int request_timeout_ms; /* longest life of one request */
	int shutdown_timeout_ms; /* for draining on SIGTERM */

	rate_table rates;
	const char *rate_texts[RATE_CLASSES]; /* the same as written: "120 1000 5000 50000" */
	quota_table quotas;
	const char *quota_texts[QUOTAS]; /* the same as written: "16m 256m 4g" */
	size_t hot_cache_bytes; /* of memory that the processes of a host share */

	const char *control_socket; /* path, for aregctl; "" for none */
	const char *health_socket; /* path, for nginx; "" for none */

	int feedback_writers; /* at most, 0..WRITERS_MOST; see writers_for() */
	int feedback_per_client_per_day; /* on one agent, 0..1000000; 0: no limit */
	const char *min_payment; /* USDC, plain digits: smaller payments count for no trust */
	bool auto_feedback; /* settled payments that are linked to an agent give it feedback */

	const char *log_file; /* path, or "stderr" */
	enum log_format log_format;
	enum log_level log_level;
	int event_retention_days; /* 0: for ever */
	int slow_request_ms; /* logged as such from that on; 0: none is */

	const char
		*public_url; /* https://host, no trailing slash: base of token_uri and docs links */
	const char *environment;
	const char *sentry_dsn; /* NULL for none */
	int sentry_per_minute; /* events sent at most */

	const struct chain *chains;
	size_t chain_count;
};

/* Where and why a configuration was refused; as many lines as there are faults. */
struct settings_fault {
	const char *where; /* "areg.conf:12", or "environment variable DATABASE_URL" */
	const char *why; /* "workers: 0 is not within 1..1024" */
};

struct settings_faults {
	struct settings_fault *list;
	size_t count;
};

/*
 * Reads the file at `path`, then the environment over it, and checks everything. `path` NULL takes
 * AREG_CONF from the environment, else the installed default (sysconfdir/areg/areg.conf), which
 * may be absent when the environment says all that is required. On refusal returns false with
 * every fault found. All memory is the arena's.
 */
MUST_CHECK bool settings_load(struct arena *arena, const char *path, struct settings *settings,
	struct settings_faults *faults);

/*
 * The same for the file that `path` names, which may be absent when the environment says all that is
 * required. settings_load() passes the installed default; a test passes a path where no file is.
 */
MUST_CHECK bool settings_load_installed(struct arena *arena, const char *path,
	struct settings *settings, struct settings_faults *faults);

/* The chain of that name or alias (letter case counts), or NULL. */
const struct chain *settings_chain(const struct settings *settings, const char *name);

/* The chain with that EIP-155 id, or NULL. */
const struct chain *settings_chain_by_id(const struct settings *settings, uint64_t chain_id);

/* How many replicas database_read names. */
size_t settings_replicas(const struct settings *settings);

/* Which database that is: its URL without what is secret in it. */
const char *settings_database(struct arena *arena, const struct settings *settings);

/* Writes the settings as areg.conf text, each key with a line of help. What is secret in a value is
 * written as ****. */
void settings_print(const struct settings *settings, FILE *out);

#endif
