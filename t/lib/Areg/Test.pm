# SPDX-License-Identifier: Apache-2.0
# A private registry for a test: real PostgreSQL, memcached, aregd and nginx, started by
# scripts/instance, and everything that API and process tests ask of it. Perl's core modules only.
#
#	my $areg = Areg::Test->start(workers => 2, set => { request_timeout => '5s' });
#	my $user = $areg->make_user(tier => 'pro');
#	my $res = $areg->api(GET => '/api/v1/me', undef, { key => $user->{key} });
#	is($res->{status}, 200);
#
# What api() is answered is held to openapi.json when the file's tests are done: one test more.
#
# The build tested is $AREG_BUILD, or build/. Everything ends with the test, whatever happens to
# it; when it failed, its logs are kept in the build folder under t-logs/.
package Areg::Test;

use strict;
use warnings;

use Cwd qw(abs_path);
use Digest::SHA qw(sha256_hex);
use Encode qw(encode_utf8);
use Exporter qw(import);
use Fcntl qw(:flock);
use File::Basename qw(basename dirname);
use File::Path qw(make_path);
use File::Spec;
use File::Temp qw(tempdir);
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP ();
use POSIX qw(_exit);
use Test::More ();
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(address hash in_parallel problem_ok wait_until alive rss_kib root build_dir
	json_text from_json canonical mainnet_agents sample_registry skip_without skip_file_without);

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my @instances;
my %port_locks;
my $build = delete $ENV{AREG_BUILD} || root() . '/build'; # the programs of areg would take it for a setting

$SIG{$_} = sub { exit 1 } for qw(INT TERM HUP);
$SIG{PIPE} = 'IGNORE';
delete @ENV{grep { /^PG[A-Z]/ } keys %ENV}; # libpq would take them

END {
	my $status = $?;
	my @mine = reverse grep { $_->{owner} == $$ } @instances; # who shares a database ends before it
	for my $areg (@mine) {
		$areg->keep_logs if $status || !Test::More->builder->is_passing;
		$areg->remove;
	}
	$? = $status;
}

sub root { return abs_path(dirname(__FILE__) . '/../../..') }
sub build_dir { return $build }

# ---- what a machine may lack ----

# Leaves out the next $count tests of a SKIP block, or a whole file, because a tool is not there. What
# continuous integration (CI in the environment) does not have is a failure.
sub skip_without
{
	my ($why, $count) = @_;

	die "$why\n" if $ENV{CI};
	Test::More::skip($why, $count);
}

sub skip_file_without
{
	my ($why) = @_;

	die "$why\n" if $ENV{CI};
	Test::More::plan(skip_all => $why);
}

# ---- values ----

# An address and a 32-byte hash that belong to the given words alone; both in lower case.
sub address { return '0x' . substr(sha256_hex(encode_utf8("address @_")), 0, 40) }
sub hash { return '0x' . sha256_hex(encode_utf8("hash @_")) }

# Addresses in conf/areg.conf.in, with their checksum (EIP-55): what the registries of start() have.
sub sample_registry
{
	my ($chain, $kind) = (@_, 'identity'); # or 'reputation'
	open my $in, '<', root() . '/conf/areg.conf.in' or die "areg.conf.in: $!\n";
	my $text = do { local $/; <$in> };
	$text =~ /^\[chain \Q$chain\E\]\n(?:\w.*\n)*?${kind}_registry = (0x\w+)$/m
		or die "areg.conf.in: no $kind registry of $chain\n";
	return $1;
}

# The agents found on Ethereum mainnet, as lines of JSON for the registry of the sample: the path of a
# file, or nothing where that data is not there.
sub mainnet_agents
{
	my $packed = root() . '/../shared/data/mainnet-agents.jsonl.gz';
	my $registry = sample_registry('ethereum');

	return if !-e $packed;
	open my $in, '-|', 'gzip', '-dc', $packed or die "gzip: $!\n";
	my $out = File::Temp->new(SUFFIX => '.jsonl');
	while (defined(my $line = <$in>)) {
		$line =~ s/"registry_address":"\K0x[0-9A-Fa-f]{40}/$registry/;
		print $out $line;
	}
	close $in or die "$packed cannot be read\n";
	$out->flush;
	return $out;
}

sub json_text { return $json->encode($_[0]) }

