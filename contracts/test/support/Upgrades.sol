// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {IdentityRegistry} from "../../src/IdentityRegistry.sol";
import {ReputationRegistry} from "../../src/ReputationRegistry.sol";
import {RegistryRoles} from "../../src/RegistryRoles.sol";
import {ValidationRegistry} from "../../src/ValidationRegistry.sol";

// What a next version does: it keeps what is there and adds a variable at the end.

contract IdentityRegistryNext is IdentityRegistry {
    uint256 public added;

    function setAdded(uint256 value) external reinitializer(2) {
        added = value;
    }

    function getVersion() external pure override returns (string memory version) {
        return "2.1.0";
    }
}

contract ReputationRegistryNext is ReputationRegistry {
    uint256 public added;

    function setAdded(uint256 value) external reinitializer(2) {
        added = value;
    }

    function getVersion() external pure override returns (string memory version) {
        return "2.1.0";
    }
}

contract ValidationRegistryNext is ValidationRegistry {
    uint256 public added;

    function setAdded(uint256 value) external reinitializer(2) {
        added = value;
    }

    function getVersion() external pure override returns (string memory version) {
        return "2.1.0";
    }
}

/// @dev Gives a role another role as its admin, which no registry does.
contract RolesOnly is RegistryRoles {
    function initialize(address admin) external initializer {
        __AccessControlDefaultAdminRules_init(0, admin);
    }

    function setRoleAdmin(bytes32 role, bytes32 adminRole) external {
        _setRoleAdmin(role, adminRole);
    }
}
