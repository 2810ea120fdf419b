// SPDX-License-Identifier: Apache-2.0
// Usage: node fuzz.js openapi.json CONFIG. Asks a running registry whatever its description lets one
// ask, rightly and wrongly, and holds every answer to the description; an answer of 500 or above is
// a fault, too. CONFIG is JSON: {url, seed, requests, seconds, chains: […], callers: [{name, key,
// wallet}]}; a caller without key is anonymous. The same seed asks the same questions of the same
// answers. Prints each kind of fault once with its request, then one line of JSON about it all.
'use strict';

const fs = require('fs');
const http = require('http');
const { Description } = require('./description');

const AT_ONCE = 6;
const NASTY_TEXTS = ['', ' ', '0', '-1', 'null', 'NaN', '1e400', '2147483648', '9223372036854775808',
	"'; DROP TABLE users; --", '%', '_', '\\', '\u0000', '\ud800', '\u202e', 'é', '日本語', '🤖',
	'../../etc/passwd', '<script>', '{}', '[]', 'a'.repeat(300), '0x', '0X' + 'A'.repeat(40),
	'0x' + 'g'.repeat(40), '00000000-0000-0000-0000-000000000000', '0000-00-00T00:00:00Z',
	'2026-02-30T00:00:00Z', '9999-12-31T23:59:59Z', 'eip155:1:0x', 'base:', ':1', 'base:-1',
	'base:' + '9'.repeat(80), 'now', '1.2', '99999999999999999999.1', '1.', '.1'];
const NASTY_VALUES = [null, true, false, 0, -1, 1.5, 1e308, 101, [], {}, [[]], { a: 1 }, [null], 'x',
	...NASTY_TEXTS];
const BROKEN_BODIES = ['', '{', '[]', 'null', '"x"', '{"a":1,"a":2}', '{"a":1}{', '\ufeff{}', '{"a":01}',
	'{"a":"\u0001"}', '['.repeat(100), '{"a":' + '['.repeat(50) + ']'.repeat(50) + '}', '{"a":"\\ud800"}',
	'{"a":"\\u0000"}', '{' + ' '.repeat(1 << 20) + '}', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])];
const BROKEN_TYPES = ['text/plain', '', 'application/json; charset=latin1',
	'application/x-www-form-urlencoded'];

// A small generator of random numbers (mulberry32): 0 <= x < 1.
function randomFrom(seed) {
	return () => {
		seed = (seed + 0x6d2b79f5) | 0;
		let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
		t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
		return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
	};
}

class Fuzzer {
	constructor(description, config) {
		this.description = description;
		this.config = config;
		this.random = randomFrom(config.seed);
		this.agent = new http.Agent({ keepAlive: true, maxSockets: AT_ONCE });
		this.operations = description.operations();
		this.own = new Set(); // keys in use: not to be revoked
		// Names of things that were met in answers, by what they name.
		this.known = { agent: [], feedback: ['1'], key: [], hash: [], cursor: [],
			wallet: config.callers.map((caller) => caller.wallet).filter(Boolean) };
		this.report = { seed: config.seed, requests: 0, statuses: {}, operations: {}, faults: 0 };
		this.told = new Set();
	}

	chance(probability) { return this.random() < probability; }
	pick(list) { return list[Math.floor(this.random() * list.length)]; }
	whole(from, to) { return from + Math.floor(this.random() * (to - from + 1)); }
	hex(digits) { return Array.from({ length: digits }, () => this.pick('0123456789abcdef')).join(''); }
	word() {
		return this.pick(['starred', 'uptime', 'mcp', 'MCP', 'reputation', 'weather', 'x y', 'ä',
			this.hex(6)]);
	}