# The value of a JSON text in UTF-8, or undef when it is none.
sub from_json
{
	my ($text) = @_;
	return scalar eval { $json->decode($text) };
}

# A JSON text (bytes) without what means nothing: members in order of name, no space, no needless
# escapes. Numbers stay as they are written, whatever their size. Dies when it is no JSON.
sub canonical
{
	my ($text) = @_;
	my $value = _canonical_value(\$text);

	$text =~ /\G\s*\z/gc or die 'not JSON at byte ' . (pos $text) . "\n";
	return $value;
}

sub _canonical_value
{
	my ($text) = @_;
	my (%members, @items);

	$$text =~ /\G\s+/gc;
	if ($$text =~ /\G("[^"\\]*+(?:\\.[^"\\]*+)*+")/gcs) {
		my $string = $1;
		return $string unless $string =~ /[\\\x7f]/;
		return eval { $json->encode($json->decode($string)) } // $string;
	}
	return $1 if $$text =~ /\G([-+.0-9a-zA-Z]+)/gc;
	if ($$text =~ /\G\{\s*/gc) {
		until ($$text =~ /\G\s*\}/gc) {
			my $name = _canonical_value($text);

			$$text =~ /\G\s*:/gc or last;
			$members{$name} = _canonical_value($text);
			$$text =~ /\G\s*(?:,|(?=\}))/gc or last;
		}
		return '{' . join(',', map { "$_:$members{$_}" } sort keys %members) . '}'
			if substr($$text, pos($$text) - 1, 1) eq '}';
	} elsif ($$text =~ /\G\[\s*/gc) {
		until ($$text =~ /\G\s*\]/gc) {
			push @items, _canonical_value($text);
			$$text =~ /\G\s*(?:,|(?=\]))/gc or last;
		}
		return '[' . join(',', @items) . ']' if substr($$text, pos($$text) - 1, 1) eq ']';
	}
	die 'not JSON at byte ' . (pos($$text) // 0) . "\n";
}

# ---- the stack ----

# start(workers => 4, set => { key => value }, env => { NAME => value }, without => ['nginx'],
# durable => 1, limits => 'default', beside => $other) starts everything not named in `without`,
# with the migrations applied; `durable` makes PostgreSQL sync what it commits. Rate limits are out
# of the way unless `set` says them or `limits` asks for the defaults. `beside` makes it another
# host that shares PostgreSQL and memcached with that one; `build` runs another build. Dies when it
# cannot.
sub start
{
	my ($class, %option) = @_;
	my $self = bless { owner => $$, %option }, $class;

	if (my $first = $option{beside}) {
		$option{without} = [qw(postgres memcached)];
		$self->{shared} = { database_url => $first->env('DATABASE_URL'),
			memcached_servers => $first->env('MEMCACHED_SERVERS'),
			cache_secret_file => "$first->{dir}/cache.secret" };
	}

	# Other users must be able to go through it: PostgreSQL's when the test runs as root.
	$self->{dir} = tempdir('areg-test-XXXXXX', TMPDIR => 1);
	chmod 0711, $self->{dir} or die "$self->{dir}: $!\n";
	$self->{port} = reserve_port();
	push @instances, $self;
	$self->instance('start', $option{durable} ? () : '--fast', '--build', $option{build} || $build, '--port', $self->{port},
		'--workers', $option{workers} || 4, $self->_settings(\%option),
		map { "--no-$_" } @{ $option{without} || [] });
	return $self;
}

# What a test says comes before what it shares with another host and before limits that nobody
# meets.
sub _settings
{
	my ($self, $option) = @_;
	my @classes = $self->{limits} ? () : qw(register feedback payments search read sign_in);
	my %set = ((map { ("limit_$_" => '250000 250000 250000 250000') } @classes),
		($self->{limits} ? () : (feedback_per_client_per_day => 0)),
		%{ $self->{shared} || {} }, %{ $option->{set} || {} });
	my $env = $option->{env} || {};
	return ((map { ('--set', "$_=$set{$_}") } sort keys %set),
		(map { ('--env', "$_=$env->{$_}") } sort keys %$env));
}

