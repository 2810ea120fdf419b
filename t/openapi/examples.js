// SPDX-License-Identifier: Apache-2.0
// Usage: node examples.js openapi.json. Holds every example in it to the schema beside it; prints
// those that do not fit, then the number of examples; fails when any does not.
'use strict';

const { Description } = require('./description');

const description = new Description(process.argv[2]);
let count = 0, wrong = 0;

function hold(pointer, example) {
	count++;
	for (const fault of description.faults(pointer, example)) {
		wrong++;
		console.log(`${decodeURIComponent(pointer)}: ${fault}`);
	}
}

// A schema has `examples`; a media type or parameter has an `example` beside its `schema`. What
// stands within an example is no description.
function walk(value, pointer) {
	if (value === null || typeof value !== 'object')
		return;
	if (value.example !== undefined && value.schema)
		hold(`${pointer}/schema`, value.example);
	if (Array.isArray(value.examples))
		value.examples.forEach((example) => hold(pointer, example));
	for (const key of Object.keys(value))
		if (key !== 'example' && key !== 'examples')
			walk(value[key], `${pointer}/${encodeURIComponent(key.replace(/~/g, '~0').replace(/\//g, '~1'))}`);
}

walk(description.document, '');
console.log(count);
process.exitCode = wrong > 0 ? 1 : 0;
