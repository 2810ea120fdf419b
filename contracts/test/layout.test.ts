// Storage that proxies have must stay where it is.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { REGISTRIES } from "../scripts/lib/deployment.ts";
import { incompatibilities, layoutsOf, recordedLayout } from "../scripts/lib/layout.ts";

/** What the check says of a registry whose source has been changed. */
function after(registry: string, path: string, before: string, now: string): string[] {
  let edited = false;
  const layouts = layoutsOf([registry], (source, of) => {
    if (of !== path) return source;
    assert.ok(source.includes(before), `${path} has no: ${before}`);
    edited = true;
    return source.replace(before, now);
  });
  assert.ok(edited);
  return incompatibilities(recordedLayout(registry), layouts[registry]!);
}

describe("Storage layout", () => {
  const layouts = layoutsOf(REGISTRIES);
  for (const registry of REGISTRIES) {
    test(`${registry} keeps its storage where layout/ has it`, () => {
      assert.deepEqual(incompatibilities(recordedLayout(registry), layouts[registry]!), []);
    });
  }

  test("what is recorded is not empty", () => {
    assert.equal(recordedLayout("IdentityRegistry").variables.length, 3);
    assert.equal(recordedLayout("ReputationRegistry").variables.length, 4);
    assert.equal(recordedLayout("ValidationRegistry").variables.length, 4);
    for (const registry of REGISTRIES) {
      assert.ok("erc7201:openzeppelin.storage.Pausable" in recordedLayout(registry).namespaces);
    }
  });

  test("a variable put in front is found out", () => {
    const found = after(
      "IdentityRegistry",
      "src/IdentityRegistry.sol",
      "uint256 private _nextAgentId;",
      "uint256 private _intruder;\n    uint256 private _nextAgentId;",
    );
    assert.match(found[0]!, /was "0\+0 _nextAgentId: uint256", is "0\+0 _intruder: uint256"/);
  });

  test("a variable put into the common base is found out", () => {
    const found = after(
      "ValidationRegistry",
      "src/RegistryGovernance.sol",
      "    /// @dev An implementation is never",
      "    uint256 private _intruder;\n    /// @dev An implementation is never",
    );
    assert.equal(found.length, 4);
  });

  test("another type in the same place is found out", () => {
    const found = after(
      "ReputationRegistry",
      "src/ReputationRegistry.sol",
      "        uint64 total;\n",
      "        uint32 total;\n",
    );
    assert.equal(found.length, 1);
  });

  test("a member put into a struct deep inside a mapping is found out", () => {
    const found = after(
      "ReputationRegistry",
      "src/ReputationRegistry.sol",
      "        uint64 total;\n",
      "        uint64 other;\n        uint64 total;\n",
    );
    assert.equal(found.length, 1);
  });

  test("a change inside OpenZeppelin's storage is found out", () => {
    const found = after(
      "IdentityRegistry",
      "@openzeppelin/contracts-upgradeable/token/ERC721/ERC721Upgradeable.sol",
      "string _name;",
      "bytes32 _name2; string _name;",
    );
    assert.match(found[0]!, /openzeppelin\.storage\.ERC721/);
  });

  test("a variable after the last one is no problem", () => {
    const found = after(
      "ReputationRegistry",
      "src/ReputationRegistry.sol",
      "        private _responses;",
      "        private _responses;\n    uint256 private _added;",
    );
    assert.deepEqual(found, []);
  });
});
