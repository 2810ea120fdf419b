/* SPDX-License-Identifier: Apache-2.0 */
/* aregctl key: API keys. The key itself is printed once, when it is made, and stored nowhere. */
#include "app/ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cache/callers.h"
#include "app/registry/api_key.h"
#include "lib/json_in.h"
#include "lib/rfc3339.h"

enum { TIMEOUT_MS = 30 * 1000, DAY_S = 24 * 60 * 60 };

struct values {
	const char *user, *name, *expires;
	struct ctl_list scopes;
	bool quiet;
};

#define KEY_COLUMNS \
	"k.id, k.key_prefix, k.user_id, u.name, k.name, array_to_string(k.scopes, ' '), " \
	"CASE WHEN NOT k.is_active THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired' " \
	"WHEN NOT u.is_active THEN 'user off' ELSE 'active' END, " \
	"rfc3339(k.expires_at), rfc3339(k.last_used_at), rfc3339(k.created_at)"

static const struct ctl_column columns[] = {
	{ "id", "ID", CTL_STRING },
	{ "key_prefix", "PREFIX", CTL_STRING },
	{ "user_id", NULL, CTL_STRING },
	{ "user_name", "USER", CTL_STRING },
	{ "name", "NAME", CTL_STRING },
	{ "scopes", "SCOPES", CTL_WORDS },
	{ "state", "STATE", CTL_STRING },
	{ "expires_at", "EXPIRES", CTL_STRING },
	{ "last_used_at", "LAST USED", CTL_STRING },
	{ "created_at", "CREATED", CTL_STRING },
};
static const size_t column_count = sizeof(columns) / sizeof(columns[0]);

/* FOR SHARE: the user cannot lose a scope while a key with it is being made. */
static const struct db_statement insert_key = {
	.name = "ctl_key_create",
	.sql = "WITH owner AS ("
	       " SELECT id, areg_scopes_for_keys(scopes) AS most, is_active FROM users"
	       " WHERE id = $1::uuid OR wallet_address = $2 FOR SHARE), "
	       "made AS ("
	       " INSERT INTO api_keys (user_id, name, key_hash, key_prefix, scopes, expires_at)"
	       " SELECT id, $3, decode($4, 'hex'), $5, coalesce($6::text[], most),"
	       "  $7::timestamptz"
	       " FROM owner"
	       " WHERE is_active AND coalesce($6::text[], '{}') <@ most"
	       "  AND coalesce($7::timestamptz > now(), true)"
	       " RETURNING *), "
	       "audited AS ("
	       " INSERT INTO audit_log (actor, action, subject_type, subject_id, after)"
	       " SELECT $8, 'key.create', 'api_key', id::text, to_jsonb(made) - 'key_hash'"
	       " FROM made) "
	       "SELECT owner.is_active, array_to_string(owner.most, ', '), made.id, owner.id,"
	       " made.name, array_to_json(made.scopes), rfc3339(made.expires_at),"
	       " rfc3339(made.created_at), $7::timestamptz <= now() "
	       "FROM owner LEFT JOIN made ON true",
	.effect = DB_CHANGES,
};

static const struct db_statement list_keys = {
	.name = "ctl_key_list",
	.sql = "SELECT " KEY_COLUMNS " FROM api_keys k JOIN users u ON u.id = k.user_id "
	       "WHERE ($1::uuid IS NULL AND $2::text IS NULL) OR u.id = $1::uuid"
	       " OR u.wallet_address = $2::text "
	       "ORDER BY k.created_at, k.id",
	.effect = DB_READS,
};

/* Two keys may share a prefix: then none is revoked, and both rows come back. */
static const struct db_statement revoke_key = {
	.name = "ctl_key_revoke",
	.sql = "WITH found AS ("
	       " SELECT * FROM api_keys WHERE id = $1::uuid OR key_prefix = $2 FOR UPDATE), "
	       "changed AS ("
	       " UPDATE api_keys k SET is_active = false, revoked_at = now()"
	       " FROM found"
	       " WHERE k.id = found.id AND found.is_active AND (SELECT count(*) FROM found) = 1"
	       " RETURNING k.*), "
	       "audited AS ("
	       " INSERT INTO audit_log (actor, action, subject_type, subject_id, before, after)"
	       " SELECT $3, 'key.revoke', 'api_key', found.id::text,"
	       "  to_jsonb(found) - 'key_hash', to_jsonb(changed) - 'key_hash'"
	       " FROM found JOIN changed USING (id)) "
	       "SELECT found.id, found.key_prefix, changed.id IS NOT NULL "
	       "FROM found LEFT JOIN changed USING (id)",
	.effect = DB_CHANGES,
};

