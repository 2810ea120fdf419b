// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {
    AccessControlUpgradeable
} from "@openzeppelin/contracts-upgradeable/access/AccessControlUpgradeable.sol";
import {
    AccessControlDefaultAdminRulesUpgradeable as AdminRules
} from "@openzeppelin/contracts-upgradeable/access/extensions/AccessControlDefaultAdminRulesUpgradeable.sol";
import {
    AccessControlEnumerableUpgradeable as Enumerable
} from "@openzeppelin/contracts-upgradeable/access/extensions/AccessControlEnumerableUpgradeable.sol";
import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";

/// @title Roles with one admin that is replaced in two steps, and with lists of their holders
/// @notice Two extensions of OpenZeppelin's AccessControl in one. The lists are for operators: who can upgrade or
/// pause is one call, not a search through the logs.
/// @dev Both extensions change the same functions; which goes first has to be written down, and that is all there is
/// here.
abstract contract RegistryRoles is AdminRules, Enumerable {
    /// @notice Gives an account a role. For the admin; not for the admin's own role.
    /// @param role The role
    /// @param account The account
    function grantRole(
        bytes32 role,
        address account
    ) public override(AdminRules, AccessControlUpgradeable, IAccessControl) {
        super.grantRole(role, account);
    }

    /// @notice Takes a role from an account. For the admin; not for the admin's own role.
    /// @param role The role
    /// @param account The account
    function revokeRole(
        bytes32 role,
        address account
    ) public override(AdminRules, AccessControlUpgradeable, IAccessControl) {
        super.revokeRole(role, account);
    }

    /// @notice Gives one's own role up. The admin first announces it by a hand-over to the zero address.
    /// @param role The role
    /// @param account The caller, to make sure
    function renounceRole(
        bytes32 role,
        address account
    ) public override(AdminRules, AccessControlUpgradeable, IAccessControl) {
        super.renounceRole(role, account);
    }

    /// @notice Tells whether an interface is implemented, as in ERC-165.
    /// @param interfaceId The interface's id
    /// @return supported True when it is
    function supportsInterface(
        bytes4 interfaceId
    ) public view virtual override(AdminRules, Enumerable) returns (bool supported) {
        return super.supportsInterface(interfaceId);
    }

    /// @notice Gives an account a role.
    /// @param role The role
    /// @param account The account
    /// @return changed False when it had it already
    function _grantRole(
        bytes32 role,
        address account
    ) internal override(AdminRules, Enumerable) returns (bool changed) {
        return super._grantRole(role, account);
    }

    /// @notice Takes a role from an account.
    /// @param role The role
    /// @param account The account
    /// @return changed False when it did not have it
    function _revokeRole(
        bytes32 role,
        address account
    ) internal override(AdminRules, Enumerable) returns (bool changed) {
        return super._revokeRole(role, account);
    }

    /// @notice Says which role grants and revokes another.
    /// @param role The role, not the admin's own
    /// @param adminRole The role that grants it
    function _setRoleAdmin(bytes32 role, bytes32 adminRole) internal override(AdminRules, AccessControlUpgradeable) {
        super._setRoleAdmin(role, adminRole);
    }
}
