// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC721Receiver} from "@openzeppelin/contracts/token/ERC721/IERC721Receiver.sol";
import {IdentityRegistry} from "../../src/IdentityRegistry.sol";

/// @dev A smart wallet: what its owner signed, it has signed (ERC-1271).
contract SmartWallet is IERC1271 {
    address public immutable OWNER;

    constructor(address owner) {
        OWNER = owner;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4 magic) {
        (address signer, , ) = ECDSA.tryRecoverCalldata(hash, signature);
        return signer == OWNER ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// @dev A contract that can own agents, and that looks at its agent while it is welcomed.
contract Holder is IERC721Receiver {
    IdentityRegistry internal immutable IDENTITY;
    address public walletSeen;
    bytes public noteSeen;

    constructor(IdentityRegistry identity) {
        IDENTITY = identity;
    }

    function register(IdentityRegistry.MetadataEntry[] calldata metadata) external returns (uint256 agentId) {
        return IDENTITY.register("ipfs://holder", metadata);
    }

    function onERC721Received(address, address, uint256 tokenId, bytes calldata) external returns (bytes4 magic) {
        walletSeen = IDENTITY.getAgentWallet(tokenId);
        noteSeen = IDENTITY.getMetadata(tokenId, "note");
        return IERC721Receiver.onERC721Received.selector;
    }
}

/// @dev A contract that cannot own agents.
contract NoHolder {
    function register(IdentityRegistry identity) external {
        identity.register();
    }
}

/// @dev As much of a registry without roles, pause and proxy as scripts/verify-contracts asks for.
contract OwnedRegistry {
    address public immutable owner = msg.sender;

    function getVersion() external pure returns (string memory version) {
        return "2.0.0";
    }

    function supportsInterface(bytes4) external pure returns (bool supported) {
        return true;
    }
}
