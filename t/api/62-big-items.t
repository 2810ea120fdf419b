# SPDX-License-Identifier: Apache-2.0
# Files and URIs as large as an import may store: lists stay small, nothing of them is lost on the way
# through a list, and no worker ends over them.
use strict;
use warnings;

use File::Basename qw(dirname);
use HTTP::Tiny;
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address from_json);

use constant { MIB => 1024 * 1024, WORKERS => 2 };

my $areg = Areg::Test->start(workers => WORKERS);
my @workers = $areg->worker_pids;
my $registry = $areg->get('/api/v1/chains')->{json}{chains}[0]{identity_registry};
my $chain = $areg->get('/api/v1/chains')->{json}{chains}[0]{name};
my $owner = address('owner');

# Status, headers and bytes: to take megabytes of JSON apart takes Perl as many seconds.
sub api_get
{
	my ($path) = @_;
	my $answer = HTTP::Tiny->new(timeout => 40)->get($areg->url . "/api/v1$path");
	return { status => $answer->{status}, body => $answer->{content} };
}

# ---- agents ----

# One service of almost a MiB; ten thousand small ones; a few.
my %file = (
	big => '[{"name":"mcp","endpoint":"https://a.example/' . 'a' x (MIB - 300) . '"}]',
	many => '[' . join(',', map { qq({"name":"s$_","endpoint":"https://a.example/$_"}) } 1 .. 10000) . ']',
	few => '[{"name":"mcp","endpoint":"https://a.example/"},{"name":"a2a","endpoint":"https://b.example/"}]',
);

sub store_agents
{
	my ($name, $services, $from, $to) = @_;
	my $run = $areg->aregctl('--json', 'import', '-', \join('', map { qq({"chain":"$chain","agent_id":$_,)
		. qq("registry_address":"$registry","owner_address":"$owner","registration_file":)
		. qq({"name":"$name","description":"d","services":$services}}\n) } $from .. $to));
	is($run->{exit}, 0, "agents with services '$name' are imported") or diag $run->{stderr}, $run->{stdout};
}

store_agents(big => $file{big}, 1, 17);
store_agents(many => $file{many}, 18, 18);
store_agents(few => $file{few}, 19, 19);

for my $path ('/agents', '/agents?limit=100', '/agents?limit=100&q=big', '/agents?owner_address=' . $owner) {
	my $answer = api_get($path);
	is($answer->{status}, 200, "GET $path is answered");
	cmp_ok(length $answer->{body}, '<', 5 * MIB, '… within what an answer may be');
}
my %listed = map { $_->{agent_id} => $_ } @{ from_json(api_get('/agents?limit=100')->{body})->{agents} };
is(scalar keys %listed, 19, 'every agent is in the list');
is_deeply($listed{1}{services}, [], 'a service that does not fit into a list is left out of it');
is(scalar @{ $listed{18}{services} }, 20, 'of ten thousand services the first 20 are listed');
is($listed{18}{services}[19]{name}, 's20', '… in their order');
is_deeply($listed{19}{services}, from_json($file{few}), 'few services are listed whole');

for my $case ([1, $file{big}], [18, $file{many}]) {
	my ($id, $services) = @$case;
	my $agent = api_get("/agents/$chain:$id");

	is($agent->{status}, 200, "agent $id itself is answered");
	ok(index($agent->{body}, $services) > 0, '… with all its services');
	my $file = api_get("/agents/$chain:$id/registration");
	is($file->{status}, 200, '… and its registration file');
	ok(index($file->{body}, $services) > 0, '… whole');
}

# ---- records ----

my $uuid = $listed{19}{agent_uuid};
# URIs that PostgreSQL stores and JSON makes six times as long: each control character is \u00XX there.
my $uri = "repeat(E'\\x01', 65000)";
$areg->psql("INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value, endpoint, file_uri)"
	. " SELECT '$uuid', '$owner', n, 1, repeat('e', 2000), $uri || n FROM generate_series(1, 30) n");
