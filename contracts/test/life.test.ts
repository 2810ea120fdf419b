// The life of a set of registries on a chain: deployed, checked, used, paused, handed over, upgraded.

import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import {
  decodeErrorResult,
  encodeFunctionData,
  getAddress,
  keccak256,
  parseEventLogs,
  toHex,
  zeroAddress,
  zeroHash,
  type Address,
  type Hex,
  type TransactionReceipt,
} from "viem";
import { artifact, ROOT } from "../scripts/lib/artifacts.ts";
import type { Journal } from "../scripts/lib/journal.ts";
import { create, ownChain, person, read, run, runProgram, temporaryFolder, write } from "./support/harness.ts";

const VERIFY = `${ROOT}../scripts/verify-contracts`;
const REGISTER_AT_MOST = 200_000n;
const FEEDBACK_AT_MOST = 170_000n;
// 66 characters, as CIDs of version 1 are.
const URI = `ipfs://bafybei${"a".repeat(52)}`;

const node = await ownChain(["--chain-id", "84532"]);
const folder = temporaryFolder();
const [deployer, admin, pauser, upgrader] = [
  await person(node),
  await person(node),
  await person(node),
  await person(node),
];
const [owner, buyer, wallet, client, validator, stranger] = [
  await person(node),
  await person(node),
  await person(node),
  await person(node),
  await person(node),
  await person(node),
];
const abis = {
  identity: artifact("IdentityRegistry").abi,
  reputation: artifact("ReputationRegistry").abi,
  validation: artifact("ValidationRegistry").abi,
};
let at: Record<keyof typeof abis, Address>;
let journal: Journal;
const gas: [string, bigint][] = [];

const measured = (what: string, receipt: TransactionReceipt) => {
  gas.push([what, receipt.gasUsed]);
  return receipt;
};
const eventsIn = (registry: keyof typeof abis, receipt: TransactionReceipt) =>
  parseEventLogs({ abi: abis[registry], logs: receipt.logs }).map(({ eventName }) => eventName);
const verify = (...args: string[]) => runProgram(VERIFY, ["-c", join(folder, "base-sepolia.conf"), ...args]);
const govern = (who: { key: Hex }, ...args: string[]) =>
  run("govern", [...args, "--chain", "base-sepolia", "--rpc-url", node.url, "--out", folder], {
    DEPLOYER_PRIVATE_KEY: who.key,
  });
const chainTime = async () => (await node.client.getBlock()).timestamp;
// An offer can be accepted in a later second of the chain only, and a fast machine gets there within one.
const nextSecond = async () => {
  const request = node.client.request as (call: { method: string }) => Promise<unknown>;
  const before = await chainTime();
  while ((await chainTime()) <= before) {
    await setTimeout(100);
    await request({ method: "evm_mine" });
  }
};

async function walletSignature(agentId: bigint, newWallet: Address, ownerNow: Address, deadline: bigint) {
  return wallet.account.signTypedData({
    domain: { name: "ERC8004IdentityRegistry", version: "1", chainId: 84532, verifyingContract: at.identity },
    types: {
      AgentWalletSet: [
        { name: "agentId", type: "uint256" },
        { name: "newWallet", type: "address" },
        { name: "owner", type: "address" },
        { name: "deadline", type: "uint256" },
      ],
    },
    primaryType: "AgentWalletSet",
    message: { agentId, newWallet, owner: ownerNow, deadline },
  });
}

/** A call that reverts, and with which error. */
async function reverts(error: string, call: Promise<unknown>): Promise<void> {
  await assert.rejects(call, (thrown: Error & { walk?: (match: (e: unknown) => boolean) => unknown }) => {
    const inner = thrown.walk?.((e) => typeof (e as { raw?: unknown }).raw === "string") as { raw: Hex } | undefined;
    assert.ok(inner, thrown.message);
    const abi = [...abis.identity, ...abis.reputation, ...abis.validation];
    assert.equal(decodeErrorResult({ abi, data: inner.raw }).errorName, error);
    return true;
  });
}

