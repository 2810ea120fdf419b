// Runs everything that `make check` checks, one stage after the other, and counts. The last line says
// "N passed, N failed"; the exit code is 0 when nothing failed.
//
// A stage whose program counts tests counts as those; any other stage counts as one.

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { ROOT } from "../scripts/lib/artifacts.ts";

const COVERAGE_AT_LEAST = 98;
const LOGS = `${ROOT}coverage/`;

interface Count {
  passed: number;
  failed: number;
  /** A line or more for the reader. */
  note?: string;
}

interface Stage {
  name: string;
  command: [string, ...string[]];
  environment?: Record<string, string>;
  count?: (output: string) => Count;
}

const node = [process.execPath, "--disable-warning=ExperimentalWarning"] as const;
const byExitCode = (code: number | null): Count => (code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 });

function countForge(output: string): Count {
  const [, passed, failed] = /(\d+) tests passed, (\d+) failed/.exec(output) ?? [];
  if (passed === undefined) return { passed: 0, failed: 1 };
  return { passed: Number(passed), failed: Number(failed) };
}

function countNode(output: string): Count {
  const number = (what: string) => Number(new RegExp(`^. ${what} (\\d+)$`, "m").exec(output)?.[1] ?? NaN);
  const [passed, failed, cancelled] = [number("pass"), number("fail"), number("cancelled")];
  if (Number.isNaN(passed + failed + cancelled)) return { passed: 0, failed: 1 };
  const gas = /^Gas, from[^]*?(?=^ *✔)/m.exec(output)?.[0].trimEnd();
  return { passed, failed: failed + cancelled, ...(gas ? { note: gas } : {}) };
}

/** Lines and branches of src/, from forge's LCOV file. Each of our files has to reach the bound, for both. */
function countCoverage(output: string): Count {
  if (!/ 0 failed/.test(output)) return { passed: 0, failed: 1 };
  const files = readFileSync(`${LOGS}lcov.info`, "utf8").split("end_of_record");
  const rows = files.flatMap((record) => {
    const path = /^SF:(src\/.*)$/m.exec(record)?.[1];
    if (!path) return [];
    const number = (key: string) => Number(new RegExp(`^${key}:(\\d+)$`, "m").exec(record)?.[1] ?? 0);
    return [{ path, lines: [number("LH"), number("LF")], branches: [number("BRH"), number("BRF")] }];
  });
  const enough = ([hit = 0, found = 0]: number[]) => hit * 100 >= found * COVERAGE_AT_LEAST;
  const failed = rows.filter(({ lines, branches }) => !enough(lines) || !enough(branches)).length;
  const expected = readdirSync(`${ROOT}src`).filter((name) => /^(?!RegistryProxy).*\.sol$/.test(name)).length;
  const missing = Math.max(0, expected - rows.length);
  const table = rows.map(
    ({ path, lines, branches }) => `  ${path.padEnd(28)} lines ${lines.join("/")}, branches ${branches.join("/")}`,
  );
  return {
    passed: rows.length - failed,
    failed: failed + missing,
    note: [`Coverage (at least ${COVERAGE_AT_LEAST} % of lines and branches in each file):`, ...table].join("\n"),
  };
}

const STAGES: Stage[] = [
  { name: "types of the scripts", command: ["tsc", "-p", "."] },
  { name: "solhint", command: ["solhint", "--disc", "--noPoster", "--max-warnings", "0", "src/**/*.sol"] },
  { name: "forge lint", command: ["forge", "lint", "src"] },
  { name: "Solidity tests", command: ["forge", "test"], count: countForge },
  {
    name: "coverage",
    command: ["forge", "coverage", "--report", "lcov", "--report-file", "coverage/lcov.info"],
    // What is covered does not depend on how often: the stage before has the full number of runs.
    environment: { FOUNDRY_FUZZ_RUNS: "32", FOUNDRY_INVARIANT_RUNS: "4" },
    count: countCoverage,
  },
  {
    name: "scripted tests",
    command: [...node, "--test", "--test-reporter=spec", "test/*.test.ts"] as Stage["command"],
    count: countNode,
  },
];

const total = { passed: 0, failed: 0 };
mkdirSync(LOGS, { recursive: true });
for (const { name, command, environment, count } of STAGES) {
  const began = performance.now();
  const [program, ...args] = command;
  const ran = spawnSync(program, args, {
    cwd: ROOT,
    encoding: "utf8",
    maxBuffer: 1 << 28,
    env: { ...process.env, ...environment },
  });
  const output = `${ran.stdout ?? ""}${ran.stderr ?? ""}${ran.error ? `${ran.error.message}\n` : ""}`;
  writeFileSync(`${LOGS}${name.replaceAll(" ", "-")}.log`, output);
  const counted = count?.(output) ?? byExitCode(ran.status);
  // A program that ends badly has failed, whatever it counted.
  if (ran.status !== 0 && counted.failed === 0) counted.failed = 1;
  total.passed += counted.passed;
  total.failed += counted.failed;
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  console.log(`${counted.failed ? "FAIL" : "ok  "}  ${name}: ${counted.passed} passed, ${counted.failed} failed (${seconds} s)`);
  if (counted.note) console.log(counted.note);
  if (counted.failed) console.log(output);
}
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed ? 1 : 0;
