// Shows block explorers the source of deployed registries, so that people can read it there.

import { join } from "node:path";
import { parseArgs } from "node:util";
import { encodeAbiParameters, type Address, type Hex } from "viem";
import { codeHash, ROOT } from "./lib/artifacts.ts";
import { REGISTRIES, setupCall } from "./lib/deployment.ts";
import { readJournal, type Journal } from "./lib/journal.ts";
import { Problem, runScript } from "./lib/problem.ts";
import { sourceOf } from "./lib/source.ts";

const USAGE = `Shows a block explorer the source of the registries that a deployment left.

Usage: npm run verify-source -- --chain NAME [OPTIONS]

  --etherscan    to Etherscan, with ETHERSCAN_API_KEY set (default: to Sourcify, which needs no key)
  --api URL      where that interface is, for other explorers that have it
  --out DIR      where the deployment's file is (default: deployments)

Needs the code that was deployed, built: make build.`;

const POLL_MS = 3_000;
const POLLS = 40;

interface Target {
  address: Address;
  contract: string;
  constructorArguments: Hex;
}

async function main(): Promise<void> {
  const { values: options } = parseArgs({
    options: {
      chain: { type: "string" },
      etherscan: { type: "boolean" },
      api: { type: "string" },
      out: { type: "string" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (options.help) return console.log(USAGE);
  if (!options.chain) throw new Problem("which chain?", "Give --chain NAME, the name of its file in deployments/.");
  const path = join(options.out ?? `${ROOT}deployments`, `${options.chain}.json`);
  const journal = readJournal(path);
  if (!journal?.complete) throw new Problem(`${path} has no complete deployment`, "Deploy first, or restore the file.");
  if (journal.codeHash !== codeHash([...REGISTRIES, "RegistryProxy"])) {
    throw new Problem("this is not the code that was deployed", "Check that code out, and run: make build");
  }
  const show = options.etherscan
    ? showEtherscan(options.api ?? "https://api.etherscan.io/v2/api", journal.chainId)
    : showSourcify(options.api ?? "https://sourcify.dev/server", journal.chainId);
  for (const target of targets(journal)) {
    console.log(`${target.contract} ${target.address}: ${await show(target)}`);
  }
}

function targets(journal: Journal): Target[] {
  return REGISTRIES.flatMap((registry) => {
    const at = (step: string) => journal.steps[step]!.address!;
    const implementation = at(`${registry}.implementation`);
    const constructorArguments = encodeAbiParameters(
      [{ type: "address" }, { type: "bytes" }],
      [implementation, setupCall(registry, journal, at)],
    );
    return [
      { address: implementation, contract: registry, constructorArguments: "0x" as Hex },
      { address: at(registry), contract: "RegistryProxy", constructorArguments },
    ];
  });
}

/** Sourcify's interface, version 2. */
function showSourcify(api: string, chainId: number) {
  return async ({ address, contract }: Target): Promise<string> => {
    const { contract: contractIdentifier, compiler: compilerVersion, input: stdJsonInput } = sourceOf(contract);
    const begun = await request(`${api}/v2/verify/${chainId}/${address}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ stdJsonInput, compilerVersion, contractIdentifier }),
    });
    if (begun["customCode"] === "already_verified") return "known already";
    const id = begun["verificationId"];
    if (typeof id !== "string") throw refusal(contract, begun["message"]);
    return poll(async () => {
      const job = await request(`${api}/v2/verify/${id}`);
      if (!job["isJobCompleted"]) return undefined;
      if (job["error"]) throw refusal(contract, (job["error"] as { message?: string }).message);
      return (job["contract"] as { match?: string }).match ?? "verified";
    });
  };
}

/** Etherscan's interface, version 2. */
function showEtherscan(api: string, chainId: number) {
  const key = process.env["ETHERSCAN_API_KEY"];
  if (!key) throw new Problem("Etherscan wants a key", "Set ETHERSCAN_API_KEY.");
  const ask = (fields: Record<string, string>, method = "POST") => {
    const body = new URLSearchParams({ module: "contract", apikey: key, ...fields });
    return method === "POST"
      ? request(`${api}?chainid=${chainId}`, { method, body })
      : request(`${api}?chainid=${chainId}&${body}`);
  };
  return async ({ address, contract, constructorArguments }: Target): Promise<string> => {
    const { contract: contractname, compiler, input } = sourceOf(contract);
    const begun = await ask({
      action: "verifysourcecode",
      codeformat: "solidity-standard-json-input",
      sourceCode: JSON.stringify(input),
      contractaddress: address,
      contractname,
      compilerversion: `v${compiler}`,
      // The interface spells it so.
      constructorArguements: constructorArguments.slice(2),
    });
    if (/already verified/i.test(String(begun["result"]))) return "known already";
    if (begun["status"] !== "1") throw refusal(contract, begun["result"]);
    return poll(async () => {
      const job = await ask({ action: "checkverifystatus", guid: String(begun["result"]) }, "GET");
      const result = String(job["result"]);
      if (/pending|in queue/i.test(result)) return undefined;
      if (job["status"] !== "1") throw refusal(contract, result);
      return result;
    });
  };
}

const refusal = (contract: string, why: unknown) =>
  new Problem(`the explorer does not take ${contract}: ${String(why)}`, "Wait until it knows the block, and try again.");

async function request(url: string, init?: RequestInit): Promise<Record<string, unknown>> {
  const { host } = new URL(url);
  try {
    return (await (await fetch(url, init)).json()) as Record<string, unknown>;
  } catch (error) {
    throw new Problem(`no answer from ${host}: ${(error as Error).message}`, "Try again, or another --api.");
  }
}

async function poll(ask: () => Promise<string | undefined>): Promise<string> {
  for (let i = 0; i < POLLS; ++i) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  throw new Problem("the explorer does not come to an end", "Look there whether the source is shown; try again.");
}

await runScript("verify-source", main);
