// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {UUPSUpgradeable} from "@openzeppelin/contracts-upgradeable/proxy/utils/UUPSUpgradeable.sol";
import {PausableUpgradeable} from "@openzeppelin/contracts-upgradeable/utils/PausableUpgradeable.sol";
import {RegistryRoles} from "./RegistryRoles.sol";

/// @title What the three registries have in common: who may pause, upgrade and hand over
/// @notice The admin grants and revokes roles and is the only one of its kind; it is replaced in two steps, named by
/// the old one and accepted by the new one. Pausers stop and resume writes; reads always answer. Upgraders replace
/// the code. No role can move an agent or write in anybody's name; an upgrader could install code that can, so give
/// that role to a multi-signature wallet or a timelock.
/// @dev Holds no storage of its own: what it inherits lives in ERC-7201 namespaces, so that the variables of a
/// registry start at slot 0.
abstract contract RegistryGovernance is RegistryRoles, PausableUpgradeable, UUPSUpgradeable {
    /// @notice The role that grants and revokes the others; the same as `DEFAULT_ADMIN_ROLE`.
    bytes32 public constant ADMIN_ROLE = DEFAULT_ADMIN_ROLE;

    /// @notice The role that pauses and unpauses.
    bytes32 public constant PAUSER_ROLE = keccak256("PAUSER_ROLE");

    /// @notice The role that replaces the implementation.
    bytes32 public constant UPGRADER_ROLE = keccak256("UPGRADER_ROLE");

    /// @dev An implementation is never used on its own, only through a proxy.
    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor() {
        _disableInitializers();
    }

    /// @notice Refuses writes from now on.
    function pause() external onlyRole(PAUSER_ROLE) {
        _pause();
    }

    /// @notice Takes writes again.
    function unpause() external onlyRole(PAUSER_ROLE) {
        _unpause();
    }

    /// @notice Tells which version of ERC-8004's registries this is compatible with.
    /// @return version Major, minor and patch number, separated by dots
    function getVersion() external pure virtual returns (string memory version) {
        return "2.0.0";
    }

    /// @notice Sets up the roles of a new proxy.
    /// @param admin Holder of `ADMIN_ROLE`, not zero
    /// @param adminDelay Seconds that a later hand-over of `ADMIN_ROLE` has to wait before it can be accepted
    /// @param pauser First holder of `PAUSER_ROLE`
    /// @param upgrader First holder of `UPGRADER_ROLE`
    function _initializeGovernance(
        address admin,
        uint48 adminDelay,
        address pauser,
        address upgrader
    ) internal onlyInitializing {
        __AccessControlDefaultAdminRules_init(adminDelay, admin);
        _grantRole(PAUSER_ROLE, pauser);
        _grantRole(UPGRADER_ROLE, upgrader);
    }

    /// @notice Lets upgraders, and nobody else, replace the code.
    /// @param newImplementation The new code; that it can be upgraded again is checked by UUPSUpgradeable
    // solhint-disable-next-line no-empty-blocks
    function _authorizeUpgrade(address newImplementation) internal override onlyRole(UPGRADER_ROLE) {}
}
