// What the compiler left in out/.

import { existsSync, readFileSync } from "node:fs";
import { concatHex, encodeDeployData, keccak256, type Abi, type Hex } from "viem";
import { Problem } from "./problem.ts";

export const ROOT = new URL("../../", import.meta.url).pathname;

export interface Artifact {
  abi: Abi;
  bytecode: Hex;
  deployedBytecode: Hex;
}

/** Reads a contract's artifact; `file` when it is not in a file of its own name. */
export function artifact(contract: string, file = contract): Artifact {
  const path = `${ROOT}out/${file}.sol/${contract}.json`;
  if (!existsSync(path)) throw new Problem(`${contract} has not been compiled`, "Run: make build");
  const { abi, bytecode, deployedBytecode } = JSON.parse(readFileSync(path, "utf8"));
  return { abi, bytecode: bytecode.object, deployedBytecode: deployedBytecode.object };
}

/** Bytecode with its constructor's arguments. */
export function deployData(contract: string, args: readonly unknown[] = []): Hex {
  const { abi, bytecode } = artifact(contract);
  return encodeDeployData({ abi, bytecode, args: args as unknown[] });
}

/** One hash over the code of several contracts, to know it again. */
export function codeHash(contracts: readonly string[]): Hex {
  return keccak256(concatHex(contracts.map((contract) => artifact(contract).bytecode)));
}
