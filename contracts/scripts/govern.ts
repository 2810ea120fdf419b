// Looks after deployed registries: status, pause, admin, upgrade.

import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  decodeFunctionResult,
  encodeFunctionData,
  getAddress,
  isAddress,
  keccak256,
  toHex,
  type Address,
  type Hex,
} from "viem";
import { artifact, deployData, ROOT } from "./lib/artifacts.ts";
import { REGISTRIES, type Registry } from "./lib/deployment.ts";
import { readJournal, type Journal } from "./lib/journal.ts";
import { requireCompatibleLayout } from "./lib/layout.ts";
import { nodeAt, type Node } from "./lib/node.ts";
import { Problem, runScript } from "./lib/problem.ts";
import { KEY_VARIABLE, openSigner, type SignerOptions } from "./lib/signer.ts";
import { Sender } from "./lib/transactions.ts";

const USAGE = `Looks after the registries that a deployment left.

Usage: npm run govern -- COMMAND --chain NAME [SIGNER] [OPTIONS]

  status                  version, pause, admin and role holders of each registry
  pause, unpause          stop and resume writes; for a pauser
  offer-admin ADDRESS     name a new admin, who then has to accept; for the admin
  accept-admin            accept; for the new admin
  cancel-admin            take the offer back; for the admin
  grant ROLE ADDRESS      give PAUSER_ROLE or UPGRADER_ROLE to somebody; for the admin
  revoke ROLE ADDRESS     take it away; for the admin
  upgrade [ADDRESS]       replace the code by the implementation at ADDRESS, or by this checkout's, which is
                          deployed for it after a look at the storage layout; for an upgrader

  --registry NAME         only this one of identity, reputation, validation
  --call DATA             a call that an upgrade makes at once, to set up what is new in it
  --print                 send nothing: print addresses and data, for a multi-signature wallet or a timelock
  --rpc-url URL           a node of the chain (default: RPC_URL)
  --out DIR               where the deployment's file is (default: deployments)

SIGNER is --keystore FILE [--password-file FILE], or --signer URL --from ADDRESS, or ${KEY_VARIABLE}.`;

const { values: options, positionals } = (() => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        chain: { type: "string" },
        registry: { type: "string" },
        call: { type: "string" },
        print: { type: "boolean" },
        "rpc-url": { type: "string" },
        out: { type: "string" },
        keystore: { type: "string" },
        "password-file": { type: "string" },
        signer: { type: "string" },
        from: { type: "string" },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    console.error(`govern: ${(error as Error).message}\n--help lists the options.`);
    process.exit(1);
  }
})();

interface Call {
  functionName: string;
  args: unknown[];
}

async function main(): Promise<void> {
  const [command, ...args] = positionals;
  if (options.help || command === undefined) return console.log(USAGE);
  if (!options.chain) throw new Problem("which chain?", "Give --chain NAME, the name of its file in deployments/.");
  const path = join(options.out ?? `${ROOT}deployments`, `${options.chain}.json`);
  const journal = readJournal(path);
  if (!journal) throw new Problem(`there is no ${path}`, "Deploy first, or restore the file.");
  const rpcUrl = options["rpc-url"] ?? process.env["RPC_URL"];
  if (!rpcUrl) throw new Problem("which node?", "Give --rpc-url URL, or set RPC_URL.");
  const node = nodeAt(rpcUrl);
  const chainId = await node.client.getChainId();
  if (chainId !== journal.chainId) {
    throw new Problem(`the node is on chain ${chainId}, the deployment on ${journal.chainId}`, "Give the right --rpc-url.");
  }
  const registries = chosen();
  if (command === "status") return status(node, journal, registries);
  if (command === "upgrade") return upgrade(node, journal, registries, args[0]);
  await send(node, journal, registries, callFor(command, args));
}

function callFor(command: string, args: string[]): Call {
  switch (command) {
    case "pause":
    case "unpause":
      return { functionName: command, args: [] };
    case "offer-admin":
      return { functionName: "beginDefaultAdminTransfer", args: [address(args[0])] };
    case "accept-admin":
      return { functionName: "acceptDefaultAdminTransfer", args: [] };
    case "cancel-admin":
      return { functionName: "cancelDefaultAdminTransfer", args: [] };
    case "grant":
      return { functionName: "grantRole", args: [role(args[0]), address(args[1])] };
    case "revoke":
      return { functionName: "revokeRole", args: [role(args[0]), address(args[1])] };
    default:
      throw new Problem(`no command ${command}`, "--help lists the commands.");
  }
}

