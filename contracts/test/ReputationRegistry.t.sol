// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {IERC721Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IReputationRegistry} from "../src/interfaces/IReputationRegistry.sol";
import {RegistryTest} from "./support/RegistryTest.sol";

contract ReputationRegistryTest is RegistryTest {
    // Giving

    function test_feedback_is_announced_and_read() public {
        uint256 agentId = _registerAgent();
        CHEATS.expectEmit(address(reputation));
        emit IReputationRegistry.NewFeedback(
            agentId,
            CLIENT,
            1,
            -9977,
            2,
            "uptime",
            "uptime",
            "day",
            "https://agent.example/a2a",
            "ipfs://feedback",
            keccak256("file")
        );
        CHEATS.prank(CLIENT);
        reputation.giveFeedback(
            agentId,
            -9977,
            2,
            "uptime",
            "day",
            "https://agent.example/a2a",
            "ipfs://feedback",
            keccak256("file")
        );
        _expectFeedback(agentId, CLIENT, 1, -9977, 2, "uptime", "day", false);
    }

    function test_feedback_counts_from_1_for_each_agent_and_client() public {
        uint256 agentId = _registerAgent();
        CHEATS.prank(OWNER);
        uint256 other = identity.register();
        CHEATS.assertEq(reputation.getLastIndex(agentId, CLIENT), 0);
        _give(CLIENT, agentId, 1, 0);
        _give(CLIENT, agentId, 2, 0);
        _give(STRANGER, agentId, 3, 0);
        _give(CLIENT, other, 4, 0);
        CHEATS.assertEq(reputation.getLastIndex(agentId, CLIENT), 2);
        CHEATS.assertEq(reputation.getLastIndex(agentId, STRANGER), 1);
        CHEATS.assertEq(reputation.getLastIndex(other, CLIENT), 1);
        CHEATS.assertEq(abi.encode(reputation.getClients(agentId)), abi.encode(_list(CLIENT, STRANGER)));
        CHEATS.assertEq(abi.encode(reputation.getClients(other)), abi.encode(_list(CLIENT)));
    }

    function test_owner_operator_and_approved_give_no_feedback_to_their_agent() public {
        uint256 agentId = _registerAgent();
        address[3] memory own = [OWNER, OPERATOR, APPROVED];
        for (uint256 i = 0; i < own.length; ++i) {
            CHEATS.expectRevert(
                abi.encodeWithSelector(IReputationRegistry.SelfFeedback.selector, agentId, own[i])
            );
            _give(own[i], agentId, 100, 0);
        }
    }

    function test_an_agent_that_does_not_exist_gets_no_feedback() public {
        CHEATS.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721NonexistentToken.selector, 7));
        _give(CLIENT, 7, 1, 0);
    }

    function test_at_most_18_decimals() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 1, 18);
        CHEATS.expectRevert(abi.encodeWithSelector(IReputationRegistry.TooManyDecimals.selector, 19));
        _give(CLIENT, agentId, 1, 19);
    }

    function test_values_are_within_1e38() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 1e38, 0);
        _give(CLIENT, agentId, -1e38, 0);
        CHEATS.expectRevert(
            abi.encodeWithSelector(IReputationRegistry.ValueOutOfRange.selector, int128(1e38 + 1))
        );
        _give(CLIENT, agentId, 1e38 + 1, 0);
        CHEATS.expectRevert(
            abi.encodeWithSelector(IReputationRegistry.ValueOutOfRange.selector, int128(-1e38 - 1))
        );
        _give(CLIENT, agentId, -1e38 - 1, 0);
        CHEATS.expectRevert(
            abi.encodeWithSelector(IReputationRegistry.ValueOutOfRange.selector, type(int128).min)
        );
        _give(CLIENT, agentId, type(int128).min, 0);
    }

    // Revoking

    function test_revoked_feedback_stays_readable_and_does_not_count() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 80, 0, "starred", "");
        _give(CLIENT, agentId, 20, 0, "starred", "");
        CHEATS.expectEmit(address(reputation));
        emit IReputationRegistry.FeedbackRevoked(agentId, CLIENT, 2);
        CHEATS.prank(CLIENT);
        reputation.revokeFeedback(agentId, 2);
        _expectFeedback(agentId, CLIENT, 2, 20, 0, "starred", "", true);
        _expectSummary(agentId, _list(CLIENT), "", "", 1, 80, 0);
        CHEATS.assertEq(reputation.getLastIndex(agentId, CLIENT), 2);
    }

    function test_feedback_is_revoked_once_and_by_its_client_only() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 80, 0);
        CHEATS.expectRevert(
            abi.encodeWithSelector(IReputationRegistry.FeedbackNotFound.selector, agentId, OWNER, 1)
        );
        CHEATS.prank(OWNER);
        reputation.revokeFeedback(agentId, 1);
        CHEATS.startPrank(CLIENT);
        reputation.revokeFeedback(agentId, 1);
        CHEATS.expectRevert(
            abi.encodeWithSelector(IReputationRegistry.FeedbackAlreadyRevoked.selector, agentId, CLIENT, 1)
        );
        reputation.revokeFeedback(agentId, 1);
    }

    function test_there_is_no_feedback_0_and_none_after_the_last() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 80, 0);
        uint64[2] memory indexes = [uint64(0), 2];
        for (uint256 i = 0; i < indexes.length; ++i) {
            bytes memory refusal = abi.encodeWithSelector(
                IReputationRegistry.FeedbackNotFound.selector,
                agentId,
                CLIENT,
                indexes[i]
            );
            CHEATS.expectRevert(refusal);
            reputation.readFeedback(agentId, CLIENT, indexes[i]);
            CHEATS.expectRevert(refusal);
            reputation.appendResponse(agentId, CLIENT, indexes[i], "ipfs://response", 0);
            CHEATS.expectRevert(refusal);
            CHEATS.prank(CLIENT);
            reputation.revokeFeedback(agentId, indexes[i]);
        }
    }

    // Responses

    function test_anybody_responds_and_responses_are_counted() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 80, 0);
        _give(CLIENT, agentId, 81, 0);
        _give(STRANGER, agentId, 82, 0);
        CHEATS.expectEmit(address(reputation));
        emit IReputationRegistry.ResponseAppended(agentId, CLIENT, 1, OWNER, "ipfs://response", keccak256("r"));
        CHEATS.prank(OWNER);
        reputation.appendResponse(agentId, CLIENT, 1, "ipfs://response", keccak256("r"));
        _respond(OWNER, agentId, CLIENT, 1);
        _respond(VALIDATOR, agentId, CLIENT, 1);
        _respond(VALIDATOR, agentId, CLIENT, 2);
        _respond(OWNER, agentId, STRANGER, 1);

        _expectResponses(agentId, CLIENT, 1, _list(), 3);
        _expectResponses(agentId, CLIENT, 1, _list(OWNER), 2);
        _expectResponses(agentId, CLIENT, 1, _list(OWNER, VALIDATOR), 3);
        _expectResponses(agentId, CLIENT, 2, _list(OWNER), 0);
        _expectResponses(agentId, CLIENT, 3, _list(), 0);
        _expectResponses(agentId, CLIENT, 0, _list(), 4);
        _expectResponses(agentId, CLIENT, 0, _list(VALIDATOR), 2);
        _expectResponses(agentId, address(0), 0, _list(), 5);
        _expectResponses(agentId, address(0), 2, _list(OWNER), 3);
        _expectResponses(agentId, APPROVED, 0, _list(), 0);
        _expectResponses(agentId + 1, address(0), 0, _list(), 0);
    }

    function test_a_response_says_where_it_is() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 80, 0);
        CHEATS.expectRevert(IReputationRegistry.EmptyResponseURI.selector);
        reputation.appendResponse(agentId, CLIENT, 1, "", keccak256("r"));
    }

    function test_revoked_feedback_can_be_responded_to() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 80, 0);
        CHEATS.prank(CLIENT);
        reputation.revokeFeedback(agentId, 1);
        _respond(OWNER, agentId, CLIENT, 1);
        _expectResponses(agentId, CLIENT, 1, _list(), 1);
    }

    // Summary

    function test_a_summary_is_over_named_clients() public {
        uint256 agentId = _registerAgent();
        CHEATS.expectRevert(IReputationRegistry.ClientAddressesRequired.selector);
        reputation.getSummary(agentId, _list(), "", "");
    }

    function test_a_summary_without_match_is_zero() public {
        uint256 agentId = _registerAgent();
        _expectSummary(agentId, _list(CLIENT), "", "", 0, 0, 0);
        _give(CLIENT, agentId, 7, 3, "uptime", "");
        _expectSummary(agentId, _list(CLIENT), "starred", "", 0, 0, 0);
        _expectSummary(agentId, _list(STRANGER), "", "", 0, 0, 0);
        _expectSummary(agentId + 1, _list(CLIENT), "", "", 0, 0, 0);
    }

    function test_a_summary_is_filtered_by_tags_and_clients() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 80, 0, "starred", "day");
        _give(CLIENT, agentId, 90, 0, "starred", "week");
        _give(STRANGER, agentId, 100, 0, "uptime", "day");
        _expectSummary(agentId, _list(CLIENT, STRANGER), "", "", 3, 90, 0);
        _expectSummary(agentId, _list(CLIENT, STRANGER), "starred", "", 2, 85, 0);
        _expectSummary(agentId, _list(CLIENT, STRANGER), "", "day", 2, 90, 0);
        _expectSummary(agentId, _list(CLIENT, STRANGER), "starred", "week", 1, 90, 0);
        _expectSummary(agentId, _list(STRANGER), "", "", 1, 100, 0);
    }

    function test_a_client_listed_twice_counts_twice() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 10, 0);
        _expectSummary(agentId, _list(CLIENT, CLIENT), "", "", 2, 10, 0);
    }

    function test_a_summary_has_the_most_frequent_decimals() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 1, 0);
        _give(CLIENT, agentId, 9977, 2);
        _give(CLIENT, agentId, 9977, 2);
        // (1 + 99.77 + 99.77) / 3 = 66.8466…
        _expectSummary(agentId, _list(CLIENT), "", "", 3, 6684, 2);
    }

    function test_a_tie_of_decimals_goes_to_the_smaller() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 25, 1);
        _give(CLIENT, agentId, 3, 0);
        // (2.5 + 3) / 2 = 2.75
        _expectSummary(agentId, _list(CLIENT), "", "", 2, 2, 0);
        _give(CLIENT, agentId, 275, 2);
        _give(CLIENT, agentId, 275, 2);
        _give(CLIENT, agentId, 25, 1);
        // two of 2 decimals, two of 1, one of 0: (2.5 + 3 + 2.75 + 2.75 + 2.5) / 5 = 2.7
        _expectSummary(agentId, _list(CLIENT), "", "", 5, 27, 1);
    }

    function test_both_divisions_cut_toward_zero() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, -1, 0);
        _give(CLIENT, agentId, 0, 0);
        _expectSummary(agentId, _list(CLIENT), "", "", 2, 0, 0);
        _give(STRANGER, agentId, -7, 0);
        _give(STRANGER, agentId, -8, 0);
        _expectSummary(agentId, _list(STRANGER), "", "", 2, -7, 0);
        _give(VALIDATOR, agentId, -1, 18);
        _give(VALIDATOR, agentId, -2, 18);
        _expectSummary(agentId, _list(VALIDATOR), "", "", 2, -1, 18);
    }

    function test_an_average_that_does_not_fit_reverts_instead_of_wrapping() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 1e38, 0);
        _expectSummary(agentId, _list(CLIENT), "", "", 1, 1e38, 0);
        _give(CLIENT, agentId, 0, 18);
        _give(CLIENT, agentId, 0, 18);
        CHEATS.expectRevert(
            abi.encodeWithSelector(
                SafeCast.SafeCastOverflowedIntDowncast.selector,
                uint8(128),
                int256(1e56) / 3
            )
        );
        reputation.getSummary(agentId, _list(CLIENT), "", "");
    }

    // Lists

    function test_all_feedback_is_read_client_by_client() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 1, 0, "starred", "day");
        _give(STRANGER, agentId, 2, 1, "uptime", "day");
        _give(CLIENT, agentId, 3, 2, "starred", "week");
        CHEATS.prank(CLIENT);
        reputation.revokeFeedback(agentId, 1);

        _expectValues(agentId, _list(), "", "", true, "1,3,2");
        _expectValues(agentId, _list(), "", "", false, "3,2");
        _expectValues(agentId, _list(STRANGER), "", "", true, "2");
        _expectValues(agentId, _list(STRANGER, CLIENT), "", "", false, "2,3");
        _expectValues(agentId, _list(), "starred", "", true, "1,3");
        _expectValues(agentId, _list(), "", "day", true, "1,2");
        _expectValues(agentId, _list(), "uptime", "week", true, "");
        _expectValues(agentId + 1, _list(), "", "", true, "");
    }

    function test_all_columns_of_all_feedback() public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 1, 0, "starred", "day");
        _give(CLIENT, agentId, -3, 2, "uptime", "week");
        CHEATS.prank(CLIENT);
        reputation.revokeFeedback(agentId, 2);
        (
            address[] memory clients,
            uint64[] memory indexes,
            int128[] memory values,
            uint8[] memory decimals,
            string[] memory tag1s,
            string[] memory tag2s,
            bool[] memory revoked
        ) = reputation.readAllFeedback(agentId, _list(), "uptime", "", true);
        CHEATS.assertEq(abi.encode(clients), abi.encode(_list(CLIENT)));
        CHEATS.assertEq(indexes[0], 2);
        CHEATS.assertEq(values[0], -3);
        CHEATS.assertEq(decimals[0], 2);
        CHEATS.assertEq(tag1s[0], "uptime");
        CHEATS.assertEq(tag2s[0], "week");
        CHEATS.assertTrue(revoked[0]);
        CHEATS.assertEq(indexes.length, 1);
        CHEATS.assertEq(values.length, 1);
        CHEATS.assertEq(decimals.length, 1);
        CHEATS.assertEq(tag1s.length, 1);
        CHEATS.assertEq(tag2s.length, 1);
        CHEATS.assertEq(revoked.length, 1);
    }

    function test_what_it_says_of_itself() public view {
        CHEATS.assertEq(reputation.getIdentityRegistry(), address(identity));
        CHEATS.assertEq(reputation.MAX_ABS_VALUE(), 1e38);
        CHEATS.assertEq(reputation.MAX_DECIMALS(), 18);
        CHEATS.assertTrue(reputation.supportsInterface(type(IReputationRegistry).interfaceId));
        CHEATS.assertTrue(reputation.supportsInterface(type(IERC165).interfaceId));
        CHEATS.assertFalse(reputation.supportsInterface(0xffffffff));
    }

    // Fuzz

    function testFuzz_feedback_within_range_is_read_as_given(
        int128 value,
        uint8 decimals,
        string calldata tag1,
        string calldata tag2
    ) public {
        value = int128((int256(value) % 1e38));
        decimals %= 19;
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, value, decimals, tag1, tag2);
        _expectFeedback(agentId, CLIENT, 1, value, decimals, tag1, tag2, false);
        _expectSummary(agentId, _list(CLIENT), tag1, tag2, 1, value, decimals);
    }

    function testFuzz_values_and_decimals_out_of_range_are_refused(int128 value, uint8 decimals) public {
        uint256 agentId = _registerAgent();
        if (decimals > 18) {
            CHEATS.expectRevert(abi.encodeWithSelector(IReputationRegistry.TooManyDecimals.selector, decimals));
        } else if (value > 1e38 || value < -1e38) {
            CHEATS.expectRevert(abi.encodeWithSelector(IReputationRegistry.ValueOutOfRange.selector, value));
        }
        _give(CLIENT, agentId, value, decimals);
    }

    function testFuzz_nobody_authorized_gives_feedback(address client) public {
        uint256 agentId = _registerAgent();
        CHEATS.prank(OWNER);
        identity.setApprovalForAll(STRANGER, true);
        bool authorized = identity.isAuthorizedOrOwner(client, agentId);
        if (authorized) {
            CHEATS.expectRevert(
                abi.encodeWithSelector(IReputationRegistry.SelfFeedback.selector, agentId, client)
            );
        }
        _give(client, agentId, 1, 0);
    }

    // Checks

    function _respond(address responder, uint256 agentId, address client, uint64 index) internal {
        CHEATS.prank(responder);
        reputation.appendResponse(agentId, client, index, "ipfs://response", 0);
    }

    function _expectFeedback(
        uint256 agentId,
        address client,
        uint64 index,
        int128 value,
        uint8 decimals,
        string memory tag1,
        string memory tag2,
        bool revoked
    ) internal view {
        (bytes memory got, bytes memory wanted) = (
            _readFeedback(agentId, client, index),
            abi.encode(value, decimals, tag1, tag2, revoked)
        );
        CHEATS.assertEq(got, wanted);
    }

    function _readFeedback(uint256 agentId, address client, uint64 index) internal view returns (bytes memory read) {
        (int128 value, uint8 decimals, string memory tag1, string memory tag2, bool revoked) = reputation.readFeedback(
            agentId,
            client,
            index
        );
        return abi.encode(value, decimals, tag1, tag2, revoked);
    }

    function _expectSummary(
        uint256 agentId,
        address[] memory clients,
        string memory tag1,
        string memory tag2,
        uint64 count,
        int128 value,
        uint8 decimals
    ) internal view {
        (uint64 gotCount, int128 gotValue, uint8 gotDecimals) = reputation.getSummary(agentId, clients, tag1, tag2);
        CHEATS.assertEq(gotCount, count);
        CHEATS.assertEq(gotValue, value);
        CHEATS.assertEq(gotDecimals, decimals);
    }

    function _expectResponses(
        uint256 agentId,
        address client,
        uint64 index,
        address[] memory responders,
        uint64 count
    ) internal view {
        CHEATS.assertEq(reputation.getResponseCount(agentId, client, index, responders), count);
    }

    /// @dev Compares the values of a list, each a digit, as text: "1,3,2".
    function _expectValues(
        uint256 agentId,
        address[] memory clients,
        string memory tag1,
        string memory tag2,
        bool includeRevoked,
        string memory wanted
    ) internal view {
        (, , int128[] memory values, , , , ) = reputation.readAllFeedback(
            agentId,
            clients,
            tag1,
            tag2,
            includeRevoked
        );
        bytes memory got;
        for (uint256 i = 0; i < values.length; ++i) {
            got = abi.encodePacked(got, i == 0 ? "" : ",", bytes1(uint8(48 + uint128(values[i]))));
        }
        CHEATS.assertEq(string(got), wanted);
    }
}
