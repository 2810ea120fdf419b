// What a deployment is good for: addresses, the section for areg.conf, variables, and how to show the source.

import type { Address } from "viem";
import type { Chain } from "./chains.ts";
import type { Journal } from "./journal.ts";

export interface Result {
  contracts: Record<string, Address>;
  implementations: Record<string, Address>;
  firstBlock: number;
  gasUsed: string;
  environment: Record<string, string>;
  aregConf: string;
  verify: string[];
}

export function resultOf(chain: Chain, journal: Journal, rpcUrl: string): Result {
  const at = (step: string) => journal.steps[step]!.address!;
  const contracts = {
    identity_registry: at("IdentityRegistry"),
    reputation_registry: at("ReputationRegistry"),
    validation_registry: at("ValidationRegistry"),
  };
  const firstBlock = journal.steps["IdentityRegistry"]!.block!;
  const settings: Record<string, string> = {
    ...(chain.aliases.length ? { aliases: chain.aliases.join(" ") } : {}),
    chain_id: String(chain.chainId),
    ...contracts,
    first_block: String(firstBlock),
    ...(mayHoldKey(rpcUrl) ? {} : { rpc_url: rpcUrl }),
  };
  const prefix = `AREG_CHAIN_${chain.name.toUpperCase().replaceAll("-", "_")}_`;
  return {
    contracts,
    implementations: {
      identity_registry: at("IdentityRegistry.implementation"),
      reputation_registry: at("ReputationRegistry.implementation"),
      validation_registry: at("ValidationRegistry.implementation"),
    },
    firstBlock,
    gasUsed: Object.values(journal.steps)
      .reduce((sum, step) => sum + BigInt(step.gasUsed!), 0n)
      .toString(),
    environment: Object.fromEntries(Object.entries(settings).map(([key, value]) => [prefix + key.toUpperCase(), value])),
    aregConf: [
      `[chain ${chain.name}]`,
      ...Object.entries(settings).map(([key, value]) => `${key} = ${value}`),
      mayHoldKey(rpcUrl)
        ? "# rpc_url is left out: the node's address that was given may hold a key."
        : "# areg reads no chain yet, and refuses rpc_url: take it out of what aregd reads.",
      "",
    ].join("\n"),
    verify: [
      `npm run verify-source -- --chain ${chain.name}`,
      `ETHERSCAN_API_KEY=… npm run verify-source -- --chain ${chain.name} --etherscan`,
    ],
  };
}

/** A node's address with more than a host and a port may hold a key, and this is printed and kept. */
function mayHoldKey(url: string): boolean {
  const { username, password, pathname, search, hash } = new URL(url);
  return Boolean(username || password || search || hash || pathname !== "/");
}

/** Prints it all. Without a path it was a dry run. */
export function printResult(journal: Journal, path: string | undefined): void {
  const { environment, aregConf, verify, gasUsed } = journal.result!;
  const handover =
    journal.admin === journal.deployer
      ? `The deployer, ${journal.admin}, is the admin.`
      : `${journal.admin} becomes the admin when it accepts:\n    npm run govern -- accept-admin --chain ${journal.chain}`;
  const headline = path
    ? `Deployed. Gas used: ${gasUsed}. All of this is in ${path}: keep it.`
    : `Dry run. Gas that it would use: ${gasUsed}. What it would print:`;
  console.log(`
${headline}

For areg.conf:

${aregConf}
Or in the environment:

${Object.entries(environment)
  .map(([name, value]) => `${name}='${value}'`)
  .join("\n")}

Next:
1. ${handover}
2. Show block explorers the source:
${verify.map((command) => `    ${command}`).join("\n")}
3. Check all of it, with that section in areg.conf: scripts/verify-contracts ${journal.chain}`);
}