/* Reads --expires, a time to come or a duration from now (12h, 90d, 4w), into RFC 3339 text. */
static bool parse_expires(struct ctl *ctl, const char *text, const char **expires)
{
	char made[RFC3339_LEN + 1], *unit;
	const char *why;
	long number, seconds;

	if (rfc3339_check(text, &why)) {
		*expires = text;
		return true;
	}
	errno = 0;
	number = strtol(text, &unit, 10);
	seconds = strcmp(unit, "h") == 0   ? 3600
		  : strcmp(unit, "d") == 0 ? DAY_S
		  : strcmp(unit, "w") == 0 ? 7L * DAY_S
					   : 0;
	/* a hundred years; 9 digits at most keep the product far from overflow */
	if (text[0] < '0' || text[0] > '9' || errno != 0 || seconds == 0 || number < 1 ||
		number > 999999999 || number * seconds > 36525L * DAY_S) {
		ctl_error("--expires %s: neither an RFC 3339 time such as 2027-01-31T00:00:00Z nor "
			  "a duration such as 12h, 90d or 4w",
			text);
		return false;
	}
	rfc3339_format(time(NULL) + number * seconds, made);
	*expires = arena_strdup(ctl->arena, made);
	return true;
}

static void print_new_key(
	struct ctl *ctl, const struct values *values, const struct db_rows *rows, const char *key)
{
	char prefix[API_KEY_PREFIX_LEN + 1];
	struct json_out out;
	struct buf buf;

	if (values->quiet) {
		printf("%s\n", key);
		return;
	}
	if (!ctl->json) {
		printf("%s\n\nThis is the only time the key is shown.\n"
		       "id:       %s\nuser:     %s\nexpires:  %s\n",
			key, db_text(rows, 0, 2), db_text(rows, 0, 3),
			db_text(rows, 0, 6) != NULL ? db_text(rows, 0, 6) : "never");
		return;
	}
	api_key_prefix(key, prefix);
	buf_init(&buf, ctl->arena, 512);
	json_out_init(&out, &buf);
	json_open_object(&out);
	json_string(&out, "id", db_text(rows, 0, 2));
	json_string(&out, "key", key);
	json_string(&out, "key_prefix", prefix);
	json_string(&out, "user_id", db_text(rows, 0, 3));
	json_string(&out, "name", db_text(rows, 0, 4));
	json_raw(&out, "scopes", db_text(rows, 0, 5));
	json_string(&out, "expires_at", db_text(rows, 0, 6));
	json_string(&out, "created_at", db_text(rows, 0, 7));
	json_close_object(&out);
	ctl_print_buf(&buf);
}

static enum ctl_exit key_create(struct ctl *ctl, const void *arg)
{
	const struct values *values = arg;
	char key[API_KEY_LEN + 1], hash[API_KEY_HASH_LEN + 1], prefix[API_KEY_PREFIX_LEN + 1];
	struct ctl_user_name user;
	const char *scopes = NULL, *expires = NULL;
	struct db_rows rows;

	if (values->user == NULL) {
		ctl_error("key create needs --user ID or --user WALLET: see aregctl user list");
		return CTL_USAGE;
	}
	if (!ctl_parse_user(ctl, values->user, &user))
		return CTL_USAGE;
	if (values->scopes.count > 0 &&
		(scopes = ctl_parse_scopes(ctl, &values->scopes, CALLER_SCOPES_BYTES - 1)) == NULL)
		return CTL_USAGE;
	if (values->expires != NULL && !parse_expires(ctl, values->expires, &expires))
		return CTL_USAGE;
	if (!api_key_make(key)) {
		ctl_error("the kernel gives no random bytes");
		return CTL_FAILED;
	}
	api_key_hash(key, hash);
	api_key_prefix(key, prefix);
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &insert_key,
		    (const char *[]){ user.id, user.wallet, values->name, hash, prefix, scopes,
			    expires, ctl_actor(ctl) },
		    8, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "key create");
	if (rows.count == 0) {
		ctl_error("no user %s: see aregctl user list", values->user);
		return CTL_REFUSED;
	}
	if (!db_bool(&rows, 0, 0)) {
		ctl_error("user %s is off: aregctl user set %s --active on", values->user,
			values->user);
		return CTL_REFUSED;
	}
	if (db_bool(&rows, 0, 8)) {
		ctl_error("--expires %s: is not to come", values->expires);
		return CTL_REFUSED;
	}
	if (db_text(&rows, 0, 2) == NULL) {
		ctl_error("a key can have no scope that its user has not (%s): see aregctl user "
			  "set --help",
			db_text(&rows, 0, 1));
		return CTL_REFUSED;
	}
	print_new_key(ctl, values, &rows, key);
	return CTL_DONE;
}

