/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates are cut into segments once; a match walks the routes and keeps the most literal one.
 * With a few dozen routes of which most differ in length or first literal, that is faster than it
 * is worth indexing.
 */
#include "lib/router.h"

#include <stdlib.h>
#include <string.h>

struct template
{
	const struct route_path *route;
	size_t segment_count;
	const char *segments[HTTP_SEGMENTS_MAX]; /* NULL for a parameter */
	unsigned literals; /* a bit for each literal, the first segment's the highest */
};

struct router {
	size_t count;
	struct template templates[];
};

static void compile(struct template *template, const struct route_path *route)
{
	char *text = strdup(route->template), *rest, *segment;
	size_t params = 0;

	if (text == NULL || text[0] != '/' || text[1] == '\0')
		abort();
	template->route = route;
	rest = text + 1;
	while ((segment = strsep(&rest, "/")) != NULL) {
		size_t at = template->segment_count++;

		if (at == HTTP_SEGMENTS_MAX || segment[0] == '\0')
			abort();
		if (segment[0] == '{') {
			if (++params > ROUTE_PARAMS_MAX)
				abort();
			continue;
		}
		template->segments[at] = strdup(segment);
		if (template->segments[at] == NULL)
			abort();
		template->literals |= 1u << (HTTP_SEGMENTS_MAX - at);
	}
	free(text);
}

struct router *router_new(const void *routes, size_t count, size_t stride)
{
	struct router *router = calloc(1, sizeof *router + count * sizeof router->templates[0]);

	if (router == NULL)
		abort();
	router->count = count;
	for (size_t i = 0; i < count; i++)
		compile(&router->templates[i],
			(const struct route_path *)((const char *)routes + i * stride));
	return router;
}

size_t router_count(const struct router *router)
{
	return router->count;
}

const struct route_path *router_path(const struct router *router, size_t index)
{
	return router->templates[index].route;
}

void router_free(struct router *router)
{
	if (router == NULL)
		return;
	for (size_t i = 0; i < router->count; i++)
		for (size_t s = 0; s < router->templates[i].segment_count; s++)
			free((char *)router->templates[i].segments[s]);
	free(router);
}

static bool router_fits(const struct template *template, const struct http_request *request)
{
	if (template->segment_count != request->segment_count)
		return false;
	for (size_t s = 0; s < template->segment_count; s++)
		if (template->segments[s] != NULL &&
			strcmp(template->segments[s], request->segments[s]) != 0)
			return false;
	return true;
}

static bool same_path(const struct template *a, const struct template *b)
{
	return strcmp(a->route->template, b->route->template) == 0;
}

static const char *allow_list(
	const struct router *router, const struct template *path, struct arena *arena)
{
	struct buf allow;

	buf_init(&allow, arena, 64);
	for (size_t i = 0; i < router->count; i++) {
		const struct template *template = &router->templates[i];

		if (!same_path(template, path))
			continue;
		buf_puts(&allow, http_method_name(template->route->method));
		buf_puts(&allow, template->route->method == HTTP_GET ? ", HEAD, " : ", ");
	}
	buf_puts(&allow, "OPTIONS");
	return allow.data;
}

enum route_match router_match(
	const struct router *router, const struct http_request *request, struct routed *routed)
{
	enum http_method method = request->method == HTTP_HEAD ? HTTP_GET : request->method;
	const struct template *best = NULL;

	for (size_t i = 0; i < router->count; i++) {
		const struct template *template = &router->templates[i];

		if (router_fits(template, request) &&
			(best == NULL || template->literals > best->literals))
			best = template;
	}
	if (best == NULL)
		return ROUTE_NO_PATH;
	for (size_t i = 0; i < router->count; i++) {
		const struct template *template = &router->templates[i];
		size_t value = 0;

		if (template->route->method != method || !same_path(template, best))
			continue;
		routed->index = i;
		for (size_t s = 0; s < template->segment_count; s++)
			if (template->segments[s] == NULL)
				routed->values[value++] = request->segments[s];
		return ROUTE_FOUND;
	}
	routed->allow = allow_list(router, best, request->arena);
	return method == HTTP_OPTIONS ? ROUTE_OPTIONS : ROUTE_NO_METHOD;
}
