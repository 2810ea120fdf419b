// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {IdentityRegistry} from "../../src/IdentityRegistry.sol";
import {ReputationRegistry} from "../../src/ReputationRegistry.sol";
import {ValidationRegistry} from "../../src/ValidationRegistry.sol";
import {Cheats} from "./Cheats.sol";

/// @dev A small crowd that uses the registries at random, and keeps its own books of what the registries should say.
contract Crowd {
    struct Entry {
        address client;
        uint64 index;
        int128 value;
        uint8 decimals;
        bool revoked;
    }

    Cheats internal constant CHEATS = Cheats(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 internal constant PEOPLE = 5;

    IdentityRegistry public immutable IDENTITY;
    ReputationRegistry public immutable REPUTATION;
    ValidationRegistry public immutable VALIDATION;
    address public immutable PAUSER;

    uint256 public agentCount;
    mapping(uint256 agentId => address owner) public ownerOf;
    mapping(uint256 agentId => address wallet) public walletOf;
    mapping(uint256 agentId => Entry[] entries) private _entries;
    mapping(bytes32 requestHash => uint256 response) private _responses;
    bytes32[] private _requests;

    /// @dev Writes that went through although the registry was paused. Stays 0.
    uint256 public pausedWrites;
    /// @dev Transfers after which the wallet was still there. Stays 0.
    uint256 public survivingWallets;
    /// @dev Feedback that an agent's own people could give. Stays 0.
    uint256 public selfFeedback;

    constructor(
        IdentityRegistry identity,
        ReputationRegistry reputation,
        ValidationRegistry validation,
        address pauser
    ) {
        IDENTITY = identity;
        REPUTATION = reputation;
        VALIDATION = validation;
        PAUSER = pauser;
    }

    // What the crowd does

    function register(uint256 who) external {
        address owner = person(who);
        bool paused = IDENTITY.paused();
        CHEATS.prank(owner);
        try IDENTITY.register("ipfs://agent") returns (uint256 agentId) {
            if (paused) ++pausedWrites;
            CHEATS.assertEq(agentId, agentCount);
            ownerOf[agentId] = owner;
            walletOf[agentId] = owner;
            ++agentCount;
        } catch {
            CHEATS.assertTrue(paused);
        }
    }

    function transfer(uint256 which, uint256 to) external {
        if (agentCount == 0) return;
        uint256 agentId = which % agentCount;
        bool paused = IDENTITY.paused();
        CHEATS.prank(ownerOf[agentId]);
        try IDENTITY.transferFrom(ownerOf[agentId], person(to), agentId) {
            if (paused) ++pausedWrites;
            if (IDENTITY.getAgentWallet(agentId) != address(0)) ++survivingWallets;
            ownerOf[agentId] = person(to);
            walletOf[agentId] = address(0);
        } catch {
            CHEATS.assertTrue(paused);
        }
    }

    function changeWallet(uint256 which, uint256 to) external {
        if (agentCount == 0) return;
        uint256 agentId = which % agentCount;
        address owner = ownerOf[agentId];
        bool paused = IDENTITY.paused();
        bytes memory signature = _signWallet(to % PEOPLE, agentId, owner);
        CHEATS.prank(owner);
        try IDENTITY.setAgentWallet(agentId, person(to), block.timestamp, signature) {
            if (paused) ++pausedWrites;
            walletOf[agentId] = person(to);
        } catch {
            CHEATS.assertTrue(paused);
        }
    }

    function give(uint256 who, uint256 which, int128 value, uint8 decimals) external {
        if (agentCount == 0) return;
        uint256 agentId = which % agentCount;
        address client = person(who);
        value = int128(int256(value) % 1e19);
        // Few kinds of decimals, so that there is a most frequent one.
        decimals = (decimals % 4) * 6;
        bool paused = REPUTATION.paused();
        CHEATS.prank(client);
        try REPUTATION.giveFeedback(agentId, value, decimals, "starred", "", "", "", 0) {
            if (paused) ++pausedWrites;
            if (client == ownerOf[agentId]) ++selfFeedback;
            _entries[agentId].push(
                Entry(client, REPUTATION.getLastIndex(agentId, client), value, decimals, false)
            );
        } catch {
            CHEATS.assertTrue(paused || client == ownerOf[agentId]);
        }
    }

    function revoke(uint256 which, uint256 entryIndex) external {
        if (agentCount == 0) return;
        uint256 agentId = which % agentCount;
        if (_entries[agentId].length == 0) return;
        Entry storage entry = _entries[agentId][entryIndex % _entries[agentId].length];
        bool paused = REPUTATION.paused();
        CHEATS.prank(entry.client);
        try REPUTATION.revokeFeedback(agentId, entry.index) {
            if (paused) ++pausedWrites;
            entry.revoked = true;
        } catch {
            CHEATS.assertTrue(paused || entry.revoked);
        }
    }

    function validate(uint256 which, uint256 who, uint8 response) external {
        if (agentCount == 0) return;
        uint256 agentId = which % agentCount;
        bytes32 requestHash = bytes32(_requests.length);
        bool paused = VALIDATION.paused();
        CHEATS.prank(ownerOf[agentId]);
        try VALIDATION.validationRequest(person(who), agentId, "", requestHash) {
            if (paused) ++pausedWrites;
            _requests.push(requestHash);
            CHEATS.prank(person(who));
            VALIDATION.validationResponse(requestHash, response % 101, "", 0, "");
            _responses[requestHash] = response % 101;
        } catch {
            CHEATS.assertTrue(paused);
        }
    }

    function togglePause(uint256 which) external {
        CHEATS.startPrank(PAUSER);
        if (which % 3 == 0) {
            IDENTITY.paused() ? IDENTITY.unpause() : IDENTITY.pause();
        } else if (which % 3 == 1) {
            REPUTATION.paused() ? REPUTATION.unpause() : REPUTATION.pause();
        } else {
            VALIDATION.paused() ? VALIDATION.unpause() : VALIDATION.pause();
        }
        CHEATS.stopPrank();
    }

    // What the books say

    /// @dev The summary over all clients, worked out here the long way: the whole sum first, then one division.
    function summary(uint256 agentId) external view returns (uint64 count, int256 value, uint8 decimals) {
        uint256[19] memory seen;
        int256 sum = 0;
        for (uint256 i = 0; i < _entries[agentId].length; ++i) {
            Entry storage entry = _entries[agentId][i];
            if (entry.revoked) continue;
            sum += int256(entry.value) * int256(10 ** (18 - uint256(entry.decimals)));
            ++seen[entry.decimals];
            ++count;
        }
        if (count == 0) return (0, 0, 0);
        for (uint8 i = 19; i > 0; --i) {
            if (seen[i - 1] >= seen[decimals] && seen[i - 1] != 0) decimals = i - 1;
        }
        // Dropping the remainder twice is the same as dropping it once by the product of the divisors.
        value = sum / (int256(uint256(count)) * int256(10 ** (18 - uint256(decimals))));
    }

    function entryCount(uint256 agentId) external view returns (uint256 count) {
        return _entries[agentId].length;
    }

    function entryAt(uint256 agentId, uint256 i) external view returns (Entry memory entry) {
        return _entries[agentId][i];
    }

    function requests() external view returns (bytes32[] memory requestHashes) {
        return _requests;
    }

    function responseTo(bytes32 requestHash) external view returns (uint256 response) {
        return _responses[requestHash];
    }

    function person(uint256 who) public pure returns (address account) {
        return CHEATS.addr(_key(who % PEOPLE));
    }

    function everybody() external pure returns (address[] memory people) {
        people = new address[](PEOPLE);
        for (uint256 i = 0; i < PEOPLE; ++i) {
            people[i] = person(i);
        }
    }

    function _key(uint256 who) private pure returns (uint256 key) {
        return uint256(keccak256(abi.encode("crowd", who))) >> 1;
    }

    function _signWallet(
        uint256 who,
        uint256 agentId,
        address owner
    ) private view returns (bytes memory signature) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("ERC8004IdentityRegistry"),
                keccak256("1"),
                block.chainid,
                address(IDENTITY)
            )
        );
        bytes32 message = keccak256(
            abi.encode(
                keccak256("AgentWalletSet(uint256 agentId,address newWallet,address owner,uint256 deadline)"),
                agentId,
                person(who),
                owner,
                block.timestamp
            )
        );
        (uint8 v, bytes32 r, bytes32 s) = CHEATS.sign(
            _key(who),
            keccak256(abi.encodePacked(hex"1901", domain, message))
        );
        return abi.encodePacked(r, s, v);
    }
}
