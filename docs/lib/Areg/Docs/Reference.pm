# SPDX-License-Identifier: Apache-2.0
# The reference: every call that openapi.json (OpenAPI 3.1) describes, as one page.
package Areg::Docs::Reference;

use strict;
use warnings;
use utf8;

use JSON::PP ();

use Areg::Docs::Page qw(escape slug);

my @methods = qw(get post put patch delete);
my $pretty = JSON::PP->new->canonical->allow_nonref->allow_bignum->indent->space_after->indent_length(2);
my $plain = JSON::PP->new->canonical->allow_nonref->allow_bignum;
# How deep fields within fields are shown in one table.
my $DEPTH = 4;
my %extension = ('x-scope' => 'Scope', 'x-tier' => 'Tier', 'x-audited-as' => 'Audit entry');
my @tiers = qw(anonymous free pro enterprise);

sub read
{
	my ($class, $file) = @_;
	open my $in, '<', $file or die "$file: $!\n";
	my $text = do { local $/; <$in> };
	my $api = JSON::PP->new->utf8->allow_bignum->decode($text);

	return bless { api => $api, texts => [] }, $class;
}

# Content of the page.
sub html
{
	my ($self, $pages) = @_;
	my $api = $self->{api};
	my ($contents, $calls) = ('', '');

	for my $group ($self->_groups) {
		my ($tag, @operations) = @$group;
		my $id = 'calls-' . slug($tag->{name});
		$calls .= "<h2 id=\"$id\">" . escape(ucfirst $tag->{name}) . "</h2>\n"
			. $self->_paragraphs($tag->{description});
		$contents .= "<li><a href=\"#$id\">" . escape(ucfirst $tag->{name}) . "</a>\n<ul>\n";
		for my $operation (@operations) {
			$calls .= $self->_operation($operation);
			$contents .= "<li><a href=\"#$operation->{id}\"><code>$operation->{name}</code></a></li>\n";
		}
		$contents .= "</ul></li>\n";
	}
	my $html = "<h1>Reference</h1>\n<p>Every call of version " . escape($api->{info}{version})
		. ' of the API, with what it takes and what it answers; for programs, the same is'
		. " <a href=\"openapi.json\">openapi.json</a> (OpenAPI "
		. escape($api->{openapi}) . ").</p>\n"
		. $self->_paragraphs($api->{info}{description})
		. "<nav class=\"calls\" aria-label=\"Calls\">\n<ul>\n$contents</ul>\n</nav>\n$calls"
		. $self->_schemas;
	my @fragments = $pages->fragments(@{ $self->{texts} });
	$html =~ s/\x01(\d+)\x01/$fragments[$1]/g;
	return $html;
}

# Groups of operations: [tag, operation, …], in the order of the tags; paths in order within.
sub _groups
{
	my ($self) = @_;
	my $api = $self->{api};
	my (%by_tag, @tags);

	for my $path (sort keys %{ $api->{paths} }) {
		my $item = $api->{paths}{$path};
		for my $method (grep { $item->{$_} } @methods) {
			my $operation = $item->{$method};
			my $name = uc($method) . ' ' . escape($path);
			push @{ $by_tag{ ($operation->{tags} || ['Other'])->[0] } }, { %$operation, name => $name,
				id => slug($name =~ s{ /api/v1}{ }r),
				parameters => [@{ $item->{parameters} || [] }, @{ $operation->{parameters} || [] }] };
		}
	}
	@tags = @{ $api->{tags} || [] };
	my %listed = map { $_->{name} => 1 } @tags;
	push @tags, map { { name => $_ } } grep { !$listed{$_} } sort keys %by_tag;
	return map { [$_, @{ $by_tag{ $_->{name} } }] } grep { $by_tag{ $_->{name} } } @tags;
}

