// Who signs the transactions: a keystore file, an external signer (clef, and through it a Ledger or Trezor; or a
// node with unlocked accounts), or a key in the environment. Never a key on the command line, where every process of
// the machine can read it.

import {
  getAddress,
  isAddressEqual,
  keccak256,
  parseTransaction,
  recoverTransactionAddress,
  serializeTransaction,
  toHex,
  type Address,
  type Hex,
  type TransactionSerializableEIP1559,
} from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { openKeystore, readPassword } from "./keystore.ts";
import { Problem } from "./problem.ts";

export interface SignerOptions {
  keystore?: string;
  "password-file"?: string;
  signer?: string;
  from?: string;
}

export interface Signer {
  address: Address;
  /** What to tell the person at the keyboard. */
  description: string;
  sign(transaction: TransactionSerializableEIP1559): Promise<Hex>;
}

export const KEY_VARIABLE = "DEPLOYER_PRIVATE_KEY";

export async function openSigner(options: SignerOptions): Promise<Signer> {
  if (options.keystore !== undefined && options.signer !== undefined) {
    throw new Problem("both --keystore and --signer are given", "Choose one.");
  }
  if (options.signer !== undefined) return externalSigner(options.signer, options.from);
  if (options.keystore !== undefined) {
    const key = openKeystore(options.keystore, await readPassword(options["password-file"]));
    return localSigner(key, `keystore ${options.keystore}`, options.from);
  }
  const key = process.env[KEY_VARIABLE];
  if (!key) {
    throw new Problem(
      "there is nobody to sign",
      `Give --keystore FILE, or --signer URL --from ADDRESS, or set ${KEY_VARIABLE}.`,
    );
  }
  if (!/^(0x)?[0-9a-fA-F]{64}$/.test(key)) {
    throw new Problem(`${KEY_VARIABLE} is not a private key`, "It is 64 hex digits.");
  }
  return localSigner(key.startsWith("0x") ? (key as Hex) : `0x${key}`, KEY_VARIABLE, options.from);
}

function localSigner(key: Hex, description: string, from: string | undefined): Signer {
  const account = privateKeyToAccount(key);
  if (from !== undefined && !isAddressEqual(account.address, getAddress(from))) {
    throw new Problem(`the key is that of ${account.address}, not of ${from}`, "Use the right key, or drop --from.");
  }
  return {
    address: account.address,
    description,
    sign: (transaction) => account.signTransaction(transaction),
  };
}

async function externalSigner(url: string, from: string | undefined): Promise<Signer> {
  if (from === undefined) {
    throw new Problem("--signer needs to know whose signature to ask for", "Give --from ADDRESS.");
  }
  const address = getAddress(from);
  return {
    address,
    description: `external signer at ${new URL(url).host}`,
    async sign(transaction) {
      const request = {
        from: address,
        ...(transaction.to ? { to: transaction.to } : {}),
        data: transaction.data ?? "0x",
        // Two names for the same: clef and older signers read `data`, others `input`.
        input: transaction.data ?? "0x",
        value: toHex(transaction.value ?? 0n),
        nonce: toHex(transaction.nonce ?? 0),
        gas: toHex(transaction.gas ?? 0n),
        maxFeePerGas: toHex(transaction.maxFeePerGas ?? 0n),
        maxPriorityFeePerGas: toHex(transaction.maxPriorityFeePerGas ?? 0n),
        chainId: toHex(transaction.chainId),
      };
      const raw = await askToSign(url, request);
      await requireSameTransaction(raw, transaction, address);
      return raw;
    },
  };
}

/** eth_signTransaction, or clef's name for it. Both answer the raw transaction, alone or as `raw`. */
async function askToSign(url: string, request: object): Promise<Hex> {
  let refusal = "";
  for (const method of ["eth_signTransaction", "account_signTransaction"]) {
    const { result, error } = await rpc(url, method, [request]);
    const raw = typeof result === "string" ? result : (result as { raw?: string } | undefined)?.raw;
    if (raw?.startsWith("0x")) return raw as Hex;
    refusal = error?.message ?? "an answer without a transaction";
    if (error?.code !== -32601) break;
  }
  throw new Problem(`the external signer did not sign: ${refusal}`, "Unlock or approve it there, then run again.");
}

async function rpc(url: string, method: string, params: unknown[]) {
  let response: Response;
  try {
    response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
    });
  } catch (error) {
    throw new Problem(`no external signer at ${new URL(url).host}: ${(error as Error).message}`, "Start it.");
  }
  return (await response.json()) as { result?: unknown; error?: { code: number; message: string } };
}

/** A signer may alter what it is shown. What came back must be what was asked for, by whom it was asked of. */
async function requireSameTransaction(raw: Hex, asked: TransactionSerializableEIP1559, address: Address) {
  const { r, s, v, yParity, ...signed } = parseTransaction(raw) as TransactionSerializableEIP1559 & {
    r: Hex;
    s: Hex;
    v?: bigint;
    yParity?: number;
  };
  const bare = (transaction: TransactionSerializableEIP1559) =>
    keccak256(serializeTransaction({ ...transaction, type: "eip1559" }));
  const signer = await recoverTransactionAddress({ serializedTransaction: raw as `0x02${string}` });
  if (!isAddressEqual(signer, address) || bare(signed) !== bare(asked)) {
    throw new Problem(
      "the external signer signed another transaction than it was asked to",
      "Set it to leave fees, gas and nonce as they are, and check the account.",
    );
  }
}
