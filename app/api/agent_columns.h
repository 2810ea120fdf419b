/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The columns of an agent, each said once. From this table come what the API shows of an agent (SQL,
 * JSON and OpenAPI), what a registration stores, what is read out of a registration file, and what a
 * line of `aregctl import` may say. To add a column, add it to the table in sql/, to this table, and,
 * where the API shows it, its description to docs/openapi/agents.json. One that is READ is also an
 * argument of areg_edit_agent() in sql/: new_ and its name.
 */
#ifndef AREG_API_AGENT_COLUMNS_H
#define AREG_API_AGENT_COLUMNS_H

#include "lib/row_json.h"

/*
 * X(column, shown, kind, sql, registered, value, imported, type, from…) for each column:
 *
 * shown       SHOWN: the API shows it under its name, as COLUMN_<kind> of lib/row_json.h; `sql` is its
 *             expression over erc8004_agents as `a`. HIDDEN: the API does not show it.
 * registered  STORED: a registration stores it; `value` is its SQL in the statement that does, in which
 *             parameters have names. UNSET: a registration leaves it as the database has it.
 * imported    READ: it is read out of the registration file, which a registration, an edit or an import
 *             brings; `from` is its value in terms of `file`, a struct registration_file *, and `arena`.
 *             GIVEN: a line of an import may have a field of that name; `from` are members of its
 *             struct json_field. `type` is the SQL type of either. BY_HAND: neither of them; what an
 *             import does with it stands in app/ctl/import_store.c.
 *
 * The API shows them in this order. The last two that it shows are written by agent_write() itself.
 */
/* clang-format off */
#define AGENT_COLUMNS(X) \
	X(agent_uuid,       SHOWN, TEXT, "a.agent_uuid",       STORED, ":agent_uuid::uuid",  BY_HAND, ,) \
	X(agent_id,         SHOWN, JSON, "a.agent_id",         STORED, "number.agent_id",    BY_HAND, ,) \
	X(chain,            SHOWN, TEXT, "a.chain",            STORED, ":chain",             BY_HAND, ,) \
	X(chain_id,         SHOWN, JSON, "a.chain_id",         STORED, ":chain_id::bigint",  BY_HAND, ,) \
	X(registry_address, SHOWN, TEXT, "a.registry_address", STORED, ":registry_address",  BY_HAND, ,) \
	X(agent_registry,   SHOWN, TEXT, "'eip155:' || a.chain_id || ':' || a.registry_address", \
		UNSET, , BY_HAND, ,) \
	X(owner_address,    SHOWN, TEXT, "a.owner_address",    STORED, ":owner_address",     BY_HAND, ,) \
	X(agent_wallet,     SHOWN, TEXT, "a.agent_wallet",     STORED, ":owner_address", \
		GIVEN, "text", .kind = JSON_ADDRESS) \
	X(token_uri,        SHOWN, TEXT, "a.token_uri",        STORED, ":token_uri", \
		GIVEN, "text", .kind = JSON_STRING) \
	X(status,           SHOWN, TEXT, "a.status",           STORED, "'active'",           BY_HAND, ,) \
	X(registered_tx,    SHOWN, TEXT, "a.registered_tx",    UNSET, , \
		GIVEN, "text", .kind = JSON_HASH) \
	X(registered_block, HIDDEN, , ,                        UNSET, , \
		GIVEN, "bigint", .kind = JSON_INTEGER, .max = INT64_MAX) \
	X(created_at,       SHOWN, TEXT, "rfc3339(a.created_at)", UNSET, ,                   BY_HAND, ,) \
	X(updated_at,       SHOWN, TEXT, "rfc3339(a.updated_at)", UNSET, ,                   BY_HAND, ,) \
	X(source,           HIDDEN, , ,                        STORED, "'api'",              BY_HAND, ,) \
	X(registration_digest, HIDDEN, , ,                     STORED, "decode(:registration_digest, 'hex')", \
		BY_HAND, ,) \
	X(name,             HIDDEN, , , STORED, ":name",                    READ, "text", file->name) \
	X(description,      HIDDEN, , , STORED, ":description",             READ, "text", file->description) \
	X(image,            HIDDEN, , , STORED, ":image",                   READ, "text", file->image) \
	X(shown_services,   HIDDEN, , , STORED, ":shown_services::json",    READ, "json", file->shown_services) \
	X(x402_support,     HIDDEN, , , STORED, ":x402_support::boolean",   READ, "boolean", file->x402_support) \
	X(file_active,      HIDDEN, , , STORED, ":file_active::boolean",    READ, "boolean", file->active) \
	X(services,         HIDDEN, , , STORED, ":services::text[]",        READ, "text[]", \
		db_array(arena, file->services, file->service_count)) \
	X(skills,           HIDDEN, , , STORED, ":skills::text[]",          READ, "text[]", \
		db_array(arena, file->skills, file->skill_count)) \
	X(domains,          HIDDEN, , , STORED, ":domains::text[]",         READ, "text[]", \
		db_array(arena, file->domains, file->domain_count)) \
	X(supported_trust,  HIDDEN, , , STORED, ":supported_trust::text[]", READ, "text[]", \
		db_array(arena, file->supported_trust, file->trust_count)) \
	X(registration_file, SHOWN, JSON, "a.registration_file", STORED, ":registration_file::json", \
		BY_HAND, ,) \
	X(conformance,      SHOWN, JSON, "a.conformance",      UNSET, ,                      BY_HAND, ,)