$areg->psql("INSERT INTO erc8004_validations (agent_uuid, validator_address, request_uri, request_hash, status,"
	. " response, response_uri, responded_at)"
	. " SELECT '$uuid', '$owner', $uri || n, '0x' || lpad(to_hex(n), 64, '0'), 'completed', 1, $uri || n, now()"
	. " FROM generate_series(1, 30) n");
my $feedback_id = $areg->psql_value("SELECT min(id) FROM erc8004_reputation WHERE agent_uuid = '$uuid'");
$areg->psql("INSERT INTO erc8004_feedback_responses (feedback_id, responder_address, response_uri)"
	. " SELECT $feedback_id, '$owner', $uri || n FROM generate_series(1, 30) n");

# The mark of each row of a page, and what stands behind the rows.
sub read_page
{
	my ($body, $mark) = @_;
	my ($end) = $body =~ /(\],"total":.*)\z/s;
	my ($limit, $offset, $total) = $end =~ /"total":(\d+),"limit":(\d+),"offset":(\d+)/ ? ($2, $3, $1) : ();
	my ($cursor) = $end =~ /"next_cursor":"([0-9a-f]+)"/;
	return { marks => [$body =~ /[{,]"$mark":"?(\w+)/g], limit => $limit, offset => $offset, total => $total,
		cursor => $cursor, size => length $body };
}

# Follows next_cursor to the end; every row's mark, and the size of the largest page.
sub walk_by_cursor
{
	my ($path, $mark) = @_;
	my ($largest, $cursor, @seen) = (0);

	for (1 .. 30) {
		my $answer = api_get("$path?limit=100" . (defined $cursor ? "&cursor=$cursor" : ''));
		is($answer->{status}, 200, "GET $path is answered") or last if $answer->{status} != 200;
		my $page = read_page($answer->{body}, $mark);
		$largest = $page->{size} if $page->{size} > $largest;
		push @seen, @{ $page->{marks} };
		$cursor = $page->{cursor} // last;
	}
	return (\@seen, $largest);
}

# Goes on at offset + limit, as the answers give them.
sub walk_by_offset
{
	my ($path, $mark) = @_;
	my ($offset, @seen) = (0);

	while ($offset < 30) {
		my $page = read_page(api_get("$path?limit=100&offset=$offset")->{body}, $mark);

		last if @{ $page->{marks} } == 0;
		push @seen, @{ $page->{marks} };
		$offset = $page->{offset} + $page->{limit};
	}
	return \@seen;
}

for my $case (
	['/agents/' . $uuid . '/feedback', 'feedback', 'id'],
	['/agents/' . $uuid . '/validations', 'validations', 'request_hash'],
	["/agents/feedback/$feedback_id/responses", 'responses', 'id']) {
	my ($path, $rows, $mark) = @$case;
	my ($seen, $largest) = walk_by_cursor($path, $mark);
	my %times;

	$times{$_}++ for @$seen;
	is(scalar @$seen, 30, "a walk by cursor through $rows sees every row");
	is(scalar keys %times, 30, '… once');
	cmp_ok($largest, '<', 6 * MIB, '… in answers of bounded size');
	my $by_offset = walk_by_offset($path, $mark);
	is_deeply($by_offset, $seen, '… and so does a walk by offset + limit');
	my $page = read_page(api_get("$path?limit=100")->{body}, $mark);
	cmp_ok($page->{limit}, '<', 30, 'a page that ended early says its limit');
	is($page->{limit}, scalar @{ $page->{marks} }, '… which is the number of its rows');
	is($page->{total}, 30, '… and the total of all');
}
is(api_get("/accounts/$owner")->{status}, 200, 'the account of all this is answered');
is(api_get('/validations/0x' . '0' x 62 . '01')->{status}, 200, 'a validation with two such URIs, too');

is_deeply([$areg->worker_pids], \@workers, 'no worker ended');
unlike($areg->log_text('areg'), qr/out of memory/, 'no request was out of memory');

done_testing;
