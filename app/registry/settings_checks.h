/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tables of keys in settings.c. Each check takes the text of a value and returns NULL, or what is
 * wrong with it, in words that follow the key ("is no address: …"); *value may be set to another form of
 * it, the arena's. Each mask returns the text as it may be shown, without its secrets.
 */
#ifndef AREG_REGISTRY_SETTINGS_CHECKS_H
#define AREG_REGISTRY_SETTINGS_CHECKS_H

#include "lib/arena.h"

const char *settings_check_public_url(struct arena *arena, const char *text, const char **value);
const char *settings_check_rpc_url(struct arena *arena, const char *text, const char **value);
const char *settings_mask_rpc_url(struct arena *arena, const char *text);
const char *settings_check_sentry_dsn(struct arena *arena, const char *text, const char **value);
const char *settings_mask_sentry_dsn(struct arena *arena, const char *text);
const char *settings_check_database_url(struct arena *arena, const char *text, const char **value);
const char *settings_mask_database_url(struct arena *arena, const char *text);
const char *settings_check_role(struct arena *arena, const char *text, const char **value);
const char *settings_check_database_read(struct arena *arena, const char *text, const char **value);
const char *settings_mask_database_read(struct arena *arena, const char *text);
const char *settings_check_memcached_servers(
	struct arena *arena, const char *text, const char **value);
const char *settings_check_secret_file(struct arena *arena, const char *text, const char **value);
const char *settings_check_rates(struct arena *arena, const char *text, const char **value);
const char *settings_check_quota_agents(struct arena *arena, const char *text, const char **value);
const char *settings_check_quota_bytes(struct arena *arena, const char *text, const char **value);
const char *settings_check_min_payment(struct arena *arena, const char *text, const char **value);
const char *settings_check_socket(struct arena *arena, const char *text, const char **value);
const char *settings_check_log_file(struct arena *arena, const char *text, const char **value);
const char *settings_check_environment(struct arena *arena, const char *text, const char **value);
const char *settings_check_alias(struct arena *arena, const char *text, const char **value);
const char *settings_check_address(struct arena *arena, const char *text, const char **value);

#endif
