// The source of what is deployed, in the form that block explorers compile it from: standard JSON.

import { readFileSync } from "node:fs";
import { keccak256, toBytes } from "viem";
import { ROOT } from "./artifacts.ts";
import { Problem } from "./problem.ts";

interface Metadata {
  compiler: { version: string };
  language: string;
  settings: { compilationTarget: Record<string, string> } & Record<string, unknown>;
  sources: Record<string, { keccak256: string }>;
}

export interface Source {
  /** "src/IdentityRegistry.sol:IdentityRegistry" */
  contract: string;
  /** "0.8.36+commit.…" */
  compiler: string;
  input: { language: string; sources: Record<string, { content: string }>; settings: Record<string, unknown> };
}

/** Everything that a contract was compiled from, by the compiler's own account of it. */
export function sourceOf(contract: string): Source {
  const { metadata } = JSON.parse(readFileSync(`${ROOT}out/${contract}.sol/${contract}.json`, "utf8")) as {
    metadata: Metadata;
  };
  const sources = Object.entries(metadata.sources).map(([path, { keccak256: hash }]) => {
    const content = readFileSync(`${ROOT}${path}`, "utf8");
    if (keccak256(toBytes(content)) !== hash) {
      throw new Problem(`${path} is not what was compiled`, "Check out the code that was deployed, and run: make build");
    }
    return [path, { content }] as const;
  });
  const { compilationTarget, ...settings } = metadata.settings;
  const [path] = Object.keys(compilationTarget);
  return {
    contract: `${path}:${contract}`,
    compiler: metadata.compiler.version,
    input: { language: metadata.language, sources: Object.fromEntries(sources), settings },
  };
}
