# SPDX-License-Identifier: Apache-2.0
# Manual pages become pages of the documentation. Knows the part of mdoc(7) that man/ uses, and ends
# with an error at any other macro.
package Areg::Docs::Manual;

use strict;
use warnings;
use utf8;

use File::Basename qw(basename);

use Areg::Docs::Page qw(escape slug);

# Macros within a line: what stands before and after each of their arguments.
my %inline = (
	Ar => ['<var>', '</var>'], Cm => ['<code>', '</code>'], Dv => ['<code>', '</code>'],
	Em => ['<em>', '</em>'], Ev => ['<code>', '</code>'], Fn => ['<code>', '()</code>'],
	Ic => ['<code>', '</code>'], Li => ['<code>', '</code>'], No => ['', ''],
	Pa => ['<code>', '</code>'], Ql => ['<code>', '</code>'], Sy => ['<strong>', '</strong>'],
	Va => ['<code>', '</code>'], Vt => ['<code>', '</code>'],
);
# These stand around the rest of the line.
my %around = (Op => ['[', ']'], Pq => ['(', ')'], Dq => ["\x{201c}", "\x{201d}"], Sq => ["\x{2018}", "\x{2019}"]);
my %known = (%inline, %around, map { $_ => [] } qw(Fl Nm Ns Sx Xr));
# An entry of a list that begins with one of these can be linked to, by its name behind this.
my %anchor_of = (Cm => '', Ic => '', Ev => 'env-', Fl => 'option-');
my %list_kind = ('-tag' => 'dl', '-bullet' => 'ul', '-enum' => 'ol', '-column' => 'table');
my %entry_ends = (dl => "</dd>\n", ul => "</li>\n", ol => "</li>\n", table => "</tr>\n");
my $table_begins = "<div class=\"scroll\" role=\"region\" aria-label=\"Table\" tabindex=\"0\"><table>\n<tbody>\n";

# Reads every manual page of a folder, areg.conf.5 and the like.
sub read
{
	my ($class, $folder) = @_;
	my %self = (pages => {});

	for my $file (sort glob "\Q$folder\E/*.[1-9]") {
		open my $in, '<:encoding(UTF-8)', $file or die "$file: $!\n";
		my $text = do { local $/; <$in> };
		my ($purpose) = $text =~ /^\.Nd (.*)$/m or die "$file: does not say what it is for\n";
		$self{pages}{ basename($file) } = { text => $text, purpose => $purpose };
	}
	die "make-docs: there are no manual pages in $folder\n" unless %{ $self{pages} };
	return bless \%self, $class;
}

sub names { return sort keys %{ $_[0]{pages} } }

# "areg.conf.5" as people write it: areg.conf(5).
sub title
{
	my ($name) = @_;
	return $name =~ s/\.(\d)$/($1)/r;
}

# Of all pages: what the page "Manual pages" shows.
sub table
{
	my ($self) = @_;
	my $rows = join '', map {
		"<tr><td><a href=\"manual/$_.html\">" . title($_) . '</a></td><td>'
			. escape(_unescape($self->{pages}{$_}{purpose})) . "</td></tr>\n"
	} $self->names;
	return "<div class=\"scroll\" role=\"region\" aria-label=\"Table\" tabindex=\"0\"><table>\n<thead><tr>"
		. "<th scope=\"col\">Page</th><th scope=\"col\">What it is about</th></tr></thead>\n"
		. "<tbody>\n$rows</tbody>\n</table></div>";
}