	// A value for a name that means something here; undefined for others.
	byName(name, caller) {
		const known = (list) => (list.length > 0 ? this.pick(list) : undefined);
		const hash = () => (this.chance(0.6) && known(this.known.hash)) || '0x' + this.hex(64);
		const address = () => (this.chance(0.8) ? this.pick(this.known.wallet) : '0x' + this.hex(40));

		switch (name) {
		case 'owner_address': case 'client_address':
			return caller.wallet && this.chance(0.9) ? caller.wallet : address();
		case 'address': case 'agent_wallet': case 'client': case 'clients': case 'validator':
		case 'validator_address': case 'payer': case 'payee':
			return address();
		case 'agent_uuid': case 'id':
			return known(this.known.agent);
		case 'feedback_id': return known(this.known.feedback);
		case 'key_id': return known(this.known.key);
		case 'tx_hash': case 'request_hash': return hash();
		case 'chain': return this.pick(this.config.chains);
		case 'cursor': case 'after': return known(this.known.cursor);
		default: return undefined;
		}
	}

	resolve(schema) {
		const { $ref: reference, ...own } = schema;

		return reference ? { ...this.resolve(this.description.at(reference.slice(1))), ...own } : own;
	}

	// A value that the schema allows.
	valid(given, name, caller) {
		const schema = this.resolve(given);
		const named = this.byName(name, caller);
		const choice = schema.anyOf || schema.oneOf;

		if (named !== undefined && schema.type !== 'array')
			return named;
		if (schema.const !== undefined)
			return schema.const;
		if (schema.enum)
			return this.pick(schema.enum);
		if (schema.examples && (schema.pattern || schema.format || this.chance(0.3)))
			return this.pick(schema.examples);
		if (choice)
			return this.valid(this.pick(choice), name, caller);
		switch (Array.isArray(schema.type) ? this.pick(schema.type) : schema.type) {
		case 'null': return null;
		case 'boolean': return this.chance(0.5);
		case 'integer': return this.whole(schema.minimum ?? 0, Math.min(schema.maximum ?? 1e6, 1e12));
		case 'number': return this.whole((schema.minimum ?? 0) * 100, (schema.maximum ?? 1e6) * 100) / 100;
		case 'array': {
			const count = this.whole(schema.minItems ?? 0, Math.min(schema.maxItems ?? 3, 3));
			const items = Array.from({ length: count }, () => this.valid(schema.items || {}, name, caller));
			return schema.uniqueItems ? [...new Set(items)] : items;
		}
		case 'object': return this.validObject(schema, caller);
		default: return this.validText(schema);
		}
	}

	validText(schema) {
		if (schema.format === 'date-time')
			return this.pick(['2026-03-01T12:00:00Z', '2031-01-01T00:00:00.5+02:00', '1999-12-31T23:59:59Z']);
		if (/^uri/.test(schema.format || ''))
			return `https://${this.hex(4)}.example/${this.word().replace(/[^a-z]/gi, '')}`;
		const text = this.word();
		return schema.maxLength && this.chance(0.05) ? 'x'.repeat(schema.maxLength) : text;
	}

	validObject(schema, caller) {
		const out = {};

		for (const [name, property] of Object.entries(schema.properties || {}))
			if ((schema.required || []).includes(name) || this.chance(0.3))
				out[name] = this.valid(property, name, caller);
		if (typeof schema.additionalProperties === 'object' && this.chance(0.7))
			out[`key-${this.hex(2)}`] = this.valid(schema.additionalProperties, '', caller);
		return out;
	}

	// Spoils something, here or further down.
	spoil(value) {
		const keys = value !== null && typeof value === 'object' ? Object.keys(value) : [];
		const key = this.pick(keys);

		if (keys.length === 0)
			return this.pick(NASTY_VALUES);
		switch (this.whole(0, 4)) {
		case 0: delete value[key]; return Array.isArray(value) ? value.filter(() => true) : value;
		case 1:
			value[this.pick(['unknown', '', 'é', '\u0000'])] = this.pick(NASTY_VALUES);
			return value;
		case 2: case 3: value[key] = this.pick(NASTY_VALUES); return value;
		default: value[key] = this.spoil(value[key]); return value;
		}
	}

