// SPDX-License-Identifier: Apache-2.0
// openapi.json as a judge of answers: which operation a request was, and what is wrong with its
// answer. Schemas are compiled when they are first needed, for a test file needs few of them.
'use strict';

const fs = require('fs');
const Ajv2020 = require('ajv/dist/2020').default;
const addFormats = require('ajv-formats').default;

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];
const PROBLEM = 'application/problem+json';
// What is answered before anybody looks which operation is meant, and by the web server.
const ANYWHERE = [400, 401, 403, 404, 405, 408, 413, 414, 429, 500, 502, 503, 504];

function escapePointer(token) {
	return encodeURIComponent(token.replace(/~/g, '~0').replace(/\//g, '~1'));
}

class Description {
	constructor(file) {
		this.document = JSON.parse(fs.readFileSync(file, 'utf8'));
		this.ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: true });
		addFormats(this.ajv);
		this.ajv.addSchema(this.document, 'openapi.json');
		this.compiled = new Map();
		this.templates = Object.keys(this.document.paths)
			.map((template) => ({ template, segments: template.split('/').slice(1) }))
			// Where several match, a literal further to the front wins.
			.sort((a, b) => (this.rank(a) < this.rank(b) ? -1 : 1));
	}

	rank({ segments }) {
		return segments.map((segment) => (segment.startsWith('{') ? '1' : '0')).join('');
	}

	// Every operation as {template, method, operation}.
	operations() {
		return this.templates.flatMap(({ template }) =>
			METHODS.filter((method) => this.document.paths[template][method]).map((method) => ({
				template, method, operation: this.document.paths[template][method],
			})));
	}

	value(pointer) {
		return pointer.split('/').slice(1).reduce((within, token) =>
			within[decodeURIComponent(token).replace(/~1/g, '/').replace(/~0/g, '~')], this.document);
	}

	// Where a JSON pointer within the document leads to, through $refs.
	place(pointer) {
		const reference = this.value(pointer).$ref;

		return reference ? this.place(reference.slice(1)) : pointer;
	}

	at(pointer) {
		return this.value(this.place(pointer));
	}

	validator(pointer) {
		if (!this.compiled.has(pointer))
			this.compiled.set(pointer, this.ajv.compile({ $ref: `openapi.json#${pointer}` }));
		return this.compiled.get(pointer);
	}

	// What a value at a place breaks of the schema there, as texts.
	faults(pointer, value) {
		const validate = this.validator(pointer);

		return validate(value) ? [] : validate.errors.map((error) =>
			`${error.instancePath || 'the body'} ${error.message}` +
			(error.params.additionalProperty ? ` (${error.params.additionalProperty})` : '') +
			(error.params.allowedValues ? ` (${error.params.allowedValues.join(', ')})` : ''));
	}

	// The template that a request's path is of, or undefined.
	match(path) {
		const segments = path.replace(/[?#].*/s, '').replace(/(.)\/$/, '$1').split('/').slice(1)
			.map((segment) => {
				try { return decodeURIComponent(segment); } catch { return segment; }
			});

		return this.templates.find((candidate) => candidate.segments.length === segments.length &&
			candidate.segments.every((segment, i) => segment.startsWith('{') || segment === segments[i]))?.template;
	}

	// What is wrong with an answer: {method, path, status, headers (names in lower case), body
	// (Buffer)}; an empty list when nothing is.
	judge(exchange) {
		const template = this.match(exchange.path);
		const method = exchange.method.toLowerCase().replace(/^head$/, 'get');
		const operation = template && this.document.paths[template][method];

		if (method === 'options')
			return template && exchange.status === 204 ? this.judgeAllow(exchange) : this.judgeElsewhere(exchange);
		if (!operation)
			return this.judgeElsewhere(exchange);
		if (!operation.responses[exchange.status])
			return [`status ${exchange.status} is not described`];
		return this.judgeBy(
			this.place(`/paths/${escapePointer(template)}/${method}/responses/${exchange.status}`), exchange);
	}

	judgeAllow(exchange) {
		return exchange.headers.allow ? [] : ['header allow is missing'];
	}

	// An answer to what is no operation: a problem of a few statuses, and 405 where only the
	// method is wrong.
	judgeElsewhere(exchange) {
		if (exchange.status === 405)
			return this.judgeBy('/components/responses/MethodNotAllowed', exchange);
		if (!ANYWHERE.includes(exchange.status))
			return [`status ${exchange.status} where nothing is described`];
		return this.judgeBody({ [PROBLEM]: {} }, () => '/components/schemas/Problem', exchange);
	}

	judgeBy(pointer, exchange) {
		const answer = this.at(pointer);

		return [
			...this.judgeHeaders(pointer, answer.headers || {}, exchange),
			...this.judgeBody(answer.content, (type) =>
				`${pointer}/content/${escapePointer(type)}/schema`, exchange),
		];
	}

	judgeHeaders(pointer, headers, exchange) {
		return Object.keys(headers).flatMap((name) => {
			const place = this.place(`${pointer}/headers/${name}`);
			const header = this.at(place);
			const text = exchange.headers[name.toLowerCase()];

			if (text === undefined)
				return header.required ? [`header ${name} is missing`] : [];
			const value = header.schema.type === 'integer' && /^-?\d+$/.test(text) ? Number(text) : text;
			return this.faults(`${place}/schema`, value).map((fault) => `header ${name}: ${fault}`);
		});
	}

	judgeBody(content, schemaOf, exchange) {
		const text = exchange.body.toString('utf8');
		const type = (exchange.headers['content-type'] || '').replace(/;.*/s, '').trim();
		let value = text;

		if (!content)
			return text === '' ? [] : ['there is a body where none is described'];
		if (!content[type])
			return [`content type "${type}" is not described`];
		if (exchange.method === 'HEAD')
			return text === '' ? [] : ['HEAD has a body'];
		if (/json$/.test(type)) {
			try { value = JSON.parse(text); } catch (error) { return [`the body is no JSON: ${error.message}`]; }
		}
		const faults = this.faults(schemaOf(type), value);
		if (type === PROBLEM && value.status !== exchange.status)
			faults.push(`the problem says status ${value.status}`);
		return faults;
	}
}

module.exports = { Description };
