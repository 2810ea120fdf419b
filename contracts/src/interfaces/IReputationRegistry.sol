// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @title ERC-8004 reputation registry
/// @notice Feedback that clients give to agents, as in ERC-8004 v2. Of each feedback the number and the two tags are
/// stored; endpoint, file and responses are in the events only.
interface IReputationRegistry {
    /// @notice A client gave feedback.
    /// @param agentId The agent it is about
    /// @param clientAddress Who gave it
    /// @param feedbackIndex Its number among this client's feedback on this agent, from 1
    /// @param value The value, times ten to the power of `valueDecimals`
    /// @param valueDecimals Decimal places of `value`, 0 to 18
    /// @param indexedTag1 The first tag again, as the topic to filter by
    /// @param tag1 What was measured, `starred` or `uptime` for example; may be empty
    /// @param tag2 A second word to it; may be empty
    /// @param endpoint Which of the agent's endpoints it is about; may be empty
    /// @param feedbackURI Where the feedback file is; may be empty
    /// @param feedbackHash Keccak-256 of that file, zero when not given
    event NewFeedback(
        uint256 indexed agentId,
        address indexed clientAddress,
        uint64 feedbackIndex,
        int128 value,
        uint8 valueDecimals,
        string indexed indexedTag1,
        string tag1,
        string tag2,
        string endpoint,
        string feedbackURI,
        bytes32 feedbackHash
    );

    /// @notice A client took feedback back.
    /// @param agentId The agent it was about
    /// @param clientAddress Who had given it
    /// @param feedbackIndex Its number, from 1
    event FeedbackRevoked(uint256 indexed agentId, address indexed clientAddress, uint64 indexed feedbackIndex);

    /// @notice Somebody responded to feedback.
    /// @param agentId The agent that the feedback is about
    /// @param clientAddress Who had given the feedback
    /// @param feedbackIndex The feedback's number, from 1
    /// @param responder Who responded
    /// @param responseURI Where the response is
    /// @param responseHash Keccak-256 of the response, zero when not given
    event ResponseAppended(
        uint256 indexed agentId,
        address indexed clientAddress,
        uint64 feedbackIndex,
        address indexed responder,
        string responseURI,
        bytes32 responseHash
    );

    /// @notice More decimal places than 18.
    /// @param valueDecimals The number given
    error TooManyDecimals(uint8 valueDecimals);

    /// @notice The value lies outside -1e38 to 1e38.
    /// @param value The value given
    error ValueOutOfRange(int128 value);

    /// @notice The owner and the operators of an agent cannot give it feedback.
    /// @param agentId The agent
    /// @param clientAddress The caller
    error SelfFeedback(uint256 agentId, address clientAddress);

    /// @notice There is no feedback of this number.
    /// @param agentId The agent
    /// @param clientAddress The client
    /// @param feedbackIndex The number asked for; the first one is 1
    error FeedbackNotFound(uint256 agentId, address clientAddress, uint64 feedbackIndex);

    /// @notice The feedback has been revoked before.
    /// @param agentId The agent
    /// @param clientAddress The client
    /// @param feedbackIndex The feedback's number
    error FeedbackAlreadyRevoked(uint256 agentId, address clientAddress, uint64 feedbackIndex);

    /// @notice A response without a place to read it is none.
    error EmptyResponseURI();

    /// @notice A summary is over named clients: whoever reads it chooses whom to believe.
    error ClientAddressesRequired();

    /// @notice Gives feedback. For anybody but the agent's owner and operators.
    /// @param agentId The agent
    /// @param value The value, times ten to the power of `valueDecimals`; from -1e38 to 1e38
    /// @param valueDecimals Decimal places of `value`, 0 to 18
    /// @param tag1 What was measured; may be empty
    /// @param tag2 A second word to it; may be empty
    /// @param endpoint Which endpoint it is about; may be empty
    /// @param feedbackURI Where the feedback file is; may be empty
    /// @param feedbackHash Keccak-256 of that file, zero when not given
    function giveFeedback(
        uint256 agentId,
        int128 value,
        uint8 valueDecimals,
        string calldata tag1,
        string calldata tag2,
        string calldata endpoint,
        string calldata feedbackURI,
        bytes32 feedbackHash
    ) external;

