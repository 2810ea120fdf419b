/* Only a well-formed key costs a look-up; keys are compared as SHA-256, by the database's index. */
#include "app/authenticate.h"

#include <string.h>
#include <strings.h>

#include "app/apikey.h"

static const struct db_statement find_caller = {
	.name = "find_caller",
	.effect = DB_READS,
	.sql = "SELECT u.id, u.wallet_address, u.tier, k.id, k.key_prefix"
	       "  FROM api_keys k JOIN users u ON u.id = k.user_id"
	       " WHERE k.key_hash = decode($1, 'hex') AND k.is_active AND u.is_active"
	       "   AND (k.expires_at IS NULL OR k.expires_at > now())",
};

/* The key that the request carries, NULL for none; "" for credentials of another kind. */
static const char *key_of(const struct http_request *request)
{
	static const char scheme[] = "Bearer ";
	const char *authorization = http_header(request, "HTTP_AUTHORIZATION");

	if (authorization == NULL || *authorization == '\0')
		return http_header(request, "HTTP_X_API_KEY");
	if (strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
		return "";
	authorization += sizeof scheme - 1;
	return authorization + strspn(authorization, " ");
}

static bool refuse(struct call *call)
{
	http_header_add(call->response, "WWW-Authenticate", "Bearer error=\"invalid_token\"");
	call_problem(call, 401, "unauthorized",
		"The API key is not valid: it is mistyped, revoked or expired.");
	return false;
}

bool authenticate(struct call *call)
{
	const char *key = key_of(call->request);
	char hash[APIKEY_HASH_LEN + 1];
	const char *params[] = { hash };
	struct caller *caller;
	struct db_rows rows;
	enum db_status status;

	if (key == NULL)
		return true;
	if (!apikey_well_formed(key))
		return refuse(call);
	apikey_hash(key, hash);
	status = db_run(call->worker->db, &find_caller, params, 1, call->arena, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return false;
	}
	if (rows.count == 0)
		return refuse(call);
	caller = arena_alloc(call->arena, sizeof *caller);
	*caller = (struct caller){ db_text(&rows, 0, 0), db_text(&rows, 0, 1), db_text(&rows, 0, 2),
		db_text(&rows, 0, 3), db_text(&rows, 0, 4) };
	call->caller = caller;
	return true;
}
