// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {ERC721Upgradeable} from "@openzeppelin/contracts-upgradeable/token/ERC721/ERC721Upgradeable.sol";
import {
    ERC721URIStorageUpgradeable
} from "@openzeppelin/contracts-upgradeable/token/ERC721/extensions/ERC721URIStorageUpgradeable.sol";
import {EIP712Upgradeable} from "@openzeppelin/contracts-upgradeable/utils/cryptography/EIP712Upgradeable.sol";
import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {ERC721Utils} from "@openzeppelin/contracts/token/ERC721/utils/ERC721Utils.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

import {IIdentityRegistry} from "./interfaces/IIdentityRegistry.sol";
import {RegistryGovernance} from "./RegistryGovernance.sol";
import {RegistryRoles} from "./RegistryRoles.sol";

/// @title Identity registry of ERC-8004 v2
/// @notice Agents as ERC-721 tokens with a registration file, metadata and a payment wallet.
/// @dev Runs behind an ERC-1967 proxy. New variables go after the last one: `layout/` holds what must stay.
contract IdentityRegistry is IIdentityRegistry, ERC721URIStorageUpgradeable, EIP712Upgradeable, RegistryGovernance {
    /// @dev A payment wallet other than the one from registration.
    struct AgentWallet {
        address wallet;
        bool isChanged;
    }

    /// @notice How far ahead the deadline of a wallet signature may lie, in seconds.
    uint256 public constant MAX_DEADLINE_DELAY = 5 minutes;

    /// @dev The EIP-712 type that a new wallet signs. The owner is part of it, so that a signature given to one
    /// owner is worth nothing to the next.
    bytes32 private constant _AGENT_WALLET_SET_TYPEHASH =
        keccak256("AgentWalletSet(uint256 agentId,address newWallet,address owner,uint256 deadline)");

    /// @dev The metadata key behind which the payment wallet is read.
    string private constant _AGENT_WALLET_KEY = "agentWallet";

    /// @dev The id that the next agent gets.
    uint256 private _nextAgentId;

    /// @dev All metadata but the payment wallet.
    mapping(uint256 agentId => mapping(string metadataKey => bytes metadataValue)) private _metadata;

    /// @dev The payment wallets. At registration the owner is the wallet, and remains it until a change or a
    /// transfer: as long as that is so, nothing is stored, which takes a tenth off what a registration costs.
    mapping(uint256 agentId => AgentWallet agentWallet) private _agentWallets;

    /// @notice Sets up a new proxy, once.
    /// @param admin Holder of `ADMIN_ROLE`
    /// @param adminDelay Seconds that a later hand-over of `ADMIN_ROLE` has to wait before it can be accepted
    /// @param pauser First holder of `PAUSER_ROLE`
    /// @param upgrader First holder of `UPGRADER_ROLE`
    function initialize(address admin, uint48 adminDelay, address pauser, address upgrader) external initializer {
        __ERC721_init("AgentIdentity", "AGENT");
        __EIP712_init("ERC8004IdentityRegistry", "1");
        _initializeGovernance(admin, adminDelay, pauser, upgrader);
    }

    /// @inheritdoc IIdentityRegistry
    function register() external returns (uint256 agentId) {
        agentId = _createAgent("");
        _welcomeOwner(agentId);
    }

    /// @inheritdoc IIdentityRegistry
    function register(string calldata agentURI) external returns (uint256 agentId) {
        agentId = _createAgent(agentURI);
        _welcomeOwner(agentId);
    }

    /// @inheritdoc IIdentityRegistry
    function register(
        string calldata agentURI,
        MetadataEntry[] calldata metadata
    ) external returns (uint256 agentId) {
        agentId = _createAgent(agentURI);
        for (uint256 i = 0; i < metadata.length; ++i) {
            _setMetadata(agentId, metadata[i].metadataKey, metadata[i].metadataValue);
        }
        _welcomeOwner(agentId);
    }

    /// @inheritdoc IIdentityRegistry
    function setAgentURI(uint256 agentId, string calldata newURI) external whenNotPaused {
        _checkAuthorized(_ownerOf(agentId), msg.sender, agentId);
        _setTokenURI(agentId, newURI);
        emit URIUpdated(agentId, newURI, msg.sender);
    }

    /// @inheritdoc IIdentityRegistry
    function setMetadata(
        uint256 agentId,
        string calldata metadataKey,
        bytes calldata metadataValue
    ) external whenNotPaused {
        _checkAuthorized(_ownerOf(agentId), msg.sender, agentId);
        _setMetadata(agentId, metadataKey, metadataValue);
    }

    /// @inheritdoc IIdentityRegistry
    function setAgentWallet(
        uint256 agentId,
        address newWallet,
        uint256 deadline,
        bytes calldata signature
    ) external whenNotPaused {
        address owner = _ownerOf(agentId);
        _checkAuthorized(owner, msg.sender, agentId);
        if (newWallet == address(0)) revert InvalidAgentWallet();
        // A proposer can shift the time by seconds, which a signature that lives for minutes can bear.
        // solhint-disable not-rely-on-time
        // forge-lint: disable-next-line(block-timestamp)
        if (deadline < block.timestamp) revert SignatureExpired(deadline);
        uint256 latest = block.timestamp + MAX_DEADLINE_DELAY;
        if (deadline > latest) revert DeadlineTooFar(deadline, latest);
        // solhint-enable not-rely-on-time

        bytes32 digest = _hashTypedDataV4(
            keccak256(abi.encode(_AGENT_WALLET_SET_TYPEHASH, agentId, newWallet, owner, deadline))
        );
        if (!_hasSigned(newWallet, digest, signature)) revert InvalidWalletSignature(newWallet);
        _setAgentWallet(agentId, newWallet);
    }

    /// @inheritdoc IIdentityRegistry
    function unsetAgentWallet(uint256 agentId) external whenNotPaused {
        _checkAuthorized(_ownerOf(agentId), msg.sender, agentId);
        _setAgentWallet(agentId, address(0));
    }

    /// @inheritdoc IIdentityRegistry
    function getMetadata(
        uint256 agentId,
        string calldata metadataKey
    ) external view returns (bytes memory metadataValue) {
        if (_isAgentWalletKey(metadataKey)) return _encodeWallet(_agentWallet(agentId));
        return _metadata[agentId][metadataKey];
    }

    /// @inheritdoc IIdentityRegistry
    function getAgentWallet(uint256 agentId) external view returns (address wallet) {
        return _agentWallet(agentId);
    }

    /// @inheritdoc IIdentityRegistry
    function isAuthorizedOrOwner(address spender, uint256 agentId) external view returns (bool authorized) {
        return _isAuthorized(_requireOwned(agentId), spender, agentId);
    }

    /// @notice Approves an address for one agent, as in ERC-721. A pause does not keep an owner from taking an approval
    /// back: an approved key that was stolen could act first when the pause ends.
    /// @param to The address that may act for the agent; zero for none
    /// @param tokenId The agent
    function approve(address to, uint256 tokenId) public override(ERC721Upgradeable, IERC721) {
        if (to != address(0)) _requireNotPaused();
        super.approve(to, tokenId);
    }

    /// @notice Makes an address an operator for all of the caller's agents, or no longer one, as in ERC-721. A pause
    /// does not keep an owner from dismissing an operator.
    /// @param operator The address
    /// @param approved Whether it is an operator from now on
    function setApprovalForAll(address operator, bool approved) public override(ERC721Upgradeable, IERC721) {
        if (approved) _requireNotPaused();
        super.setApprovalForAll(operator, approved);
    }

    /// @inheritdoc RegistryRoles
    function supportsInterface(
        bytes4 interfaceId
    ) public view override(ERC721URIStorageUpgradeable, RegistryRoles) returns (bool supported) {
        return interfaceId == type(IIdentityRegistry).interfaceId || super.supportsInterface(interfaceId);
    }

    /// @notice Every change of hands, registration included, passes here. A wallet agreed to serve one owner and not
    /// the next: a transfer clears it.
    /// @param to The new owner
    /// @param tokenId The agent
    /// @param auth Who must be authorized, zero for nobody
    /// @return previousOwner The owner before, zero for a new agent
    function _update(
        address to,
        uint256 tokenId,
        address auth
    ) internal override whenNotPaused returns (address previousOwner) {
        previousOwner = super._update(to, tokenId, auth);
        if (previousOwner != address(0)) _setAgentWallet(tokenId, address(0));
    }

    /// @notice Mints the caller's new agent, with the caller as its wallet.
    /// @param agentURI Where the registration file is; may be empty
    /// @return agentId The new agent's id
    function _createAgent(string memory agentURI) private returns (uint256 agentId) {
        agentId = _nextAgentId;
        _nextAgentId = agentId + 1;
        _mint(msg.sender, agentId);
        if (bytes(agentURI).length != 0) _setTokenURI(agentId, agentURI);
        emit Registered(agentId, agentURI, msg.sender);
        _announceAgentWallet(agentId, msg.sender);
    }

    /// @notice Writes one plain metadata entry.
    /// @param agentId The agent
    /// @param metadataKey The key; reverts for the reserved one
    /// @param metadataValue The value
    function _setMetadata(uint256 agentId, string calldata metadataKey, bytes calldata metadataValue) private {
        if (_isAgentWalletKey(metadataKey)) revert ReservedMetadataKey(metadataKey);
        _metadata[agentId][metadataKey] = metadataValue;
        emit MetadataSet(agentId, metadataKey, metadataKey, metadataValue);
    }

    /// @notice Writes the payment wallet.
    /// @param agentId The agent
    /// @param wallet The wallet, zero for none
    function _setAgentWallet(uint256 agentId, address wallet) private {
        _agentWallets[agentId] = AgentWallet({wallet: wallet, isChanged: true});
        _announceAgentWallet(agentId, wallet);
    }

    /// @notice Tells the world about the payment wallet.
    /// @param agentId The agent
    /// @param wallet The wallet, zero for none
    function _announceAgentWallet(uint256 agentId, address wallet) private {
        emit MetadataSet(agentId, _AGENT_WALLET_KEY, _AGENT_WALLET_KEY, _encodeWallet(wallet));
    }

    /// @notice Asks an owner that is a contract whether it can hold agents. It may call back in: this comes last, when
    /// everything is written.
    /// @param agentId The caller's new agent
    function _welcomeOwner(uint256 agentId) private {
        ERC721Utils.checkOnERC721Received(msg.sender, address(0), msg.sender, agentId, "");
    }

    /// @notice Reads the payment wallet.
    /// @param agentId The agent
    /// @return wallet The wallet, zero when there is none or the agent does not exist
    function _agentWallet(uint256 agentId) private view returns (address wallet) {
        AgentWallet storage agentWallet = _agentWallets[agentId];
        return agentWallet.isChanged ? agentWallet.wallet : _ownerOf(agentId);
    }

    /// @notice Tells whether a wallet signed. An account with delegated code (EIP-7702) signs like any other account,
    /// so the plain signature is tried first, then ERC-1271.
    /// @param wallet The wallet
    /// @param digest What it should have signed
    /// @param signature What it is said to have signed with
    /// @return signed True when it did
    function _hasSigned(address wallet, bytes32 digest, bytes calldata signature) private view returns (bool signed) {
        // An error comes with the zero address, which is nobody's wallet.
        // slither-disable-next-line unused-return
        (address signer, , ) = ECDSA.tryRecoverCalldata(digest, signature);
        return signer == wallet || SignatureChecker.isValidERC1271SignatureNowCalldata(wallet, digest, signature);
    }

    /// @notice Tells whether a metadata key is the reserved one.
    /// @param metadataKey The key
    /// @return reserved True when it is
    function _isAgentWalletKey(string calldata metadataKey) private pure returns (bool reserved) {
        return keccak256(bytes(metadataKey)) == keccak256(bytes(_AGENT_WALLET_KEY));
    }

    /// @notice Gives a wallet as metadata.
    /// @param wallet The wallet, zero for none
    /// @return metadataValue Its 20 bytes, or no bytes
    function _encodeWallet(address wallet) private pure returns (bytes memory metadataValue) {
        return wallet == address(0) ? bytes("") : abi.encodePacked(wallet);
    }
}