sub _operation
{
	my ($self, $operation) = @_;
	my ($method, $path) = split / /, $operation->{name}, 2;
	my $html = "<section class=\"call\">\n<h3 id=\"$operation->{id}\"><span class=\"method\">$method</span> "
		. _breakable($path) . "</h3>\n";
	my @facts = $self->_facts($operation);

	$html .= '<p>' . $self->_text($operation->{summary}) . "</p>\n" if defined $operation->{summary};
	$html .= $self->_paragraphs($operation->{description});
	$html .= "<ul class=\"facts\">\n" . join('', map { "<li><span>$_->[0]:</span> $_->[1]</li>\n" } @facts) . "</ul>\n";
	$html .= $self->_parameters(map { $self->_resolve($_) } @{ $operation->{parameters} });
	$html .= $self->_body($self->_resolve($operation->{requestBody})) if $operation->{requestBody};
	$html .= $self->_responses($operation->{responses});
	return "$html</section>\n";
}

sub _facts
{
	my ($self, $operation) = @_;
	my $security = $operation->{security} // $self->{api}{security} // [];
	my @facts = (['API key', !@$security ? 'not looked at'
		: (grep { !%$_ } @$security) ? 'not needed' : 'needed']);

	if (my $rate = $operation->{'x-rate-limit'}) {
		my $numbers = $rate->{requests_per_minute} || {};
		my @said = map { "$numbers->{$_} $_" } grep { $numbers->{$_} } @tiers;
		push @facts, ['Requests a minute', (@said ? join(', ', @said) . ', ' : '')
			. 'of <a href="limits.html">class</a> <code>' . escape($rate->{class}) . '</code>'];
	}
	for my $name (sort keys %extension) {
		my $value = $operation->{$name};
		next unless defined $value;
		push @facts, [$extension{$name},
			'<code>' . escape(ref $value ? $plain->encode($value) : $value) . '</code>'];
	}
	return @facts;
}