/* clang-format on */

/*
 * Lists in SQL, a comma behind each entry, the last one too: what the caller puts behind the list ends
 * it. AGENT_SHOWN: expressions that the API shows. AGENT_STORED, AGENT_STORED_VALUES: columns that a
 * registration stores, and their values. AGENT_READ: columns that are read out of the file.
 */
#define AGENT_SHOWN AGENT_COLUMNS(AGENT_SHOWN_ITEM)
#define AGENT_STORED AGENT_COLUMNS(AGENT_STORED_ITEM)
#define AGENT_STORED_VALUES AGENT_COLUMNS(AGENT_STORED_VALUE)
#define AGENT_READ AGENT_COLUMNS(AGENT_READ_ITEM)
/* Initialisers in C, likewise: names of the parameters for those columns, and their values. */
#define AGENT_READ_NAMES AGENT_COLUMNS(AGENT_READ_NAME)
#define AGENT_READ_VALUES AGENT_COLUMNS(AGENT_READ_VALUE)

#define AGENT_SHOWN_ITEM(column, shown, kind, sql, ...) AGENT_SQL_IF_##shown(sql)
#define AGENT_SQL_IF_SHOWN(sql) sql ", "
#define AGENT_SQL_IF_HIDDEN(sql)

#define AGENT_STORED_ITEM(column, shown, kind, sql, registered, ...) \
	AGENT_SQL_IF_##registered(#column)
#define AGENT_STORED_VALUE(column, shown, kind, sql, registered, value, ...) \
	AGENT_SQL_IF_##registered(value)
#define AGENT_SQL_IF_STORED(sql) sql ", "
#define AGENT_SQL_IF_UNSET(sql)

#define AGENT_READ_ITEM(column, shown, kind, sql, registered, value, imported, type, ...) \
	AGENT_IF_READ_##imported(#column ", ")
#define AGENT_READ_NAME(column, shown, kind, sql, registered, value, imported, type, ...) \
	AGENT_IF_READ_##imported(#column, )
#define AGENT_READ_VALUE(column, shown, kind, sql, registered, value, imported, type, ...) \
	AGENT_IF_READ_##imported(__VA_ARGS__, )
#define AGENT_IF_READ_READ(...) __VA_ARGS__
#define AGENT_IF_READ_GIVEN(...)
#define AGENT_IF_READ_BY_HAND(...)

/* Columns of a row of AGENT_SHOWN. Behind them stands what the API shows beside: see agent_columns. */
#define AGENT_PLACE(column, shown, ...) AGENT_PLACE_IF_##shown(SHOWN_##column)
#define AGENT_PLACE_IF_SHOWN(place) place,
#define AGENT_PLACE_IF_HIDDEN(place)
enum { AGENT_COLUMNS(AGENT_PLACE) SHOWN_metadata, AGENT_SHOWN_COUNT };

/* The members of the API's Agent object. `authority` is no column: it is the same for all. */
enum { AGENT_MEMBER_COUNT = AGENT_SHOWN_COUNT + 1 };
extern const struct column agent_columns[AGENT_MEMBER_COUNT];

#endif
