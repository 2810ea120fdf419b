// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {ERC1967Proxy} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol";

/// @title The address that a registry keeps through all upgrades
/// @notice OpenZeppelin's ERC-1967 proxy under a name of its own, so that block explorers and the deployment's
/// artifacts tell a registry's proxy from other people's.
contract RegistryProxy is ERC1967Proxy {
    /// @notice Points the proxy at its first implementation and sets it up.
    /// @param implementation The implementation
    /// @param data The call to `initialize`
    constructor(address implementation, bytes memory data) ERC1967Proxy(implementation, data) {}
}