static enum ctl_exit key_list(struct ctl *ctl, const void *arg)
{
	const struct values *values = arg;
	struct ctl_user_name user = { NULL, NULL };
	struct db_rows rows;

	if (values->user != NULL && !ctl_parse_user(ctl, values->user, &user))
		return CTL_USAGE;
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &list_keys, (const char *[]){ user.id, user.wallet }, 2, ctl->arena,
		    &rows) != DB_OK)
		return ctl_db_failed(ctl, "key list");
	ctl_print_rows(ctl, &rows, columns, column_count, "no keys yet: see aregctl key create");
	return CTL_DONE;
}

static enum ctl_exit key_revoke(struct ctl *ctl, const void *arg)
{
	const char *name = ctl->operands[0], *why;
	const char *params[3] = { NULL, NULL, ctl_actor(ctl) };
	char id[37];
	struct db_rows rows;

	(void)arg;
	if (uuid_parse(name, id, &why)) {
		params[0] = id;
	} else if (strlen(name) == API_KEY_PREFIX_LEN) {
		params[1] = name;
	} else {
		ctl_error("key revoke takes the id of a key or its prefix (its first %d "
			  "characters): see aregctl key list",
			API_KEY_PREFIX_LEN);
		return CTL_USAGE;
	}
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &revoke_key, params, 3, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "key revoke");
	if (rows.count == 0) {
		ctl_error("no key %s: see aregctl key list", name);
		return CTL_REFUSED;
	}
	if (rows.count > 1) {
		ctl_error("%zu keys have the prefix %s: name one by its id, see aregctl key list",
			rows.count, name);
		return CTL_REFUSED;
	}
	if (!db_bool(&rows, 0, 2)) {
		ctl_error("key %s was revoked before", name);
		return CTL_REFUSED;
	}
	if (ctl->json)
		printf("{\"id\":\"%s\",\"key_prefix\":\"%s\",\"state\":\"revoked\"}\n",
			db_text(&rows, 0, 0), db_text(&rows, 0, 1));
	else
		printf("revoked %s (%s…)\n", db_text(&rows, 0, 0), db_text(&rows, 0, 1));
	return CTL_DONE;
}

static const struct ctl_option create_options[] = {
	{ "user", CTL_TEXT, offsetof(struct values, user), "ID|WALLET", "whose key it will be" },
	{ "name", CTL_TEXT, offsetof(struct values, name), "NAME", "what the key is for" },
	{ "scope", CTL_LIST, offsetof(struct values, scopes), "SCOPE",
		"a right of the user's, or keys:write; repeatable; none for no right; default all" },
	{ "expires", CTL_TEXT, offsetof(struct values, expires), "WHEN",
		"RFC 3339 time, or 12h, 90d, 4w from now; default never" },
	{ "quiet", CTL_FLAG, offsetof(struct values, quiet), NULL,
		"print the key and nothing else" },
};

static const struct ctl_option list_options[] = {
	{ "user", CTL_TEXT, offsetof(struct values, user), "ID|WALLET", "only this user's keys" },
};

const struct ctl_command ctl_key_commands[] = {
	{ "key create", "", 0, "make an API key and show it, this once",
		"Needs --user. Only a hash of the key is stored: a lost key cannot be shown again.\n",
		create_options, sizeof(create_options) / sizeof(create_options[0]),
		sizeof(struct values), key_create },
	{ "key list", "", 0, "list the keys, but for the secret part", NULL, list_options, 1,
		sizeof(struct values), key_list },
	{ "key revoke", "ID|PREFIX", 1, "make a key useless, for good", NULL, NULL, 0,
		sizeof(struct values), key_revoke },
	{ .name = NULL },
};
