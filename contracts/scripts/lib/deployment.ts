// Deploys the three registries behind proxies. What deploy-production, deploy-testnet and deploy-local share.

import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";
import { parseArgs } from "node:util";
import { encodeFunctionData, formatEther, getAddress, isAddress, type Address, type Hex } from "viem";
import { artifact, codeHash, deployData, ROOT } from "./artifacts.ts";
import { chainNamed, type Chain, type ChainKind } from "./chains.ts";
import { forkedNode, nodeAt, type Node } from "./node.ts";
import { readJournal, writeJournal, type Journal } from "./journal.ts";
import { Problem } from "./problem.ts";
import { printResult, resultOf } from "./result.ts";
import { openSigner, KEY_VARIABLE, type SignerOptions } from "./signer.ts";
import { Sender } from "./transactions.ts";

export const REGISTRIES = ["IdentityRegistry", "ReputationRegistry", "ValidationRegistry"] as const;
export type Registry = (typeof REGISTRIES)[number];

interface Plan {
  /** The step's name in the journal. */
  name: string;
  /** What to say while it runs. */
  title: string;
  /** Gas that it needs at most, for the balance to be looked at beforehand. A test measures it. */
  gas: bigint;
  /** The transaction, once the steps before it are done. */
  transaction(address: (step: string) => Address): { to?: Address; data: Hex };
}

export const GAS_AT_MOST: Record<string, bigint> = {
  "IdentityRegistry.implementation": 4_500_000n,
  "ReputationRegistry.implementation": 4_300_000n,
  "ValidationRegistry.implementation": 3_100_000n,
  proxy: 800_000n,
  handover: 110_000n,
};

const usage = (kind: ChainKind) => `Deploys the three ERC-8004 registries to a ${kind} chain.

Usage: npm run deploy-${kind} --${kind === "local" ? "" : " --chain NAME --admin ADDRESS SIGNER"} [OPTIONS]

  --chain NAME           the chain: ${kind === "production" ? "ethereum, base" : kind === "testnet" ? "sepolia, base-sepolia" : "local (the default)"}, or any name together with --chain-id
  --chain-id N           the number of a chain that has no name here
  --rpc-url URL          a node of it (default: RPC_URL${kind === "local" ? ", or http://127.0.0.1:8545" : ""})
  --admin ADDRESS        who becomes admin; has to accept: npm run govern -- accept-admin
  --pauser ADDRESS       who may pause (default: the admin)
  --upgrader ADDRESS     who may upgrade (default: the admin)
  --admin-delay SECONDS  how long each later hand-over of the admin's role has to wait (default: 0)

SIGNER is one of:
  --keystore FILE [--password-file FILE]   a keystore file; without the second, KEYSTORE_PASSWORD or a prompt
  --signer URL --from ADDRESS              an external signer, clef for example, which has Ledger and Trezor
  ${KEY_VARIABLE}                     a key in the environment

  --dry-run              deploy to a fork of the chain instead: needs --from ADDRESS, no key
  --confirmations N      blocks to wait for after each transaction (default: ${kind === "production" ? 2 : 1})
  --out DIR              where the deployment's file is (default: deployments)
  --again                deploy a second set, knowingly; the file of the first is kept under another name
  --yes                  do not ask

A deployment that stopped goes on where it was when it is run again.`;

