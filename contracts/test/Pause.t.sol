// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {PausableUpgradeable} from "@openzeppelin/contracts-upgradeable/utils/PausableUpgradeable.sol";
import {IERC721Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IIdentityRegistry} from "../src/interfaces/IIdentityRegistry.sol";
import {RegistryTest} from "./support/RegistryTest.sol";

/// @dev The list of all writes and reads is held against the compiled interface by test/abi.test.ts.
contract PauseTest is RegistryTest {
    uint256 internal agentId;

    function setUp() public override {
        super.setUp();
        agentId = _registerAgent();
        _give(CLIENT, agentId, 80, 0, "starred", "");
        CHEATS.prank(OWNER);
        validation.validationRequest(VALIDATOR, agentId, "ipfs://request", "request");
        CHEATS.startPrank(PAUSER);
        identity.pause();
        reputation.pause();
        validation.pause();
        CHEATS.stopPrank();
    }

    function test_a_paused_identity_registry_accepts_no_write() public {
        IIdentityRegistry.MetadataEntry[] memory metadata;
        CHEATS.startPrank(OWNER);
        _expectPaused();
        identity.register();
        _expectPaused();
        identity.register("ipfs://agent");
        _expectPaused();
        identity.register("ipfs://agent", metadata);
        _expectPaused();
        identity.setAgentURI(agentId, "ipfs://other");
        _expectPaused();
        identity.setMetadata(agentId, "ens", "one.eth");
        _expectPaused();
        identity.setAgentWallet(agentId, CLIENT, block.timestamp, "");
        _expectPaused();
        identity.unsetAgentWallet(agentId);
        _expectPaused();
        identity.approve(CLIENT, agentId);
        _expectPaused();
        identity.setApprovalForAll(CLIENT, true);
        _expectPaused();
        identity.transferFrom(OWNER, CLIENT, agentId);
        _expectPaused();
        identity.safeTransferFrom(OWNER, CLIENT, agentId);
        _expectPaused();
        identity.safeTransferFrom(OWNER, CLIENT, agentId, "");
    }

    function test_a_pause_lets_approvals_be_taken_back() public {
        CHEATS.startPrank(OWNER);
        identity.approve(address(0), agentId);
        identity.setApprovalForAll(OPERATOR, false);
        CHEATS.stopPrank();
        CHEATS.assertEq(identity.getApproved(agentId), address(0));
        CHEATS.assertFalse(identity.isApprovedForAll(OWNER, OPERATOR));
        CHEATS.assertFalse(identity.isAuthorizedOrOwner(OPERATOR, agentId));
    }

    function test_a_pause_lets_nobody_take_back_the_approvals_of_others() public {
        CHEATS.prank(CLIENT);
        CHEATS.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721InvalidApprover.selector, CLIENT));
        identity.approve(address(0), agentId);
        CHEATS.prank(CLIENT);
        identity.setApprovalForAll(OPERATOR, false);
        CHEATS.assertEq(identity.getApproved(agentId), APPROVED);
        CHEATS.assertTrue(identity.isApprovedForAll(OWNER, OPERATOR));
    }

    function test_a_paused_reputation_registry_accepts_no_write() public {
        CHEATS.startPrank(CLIENT);
        _expectPaused();
        reputation.giveFeedback(agentId, 1, 0, "", "", "", "", 0);
        _expectPaused();
        reputation.revokeFeedback(agentId, 1);
        _expectPaused();
        reputation.appendResponse(agentId, CLIENT, 1, "ipfs://response", 0);
    }

    function test_a_paused_validation_registry_accepts_no_write() public {
        _expectPaused();
        CHEATS.prank(OWNER);
        validation.validationRequest(VALIDATOR, agentId, "", "other");
        _expectPaused();
        CHEATS.prank(VALIDATOR);
        validation.validationResponse("request", 1, "", 0, "");
    }

    function test_a_paused_registry_answers_every_read() public view {
        CHEATS.assertEq(identity.ownerOf(agentId), OWNER);
        CHEATS.assertEq(identity.balanceOf(OWNER), 1);
        CHEATS.assertEq(identity.getApproved(agentId), APPROVED);
        CHEATS.assertTrue(identity.isApprovedForAll(OWNER, OPERATOR));
        CHEATS.assertTrue(identity.isAuthorizedOrOwner(OPERATOR, agentId));
        CHEATS.assertEq(identity.tokenURI(agentId), "ipfs://agent");
        CHEATS.assertEq(identity.getAgentWallet(agentId), OWNER);
        CHEATS.assertEq(identity.getMetadata(agentId, "agentWallet"), abi.encodePacked(OWNER));
        CHEATS.assertEq(identity.name(), "AgentIdentity");
        CHEATS.assertEq(identity.symbol(), "AGENT");
        CHEATS.assertEq(identity.getVersion(), "2.0.0");
        (uint64 count, int128 value, ) = reputation.getSummary(agentId, _list(CLIENT), "", "");
        CHEATS.assertEq(count, 1);
        CHEATS.assertEq(value, 80);
        (value, , , , ) = reputation.readFeedback(agentId, CLIENT, 1);
        CHEATS.assertEq(value, 80);
        (address[] memory clients, , , , , , ) = reputation.readAllFeedback(agentId, _list(), "", "", true);
        CHEATS.assertEq(clients[0], CLIENT);
        CHEATS.assertEq(reputation.getClients(agentId).length, 1);
        CHEATS.assertEq(reputation.getLastIndex(agentId, CLIENT), 1);
        CHEATS.assertEq(reputation.getResponseCount(agentId, CLIENT, 0, _list()), 0);
        CHEATS.assertEq(reputation.getIdentityRegistry(), address(identity));
        (address validator, , , , , ) = validation.getValidationStatus("request");
        CHEATS.assertEq(validator, VALIDATOR);
        (count, ) = validation.getSummary(agentId, _list(), "");
        CHEATS.assertEq(count, 0);
        CHEATS.assertEq(validation.getAgentValidations(agentId).length, 1);
        CHEATS.assertEq(validation.getValidatorRequests(VALIDATOR).length, 1);
        CHEATS.assertEq(validation.getIdentityRegistry(), address(identity));
    }

    function test_a_paused_identity_registry_does_not_stop_feedback() public {
        CHEATS.prank(PAUSER);
        reputation.unpause();
        _give(CLIENT, agentId, 90, 0);
        CHEATS.assertEq(reputation.getLastIndex(agentId, CLIENT), 2);
    }

    function test_writes_go_on_after_a_pause() public {
        CHEATS.startPrank(PAUSER);
        identity.unpause();
        reputation.unpause();
        validation.unpause();
        CHEATS.stopPrank();
        CHEATS.prank(OWNER);
        CHEATS.assertEq(identity.register(), agentId + 1);
        _give(CLIENT, agentId, 90, 0);
        CHEATS.prank(VALIDATOR);
        validation.validationResponse("request", 1, "", 0, "");
    }

    function _expectPaused() internal {
        CHEATS.expectRevert(PausableUpgradeable.EnforcedPause.selector);
    }
}
