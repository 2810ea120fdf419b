// The deployment scripts, as a person runs them, against real chains of their own.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createCipheriv, pbkdf2Sync, randomBytes, scryptSync } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { encodeAbiParameters, isAddressEqual, keccak256, parseEther, parseTransaction, toHex, type Hex } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { ROOT } from "../scripts/lib/artifacts.ts";
import { GAS_AT_MOST, REGISTRIES, setupCall, type Registry } from "../scripts/lib/deployment.ts";
import type { Journal } from "../scripts/lib/journal.ts";
import { anvil, ownChain, person, run, temporaryFolder, type Ran } from "./support/harness.ts";
import { badLine, type Trouble } from "./support/troubled.ts";

const journalIn = (folder: string, chain = "sepolia") =>
  JSON.parse(readFileSync(join(folder, `${chain}.json`), "utf8")) as Journal;

/** Refused with these words, and with advice. */
function refused(ran: Ran, words: RegExp): void {
  assert.equal(ran.code, 1, ran.out + ran.err);
  assert.match(ran.err, words);
  assert.doesNotMatch(ran.err, /^ +at /m);
}

// A chain that calls itself Sepolia.
const node = await ownChain(["--chain-id", "11155111"]);

async function deployer() {
  const [who, admin] = [await person(node), await person(node)];
  const folder = temporaryFolder();
  const args = ["--chain", "sepolia", "--rpc-url", node.url, "--admin", admin.account.address, "--out", folder, "--yes"];
  return { who, admin, folder, args, environment: { DEPLOYER_PRIVATE_KEY: who.key } };
}

