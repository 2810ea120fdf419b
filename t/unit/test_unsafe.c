/* SPDX-License-Identifier: Apache-2.0 */
/* URIs that run code, and characters that hide: what is told apart from what agents use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/unsafe.h"

static void uris_that_run_code_are_known_in_every_disguise(void **state)
{
	static const char *const bad[] = { "javascript:alert(1)", "JavaScript:x", " javascript:x",
		"java\tscript:x", "java\nscript\r:x", "\x01javascript:x",
		"\xe2\x80\x8bjavascript:x", "\xef\xbb\xbfjavascript:x", "\xc2\xa0javascript:x",
		"j\xe2\x80\x8d"
		"avascript:x",
		"vbscript:x", "file:///etc/passwd", "FILE:x", "view-source:https://a/",
		"filesystem:https://a/", "data:text/html,<b>", "data:text/html;base64,PGI+",
		"data: TEXT/HTML ,x", "data:text/html", "data:application/xhtml+xml,x",
		"data:text/xml,x", "data:application/xml;charset=utf-8,x" };
	static const char *const good[] = { "", "https://a/", "http://a/", "ipfs://Qm", "ar://x",
		"did:web:a", "mailto:a@b", "vitalik.eth", "host.example:443", "eip155:1:0x80",
		"wss://a/", "data:,x", "data:image/png;base64,AA", "data:application/json,{}",
		"data:text/plain,javascript:x", "data:text/htmlx,x", "javascript", "files:x",
		"https://a/?javascript:", "urn:javascript:x", "xjavascript:x" };

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (!unsafe_uri(bad[i], strlen(bad[i])))
			fail_msg("allowed: %s", bad[i]);
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		if (unsafe_uri(good[i], strlen(good[i])))
			fail_msg("refused: %s", good[i]);
	assert_true(unsafe_uri("java\0script:x", 14));
	assert_false(unsafe_uri("javascript:x", 4));
	assert_false(unsafe_uri("\xff\xfejavascript:x", 14));
}

static void characters_that_hide_are_found(void **state)
{
	static const struct {
		const char *text;
		uint32_t found;
	} cases[] = { { "", 0 }, { "Weather", 0 },
		{ "a\xe2\x80\xae"
		  "b",
			0x202e },
		{ "\xe2\x81\xa6x", 0x2066 }, { "a\xe2\x80\x8b", 0x200b },
		{ "a\xef\xbb\xbf", 0xfeff }, { "\xf3\xa0\x81\x81", 0xe0041 },
		{ "a\xc2\xad"
		  "b",
			0xad },
		/* joiners: between letters of Persian and emoji, not in Latin or at an end */
		{ "\xd9\x85\xdb\x8c\xe2\x80\x8c\xd8\xae", 0 },
		{ "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb", 0 },
		{ "a\xe2\x80\x8d"
		  "b",
			0x200d },
		{ "\xe2\x80\x8c\xd8\xae", 0x200c }, { "\xd8\xae\xe2\x80\x8c", 0x200c },
		{ "\xd8\xae\xe2\x80\x8c"
		  "a",
			0x200c },
		{ "\xe5\xa4\xa9\xe6\xb0\x94", 0 }, { "\xef\xb8\x8f", 0 } /* U+FE0F, of emoji */ };

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint32_t found = unsafe_character(cases[i].text, strlen(cases[i].text));

		if (found != cases[i].found)
			fail_msg("\"%s\": U+%04X", cases[i].text, (unsigned)found);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uris_that_run_code_are_known_in_every_disguise),
		cmocka_unit_test(characters_that_hide_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
