// What a deployment has done so far: deployments/CHAIN.json. Written before each transaction is sent and after it is
// mined, so that a deployment which stops anywhere goes on from there, and none is made twice.

import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import type { Address, Hex } from "viem";
import { Problem } from "./problem.ts";
import type { Result } from "./result.ts";

export interface Step {
  /** Known before the transaction is sent. */
  hash: Hex;
  nonce: number;
  /** Known when it is mined. */
  block?: number;
  gasUsed?: string;
  address?: Address;
}

export interface Journal {
  format: 1;
  chain: string;
  chainId: number;
  /** keccak-256 over the bytecode of all contracts. */
  codeHash: Hex;
  deployer: Address;
  admin: Address;
  adminDelay: number;
  pauser: Address;
  upgrader: Address;
  steps: Record<string, Step>;
  complete: boolean;
  /** A second deployment by the same account, asked for with --again. */
  again?: true;
  /** What came of it, when it is complete. */
  result?: Result;
}

export function readJournal(path: string): Journal | undefined {
  if (!existsSync(path)) return undefined;
  try {
    const journal = JSON.parse(readFileSync(path, "utf8")) as Journal;
    if (journal.format !== 1) throw new Error(`format ${journal.format} is not known`);
    return journal;
  } catch (error) {
    throw new Problem(
      `${path} is not a deployment's file: ${(error as Error).message}`,
      "It tells what is deployed already: restore it from where it is kept.",
    );
  }
}

/** Replaces the file in one stroke: after a crash it is the old one or the new one. */
export function writeJournal(path: string, journal: Journal): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileDurably(`${path}.new`, `${JSON.stringify(journal, null, 2)}\n`);
  renameSync(`${path}.new`, path);
}

function writeFileDurably(path: string, text: string): void {
  const file = openSync(path, "w");
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