describe("The life of the registries", () => {
  test("they are deployed from nothing", async () => {
    const args = ["--chain", "base-sepolia", "--rpc-url", node.url, "--out", folder, "--yes"];
    const people = [
      ...["--admin", admin.account.address],
      ...["--pauser", pauser.account.address],
      ...["--upgrader", upgrader.account.address],
    ];
    const ran = await run("deploy-testnet", [...args, ...people], { DEPLOYER_PRIVATE_KEY: deployer.key });
    assert.equal(ran.code, 0, ran.err);
    journal = JSON.parse(readFileSync(join(folder, "base-sepolia.json"), "utf8")) as Journal;
    const { contracts } = journal.result!;
    at = {
      identity: contracts["identity_registry"]!,
      reputation: contracts["reputation_registry"]!,
      validation: contracts["validation_registry"]!,
    };
  });

  test("verify-contracts waits for the admin to accept, and then is all green", async () => {
    const early = await verify("base-sepolia");
    assert.equal(early.code, 1);
    assert.equal(early.out.match(/^FAIL /gm)!.length, 3);
    assert.match(early.out, /^FAIL +identity admin .* until 0x\w+ accepts/m);

    await nextSecond();
    const accepted = await govern(admin, "accept-admin");
    assert.equal(accepted.code, 0, accepted.err);
    const people = ["--admin", admin.account.address, "--pauser", pauser.account.address];
    const green = await verify(...people, "--upgrader", upgrader.account.address, "baseSepolia");
    assert.equal(green.code, 0, green.out);
    assert.doesNotMatch(green.out, /^(FAIL|skip)/m);
    assert.match(green.out, /base-sepolia: 30 ok, 0 failed\n$/);
  });

  test("aregd accepts the section for areg.conf", { skip: !existsSync(`${ROOT}../build/aregd`) && "aregd is not built" }, async () => {
    const section = readFileSync(join(folder, "base-sepolia.conf"), "utf8");
    const conf = join(folder, "areg.conf");
    writeFileSync(conf, `database_url = postgresql:///areg\npublic_url = http://localhost\n${section}`);
    const { code, out, err } = await runProgram(`${ROOT}../build/aregd`, ["-p", "-c", conf]);
    assert.equal(code, 0, err);
    assert.ok(out.includes(at.validation) || out.includes(at.validation.toLowerCase()), out);
  });

  test("the deployer has no power any more", async () => {
    const refusal = await govern(deployer, "grant", "PAUSER_ROLE", deployer.account.address);
    assert.equal(refusal.code, 1);
    await reverts("AccessControlUnauthorizedAccount", write(node, deployer, at.identity, abis.identity, "pause"));
  });

  test("an agent is registered", async () => {
    const first = await write(node, owner, at.identity, abis.identity, "register", [URI]);
    measured("register(string), first agent of an owner, 66 characters", first);
    assert.deepEqual(eventsIn("identity", first), ["Transfer", "MetadataUpdate", "Registered", "MetadataSet"]);
    assert.equal(await read(node, at.identity, abis.identity, "tokenURI", [0n]), URI);
    assert.equal(await read(node, at.identity, abis.identity, "getAgentWallet", [0n]), owner.account.address);
    measured("register(string), next agent", await write(node, owner, at.identity, abis.identity, "register", [URI]));
    measured("register()", await write(node, owner, at.identity, abis.identity, "register"));
    const metadata = [{ metadataKey: "ens", metadataValue: toHex("one.eth") }];
    const receipt = await write(node, owner, at.identity, abis.identity, "register", ["", metadata]);
    measured("register(string, metadata), no URI, one entry", receipt);
    measured("setAgentURI", await write(node, owner, at.identity, abis.identity, "setAgentURI", [1n, "ipfs://new"]));
    const note = [1n, "note", toHex("hello")];
    measured("setMetadata", await write(node, owner, at.identity, abis.identity, "setMetadata", note));
  });

  test("its wallet is changed by the new wallet's signature", async () => {
    const deadline = (await chainTime()) + 200n;
    const address = wallet.account.address;
    const signature = await walletSignature(0n, address, owner.account.address, deadline);
    await reverts(
      "InvalidWalletSignature",
      write(node, owner, at.identity, abis.identity, "setAgentWallet", [1n, address, deadline, signature]),
    );
    const args = [0n, address, deadline, signature];
    measured("setAgentWallet", await write(node, owner, at.identity, abis.identity, "setAgentWallet", args));
    assert.equal(await read(node, at.identity, abis.identity, "getAgentWallet", [0n]), address);
  });

  test("its wallet is changed to a smart wallet by ERC-1271", async () => {
    const smart = await create(node, wallet, "SmartWallet", "Wallets", [wallet.account.address]);
    const deadline = (await chainTime()) + 200n;
    const signature = await walletSignature(0n, smart, owner.account.address, deadline);
    const args = [0n, smart, deadline, signature];
    measured("setAgentWallet, ERC-1271", await write(node, owner, at.identity, abis.identity, "setAgentWallet", args));
    assert.equal(await read(node, at.identity, abis.identity, "getAgentWallet", [0n]), getAddress(smart));
  });

  test("it is transferred, and its wallet does not go along", async () => {
    const args = [owner.account.address, buyer.account.address, 0n];
    measured("transferFrom", await write(node, owner, at.identity, abis.identity, "transferFrom", args));
    assert.equal(await read(node, at.identity, abis.identity, "ownerOf", [0n]), buyer.account.address);
    assert.equal(await read(node, at.identity, abis.identity, "getAgentWallet", [0n]), zeroAddress);
  });

  test("it gets feedback, and not from its owner", async () => {
    const give = (value: bigint) => [0n, value, 0, "starred", "day", "", "", zeroHash];
    measured(
      "giveFeedback, first of a client, short tags",
      await write(node, client, at.reputation, abis.reputation, "giveFeedback", give(90n)),
    );
    const second = await write(node, client, at.reputation, abis.reputation, "giveFeedback", give(71n));
    measured("giveFeedback, second of a client, short tags", second);
    assert.deepEqual(eventsIn("reputation", second), ["NewFeedback"]);
    await reverts("SelfFeedback", write(node, buyer, at.reputation, abis.reputation, "giveFeedback", give(100n)));
    const summary = [0n, [client.account.address], "starred", ""];
    assert.deepEqual(await read(node, at.reputation, abis.reputation, "getSummary", summary), [2n, 80n, 0]);
  });

  test("feedback is revoked and responded to", async () => {
    const respond = [0n, client.account.address, 2n, "ipfs://response", keccak256("0x")];
    measured("appendResponse", await write(node, buyer, at.reputation, abis.reputation, "appendResponse", respond));
    measured("revokeFeedback", await write(node, client, at.reputation, abis.reputation, "revokeFeedback", [0n, 2n]));
    const summary = [0n, [client.account.address], "starred", ""];
    assert.deepEqual(await read(node, at.reputation, abis.reputation, "getSummary", summary), [1n, 90n, 0]);
  });

  test("it is validated", async () => {
    const request = [validator.account.address, 0n, "ipfs://request", keccak256("0x01")];
    measured(
      "validationRequest",
      await write(node, buyer, at.validation, abis.validation, "validationRequest", request),
    );
    const respond = [keccak256("0x01"), 95, "ipfs://evidence", keccak256("0x02"), "tee"];
    await reverts("NotValidator", write(node, stranger, at.validation, abis.validation, "validationResponse", respond));
    measured(
      "validationResponse",
      await write(node, validator, at.validation, abis.validation, "validationResponse", respond),
    );
    assert.deepEqual(await read(node, at.validation, abis.validation, "getSummary", [0n, [], "tee"]), [1n, 95]);
  });

  test("a pause stops writes, shows in verify-contracts, and ends", async () => {
    const paused = await govern(pauser, "pause");
    assert.equal(paused.code, 0, paused.err);
    await reverts("EnforcedPause", write(node, owner, at.identity, abis.identity, "register"));
    await reverts("EnforcedPause", write(node, client, at.reputation, abis.reputation, "revokeFeedback", [0n, 1n]));
    assert.equal(await read(node, at.identity, abis.identity, "ownerOf", [0n]), buyer.account.address);
    const checked = await verify("base-sepolia");
    assert.equal(checked.code, 1);
    assert.equal(checked.out.match(/^FAIL .* it is paused$/gm)!.length, 3);
    assert.match((await govern(pauser, "status")).out, /paused +yes/);
    assert.equal((await govern(pauser, "unpause")).code, 0);
    assert.equal((await verify("base-sepolia")).code, 0);
  });

  test("an upgrade keeps what is there", async () => {
    const next = await create(node, stranger, "ReputationRegistryNext", "Upgrades");
    const setUp = encodeFunctionData({ abi: artifact("ReputationRegistryNext", "Upgrades").abi, functionName: "setAdded", args: [7n] });
    const refusal = await govern(admin, "upgrade", next, "--registry", "reputation", "--call", setUp);
    assert.equal(refusal.code, 1);
    const ran = await govern(upgrader, "upgrade", next, "--registry", "reputation", "--call", setUp);
    assert.equal(ran.code, 0, ran.err);
    const abi = artifact("ReputationRegistryNext", "Upgrades").abi;
    assert.equal(await read(node, at.reputation, abi, "getVersion"), "2.1.0");
    assert.equal(await read(node, at.reputation, abi, "added"), 7n);
    const summary = [0n, [client.account.address], "starred", ""];
    assert.deepEqual(await read(node, at.reputation, abi, "getSummary", summary), [1n, 90n, 0]);
    assert.equal(await read(node, at.reputation, abi, "getIdentityRegistry"), at.identity);
    assert.equal((await verify("base-sepolia")).code, 0);
  });

  test("an upgrade to this checkout deploys its code after a look at the layout", async () => {
    const ran = await govern(upgrader, "upgrade");
    assert.equal(ran.code, 0, ran.err);
    assert.equal(await read(node, at.reputation, abis.reputation, "getVersion"), "2.0.0");
    const summary = [0n, [client.account.address], "starred", ""];
    assert.deepEqual(await read(node, at.reputation, abis.reputation, "getSummary", summary), [1n, 90n, 0]);
    assert.equal(await read(node, at.identity, abis.identity, "ownerOf", [0n]), buyer.account.address);
    assert.deepEqual(await read(node, at.validation, abis.validation, "getSummary", [0n, [], "tee"]), [1n, 95]);
    assert.equal((await verify("base-sepolia")).code, 0);
  });

  test("roles are granted and revoked, and the lists show it", async () => {
    assert.equal((await govern(admin, "grant", "PAUSER_ROLE", stranger.account.address)).code, 0);
    assert.ok((await govern(admin, "status")).out.includes(stranger.account.address));
    const both = await verify("--pauser", pauser.account.address, "base-sepolia");
    assert.match(both.out, /^FAIL +identity pausers/m);
    assert.equal((await govern(admin, "revoke", "PAUSER_ROLE", stranger.account.address)).code, 0);
    assert.equal((await verify("--pauser", pauser.account.address, "base-sepolia")).code, 0);
  });

  test("the admin hands over in two steps", async () => {
    assert.equal((await govern(admin, "offer-admin", stranger.account.address)).code, 0);
    assert.match((await govern(admin, "status")).out, new RegExp(`admin +${admin.account.address}, offered to`));
    assert.equal((await govern(admin, "cancel-admin")).code, 0);
    assert.equal((await govern(stranger, "accept-admin")).code, 1);
    assert.equal((await govern(admin, "offer-admin", stranger.account.address)).code, 0);
    await nextSecond();
    assert.equal((await govern(buyer, "accept-admin")).code, 1);
    assert.equal((await govern(stranger, "accept-admin")).code, 0);
    assert.equal(await read(node, at.identity, abis.identity, "defaultAdmin"), stranger.account.address);
    assert.match((await verify("--admin", admin.account.address, "base-sepolia")).out, /^FAIL +identity admin/m);
    assert.equal((await verify("--admin", stranger.account.address, "base-sepolia")).code, 0);
  });

  test("a call is printed for a multi-signature wallet, and nothing is sent", async () => {
    const before = await node.client.getBlockNumber({ cacheTime: 0 });
    const { out } = await govern(stranger, "pause", "--registry", "identity", "--print");
    assert.equal(out, `to ${at.identity}\ndata ${encodeFunctionData({ abi: abis.identity, functionName: "pause" })}\n`);
    assert.equal(await node.client.getBlockNumber({ cacheTime: 0 }), before);
  });

  test("govern says what is wrong", async () => {
    for (const [args, words] of [
      [["dance"], /no command dance/],
      [["grant", "ADMIN_ROLE", stranger.account.address], /no role ADMIN_ROLE/],
      [["offer-admin", "0x12"], /0x12 is not an address/],
      [["pause", "--registry", "payments"], /no registry payments/],
      [["upgrade", at.identity], /which registry gets this code/],
      [["pause", "--frob"], /Unknown option/],
    ] as [string[], RegExp][]) {
      const ran = await govern(stranger, ...args);
      assert.equal(ran.code, 1);
      assert.match(ran.err, words);
    }
    const elsewhere = await run("govern", ["status", "--chain", "base", "--rpc-url", node.url, "--out", folder]);
    assert.match(elsewhere.err, /there is no .*base\.json/);
    assert.equal((await run("govern", ["--help"])).code, 0);
  });

  test("the gas is within bounds", () => {
    const used = (start: string) => gas.filter(([what]) => what.startsWith(start)).map(([, amount]) => amount);
    console.log(`Gas, from the receipts of the chain, through the proxy:\n${gas.map(([what, amount]) => `  ${String(amount).padStart(8)}  ${what}`).join("\n")}`);
    assert.equal(used("register").length, 4);
    for (const amount of used("register")) assert.ok(amount <= REGISTER_AT_MOST, `register used ${amount}`);
    for (const amount of used("giveFeedback, second")) assert.ok(amount <= FEEDBACK_AT_MOST, `giveFeedback ${amount}`);
  });
});