	body(operation, caller) {
		const media = operation.requestBody?.content['application/json'];

		if (!media)
			return this.chance(0.1) ? this.pick(BROKEN_BODIES) : undefined;
		if (this.chance(0.05))
			return this.pick(BROKEN_BODIES);
		let value = structuredClone(media.example);
		if (this.chance(0.6)) {
			value = this.valid(media.schema, '', caller);
		} else {
			for (const name of Object.keys(value))
				value[name] = this.byName(name, caller) ?? value[name];
			// The same file again from the same owner would be refused.
			if (value.registration_file)
				value.registration_file.name = `Agent ${this.hex(8)}`;
		}
		while (this.chance(0.35))
			value = this.spoil(value);
		return JSON.stringify(value) ?? 'null';
	}

	encode(text) {
		try { return encodeURIComponent(text); } catch { return '%ED%A0%80'; }
	}

	path({ template, operation }, caller) {
		const parameters = (operation.parameters || []).map((parameter) => this.resolve(parameter));
		const example = (name) => parameters.find((parameter) => parameter.name === name).example;
		const filled = template.replace(/\{(\w+)\}/g, (_, name) => this.encode(this.chance(0.12)
			? this.pick(NASTY_TEXTS) || '-' : this.byName(name, caller) ?? example(name)));
		const pairs = [];

		for (const parameter of parameters.filter((candidate) => candidate.in === 'query')) {
			if (!this.chance(parameter.required ? 0.95 : 0.2))
				continue;
			const schema = this.resolve(parameter.schema);
			const many = schema.type === 'array' ? this.whole(1, 3) : this.chance(0.02) ? 2 : 1;
			for (let i = 0; i < many; i++)
				pairs.push([parameter.name, this.chance(0.12) ? this.pick(NASTY_TEXTS)
					: this.valid(schema.type === 'array' ? schema.items : schema, parameter.name, caller)]);
		}
		if (this.chance(0.03))
			pairs.push([this.pick(['unknown', '', 'LIMIT', 'limit[]']), this.pick(NASTY_TEXTS)]);
		let query = pairs.map(([name, value]) => `${this.encode(name)}=${this.encode(String(value))}`).join('&');
		if (this.chance(0.01))
			query += this.pick(['&%zz', '&%00=1', '&a=%ff', '&=', '&&', '&q=1'.repeat(120),
				'&q=' + 'x'.repeat(9000)]);
		return filled + (this.chance(0.05) ? '/' : '') + (query ? `?${query}` : '');
	}

	request(target) {
		const caller = this.pick(this.config.callers);
		const headers = {};
		let method = target.method.toUpperCase();
		const body = method === 'GET' ? undefined : this.body(target.operation, caller);

		if (this.chance(0.02))
			headers.Authorization = this.pick(['Bearer wrong', 'Basic eDp5', `Bearer ${caller.key}x`, 'Bearer']);
		else if (caller.key && this.chance(0.5))
			headers.Authorization = `Bearer ${caller.key}`;
		else if (caller.key)
			headers['X-API-Key'] = caller.key;
		if (body !== undefined) {
			headers['Content-Type'] = this.chance(0.03) ? this.pick(BROKEN_TYPES) : 'application/json';
			headers['Content-Length'] = Buffer.byteLength(body);
		}
		if (method === 'POST' && this.chance(0.15))
			headers['Idempotency-Key'] = this.chance(0.9) ? `k${this.whole(1, 40)}`
				: this.pick(['', 'a b', 'x'.repeat(300)]);
		if (method === 'GET' && this.chance(0.05))
			headers['If-None-Match'] = this.pick(['*', '"x"', 'W/"x", "y"', '"']);
		if (this.chance(0.05))
			headers['X-Request-ID'] = this.pick(['mine-1', 'x'.repeat(200), '<>']);
		if (this.chance(0.02))
			method = this.pick(['PUT', 'DELETE', 'OPTIONS', 'HEAD', 'PATCH', 'GET']);
		return { method, path: this.path(target, caller), headers, body, target };
	}