async function status(node: Node, journal: Journal, registries: Registry[]): Promise<void> {
  for (const registry of registries) {
    const read = reader(node, journal, registry);
    const [pending] = (await read("pendingDefaultAdmin")) as [Address, number];
    const holders = async (name: string) =>
      ((await read("getRoleMembers", [role(name)])) as Address[]).join(", ") || "nobody";
    console.log(`${registry} ${journal.steps[registry]!.address}
  version   ${await read("getVersion")}
  paused    ${(await read("paused")) ? "yes" : "no"}
  admin     ${await read("defaultAdmin")}${BigInt(pending) ? `, offered to ${pending}` : ""}
  pausers   ${await holders("PAUSER_ROLE")}
  upgraders ${await holders("UPGRADER_ROLE")}`);
  }
}

async function upgrade(node: Node, journal: Journal, registries: Registry[], to: string | undefined): Promise<void> {
  if (to !== undefined) {
    if (registries.length > 1) throw new Problem("which registry gets this code?", "Give --registry NAME.");
    await send(node, journal, registries, upgradeCall(address(to)));
    return;
  }
  requireCompatibleLayout(registries);
  const sender = await openSender(node, journal);
  for (const registry of registries) {
    const { address: implementation } = await sender.perform(order({ data: deployData(registry) }));
    console.error(`${registry}, new implementation ${implementation}`);
    await send(node, journal, [registry], upgradeCall(implementation!), sender);
  }
}

const upgradeCall = (implementation: Address): Call => ({
  functionName: "upgradeToAndCall",
  args: [implementation, (options.call ?? "0x") as Hex],
});

/** Makes a call on each registry, or prints it. */
async function send(
  node: Node,
  journal: Journal,
  registries: Registry[],
  call: Call,
  sender?: Sender,
): Promise<void> {
  for (const registry of registries) {
    const to = journal.steps[registry]!.address!;
    const data = encodeFunctionData({ abi: artifact(registry).abi, ...call });
    if (options.print) {
      console.log(`to ${to}\ndata ${data}`);
      continue;
    }
    sender ??= await openSender(node, journal);
    const { hash } = await sender.perform(order({ to, data }));
    console.log(`${registry}: ${call.functionName} done, transaction ${hash}`);
  }
}

/** These calls are not kept in a file: each can be looked up with `status`, and made again. */
const order = (transaction: { to?: Address; data: Hex }) => ({ ...transaction, confirmations: 1, record: () => {} });

async function openSender(node: Node, journal: Journal): Promise<Sender> {
  const signer = await openSigner(options as SignerOptions);
  return new Sender(node, journal.chainId, signer.address, signer.sign);
}

function reader(node: Node, journal: Journal, registry: Registry) {
  const { abi } = artifact(registry);
  return async (functionName: string, args: unknown[] = []): Promise<unknown> => {
    const { data } = await node.client.call({
      to: journal.steps[registry]!.address!,
      data: encodeFunctionData({ abi, functionName, args }),
    });
    return decodeFunctionResult({ abi, functionName, data: data ?? "0x" });
  };
}

function chosen(): Registry[] {
  if (options.registry === undefined) return [...REGISTRIES];
  const found = REGISTRIES.find((registry) => registry.toLowerCase() === `${options.registry}registry`);
  if (!found) throw new Problem(`no registry ${options.registry}`, "It is identity, reputation or validation.");
  return [found];
}

function role(name: string | undefined): Hex {
  if (name !== "PAUSER_ROLE" && name !== "UPGRADER_ROLE") {
    throw new Problem(`no role ${name ?? ""} to grant or revoke`, "It is PAUSER_ROLE or UPGRADER_ROLE.");
  }
  return keccak256(toHex(name));
}

function address(value: string | undefined): Address {
  if (value === undefined || !isAddress(value)) {
    throw new Problem(`${value ?? "nothing"} is not an address`, "0x and 40 hex digits; check the letters' case.");
  }
  return getAddress(value);
}

await runScript("govern", main);
