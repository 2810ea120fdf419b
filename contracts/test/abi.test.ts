// The compiled contracts against ERC-8004, and the tests against the compiled contracts.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { describe, test } from "node:test";
import { toEventSelector, toFunctionSelector, type AbiEvent, type AbiFunction } from "viem";
import { artifact, ROOT } from "../scripts/lib/artifacts.ts";
import { REGISTRIES } from "../scripts/lib/deployment.ts";

// From ERC-8004, not from the contracts.
const TOPICS: Record<string, Record<string, string>> = {
  IdentityRegistry: {
    Transfer: "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef",
    Registered: "0xca52e62c367d81bb2e328eb795f7c7ba24afb478408a26c0e201d155c449bc4a",
    MetadataSet: "0x2c149ed548c6d2993cd73efe187df6eccabe4538091b33adbd25fafdb8a1468b",
    URIUpdated: "0x3a2c7fffc2cba7582c690e3b82c453ea02a308326a98a3ad7576c606336409fb",
  },
  ReputationRegistry: {
    NewFeedback: "0x6a4a61743519c9d648a14e6493f47dbe3ff1aa29e7785c96c8326a205e58febc",
    FeedbackRevoked: "0x25156fd3288212246d8b008d5921fde376c71ed14ac2e072a506eb06fde6d09d",
    ResponseAppended: "0xb1c6be0b5b8aef6539e2fac0fd131a2faa7b49edf8e505b5eb0ad487d56051d4",
  },
  ValidationRegistry: {
    ValidationRequest: "0x530436c3634a98e1e626b0898be2f1e9980cc1bd2a78c07a0aba52d0a48a5059",
    ValidationResponse: "0xafddf629e874ccc3963b6a888c477bd464a6c8525024fc88759ea3b2326349ae",
  },
};

// Which parameters are topics, in order: the topic of the event alone does not tell.
const INDEXED: Record<string, string> = {
  Transfer: "111",
  Registered: "101",
  MetadataSet: "1100",
  URIUpdated: "101",
  NewFeedback: "11000100000",
  FeedbackRevoked: "111",
  ResponseAppended: "110100",
  ValidationRequest: "1101",
  ValidationResponse: "1110000",
};

const SELECTORS: Record<string, Record<string, string>> = {
  IdentityRegistry: {
    "register()": "0x1aa3a008",
    "register(string)": "0xf2c298be",
    "register(string,(string,bytes)[])": "0x8ea42286",
    "setAgentURI(uint256,string)": "0x0af28bd3",
    "setMetadata(uint256,string,bytes)": "0x466648da",
    "setAgentWallet(uint256,address,uint256,bytes)": "0x2d1ef5ae",
    "tokenURI(uint256)": "0xc87b56dd",
    "ownerOf(uint256)": "0x6352211e",
    "getAgentWallet(uint256)": "0x00339509",
  },
  ReputationRegistry: {
    "giveFeedback(uint256,int128,uint8,string,string,string,string,bytes32)": "0x3c036a7e",
    "revokeFeedback(uint256,uint64)": "0x4ab3ca99",
    "appendResponse(uint256,address,uint64,string,bytes32)": "0xc2349ab2",
    "getSummary(uint256,address[],string,string)": "0x81bbba58",
  },
  ValidationRegistry: {},
};

// What a registry takes in a pause: its government. Everything else is a write to be refused.
const GOVERNMENT = new Set([
  "acceptDefaultAdminTransfer",
  "beginDefaultAdminTransfer",
  "cancelDefaultAdminTransfer",
  "changeDefaultAdminDelay",
  "grantRole",
  "initialize",
  "pause",
  "renounceRole",
  "revokeRole",
  "rollbackDefaultAdminDelay",
  "unpause",
  "upgradeToAndCall",
]);

const functionsOf = (contract: string) =>
  artifact(contract).abi.filter((entry): entry is AbiFunction => entry.type === "function");
const eventsOf = (contract: string) =>
  artifact(contract).abi.filter((entry): entry is AbiEvent => entry.type === "event");
const solidityTests = readdirSync(`${ROOT}test`)
  .filter((name) => name.endsWith(".t.sol"))
  .map((name) => readFileSync(`${ROOT}test/${name}`, "utf8"))
  .join("\n");

describe("The compiled contracts are those of ERC-8004", () => {
  for (const contract of REGISTRIES) {
    for (const [name, topic] of Object.entries(TOPICS[contract]!)) {
      test(`${contract} has event ${name} with its topics`, () => {
        const event = eventsOf(contract).find((entry) => entry.name === name);
        assert.ok(event);
        assert.equal(toEventSelector(event), topic);
        assert.equal(event.inputs.map(({ indexed }) => (indexed ? "1" : "0")).join(""), INDEXED[name]);
      });
    }
    for (const [signature, selector] of Object.entries(SELECTORS[contract]!)) {
      test(`${contract} has function ${signature}`, () => {
        assert.ok(functionsOf(contract).some((entry) => toFunctionSelector(entry) === selector));
      });
    }
  }
});

describe("The tests leave nothing of the contracts out", () => {
  for (const contract of REGISTRIES) {
    const instance = contract.replace("Registry", "").toLowerCase();

    test(`every function of ${contract} is called`, () => {
      const called = new Set(
        [...solidityTests.matchAll(/\b(?:identity|reputation|validation|registry|implementation)\s*\.(\w+)\(/g)].map(
          ([, name]) => name,
        ),
      );
      const left = functionsOf(contract).filter(({ name }) => !called.has(name));
      assert.deepEqual(left.map(({ name }) => name), []);
    });

    test(`every error that ${contract} declares is provoked`, () => {
      const own = readFileSync(`${ROOT}src/interfaces/I${contract}.sol`, "utf8") +
        readFileSync(`${ROOT}src/RegistryOfAgents.sol`, "utf8");
      const errors = [...own.matchAll(/^ {4}error (\w+)\(/gm)].map(([, name]) => name!);
      assert.ok(errors.length > 0);
      assert.deepEqual(errors.filter((name) => !solidityTests.includes(`.${name}.selector`)), []);
    });

    test(`every write of ${contract} is tried in a pause, and every read`, () => {
      const source = readFileSync(`${ROOT}test/Pause.t.sol`, "utf8");
      const writes = functionsOf(contract).filter(
        ({ name, stateMutability }) => /payable/.test(stateMutability) && !GOVERNMENT.has(name),
      );
      const refused = [...source.matchAll(/_expectPaused\(\);\s*(?:CHEATS\.prank\(\w+\);\s*)?(\w+)\.(\w+)\(/g)].filter(
        ([, target]) => target === instance,
      );
      const names = (list: string[]) => list.sort().join(" ");
      assert.equal(names(refused.map(([, , name]) => name!)), names(writes.map(({ name }) => name)));

      const reading = source.slice(source.indexOf("answers_every_read"), source.indexOf("does_not_stop_feedback"));
      const reads = readFileSync(`${ROOT}src/interfaces/I${contract}.sol`, "utf8");
      for (const [, name] of reads.matchAll(/function (\w+)\([^)]*\)\s*external\s+view/g)) {
        assert.ok(reading.includes(`${instance}.${name}(`), `${name} is not read in a pause`);
      }
    });

    test(`${contract} fits a block explorer's and EIP-170's limit`, () => {
      assert.ok((artifact(contract).deployedBytecode.length - 2) / 2 <= 24_576);
    });
  }
});
