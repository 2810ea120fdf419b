// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @title ERC-8004 validation registry
/// @notice Requests that a validator check an agent's work, and the validators' responses, as in ERC-8004 v2.
interface IValidationRegistry {
    /// @notice An agent asks to be validated.
    /// @param validatorAddress The validator asked
    /// @param agentId The agent
    /// @param requestURI Where the validator finds what to check
    /// @param requestHash Names the request; keccak-256 of what is at `requestURI`
    event ValidationRequest(
        address indexed validatorAddress,
        uint256 indexed agentId,
        string requestURI,
        bytes32 indexed requestHash
    );

    /// @notice A validator responded; the latest response is the one that counts.
    /// @param validatorAddress The validator
    /// @param agentId The agent
    /// @param requestHash The request
    /// @param response 0 (failed) to 100 (passed)
    /// @param responseURI Where the evidence is; may be empty
    /// @param responseHash Keccak-256 of the evidence, zero when not given
    /// @param tag The kind of validation; may be empty
    event ValidationResponse(
        address indexed validatorAddress,
        uint256 indexed agentId,
        bytes32 indexed requestHash,
        uint8 response,
        string responseURI,
        bytes32 responseHash,
        string tag
    );

    /// @notice The zero address cannot respond.
    error InvalidValidator();

    /// @notice The request's hash names an earlier request.
    /// @param requestHash The hash
    error RequestExists(bytes32 requestHash);

    /// @notice Only the agent's owner and operators request its validation.
    /// @param agentId The agent
    /// @param requester The caller
    error NotAuthorized(uint256 agentId, address requester);

    /// @notice No request has this hash.
    /// @param requestHash The hash
    error UnknownRequest(bytes32 requestHash);

    /// @notice Only the validator that was asked responds.
    /// @param requestHash The request
    /// @param caller Who tried
    error NotValidator(bytes32 requestHash, address caller);

    /// @notice A response is at most 100.
    /// @param response The number given
    error ResponseOutOfRange(uint8 response);

    /// @notice Asks a validator to check an agent's work. For the agent's owner and operators, once per hash.
    /// @param validatorAddress The validator, not zero
    /// @param agentId The agent
    /// @param requestURI Where the validator finds what to check
    /// @param requestHash Names the request. Anybody's agent can use any hash first: put something of your own,
    /// the agent's global id for example, into what is hashed
    function validationRequest(
        address validatorAddress,
        uint256 agentId,
        string calldata requestURI,
        bytes32 requestHash
    ) external;

    /// @notice Responds to a request, as often as there is something new to say. For the validator asked.
    /// @param requestHash The request
    /// @param response 0 (failed) to 100 (passed)
    /// @param responseURI Where the evidence is; may be empty
    /// @param responseHash Keccak-256 of the evidence, zero when not given
    /// @param tag The kind of validation; may be empty
    function validationResponse(
        bytes32 requestHash,
        uint8 response,
        string calldata responseURI,
        bytes32 responseHash,
        string calldata tag
    ) external;

    /// @notice Reads where a request stands. One without a response reads like a response of 0 without hash and tag:
    /// the events tell the two apart. Reverts when there is no such request.
    /// @param requestHash The request
    /// @return validatorAddress The validator
    /// @return agentId The agent
    /// @return response The latest response
    /// @return responseHash The hash of its evidence
    /// @return tag Its tag
    /// @return lastUpdate When the request or its latest response came, in seconds since the epoch
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
        );

    /// @notice Averages the responses to an agent's requests; requests without one do not count.
    /// @param agentId The agent
    /// @param validatorAddresses Only these validators; empty for all
    /// @param tag Only responses with this tag; empty for any
    /// @return count How many responses were counted
    /// @return averageResponse Their average, without the remainder; zero when there are none
    function getSummary(
        uint256 agentId,
        address[] calldata validatorAddresses,
        string calldata tag
    ) external view returns (uint64 count, uint8 averageResponse);

    /// @notice Lists an agent's requests, oldest first.
    /// @param agentId The agent
    /// @return requestHashes The hashes
    function getAgentValidations(uint256 agentId) external view returns (bytes32[] memory requestHashes);

    /// @notice Lists the requests made to a validator, oldest first.
    /// @param validatorAddress The validator
    /// @return requestHashes The hashes
    function getValidatorRequests(address validatorAddress) external view returns (bytes32[] memory requestHashes);

    /// @notice Tells which identity registry says what agents there are and who owns them.
    /// @return identityRegistry Its address
    function getIdentityRegistry() external view returns (address identityRegistry);
}
