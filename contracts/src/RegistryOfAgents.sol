// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {IIdentityRegistry} from "./interfaces/IIdentityRegistry.sol";
import {RegistryGovernance} from "./RegistryGovernance.sol";

/// @title What the reputation and the validation registry have in common: the identity registry behind them
/// @notice Feedback and validations are about agents, and the identity registry is who knows the agents.
/// @dev Its one variable takes slot 0 of both registries.
abstract contract RegistryOfAgents is RegistryGovernance {
    /// @dev Who knows which agents there are and who may act for them. Set once.
    IIdentityRegistry private _identity;

    /// @notice The address has no code, so it is no identity registry.
    /// @param identityRegistry The address
    error InvalidIdentityRegistry(address identityRegistry);

    /// @notice Sets up a new proxy, once.
    /// @param identityRegistry The identity registry; cannot be changed later
    /// @param admin Holder of `ADMIN_ROLE`
    /// @param adminDelay Seconds that a later hand-over of `ADMIN_ROLE` has to wait before it can be accepted
    /// @param pauser First holder of `PAUSER_ROLE`
    /// @param upgrader First holder of `UPGRADER_ROLE`
    function initialize(
        IIdentityRegistry identityRegistry,
        address admin,
        uint48 adminDelay,
        address pauser,
        address upgrader
    ) external initializer {
        if (address(identityRegistry).code.length == 0) revert InvalidIdentityRegistry(address(identityRegistry));
        _identity = identityRegistry;
        _initializeGovernance(admin, adminDelay, pauser, upgrader);
    }

    /// @notice Gives the identity registry.
    /// @return identityRegistry The identity registry
    function _identityRegistry() internal view returns (IIdentityRegistry identityRegistry) {
        return _identity;
    }
}