sub _parameters
{
	my ($self, @parameters) = @_;
	my $rows = '';

	for my $place (qw(path query header)) {
		for my $parameter (grep { $_->{in} eq $place } @parameters) {
			my $schema = $parameter->{schema} || {};
			$rows .= _row($parameter->{name}, $parameter->{required}, $self->_type($schema),
				"in the $place", $self->_text($parameter->{description} // $self->_resolve($schema)->{description}),
				$self->_bounds($schema), $self->_example_of($parameter));
		}
	}
	return '' if $rows eq '';
	return "<h4>Parameters</h4>\n" . _table(['Name', 'Type', 'What it is'], $rows);
}

sub _body
{
	my ($self, $body) = @_;
	my $html = "<h4>Body</h4>\n" . $self->_paragraphs($body->{description});

	for my $type (sort keys %{ $body->{content} }) {
		$html .= $self->_content($type, $body->{content}{$type});
	}
	return $html;
}

sub _responses
{
	my ($self, $responses) = @_;
	my ($html, $problems) = ('', '');

	for my $status (sort keys %$responses) {
		my $response = $self->_resolve($responses->{$status});
		my $text = $self->_text($response->{description});
		if ($status !~ /^[123]/) {
			$problems .= "<tr><td>$status</td><td>$text</td></tr>\n";
			next;
		}
		$html .= "<h4>Answer $status</h4>\n<p>$text</p>\n";
		for my $type (sort keys %{ $response->{content} || {} }) {
			$html .= $self->_content($type, $response->{content}{$type});
		}
		my @headers = sort keys %{ $response->{headers} || {} };
		$html .= '<p class="headers">Headers: ' . join(', ', map { '<code>' . escape($_) . '</code>' } @headers)
			. "</p>\n" if @headers;
	}
	return $html if $problems eq '';
	return "$html<h4>Problems</h4>\n" . _table(['Status', 'When'], $problems);
}

# A body: where its description stands, or the fields themselves, and an example.
sub _content
{
	my ($self, $type, $content) = @_;
	my $schema = $content->{schema};
	my $html = "<p><code>" . escape($type) . '</code>';

	$html .= $schema ? ': ' . $self->_type($schema) . "</p>\n" : "</p>\n";
	$html .= $self->_fields($schema) if $schema && !$schema->{'$ref'};
	for my $example ($self->_examples($content)) {
		$html .= "<pre tabindex=\"0\"><code>" . escape($pretty->encode($example) =~ s/\n\z//r) . "</code></pre>\n";
	}
	return $html;
}

sub _examples
{
	my ($self, $content) = @_;
	my $examples = $content->{examples};

	return $content->{example} if exists $content->{example};
	return map { $self->_resolve($examples->{$_})->{value} } sort keys %$examples if $examples;
	my $schema = $content->{schema} ? $self->_resolve($content->{schema}) : {};
	return $schema->{examples}[0] if $schema->{examples} && @{ $schema->{examples} };
	return;
}

sub _example_of
{
	my ($self, $parameter) = @_;
	my ($example) = $self->_examples($parameter);

	return defined $example && !ref $example ? 'Example: <code>' . escape($example) . '</code>.' : '';
}

sub _schemas
{
	my ($self) = @_;
	my $schemas = $self->{api}{components}{schemas} || {};
	my $html = "<h2 id=\"schemas\">Shapes</h2>\n";

	return '' unless %$schemas;
	for my $name (sort keys %$schemas) {
		my $schema = $schemas->{$name};
		my $is_table = $self->_properties($schema);
		$html .= "<section class=\"call\">\n<h3 id=\"schema-$name\">" . escape($name) . "</h3>\n"
			. $self->_paragraphs($schema->{description})
			. ($is_table && %$is_table ? $self->_fields($schema)
				: '<p>' . join(' ', grep { $_ ne '' } $self->_type($schema) . '.', $self->_bounds($schema)) . "</p>\n")
			. "</section>\n";
	}
	return $html;
}

# The table of an object's fields, '' for what has none.
sub _fields
{
	my ($self, $schema) = @_;
	my $rows = $self->_field_rows($schema, '', 0);

	return $rows eq '' ? '' : _table(['Field', 'Type', 'What it is'], $rows);
}

sub _field_rows
{
	my ($self, $schema, $prefix, $depth) = @_;
	my $properties = $self->_properties($schema) or return '';
	my %required = map { $_ => 1 } $self->_required($schema);
	my $rows = '';

	return '' if $depth > $DEPTH;
	for my $name (sort { ($required{$b} // 0) <=> ($required{$a} // 0) || $a cmp $b } keys %$properties) {
		my $field = $properties->{$name};
		next unless ref $field;
		my $inner = $field->{items} && !$field->{properties} ? $field->{items} : $field;
		my $dots = $inner == $field ? '.' : '[].';
		$rows .= _row("$prefix$name", $required{$name}, $self->_type($field), '',
			$self->_text($field->{description}), $self->_bounds($field));
		$rows .= $self->_field_rows($inner, "$prefix$name$dots", $depth + 1)
			unless !ref $inner || $inner->{'$ref'};
	}
	return $rows;
}

# All properties of a schema, those of its allOf and what it refers to included; undef for none.
sub _properties
{
	my ($self, $schema) = @_;
	my $whole = $self->_resolve($schema);
	my %properties;

	return unless $whole->{properties} || $whole->{allOf};
	%properties = (%properties, %{ $self->_properties($_) || {} }) for @{ $whole->{allOf} || [] };
	return { %properties, %{ $whole->{properties} || {} } };
}

sub _required
{
	my ($self, $schema) = @_;
	my $whole = $self->_resolve($schema);

	return (@{ $whole->{required} || [] }, map { $self->_required($_) } @{ $whole->{allOf} || [] });
}

# A type in words: "string or null", "array of Agent", with links to what has a name.
sub _type
{
	my ($self, $schema) = @_;

	return 'anything' unless ref $schema eq 'HASH';
	if (my $ref = $schema->{'$ref'}) {
		my ($name) = $ref =~ m{^#/components/schemas/(.+)} or return 'anything';
		return "<a href=\"#schema-$name\">$name</a>";
	}
	for my $choice (qw(oneOf anyOf)) {
		next unless $schema->{$choice};
		my %seen;
		return join ' or ', grep { !$seen{$_}++ } map { $self->_type($_) } @{ $schema->{$choice} };
	}
	if ($schema->{allOf} && !$schema->{properties}) {
		my @named = grep { $_->{'$ref'} } @{ $schema->{allOf} };
		return $self->_type($named[0]) if @named == 1 && @{ $schema->{allOf} } == 1;
		return 'object';
	}
	return 'the word <code>' . escape(_word($schema->{const})) . '</code>' if exists $schema->{const};
	my $type = $schema->{type};
	my @types = ref $type ? @$type : defined $type ? $type : $schema->{enum} ? 'string'
		: $schema->{properties} ? 'object' : ();
	@types = map {
		$_ eq 'array' ? 'array of ' . $self->_type($schema->{items})
			: $_ eq 'object' && ref $schema->{additionalProperties} && !$schema->{properties}
			? 'object of ' . $self->_type($schema->{additionalProperties}) : $_
	} @types;
	return @types ? join(' or ', @types) : 'anything';
}

# What values are allowed, in words.
sub _bounds
{
	my ($self, $schema) = @_;
	my @said;

	return '' unless ref $schema eq 'HASH' && !$schema->{'$ref'};
	$schema = { %{ $schema->{items} }, %$schema } if ref $schema->{items} && !$schema->{items}{'$ref'};
	push @said, 'one of ' . join(', ', map { '<code>' . escape(_word($_)) . '</code>' } @{ $schema->{enum} })
		if $schema->{enum};
	push @said, _range('', $schema->{minimum}, $schema->{maximum}, '');
	push @said, _range('', $schema->{minLength}, $schema->{maxLength}, ' characters');
	push @said, _range('', $schema->{minItems}, $schema->{maxItems}, ' entries');
	push @said, 'form <code>' . escape($schema->{format}) . '</code>' if defined $schema->{format};
	push @said, 'matches <code>' . escape($schema->{pattern}) . '</code>' if defined $schema->{pattern};
	push @said, 'by default <code>' . escape(_word($schema->{default})) . '</code>' if exists $schema->{default};
	return @said ? '<span class="bounds">' . ucfirst(join '; ', @said) . '.</span>' : '';
}

sub _range
{
	my ($before, $least, $most, $unit) = @_;

	return "$before$least to $most$unit" if defined $least && defined $most;
	return "${before}at least $least$unit" if defined $least;
	return defined $most ? "${before}at most $most$unit" : ();
}

sub _word { return ref $_[0] || !defined $_[0] ? $plain->encode($_[0]) : $_[0] }

# What a $ref leads to; other members beside it win.
sub _resolve
{
	my ($self, $value) = @_;
	my $at = $self->{api};

	return {} unless ref $value eq 'HASH';
	my $ref = $value->{'$ref'} or return $value;
	$ref =~ s{^#/}{} or die "openapi.json: $ref leads out of it\n";
	for my $step (split m{/}, $ref) {
		$step =~ s{~1}{/}g;
		$step =~ s{~0}{~}g;
		$at = $at->{$step} // die "openapi.json: $value->{'$ref'} leads nowhere\n";
	}
	return { %{ $self->_resolve($at) }, map { $_ => $value->{$_} } grep { $_ ne '$ref' } keys %$value };
}

# Markdown goes through cmark-gfm at the end, all at once: until then it is a number.
sub _text
{
	my ($self, $markdown) = @_;

	return '' unless defined $markdown && $markdown =~ /\S/;
	push @{ $self->{texts} }, $markdown;
	return "\x01$#{ $self->{texts} }\x01";
}

sub _paragraphs
{
	my ($self, $markdown) = @_;
	my $text = $self->_text($markdown);

	return $text eq '' ? '' : "<div>$text</div>\n";
}

sub _row
{
	my ($name, $is_required, $type, $place, @texts) = @_;
	my $note = join ', ', grep { $_ ne '' } $is_required ? '' : 'optional', $place;

	$type .= " <span class=\"note\">$note</span>" if $note ne '';
	return '<tr><td><code>' . _breakable(escape($name)) . "</code></td><td>$type</td><td>"
		. join(' ', grep { $_ ne '' } @texts) . "</td></tr>\n";
}

sub _table
{
	my ($titles, $rows) = @_;
	my $head = join '', map { "<th scope=\"col\">$_</th>" } @$titles;

	return "<div class=\"scroll\" role=\"region\" aria-label=\"Table\" tabindex=\"0\"><table>\n<thead><tr>$head</tr></thead>\n<tbody>\n$rows</tbody>\n</table></div>\n";
}

# Long paths and names may break behind a slash or a dot.
sub _breakable { return $_[0] =~ s{([/.])(?=.)}{$1<wbr>}gr }

1;
