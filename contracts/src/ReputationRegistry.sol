// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IReputationRegistry} from "./interfaces/IReputationRegistry.sol";
import {RegistryOfAgents} from "./RegistryOfAgents.sol";
import {RegistryRoles} from "./RegistryRoles.sol";

// solhint-disable gas-calldata-parameters

/// @title Reputation registry of ERC-8004 v2
/// @notice Feedback of clients to agents, with responses to it.
/// @dev Runs behind an ERC-1967 proxy. New variables go after the last one: `layout/` holds what must stay.
/// Functions of many parameters take strings in memory: in calldata each takes two of the sixteen places of the stack.
contract ReputationRegistry is IReputationRegistry, RegistryOfAgents {
    using SafeCast for int256;
    using SafeCast for uint256;

    /// @dev One client's one feedback. Value, decimal places and revocation share a slot.
    struct Feedback {
        int128 value;
        uint8 valueDecimals;
        bool isRevoked;
        string tag1;
        string tag2;
    }

    /// @dev The responses to one feedback, counted.
    struct Responses {
        uint64 total;
        mapping(address responder => uint64 count) byResponder;
    }

    /// @dev What a reader asks for: hashes of the tags, zero for any, and whether revoked feedback passes.
    struct Filter {
        bytes32 tag1Hash;
        bytes32 tag2Hash;
        bool includeRevoked;
    }

    /// @dev What a summary is made from.
    struct Tally {
        // How many entries there are.
        uint64 count;
        // How many of them have 0, 1, … 18 decimal places.
        uint64[19] countByDecimals;
        // Their values at 18 decimal places. At most 1e56 each: the gas is spent before it overflows.
        int256 sum;
    }

    /// @dev The seven lists of `readAllFeedback`.
    struct FeedbackLists {
        address[] clients;
        uint64[] feedbackIndexes;
        int128[] values;
        uint8[] valueDecimals;
        string[] tag1s;
        string[] tag2s;
        bool[] revokedStatuses;
    }

    /// @notice The largest value of feedback, and with a minus the smallest.
    int128 public constant MAX_ABS_VALUE = 1e38;

    /// @notice The largest number of decimal places.
    uint8 public constant MAX_DECIMALS = 18;

    /// @dev Feedback number n stands at n - 1.
    mapping(uint256 agentId => mapping(address client => Feedback[] entries)) private _feedback;

    /// @dev Who gave an agent feedback, each once.
    mapping(uint256 agentId => address[] clients) private _clients;

    /// @dev Responses by the feedback's number.
    mapping(uint256 agentId => mapping(address client => mapping(uint64 feedbackIndex => Responses responses)))
        private _responses;

    /// @inheritdoc IReputationRegistry
    function giveFeedback(
        uint256 agentId,
        int128 value,
        uint8 valueDecimals,
        string memory tag1,
        string memory tag2,
        string memory endpoint,
        string memory feedbackURI,
        bytes32 feedbackHash
    ) external whenNotPaused {
        if (valueDecimals > MAX_DECIMALS) revert TooManyDecimals(valueDecimals);
        if (value > MAX_ABS_VALUE || value < -MAX_ABS_VALUE) revert ValueOutOfRange(value);
        if (_identityRegistry().isAuthorizedOrOwner(msg.sender, agentId)) revert SelfFeedback(agentId, msg.sender);

        emit NewFeedback({
            agentId: agentId,
            clientAddress: msg.sender,
            feedbackIndex: _store(
                agentId,
                Feedback({value: value, valueDecimals: valueDecimals, isRevoked: false, tag1: tag1, tag2: tag2})
            ),
            value: value,
            valueDecimals: valueDecimals,
            indexedTag1: tag1,
            tag1: tag1,
            tag2: tag2,
            endpoint: endpoint,
            feedbackURI: feedbackURI,
            feedbackHash: feedbackHash
        });
    }

    /// @inheritdoc IReputationRegistry
    function revokeFeedback(uint256 agentId, uint64 feedbackIndex) external whenNotPaused {
        Feedback storage entry = _entry(agentId, msg.sender, feedbackIndex);
        if (entry.isRevoked) revert FeedbackAlreadyRevoked(agentId, msg.sender, feedbackIndex);
        entry.isRevoked = true;
        emit FeedbackRevoked(agentId, msg.sender, feedbackIndex);
    }

    /// @inheritdoc IReputationRegistry
    function appendResponse(
        uint256 agentId,
        address clientAddress,
        uint64 feedbackIndex,
        string calldata responseURI,
        bytes32 responseHash
    ) external whenNotPaused {
        if (bytes(responseURI).length == 0) revert EmptyResponseURI();
        // Reverts when there is nothing to respond to.
        _entry(agentId, clientAddress, feedbackIndex);

        Responses storage responses = _responses[agentId][clientAddress][feedbackIndex];
        ++responses.total;
        ++responses.byResponder[msg.sender];
        emit ResponseAppended({
            agentId: agentId,
            clientAddress: clientAddress,
            feedbackIndex: feedbackIndex,
            responder: msg.sender,
            responseURI: responseURI,
            responseHash: responseHash
        });
    }

    /// @inheritdoc IReputationRegistry
    function getSummary(
        uint256 agentId,
        address[] calldata clientAddresses,
        string calldata tag1,
        string calldata tag2
    ) external view returns (uint64 count, int128 summaryValue, uint8 summaryValueDecimals) {
        if (clientAddresses.length == 0) revert ClientAddressesRequired();

        Tally memory tally = _tally(agentId, clientAddresses, _filter(tag1, tag2, false));
        if (tally.count == 0) return (0, 0, 0);

        count = tally.count;
        for (uint8 decimals = 1; decimals <= MAX_DECIMALS; ++decimals) {
            if (tally.countByDecimals[decimals] > tally.countByDecimals[summaryValueDecimals]) {
                summaryValueDecimals = decimals;
            }
        }
        // The first division belongs to the standard's rule: the average is cut at 18 decimal places, then again.
        // slither-disable-next-line divide-before-multiply
        int256 average = tally.sum / uint256(count).toInt256() / _powerOfTen(MAX_DECIMALS - summaryValueDecimals);
        summaryValue = average.toInt128();
    }

    /// @inheritdoc IReputationRegistry
    function readFeedback(
        uint256 agentId,
        address clientAddress,
        uint64 feedbackIndex
    )
        external
        view
        returns (int128 value, uint8 valueDecimals, string memory tag1, string memory tag2, bool isRevoked)
    {
        Feedback storage entry = _entry(agentId, clientAddress, feedbackIndex);
        return (entry.value, entry.valueDecimals, entry.tag1, entry.tag2, entry.isRevoked);
    }

    /// @inheritdoc IReputationRegistry
    function readAllFeedback(
        uint256 agentId,
        address[] memory clientAddresses,
        string memory tag1,
        string memory tag2,
        bool includeRevoked
    )
        external
        view
        returns (
            address[] memory clients,
            uint64[] memory feedbackIndexes,
            int128[] memory values,
            uint8[] memory valueDecimals,
            string[] memory tag1s,
            string[] memory tag2s,
            bool[] memory revokedStatuses
        )
    {
        if (clientAddresses.length == 0) clientAddresses = _clients[agentId];
        FeedbackLists memory lists = _collect(agentId, clientAddresses, _filter(tag1, tag2, includeRevoked));
        return (
            lists.clients,
            lists.feedbackIndexes,
            lists.values,
            lists.valueDecimals,
            lists.tag1s,
            lists.tag2s,
            lists.revokedStatuses
        );
    }

    /// @inheritdoc IReputationRegistry
    function getResponseCount(
        uint256 agentId,
        address clientAddress,
        uint64 feedbackIndex,
        address[] calldata responders
    ) external view returns (uint64 count) {
        if (clientAddress != address(0)) {
            return _countResponses(agentId, clientAddress, feedbackIndex, responders);
        }
        address[] storage clients = _clients[agentId];
        uint256 length = clients.length;
        for (uint256 i = 0; i < length; ++i) {
            count += _countResponses(agentId, clients[i], 0, responders);
        }
    }

    /// @inheritdoc IReputationRegistry
    function getClients(uint256 agentId) external view returns (address[] memory clients) {
        return _clients[agentId];
    }

    /// @inheritdoc IReputationRegistry
    function getLastIndex(uint256 agentId, address clientAddress) external view returns (uint64 lastIndex) {
        return _feedback[agentId][clientAddress].length.toUint64();
    }

    /// @inheritdoc IReputationRegistry
    function getIdentityRegistry() external view returns (address identityRegistry) {
        return address(_identityRegistry());
    }

    /// @inheritdoc RegistryRoles
    function supportsInterface(bytes4 interfaceId) public view override returns (bool supported) {
        return interfaceId == type(IReputationRegistry).interfaceId || super.supportsInterface(interfaceId);
    }

    /// @notice Stores the caller's feedback.
    /// @param agentId The agent
    /// @param entry The feedback
    /// @return feedbackIndex Its number, from 1
    function _store(uint256 agentId, Feedback memory entry) private returns (uint64 feedbackIndex) {
        Feedback[] storage entries = _feedback[agentId][msg.sender];
        if (entries.length == 0) _clients[agentId].push(msg.sender);
        entries.push(entry);
        return entries.length.toUint64();
    }

    /// @notice Adds up the feedback of some clients that passes a filter.
    /// @param agentId The agent
    /// @param clients Whose feedback
    /// @param filter What passes
    /// @return tally The sum and the counts
    function _tally(
        uint256 agentId,
        address[] calldata clients,
        Filter memory filter
    ) private view returns (Tally memory tally) {
        for (uint256 i = 0; i < clients.length; ++i) {
            Feedback[] storage entries = _feedback[agentId][clients[i]];
            uint256 length = entries.length;
            for (uint256 j = 0; j < length; ++j) {
                Feedback storage entry = entries[j];
                if (!_passes(entry, filter)) continue;
                uint8 decimals = entry.valueDecimals;
                tally.sum += int256(entry.value) * _powerOfTen(MAX_DECIMALS - decimals);
                ++tally.countByDecimals[decimals];
                ++tally.count;
            }
        }
    }

    /// @notice Collects the feedback of some clients that passes a filter, in two passes: count, then copy.
    /// @param agentId The agent
    /// @param clients Whose feedback
    /// @param filter What passes
    /// @return lists The feedback
    function _collect(
        uint256 agentId,
        address[] memory clients,
        Filter memory filter
    ) private view returns (FeedbackLists memory lists) {
        uint256 size = 0;
        for (uint256 i = 0; i < clients.length; ++i) {
            Feedback[] storage entries = _feedback[agentId][clients[i]];
            uint256 length = entries.length;
            for (uint256 j = 0; j < length; ++j) {
                if (_passes(entries[j], filter)) ++size;
            }
        }

        lists.clients = new address[](size);
        lists.feedbackIndexes = new uint64[](size);
        lists.values = new int128[](size);
        lists.valueDecimals = new uint8[](size);
        lists.tag1s = new string[](size);
        lists.tag2s = new string[](size);
        lists.revokedStatuses = new bool[](size);

        uint256 next = 0;
        for (uint256 i = 0; i < clients.length; ++i) {
            Feedback[] storage entries = _feedback[agentId][clients[i]];
            uint256 length = entries.length;
            for (uint256 j = 0; j < length; ++j) {
                Feedback storage entry = entries[j];
                if (!_passes(entry, filter)) continue;
                lists.clients[next] = clients[i];
                lists.feedbackIndexes[next] = (j + 1).toUint64();
                lists.values[next] = entry.value;
                lists.valueDecimals[next] = entry.valueDecimals;
                lists.tag1s[next] = entry.tag1;
                lists.tag2s[next] = entry.tag2;
                lists.revokedStatuses[next] = entry.isRevoked;
                ++next;
            }
        }
    }

    /// @notice Counts the responses to one client's feedback.
    /// @param agentId The agent
    /// @param client The client
    /// @param feedbackIndex The feedback's number; zero for all of the client's
    /// @param responders By whom; empty for everybody
    /// @return count The responses
    function _countResponses(
        uint256 agentId,
        address client,
        uint64 feedbackIndex,
        address[] calldata responders
    ) private view returns (uint64 count) {
        uint64 first = feedbackIndex;
        uint64 last = feedbackIndex;
        if (feedbackIndex == 0) (first, last) = (1, _feedback[agentId][client].length.toUint64());
        for (uint64 index = first; index <= last; ++index) {
            Responses storage responses = _responses[agentId][client][index];
            if (responders.length == 0) count += responses.total;
            for (uint256 i = 0; i < responders.length; ++i) {
                count += responses.byResponder[responders[i]];
            }
        }
    }

    /// @notice Finds one feedback entry, or reverts.
    /// @param agentId The agent
    /// @param client The client
    /// @param feedbackIndex Its number, from 1
    /// @return entry The entry
    function _entry(
        uint256 agentId,
        address client,
        uint64 feedbackIndex
    ) private view returns (Feedback storage entry) {
        Feedback[] storage entries = _feedback[agentId][client];
        if (feedbackIndex == 0 || feedbackIndex > entries.length) {
            revert FeedbackNotFound(agentId, client, feedbackIndex);
        }
        return entries[feedbackIndex - 1];
    }

    /// @notice Tells whether an entry passes a filter.
    /// @param entry The entry
    /// @param filter The filter
    /// @return passes True when it does
    function _passes(Feedback storage entry, Filter memory filter) private view returns (bool passes) {
        return
            (filter.includeRevoked || !entry.isRevoked) &&
            (filter.tag1Hash == 0 || filter.tag1Hash == keccak256(bytes(entry.tag1))) &&
            (filter.tag2Hash == 0 || filter.tag2Hash == keccak256(bytes(entry.tag2)));
    }

    /// @notice Makes a filter.
    /// @param tag1 The first tag; empty for any
    /// @param tag2 The second tag; empty for any
    /// @param includeRevoked Whether revoked feedback passes
    /// @return filter The filter
    function _filter(
        string memory tag1,
        string memory tag2,
        bool includeRevoked
    ) private pure returns (Filter memory filter) {
        if (bytes(tag1).length != 0) filter.tag1Hash = keccak256(bytes(tag1));
        if (bytes(tag2).length != 0) filter.tag2Hash = keccak256(bytes(tag2));
        filter.includeRevoked = includeRevoked;
    }

    /// @notice A power of ten.
    /// @param exponent 0 to 18
    /// @return power Ten to the power of it
    function _powerOfTen(uint8 exponent) private pure returns (int256 power) {
        return (10 ** uint256(exponent)).toInt256();
    }
}
