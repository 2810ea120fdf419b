# SPDX-License-Identifier: Apache-2.0
# Builds the fuzz targets with clang and its sanitizers, in the folder that make runs in. For
# t/fuzz/run: make -f ROOT/t/fuzz/fuzz.mk ROOT=… CC=clang

TARGETS = $(patsubst $(ROOT)/t/fuzz/%.c,%,$(wildcard $(ROOT)/t/fuzz/fuzz_*.c))
# All of both libraries; the linker takes what a target needs. What is left out is of programs.
PROGRAMS = $(addprefix $(ROOT)/app/,aregd.c aregctl.c problem_list.c) $(wildcard $(ROOT)/app/ctl/*.c)
SOURCES = $(filter-out $(PROGRAMS),$(wildcard $(ROOT)/lib/*.c $(ROOT)/app/*.c $(ROOT)/app/*/*.c)) \
	$(ROOT)/t/fuzz/fuzz.c
OBJECTS = $(patsubst $(ROOT)/%.c,%.o,$(SOURCES)) app/problem_list.o

PACKAGES = fcgi libpq libmemcached json-c libcrypto zlib libsecp256k1 libcurl
SANITIZERS = address,undefined
CFLAGS = -std=gnu11 -D_GNU_SOURCE -O1 -g -fno-omit-frame-pointer -Wall -Wextra -Wshadow \
	-Wno-gnu -I. -I$(ROOT) -DPACKAGE_VERSION='"fuzz"' -MMD -MP \
	-fno-sanitize-recover=all $(shell pkg-config --cflags $(PACKAGES))
LIBS = $(shell pkg-config --libs $(PACKAGES)) -lm

all: $(TARGETS)

# In place of what make writes in a build, as no program is configured here.
app/build.h:
	@mkdir -p $(@D)
	printf '#define AREG_%s\n' 'CONF_DEFAULT "/nonexistent/areg.conf"' \
		'CACHE_SECRET_DEFAULT "/nonexistent/cache.secret"' 'SQL_DIR "/nonexistent"' \
		'RUN_DIR "/nonexistent"' 'SCHEMA_VERSION 0' >$@

app/layouts.h:
	@mkdir -p $(@D)
	perl $(ROOT)/scripts/gen-layouts $(ROOT) >$@

app/problem_list.h app/problem_list.c: $(ROOT)/docs/problems $(ROOT)/scripts/gen-problems
	@mkdir -p $(@D)
	perl $(ROOT)/scripts/gen-problems $(if $(filter %.h,$@),--header,--source) $< >$@

app/problem_list.o: app/problem_list.c
	$(CC) $(CFLAGS) -fsanitize=fuzzer-no-link,$(SANITIZERS) -c -o $@ $<

GENERATED = app/build.h app/layouts.h app/problem_list.h
app/problem_list.o: | $(GENERATED)
$(filter-out app/problem_list.o,$(OBJECTS)) $(TARGETS:%=t/fuzz/%.o): %.o: $(ROOT)/%.c | $(GENERATED)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -fsanitize=fuzzer-no-link,$(SANITIZERS) -c -o $@ $<

areg.a: $(OBJECTS)
	rm -f $@ && ar rcs $@ $(OBJECTS)

$(TARGETS): %: t/fuzz/%.o areg.a
	$(CC) -g -fsanitize=fuzzer,$(SANITIZERS) -o $@ $< areg.a $(LIBS)

.PHONY: all
-include $(OBJECTS:.o=.d) $(TARGETS:%=t/fuzz/%.d)
