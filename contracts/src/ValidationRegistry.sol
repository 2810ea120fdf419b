// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IValidationRegistry} from "./interfaces/IValidationRegistry.sol";
import {RegistryOfAgents} from "./RegistryOfAgents.sol";
import {RegistryRoles} from "./RegistryRoles.sol";

/// @title Validation registry of ERC-8004 v2
/// @notice Requests for validation and the validators' responses.
/// @dev Runs behind an ERC-1967 proxy. New variables go after the last one: `layout/` holds what must stay.
contract ValidationRegistry is IValidationRegistry, RegistryOfAgents {
    using SafeCast for uint256;

    /// @dev One request and its latest response. The first four share a slot.
    struct Validation {
        address validator;
        uint8 response;
        bool hasResponse;
        uint64 lastUpdate;
        uint256 agentId;
        bytes32 responseHash;
        string tag;
    }

    /// @notice The best response.
    uint8 public constant MAX_RESPONSE = 100;

    /// @dev All requests.
    mapping(bytes32 requestHash => Validation validation) private _validations;

    /// @dev The requests of an agent.
    mapping(uint256 agentId => bytes32[] requestHashes) private _agentValidations;

    /// @dev The requests to a validator.
    mapping(address validator => bytes32[] requestHashes) private _validatorRequests;

    /// @inheritdoc IValidationRegistry
    function validationRequest(
        address validatorAddress,
        uint256 agentId,
        string calldata requestURI,
        bytes32 requestHash
    ) external whenNotPaused {
        if (validatorAddress == address(0)) revert InvalidValidator();
        Validation storage validation = _validations[requestHash];
        if (validation.validator != address(0)) revert RequestExists(requestHash);
        if (!_identityRegistry().isAuthorizedOrOwner(msg.sender, agentId)) revert NotAuthorized(agentId, msg.sender);

        validation.validator = validatorAddress;
        // Only told, never decided upon.
        // solhint-disable-next-line not-rely-on-time
        validation.lastUpdate = block.timestamp.toUint64();
        validation.agentId = agentId;
        _agentValidations[agentId].push(requestHash);
        _validatorRequests[validatorAddress].push(requestHash);
        emit ValidationRequest(validatorAddress, agentId, requestURI, requestHash);
    }

    /// @inheritdoc IValidationRegistry
    function validationResponse(
        bytes32 requestHash,
        uint8 response,
        string calldata responseURI,
        bytes32 responseHash,
        string calldata tag
    ) external whenNotPaused {
        Validation storage validation = _known(requestHash);
        if (msg.sender != validation.validator) revert NotValidator(requestHash, msg.sender);
        if (response > MAX_RESPONSE) revert ResponseOutOfRange(response);

        validation.response = response;
        validation.hasResponse = true;
        // solhint-disable-next-line not-rely-on-time
        validation.lastUpdate = block.timestamp.toUint64();
        validation.responseHash = responseHash;
        validation.tag = tag;
        emit ValidationResponse({
            validatorAddress: msg.sender,
            agentId: validation.agentId,
            requestHash: requestHash,
            response: response,
            responseURI: responseURI,
            responseHash: responseHash,
            tag: tag
        });
    }

    /// @inheritdoc IValidationRegistry
    function getValidationStatus(
        bytes32 requestHash
    )
        external
        view
        returns (
            address validatorAddress,
            uint256 agentId,
            uint8 response,
            bytes32 responseHash,
            string memory tag,
            uint256 lastUpdate
        )
    {
        Validation storage validation = _known(requestHash);
        return (
            validation.validator,
            validation.agentId,
            validation.response,
            validation.responseHash,
            validation.tag,
            validation.lastUpdate
        );
    }

    /// @inheritdoc IValidationRegistry
    function getSummary(
        uint256 agentId,
        address[] calldata validatorAddresses,
        string calldata tag
    ) external view returns (uint64 count, uint8 averageResponse) {
        bytes32 tagHash = keccak256(bytes(tag));
        bytes32[] storage requestHashes = _agentValidations[agentId];
        uint256 length = requestHashes.length;
        uint256 sum = 0;
        for (uint256 i = 0; i < length; ++i) {
            Validation storage validation = _validations[requestHashes[i]];
            if (!validation.hasResponse) continue;
            if (bytes(tag).length != 0 && keccak256(bytes(validation.tag)) != tagHash) continue;
            if (validatorAddresses.length != 0 && !_contains(validatorAddresses, validation.validator)) continue;
            sum += validation.response;
            ++count;
        }
        if (count != 0) averageResponse = (sum / count).toUint8();
    }

    /// @inheritdoc IValidationRegistry
    function getAgentValidations(uint256 agentId) external view returns (bytes32[] memory requestHashes) {
        return _agentValidations[agentId];
    }

    /// @inheritdoc IValidationRegistry
    function getValidatorRequests(address validatorAddress) external view returns (bytes32[] memory requestHashes) {
        return _validatorRequests[validatorAddress];
    }

    /// @inheritdoc IValidationRegistry
    function getIdentityRegistry() external view returns (address identityRegistry) {
        return address(_identityRegistry());
    }

    /// @inheritdoc RegistryRoles
    function supportsInterface(bytes4 interfaceId) public view override returns (bool supported) {
        return interfaceId == type(IValidationRegistry).interfaceId || super.supportsInterface(interfaceId);
    }

    /// @notice Finds a request, or reverts.
    /// @param requestHash The request
    /// @return validation The request
    function _known(bytes32 requestHash) private view returns (Validation storage validation) {
        validation = _validations[requestHash];
        if (validation.validator == address(0)) revert UnknownRequest(requestHash);
    }

    /// @notice Tells whether a list has an address.
    /// @param list The list
    /// @param wanted The address
    /// @return found True when it has
    function _contains(address[] calldata list, address wanted) private pure returns (bool found) {
        for (uint256 i = 0; i < list.length; ++i) {
            if (list[i] == wanted) return true;
        }
        return false;
    }
}
