/* SPDX-License-Identifier: Apache-2.0 */
/* aregctl user: the people and programs that hold API keys, their tier and their scopes. */
#include "app/ctl/ctl.h"

#include <inttypes.h>
#include <string.h>

#include "app/cache/callers.h"
#include "app/registry/limits.h"

/* A key has the scopes of its user and keys:write: see users_scopes_leave_room_for_keys_write. Both
 * sizes count a NUL. */
enum { USER_SCOPES_BYTES = CALLER_SCOPES_BYTES - (int)sizeof " keys:write" };
enum { TIMEOUT_MS = 30 * 1000 };

struct values {
	const char *name, *wallet, *tier, *active;
	struct ctl_list scopes;
};

/* Of users u with user_storage s; `agents` and `bytes` are the parameters with the quotas of each tier. */
#define USER_COLUMNS(agents, bytes) \
	"u.id, u.name, u.wallet_address, u.tier, array_to_string(u.scopes, ' '), u.is_active," \
	" rfc3339(u.created_at), coalesce(s.agents, 0), " TIER_QUOTA( \
		agents) ", coalesce(s.bytes, 0), " TIER_QUOTA(bytes)
#define TIER_QUOTA(quotas) "(" quotas "::bigint[])[array_position('{free,pro,enterprise}', u.tier)]"

static const struct ctl_column columns[] = {
	{ "id", "ID", CTL_STRING },
	{ "name", "NAME", CTL_STRING },
	{ "wallet_address", "WALLET", CTL_STRING },
	{ "tier", "TIER", CTL_STRING },
	{ "scopes", "SCOPES", CTL_WORDS },
	{ "is_active", "ACTIVE", CTL_BOOL },
	{ "created_at", "CREATED", CTL_STRING },
	{ "agents", "AGENTS", CTL_RAW },
	{ "agents_quota", "AGENTS QUOTA", CTL_RAW },
	{ "bytes", "BYTES", CTL_RAW },
	{ "bytes_quota", "BYTES QUOTA", CTL_RAW },
};
static const size_t column_count = sizeof(columns) / sizeof(columns[0]);

static const struct db_statement insert_user = {
	.name = "ctl_user_add",
	.sql = "WITH added AS ("
	       " INSERT INTO users (name, wallet_address, tier, scopes, is_active)"
	       " VALUES ($1, $2, coalesce($3, 'free'), coalesce($4::text[], '{}'),"
	       "  coalesce($5::boolean, true))"
	       " RETURNING *), "
	       "audited AS ("
	       " INSERT INTO audit_log (actor, action, subject_type, subject_id, after)"
	       " SELECT $6, 'user.add', 'user', id::text, to_jsonb(added) FROM added) "
	       "SELECT " USER_COLUMNS(
		       "$7", "$8") " FROM added u LEFT JOIN user_storage s ON s.user_id = u.id",
	.effect = DB_CHANGES,
};

static const struct db_statement list_users = {
	.name = "ctl_user_list",
	.sql = "SELECT " USER_COLUMNS(
		"$1", "$2") " FROM users u LEFT JOIN user_storage s ON s.user_id = u.id"
			    " ORDER BY u.created_at, u.id",
	.effect = DB_READS,
};

static const struct db_statement update_user = {
	.name = "ctl_user_set",
	.sql = "WITH found AS ("
	       " SELECT * FROM users WHERE id = $6::uuid OR wallet_address = $7 FOR UPDATE), "
	       "changed AS ("
	       " UPDATE users u SET name = coalesce($1, u.name),"
	       "  wallet_address = coalesce($2, u.wallet_address), tier = coalesce($3, u.tier),"
	       "  scopes = coalesce($4::text[], u.scopes),"
	       "  is_active = coalesce($5::boolean, u.is_active), updated_at = now()"
	       " FROM found WHERE u.id = found.id"
	       " RETURNING u.*), "
	       "audited AS ("
	       " INSERT INTO audit_log (actor, action, subject_type, subject_id, before, after)"
	       " SELECT $8, 'user.set', 'user', found.id::text, to_jsonb(found), to_jsonb(changed)"
	       " FROM found JOIN changed USING (id)) "
	       "SELECT " USER_COLUMNS(
		       "$9", "$10") " FROM changed u LEFT JOIN user_storage s ON s.user_id = u.id",
	.effect = DB_CHANGES,
};

/* The quotas of the tiers free, pro and enterprise, as an array for PostgreSQL; no limit is null. */
static const char *quotas_of(struct ctl *ctl, enum quota_kind kind)
{
	enum { COUNT = TIERS - TIER_FREE };
	const char *texts[COUNT];

	for (size_t i = 0; i < COUNT; i++) {
		const int64_t quota = ctl->settings.quotas[kind][TIER_FREE + i];

		texts[i] = quota == INT64_MAX ? NULL : arena_printf(ctl->arena, "%" PRId64, quota);
	}
	return db_array(ctl->arena, texts, COUNT);
}

