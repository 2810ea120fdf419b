// SPDX-License-Identifier: Apache-2.0
// Usage: node check.js openapi.json EXCHANGES. Holds recorded answers to the description: each is a
// line of JSON {method, path, status, headers, length} and as many bytes of body. Prints what is
// wrong, once for each operation and fault, then the number of answers; fails when anything is.
'use strict';

const fs = require('fs');
const { Description } = require('./description');

function* exchanges(bytes) {
	for (let at = 0; at < bytes.length;) {
		const end = bytes.indexOf(10, at);
		const head = JSON.parse(bytes.toString('utf8', at, end));

		at = end + 1 + head.length;
		yield { ...head, body: bytes.subarray(end + 1, at) };
	}
}

function main(file, recorded) {
	const description = new Description(file);
	const told = new Set();
	let count = 0;

	for (const exchange of exchanges(fs.readFileSync(recorded))) {
		count++;
		for (const fault of description.judge(exchange)) {
			const where = `${exchange.method} ${description.match(exchange.path) || exchange.path}`;
			const key = `${where} ${exchange.status} ${fault.replace(/\d+/g, '')}`;

			if (told.has(key))
				continue;
			told.add(key);
			console.log(`${where} -> ${exchange.status}: ${fault}`);
			console.log(`    as in ${exchange.path.slice(0, 200)}: ${exchange.body.toString('utf8', 0, 300)}`);
		}
	}
	console.log(count);
	process.exitCode = told.size > 0 ? 1 : 0;
}

main(process.argv[2], process.argv[3]);
