// Keystore files: Web3 Secret Storage, version 3, as geth, clef and cast write them.

import { createDecipheriv, pbkdf2Sync, scryptSync, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { keccak256, type Hex } from "viem";
import { Problem } from "./problem.ts";

interface Keystore {
  version: number;
  crypto: {
    cipher: string;
    ciphertext: string;
    cipherparams: { iv: string };
    kdf: string;
    kdfparams: { dklen: number; salt: string; n?: number; r?: number; p?: number; c?: number; prf?: string };
    mac: string;
  };
}

function deriveKey({ kdf, kdfparams: params }: Keystore["crypto"], password: string): Buffer {
  const salt = Buffer.from(params.salt, "hex");
  if (kdf === "scrypt") {
    const { n = 0, r = 0, p = 0 } = params;
    return scryptSync(password, salt, params.dklen, { N: n, r, p, maxmem: 256 * n * r });
  }
  if (kdf === "pbkdf2" && params.prf === "hmac-sha256") {
    return pbkdf2Sync(password, salt, params.c ?? 0, params.dklen, "sha256");
  }
  throw new Problem(`the keystore file uses ${kdf}, which is not known here`, "Make one with scrypt or pbkdf2.");
}

/** The private key of a keystore file. */
export function openKeystore(path: string, password: string): Hex {
  let keystore: Keystore;
  try {
    keystore = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new Problem(`cannot read the keystore ${path}: ${(error as Error).message}`, "Check the path.");
  }
  const { crypto } = keystore;
  if (keystore.version !== 3 || crypto?.cipher !== "aes-128-ctr") {
    throw new Problem(`${path} is no keystore file of version 3`, "geth account new, or cast wallet new, makes one.");
  }
  const key = deriveKey(crypto, password);
  const ciphertext = Buffer.from(crypto.ciphertext, "hex");
  const mac = Buffer.from(keccak256(Buffer.concat([key.subarray(16, 32), ciphertext]), "bytes"));
  if (!timingSafeEqual(mac, Buffer.from(crypto.mac.padStart(64, "0").slice(0, 64), "hex"))) {
    throw new Problem(`the password does not open ${path}`, "Try again with the right one.");
  }
  const decipher = createDecipheriv("aes-128-ctr", key.subarray(0, 16), Buffer.from(crypto.cipherparams.iv, "hex"));
  return `0x${Buffer.concat([decipher.update(ciphertext), decipher.final()]).toString("hex")}`;
}

/** The password: from a file, from KEYSTORE_PASSWORD, or typed in without being shown. */
export async function readPassword(passwordFile: string | undefined): Promise<string> {
  if (passwordFile !== undefined) return readFileSync(passwordFile, "utf8").replace(/\r?\n$/, "");
  const fromEnvironment = process.env["KEYSTORE_PASSWORD"];
  if (fromEnvironment !== undefined) return fromEnvironment;
  if (!process.stdin.isTTY) {
    throw new Problem(
      "the keystore needs a password, and there is no terminal to ask for it",
      "Give --password-file FILE, or set KEYSTORE_PASSWORD.",
    );
  }
  // Without an output, readline takes the terminal's echo away and shows nothing itself.
  const terminal = createInterface({ input: process.stdin, terminal: true });
  process.stderr.write("Password of the keystore: ");
  try {
    return await new Promise((resolve) => terminal.question("", resolve));
  } finally {
    terminal.close();
    process.stderr.write("\n");
  }
}
