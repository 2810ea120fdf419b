/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What areg is measured against: the least that a libfcgi program has to do for the same answer. It
 * knows no keys, limits, log, metrics or JSON. Like aregd it is started by spawn-fcgi with the
 * listening socket as fd 0, and forks its workers itself.
 *
 * Usage: spawn-fcgi -n -s SOCKET -- bare WORKERS constant|row|write [DATABASE_URL]
 *
 *   constant  600 bytes
 *   row       GET …/agents/UUID: the columns of areg's agent, by primary key, in one prepared
 *             statement, as they come
 *   write     POST of a feedback: areg's transaction with its audit entry, as one prepared
 *             statement, committed when it is answered
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fcgiapp.h>
#include <libpq-fe.h>

#include "app/api/agents.h"

enum { CONSTANT_BYTES = 600, WORKERS_MAX = 1024, BODY_BYTES_MAX = 4096 };

/* get_agent of app/api/agents.c, for an agent that is named by its uuid. */
static const char row_sql[] =
	"SELECT " AGENT_SHOWN
	"       coalesce((SELECT json_object_agg(m.key, convert_from(m.value, 'UTF8')"
	"                                        ORDER BY m.key)"
	"                   FROM erc8004_agent_metadata m"
	"                  WHERE m.agent_uuid = a.agent_uuid), '{}')"
	"  FROM erc8004_agents a WHERE a.agent_uuid = $1::uuid";

/* give_feedback of app/api/feedback.c, with constants for what the load never gives. */
static const char write_sql[] =
	"WITH given AS ("
	"    SELECT * FROM areg_give_feedback($1, $2, $3, NULL, NULL, $4, $5, $6, NULL, NULL)"
	"), audited AS ("
	"    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	"        subject_type, subject_id, after)"
	"    SELECT '0d1ff2b5-6d5b-4c0b-9d1b-0c1c2f5ad6b3'::uuid, 'areg_live_ABCDEFGH',"
	"        'b0f4a1c2d3e4f5a6', areg_client_address($7), 'feedback.give', 'feedback', given.id,"
	"        jsonb_build_object('agent_uuid', $1, 'client_address', $2,"
	"            'feedback_index', feedback_index, 'score', score, 'value', value,"
	"            'value_decimals', value_decimals, 'tag1', $4, 'tag2', $5)"
	"      FROM given WHERE outcome = 'created'"
	")"
	"SELECT outcome, id, $1, $2, feedback_index, score, value, value_decimals, $4, $5, created_at"
	"  FROM given";

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bare: %s: %s\n", what, why);
	exit(1);
}

static PGconn *connect_and_prepare(const char *database_url, const char *sql)
{
	PGconn *db = PQconnectdb(database_url);
	PGresult *result;

	if (PQstatus(db) != CONNECTION_OK)
		die("PostgreSQL", PQerrorMessage(db));
	result = PQprepare(db, "bare", sql, 0, NULL);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die("PostgreSQL", PQerrorMessage(db));
	PQclear(result);
	return db;
}

static void answer(FCGX_Request *request, int status, const char *body, size_t len)
{
	FCGX_FPrintF(request->out,
		"Status: %d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		status, (int)len);
	FCGX_PutStr(body, (int)len, request->out);
}

/* Answers with the columns of the one row, a line each. */
static void answer_row(
	FCGX_Request *request, PGconn *db, int status, int param_count, const char *const *params)
{
	PGresult *result = PQexecPrepared(db, "bare", param_count, params, NULL, NULL, 0);
	static char body[1 << 20];
	size_t len = 0;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die("PostgreSQL", PQerrorMessage(db));
	if (PQntuples(result) != 1) {
		answer(request, 404, "none\n", 5);
	} else {
		for (int i = 0; i < PQnfields(result); i++) {
			size_t bytes = (size_t)PQgetlength(result, 0, i);

			if (len + bytes + 1 > sizeof body)
				die("row", "is too long");
			memcpy(body + len, PQgetvalue(result, 0, i), bytes);
			len += bytes;
			body[len++] = '\n';
		}
		answer(request, status, body, len);
	}
	PQclear(result);
}

/* The text of a member in the JSON that the load sends: no blanks, no escapes. Cuts `body`. */
static const char *member(char *body, const char *name)
{
	char *at = strstr(body, name);

	if (!at)
		return NULL;
	at += strlen(name) + strlen("\":");
	if (*at == '"')
		at++;
	at[strcspn(at, "\",}")] = '\0';
	return at;
}

static void row(FCGX_Request *request, PGconn *db)
{
	const char *uri = FCGX_GetParam("REQUEST_URI", request->envp);
	const char *slash = uri ? strrchr(uri, '/') : NULL;
	const char *uuid = slash ? slash + 1 : "";

	answer_row(request, db, 200, 1, &uuid);
}

/* Members are cut out of the body from its end to its start. */
static void feedback(FCGX_Request *request, PGconn *db)
{
	char body[BODY_BYTES_MAX + 1];
	int len = FCGX_GetStr(body, BODY_BYTES_MAX, request->in);
	const char *params[7];

	body[len > 0 ? len : 0] = '\0';
	params[5] = member(body, "endpoint");
	params[4] = member(body, "tag2");
	params[3] = member(body, "tag1");
	params[2] = member(body, "score");
	params[1] = member(body, "client_address");
	params[0] = member(body, "agent_uuid");
	params[6] = FCGX_GetParam("REMOTE_ADDR", request->envp);
	answer_row(request, db, 201, 7, params);
}

static void serve(const char *mode, const char *database_url)
{
	static char constant[CONSTANT_BYTES];
	FCGX_Request request;
	PGconn *db = NULL;

	memset(constant, 'x', sizeof constant);
	if (strcmp(mode, "row") == 0)
		db = connect_and_prepare(database_url, row_sql);
	else if (strcmp(mode, "write") == 0)
		db = connect_and_prepare(database_url, write_sql);
	FCGX_Init();
	FCGX_InitRequest(&request, 0, 0);
	while (FCGX_Accept_r(&request) == 0) {
		if (!db)
			answer(&request, 200, constant, sizeof constant);
		else if (strcmp(mode, "row") == 0)
			row(&request, db);
		else
			feedback(&request, db);
		FCGX_Finish_r(&request);
	}
	exit(1);
}

int main(int argc, char **argv)
{
	int workers = argc >= 3 ? atoi(argv[1]) : 0;

	if (workers < 1 || workers > WORKERS_MAX || argc > 4 ||
		(strcmp(argv[2], "constant") != 0 &&
			(argc != 4 ||
				(strcmp(argv[2], "row") != 0 && strcmp(argv[2], "write") != 0)))) {
		fputs("Usage: bare WORKERS constant|row|write [DATABASE_URL]\n", stderr);
		return 2;
	}
	for (int i = 0; i < workers; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGTERM);
			serve(argv[2], argc == 4 ? argv[3] : NULL);
		}
		if (pid == -1)
			die("fork", "failed");
	}
	/* One that ends has said why; without it the rest would be measured as if it were all. */
	wait(NULL);
	return 1;
}