# The content of one page.
sub html
{
	my ($self, $name) = @_;
	my $page = $self->{pages}{$name};
	my %state = (manual => $self, name => $name, html => '', paragraph => '', ids => {}, lists => [],
		section => '', literal => 0);

	for my $line (split /\n/, $page->{text}) {
		if ($line =~ /^\.\\"/) {
			next;
		} elsif ($line =~ /^\.([A-Z][a-z])(?: +(.*))?$/) {
			_block(\%state, $1, _words($2 // ''));
		} elsif ($state{literal}) {
			$state{html} .= escape(_unescape($line)) . "\n";
		} else {
			_add(\%state, escape(_unescape($line)));
		}
	}
	_flush(\%state);
	die "$name: a list is not closed\n" if @{ $state{lists} };
	my $purpose = ucfirst escape(_unescape($page->{purpose}));
	return '<h1>' . title($name) . "</h1>\n<p>$purpose.</p>\n$state{html}";
}

# ---- Lines ----

sub _unescape
{
	my ($text) = @_;
	my %character = ('e' => '\\', '(dq' => '"', '&' => '', '-' => '-');

	$text =~ s/\\(\(dq|[e&-])/$character{$1}/g;
	return $text;
}

# The arguments of a macro; one in quotes is one argument.
sub _words
{
	my ($text) = @_;
	my @words;

	push @words, defined $1 ? \"$1" : $2 while $text =~ /\G *(?:"([^"]*)"|(\S+))/g;
	return @words;
}

# One line's arguments as HTML. A word that names a macro is one, unless it stood in quotes.
sub _inline
{
	my ($state, @words) = @_;
	my ($html, $glue, $macro, $used) = ('', 1, 'No', 1);
	my @closing;
	my $put = sub {
		my ($text, $closes) = @_;
		$html .= ($glue || $closes ? '' : ' ') . $text;
		$glue = 0;
	};
	my $end = sub {
		return if $used;
		$put->("<code>$state->{nm}</code>") if $macro eq 'Nm';
		$put->('<code>-</code>') if $macro eq 'Fl';
		$used = 1;
	};

	while (@words) {
		my $word = shift @words;
		my $quoted = ref $word;
		my $text = escape(_unescape($quoted ? $$word : $word));
		if (!$quoted && $known{$word}) {
			$end->() unless $macro eq 'Fl' && $word eq 'Ns';
			if ($word eq 'Ns') {
				$glue = 1;
				($macro, $used) = ('No', 1);
			} elsif ($around{$word}) {
				$put->($around{$word}[0]);
				unshift @closing, $around{$word}[1];
				$glue = 1;
				($macro, $used) = ('No', 1);
			} elsif ($word eq 'Xr') {
				my ($name, $section) = splice @words, 0, 2;
				$put->(_reference($state, $name, $section));
				($macro, $used) = ('No', 1);
			} elsif ($word eq 'Sx') {
				my $title = ucfirst lc join ' ', splice @words, 0, scalar grep { !/^[.,;:]$/ } @words;
				$put->('<a href="#' . slug($title) . '">' . escape($title) . '</a>');
				($macro, $used) = ('No', 1);
			} else {
				($macro, $used) = ($word, 0);
			}
		} elsif (!$quoted && $word =~ /^[.,;:)\]?!]$/) {
			$end->();
			# What ends a sentence stands behind the brackets, too.
			$put->(shift @closing, 1) while @closing && !grep { !/^[.,;:?!]$/ } @words;
			$put->($text, 1);
		} elsif (!$quoted && $word =~ /^[(\[]$/) {
			$end->();
			$put->($text);
			$glue = 1;
		} elsif (!$quoted && $word eq '|') {
			$put->($text);
		} elsif ($macro eq 'Fl') {
			$put->("<code>-$text</code>");
			$used = 1;
		} elsif ($macro eq 'Nm') {
			# A name and what follows it in the line: "aregctl key create".
			while (@words && !ref $words[0] && !$known{ $words[0] } && $words[0] !~ /^[.,;:]$/) {
				$text .= ' ' . escape(_unescape(shift @words));
			}
			$put->("<code>$text</code>");
			($macro, $used) = ('No', 1);
		} elsif ($macro =~ /^(?:Li|Ql|Va|Pa)$/) {
			# What is one expression in the page is one here.
			while (@words && !ref $words[0] && !$known{ $words[0] } && $words[0] !~ /^[.,;:)]$/) {
				$text .= ' ' . escape(_unescape(shift @words));
			}
			$put->("$inline{$macro}[0]$text$inline{$macro}[1]");
			$used = 1;
		} else {
			$put->("$inline{$macro}[0]$text$inline{$macro}[1]");
			$used = 1;
		}
	}
	$end->();
	$put->($_, 1) for @closing;
	return $html;
}

# Name and section of another page, which is a link where it is one of ours.
sub _reference
{
	my ($state, $name, $section) = @_;
	my $title = escape("$name($section)");

	return $state->{manual}{pages}{"$name.$section"} && "$name.$section" ne $state->{name}
		? "<a href=\"$name.$section.html\">$title</a>" : $title;
}

# ---- Blocks ----

sub _add
{
	my ($state, $html) = @_;
	return if $html eq '';
	$state->{paragraph} .= ($state->{paragraph} eq '' ? '' : "\n") . $html;
}

sub _flush
{
	my ($state) = @_;
	$state->{html} .= "<p>$state->{paragraph}</p>\n" if $state->{paragraph} ne '';
	$state->{paragraph} = '';
}

# ` id="…"` for a name that the page does not have yet.
sub _anchor
{
	my ($state, $text) = @_;
	my $id = slug($text);
	return $id eq '' || $state->{ids}{$id}++ ? '' : " id=\"$id\"";
}

sub _block
{
	my ($state, $macro, @words) = @_;
	my $list = $state->{lists}[-1];

	if ($macro eq 'Dd' || $macro eq 'Dt' || $macro eq 'Os' || $macro eq 'Nd') {
		return;
	} elsif ($macro eq 'Sh' || $macro eq 'Ss') {
		_flush($state);
		my $title = join ' ', map { ref ? $$_ : $_ } @words;
		$state->{section} = $title if $macro eq 'Sh';
		return if $title eq 'NAME';
		my $level = $macro eq 'Sh' ? 2 : 3;
		$title = ucfirst lc $title if $macro eq 'Sh';
		$state->{html} .= "<h$level" . _anchor($state, $title) . '>' . escape(_unescape($title)) . "</h$level>\n";
	} elsif ($macro eq 'Nm' && $state->{section} eq 'NAME') {
		$state->{nm} //= escape($words[0]);
	} elsif ($macro eq 'Pp') {
		_flush($state);
	} elsif ($macro eq 'Bl') {
		_flush($state);
		my ($kind) = grep { $_ } map { $list_kind{$_} } @words
			or die "$state->{name}: .Bl @words: no such list is known\n";
		$state->{html} .= $kind eq 'table' ? $table_begins : "<$kind>\n";
		push @{ $state->{lists} }, { kind => $kind, entries => 0 };
	} elsif ($macro eq 'It') {
		_flush($state);
		my $first = @words && !ref $words[0] ? $anchor_of{ $words[0] } : undef;
		my $anchor = defined $first ? _anchor($state, $first . slug(_entry_name(@words))) : '';
		$state->{html} .= $entry_ends{ $list->{kind} } if $list->{entries}++;
		if ($list->{kind} eq 'dl') {
			$state->{html} .= "<dt$anchor>" . _inline($state, @words) . "</dt>\n<dd>";
		} elsif ($list->{kind} eq 'table') {
			my ($cell, @cells) = ([]);
			for my $word (@words) {
				push(@cells, $cell), $cell = [], next if $word eq 'Ta';
				push @$cell, $word;
			}
			$state->{html} .= "<tr$anchor>" . join '', map { '<td>' . _inline($state, @$_) . '</td>' } @cells, $cell;
		} else {
			$state->{html} .= '<li>';
			_add($state, _inline($state, @words));
		}
	} elsif ($macro eq 'El') {
		_flush($state);
		$state->{html} .= $entry_ends{ $list->{kind} }
			. ($list->{kind} eq 'table' ? "</tbody>\n</table></div>\n" : "</$list->{kind}>\n");
		pop @{ $state->{lists} };
	} elsif ($macro eq 'Bd') {
		_flush($state);
		$state->{literal} = 1;
		$state->{html} .= '<pre tabindex="0"><code>';
	} elsif ($macro eq 'Ed') {
		$state->{literal} = 0;
		$state->{html} .= "</code></pre>\n";
	} elsif ($macro eq 'Dl') {
		_flush($state);
		$state->{html} .= '<pre tabindex="0"><code>' . _inline($state, @words) . "\n</code></pre>\n";
	} elsif ($known{$macro}) {
		_flush($state) if $macro eq 'Nm' && $state->{section} eq 'SYNOPSIS';
		_add($state, _inline($state, $macro, @words));
	} else {
		die "$state->{name}: .$macro is not known to make-docs\n";
	}
}

# What an entry of a list is called: its first words, up to the next macro. A leading hyphen of an
# option is no part of it.
sub _entry_name
{
	my (undef, @words) = @_;
	my $name = '';

	for my $word (@words) {
		last if !ref $word && ($known{$word} || $word =~ /^(?:[,|]|Ta)$/);
		$name .= ($name eq '' ? '' : ' ') . (ref $word ? $$word : $word);
	}
	return _unescape($name);
}

1;
