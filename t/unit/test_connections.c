/* SPDX-License-Identifier: Apache-2.0 */
/* Workers that share a listening socket and a relay, two of them in one process; nginx is played by
 * sockets that connect. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/http/connections.h"
#include "lib/clock.h"

struct scene {
	struct scoreboard scoreboard;
	struct relay relay;
	int listen_fd, signal_fd;
	struct sockaddr_un address;
	socklen_t address_len;
	struct connections first, second;
};

static int set_up(void **state)
{
	struct scene *scene = calloc(1, sizeof *scene);

	assert_non_null(scene);
	scene->address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	scene->address_len = sizeof scene->address;
	scene->listen_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	scene->signal_fd = eventfd(0, 0);
	/* A name that the kernel picks: unix(7), autobind. */
	assert_int_equal(bind(scene->listen_fd, (struct sockaddr *)&scene->address,
				 sizeof scene->address.sun_family),
		0);
	assert_int_equal(listen(scene->listen_fd, 200), 0);
	assert_int_equal(getsockname(scene->listen_fd, (struct sockaddr *)&scene->address,
				 &scene->address_len),
		0);
	assert_int_equal(scoreboard_new(&scene->scoreboard, 2), 0);
	scoreboard_want(&scene->scoreboard, 2);
	for (size_t place = 0; place < 2; place++) {
		scene->scoreboard.places[place].pid = getpid();
		scoreboard_enter(&scene->scoreboard, place, SCOREBOARD_BUSY);
	}
	assert_int_equal(relay_new(&scene->relay), 0);
	assert_int_equal(connections_open(&scene->first, scene->listen_fd, scene->relay,
				 scene->signal_fd, &scene->scoreboard, 0),
		0);
	assert_int_equal(connections_open(&scene->second, scene->listen_fd, scene->relay,
				 scene->signal_fd, &scene->scoreboard, 1),
		0);
	*state = scene;
	return 0;
}

static int tear_down(void **state)
{
	struct scene *scene = *state;

	connections_close(&scene->first);
	connections_close(&scene->second);
	relay_close(&scene->relay);
	close(scene->listen_fd);
	close(scene->signal_fd);
	scoreboard_free(&scene->scoreboard);
	free(scene);
	return 0;
}

/* What a request ends with for a worker that waits for one: the empty record of its parameters. */
static const uint8_t request[8] = { 1, 4, 0, 1 };

/* nginx's end of a new connection. */
static int call(const struct scene *scene)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_int_equal(
		connect(fd, (const struct sockaddr *)&scene->address, scene->address_len), 0);
	return fd;
}

/* The same, over which it has asked something. */
static int ask(const struct scene *scene)
{
	int fd = call(scene);

	assert_int_equal(write(fd, request, sizeof request), sizeof request);
	return fd;
}

/* Reads one request of the next connection that has any, and says it is answered. */
static int serve(struct connections *connections, enum connections_event expected)
{
	int connection = -1;
	char bytes[sizeof request];

	assert_int_equal(connections_next(connections, &connection), expected);
	assert_int_equal(read(connection, bytes, sizeof bytes), sizeof bytes);
	connections_answered(connections, connection, true);
	return connection;
}

