// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {IERC721Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IValidationRegistry} from "../src/interfaces/IValidationRegistry.sol";
import {RegistryTest} from "./support/RegistryTest.sol";

contract ValidationRegistryTest is RegistryTest {
    bytes32 internal constant HASH = keccak256("request");

    function _request(address validator, uint256 agentId, bytes32 requestHash) internal {
        CHEATS.prank(OWNER);
        validation.validationRequest(validator, agentId, "ipfs://request", requestHash);
    }

    function _respond(address validator, bytes32 requestHash, uint8 response, string memory tag) internal {
        CHEATS.prank(validator);
        validation.validationResponse(requestHash, response, "", 0, tag);
    }

    function test_owner_operator_and_approved_request_validation() public {
        uint256 agentId = _registerAgent();
        address[3] memory requesters = [OWNER, OPERATOR, APPROVED];
        for (uint256 i = 0; i < requesters.length; ++i) {
            bytes32 requestHash = keccak256(abi.encode(i));
            CHEATS.expectEmit(address(validation));
            emit IValidationRegistry.ValidationRequest(VALIDATOR, agentId, "ipfs://request", requestHash);
            CHEATS.prank(requesters[i]);
            validation.validationRequest(VALIDATOR, agentId, "ipfs://request", requestHash);
            CHEATS.assertEq(validation.getAgentValidations(agentId)[i], requestHash);
            CHEATS.assertEq(validation.getValidatorRequests(VALIDATOR)[i], requestHash);
        }
        CHEATS.assertEq(validation.getAgentValidations(agentId).length, 3);
        CHEATS.assertEq(validation.getValidatorRequests(VALIDATOR).length, 3);
    }

    function test_nobody_else_requests_validation() public {
        uint256 agentId = _registerAgent();
        CHEATS.expectRevert(
            abi.encodeWithSelector(IValidationRegistry.NotAuthorized.selector, agentId, STRANGER)
        );
        CHEATS.prank(STRANGER);
        validation.validationRequest(VALIDATOR, agentId, "", HASH);
    }

    function test_an_agent_that_does_not_exist_is_not_validated() public {
        CHEATS.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721NonexistentToken.selector, 7));
        CHEATS.prank(OWNER);
        validation.validationRequest(VALIDATOR, 7, "", HASH);
    }

    function test_a_request_names_a_validator() public {
        uint256 agentId = _registerAgent();
        CHEATS.expectRevert(IValidationRegistry.InvalidValidator.selector);
        CHEATS.prank(OWNER);
        validation.validationRequest(address(0), agentId, "", HASH);
    }

    function test_a_hash_names_one_request() public {
        uint256 agentId = _registerAgent();
        _request(VALIDATOR, agentId, HASH);
        CHEATS.expectRevert(abi.encodeWithSelector(IValidationRegistry.RequestExists.selector, HASH));
        CHEATS.prank(OWNER);
        validation.validationRequest(STRANGER, agentId, "", HASH);
    }

    function test_a_request_without_response_has_no_response_yet() public {
        uint256 agentId = _registerAgent();
        _request(VALIDATOR, agentId, HASH);
        (address validator, uint256 id, uint8 response, bytes32 hash, string memory tag, uint256 updated) = validation
            .getValidationStatus(HASH);
        CHEATS.assertEq(validator, VALIDATOR);
        CHEATS.assertEq(id, agentId);
        CHEATS.assertEq(response, 0);
        CHEATS.assertEq(hash, bytes32(0));
        CHEATS.assertEq(tag, "");
        CHEATS.assertEq(updated, block.timestamp);
        (uint64 count, uint8 average) = validation.getSummary(agentId, _list(), "");
        CHEATS.assertEq(count, 0);
        CHEATS.assertEq(average, 0);
    }

    function test_the_last_response_counts() public {
        uint256 agentId = _registerAgent();
        _request(VALIDATOR, agentId, HASH);
        CHEATS.expectEmit(address(validation));
        emit IValidationRegistry.ValidationResponse(VALIDATOR, agentId, HASH, 40, "ipfs://soft", HASH, "soft");
        CHEATS.prank(VALIDATOR);
        validation.validationResponse(HASH, 40, "ipfs://soft", HASH, "soft");
        CHEATS.warp(block.timestamp + 100);
        CHEATS.prank(VALIDATOR);
        validation.validationResponse(HASH, 100, "ipfs://hard", keccak256("hard"), "hard");

        (, , uint8 response, bytes32 hash, string memory tag, uint256 updated) = validation.getValidationStatus(HASH);
        CHEATS.assertEq(response, 100);
        CHEATS.assertEq(hash, keccak256("hard"));
        CHEATS.assertEq(tag, "hard");
        CHEATS.assertEq(updated, block.timestamp);
        (uint64 count, uint8 average) = validation.getSummary(agentId, _list(), "");
        CHEATS.assertEq(count, 1);
        CHEATS.assertEq(average, 100);
    }

    function test_only_the_validator_asked_responds() public {
        uint256 agentId = _registerAgent();
        _request(VALIDATOR, agentId, HASH);
        CHEATS.expectRevert(abi.encodeWithSelector(IValidationRegistry.NotValidator.selector, HASH, OWNER));
        CHEATS.prank(OWNER);
        validation.validationResponse(HASH, 100, "", 0, "");
    }

    function test_a_response_is_at_most_100() public {
        uint256 agentId = _registerAgent();
        _request(VALIDATOR, agentId, HASH);
        CHEATS.expectRevert(abi.encodeWithSelector(IValidationRegistry.ResponseOutOfRange.selector, 101));
        CHEATS.prank(VALIDATOR);
        validation.validationResponse(HASH, 101, "", 0, "");
    }

    function test_an_unknown_request_is_unknown() public {
        bytes memory refusal = abi.encodeWithSelector(IValidationRegistry.UnknownRequest.selector, HASH);
        CHEATS.expectRevert(refusal);
        validation.getValidationStatus(HASH);
        CHEATS.expectRevert(refusal);
        CHEATS.prank(VALIDATOR);
        validation.validationResponse(HASH, 1, "", 0, "");
    }

    function test_a_summary_is_filtered_by_validators_and_tag() public {
        uint256 agentId = _registerAgent();
        address[3] memory validators = [VALIDATOR, VALIDATOR, STRANGER];
        string[3] memory tags = ["tee", "zkml", "tee"];
        uint8[3] memory responses = [100, 51, 50];
        for (uint256 i = 0; i < 3; ++i) {
            _request(validators[i], agentId, bytes32(i));
            _respond(validators[i], bytes32(i), responses[i], tags[i]);
        }
        _request(VALIDATOR, agentId, "unanswered");

        _expectSummary(agentId, _list(), "", 3, 67);
        _expectSummary(agentId, _list(), "tee", 2, 75);
        _expectSummary(agentId, _list(VALIDATOR), "", 2, 75);
        _expectSummary(agentId, _list(STRANGER, VALIDATOR), "zkml", 1, 51);
        _expectSummary(agentId, _list(OWNER), "", 0, 0);
        _expectSummary(agentId, _list(), "none", 0, 0);
        _expectSummary(agentId + 1, _list(), "", 0, 0);
    }

    function _expectSummary(
        uint256 agentId,
        address[] memory validators,
        string memory tag,
        uint64 count,
        uint8 average
    ) internal view {
        (uint64 gotCount, uint8 gotAverage) = validation.getSummary(agentId, validators, tag);
        CHEATS.assertEq(gotCount, count);
        CHEATS.assertEq(gotAverage, average);
    }

    function test_what_it_says_of_itself() public view {
        CHEATS.assertEq(validation.getIdentityRegistry(), address(identity));
        CHEATS.assertEq(validation.MAX_RESPONSE(), 100);
        CHEATS.assertTrue(validation.supportsInterface(type(IValidationRegistry).interfaceId));
        CHEATS.assertTrue(validation.supportsInterface(type(IERC165).interfaceId));
        CHEATS.assertFalse(validation.supportsInterface(0xffffffff));
    }

    function testFuzz_the_average_is_that_of_all_responses(uint8[] calldata responses) public {
        CHEATS.assume(responses.length <= 32);
        uint256 agentId = _registerAgent();
        uint256 sum = 0;
        for (uint256 i = 0; i < responses.length; ++i) {
            _request(VALIDATOR, agentId, bytes32(i));
            _respond(VALIDATOR, bytes32(i), responses[i] % 101, "");
            sum += responses[i] % 101;
        }
        uint8 average = responses.length == 0 ? 0 : uint8(sum / responses.length);
        _expectSummary(agentId, _list(), "", uint64(responses.length), average);
    }
}
