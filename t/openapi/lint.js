// SPDX-License-Identifier: Apache-2.0
// Usage: node lint.js openapi.json. Holds it to the OpenAPI standard by the rules that Redocly
// recommends; prints what breaks them, and fails when anything of it is an error.
'use strict';

const { createConfig, lint } = require('@redocly/openapi-core');

async function main(file) {
	const config = await createConfig({ extends: ['recommended'] });
	const problems = await lint({ ref: file, config });

	for (const problem of problems) {
		const place = problem.location[0];
		console.log(`${problem.severity}: ${problem.ruleId}: ${problem.message} (${place.pointer || ''})`);
	}
	process.exitCode = problems.some((problem) => problem.severity === 'error') ? 1 : 0;
}

main(process.argv[2]);