static bool is_closed(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static void the_next_request_comes_over_the_connection_that_was_kept(void **state)
{
	struct scene *scene = *state;
	int nginx = ask(scene), connection = serve(&scene->first, CONNECTIONS_NEW_REQUEST);

	assert_int_equal(write(nginx, request, sizeof request), sizeof request);
	assert_int_equal(serve(&scene->first, CONNECTIONS_REQUEST), connection);
	assert_int_equal(scene->first.count, 1);
	close(nginx);
}

static void what_nginx_has_closed_is_closed_and_no_request(void **state)
{
	struct scene *scene = *state;
	int nginx = ask(scene), connection;

	serve(&scene->first, CONNECTIONS_NEW_REQUEST);
	close(nginx);
	assert_int_equal(write(scene->signal_fd, &(uint64_t){ 1 }, sizeof(uint64_t)), 8);
	for (int i = 0; i < 3; i++) /* both are ready, and take turns */
		assert_int_equal(connections_next(&scene->first, &connection), CONNECTIONS_SIGNAL);
	assert_int_equal(scene->first.count, 0);
}

static void a_request_that_comes_while_another_waits_is_given_to_a_colleague(void **state)
{
	struct scene *scene = *state;
	int waiting = ask(scene), slow, never[2], connection;
	struct pollfd database;

	serve(&scene->first, CONNECTIONS_NEW_REQUEST);
	slow = ask(scene);
	assert_int_equal(connections_next(&scene->first, &connection), CONNECTIONS_NEW_REQUEST);
	assert_int_equal(write(waiting, request, sizeof request), sizeof request);
	assert_int_equal(pipe(never), 0);
	database = (struct pollfd){ .fd = never[0], .events = POLLIN };
	assert_int_equal(connections_wait(&scene->first, &database, 20), 0);
	assert_int_equal(scene->first.count, 0);
	serve(&scene->second, CONNECTIONS_REQUEST);
	assert_int_equal(scene->second.count, 1);
	assert_false(is_closed(waiting));
	connections_answered(&scene->first, connection, true);
	close(waiting);
	close(slow);
	close(never[0]);
	close(never[1]);
}

static void who_waits_is_told_when_the_database_answers(void **state)
{
	struct scene *scene = *state;
	int nginx = ask(scene), answers[2];
	struct pollfd database;

	serve(&scene->first, CONNECTIONS_NEW_REQUEST);
	assert_int_equal(pipe(answers), 0);
	assert_int_equal(write(answers[1], "!", 1), 1);
	database = (struct pollfd){ .fd = answers[0], .events = POLLIN };
	assert_int_equal(connections_wait(&scene->first, &database, -1), 1);
	assert_int_equal(database.revents, POLLIN);
	assert_int_equal(scene->first.count, 1);
	close(nginx);
	close(answers[0]);
	close(answers[1]);
}

static void who_drains_serves_what_waits_and_gives_the_rest_away(void **state)
{
	struct scene *scene = *state;
	int idle = ask(scene), asking, unheard, connection;

	serve(&scene->first, CONNECTIONS_NEW_REQUEST);
	asking = ask(scene);
	serve(&scene->first, CONNECTIONS_NEW_REQUEST);
	assert_int_equal(write(asking, request, sizeof request), sizeof request);
	unheard = ask(scene);
	connections_drain(&scene->first, 60000);
	assert_int_equal(scene->first.count, 1);
	for (int i = 0; i < 2; i++) {
		char bytes[sizeof request];

		assert_in_range(connections_next(&scene->first, &connection), CONNECTIONS_REQUEST,
			CONNECTIONS_NEW_REQUEST);
		assert_int_equal(read(connection, bytes, sizeof bytes), sizeof bytes);
		connections_answered(&scene->first, connection, true);
	}
	assert_int_equal(connections_next(&scene->first, &connection), CONNECTIONS_DRAINED);
	assert_int_equal(write(idle, request, sizeof request), sizeof request);
	assert_int_equal(write(asking, request, sizeof request), sizeof request);
	assert_int_equal(write(unheard, request, sizeof request), sizeof request);
	for (int i = 0; i < 3; i++)
		serve(&scene->second, CONNECTIONS_REQUEST);
	assert_int_equal(scene->second.count, 3);
	close(idle);
	close(asking);
	close(unheard);
}

static void nobody_waits_behind_who_has_not_said_what_he_wants(void **state)
{
	struct scene *scene = *state;
	int nginx = ask(scene), silent, connection;

	serve(&scene->first, CONNECTIONS_NEW_REQUEST);
	silent = call(scene);
	assert_int_equal(write(silent, request, sizeof request - 1), sizeof request - 1);
	assert_int_equal(connections_next(&scene->first, &connection), CONNECTIONS_NEW_REQUEST);
	assert_int_equal(scene->first.count, 0);
	assert_int_equal(write(nginx, request, sizeof request), sizeof request);
	serve(&scene->second, CONNECTIONS_REQUEST);
	close(nginx);
	close(silent);
}

static void with_nobody_to_come_what_is_idle_is_closed(void **state)
{
	struct scene *scene = *state;
	int nginx = ask(scene);

	serve(&scene->first, CONNECTIONS_NEW_REQUEST);
	scoreboard_want(&scene->scoreboard, 0);
	connections_drain(&scene->first, 60000);
	assert_true(is_closed(nginx));
	close(nginx);
}

/* As many requests as it may keep connections, and one more, whose nginx's end is returned. */
static int fill(struct scene *scene, int nginx[CONNECTIONS_MOST + 1])
{
	for (int i = 0; i <= CONNECTIONS_MOST; i++) {
		nginx[i] = ask(scene);
		serve(&scene->first, CONNECTIONS_NEW_REQUEST);
	}
	assert_int_equal(scene->first.count, CONNECTIONS_MOST);
	return nginx[CONNECTIONS_MOST];
}

static void more_than_it_may_keep_is_given_to_who_may(void **state)
{
	struct scene *scene = *state;
	int nginx[CONNECTIONS_MOST + 1], last = fill(scene, nginx);

	assert_int_equal(write(last, request, sizeof request), sizeof request);
	serve(&scene->second, CONNECTIONS_REQUEST);
	assert_int_equal(scene->second.count, 1);
	for (int i = 0; i <= CONNECTIONS_MOST; i++)
		close(nginx[i]);
}

static void more_than_anybody_may_keep_is_closed(void **state)
{
	struct scene *scene = *state;
	int nginx[CONNECTIONS_MOST + 1];

	scene->scoreboard.places[1].pid = 0;
	assert_true(is_closed(fill(scene, nginx)));
	for (int i = 0; i <= CONNECTIONS_MOST; i++)
		close(nginx[i]);
}

static void what_has_the_next_request_waiting_is_closed_only_after_it(void **state)
{
	struct scene *scene = *state;
	int nginx[CONNECTIONS_MOST + 1], connection = -1;
	char bytes[sizeof request];

	scene->scoreboard.places[1].pid = 0;
	for (int i = 0; i < CONNECTIONS_MOST; i++) {
		nginx[i] = ask(scene);
		serve(&scene->first, CONNECTIONS_NEW_REQUEST);
	}
	nginx[CONNECTIONS_MOST] = ask(scene);
	assert_int_equal(connections_next(&scene->first, &connection), CONNECTIONS_NEW_REQUEST);
	assert_int_equal(read(connection, bytes, sizeof bytes), sizeof bytes);
	assert_int_equal(write(nginx[CONNECTIONS_MOST], request, sizeof request), sizeof request);
	connections_answered(&scene->first, connection, true);
	assert_false(is_closed(nginx[CONNECTIONS_MOST]));
	assert_int_equal(serve(&scene->first, CONNECTIONS_REQUEST), connection);
	assert_true(is_closed(nginx[CONNECTIONS_MOST]));
	for (int i = 0; i <= CONNECTIONS_MOST; i++)
		close(nginx[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			the_next_request_comes_over_the_connection_that_was_kept, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			what_nginx_has_closed_is_closed_and_no_request, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_request_that_comes_while_another_waits_is_given_to_a_colleague, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(
			who_waits_is_told_when_the_database_answers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			who_drains_serves_what_waits_and_gives_the_rest_away, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			nobody_waits_behind_who_has_not_said_what_he_wants, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			with_nobody_to_come_what_is_idle_is_closed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			more_than_it_may_keep_is_given_to_who_may, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			more_than_anybody_may_keep_is_closed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_has_the_next_request_waiting_is_closed_only_after_it, set_up,
			tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
