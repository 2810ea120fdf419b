/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sentry.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "lib/eth.h"
#include "lib/json_out.h"

enum {
	CONNECT_S = 3,
	TIMEOUT_S = 10,
	WAIT_MOST_S = 3600,
	ID_BYTES = 16,
};

struct sentry {
	CURL *curl;
	struct curl_slist *headers;
	char error[CURL_ERROR_SIZE];
	bool (*may_go_on)(void *arg);
	void *arg;
	unsigned wait_s;
};

/* ---- What is said ---- */

static void make_id(char id[2 * ID_BYTES + 1])
{
	uint8_t random[ID_BYTES];

	if (getrandom(random, sizeof random, 0) != sizeof random)
		abort();
	hex_encode(random, sizeof random, id);
	id[2 * ID_BYTES] = '\0';
}

static void put_event(struct buf *to, const struct sentry_event *event, const char *id)
{
	struct json_out out;

	json_out_init(&out, to);
	json_open_object(&out);
	json_string(&out, "event_id", id);
	json_raw(&out, "timestamp",
		arena_printf(to->arena, "%llu.%03u", (unsigned long long)(event->at_ms / 1000),
			(unsigned)(event->at_ms % 1000)));
	json_string(&out, "platform", "c");
	json_string(&out, "level", event->level);
	json_string(&out, "release", event->release);
	json_string(&out, "environment", event->environment);
	json_string(&out, "server_name", event->server_name);
	json_string(&out, "transaction", event->place);
	json_key(&out, "message");
	json_open_object(&out);
	json_string(
		&out, "formatted", arena_printf(to->arena, "%s in %s", event->code, event->place));
	json_close_object(&out);
	json_key(&out, "fingerprint");
	json_open_array(&out);
	json_put_string(&out, event->place);
	json_put_string(&out, event->code);
	json_close_array(&out);
	json_key(&out, "tags");
	json_open_object(&out);
	json_string(&out, "code", event->code);
	for (size_t i = 0; i < event->tag_count; i++)
		if (event->tags[i].value != NULL && event->tags[i].value[0] != '\0')
			json_string(&out, event->tags[i].name, event->tags[i].value);
	json_close_object(&out);
	json_key(&out, "extra");
	json_open_object(&out);
	json_integer(&out, "count", (int64_t)event->count);
	json_close_object(&out);
	json_close_object(&out);
}

void sentry_envelope(struct buf *out, const struct sentry_event *event)
{
	char id[2 * ID_BYTES + 1];
	struct buf payload;

	make_id(id);
	buf_init(&payload, out->arena, 1024);
	put_event(&payload, event, id);
	buf_printf(out, "{\"event_id\":\"%s\"}\n{\"type\":\"event\",\"length\":%zu}\n", id,
		payload.len);
	buf_put(out, payload.data, payload.len);
	buf_putc(out, '\n');
}

/* ---- Sending it ---- */

/* curl_slist_append() and what goes with it fail only for lack of memory. */
static void add_header(struct sentry *sentry, const char *header)
{
	struct curl_slist *longer = curl_slist_append(sentry->headers, header);

	if (longer == NULL)
		abort();
	sentry->headers = longer;
}

static size_t sentry_read_header(char *line, size_t size, size_t count, void *arg)
{
	static const char name[] = "Retry-After:";
	struct sentry *sentry = arg;
	const size_t len = size * count;
	const char *c = line + sizeof name - 1;
	unsigned wait_s = 0;

	if (len < sizeof name || strncasecmp(line, name, sizeof name - 1) != 0)
		return len;
	while (c < line + len && *c == ' ')
		c++;
	for (; c < line + len && isdigit((unsigned char)*c) && wait_s < WAIT_MOST_S; c++)
		wait_s = wait_s * 10 + (unsigned)(*c - '0');
	sentry->wait_s = wait_s < WAIT_MOST_S ? wait_s : WAIT_MOST_S;
	return len;
}

static size_t drop_body(char *bytes, size_t size, size_t count, void *arg)
{
	(void)bytes, (void)arg;
	return size * count;
}