describe("A deployment", () => {
  test("from nothing prints and keeps what it made, and is not made twice", async () => {
    const { who, admin, folder, args, environment } = await deployer();
    const first = await run("deploy-testnet", args, environment);
    assert.equal(first.code, 0, first.err);
    const journal = journalIn(folder);
    const result = journal.result!;
    assert.equal(journal.complete, true);
    assert.equal(journal.deployer, who.account.address);
    assert.equal(journal.pauser, admin.account.address);
    assert.equal(result.firstBlock, journal.steps["IdentityRegistry"]!.block);

    // Everything is printed, and the same is in the files.
    for (const text of [result.aregConf, ...result.verify, result.gasUsed]) assert.ok(first.out.includes(text), text);
    assert.equal(readFileSync(join(folder, "sepolia.conf"), "utf8"), result.aregConf);
    assert.match(result.aregConf, /^\[chain sepolia\]\nchain_id = 11155111\nidentity_registry = 0x[0-9a-fA-F]{40}\n/);
    for (const [name, address] of Object.entries(result.contracts)) {
      assert.ok(result.aregConf.includes(`${name} = ${address}\n`));
      assert.equal(result.environment[`AREG_CHAIN_SEPOLIA_${name.toUpperCase()}`], address);
      assert.ok(await node.client.getCode({ address }));
    }
    assert.ok(!JSON.stringify(journal).includes(who.key.slice(2)));

    // What the balance is held against covers what was used, and is not far from it.
    for (const [step, { gasUsed }] of Object.entries(journal.steps)) {
      const atMost = GAS_AT_MOST[step] ?? GAS_AT_MOST[step.endsWith("handover") ? "handover" : "proxy"]!;
      assert.ok(BigInt(gasUsed!) <= atMost, `${step} used ${gasUsed}, and ${atMost} was thought to be enough`);
      assert.ok(BigInt(gasUsed!) * 2n > atMost, `${step} used ${gasUsed} only`);
    }

    const blocks = await node.client.getBlockNumber({ cacheTime: 0 });
    refused(await run("deploy-testnet", args, environment), /deployed on sepolia already/);
    // Nor where the file of the first is missing.
    const elsewhere = args.with(args.indexOf(folder), temporaryFolder());
    refused(await run("deploy-testnet", elsewhere, environment), /has deployed a registry on sepolia before/);
    assert.equal(await node.client.getBlockNumber({ cacheTime: 0 }), blocks);

    // Knowingly, it is: the file of the first is kept.
    const again = await run("deploy-testnet", [...args, "--again"], environment);
    assert.equal(again.code, 0, again.err);
    assert.notEqual(journalIn(folder).result!.contracts["identity_registry"], result.contracts["identity_registry"]);
    assert.equal(readdirSync(join(folder, "sepolia-earlier")).length, 1);
  });

  const troubles: [number, Trouble][] = [
    [1, "refused"],
    [2, "lost on the way back"],
    [5, "lost on the way there"],
    [9, "lost on the way back"],
  ];
  for (const [at, trouble] of troubles) {
    test(`that fails at transaction ${at} (${trouble}) goes on from there`, async () => {
      const { folder, args, environment } = await deployer();
      const line = await badLine(node.url, at, trouble);
      const troubled = args.with(args.indexOf(node.url), line.url);
      const failed = await run("deploy-testnet", troubled, environment);
      assert.equal(failed.code, 1, failed.out);
      assert.equal(journalIn(folder).complete, false);
      const resumed = await run("deploy-testnet", troubled, environment);
      assert.equal(resumed.code, 0, resumed.err);
      assert.match(resumed.err, /Going on with a deployment/);
      // Nine transactions in all: none was made twice, although one answer was lost.
      assert.equal(line.passed, 9);
      const nonces = Object.values(journalIn(folder).steps).map(({ nonce }) => nonce);
      assert.deepEqual(nonces, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    });
  }

  test("that is killed while it sends goes on from there", async () => {
    const { folder, args, environment } = await deployer();
    const line = await badLine(node.url, 4, "lost on the way back");
    const troubled = args.with(args.indexOf(node.url), line.url);
    const killed = await run("deploy-testnet", troubled, environment, (kill) => (line.onTrouble = kill));
    assert.equal(killed.code, null);
    const resumed = await run("deploy-testnet", args, environment);
    assert.equal(resumed.code, 0, resumed.err);
    assert.deepEqual(Object.values(journalIn(folder).steps).map(({ nonce }) => nonce), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test("that began otherwise does not go on", async () => {
    const { folder, args, environment, admin } = await deployer();
    const other = await person(node);
    const line = await badLine(node.url, 2, "refused");
    await run("deploy-testnet", args.with(args.indexOf(node.url), line.url), environment);
    refused(
      await run("deploy-testnet", args.with(args.indexOf(admin.account.address), other.account.address), environment),
      /began otherwise: admin was/,
    );
    refused(await run("deploy-testnet", args, { DEPLOYER_PRIVATE_KEY: other.key }), /began otherwise: deployer was/);
    const path = join(folder, "sepolia.json");
    writeFileSync(path, JSON.stringify({ ...journalIn(folder), codeHash: keccak256("0x") }));
    refused(await run("deploy-testnet", args, environment), /began otherwise: code was/);
  });

  test("whose nonce somebody else used says so", async () => {
    const { args, environment, folder, who } = await deployer();
    const line = await badLine(node.url, 1, "lost on the way there");
    await run("deploy-testnet", args.with(args.indexOf(node.url), line.url), environment);
    assert.equal(Object.keys(journalIn(folder).steps).length, 1);
    await anvil(node, "anvil_setNonce", who.account.address, toHex(5));
    refused(await run("deploy-testnet", args, environment), /another one has its nonce/);
  });

  test("does not go on from a file that is none", async () => {
    const { args, environment, folder } = await deployer();
    writeFileSync(join(folder, "sepolia.json"), '{"format": 1, "cha');
    refused(await run("deploy-testnet", args, environment), /is not a deployment's file/);
  });

  test("is tried on a fork without a key, and the chain does not change", async () => {
    const { who, args, folder } = await deployer();
    const blocks = await node.client.getBlockNumber({ cacheTime: 0 });
    const ran = await run("deploy-testnet", [...args, "--dry-run", "--from", who.account.address]);
    assert.equal(ran.code, 0, ran.err);
    assert.match(ran.out, /Dry run\. Gas that it would use: 1\d{7}\./);
    assert.equal(await node.client.getBlockNumber({ cacheTime: 0 }), blocks);
    assert.deepEqual(readdirSync(folder), []);
  });
});

describe("A deployment is refused", () => {
  test("on another chain than the one named", async () => {
    const { args, environment } = await deployer();
    const wrong = args.with(args.indexOf("sepolia"), "base-sepolia");
    refused(await run("deploy-testnet", wrong, environment), /on chain 11155111, and base-sepolia is chain 84532/);
  });

  test("with too little money", async () => {
    const { args } = await deployer();
    const poor = await person(node, "0.001");
    const ran = await run("deploy-testnet", args, { DEPLOYER_PRIVATE_KEY: poor.key });
    refused(ran, /has 0\.001, and the deployment may take 0\.0/);
    assert.match(ran.err, /Send it at least/);
  });

  test("on a production chain by the script for test networks, and the other way round", async () => {
    const { args, environment } = await deployer();
    refused(await run("deploy-testnet", args.with(1, "base"), environment), /base is not a testnet chain/);
    refused(await run("deploy-production", args, environment), /sepolia is not a production chain/);
    refused(await run("deploy-production", args.with(1, "mychain"), environment), /chain mychain is not known/);
    const posing = [...args.with(1, "mychain"), "--chain-id", "11155111"];
    refused(await run("deploy-production", posing, environment), /chain id 11155111 is sepolia/);
    refused(await run("deploy-production", args.with(1, "My Chain"), environment), /not a chain name/);
    refused(
      await run("deploy-production", [...args.with(1, "base"), "--chain-id", "1"], environment),
      /base has chain id 8453/,
    );
  });

  test("with a key on the command line", async () => {
    const { args, who } = await deployer();
    for (const option of ["--private-key", "--key", "--mnemonic", "--password"]) {
      const ran = await run("deploy-testnet", [...args, option, who.key]);
      refused(ran, /not taken from the command line/);
      assert.ok(!ran.err.includes(who.key));
    }
  });

  test("without an admin, a node, a chain, a signer, or an answer", async () => {
    const { args, environment } = await deployer();
    const without = (option: string) => args.toSpliced(args.indexOf(option), 2);
    refused(await run("deploy-testnet", without("--admin"), environment), /who becomes admin/);
    refused(await run("deploy-testnet", without("--rpc-url"), environment), /which node/);
    refused(await run("deploy-testnet", without("--chain"), environment), /which chain/);
    refused(await run("deploy-testnet", args), /nobody to sign/);
    refused(await run("deploy-testnet", args.slice(0, -1), environment), /no terminal to ask at/);
    refused(await run("deploy-testnet", [...args, "--dry-run"]), /needs to know who would deploy/);
    refused(await run("deploy-testnet", [...args, "--frobnicate"]), /Unknown option/);
    refused(await run("deploy-testnet", args.with(args.indexOf(node.url), "ftp://x"), environment), /is not a URL/);
    const dead = args.with(args.indexOf(node.url), "http://127.0.0.1:1");
    refused(await run("deploy-testnet", dead, environment), /HTTP request failed/);
    assert.equal((await run("deploy-testnet", ["--help"])).code, 0);
  });

  test("with addresses and numbers that are none", async () => {
    const { args, admin, environment } = await deployer();
    const at = args.indexOf(admin.account.address);
    const swapped = admin.account.address.replace(/[a-fA-F](?=[^a-fA-F]*$)/, (letter) =>
      letter === letter.toLowerCase() ? letter.toUpperCase() : letter.toLowerCase(),
    );
    for (const wrong of ["0x12", "0x" + "0".repeat(40), swapped]) {
      refused(await run("deploy-testnet", args.with(at, wrong), environment), /is not an address/);
    }
    refused(await run("deploy-testnet", [...args, "--admin-delay", "1d"], environment), /is not a whole number/);
    refused(await run("deploy-testnet", args, { DEPLOYER_PRIVATE_KEY: "0x12" }), /is not a private key/);
  });
});

describe("A deployment is signed", () => {
  function keystoreFile(folder: string, key: Hex, password: string, kdf: "scrypt" | "pbkdf2"): string {
    const [salt, iv] = [randomBytes(32), randomBytes(16)];
    const derived =
      kdf === "scrypt"
        ? scryptSync(password, salt, 32, { N: 1024, r: 8, p: 1 })
        : pbkdf2Sync(password, salt, 1000, 32, "sha256");
    const cipher = createCipheriv("aes-128-ctr", derived.subarray(0, 16), iv);
    const ciphertext = Buffer.concat([cipher.update(Buffer.from(key.slice(2), "hex")), cipher.final()]);
    const path = join(folder, `${kdf}.keystore`);
    const common = { dklen: 32, salt: salt.toString("hex") };
    writeFileSync(
      path,
      JSON.stringify({
        version: 3,
        crypto: {
          cipher: "aes-128-ctr",
          cipherparams: { iv: iv.toString("hex") },
          ciphertext: ciphertext.toString("hex"),
          kdf,
          kdfparams: kdf === "scrypt" ? { ...common, n: 1024, r: 8, p: 1 } : { ...common, c: 1000, prf: "hmac-sha256" },
          mac: keccak256(Buffer.concat([derived.subarray(16, 32), ciphertext])).slice(2),
        },
      }),
    );
    return path;
  }

  for (const kdf of ["scrypt", "pbkdf2"] as const) {
    test(`by the key of a keystore file (${kdf})`, async () => {
      const { who, args, folder } = await deployer();
      const files = temporaryFolder();
      const keystore = keystoreFile(files, who.key, "correct horse", kdf);
      const signed = [...args, "--keystore", keystore];
      refused(await run("deploy-testnet", signed), /no terminal to ask for it/);
      refused(await run("deploy-testnet", signed, { KEYSTORE_PASSWORD: "wrong" }), /password does not open/);
      writeFileSync(join(files, "password"), "correct horse\n");
      const ran = await run("deploy-testnet", [...signed, "--password-file", join(files, "password")]);
      assert.equal(ran.code, 0, ran.err);
      assert.equal(journalIn(folder).deployer, who.account.address);
    });
  }

  test("with a password that is typed and not shown", async () => {
    const { who, admin, args, folder } = await deployer();
    const keystore = keystoreFile(temporaryFolder(), who.key, "typed in secret", "scrypt");
    const words = [process.execPath, `${ROOT}scripts/deploy-testnet.ts`, ...args, "--keystore", keystore];
    // script(1) runs it at a terminal, and shows what the terminal shows.
    const terminal = spawn("script", ["-qec", words.join(" "), "/dev/null"], { stdio: ["pipe", "pipe", "inherit"] });
    let shown = "";
    let typed = false;
    terminal.stdout.on("data", (chunk) => {
      shown += chunk;
      if (!typed && shown.includes("Password of the keystore: ")) typed = terminal.stdin.write("typed in secret\r") || true;
    });
    const [code] = (await once(terminal, "close")) as [number];
    assert.equal(code, 0, shown);
    assert.doesNotMatch(shown, /typed in secret/);
    assert.ok(shown.includes(admin.account.address));
    assert.equal(journalIn(folder).deployer, who.account.address);
  });

  test("by nobody when the keystore is none, or the key another one's", async () => {
    const { who, admin, args, environment } = await deployer();
    const files = temporaryFolder();
    const path = join(files, "keystore");
    const password = { KEYSTORE_PASSWORD: "" };
    refused(await run("deploy-testnet", [...args, "--keystore", path], password), /cannot read the keystore/);
    writeFileSync(path, "{}");
    refused(await run("deploy-testnet", [...args, "--keystore", path], password), /no keystore file of version 3/);
    const kdf = { version: 3, crypto: { cipher: "aes-128-ctr", kdf: "argon2", kdfparams: { salt: "" } } };
    writeFileSync(path, JSON.stringify(kdf));
    refused(await run("deploy-testnet", [...args, "--keystore", path], password), /argon2, which is not known/);
    refused(await run("deploy-testnet", [...args, "--keystore", path, "--signer", node.url]), /both/);
    refused(
      await run("deploy-testnet", [...args, "--from", admin.account.address], environment),
      new RegExp(`that of ${who.account.address}`),
    );
  });

  /** A signer such as clef in front of a hardware wallet: its own method, an answer with `raw`, and its own will. */
  async function clef(key: Hex, alter: (transaction: Record<string, Hex>) => object = (t) => t): Promise<string> {
    const account = privateKeyToAccount(key);
    const server = createServer(async (request, response) => {
      let body = "";
      for await (const chunk of request) body += chunk;
      const { id, method, params } = JSON.parse(body) as { id: number; method: string; params: [Record<string, Hex>] };
      if (method !== "account_signTransaction") {
        const error = { code: -32601, message: `the method ${method} does not exist` };
        return response.end(JSON.stringify({ jsonrpc: "2.0", id, error }));
      }
      const { to, data, nonce, gas, chainId, maxFeePerGas, maxPriorityFeePerGas } = alter(params[0]) as typeof params[0];
      const raw = await account.signTransaction({
        ...(to ? { to } : {}),
        data: data!,
        nonce: Number(nonce),
        gas: BigInt(gas!),
        chainId: Number(chainId),
        maxFeePerGas: BigInt(maxFeePerGas!),
        maxPriorityFeePerGas: BigInt(maxPriorityFeePerGas!),
      });
      return response.end(JSON.stringify({ jsonrpc: "2.0", id, result: { raw, tx: parseTransaction(raw).nonce } }));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    after(() => server.close());
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  test("by an external signer that speaks clef's language", async () => {
    const { who, args, folder } = await deployer();
    const url = await clef(who.key);
    refused(await run("deploy-testnet", [...args, "--signer", url]), /whose signature to ask for/);
    const ran = await run("deploy-testnet", [...args, "--signer", url, "--from", who.account.address]);
    assert.equal(ran.code, 0, ran.err);
    assert.equal(journalIn(folder).deployer, who.account.address);
  });

  test("by a node with unlocked accounts", async () => {
    const { args, folder } = await deployer();
    const [unlocked] = (await anvil(node, "eth_accounts")) as [Hex];
    const ran = await run("deploy-testnet", [...args, "--signer", node.url, "--from", unlocked]);
    assert.equal(ran.code, 0, ran.err);
    assert.ok(isAddressEqual(journalIn(folder).deployer, unlocked));
  });

  test("by nobody when the external signer refuses, is not there, or signs something else", async () => {
    const { who, admin, args, folder } = await deployer();
    const from = ["--from", who.account.address];
    refused(await run("deploy-testnet", [...args, "--signer", node.url, ...from]), /did not sign/);
    refused(await run("deploy-testnet", [...args, "--signer", "http://127.0.0.1:1", ...from]), /no external signer/);
    const dear = await clef(who.key, (t) => ({ ...t, maxFeePerGas: toHex(parseEther("1")) }));
    refused(await run("deploy-testnet", [...args, "--signer", dear, ...from]), /signed another transaction/);
    const other = await clef(admin.key);
    refused(await run("deploy-testnet", [...args, "--signer", other, ...from]), /signed another transaction/);
    assert.ok(!existsSync(join(folder, "sepolia.json")));
  });
});

describe("On production and local chains", () => {
  test("production waits for two blocks after each transaction", async () => {
    const chain = await ownChain(["--chain-id", "8453", "--block-time", "0.5"]);
    const [who, folder] = [await person(chain), temporaryFolder()];
    const args = ["--chain", "base", "--rpc-url", chain.url, "--admin", who.account.address, "--out", folder, "--yes"];
    const ran = await run("deploy-production", args, { DEPLOYER_PRIVATE_KEY: who.key });
    assert.equal(ran.code, 0, ran.err);
    const blocks = Object.values(journalIn(folder, "base").steps).map(({ block }) => block!);
    blocks.slice(1).forEach((block, i) => assert.ok(block >= blocks[i]! + 2, blocks.join(" ")));
  });

  test("a node's address that may hold a key is neither printed nor kept", async () => {
    const { folder, args, environment } = await deployer();
    const ran = await run(
      "deploy-testnet",
      args.with(args.indexOf(node.url), `${node.url}/?key=not-for-everybody`),
      environment,
    );
    assert.equal(ran.code, 0, ran.err);
    const said = ran.out + ran.err + readFileSync(join(folder, "sepolia.json")) + readFileSync(join(folder, "sepolia.conf"));
    assert.ok(!said.includes("not-for-everybody"));
  });

  test("local needs nothing said, and deploys again when the chain has forgotten", async () => {
    const folder = temporaryFolder();
    const chain = await ownChain();
    assert.equal((await run("deploy-local", ["--rpc-url", chain.url, "--out", folder])).code, 0);
    refused(await run("deploy-local", ["--rpc-url", chain.url, "--out", folder]), /deployed on local already/);
    await anvil(chain, "anvil_reset");
    const ran = await run("deploy-local", ["--rpc-url", chain.url, "--out", folder]);
    assert.equal(ran.code, 0, ran.err);
    const { result } = journalIn(folder, "local");
    assert.equal(Object.keys(result!.contracts).length, REGISTRIES.length);
  });
});

describe("The source of a deployment is shown to block explorers", () => {
  interface Shown {
    address: Hex;
    compiler: string;
    contract: string;
    input: { settings: object };
    args: string;
  }

  /** An explorer: takes what is shown, and is busy at first. */
  async function explorer(shown: Shown[], answer: (path: string, body: string) => [Shown | undefined, object]) {
    const server = createServer(async (request, response) => {
      let body = "";
      for await (const chunk of request) body += chunk;
      const [taken, said] = answer(request.url!, body);
      if (taken) shown.push(taken);
      response.end(JSON.stringify(said));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    after(() => server.close());
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  /** What an explorer does with it: compiles it, and compares what comes out with what is on the chain. */
  async function requireReproducible(shown: Shown[], journal: Journal): Promise<void> {
    const { compile, version } = createRequire(import.meta.url)("solc") as {
      compile(input: string): string;
      version(): string;
    };
    assert.equal(shown.length, 6);
    const compiled = new Map<string, Hex>();
    for (const { address, compiler, contract, input, args } of shown) {
      assert.ok(version().startsWith(compiler));
      const [path, name] = contract.split(":") as [string, string];
      if (!compiled.has(contract)) {
        const settings = { ...input.settings, outputSelection: { [path]: { [name]: ["evm.bytecode.object"] } } };
        const output = JSON.parse(compile(JSON.stringify({ ...input, settings })));
        compiled.set(contract, `0x${output.contracts[path][name].evm.bytecode.object}`);
      }
      const step = Object.values(journal.steps).find((made) => made.address && isAddressEqual(made.address, address))!;
      const { input: created } = await node.client.getTransaction({ hash: step.hash });
      assert.equal(created, compiled.get(contract)! + args, contract);
    }
  }

  test("in Sourcify's way and in Etherscan's, and compiles to what is on the chain", async () => {
    const { args, folder, environment } = await deployer();
    assert.equal((await run("deploy-testnet", args, environment)).code, 0);
    const journal = journalIn(folder);
    const chain = ["--chain", "sepolia", "--out", folder];

    const atSourcify: Shown[] = [];
    const sourcify = await explorer(atSourcify, (path, body) => {
      const posted = /^\/v2\/verify\/11155111\/(0x\w+)$/.exec(path);
      if (!posted) return [undefined, { isJobCompleted: true, contract: { match: "exact_match" } }];
      const { stdJsonInput: input, compilerVersion: compiler, contractIdentifier: contract } = JSON.parse(body);
      // Sourcify finds the constructor's arguments by itself.
      const step = Object.entries(journal.steps).find(([, { address }]) => address === posted[1])!;
      const made = contract.endsWith("Proxy") ? proxyArguments(journal, step[0]) : "";
      return [{ address: posted[1] as Hex, compiler, contract, input, args: made }, { verificationId: "1" }];
    });
    const first = await run("verify-source", [...chain, "--api", sourcify]);
    assert.equal(first.code, 0, first.err);
    assert.equal(first.out.match(/: exact_match$/gm)!.length, 6);
    await requireReproducible(atSourcify, journal);

    const atEtherscan: Shown[] = [];
    const etherscan = await explorer(atEtherscan, (path, body) => {
      assert.match(path, /^\/\?chainid=11155111/);
      const fields = new URLSearchParams(body);
      if (fields.get("action") !== "verifysourcecode") return [undefined, { status: "1", result: "Pass - Verified" }];
      assert.equal(fields.get("apikey"), "a key");
      const taken = {
        address: fields.get("contractaddress") as Hex,
        compiler: fields.get("compilerversion")!.slice(1),
        contract: fields.get("contractname")!,
        input: JSON.parse(fields.get("sourceCode")!),
        args: fields.get("constructorArguements")!,
      };
      return [taken, { status: "1", result: "guid" }];
    });
    const etherscanArgs = [...chain, "--etherscan", "--api", `${etherscan}/`];
    refused(await run("verify-source", etherscanArgs), /Etherscan wants a key/);
    const second = await run("verify-source", etherscanArgs, { ETHERSCAN_API_KEY: "a key" });
    assert.equal(second.code, 0, second.err);
    assert.equal(second.out.match(/: Pass - Verified$/gm)!.length, 6);
    assert.deepEqual(atEtherscan, atSourcify);

    const unwilling = await explorer([], () => [undefined, { message: "no such chain" }]);
    refused(await run("verify-source", [...chain, "--api", unwilling]), /does not take IdentityRegistry: no such chain/);
    refused(await run("verify-source", [...chain, "--api", "http://127.0.0.1:1"]), /no answer from 127\.0\.0\.1:1/);
    refused(await run("verify-source", ["--chain", "base", "--out", folder]), /no complete deployment/);
  });

  const proxyArguments = (journal: Journal, registry: string) =>
    encodeAbiParameters(
      [{ type: "address" }, { type: "bytes" }],
      [
        journal.steps[`${registry}.implementation`]!.address!,
        setupCall(registry as Registry, journal, (step) => journal.steps[step]!.address!),
      ],
    ).slice(2);
});