    /// @notice Takes one's own feedback back: it stays readable, and no summary counts it any more.
    /// @param agentId The agent
    /// @param feedbackIndex The feedback's number, from 1
    function revokeFeedback(uint256 agentId, uint64 feedbackIndex) external;

    /// @notice Responds to feedback. For anybody: the event tells who it was.
    /// @param agentId The agent that the feedback is about
    /// @param clientAddress Who gave the feedback
    /// @param feedbackIndex The feedback's number, from 1
    /// @param responseURI Where the response is; not empty
    /// @param responseHash Keccak-256 of the response, zero when not given
    function appendResponse(
        uint256 agentId,
        address clientAddress,
        uint64 feedbackIndex,
        string calldata responseURI,
        bytes32 responseHash
    ) external;

    /// @notice Averages the feedback of the named clients that has not been revoked. Values of different decimal
    /// places are brought to 18, summed, divided by their count, then cut to the decimal places that most of them
    /// have (the smaller on a tie); both divisions drop the remainder. Reverts when the result does not fit 128 bits,
    /// which takes a value beyond 1e20 among others of 18 decimal places.
    /// @param agentId The agent
    /// @param clientAddresses Whose feedback to count, at least one; an address listed twice counts twice
    /// @param tag1 Only feedback with this first tag; empty for any
    /// @param tag2 Only feedback with this second tag; empty for any
    /// @return count How many feedback entries were counted
    /// @return summaryValue Their average, zero when there are none
    /// @return summaryValueDecimals Decimal places of `summaryValue`
    function getSummary(
        uint256 agentId,
        address[] calldata clientAddresses,
        string calldata tag1,
        string calldata tag2
    ) external view returns (uint64 count, int128 summaryValue, uint8 summaryValueDecimals);

    /// @notice Reads one feedback entry.
    /// @param agentId The agent
    /// @param clientAddress Who gave it
    /// @param feedbackIndex Its number, from 1
    /// @return value The value
    /// @return valueDecimals Its decimal places
    /// @return tag1 The first tag
    /// @return tag2 The second tag
    /// @return isRevoked True when the client has taken it back
    function readFeedback(
        uint256 agentId,
        address clientAddress,
        uint64 feedbackIndex
    )
        external
        view
        returns (int128 value, uint8 valueDecimals, string memory tag1, string memory tag2, bool isRevoked);

    /// @notice Reads all feedback that passes the filters, client by client, oldest first. The seven lists have the
    /// same length. Made for calls from outside the chain: the cost grows with the feedback.
    /// @param agentId The agent
    /// @param clientAddresses Whose feedback; empty for everybody's
    /// @param tag1 Only feedback with this first tag; empty for any
    /// @param tag2 Only feedback with this second tag; empty for any
    /// @param includeRevoked Whether to list what was taken back, too
    /// @return clients Who gave it
    /// @return feedbackIndexes Its number, from 1
    /// @return values The value
    /// @return valueDecimals The value's decimal places
    /// @return tag1s The first tag
    /// @return tag2s The second tag
    /// @return revokedStatuses True when it was taken back
    function readAllFeedback(
        uint256 agentId,
        address[] calldata clientAddresses,
        string calldata tag1,
        string calldata tag2,
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
        );

    /// @notice Counts responses.
    /// @param agentId The agent
    /// @param clientAddress To whose feedback; zero for everybody's, whatever `feedbackIndex` says
    /// @param feedbackIndex To which feedback; zero for all of that client's
    /// @param responders By whom; empty for everybody
    /// @return count The responses
    function getResponseCount(
        uint256 agentId,
        address clientAddress,
        uint64 feedbackIndex,
        address[] calldata responders
    ) external view returns (uint64 count);

    /// @notice Lists who has given an agent feedback, each once, in the order of their first.
    /// @param agentId The agent
    /// @return clients The addresses
    function getClients(uint256 agentId) external view returns (address[] memory clients);

    /// @notice Tells how much feedback a client has given an agent, revoked or not: the number of the last one.
    /// @param agentId The agent
    /// @param clientAddress The client
    /// @return lastIndex The number, zero when there is none
    function getLastIndex(uint256 agentId, address clientAddress) external view returns (uint64 lastIndex);

    /// @notice Tells which identity registry says what agents there are and who owns them.
    /// @return identityRegistry Its address
    function getIdentityRegistry() external view returns (address identityRegistry);
}