static int sentry_look_up(
	void *arg, curl_off_t down_all, curl_off_t down, curl_off_t up_all, curl_off_t up)
{
	const struct sentry *sentry = arg;

	(void)down_all, (void)down, (void)up_all, (void)up;
	return sentry->may_go_on(sentry->arg) ? 0 : 1;
}

struct sentry *sentry_new(const char *dsn, const char *user_agent)
{
	struct sentry *sentry = calloc(1, sizeof *sentry);
	const char *key = strstr(dsn, "//") + 2, *host = strchr(key, '@') + 1;
	const char *project = strchr(host, '/') + 1;
	char *url = NULL, *authorization = NULL;

	if (sentry == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != 0 ||
		(sentry->curl = curl_easy_init()) == NULL ||
		asprintf(&url, "%.*s%.*s/api/%s/envelope/", (int)(key - dsn), dsn,
			(int)(project - 1 - host), host, project) < 0 ||
		asprintf(&authorization,
			"X-Sentry-Auth: Sentry sentry_version=7, sentry_client=%s, sentry_key=%.*s",
			user_agent, (int)(host - 1 - key), key) < 0)
		abort();
	add_header(sentry, "Content-Type: application/x-sentry-envelope");
	add_header(sentry, "Expect:"); /* no round trip of its own for 100 Continue */
	add_header(sentry, authorization);
	curl_easy_setopt(sentry->curl, CURLOPT_URL, url);
	curl_easy_setopt(sentry->curl, CURLOPT_HTTPHEADER, sentry->headers);
	curl_easy_setopt(sentry->curl, CURLOPT_USERAGENT, user_agent);
	curl_easy_setopt(sentry->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(sentry->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
	curl_easy_setopt(sentry->curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
	curl_easy_setopt(sentry->curl, CURLOPT_ERRORBUFFER, sentry->error);
	curl_easy_setopt(sentry->curl, CURLOPT_HEADERFUNCTION, sentry_read_header);
	curl_easy_setopt(sentry->curl, CURLOPT_HEADERDATA, sentry);
	curl_easy_setopt(sentry->curl, CURLOPT_WRITEFUNCTION, drop_body);
	curl_easy_setopt(sentry->curl, CURLOPT_XFERINFOFUNCTION, sentry_look_up);
	curl_easy_setopt(sentry->curl, CURLOPT_XFERINFODATA, sentry);
	curl_easy_setopt(sentry->curl, CURLOPT_NOPROGRESS, 0L);
	free(authorization);
	free(url);
	return sentry;
}

void sentry_free(struct sentry *sentry)
{
	curl_easy_cleanup(sentry->curl);
	curl_slist_free_all(sentry->headers);
	curl_global_cleanup();
	free(sentry);
}

enum sentry_status sentry_send(struct sentry *sentry, const struct buf *envelope,
	bool (*may_go_on)(void *arg), void *arg, struct sentry_reply *reply)
{
	CURLcode result;
	long status = 0;

	sentry->may_go_on = may_go_on;
	sentry->arg = arg;
	sentry->wait_s = 0;
	sentry->error[0] = '\0';
	curl_easy_setopt(sentry->curl, CURLOPT_POSTFIELDS, envelope->data);
	curl_easy_setopt(sentry->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)envelope->len);
	result = curl_easy_perform(sentry->curl);
	curl_easy_getinfo(sentry->curl, CURLINFO_RESPONSE_CODE, &status);
	*reply = (struct sentry_reply){ .wait_s = sentry->wait_s };
	if (result != CURLE_OK) {
		snprintf(reply->reason, sizeof reply->reason, "%s",
			sentry->error[0] != '\0' ? sentry->error : curl_easy_strerror(result));
		return SENTRY_LATER;
	}
	if (status >= 200 && status < 300)
		return SENTRY_TAKEN;
	snprintf(reply->reason, sizeof reply->reason, "it answers %ld", status);
	return status == 429 || status >= 500 ? SENTRY_LATER : SENTRY_REFUSED;
}
