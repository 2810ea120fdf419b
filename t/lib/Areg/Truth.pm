# SPDX-License-Identifier: Apache-2.0
# Writers and readers at once, and whether a reader was ever shown less than what had been acknowledged.
#
#	my $truth = Areg::Truth->new($areg, agents => 50, writers => 8);
#	my $sum = $truth->run(writing => $areg, reading => [$areg], readers => 24, after => 0,
#		seconds => 7, disturb => sub { my ($until) = @_; … });
#	is($sum->{late}, 0);
package Areg::Truth;

use strict;
use warnings;

use Fcntl qw(SEEK_SET);
use Time::HiRes qw(sleep time);

use Areg::Test qw(in_parallel);

# Registers the agents on a host and makes a user for each writer.
sub new
{
	my ($class, $host, %option) = @_;
	my $self = bless { host => $host, %option }, $class;

	$self->{owner} = $host->make_user(tier => 'enterprise');
	$self->{givers} = [map { $host->make_user(tier => 'enterprise') } 1 .. $option{writers}];
	$self->{uuids} = [map {
		$host->post('/api/v1/agents/register', { owner_address => $self->{owner}{wallet}, chain => 'base',
			registration_file => { name => "Agent $_", description => 'is there' } },
			{ key => $self->{owner}{key} })->{json}{agent_uuid} // die "an agent was not registered\n"
	} 1 .. $option{agents}];

	# For each agent and writer the number of feedback records that were acknowledged, 4 bytes each: a
	# writer writes its own number, a reader reads those of an agent at once.
	open $self->{file}, '+>', undef or die "temporary file: $!\n";
	syswrite $self->{file}, "\0" x (4 * $option{agents} * $option{writers});
	return $self;
}

sub agents { return @{ $_[0]{uuids} } }

# Processes share the place of a file that they inherit: this one is this process's own.
sub _file
{
	my ($self) = @_;

	if (($self->{own_pid} // 0) != $$) {
		open $self->{own}, '+<', "/proc/self/fd/" . fileno($self->{file}) or die "reopening: $!\n";
		$self->{own_pid} = $$;
	}
	return $self->{own};
}

sub _counts
{
	my ($self, $agent) = @_;

	sysseek $self->_file, 4 * $agent * $self->{writers}, SEEK_SET;
	sysread $self->_file, my $bytes, 4 * $self->{writers};
	return unpack 'L*', $bytes;
}

# How many feedback records of an agent (its number) were acknowledged.
sub acknowledged
{
	my ($self, $agent) = @_;
	my $sum = 0;

	$sum += $_ for $self->_counts($agent);
	return $sum;
}

# Gives feedback once on a host; returns the status.
sub give
{
	my ($self, $host, $writer, $agent) = @_;
	my $giver = $self->{givers}[$writer];
	my $status = $host->post('/api/v1/agents/feedback', { agent_uuid => $self->{uuids}[$agent],
		client_address => $giver->{wallet}, score => int rand 101 }, { key => $giver->{key} })->{status};

	return $status if $status != 201;
	my $count = ($self->_counts($agent))[$writer] + 1;
	sysseek $self->_file, 4 * ($agent * $self->{writers} + $writer), SEEK_SET;
	syswrite $self->_file, pack 'L', $count;
	return $status;
}

sub _write_until
{
	my ($self, $host, $writer, $until) = @_;
	my $done = 0;

	while (time < $until) {
		$done++ if $self->give($host, $writer, int rand $self->{agents}) == 201;
		sleep rand 0.02;
	}
	return { writes => $done };
}

# How many feedback records an answer of the host shows for an agent, in one of four places, and the
# answer's status; undef when there is none.
sub shown
{
	my ($self, $host, $agent) = @_;
	my $uuid = $self->{uuids}[$agent];
	my $how = int rand 20;

	if ($how == 0) {
		my $answer = $host->get("/api/v1/agents?owner_address=$self->{owner}{wallet}&limit=100");
		my ($row) = grep { $_->{agent_uuid} eq $uuid } @{ ($answer->{json} || {})->{agents} || [] };
		return ($row && $row->{total_feedback}, $answer->{status});
	}
	my ($path, $field) = @{ (['stats', 'total_feedback'], ['reputation', 'total_feedback'],
		['feedback?limit=1', 'total'])[$how % 3] };
	my $answer = $host->get("/api/v1/agents/$uuid/$path");
	return ($answer->{status} == 200 ? $answer->{json}{$field} : undef, $answer->{status});
}

# Reads from the hosts in turn until the time is over, each time what was acknowledged `after` seconds
# before.
sub _read_until
{
	my ($self, $hosts, $after, $until) = @_;
	my %sum = (reads => 0, late => 0, failed => 0);
	my @due;

	while (time < $until) {
		my $agent = int rand $self->{agents};

		push @due, [time + $after, $agent, $self->acknowledged($agent)] if @due < 100;
		sleep 0.01 if $after;
		next if $due[0][0] > time;
		my (undef, $which, $least) = @{ shift @due };
		my ($shown, $status) = $self->shown($hosts->[$sum{reads} % @$hosts], $which);

		$sum{reads}++;
		if (!defined $shown) {
			$sum{failed}++;
			$sum{failure} //= $status;
		} elsif ($shown < $least) {
			$sum{late}++;
			$sum{example} //= "agent $which: $shown shown, $least acknowledged";
		}
	}
	return \%sum;
}

# Runs the writers on one host, `readers` on the others, and what disturbs them, all at once. Returns
# the sums: writes and reads, of which so many failed or came late.
sub run
{
	my ($self, %run) = @_;
	my %sum = (writes => 0, reads => 0, late => 0, failed => 0);
	my $until = time + $run{seconds};
	my ($writers, $readers) = ($self->{writers}, $run{readers});

	for my $one (in_parallel($writers + $readers + 1, sub {
		my ($number) = @_;
		return $self->_write_until($run{writing}, $number, $until) if $number < $writers;
		return $self->_read_until($run{reading}, $run{after}, $until) if $number < $writers + $readers;
		$run{disturb}->($until);
		return {};
	})) {
		$sum{$_} += $one->{$_} // 0 for qw(writes reads late failed);
		$sum{$_} //= $one->{$_} for qw(example failure);
	}
	return \%sum;
}

# How many agents a host shows otherwise than the database has them, or with less than was acknowledged.
sub wrong
{
	my ($self, @hosts) = @_;
	my $wrong = 0;
	my %counts = map { @$_ } $self->{host}->psql(
		'SELECT agent_uuid, count(*) FROM erc8004_reputation GROUP BY agent_uuid');

	for my $agent (0 .. $self->{agents} - 1) {
		my $count = $counts{ $self->{uuids}[$agent] } // 0;

		for my $host (@hosts) {
			$wrong++ if grep { $_ != $count } map { ($self->shown($host, $agent))[0] // -1 } 1 .. 4;
		}
		$wrong++ if $count < $self->acknowledged($agent);
	}
	return $wrong;
}

1;
