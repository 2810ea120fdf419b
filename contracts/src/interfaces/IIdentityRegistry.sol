// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @title ERC-8004 identity registry
/// @notice What the identity registry of ERC-8004 v2 adds to ERC-721. The token is the agent: its id counts from 0,
/// its URI resolves to the registration file, its owner speaks for it.
interface IIdentityRegistry {
    /// @notice One metadata entry of a registration.
    /// @param metadataKey Any string but `agentWallet`, which is reserved
    /// @param metadataValue Any bytes; what they mean is between the writer and the reader
    struct MetadataEntry {
        string metadataKey;
        bytes metadataValue;
    }

    /// @notice An agent came into being.
    /// @param agentId Its id, one more than that of the agent before
    /// @param agentURI Where its registration file is; may be empty
    /// @param owner Who registered it
    event Registered(uint256 indexed agentId, string agentURI, address indexed owner);

    /// @notice A metadata entry got a value; an empty value means that it was cleared.
    /// @param agentId The agent
    /// @param indexedMetadataKey The key again, as the topic to filter by
    /// @param metadataKey The key
    /// @param metadataValue The value; for `agentWallet` the 20 bytes of the address, or none
    event MetadataSet(
        uint256 indexed agentId,
        string indexed indexedMetadataKey,
        string metadataKey,
        bytes metadataValue
    );

    /// @notice The registration file moved.
    /// @param agentId The agent
    /// @param newURI Where the file is from now on
    /// @param updatedBy The owner or operator who said so
    event URIUpdated(uint256 indexed agentId, string newURI, address indexed updatedBy);

    /// @notice The key has its own functions and cannot be written as plain metadata.
    /// @param metadataKey The reserved key
    error ReservedMetadataKey(string metadataKey);

    /// @notice The zero address cannot be an agent's wallet; clear the wallet with `unsetAgentWallet`.
    error InvalidAgentWallet();

    /// @notice The signature's deadline has passed.
    /// @param deadline The deadline, in seconds since the epoch
    error SignatureExpired(uint256 deadline);

    /// @notice The deadline lies further ahead than a signature may live.
    /// @param deadline The deadline, in seconds since the epoch
    /// @param latest The latest deadline that is taken in this block
    error DeadlineTooFar(uint256 deadline, uint256 latest);

    /// @notice The signature is not the new wallet's agreement to this very change.
    /// @param newWallet The address that should have signed
    error InvalidWalletSignature(address newWallet);

    /// @notice Registers an agent that has no registration file yet, owned by the caller.
    /// @return agentId The new agent's id
    function register() external returns (uint256 agentId);

    /// @notice Registers an agent, owned by the caller.
    /// @param agentURI Where the registration file is; may be empty
    /// @return agentId The new agent's id
    function register(string calldata agentURI) external returns (uint256 agentId);

    /// @notice Registers an agent with metadata, owned by the caller. One refused entry refuses the whole.
    /// @param agentURI Where the registration file is; may be empty
    /// @param metadata The entries, written in order: of two with the same key the later one stays
    /// @return agentId The new agent's id
    function register(
        string calldata agentURI,
        MetadataEntry[] calldata metadata
    ) external returns (uint256 agentId);

    /// @notice Says where the registration file is from now on. For the owner and operators.
    /// @param agentId The agent
    /// @param newURI The new place; may be empty
    function setAgentURI(uint256 agentId, string calldata newURI) external;

    /// @notice Writes one metadata entry. For the owner and operators.
    /// @param agentId The agent
    /// @param metadataKey Any key but `agentWallet`
    /// @param metadataValue The value; empty clears the entry
    function setMetadata(uint256 agentId, string calldata metadataKey, bytes calldata metadataValue) external;

    /// @notice Names another payment wallet, which has to agree by an EIP-712 signature over
    /// `AgentWalletSet(uint256 agentId,address newWallet,address owner,uint256 deadline)`; a contract agrees by
    /// ERC-1271. For the owner and operators.
    /// @param agentId The agent
    /// @param newWallet The wallet that signed
    /// @param deadline Until when the signature counts, in seconds since the epoch, at most five minutes ahead
    /// @param signature 65 bytes r, s, v, or whatever the contract at `newWallet` accepts
    function setAgentWallet(uint256 agentId, address newWallet, uint256 deadline, bytes calldata signature) external;

    /// @notice Leaves the agent without a payment wallet. For the owner and operators.
    /// @param agentId The agent
    function unsetAgentWallet(uint256 agentId) external;

    /// @notice Reads one metadata entry.
    /// @param agentId The agent; one that does not exist has only empty entries
    /// @param metadataKey The key; `agentWallet` gives the wallet's 20 bytes
    /// @return metadataValue The value, empty when there is none
    function getMetadata(
        uint256 agentId,
        string calldata metadataKey
    ) external view returns (bytes memory metadataValue);

    /// @notice Reads the payment wallet: the owner's address from registration on, none after a transfer.
    /// @param agentId The agent
    /// @return wallet The wallet, zero when there is none or the agent does not exist
    function getAgentWallet(uint256 agentId) external view returns (address wallet);

    /// @notice Tells whether an address may act for an agent: as owner, as operator for all the owner's tokens, or
    /// as the one approved for this token. Reverts when the agent does not exist.
    /// @param spender The address
    /// @param agentId The agent
    /// @return authorized True when it may
    function isAuthorizedOrOwner(address spender, uint256 agentId) external view returns (bool authorized);
}