# Ports below those that the kernel gives to outgoing connections; a lock held until the test ends
# keeps other tests off, and binding shows that no other program has it. TLS takes N + 363.
sub reserve_port
{
	my $locks = File::Spec->tmpdir . "/areg-test-ports-$>";

	mkdir $locks, 0700;
	for (1 .. 500) {
		my $port = 20000 + 2 * int rand 5000;

		next if $port_locks{$port};
		open my $lock, '>', "$locks/$port" or die "$locks/$port: $!\n";
		next unless flock $lock, LOCK_EX | LOCK_NB;
		next unless _can_bind($port) && _can_bind($port + 363);
		$port_locks{$port} = $lock;
		return $port;
	}
	die "no free port found within 20000..30000\n";
}

sub _can_bind
{
	my ($port) = @_;
	return IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 1,
		ReuseAddr => 1);
}

# Runs a verb of scripts/instance and returns its output; dies with it when the verb fails.
sub instance
{
	my ($self, $verb, @arguments) = @_;
	my $run = _run([root() . '/scripts/instance', $verb, '--dir', $self->{dir}, @arguments]);

	die "scripts/instance $verb: $run->{stderr}" if $run->{exit} != 0;
	return $run->{stdout};
}

# One of postgres, memcached, aregd, nginx. start_server('aregd', set => {…}) changes settings.
sub start_server
{
	my ($self, $name, %option) = @_;
	return $self->instance("start-$name",
		$name eq 'aregd' && %option ? $self->_settings(\%option) : ());
}

sub stop_server
{
	my ($self, $name) = @_;

	$self->end_sessions if $name eq 'postgres';
	return $self->instance("stop-$name");
}

sub remove
{
	my ($self) = @_;

	@instances = grep { $_ != $self } @instances;
	$self->end_sessions;
	return if $ENV{AREG_TEST_KEEP};
	eval { $self->instance('remove'); 1 } or warn $@;
}

sub keep_logs
{
	my ($self) = @_;
	my $to = build_dir() . '/t-logs/' . basename($0);

	make_path($to);
	system 'cp', '-r', "$self->{dir}/log/.", $to;
	Test::More::diag("logs of this test: $to");
}

sub dir { return $_[0]{dir} }
sub conf { return "$_[0]{dir}/areg.conf" }
sub url { return "http://127.0.0.1:$_[0]{port}" }
sub tls_url { return 'https://127.0.0.1:' . ($_[0]{port} + 363) }
# A value of quickstart.env.
sub env
{
	my ($self, $name) = @_;

	open my $in, '<', "$self->{dir}/quickstart.env" or die "$self->{dir}/quickstart.env: $!\n";
	my ($value) = join('', <$in>) =~ /^$name='(.*)'$/m;
	return $value;
}

sub socket_path { return abs_path("$_[0]{dir}/sock") . "/$_[1]" }

# The text of a log: areg, nginx-access, nginx-error, postgres, memcached, aregd (its stderr).
sub log_text
{
	my ($self, $name) = @_;

	open my $in, '<', "$self->{dir}/log/$name.log" or return '';
	local $/;
	return scalar <$in>;
}

# ---- processes ----

# The pid of a server: aregd's is that of the master.
sub pid
{
	my ($self, $name) = @_;

	open my $in, '<', "$self->{dir}/$name.pid" or die "$name does not run\n";
	chomp(my $pid = <$in>);
	return $pid;
}

# Sets how many seconds the clock of rate limits is ahead of the real one, for a test that would wait
# for minutes. Takes environment = test.
sub turn_limit_clock
{
	my ($self, $ahead) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $self->socket_path('control')) or die "control: $!\n";

	print $socket "turn-limit-clock $ahead\n";
	my $said = from_json(scalar <$socket>);
	return if defined $said->{limit_clock_ahead_s} && $said->{limit_clock_ahead_s} == $ahead;
	die 'the clock of limits is not turned: ', $said->{error} // 'no answer', "\n";
}

# The pids of aregd's workers that are alive, in order: those children that have no other name.
sub worker_pids
{
	my ($self) = @_;
	return $self->pids_named('aregd');
}

# The pids of the master's children of that name, as "aregd listener" and "aregd ledger".
sub pids_named
{
	my ($self, $name) = @_;
	my $master = $self->pid('aregd');

	open my $in, '<', "/proc/$master/task/$master/children" or return;
	return grep { alive($_) && name_of($_) eq $name } split ' ', join '', <$in>;
}

sub nginx_workers
{
	my ($self) = @_;
	my $master = $self->pid('nginx');

	open my $in, '<', "/proc/$master/task/$master/children" or return;
	return grep { alive($_) } split ' ', join '', <$in>;
}

