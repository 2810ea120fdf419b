# SPDX-License-Identifier: Apache-2.0
# The settings of PostgreSQL that come with areg are such as it takes, each of them; and
# scripts/instance gives a private PostgreSQL what it is told.
use strict;
use warnings;

use File::Basename qw(dirname);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(root);

my $areg = Areg::Test->start(without => [qw(memcached aregd nginx)]);
my $sample = root() . '/conf/postgresql/areg.conf';

sub restart
{
	$areg->instance('stop-postgres');
	$areg->instance('start-postgres', map { ('--postgres', $_) } @_);
}

restart('work_mem=5MB', 'search_path=public, pg_catalog');
is($areg->psql_value('SHOW work_mem'), '5MB', 'PostgreSQL is told a setting');
is($areg->psql_value('SHOW search_path'), 'public, pg_catalog', 'and one with blanks in it');
restart();
is($areg->psql_value('SHOW work_mem'), '5MB', 'it is remembered');

open my $in, '<', $sample or die "$sample: $!\n";
my %settings = map { /^(\w+) = '?(.*?)'?$/ ? ($1 => $2) : () } <$in>;
cmp_ok(scalar keys %settings, '>=', 10, 'the sample has settings');
$settings{shared_buffers} = '64MB'; # the machine of a test may be small
restart(map { "$_=$settings{$_}" } sort keys %settings);
for my $name (sort keys %settings) {
	is($areg->psql_value("SHOW $name", as => 'postgres'), $settings{$name}, "$name is what the sample says");
}
isnt($areg->psql_value('SHOW work_mem'), '5MB', 'what was said before holds no longer');
$areg->stop_server('postgres');
ok(-s $areg->dir . '/pgdata/autoprewarm.blocks', 'what is in memory is kept for after a restart');

done_testing();
