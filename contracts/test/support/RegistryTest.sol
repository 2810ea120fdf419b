// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {IdentityRegistry} from "../../src/IdentityRegistry.sol";
import {RegistryOfAgents} from "../../src/RegistryOfAgents.sol";
import {ReputationRegistry} from "../../src/ReputationRegistry.sol";
import {ValidationRegistry} from "../../src/ValidationRegistry.sol";
import {Cheats} from "./Cheats.sol";

/// @dev The three registries behind proxies, freshly deployed for each test, and people to use them.
abstract contract RegistryTest {
    // Tells forge that this is a test contract.
    bool public constant IS_TEST = true;

    Cheats internal constant CHEATS = Cheats(address(uint160(uint256(keccak256("hevm cheat code")))));

    address internal immutable ADMIN = _person("admin");
    address internal immutable PAUSER = _person("pauser");
    address internal immutable UPGRADER = _person("upgrader");
    address internal immutable OWNER = _person("owner");
    address internal immutable OPERATOR = _person("operator");
    address internal immutable APPROVED = _person("approved");
    address internal immutable CLIENT = _person("client");
    address internal immutable VALIDATOR = _person("validator");
    address internal immutable STRANGER = _person("stranger");

    IdentityRegistry internal identity;
    ReputationRegistry internal reputation;
    ValidationRegistry internal validation;

    function setUp() public virtual {
        CHEATS.warp(1_700_000_000);
        bytes memory setup = abi.encodeCall(IdentityRegistry.initialize, (ADMIN, 1 days, PAUSER, UPGRADER));
        identity = IdentityRegistry(_proxy(_deploy("IdentityRegistry"), setup));
        setup = abi.encodeCall(RegistryOfAgents.initialize, (identity, ADMIN, 1 days, PAUSER, UPGRADER));
        reputation = ReputationRegistry(_proxy(_deploy("ReputationRegistry"), setup));
        validation = ValidationRegistry(_proxy(_deploy("ValidationRegistry"), setup));
    }

    /// @dev Deploys what the compiler left for a contract of src/. A `new` in the test would have the compiler build
    /// the contract into each test once more, which takes minutes.
    function _deploy(string memory name) internal returns (address deployed) {
        return CHEATS.deployCode(string.concat(name, ".sol:", name));
    }

    function _proxy(address implementation, bytes memory setup) internal returns (address proxy) {
        return CHEATS.deployCode("RegistryProxy.sol:RegistryProxy", abi.encode(implementation, setup));
    }

    /// @dev An agent of OWNER, with OPERATOR for all of its agents and APPROVED for this one.
    function _registerAgent() internal returns (uint256 agentId) {
        CHEATS.startPrank(OWNER);
        agentId = identity.register("ipfs://agent");
        identity.setApprovalForAll(OPERATOR, true);
        identity.approve(APPROVED, agentId);
        CHEATS.stopPrank();
    }

    function _give(address client, uint256 agentId, int128 value, uint8 decimals) internal {
        _give(client, agentId, value, decimals, "", "");
    }

    function _give(
        address client,
        uint256 agentId,
        int128 value,
        uint8 decimals,
        string memory tag1,
        string memory tag2
    ) internal {
        CHEATS.prank(client);
        reputation.giveFeedback(agentId, value, decimals, tag1, tag2, "", "", 0);
    }

    /// @dev The wallet's EIP-712 signature, built here from the standard's text and not by the contract's code.
    function _signWallet(
        uint256 key,
        uint256 agentId,
        address owner,
        uint256 deadline
    ) internal view returns (bytes memory signature) {
        (uint8 v, bytes32 r, bytes32 s) = CHEATS.sign(key, _walletDigest(CHEATS.addr(key), agentId, owner, deadline));
        return abi.encodePacked(r, s, v);
    }

    function _walletDigest(
        address wallet,
        uint256 agentId,
        address owner,
        uint256 deadline
    ) internal view returns (bytes32 digest) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("ERC8004IdentityRegistry"),
                keccak256("1"),
                block.chainid,
                address(identity)
            )
        );
        bytes32 message = keccak256(
            abi.encode(
                keccak256("AgentWalletSet(uint256 agentId,address newWallet,address owner,uint256 deadline)"),
                agentId,
                wallet,
                owner,
                deadline
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, message));
    }

    function _list() internal pure returns (address[] memory list) {}

    function _list(address one) internal pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = one;
    }

    function _list(address one, address two) internal pure returns (address[] memory list) {
        list = new address[](2);
        (list[0], list[1]) = (one, two);
    }

    /// @dev An address that belongs to a word; nobody knows its key.
    function _person(string memory name) internal pure returns (address account) {
        return address(uint160(uint256(keccak256(bytes(name)))));
    }
}