describe("verify-contracts finds", () => {
  const conf = (change: (text: string) => string) => {
    const path = join(folder, "changed.conf");
    writeFileSync(path, change(readFileSync(join(folder, "base-sepolia.conf"), "utf8")));
    return runProgram(VERIFY, ["-c", path, "base-sepolia"]);
  };
  const fails = async (words: RegExp, change: (text: string) => string) => {
    const { code, out, err } = await conf(change);
    assert.equal(code, 1, out + err);
    assert.match(out, words);
  };

  test("a wrong checksum, and takes lower case", async () => {
    await fails(/^FAIL +identity address .*checksum .* is wrong/m, (text) =>
      text.replace(at.identity, at.identity.replace(/[a-fA-F](?=[^a-fA-F]*$)/, (c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase()))),
    );
    const lower = await conf((text) => text.replace(at.identity, at.identity.toLowerCase()));
    assert.equal(lower.code, 0, lower.out);
  });

  test("what is no address, and what is missing", async () => {
    await fails(/^FAIL +identity address .*not 0x and 40 hex digits/m, (text) => text.replace(at.identity, "0x12"));
    await fails(/^FAIL +identity address .*not in the configuration/m, (text) => text.replace(/identity_registry.*\n/, ""));
    await fails(/^FAIL +identity address .*the zero address/m, (text) => text.replace(at.identity, zeroAddress));
  });

  test("another chain, and no node", async () => {
    await fails(/^FAIL +chain id .*the node is on chain 84532, areg.conf says 1$/m, (text) => text.replace(/chain_id = .*/, "chain_id = 1"));
    await fails(/^FAIL +chain id .*does not answer/m, (text) => text.replace(/rpc_url = .*/, "rpc_url = http://127.0.0.1:1"));
  });

  test("addresses without code, and registries in each other's place", async () => {
    await fails(/^FAIL +validation code .*none at/m, (text) => text.replace(at.validation, owner.account.address));
    await fails(/^FAIL +identity ERC-721/m, (text) => text.replace(at.identity, at.validation));
    await fails(/^FAIL +reputation identity .*points at/m, (text) => text.replace(at.identity, at.validation));
    await fails(/^FAIL +reputation identity .*points at nothing/m, (text) => text.replace(at.reputation, at.identity));
  });

  test("a first block after the registry's", async () => {
    await fails(/^FAIL +first block .*is older/m, (text) => text.replace(/first_block = .*/, "first_block = 20"));
  });

  test("nothing to complain of in contracts that are owned and not paused, as the canonical ones", async () => {
    const owned = await create(node, stranger, "OwnedRegistry", "Wallets");
    const { out } = await conf((text) => text.replace(at.identity, owned));
    assert.match(out, /^skip +identity roles +none; its owner is 0x/m);
    assert.match(out, /^skip +identity pause +it cannot be paused/m);
    assert.match(out, /^skip +identity implementation +not behind/m);
  });

  test("that it was called wrongly, and says what to do", async () => {
    for (const [args, words] of [
      [[], /which chain/],
      [["--frob", "base"], /unknown option/],
      [["mars"], /has no chain mars\nIt has: base-sepolia\./],
      [["-c", join(folder, "none.conf"), "base"], /cannot read/],
    ] as [string[], RegExp][]) {
      const ran = await verify(...args);
      assert.equal(ran.code, 2);
      assert.match(ran.err, words);
    }
    assert.match((await verify("--help")).out, /^Checks the contracts/);
  });

  test("the same, as JSON", async () => {
    const { code, out } = await verify("--json", "base-sepolia");
    assert.equal(code, 0);
    const told = JSON.parse(out) as { chain: string; ok: boolean; checks: { name: string; status: string }[] };
    assert.equal(told.chain, "base-sepolia");
    assert.equal(told.ok, true);
    assert.deepEqual([...new Set(told.checks.map(({ status }) => status))], ["ok"]);
  });
});
