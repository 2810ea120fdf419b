// A chain of our own for each test file, people with money on it, and the scripts as a person would run them.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import {
  createWalletClient,
  encodeFunctionData,
  decodeFunctionResult,
  http,
  parseEther,
  toHex,
  type Abi,
  type Address,
  type Hex,
  type TransactionReceipt,
} from "viem";
import { generatePrivateKey, privateKeyToAccount, type PrivateKeyAccount } from "viem/accounts";
import { artifact, ROOT } from "../../scripts/lib/artifacts.ts";
import { startNode, type OwnNode } from "../../scripts/lib/node.ts";

export interface Person {
  account: PrivateKeyAccount;
  key: Hex;
}

export async function ownChain(args: string[] = []): Promise<OwnNode> {
  const node = await startNode(args);
  after(() => node.stop());
  return node;
}

/** Somebody with a key that did not exist before and that nobody else has. */
export async function person(node: OwnNode, ether = "100"): Promise<Person> {
  const key = generatePrivateKey();
  const account = privateKeyToAccount(key);
  await anvil(node, "anvil_setBalance", account.address, toHex(parseEther(ether)));
  return { account, key };
}

export function anvil(node: OwnNode, method: string, ...params: unknown[]): Promise<unknown> {
  return node.client.request({ method, params } as never);
}

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "areg-contracts-"));
  after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Ran {
  code: number | null;
  out: string;
  err: string;
}

/** Runs one of our scripts; `environment` comes on top of a bare one. `kill` may end it at any time. */
export function run(
  script: string,
  args: string[],
  environment: Record<string, string> = {},
  watch?: (kill: () => void) => void,
): Promise<Ran> {
  return runProgram(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", `${ROOT}scripts/${script}.ts`, ...args],
    environment,
    watch,
  );
}

export function runProgram(
  program: string,
  args: string[],
  environment: Record<string, string> = {},
  watch?: (kill: () => void) => void,
): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: ROOT,
      env: { PATH: process.env["PATH"] ?? "", HOME: process.env["HOME"] ?? "", ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [out, err] = ["", ""];
    child.stdout.on("data", (chunk) => (out += chunk));
    child.stderr.on("data", (chunk) => (err += chunk));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, out, err }));
    watch?.(() => child.kill("SIGKILL"));
  });
}

/** Calls a contract in somebody's name. Throws the name of the error when it reverts. */
export async function write(
  node: OwnNode,
  who: Person,
  to: Address,
  abi: Abi,
  functionName: string,
  args: readonly unknown[] = [],
): Promise<TransactionReceipt> {
  const wallet = createWalletClient({ account: who.account, transport: http(node.url) });
  await node.client.simulateContract({ account: who.account, address: to, abi, functionName, args: args as [] });
  const hash = await wallet.sendTransaction({
    chain: null,
    to,
    data: encodeFunctionData({ abi, functionName, args: args as [] }),
  });
  return node.client.waitForTransactionReceipt({ hash, pollingInterval: 20 });
}

export async function read(
  node: OwnNode,
  address: Address,
  abi: Abi,
  functionName: string,
  args: readonly unknown[] = [],
): Promise<unknown> {
  const { data } = await node.client.call({
    to: address,
    data: encodeFunctionData({ abi, functionName, args: args as [] }),
  });
  return decodeFunctionResult({ abi, functionName, data: data ?? "0x" });
}

/** Deploys a contract of the tests or of src/ without a proxy. */
export async function create(node: OwnNode, who: Person, name: string, file = name, args: unknown[] = []) {
  const { abi, bytecode } = artifact(name, file);
  const wallet = createWalletClient({ account: who.account, transport: http(node.url) });
  const hash = await wallet.deployContract({ chain: null, abi, bytecode, args });
  const { contractAddress } = await node.client.waitForTransactionReceipt({ hash, pollingInterval: 20 });
  return contractAddress!;
}
