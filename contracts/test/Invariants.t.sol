// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {Crowd} from "./support/Crowd.sol";
import {RegistryTest} from "./support/RegistryTest.sol";

/// @dev Whatever a crowd does in whatever order, with pauses in between, what the registries say is what happened.
/// forge-config: default.invariant.fail-on-revert = true
contract CrowdInvariants is RegistryTest {
    Crowd internal crowd;

    function setUp() public override {
        super.setUp();
        crowd = new Crowd(identity, reputation, validation, PAUSER);
    }

    function targetContracts() external view returns (address[] memory targets) {
        return _list(address(crowd));
    }

    function invariant_a_summary_over_all_clients_is_the_sum_of_their_feedback() external view {
        for (uint256 agentId = 0; agentId < crowd.agentCount(); ++agentId) {
            (uint64 count, int256 value, uint8 decimals) = crowd.summary(agentId);
            (uint64 gotCount, int128 gotValue, uint8 gotDecimals) = reputation.getSummary(
                agentId,
                crowd.everybody(),
                "",
                ""
            );
            CHEATS.assertEq(gotCount, count, "count");
            CHEATS.assertEq(gotValue, value, "value");
            CHEATS.assertEq(gotDecimals, decimals, "decimals");
        }
    }

    function invariant_every_feedback_is_where_it_was_put() external view {
        for (uint256 agentId = 0; agentId < crowd.agentCount(); ++agentId) {
            uint256 listed = 0;
            address[] memory clients = reputation.getClients(agentId);
            for (uint256 i = 0; i < clients.length; ++i) {
                listed += reputation.getLastIndex(agentId, clients[i]);
            }
            CHEATS.assertEq(listed, crowd.entryCount(agentId));
            for (uint256 i = 0; i < listed; ++i) {
                Crowd.Entry memory entry = crowd.entryAt(agentId, i);
                (int128 value, uint8 decimals, , , bool revoked) = reputation.readFeedback(
                    agentId,
                    entry.client,
                    entry.index
                );
                CHEATS.assertEq(value, entry.value);
                CHEATS.assertEq(decimals, entry.decimals);
                CHEATS.assertEq(revoked, entry.revoked);
            }
        }
    }

    function invariant_owners_and_wallets_are_those_of_the_books() external view {
        CHEATS.assertEq(crowd.survivingWallets(), 0);
        for (uint256 agentId = 0; agentId < crowd.agentCount(); ++agentId) {
            address wallet = crowd.walletOf(agentId);
            CHEATS.assertEq(identity.ownerOf(agentId), crowd.ownerOf(agentId));
            CHEATS.assertEq(identity.getAgentWallet(agentId), wallet);
            CHEATS.assertEq(
                identity.getMetadata(agentId, "agentWallet"),
                wallet == address(0) ? bytes("") : abi.encodePacked(wallet)
            );
        }
    }

    function invariant_validations_are_those_of_the_books() external view {
        bytes32[] memory requests = crowd.requests();
        uint256 listed = 0;
        for (uint256 agentId = 0; agentId < crowd.agentCount(); ++agentId) {
            listed += validation.getAgentValidations(agentId).length;
        }
        CHEATS.assertEq(listed, requests.length);
        for (uint256 i = 0; i < requests.length; ++i) {
            (, , uint8 response, , , ) = validation.getValidationStatus(requests[i]);
            CHEATS.assertEq(response, crowd.responseTo(requests[i]));
        }
    }

    function invariant_nothing_was_written_in_a_pause_and_nobody_praised_themselves() external view {
        CHEATS.assertEq(crowd.pausedWrites(), 0);
        CHEATS.assertEq(crowd.selfFeedback(), 0);
    }
}

/// @dev Holders of roles call every function of every registry with anything at all. Other people's agents and
/// feedback stay as they are.
contract RoleInvariants is RegistryTest {
    /// @dev What forge wants to know of an address to call.
    struct Target {
        address target;
        string[] artifacts;
    }

    uint256 internal agentId;

    function setUp() public override {
        super.setUp();
        agentId = _registerAgent();
        CHEATS.prank(OWNER);
        identity.setMetadata(agentId, "ens", "one.eth");
        _give(CLIENT, agentId, 80, 0, "starred", "");
        CHEATS.prank(OWNER);
        validation.validationRequest(VALIDATOR, agentId, "ipfs://request", "request");
    }

    /// @dev The proxies, called by what is behind them.
    function targetInterfaces() external view returns (Target[] memory targets) {
        targets = new Target[](3);
        targets[0] = _target(address(identity), "IdentityRegistry");
        targets[1] = _target(address(reputation), "ReputationRegistry");
        targets[2] = _target(address(validation), "ValidationRegistry");
    }

    function targetSenders() external view returns (address[] memory senders) {
        senders = new address[](3);
        (senders[0], senders[1], senders[2]) = (ADMIN, PAUSER, UPGRADER);
    }

    function invariant_no_role_moves_or_changes_an_agent() external view {
        CHEATS.assertEq(identity.ownerOf(agentId), OWNER);
        CHEATS.assertEq(identity.getApproved(agentId), APPROVED);
        CHEATS.assertTrue(identity.isApprovedForAll(OWNER, OPERATOR));
        CHEATS.assertEq(identity.tokenURI(agentId), "ipfs://agent");
        CHEATS.assertEq(identity.getAgentWallet(agentId), OWNER);
        CHEATS.assertEq(identity.getMetadata(agentId, "ens"), bytes("one.eth"));
    }

    function invariant_no_role_forges_or_revokes_feedback() external view {
        CHEATS.assertEq(reputation.getLastIndex(agentId, CLIENT), 1);
        (int128 value, , , , bool revoked) = reputation.readFeedback(agentId, CLIENT, 1);
        CHEATS.assertEq(value, 80);
        CHEATS.assertFalse(revoked);
        // They may give feedback as anybody may, but in no other name than their own.
        address[] memory clients = reputation.getClients(agentId);
        for (uint256 i = 0; i < clients.length; ++i) {
            address client = clients[i];
            CHEATS.assertTrue(client == CLIENT || client == ADMIN || client == PAUSER || client == UPGRADER);
        }
    }

    function invariant_no_role_answers_for_a_validator() external view {
        (address validator, , uint8 response, bytes32 responseHash, , ) = validation.getValidationStatus("request");
        CHEATS.assertEq(validator, VALIDATOR);
        CHEATS.assertEq(response, 0);
        CHEATS.assertEq(responseHash, bytes32(0));
        CHEATS.assertEq(validation.getAgentValidations(agentId).length, 1);
    }

    function _target(address proxy, string memory artifact) internal pure returns (Target memory target) {
        target = Target(proxy, new string[](1));
        target.artifacts[0] = artifact;
    }
}