	send(request) {
		return new Promise((resolve) => {
			const asked = http.request(this.config.url + request.path,
				{ method: request.method, headers: request.headers, agent: this.agent, timeout: 40000 }, (answer) => {
					const parts = [];
					answer.on('data', (part) => parts.push(part));
					answer.on('end', () => resolve({ method: request.method, path: request.path,
						status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts) }));
					answer.on('error', (error) => resolve({ error }));
				});
			asked.on('timeout', () => asked.destroy(new Error('no answer within 40 s')));
			asked.on('error', (error) => resolve({ error }));
			asked.end(request.body);
		});
	}

	// Keeps what an answer names, to ask about it later.
	learn(value, within) {
		const keep = (list, name) => {
			if (list.length < 200) list.push(name);
			else list[this.whole(0, 199)] = name;
		};

		if (Array.isArray(value)) {
			value.slice(0, 5).forEach((item) => this.learn(item, within));
		} else if (value !== null && typeof value === 'object') {
			if (typeof value.agent_uuid === 'string') keep(this.known.agent, value.agent_uuid);
			if (value.feedback_index) keep(this.known.feedback, String(value.id));
			if (value.key_prefix && value.id && !this.own.has(value.id)) keep(this.known.key, value.id);
			if (value.request_hash) keep(this.known.hash, value.request_hash);
			if (value.tx_hash) keep(this.known.hash, value.tx_hash);
			if (value.next_cursor || value.next_after) keep(this.known.cursor, value.next_cursor || value.next_after);
			Object.values(value).forEach((member) => this.learn(member, within));
		}
	}

	tell(request, answer, fault) {
		const where = `${request.method} ${request.target.template}`;
		const key = `${where} ${answer?.status} ${fault.replace(/\d+/g, '')}`;

		this.report.faults++;
		if (this.told.has(key) || this.told.size >= 30)
			return;
		this.told.add(key);
		console.log(`${where}: ${fault}`);
		console.log(`    asked: ${request.method} ${request.path.slice(0, 600)}`);
		console.log(`    with: ${Object.keys(request.headers)} ${String(request.body ?? '').slice(0, 600)}`);
		if (answer)
			console.log(`    answer: ${answer.status} ${answer.body.toString('utf8', 0, 400)}`);
	}

	async ask(request) {
		const answer = await this.send(request);
		const name = `${request.target.method.toUpperCase()} ${request.target.template}`;
		const of = (this.report.operations[name] ||= { served: 0, refused: 0 });

		this.report.requests++;
		if (answer.error) {
			this.tell(request, undefined, `no answer: ${answer.error.message}`);
			return;
		}
		this.report.statuses[answer.status] = (this.report.statuses[answer.status] || 0) + 1;
		of[answer.status < 400 ? 'served' : 'refused']++;
		if (answer.status >= 500)
			this.tell(request, answer, `status ${answer.status}`);
		for (const fault of this.description.judge(answer))
			this.tell(request, answer, fault);
		if (answer.status < 300 && /json/.test(answer.headers['content-type'] || ''))
			try { this.learn(JSON.parse(answer.body.toString('utf8'))); } catch { /* judged already */ }
	}

	// Keys that the callers use are not to be revoked under them.
	async protect() {
		for (const caller of this.config.callers.filter((candidate) => candidate.key)) {
			const answer = await this.send({ method: 'GET', path: '/api/v1/me',
				headers: { Authorization: `Bearer ${caller.key}` } });
			this.own.add(JSON.parse(answer.body.toString('utf8')).key.id);
		}
	}

	async run() {
		const end = Date.now() + this.config.seconds * 1000;
		let left = this.config.requests;

		await this.protect();
		// Every operation in turn, so that none is left out.
		const client = async () => {
			while (left > 0 && Date.now() < end)
				await this.ask(this.request(this.operations[left-- % this.operations.length]));
		};
		await Promise.all(Array.from({ length: AT_ONCE }, client));
		this.agent.destroy();
		console.log(JSON.stringify(this.report));
		process.exitCode = this.report.faults > 0 ? 1 : 0;
	}
}

new Fuzzer(new Description(process.argv[2]), JSON.parse(fs.readFileSync(process.argv[3], 'utf8'))).run();