/* Checks the options and puts them, as add and set take them, into params[0..4]. */
static bool read_values(struct ctl *ctl, const struct values *values, const char **params)
{
	char wallet[ETH_ADDRESS_LEN + 1];

	params[0] = values->name;
	if (values->wallet != NULL) {
		if (!ctl_parse_wallet(values->wallet, wallet))
			return false;
		params[1] = arena_strdup(ctl->arena, wallet);
	}
	params[2] = values->tier;
	if (values->tier != NULL && strcmp(values->tier, "free") != 0 &&
		strcmp(values->tier, "pro") != 0 && strcmp(values->tier, "enterprise") != 0) {
		ctl_error("--tier %s: not free, pro or enterprise", values->tier);
		return false;
	}
	if (values->scopes.count > 0) {
		params[3] = ctl_parse_scopes(ctl, &values->scopes, USER_SCOPES_BYTES);
		if (params[3] == NULL)
			return false;
	}
	params[4] = values->active;
	if (values->active != NULL && strcmp(values->active, "on") != 0 &&
		strcmp(values->active, "off") != 0) {
		ctl_error("--active %s: not on or off", values->active);
		return false;
	}
	return true;
}

/* Of the constraints, only a wallet that is somebody else's can be in the way of good options. */
static enum ctl_exit change_failed(struct ctl *ctl, const struct values *values, const char *doing)
{
	if (strcmp(db_last_error(ctl->db)->sqlstate, "23505") != 0)
		return ctl_db_failed(ctl, doing);
	ctl_error("there is a user with wallet %s already: see aregctl user list", values->wallet);
	return CTL_REFUSED;
}

static enum ctl_exit user_add(struct ctl *ctl, const void *arg)
{
	const struct values *values = arg;
	const char *params[8] = { NULL };
	struct db_rows rows;

	if (!read_values(ctl, values, params))
		return CTL_USAGE;
	if (values->name == NULL && values->wallet == NULL) {
		ctl_error("user add needs --name, --wallet or both");
		return CTL_USAGE;
	}
	params[5] = ctl_actor(ctl);
	params[6] = quotas_of(ctl, QUOTA_AGENTS);
	params[7] = quotas_of(ctl, QUOTA_BYTES);
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &insert_user, params, 8, ctl->arena, &rows) != DB_OK)
		return change_failed(ctl, values, "user add");
	ctl_print_row(ctl, &rows, columns, column_count);
	return CTL_DONE;
}

static enum ctl_exit user_list(struct ctl *ctl, const void *arg)
{
	const char *const params[] = { quotas_of(ctl, QUOTA_AGENTS), quotas_of(ctl, QUOTA_BYTES) };
	struct db_rows rows;

	(void)arg;
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &list_users, params, 2, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "user list");
	ctl_print_rows(ctl, &rows, columns, column_count, "no users yet: see aregctl user add");
	return CTL_DONE;
}

static enum ctl_exit user_set(struct ctl *ctl, const void *arg)
{
	const struct values *values = arg;
	const char *params[10] = { NULL };
	struct ctl_user_name user;
	struct db_rows rows;

	if (!ctl_parse_user(ctl, ctl->operands[0], &user) || !read_values(ctl, values, params))
		return CTL_USAGE;
	if (values->name == NULL && values->wallet == NULL && values->tier == NULL &&
		values->scopes.count == 0 && values->active == NULL) {
		ctl_error("user set needs an option that says what to change: see aregctl user set "
			  "--help");
		return CTL_USAGE;
	}
	params[5] = user.id;
	params[6] = user.wallet;
	params[7] = ctl_actor(ctl);
	params[8] = quotas_of(ctl, QUOTA_AGENTS);
	params[9] = quotas_of(ctl, QUOTA_BYTES);
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &update_user, params, 10, ctl->arena, &rows) != DB_OK)
		return change_failed(ctl, values, "user set");
	if (rows.count == 0) {
		ctl_error("no user %s: see aregctl user list", ctl->operands[0]);
		return CTL_REFUSED;
	}
	ctl_print_row(ctl, &rows, columns, column_count);
	return CTL_DONE;
}

static const struct ctl_option options[] = {
	{ "name", CTL_TEXT, offsetof(struct values, name), "NAME", "what people call the user" },
	{ "wallet", CTL_TEXT, offsetof(struct values, wallet), "ADDRESS",
		"the user's wallet: whose agents and feedback the keys may write" },
	{ "tier", CTL_TEXT, offsetof(struct values, tier), "TIER",
		"free (the default), pro or enterprise: the rate limits" },
	{ "scope", CTL_LIST, offsetof(struct values, scopes), "SCOPE",
		"a right such as payments:write; repeatable; none for no right" },
	{ "active", CTL_TEXT, offsetof(struct values, active), "on|off",
		"whether the user's keys work" },
};
static const size_t option_count = sizeof(options) / sizeof(options[0]);

const struct ctl_command ctl_user_commands[] = {
	{ "user add", "", 0, "add a user and print it", "Needs --name, --wallet or both.\n",
		options, option_count, sizeof(struct values), user_add },
	{ "user list", "", 0, "list all users", NULL, NULL, 0, 0, user_list },
	{ "user set", "ID|WALLET", 1, "change a user and print it",
		"What no option names stays as it is; --scope replaces all scopes.\n", options,
		option_count, sizeof(struct values), user_set },
	{ .name = NULL },
};
