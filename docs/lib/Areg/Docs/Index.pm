# SPDX-License-Identifier: Apache-2.0
# What can be found in the documentation: each page, each heading in it, and each entry of a table or
# list that has an anchor. The index of the search and the page of keywords are made of it.
package Areg::Docs::Index;

use strict;
use warnings;
use utf8;

use JSON::PP ();

use Areg::Docs::Page qw(escape);

# A heading that stands on more pages than this says nothing by itself: "What to do" is on fifty.
my $PAGES_MAX = 4;
# ascii: no character needs an escape of JavaScript's own then (U+2028 would).
my $json = JSON::PP->new->ascii->canonical;

sub new { return bless { pages => [], entries => [] }, $_[0] }

# Adds a page: its path without .html, and its content. About it may be told: `names`, by which it is
# looked for beside its title (a problem's code); `skip`, anchors of entries that have a page of their
# own; and `command`, whose subcommands its lists explain ("aregctl key").
sub add
{
	my ($self, $name, $html, %about) = @_;
	my ($title) = $html =~ m{<h1[^>]*>(.*?)</h1>}s;
	my $page = @{ $self->{pages} };
	my @parts = split m{(<(?:h2|h3|tr|dt)\b[^>]*\bid="[^"]+"[^>]*>|</table>|</dl>)}, $html;
	my $entry = { page => $page, id => '', label => _text($title), names => $about{names} // [], text => '' };
	my ($heading, @entries) = ($entry, $entry);

	push @{ $self->{pages} }, { url => "$name.html", title => _text($title) };
	for my $part (@parts) {
		if ($part =~ /^<(h2|h3|tr|dt)\b[^>]*\bid="([^"]+)"/) {
			my ($tag, $id) = ($1, $2);
			if ($about{skip} && $about{skip}{$id}) {
				$entry = $heading;
				next;
			}
			$entry = { page => $page, id => $id, tag => $tag, names => [], text => '' };
			$heading = $entry if $tag =~ /^h/;
			$entry->{command} = "$about{command} " if $about{command} && $tag eq 'dt' && $id !~ /^(?:env|option)-/;
			push @entries, $entry;
		} elsif ($part =~ m{^</(?:table|dl)>$}) {
			$entry = $heading;
		} else {
			$entry->{label} //= ($entry->{command} // '') . _label($entry->{tag}, $part);
			$entry->{text} .= ' ' . _text($part);
		}
	}
	push @{ $self->{entries} }, @entries;
}

# HTML to plain text.
sub _text
{
	my ($html) = @_;
	my %character = (amp => '&', lt => '<', gt => '>', quot => '"');

	$html =~ s/<wbr>//g;
	$html =~ s{</?(?:p|li|ul|ol|dl|dt|dd|tr|td|th|table|pre|h\d|div|section|nav|details|summary)\b[^>]*>}{ }g;
	$html =~ s/<[^>]*>//g;
	$html =~ s/&(amp|lt|gt|quot);/$character{$1}/g;
	$html =~ s/\s+/ /g;
	return $html =~ s/^ | $//gr;
}

# What an entry is called, from the HTML behind its opening tag.
sub _label
{
	my ($tag, $html) = @_;
	my ($label) = $tag eq 'tr' ? $html =~ m{<code>(.*?)</code>}s : $html =~ m{\A(.*?)</$tag>}s;
	return _text($label);
}

# As the script does it: lower-case letters, digits and underscores; a word with underscores is found
# by its parts, too.
sub words_of
{
	my ($text) = @_;
	my @words = lc($text) =~ /[\p{L}\p{N}_]+/g;
	return map { my $word = $_; $word, /_/ ? grep { $_ ne '' } split /_+/ : () } @words;
}

# The search's index, as a script: pages (address, title); entries (page, anchor, label, names); and
# for each word the entries in whose text it stands, ascending, each as the distance from the one before.
sub script
{
	my ($self) = @_;
	my %in;

	for my $number (0 .. $#{ $self->{entries} }) {
		$in{$_}{$number} = 1 for words_of($self->{entries}[$number]{text});
	}
	my @words = map {
		my $before = 0;
		my @distances = map { my $distance = $_ - $before; $before = $_; $distance } sort { $a <=> $b } keys %{ $in{$_} };
		$json->encode([$_, @distances]);
	} sort keys %in;
	my @pages = map { $json->encode([$_->{url}, $_->{title}]) } @{ $self->{pages} };
	my @entries = map { $json->encode([$_->{page}, $_->{id}, $_->{label}, join ' ', @{ $_->{names} }]) } @{ $self->{entries} };
	return "/* SPDX-License-Identifier: Apache-2.0 */\n/* Made by make-docs; docs/lib/Areg/Docs/Index.pm says what stands where. */\n"
		. "var aregSearchIndex = {\n"
		. "pages: [\n" . join(",\n", @pages) . "\n],\n"
		. "entries: [\n" . join(",\n", @entries) . "\n],\n"
		. "words: [\n" . join(",\n", @words) . "\n]\n};\n";
}

# The page of keywords, A to Z: each term with links to where it is explained.
sub keywords
{
	my ($self) = @_;
	my (%places, %by_letter);

	for my $entry (@{ $self->{entries} }) {
		for my $term (_terms($entry)) {
			push @{ $places{ lc $term } }, { term => $term, entry => $entry };
		}
	}
	for my $key (keys %places) {
		my %pages = map { $_->{entry}{page} => 1 } @{ $places{$key} };
		next if keys %pages > $PAGES_MAX;
		my ($letter) = $key =~ /([a-z])/;
		push @{ $by_letter{ uc($letter // '#') } }, $key;
	}
	my @letters = sort keys %by_letter;
	my $html = "<h1>Keywords</h1>\n<p>Terms from A to Z, with links to where they are explained.</p>\n"
		. "<nav class=\"letters\" aria-label=\"Letters\">\n<ul>\n"
		. join('', map { "<li><a href=\"#letter-" . lc($_) . "\">$_</a></li>\n" } @letters) . "</ul>\n</nav>\n";
	for my $letter (@letters) {
		$html .= '<h2 id="letter-' . lc($letter) . "\">$letter</h2>\n<ul class=\"keywords\">\n";
		for my $key (sort { _order($a) cmp _order($b) || $a cmp $b } @{ $by_letter{$letter} }) {
			my @places = @{ $places{$key} };
			my $term = escape($places[0]{term});
			my @links = map {
				my $page = $self->{pages}[ $_->{entry}{page} ];
				my $url = escape($page->{url} . ($_->{entry}{id} eq '' ? '' : "#$_->{entry}{id}"));
				# A page whose title is the term needs no name beside it.
				@places == 1 && $page->{title} eq $places[0]{term}
					? "<a href=\"$url\">$term</a>" : "<a href=\"$url\">" . escape($page->{title}) . '</a>';
			} @places;
			$html .= '<li>' . ($links[0] =~ />\Q$term\E</ && @places == 1 ? '' : "$term: ") . join(', ', @links) . "</li>\n";
		}
		$html .= "</ul>\n";
	}
	return $html;
}

# By letters and digits first, so that `--json` stands at j.
sub _order { return lc($_[0]) =~ s/^[^a-z]+//r }

# The terms under which an entry is listed: its names if it has some, because its title is then a sentence.
sub _terms
{
	my ($entry) = @_;
	return @{ $entry->{names} } ? @{ $entry->{names} } : $entry->{label};
}

1;
