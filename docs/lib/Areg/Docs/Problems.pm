# SPDX-License-Identifier: Apache-2.0
# The list of problem codes: reading it, the table of all, the page of each.
package Areg::Docs::Problems;

use strict;
use warnings;
use utf8;

use JSON::PP ();
use List::Util qw(uniq);

use Areg::Docs::Page qw(escape);

my %once = map { $_ => 1 } qw(code status nginx title means do request body detail member);
my %repeatable = map { $_ => 1 } qw(errors headers);
my @required = qw(code title means do request detail);
my $string = JSON::PP->new->allow_nonref;
my %phrase = (400 => 'Bad Request', 401 => 'Unauthorized', 403 => 'Forbidden', 404 => 'Not Found',
	405 => 'Method Not Allowed', 408 => 'Request Timeout', 409 => 'Conflict', 410 => 'Gone',
	413 => 'Content Too Large', 414 => 'URI Too Long', 415 => 'Unsupported Media Type',
	429 => 'Too Many Requests', 500 => 'Internal Server Error', 502 => 'Bad Gateway',
	503 => 'Service Unavailable');

# Reads the file; its form is told in its first lines. Each problem has its fields, and areg_statuses,
# nginx_statuses and statuses (of both), lists of numbers in their order.
sub read
{
	my ($class, $file) = @_;
	my (@problems, %seen);
	open my $in, '<:encoding(UTF-8)', $file or die "$file: $!\n";
	my $text = do { local $/; <$in> };

	$text =~ s/^#.*\n//mg;
	$text =~ s/\n\t/ /g;
	for my $entry (split /\n{2,}/, $text =~ s/\A\n+//r) {
		my %problem = (errors => [], headers => []);
		for (split /\n/, $entry) {
			my ($name, $value) = /^(\w+): (.+)$/ or die "$file: \"$_\" is no field\n";
			if ($repeatable{$name}) {
				push @{ $problem{$name} }, $value;
			} elsif ($once{$name} && !defined $problem{$name}) {
				$problem{$name} = $value;
			} else {
				die "$file: $name: unknown, or twice\n";
			}
		}
		defined $problem{$_} or die "$file: an entry lacks $_:\n$entry\n" for @required;
		$problem{code} =~ /^[a-z]+(?:_[a-z]+)*$/ or die "$file: code $problem{code}: not small words joined by _\n";
		die "$file: code $problem{code} stands twice\n" if $seen{ $problem{code} }++;
		for (qw(status nginx)) {
			my $statuses = $problem{$_} // next;
			$statuses =~ /^[45]\d\d(?:, [45]\d\d)*$/ or die "$file: $problem{code}: $_: $statuses\n";
		}
		my ($areg, $nginx) = map { [sort { $a <=> $b } split /, /, $_ // ''] } @problem{qw(status nginx)};
		$problem{statuses} = [sort { $a <=> $b } uniq(@$areg, @$nginx)];
		@problem{qw(areg_statuses nginx_statuses)} = ($areg, $nginx);
		die "$file: $problem{code} has no status\n" unless @{ $problem{statuses} };
		push @problems, \%problem;
	}
	return bless { problems => \@problems }, $class;
}

sub all { return @{ $_[0]{problems} } }

# Of all codes: what the page "Errors" shows.
sub table
{
	my ($self, $pages) = @_;
	my @rows = map {
		"<tr id=\"$_->{code}\"><td>${\ join(', ', @{ $_->{statuses} })}</td><td><a href=\"errors/$_->{code}.html\">"
			. '<code>' . ($_->{code} =~ s/_/_<wbr>/gr) . '</code></a></td><td>' . escape($_->{title}) . "</td></tr>\n"
	} $self->all;
	return "<div class=\"scroll\" role=\"region\" aria-label=\"Table\" tabindex=\"0\"><table>\n<thead><tr><th scope=\"col\">Status</th>"
		. "<th scope=\"col\">Code</th><th scope=\"col\">What it is</th></tr></thead>\n"
		. "<tbody>\n@rows</tbody>\n</table></div>";
}

# The page of one, in Markdown.
sub markdown
{
	my ($self, $problem) = @_;
	die "docs/problems: no name is known for the status of $problem->{code}\n" if !$phrase{ $problem->{statuses}[0] };
	my $status = join(', ', @{ $problem->{statuses} }) =~ s/,(?=[^,]*$)/ or/r;
	my $body = defined $problem->{body} ? "\nContent-Type: application/json\n\n$problem->{body}" : '';
	my $headers = join '', map { "$_\n" } @{ $problem->{headers} };

	return <<~END;
		# $problem->{title}

		The problem code `$problem->{code}`, with status $status: what it means, and what to do.

		## What it means

		$problem->{means}

		## What to do

		$problem->{do}

		## An example

		This request

		```http
		$problem->{request}$body
		```

		is answered

		```http
		$problem->{statuses}[0] $phrase{ $problem->{statuses}[0] }
		Content-Type: application/problem+json
		$headers
		${\ example($problem) }
		```

		[All codes](../errors.html)
		END
}

# The answer's body as areg writes it, in its order of members, for people to read.
sub example
{
	my ($problem) = @_;
	my $status = $problem->{statuses}[0];
	my @members = (
		[type => $string->encode("https://registry.example/docs/errors/$problem->{code}.html")],
		[title => $string->encode($phrase{$status})],
		[status => $status],
		[detail => $string->encode($problem->{detail})],
		[code => $string->encode($problem->{code})],
		[request_id => '"0d6c8a1b52e94f7f"'],
	);

	if (defined $problem->{member}) {
		my ($name, $value) = split / /, $problem->{member}, 2;
		push @members, [$name => $string->encode($value)];
	}
	if (@{ $problem->{errors} }) {
		my @errors = map {
			my ($pointer, $detail) = split / /, $_, 2;
			'    {"pointer": ' . $string->encode($pointer) . ', "detail": '
				. $string->encode($detail) . '}'
		} @{ $problem->{errors} };
		push @members, [errors => "[\n" . join(",\n", @errors) . "\n  ]"];
	}
	return "{\n" . join(",\n", map { "  \"$_->[0]\": $_->[1]" } @members) . "\n}";
}

1;
