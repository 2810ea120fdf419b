/* SPDX-License-Identifier: Apache-2.0 */
#include "app/process/host_checks.h"

#include <errno.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/cache/seal_key.h"
#include "app/cache/wal_position.h"

struct list {
	struct arena *arena;
	struct host_finding *at;
	size_t count;
};

static void check_add(struct list *list, enum host_weight weight, const char *what)
{
	list->at[list->count++] = (struct host_finding){ weight, what };
}

bool chain_is_official(const struct chain *chain)
{
	/* ERC-8004's deployments: all mainnets, all testnets. Canonical addresses are in lower case. */
	static const char *const official[] = {
		"0x8004a169fb4a3325136eb29fa0ceb6d2e539a432",
		"0x8004a818bfb912233c491871b3d84c89a494bd9e",
	};

	for (size_t i = 0; i < sizeof official / sizeof official[0]; i++)
		if (strcmp(chain->identity_registry, official[i]) == 0)
			return true;
	return false;
}

static void check_check_chains(struct list *list, const struct settings *settings)
{
	if (settings->chain_count == 0)
		check_add(list, HOST_FAULT,
			"chains: none is configured, so no agent can be registered or imported: "
			"add a [chain NAME] section");
	for (size_t i = 0; i < settings->chain_count; i++) {
		const struct chain *chain = &settings->chains[i];

		if (chain->rpc_url != NULL)
			check_add(list, HOST_REFUSED,
				arena_printf(list->arena,
					"chain %s: rpc_url: this version does not read chains, and "
					"hands out the agent ids itself: take rpc_url out",
					chain->name));
		if (chain->authority == AUTHORITY_CHAIN)
			check_add(list, HOST_REFUSED,
				arena_printf(list->arena,
					"chain %s: authority = chain: this version does not read "
					"chains, and hands out the agent ids itself: say "
					"authority = registry",
					chain->name));
		if (chain_is_official(chain))
			check_add(list, HOST_WARNING,
				arena_printf(list->arena,
					"chain %s: identity_registry is the official registry of a "
					"real chain, but this registry hands out the ids: agents "
					"that are registered here contradict that chain",
					chain->name));
	}
}

/* As the user who asks: for root, whatever is there can be written. */
static void check_log_file(struct list *list, const struct settings *settings)
{
	const char *path = settings->log_file;
	const char *folder;

	if (strcmp(path, "stderr") == 0)
		return;
	folder = dirname(arena_strdup(list->arena, path));
	if (access(path, W_OK) == 0 || (errno == ENOENT && access(folder, W_OK | X_OK) == 0))
		return;
	check_add(list, HOST_FAULT,
		errno == ENOENT
			? arena_printf(list->arena,
				  "log_file: there is no folder %s: make it, owned by the user of areg",
				  folder)
			: arena_printf(list->arena,
				  "log_file: %s cannot be written by this user: %s", path,
				  strerror(errno)));
}

static void check_rights(struct list *list, const struct settings *settings)
{
	bool is_secret = settings->sentry_dsn != NULL || url_has_password(settings->database_url);
	struct stat found;

	for (size_t i = 0; i < settings_replicas(settings); i++)
		is_secret = is_secret || url_has_password(settings->database_read[i]);
	if (is_secret && stat(settings->source, &found) == 0 && (found.st_mode & S_IROTH) != 0)
		check_add(list, HOST_FAULT,
			arena_printf(list->arena,
				"%s holds a secret, and every user of this host can read it: "
				"chgrp it to the group of areg, and chmod 0640",
				settings->source));
}

static bool all_are_sockets(const char *servers)
{
	size_t len;

	for (; *servers != '\0'; servers += len + (servers[len] == ',')) {
		servers += strspn(servers, " \t");
		len = strcspn(servers, ",");
		if (len > 0 && strncmp(servers, "unix:", 5) != 0)
			return false;
	}
	return true;
}

/* A socket file has its rights; everybody on the host, or on the network, reaches a port. */
static void check_cache_secret(struct list *list, const struct settings *settings)
{
	if (!settings->is_cache_key_secret && !all_are_sockets(settings->memcached_servers))
		check_add(list, HOST_WARNING,
			"memcached_servers: whoever reaches them can put answers there, since there is "
			"no secret to seal them with: make cache_secret_file, the same on all hosts");
}

size_t host_checks(
	struct arena *arena, const struct settings *settings, const struct host_finding **findings)
{
	struct list list = { .arena = arena };

	list.at = arena_alloc(arena, (4 + 3 * settings->chain_count) * sizeof *list.at);
	check_check_chains(&list, settings);
	check_log_file(&list, settings);
	check_rights(&list, settings);
	check_cache_secret(&list, settings);
	*findings = list.at;
	return list.count;
}
