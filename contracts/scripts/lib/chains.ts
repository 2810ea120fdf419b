// Chains that have a name here. A chain is configuration: any other one is named by --chain NAME --chain-id N.

import { Problem } from "./problem.ts";

export type ChainKind = "production" | "testnet" | "local";

export interface Chain {
  name: string;
  chainId: number;
  kind: ChainKind;
  aliases: string[];
}

const KNOWN: Chain[] = [
  { name: "ethereum", chainId: 1, kind: "production", aliases: [] },
  { name: "base", chainId: 8453, kind: "production", aliases: [] },
  { name: "sepolia", chainId: 11155111, kind: "testnet", aliases: [] },
  { name: "base-sepolia", chainId: 84532, kind: "testnet", aliases: ["baseSepolia"] },
  { name: "local", chainId: 31337, kind: "local", aliases: [] },
];

/** The chain of a name, or a Problem: one script deploys to one kind of chain. */
export function chainNamed(name: string, chainId: number | undefined, kind: ChainKind): Chain {
  const known = KNOWN.find((chain) => chain.name === name || chain.aliases.includes(name));
  if (known) {
    if (chainId !== undefined && chainId !== known.chainId) {
      throw new Problem(
        `${name} has chain id ${known.chainId}, not ${chainId}`,
        "Leave --chain-id out, or give the chain another name.",
      );
    }
    if (known.kind !== kind) {
      throw new Problem(`${name} is not a ${kind} chain`, `Run: npm run deploy-${known.kind}`);
    }
    return known;
  }
  if (!/^[a-z0-9-]{1,32}$/.test(name) || name === "eip155") {
    throw new Problem(`not a chain name: ${name}`, "A name is 1 to 32 lower-case letters, digits and hyphens.");
  }
  if (chainId === undefined) {
    throw new Problem(`chain ${name} is not known here`, "Say which number it has: --chain-id N");
  }
  const namesake = KNOWN.find((chain) => chain.chainId === chainId);
  if (namesake) {
    throw new Problem(`chain id ${chainId} is ${namesake.name}`, `Say --chain ${namesake.name}`);
  }
  return { name, chainId, kind, aliases: [] };
}