# reload_nginx('app.conf' => sub { s/…/…/ }, …): edits files of its configuration, each of which is in $_
# and must be changed, has nginx read them, and waits until no worker of before is left.
sub reload_nginx
{
	my ($self, @edits) = @_;

	while (my ($file, $edit) = splice @edits, 0, 2) {
		my $path = "$self->{dir}/nginx/$file";
		open my $in, '<', $path or die "$path: $!\n";
		local $_ = do { local $/; <$in> };
		my $before = $_;
		$edit->();
		die "$path has nothing of what is to be changed\n" if $_ eq $before;
		open my $out, '>', $path or die "$path: $!\n";
		print $out $_;
		close $out or die "$path: $!\n";
	}
	my %before = map { ($_ => 1) } $self->nginx_workers;
	kill 'HUP', $self->pid('nginx');
	wait_until(20, sub { my @now = $self->nginx_workers; @now && !grep { $before{$_} } @now })
		or die "nginx does not reload\n";
}

# The name of a process, '' when it is gone.
sub name_of
{
	my ($pid) = @_;

	open my $in, '<', "/proc/$pid/comm" or return '';
	chomp(my $name = <$in> // '');
	return $name;
}

# Whether a process runs; one that only waits to be collected does not.
sub alive
{
	my ($pid) = @_;

	open my $in, '<', "/proc/$pid/stat" or return 0;
	my ($state) = (<$in> // '') =~ /\) (\S)/;
	return defined $state && $state ne 'Z' ? 1 : 0;
}

# Memory of a process that is its own and resident, in KiB; undef when it is gone.
sub rss_kib
{
	my ($pid) = @_;

	open my $in, '<', "/proc/$pid/status" or return;
	my ($kib) = join('', <$in>) =~ /^RssAnon:\s+(\d+) kB/m;
	return $kib;
}

# Calls the sub every 20 ms until it is true or the seconds are over; returns what it returned.
sub wait_until
{
	my ($seconds, $sub) = @_;
	my $until = time + $seconds;

	while (1) {
		my $result = $sub->();
		return $result if $result || time > $until;
		sleep 0.02;
	}
}

# Runs sub(0) … sub(n - 1) at once, each in a process of its own, and returns what they returned
# (anything that JSON can hold), in order. Dies when one of them died.
sub in_parallel
{
	my ($n, $sub) = @_;
	my (@children, @results);

	for my $i (0 .. $n - 1) {
		pipe my $read, my $write or die "pipe: $!\n";
		my $pid = fork // die "fork: $!\n";
		if ($pid == 0) {
			close $read;
			srand $i;
			my $done = eval { print $write $json->encode([$sub->($i)]); close $write };
			warn $@ unless $done;
			_exit($done ? 0 : 1);
		}
		close $write;
		push @children, [$pid, $read];
	}
	for my $child (@children) {
		my ($pid, $read) = @$child;
		my $text = do { local $/; <$read> };
		waitpid $pid, 0;
		die "a parallel client failed\n" if $? != 0;
		push @results, $json->decode($text)->[0];
	}
	return @results;
}

# ---- asking ----

# api(METHOD, path, body, headers): body is undef, a string of bytes, or anything else that is
# encoded as JSON. The header `key` is short for Authorization: Bearer, `from` is the address to ask
# from, one of 127.0.0.0/8. Returns {status, headers
# (names in lower case), body (bytes), json (decoded, if it is JSON)}; status is 599 when there was
# no answer.
sub api
{
	my ($self, $method, $path, $body, $headers) = @_;
	my %headers = %{ $headers || {} };
	my %request;

	$self->settle if $self->{unsettled};
	if (defined(my $key = delete $headers{key})) {
		$headers{Authorization} = "Bearer $key";
	}
	if (defined $body) {
		$headers{'Content-Type'} //= 'application/json';
		$request{content} = ref $body ? $json->encode($body) : $body;
	}
	$request{headers} = \%headers;
	my $from = delete $headers{from} // '127.0.0.1';
	# Connections are one process's own.
	delete $self->{http} if ($self->{http_owner} // 0) != $$;
	$self->{http_owner} = $$;
	$self->{http}{$from} ||= HTTP::Tiny->new(timeout => 40, keep_alive => 1, max_redirect => 0,
		local_address => $from);
	my $answer = $self->{http}{$from}->request($method, $self->url . $path, \%request);
	_record($method, $path, $answer);
	return _answer($answer->{status}, $answer->{headers}, $answer->{content});
}

sub get { my ($self, @rest) = @_; return $self->api(GET => $rest[0], undef, $rest[1]) }
sub post { my ($self, @rest) = @_; return $self->api(POST => @rest) }

sub _answer
{
	my ($status, $headers, $body) = @_;
	my $type = $headers->{'content-type'} // '';

	$type = $type->[0] if ref $type;
	return { status => $status, headers => $headers, body => $body // '',
		json => $type =~ /\bjson\b/ ? from_json($body) : undef };
}

# Sends bytes as they are, to the web server or to the given socket, and returns the answer as
# api() does, with all of it as {raw}. Waits until its Content-Length is there or the other side
# closes, at most `seconds`.
sub raw
{
	my ($self, $bytes, %option) = @_;
	my $socket = $option{socket} || $self->connection;
	my $until = time + ($option{seconds} || 10);
	my $raw = '';

	print $socket $bytes;
	$socket->flush;
	shutdown $socket, 1 if $option{close};
	while ((my $left = $until - time) > 0) {
		IO::Select->new($socket)->can_read($left) or last;
		sysread $socket, $raw, 65536, length $raw or last;
		last if $raw =~ /\A(.*?\r\n\r\n)/s && length $raw >= length($1) + _content_length($1);
	}
	my ($head, $body) = split /\r\n\r\n/, $raw, 2;
	my ($first, @lines) = split /\r\n/, $head // '';
	my %headers = map { /^([^:]+):\s*(.*)$/ ? (lc $1, $2) : () } @lines;
	my ($status) = ($first // '') =~ m{^HTTP/\S+ (\d+)};
	my $answer = _answer($status, \%headers, $body);
	$answer->{raw} = $raw;
	return $answer;
}

# Of a head; without one the body ends with the connection.
sub _content_length { return $_[0] =~ /^Content-Length: (\d+)\r$/mi ? $1 : 'inf' }

sub connection
{
	my ($self) = @_;
	return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port})
		|| die "connect: $!\n";
}

# ---- answers and their description ----

# The first answers of each kind, as t/openapi/check.js reads them. A kind is a method, a status and
# a path without what varies in it. What processes of in_parallel() are answered is not among them.
use constant { ANSWERS_OF_A_KIND => 40, ANSWER_BYTES => 16 << 20 };
my ($recorded, %recorded_of) = ('');
my $recorder = $$;

sub _record
{
	my ($method, $path, $answer) = @_;
	my $kind = $path =~ s/\?.*//sr =~ s{(?<=.)/\K[^/]*[\d:%][^/]*}{*}gr;

	return if $$ != $recorder || $answer->{status} == 599 || length $recorded > ANSWER_BYTES
		|| $kind =~ m{^/(docs|livez|openapi\.json)}
		|| $recorded_of{"$method $kind $answer->{status}"}++ >= ANSWERS_OF_A_KIND;
	my %headers = map { my $value = $answer->{headers}{$_}; $_ => ref $value ? "@$value" : $value }
		keys %{ $answer->{headers} };
	my $body = $answer->{content} // '';
	$recorded .= $json->encode({ method => $method, path => $path, status => 0 + $answer->{status},
		headers => \%headers, length => length $body }) . "\n$body";
}

# Runs a program of t/openapi on the built openapi.json, with bytes in a file for it to read. Returns
# {exit, stdout, stderr}.
sub openapi_tool
{
	my ($program, $bytes) = @_;
	my $file = File::Temp->new;

	print $file $bytes // '';
	close $file;
	return _run(['node', root() . "/t/openapi/$program", build_dir() . '/docs/openapi.json',
		defined $bytes ? "$file" : ()]);
}

sub _hold_to_description
{
	my $builder = Test::More->builder;

	return if $recorded eq '';
	if (!-d root() . '/t/openapi/node_modules') {
		my $why = 'answers are not held to openapi.json: make -C t/openapi';

		$ENV{CI} ? $builder->ok(0, $why) : $builder->skip($why);
		return;
	}
	my $run = openapi_tool('check.js', $recorded);
	my ($count) = $run->{stdout} =~ /^(\d+)\n\z/m;
	$builder->ok($run->{exit} == 0, ($count // 'all') . ' answers are as openapi.json describes them')
		or $builder->diag($run->{stdout} . $run->{stderr});
}

# done_testing() of a file, not of a subtest, comes after everything that it asked.
{
	my $done_testing = \&Test::Builder::done_testing;
	no warnings 'redefine';
	*Test::Builder::done_testing = sub {
		my ($builder) = @_;
		_hold_to_description() if $$ == $recorder && !$builder->parent;
		goto &$done_testing;
	};
}

# ---- database and aregctl ----

# Runs SQL and returns its rows as lists of texts (bytes in UTF-8); a NULL is undef. Dies on an
# error. Runs it as the owner of the tables, as the role given by as => 'areg', or as the superuser what
# only that one may do or see. What it sets, prepares or begins ends with the call.
sub psql
{
	my ($self, $sql, %option) = @_;
	my $role = $option{as} // (_takes_superuser($sql) ? 'postgres' : 'areg_owner');

	utf8::encode($sql) if utf8::is_utf8($sql);
	my $text = $self->_session_output($role, $sql);
	$self->{unsettled} = 1 if _changes_records($sql);
	return if $text eq '';
	$text =~ s/\x1e?\n?\z//;
	my @rows = $text eq '' ? ('') : split /\x1e/, $text, -1;
	return map { $_ eq '' ? [''] : [map { $_ eq "\x1d" ? undef : $_ } split /\x1f/, $_, -1] } @rows;
}

# ---- sessions of psql ----

# A program and a connection for each call would be most of what the tests cost: they ask thousands of
# times. So one psql for each role and process stays; it ends with an error, and the next call begins
# another.

# Ends each output of a session. Longer SQL than this might fill a pipe while psql fills the other.
use constant { SESSION_MARK => '7c0be3d1-end-of-output', SESSION_SQL => 32768 };

# The program itself: Debian's wrapper of it takes ten times as long.
sub psql_program
{
	my ($newest) = reverse sort glob '/usr/lib/postgresql/*/bin/psql';
	return $newest // 'psql';
}

sub _psql_command
{
	my ($self, $role) = @_;
	return [psql_program(), '-qAtX', '-v', 'ON_ERROR_STOP=1', '-h', $self->socket_path('pg'), '-U', $role,
		'-d', 'areg', '-F', "\x1f", '-R', "\x1e", '-P', "null=\x1d"];
}

sub _session_output
{
	my ($self, $role, $sql) = @_;

	if (length $sql > SESSION_SQL) {
		my $run = _run($self->_psql_command($role), $sql);

		die "psql: $run->{stderr}" if $run->{exit} != 0;
		return $run->{stdout};
	}
	my $kept = $self->{sessions}{$$}{$role};
	my $answer = _ask_session($kept // $self->_open_session($role), $sql);

	# A connection that PostgreSQL had ended before: psql exits with 2.
	$answer = _ask_session($self->_open_session($role), $sql)
		if $kept && !defined $answer->{text} && $answer->{exit} == 2;
	if (!defined $answer->{text}) {
		delete $self->{sessions}{$$}{$role};
		die "psql: $answer->{stderr}";
	}
	return $answer->{text};
}

sub _open_session
{
	my ($self, $role) = @_;

	pipe my $child_in, my $in or die "pipe: $!\n";
	pipe my $out, my $child_out or die "pipe: $!\n";
	open my $err, '+>', undef or die "temporary file: $!\n";
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0) {
		open STDIN, '<&', $child_in;
		open STDOUT, '>&', $child_out;
		open STDERR, '>&', $err;
		$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
		my $command = $self->_psql_command($role);
		exec { $command->[0] } @$command or do { print STDERR "$command->[0]: $!\n"; _exit(127) };
	}
	$in->autoflush;
	return $self->{sessions}{$$}{$role} = { pid => $pid, in => $in, out => $out, err => $err };
}

# {text} of what psql printed, or {exit, stderr} when it ended.
sub _ask_session
{
	my ($session, $sql) = @_;
	my $reset = $sql =~ /\b(?:BEGIN|START\s+TRANSACTION)\b/i ? "ROLLBACK;\n" : '';
	my $text = '';

	truncate $session->{err}, 0;
	print { $session->{in} } "$sql\n;\n${reset}DISCARD ALL;\nSELECT '", SESSION_MARK, "';\n";
	while ($text !~ s/\Q${\ SESSION_MARK}\E\n\z//) {
		my $read = sysread $session->{out}, $text, 65536, length $text;

		next if $read || !defined $read && $!{EINTR};
		close $session->{in};
		waitpid $session->{pid}, 0;
		seek $session->{err}, 0, 0;
		local $/;
		return { exit => $? >> 8, stderr => readline($session->{err}) // '' };
	}
	return { text => $text };
}

# Before PostgreSQL stops, and before a test that counts connections or copies the database.
sub end_sessions
{
	my ($self) = @_;

	for my $session (values %{ delete $self->{sessions}{$$} || {} }) {
		kill TERM => $session->{pid}; # a child of this test may hold the pipe, too
		waitpid $session->{pid}, 0;
	}
}

# Waits until what was changed past the API (by psql, by aregctl) shows in the answers of every host
# on this database: each listener has asked what changed since, and has gone on to its next statement.
# Tests need not call it: psql() and aregctl() note what they change, and the next api() waits.
sub settle
{
	my ($self) = @_;
	my $since = $self->psql_value('SELECT extract(epoch FROM clock_timestamp())');
	my %looked; # by pid: when it began to ask

	$self->{unsettled} = 0;
	wait_until(60, sub {
		my @listeners = $self->psql("SELECT pid, extract(epoch FROM query_start), query LIKE 'WITH before AS%'"
			. " FROM pg_stat_activity WHERE application_name = 'areg listener'");
		for my $listener (@listeners) {
			my ($pid, $began, $looks) = @$listener;
			$looked{$pid} //= $began if $looks eq 't' && $began > $since;
		}
		return @listeners && !grep { !$looked{ $_->[0] } || $_->[1] <= $looked{ $_->[0] } } @listeners;
	}) or Test::More::diag('a listener is silent');
}

# Whether SQL may change what the API answers.
sub _changes_records
{
	my ($sql) = @_;
	return $sql =~ /\b(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM|COPY)\s+(?:erc8004_|x402_)|\bareg_(?:give|store|record|link|rebuild)_/i;
}

# Whether SQL asks about the server, or about sessions of other roles.
sub _takes_superuser
{
	my ($sql) = @_;
	return $sql =~ /\bpg_(?:stat_activity|terminate_backend|reload_conf|switch_wal)\b
		|\b(?:session_replication_role|auto_explain|ALTER\s+(?:SYSTEM|DATABASE)|CREATE\s+DATABASE)\b/x;
}

# The one value of the one row, as in `SELECT count(*)`.
sub psql_value
{
	my ($self, @arguments) = @_;
	my ($row) = $self->psql(@arguments);
	return $row ? $row->[0] : undef;
}

# A client of PostgreSQL that does nothing, to take a connection away: its socket, or nothing when it
# is not let in. Messages: PostgreSQL manual, "Message Formats".
sub guest
{
	my ($self) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $self->socket_path('pg') . '/.s.PGSQL.5432') or return;
	my $options = "user\0areg\0database\0areg\0application_name\0guest\0\0";
	my $text = '';

	syswrite $socket, pack('NN', 8 + length $options, 196608) . $options;
	# ReadyForQuery ends what the server says to one it lets in.
	until ($text =~ /Z\x00{3}\x05I\z/) {
		return if $text =~ /^E/;
		sysread $socket, $text, 4096, length $text or return;
	}
	return $socket;
}

# Runs aregctl on this stack: aregctl(arguments…, \$stdin). Returns {exit, stdout, stderr}. As the role
# of aregd, and migrations as the owner of the tables.
sub aregctl
{
	my ($self, @arguments) = @_;
	my $stdin = ref $arguments[-1] ? ${ pop @arguments } : '';

	$self->{unsettled} = 1 if grep { /^(?:agent|import|payment)$/ } @arguments;
	return _run([root() . '/scripts/instance', 'aregctl', '--dir', $self->{dir}, '--', @arguments],
		$stdin);
}

# make_user(tier => 'free', wallet => 0x…, name => …, scopes => [...]): makes a user with a key of
# all its scopes. Returns {id, wallet, key}. Without a wallet given, it gets one of its own.
sub make_user
{
	my ($self, %option) = @_;
	my $number = ++$self->{users};
	my $wallet = $option{wallet} || address("user $$ $number");
	my @scopes = map { ('--scope', $_) } @{ $option{scopes} || [] };

	$self->_aregctl_or_die('user', 'add', '--name', $option{name} || "user $number",
		'--wallet', $wallet, '--tier', $option{tier} || 'free', @scopes);
	my $key = $self->_aregctl_or_die('key', 'create', '--quiet', '--user', $wallet,
		@scopes, @scopes ? qw(--scope keys:write) : ());
	chomp $key;
	my $id = $self->psql_value("SELECT id FROM users WHERE wallet_address = lower('$wallet')");
	return { id => $id, wallet => lc $wallet, key => $key };
}

# make_agent($owner, name => …, chain => …, description => …): registers an agent of this user, on base
# and with a name of its own unless told, and returns the answer's JSON.
sub make_agent
{
	my ($self, $owner, %option) = @_;
	my $answer = $self->post('/api/v1/agents/register', { owner_address => $owner->{wallet},
		chain => $option{chain} || 'base', registration_file => {
			name => $option{name} // 'Agent ' . ++$self->{agents},
			description => $option{description} // 'It answers.' } }, { key => $owner->{key} });

	die $answer->{body} if $answer->{status} != 201;
	return $answer->{json};
}

# give_feedback($agent_uuid, $client, score => …, …): asks for it as this user, and returns the answer.
sub give_feedback
{
	my ($self, $uuid, $client, %member) = @_;
	return $self->post('/api/v1/agents/feedback', { agent_uuid => $uuid,
		client_address => $client->{wallet}, %member }, { key => $client->{key} });
}

sub _aregctl_or_die
{
	my ($self, @arguments) = @_;
	my $run = $self->aregctl(@arguments);

	die "aregctl @arguments: $run->{stderr}" if $run->{exit} != 0;
	return $run->{stdout};
}

# Runs a command with stdin from a string; output goes through files, so that nothing can block.
sub _run
{
	my ($command, $stdin) = @_;
	my ($in, $out, $err) = map { open my $file, '+>', undef or die "temporary file: $!\n"; $file } 1 .. 3;
	my %text;

	print $in $stdin // '';
	$in->flush;
	seek $in, 0, 0;
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0) {
		open STDIN, '<&', $in;
		open STDOUT, '>&', $out;
		open STDERR, '>&', $err;
		sysseek STDIN, 0, 0;
		$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
		exec { $command->[0] } @$command or do { print STDERR "$command->[0]: $!\n"; _exit(127) };
	}
	waitpid $pid, 0;
	my $status = $?;
	for my $stream ([stdout => $out], [stderr => $err]) {
		local $/;
		seek $stream->[1], 0, 0;
		$text{ $stream->[0] } = readline($stream->[1]) // '';
	}
	return { exit => $status & 127 ? 128 + ($status & 127) : $status >> 8, %text };
}

# ---- asserting ----

# problem_ok($answer, 400, 'validation_failed', '/owner_address', …): the answer is a problem of
# that status and code, complete, and its errors point to exactly those places (none given: not
# looked at).
sub problem_ok
{
	my ($answer, $status, $code, @pointers) = @_;
	my $problem = $answer->{json};
	my @wrong;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	push @wrong, "status $answer->{status}, not $status" if ($answer->{status} // '') ne $status;
	push @wrong, 'not application/problem+json'
		if ($answer->{headers}{'content-type'} // '') !~ m{^application/problem\+json\b};
	if (ref $problem eq 'HASH') {
		push @wrong, "no $_" for grep { !defined $problem->{$_} || $problem->{$_} eq '' }
			qw(type title status detail code request_id);
		push @wrong, 'code ' . ($problem->{code} // '') . ", not $code"
			if ($problem->{code} // '') ne $code;
		push @wrong, 'the body says another status' if ($problem->{status} // '') ne $status;
		push @wrong, 'the body says another request id than the header'
			if ($problem->{request_id} // '') ne ($answer->{headers}{'x-request-id'} // '');
		my %found = map { ($_->{pointer} => 1) } @{ $problem->{errors} || [] };
		my ($want, $have) = (join(' ', sort @pointers), join(' ', sort keys %found));
		push @wrong, "errors at '$have', not '$want'" if @pointers && $want ne $have;
	} else {
		push @wrong, 'no JSON object';
	}
	return Test::More::ok(!@wrong, "$status $code" . (@pointers ? " at @pointers" : ''))
		|| Test::More::diag(join("\n", @wrong, $answer->{body} // ''));
}

1;
