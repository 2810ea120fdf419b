# SPDX-License-Identifier: Apache-2.0
# Markdown becomes HTML (by cmark-gfm), and HTML becomes a page: template, navigation, anchors.
package Areg::Docs::Page;

use strict;
use warnings;
use utf8;

use Encode qw(decode encode);
use Exporter qw(import);
use File::Temp;

our @EXPORT_OK = qw(escape slug);

my %language = (sh => 'curl', python => 'Python', js => 'JavaScript', php => 'PHP');
# Fewer headings than this need no list of them.
my $CONTENTS_FROM = 5;
# A name of so many letters takes half of a phone's width, or more.
my $NAME_LONG = 22;

# new(template => text, version => text, chapters => [[title, [name, label], …], …],
# codes => {code => 1}): problem codes link to their pages wherever they stand as code.
sub new
{
	my ($class, %self) = @_;
	return bless {%self}, $class;
}

sub escape
{
	my ($text) = @_;
	my %entity = ('&' => '&amp;', '<' => '&lt;', '>' => '&gt;', '"' => '&quot;');

	$text =~ s/([&<>"])/$entity{$1}/g;
	return $text;
}

# The anchor of a heading, or of anything with a name: "GET /agents/{id}" is get-agents-id.
sub slug
{
	my ($text) = @_;
	my $slug = lc $text;

	$slug =~ s/<[^>]*>|&\w+;//g;
	$slug =~ s/[^a-z0-9_]+/-/g;
	$slug =~ s/^-|-$//g;
	return $slug;
}

# The HTML of a Markdown text.
sub markdown
{
	my ($self, $text) = @_;
	my $html = _cmark($text);
	my %seen;

	$html =~ s{<a href="(?![a-z]+:)([^"#]+)\.md(#[^"]*)?"}{'<a href="' . $1 . '.html' . ($2 // '') . '"'}ge;
	$html =~ s{<h([23])>(.*?)</h\1>}{
		my ($level, $title) = ($1, $2);
		my $id = slug($title);
		die "make-docs: two headings are \"$title\"\n" if $seen{$id}++;
		"<h$level id=\"$id\">$title</h$level>"
	}ges;
	# A row about one name can be linked to, where the page has nothing else of that name.
	$html =~ s{<tr>(\s*<td[^>]*><code>([^<]+)</code></td>)}{
		my ($cell, $id) = ($1, slug($2));
		$id eq '' || $seen{$id}++ ? "<tr>$cell" : "<tr id=\"$id\">$cell"
	}ge;
	# The keyboard must reach what scrolls.
	$html =~ s{<pre>}{<pre tabindex="0">}g;
	$html =~ s{(<table>.*?</table>)}{
		my ($table, $class) = ($1, 'scroll' . (_is_wide($1) ? ' wide' : ''));
		"<div class=\"$class\" role=\"region\" aria-label=\"Table\" tabindex=\"0\">$table</div>"
	}ges;
	$html =~ s{<th(?=[ >])}{<th scope="col"}g;
	$html =~ s{((?:<pre tabindex="0"><code class="language-\w+">.*?</pre>\s*)+)}{_languages($1)}ges;
	return $html;
}

# Whether a table has three columns or more, and in one of them names too long for a phone beside them.
sub _is_wide
{
	my ($table) = @_;
	return (() = $table =~ /<th[ >]/g) >= 3 && $table =~ m{<code>[^<]{$NAME_LONG,}</code>};
}

# The HTML of many short texts at once: a text that is one paragraph comes back without <p>.
sub fragments
{
	my ($self, @texts) = @_;
	my $separator = 'xxFRAGMENTxx';
	my $html = _cmark(join '', map { "$_\n\n$separator\n\n" } @texts);
	my @html = split /\s*<p>$separator<\/p>\s*/, $html, -1;

	pop @html;
	die "make-docs: descriptions run into each other\n" if @html != @texts;
	for (@html) {
		s{\A<p>(.*)</p>\z}{$1}s if (() = /<p>/g) == 1;
	}
	return @html;
}

sub _cmark
{
	my ($text) = @_;
	my $file = File::Temp->new;

	binmode $file;
	print $file encode('UTF-8', $text);
	close $file or die "make-docs: $!\n";
	open my $out, '-|', 'cmark-gfm', '--extension', 'table', "$file"
		or die "make-docs: cmark-gfm: $!\n";
	my $html = do { local $/; <$out> };
	close $out or die "make-docs: cmark-gfm failed\n";
	return decode('UTF-8', $html);
}

# The same in several languages is one group, of which a reader opens what they speak.
sub _languages
{
	my ($blocks) = @_;
	my @blocks = split /(?<=<\/pre>)\s*/, $blocks;

	return $blocks if @blocks < 2;
	my $open = ' open';
	my $group = join "\n", map {
		my ($name) = /class="language-(\w+)"/;
		my $details = "<details$open><summary>$language{$name}</summary>\n$_\n</details>";
		$open = '';
		$details;
	} @blocks;
	return "<div class=\"languages\">\n$group\n</div>\n";
}

# A whole page of its content; `name` is its path without .html.
sub page
{
	my ($self, $name, $html) = @_;
	my $base = '../' x ($name =~ tr{/}{});
	my ($title) = $html =~ m{<h1[^>]*>(.*?)</h1>}s or die "make-docs: $name has no title\n";
	my ($purpose) = $html =~ m{</h1>\s*<p>(.*?)</p>}s
		or die "make-docs: $name does not say what it is for\n";

	$html =~ s{(</h1>\s*)<p>}{$1<p class="lead">};
	$html =~ s{(<p class="lead">.*?</p>)}{$1 . _contents($html)}es unless $html =~ /<nav /;
	$html =~ s{<code>([a-z_]+)</code>(?![^<]*</a>)}{
		$self->{codes}{$1} && $name ne "errors/$1"
			? "<a href=\"${base}errors/$1.html\"><code>$1</code></a>" : "<code>$1</code>"
	}ge;
	my %value = (
		base => $base,
		title => $name eq 'index' ? 'areg: the registry of AI agents' : _plain($title) . ' · areg',
		purpose => _plain($purpose),
		here => $self->_place($name),
		navigation => $self->_navigation($name, $base),
		content => $html,
		version => escape($self->{version}),
	);
	(my $page = $self->{template}) =~ s/\{\{(\w+)\}\}/$value{$1} \/\/ die "make-docs: {{$1}}\n"/ge;
	return $page;
}

# HTML to a text for an attribute or the title.
sub _plain
{
	my ($html) = @_;
	(my $text = $html) =~ s/<[^>]*>//g;
	$text =~ s/\s+/ /g;
	$text =~ s/"/&quot;/g;
	return $text;
}

sub _contents
{
	my ($html) = @_;
	my @headings = $html =~ m{<h2 id="([^"]+)">(.*?)</h2>}gs;

	return '' if @headings < 2 * $CONTENTS_FROM;
	my $list = '';
	while (my ($id, $title) = splice @headings, 0, 2) {
		$list .= "<li><a href=\"#$id\">$title</a></li>\n";
	}
	return "\n<nav class=\"contents\" aria-label=\"On this page\">\n<ul>\n$list</ul>\n</nav>\n";
}

# Which entry of the navigation a page belongs to: itself, or the page that lists it.
sub _entry
{
	my ($name) = @_;
	return $name =~ s{/.*}{}r;
}

# Where a reader is, for the closed navigation of a narrow screen.
sub _place
{
	my ($self, $name) = @_;

	for my $chapter (@{ $self->{chapters} }) {
		my ($title, @pages) = @$chapter;
		my ($page) = grep { $_->[0] eq _entry($name) } @pages or next;
		return "<span>$title:</span> $page->[1]";
	}
	die "make-docs: $name is not in the navigation\n";
}

sub _navigation
{
	my ($self, $name, $base) = @_;
	my $html = '';

	for my $chapter (@{ $self->{chapters} }) {
		my ($title, @pages) = @$chapter;
		$html .= "<li><span>$title</span>\n<ul>\n";
		for my $page (@pages) {
			my $current = $page->[0] eq $name ? ' aria-current="page"'
				: $page->[0] eq _entry($name) ? ' aria-current="true"' : '';
			$html .= "<li><a href=\"$base$page->[0].html\"$current>$page->[1]</a></li>\n";
		}
		$html .= "</ul></li>\n";
	}
	return "<ul>\n$html</ul>";
}

1;