const OPTIONS = {
  chain: { type: "string" },
  "chain-id": { type: "string" },
  "rpc-url": { type: "string" },
  admin: { type: "string" },
  pauser: { type: "string" },
  upgrader: { type: "string" },
  "admin-delay": { type: "string" },
  keystore: { type: "string" },
  "password-file": { type: "string" },
  signer: { type: "string" },
  from: { type: "string" },
  "dry-run": { type: "boolean" },
  confirmations: { type: "string" },
  out: { type: "string" },
  again: { type: "boolean" },
  yes: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

export async function deploy(kind: ChainKind, argv: string[]): Promise<void> {
  const options = readOptions(argv);
  if (options.help) return console.log(usage(kind));
  if (kind === "local") {
    options.chain ??= "local";
    options["rpc-url"] ??= process.env["RPC_URL"] || "http://127.0.0.1:8545";
    options.yes = true;
  }
  if (options.chain === undefined) throw new Problem("which chain?", "Give --chain NAME; --help lists the names.");
  const chain = chainNamed(options.chain, wholeNumber("chain-id", options["chain-id"]), kind);
  const rpcUrl = options["rpc-url"] ?? process.env["RPC_URL"];
  if (!rpcUrl) throw new Problem("which node?", "Give --rpc-url URL, or set RPC_URL.");

  const real = nodeAt(rpcUrl);
  await requireChainId(real, chain);
  if (options["dry-run"]) return dryRun(chain, options, real);
  if (kind === "local") await useUnlockedAccount(real, options);

  const signer = await openSigner(options as SignerOptions);
  const sender = new Sender(real, chain.chainId, signer.address, signer.sign);
  const path = join(options.out ?? `${ROOT}deployments`, `${chain.name}.json`);
  if (options.again && readJournal(path)?.complete) setAside(path);
  await dropIfChainIsGone(path, chain, real);
  console.error(`Chain ${chain.name} (${chain.chainId}), deployer ${signer.address} (${signer.description})`);
  await run(chain, options, sender, path, { ask: !options.yes });
}

function readOptions(argv: string[]) {
  try {
    return parseArgs({ args: argv, options: OPTIONS, strict: true }).values as {
      -readonly [name in keyof typeof OPTIONS]?: (typeof OPTIONS)[name]["type"] extends "boolean" ? boolean : string;
    };
  } catch (error) {
    if (argv.some((argument) => /^--?(private-?)?key\b|mnemonic|password(=|$)/i.test(argument))) {
      throw new Problem(
        "keys, mnemonics and passwords are not taken from the command line: every process here can read it",
        `Use --keystore, --signer or ${KEY_VARIABLE}. A key that was typed there should be thought of as known.`,
      );
    }
    throw new Problem((error as Error).message, "--help lists the options.");
  }
}

type Options = ReturnType<typeof readOptions>;

/** Deploys what is not deployed yet, and says what there is. */
async function run(
  chain: Chain,
  options: Options,
  sender: Sender,
  path: string,
  { ask = false, dry = false }: { ask?: boolean; dry?: boolean },
): Promise<void> {
  const journal = readJournal(path) ?? newJournal(chain, options, sender.address);
  requireSameDeployment(journal, chain, options, sender.address, path);
  const plans = plan(journal).filter(({ name }) => journal.steps[name]?.block === undefined);
  await requireNoOtherDeployment(sender, journal, path);
  const cost = await requireBalance(sender, plans);
  const done = Object.keys(journal.steps).length;
  console.error(
    `${done ? "Going on with a deployment" : "A new deployment"}${dry ? "" : `, kept in ${path}`}\n` +
      `Admin ${journal.admin}, pauser ${journal.pauser}, upgrader ${journal.upgrader}\n` +
      `${plans.length} transactions, at most ${formatEther(cost)} of the chain's coin at its present fees`,
  );
  if (ask) await confirm(chain);

  const address = (step: string) => {
    const found = journal.steps[step]?.address;
    if (!found) throw new Problem(`${path} has no address for ${step}`, "Restore the file from where it is kept.");
    return found;
  };
  const confirmations = wholeNumber("confirmations", options.confirmations) ?? (chain.kind === "production" ? 2 : 1);
  for (const { name, title, transaction } of plans) {
    const step = await sender.perform({
      ...transaction(address),
      earlier: journal.steps[name],
      confirmations,
      record: (sent) => {
        journal.steps[name] = sent;
        writeJournal(path, journal);
      },
    });
    console.error(`${title.padEnd(36)} ${step.address ?? ""} gas ${step.gasUsed}`);
  }

  journal.complete = true;
  journal.result = resultOf(chain, journal, sender.node.url);
  writeJournal(path, journal);
  writeFileSync(path.replace(/\.json$/, ".conf"), journal.result.aregConf);
  printResult(journal, dry ? undefined : path);
}

function newJournal(chain: Chain, options: Options, deployer: Address): Journal {
  const admin = address("admin", options.admin) ?? (chain.kind === "local" ? deployer : undefined);
  if (!admin) throw new Problem("who becomes admin?", "Give --admin ADDRESS, a multi-signature wallet if you can.");
  return {
    format: 1,
    chain: chain.name,
    chainId: chain.chainId,
    codeHash: currentCodeHash(),
    deployer,
    admin,
    adminDelay: wholeNumber("admin-delay", options["admin-delay"]) ?? 0,
    pauser: address("pauser", options.pauser) ?? admin,
    upgrader: address("upgrader", options.upgrader) ?? admin,
    steps: {},
    complete: false,
    ...(options.again ? { again: true as const } : {}),
  };
}

const currentCodeHash = () => codeHash([...REGISTRIES, "RegistryProxy"]);

/** A deployment goes on as it began, or not at all. */
function requireSameDeployment(journal: Journal, chain: Chain, options: Options, deployer: Address, path: string) {
  if (journal.complete) {
    throw new Problem(
      `the registries are deployed on ${journal.chain} already, identity at ${journal.steps["IdentityRegistry"]?.address}`,
      `${path} says so. For a second set of registries, knowingly: --again`,
    );
  }
  const differences = [
    ["chain id", journal.chainId, chain.chainId],
    ["deployer", journal.deployer, deployer],
    ["admin", journal.admin, address("admin", options.admin)],
    ["pauser", journal.pauser, address("pauser", options.pauser)],
    ["upgrader", journal.upgrader, address("upgrader", options.upgrader)],
    ["admin delay", journal.adminDelay, wholeNumber("admin-delay", options["admin-delay"])],
    ["code", journal.codeHash, currentCodeHash()],
  ].filter(([, before, now]) => now !== undefined && before !== now);
  if (differences.length) {
    const told = differences.map(([what, before, now]) => `${what} was ${before}, now ${now}`).join("; ");
    throw new Problem(
      `the deployment in ${path} began otherwise: ${told}`,
      `Go on as it began (check out the same code if that is what changed), or move ${path} away and use --again.`,
    );
  }
}

/** Looks for proxies that this account deployed and the journal does not know: the file was lost, or is elsewhere. */
async function requireNoOtherDeployment(sender: Sender, journal: Journal, path: string): Promise<void> {
  const known = Object.values(journal.steps).map((step) => step.nonce);
  const found = journal.again ? undefined : await sender.findDeployed(known);
  if (found) {
    throw new Problem(
      `${sender.address} has deployed a registry on ${journal.chain} before, at ${found}, of which ${path} knows nothing`,
      "Restore that file from where it is kept, or deploy from another account.",
    );
  }
}

async function requireBalance(sender: Sender, plans: Plan[]): Promise<bigint> {
  const cost = plans.reduce((sum, { gas }) => sum + gas, 0n) * (await sender.feePerGas());
  const balance = await sender.node.client.getBalance({ address: sender.address });
  if (balance < cost) {
    throw new Problem(
      `${sender.address} has ${formatEther(balance)}, and the deployment may take ${formatEther(cost)}`,
      `Send it at least ${formatEther(cost - balance)} more.`,
    );
  }
  return cost;
}

/** The call that sets a new proxy up. */
export function setupCall(registry: Registry, journal: Journal, address: (step: string) => Address): Hex {
  // The deployer is the first admin, so that the real one takes over by accepting: a mistyped address gets nothing.
  const roles = [journal.deployer, journal.adminDelay, journal.pauser, journal.upgrader];
  const args = registry === "IdentityRegistry" ? roles : [address("IdentityRegistry"), ...roles];
  return encodeFunctionData({ abi: artifact(registry).abi, functionName: "initialize", args });
}

/** The transactions of a deployment, in order. */
function plan(journal: Journal): Plan[] {
  const plans: Plan[] = REGISTRIES.flatMap((registry) => [
    {
      name: `${registry}.implementation`,
      title: `${registry}, implementation`,
      gas: GAS_AT_MOST[`${registry}.implementation`]!,
      transaction: () => ({ data: deployData(registry) }),
    },
    {
      name: registry,
      title: registry,
      gas: GAS_AT_MOST["proxy"]!,
      transaction: (address) => {
        const setup = setupCall(registry, journal, address);
        return { data: deployData("RegistryProxy", [address(`${registry}.implementation`), setup]) };
      },
    },
  ]);
  if (journal.admin === journal.deployer) return plans;
  for (const registry of REGISTRIES) {
    plans.push({
      name: `${registry}.handover`,
      title: `${registry}, hand-over offered`,
      gas: GAS_AT_MOST["handover"]!,
      transaction: (address) => ({
        to: address(registry),
        data: encodeFunctionData({
          abi: artifact(registry).abi,
          functionName: "beginDefaultAdminTransfer",
          args: [journal.admin],
        }),
      }),
    });
  }
  return plans;
}

/** The same on a fork of the chain, where everything is real but the consequences. */
async function dryRun(chain: Chain, options: Options, real: Node): Promise<void> {
  const from = address("from", options.from);
  if (!from) throw new Problem("a dry run needs to know who would deploy", "Give --from ADDRESS; no key is needed.");
  const fork = await forkedNode(real.url);
  const folder = mkdtempSync(join(tmpdir(), "areg-dry-run-"));
  try {
    await fork.client.request({ method: "anvil_impersonateAccount" as never, params: [from] as never });
    const path = join(folder, `${chain.name}.json`);
    const journal = readJournal(join(options.out ?? `${ROOT}deployments`, `${chain.name}.json`));
    if (journal && !options.again) writeJournal(path, journal);
    console.error(`Dry run on a fork of ${chain.name}: nothing is sent to the chain, and nothing is kept`);
    await run(chain, { ...options, confirmations: "1" }, new Sender(fork, chain.chainId, from), path, { dry: true });
  } finally {
    fork.stop();
    rmSync(folder, { recursive: true });
  }
}

/** A local chain forgets: a deployment on the one before is not one on this one. */
async function dropIfChainIsGone(path: string, chain: Chain, node: Node): Promise<void> {
  if (chain.kind !== "local") return;
  const first = readJournal(path)?.steps["IdentityRegistry.implementation"]?.address;
  if (first && !(await node.client.getCode({ address: first }))) setAside(path);
}

/** On a local chain the node signs, with the first of the accounts that it has unlocked. */
async function useUnlockedAccount(node: Node, options: Options): Promise<void> {
  if (options.keystore !== undefined || options.signer !== undefined || process.env[KEY_VARIABLE]) return;
  const accounts: readonly Address[] = await node.client.request({ method: "eth_accounts" as never } as never);
  const account = accounts[0];
  if (!account) throw new Problem("the local node has no unlocked account", "Start one: make node");
  options.signer = node.url;
  options.from ??= account;
}

async function requireChainId(node: Node, chain: Chain): Promise<void> {
  const chainId = await node.client.getChainId();
  if (chainId !== chain.chainId) {
    throw new Problem(
      `the node is on chain ${chainId}, and ${chain.name} is chain ${chain.chainId}`,
      "Give the --rpc-url of a node of that chain, or the --chain that you mean.",
    );
  }
}

async function confirm(chain: Chain): Promise<void> {
  if (!process.stdin.isTTY) throw new Problem("there is no terminal to ask at", "Give --yes when you are sure.");
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await terminal.question(`Type the name of the chain to deploy: `);
  terminal.close();
  if (answer.trim() !== chain.name) throw new Problem("not deployed", `The name is ${chain.name}.`);
}

function setAside(path: string): void {
  if (!existsSync(path)) return;
  const folder = `${path.replace(/\.json$/, "")}-earlier`;
  mkdirSync(folder, { recursive: true });
  renameSync(path, join(folder, `${new Date().toISOString().replaceAll(":", "-")}.json`));
}

function address(option: string, value: string | undefined): Address | undefined {
  if (value === undefined) return undefined;
  // Mixed case must carry a valid checksum; all lower case carries none.
  if (!isAddress(value) || /^0x0{40}$/.test(value)) {
    throw new Problem(`--${option} ${value} is not an address`, "0x and 40 hex digits; check the letters' case.");
  }
  return getAddress(value);
}

function wholeNumber(option: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (!/^\d+$/.test(value) || !Number.isSafeInteger(number)) {
    throw new Problem(`--${option} ${value} is not a whole number`, "Give digits only.");
  }
  return number;
}
