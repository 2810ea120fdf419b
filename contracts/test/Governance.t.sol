// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {ERC1967Utils} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Utils.sol";
import {
    IAccessControlDefaultAdminRules
} from "@openzeppelin/contracts/access/extensions/IAccessControlDefaultAdminRules.sol";
import {
    IAccessControlEnumerable
} from "@openzeppelin/contracts/access/extensions/IAccessControlEnumerable.sol";
import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {Initializable} from "@openzeppelin/contracts/proxy/utils/Initializable.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";
import {IdentityRegistry} from "../src/IdentityRegistry.sol";
import {RegistryGovernance} from "../src/RegistryGovernance.sol";
import {RegistryOfAgents} from "../src/RegistryOfAgents.sol";
import {RegistryProxy} from "../src/RegistryProxy.sol";
import {ReputationRegistry} from "../src/ReputationRegistry.sol";
import {RegistryTest} from "./support/RegistryTest.sol";
import {
    IdentityRegistryNext,
    ReputationRegistryNext,
    RolesOnly,
    ValidationRegistryNext
} from "./support/Upgrades.sol";
import {NoHolder} from "./support/Wallets.sol";

contract GovernanceTest is RegistryTest {
    function _registries() internal view returns (RegistryGovernance[3] memory registries) {
        return [RegistryGovernance(identity), reputation, validation];
    }

    function _refusal(address account, bytes32 role) internal pure returns (bytes memory data) {
        return abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, account, role);
    }

    function _deployNext(string memory name) internal returns (address deployed) {
        return CHEATS.deployCode(string.concat("Upgrades.sol:", name));
    }

    // Set-up

    function test_roles_are_with_whom_they_were_given_to_and_nobody_else() public view {
        RegistryGovernance[3] memory registries = _registries();
        for (uint256 i = 0; i < registries.length; ++i) {
            RegistryGovernance registry = registries[i];
            CHEATS.assertEq(registry.ADMIN_ROLE(), bytes32(0));
            CHEATS.assertEq(registry.ADMIN_ROLE(), registry.DEFAULT_ADMIN_ROLE());
            CHEATS.assertEq(registry.PAUSER_ROLE(), keccak256("PAUSER_ROLE"));
            CHEATS.assertEq(registry.UPGRADER_ROLE(), keccak256("UPGRADER_ROLE"));
            CHEATS.assertEq(registry.defaultAdmin(), ADMIN);
            CHEATS.assertEq(registry.owner(), ADMIN);
            CHEATS.assertEq(registry.defaultAdminDelay(), 1 days);
            CHEATS.assertEq(abi.encode(registry.getRoleMembers(registry.ADMIN_ROLE())), abi.encode(_list(ADMIN)));
            CHEATS.assertEq(abi.encode(registry.getRoleMembers(registry.PAUSER_ROLE())), abi.encode(_list(PAUSER)));
            CHEATS.assertEq(
                abi.encode(registry.getRoleMembers(registry.UPGRADER_ROLE())),
                abi.encode(_list(UPGRADER))
            );
            CHEATS.assertTrue(registry.supportsInterface(type(IAccessControlDefaultAdminRules).interfaceId));
            CHEATS.assertTrue(registry.supportsInterface(type(IAccessControlEnumerable).interfaceId));
            CHEATS.assertEq(registry.getVersion(), "2.0.0");
            CHEATS.assertFalse(registry.paused());
        }
    }

    function test_a_registry_is_set_up_once() public {
        CHEATS.expectRevert(Initializable.InvalidInitialization.selector);
        identity.initialize(STRANGER, 0, STRANGER, STRANGER);
        CHEATS.expectRevert(Initializable.InvalidInitialization.selector);
        reputation.initialize(identity, STRANGER, 0, STRANGER, STRANGER);
        CHEATS.expectRevert(Initializable.InvalidInitialization.selector);
        validation.initialize(identity, STRANGER, 0, STRANGER, STRANGER);
    }

    function test_an_implementation_is_not_set_up_at_all() public {
        IdentityRegistry implementation = IdentityRegistry(_deploy("IdentityRegistry"));
        CHEATS.expectRevert(Initializable.InvalidInitialization.selector);
        implementation.initialize(STRANGER, 0, STRANGER, STRANGER);
    }

    function test_a_proxy_without_set_up_is_refused() public {
        IdentityRegistry implementation = IdentityRegistry(_deploy("IdentityRegistry"));
        CHEATS.expectRevert();
        new RegistryProxy(address(implementation), "");
    }

    function test_an_admin_is_needed() public {
        address implementation = _deploy("IdentityRegistry");
        CHEATS.expectRevert(
            abi.encodeWithSelector(
                IAccessControlDefaultAdminRules.AccessControlInvalidDefaultAdmin.selector,
                address(0)
            )
        );
        new RegistryProxy(
            implementation,
            abi.encodeCall(IdentityRegistry.initialize, (address(0), 0, PAUSER, UPGRADER))
        );
    }

    function test_an_identity_registry_is_needed() public {
        address implementation = _deploy("ReputationRegistry");
        CHEATS.expectRevert(
            abi.encodeWithSelector(RegistryOfAgents.InvalidIdentityRegistry.selector, STRANGER)
        );
        new RegistryProxy(
            implementation,
            abi.encodeCall(
                RegistryOfAgents.initialize,
                (IdentityRegistry(STRANGER), ADMIN, 0, PAUSER, UPGRADER)
            )
        );
    }

    // Roles

    function test_the_admin_grants_and_revokes_and_nobody_else() public {
        RegistryGovernance[3] memory registries = _registries();
        for (uint256 i = 0; i < registries.length; ++i) {
            RegistryGovernance registry = registries[i];
            bytes32 role = registry.PAUSER_ROLE();
            bytes32 adminRole = registry.ADMIN_ROLE();
            CHEATS.startPrank(PAUSER);
            CHEATS.expectRevert(_refusal(PAUSER, adminRole));
            registry.grantRole(role, STRANGER);
            CHEATS.expectRevert(_refusal(PAUSER, adminRole));
            registry.revokeRole(role, PAUSER);
            CHEATS.stopPrank();

            CHEATS.startPrank(ADMIN);
            registry.grantRole(role, STRANGER);
            CHEATS.assertTrue(registry.hasRole(role, STRANGER));
            CHEATS.assertEq(registry.getRoleMember(role, 1), STRANGER);
            registry.revokeRole(role, PAUSER);
            CHEATS.assertFalse(registry.hasRole(role, PAUSER));
            CHEATS.stopPrank();

            CHEATS.startPrank(STRANGER);
            CHEATS.expectRevert(IAccessControl.AccessControlBadConfirmation.selector);
            registry.renounceRole(role, PAUSER);
            registry.renounceRole(role, STRANGER);
            CHEATS.stopPrank();
            CHEATS.assertEq(registry.getRoleMemberCount(role), 0);
            CHEATS.assertEq(registry.getRoleAdmin(role), adminRole);
        }
    }

    function test_the_admins_own_role_is_handed_over_and_not_granted() public {
        bytes32 role = identity.ADMIN_ROLE();
        bytes memory refusal = abi.encodeWithSelector(
            IAccessControlDefaultAdminRules.AccessControlEnforcedDefaultAdminRules.selector
        );
        CHEATS.startPrank(ADMIN);
        CHEATS.expectRevert(refusal);
        identity.grantRole(role, STRANGER);
        CHEATS.expectRevert(refusal);
        identity.revokeRole(role, ADMIN);
        // The two steps have to be taken here, too.
        CHEATS.expectRevert(
            abi.encodeWithSelector(
                IAccessControlDefaultAdminRules.AccessControlEnforcedDefaultAdminDelay.selector,
                uint48(0)
            )
        );
        identity.renounceRole(role, ADMIN);
    }

    function test_the_admin_is_replaced_in_two_steps() public {
        RegistryGovernance[3] memory registries = _registries();
        uint48 schedule = uint48(block.timestamp + 1 days);
        for (uint256 i = 0; i < registries.length; ++i) {
            RegistryGovernance registry = registries[i];
            CHEATS.prank(ADMIN);
            registry.beginDefaultAdminTransfer(STRANGER);
            (address pending, uint48 when) = registry.pendingDefaultAdmin();
            CHEATS.assertEq(pending, STRANGER);
            CHEATS.assertEq(when, schedule);
            CHEATS.assertEq(registry.defaultAdmin(), ADMIN);

            CHEATS.expectRevert(
                abi.encodeWithSelector(
                    IAccessControlDefaultAdminRules.AccessControlInvalidDefaultAdmin.selector,
                    CLIENT
                )
            );
            CHEATS.prank(CLIENT);
            registry.acceptDefaultAdminTransfer();
            CHEATS.expectRevert(
                abi.encodeWithSelector(
                    IAccessControlDefaultAdminRules.AccessControlEnforcedDefaultAdminDelay.selector,
                    schedule
                )
            );
            CHEATS.prank(STRANGER);
            registry.acceptDefaultAdminTransfer();
        }
        CHEATS.warp(schedule + 1);
        for (uint256 i = 0; i < registries.length; ++i) {
            RegistryGovernance registry = registries[i];
            bytes32 role = registry.ADMIN_ROLE();
            CHEATS.prank(STRANGER);
            registry.acceptDefaultAdminTransfer();
            CHEATS.assertEq(registry.defaultAdmin(), STRANGER);
            CHEATS.assertEq(abi.encode(registry.getRoleMembers(role)), abi.encode(_list(STRANGER)));
            CHEATS.expectRevert(_refusal(ADMIN, role));
            CHEATS.prank(ADMIN);
            registry.beginDefaultAdminTransfer(ADMIN);
        }
    }

    function test_a_hand_over_is_cancelled() public {
        CHEATS.startPrank(ADMIN);
        identity.beginDefaultAdminTransfer(STRANGER);
        identity.cancelDefaultAdminTransfer();
        CHEATS.stopPrank();
        CHEATS.warp(block.timestamp + 2 days);
        CHEATS.expectRevert(
            abi.encodeWithSelector(
                IAccessControlDefaultAdminRules.AccessControlInvalidDefaultAdmin.selector,
                STRANGER
            )
        );
        CHEATS.prank(STRANGER);
        identity.acceptDefaultAdminTransfer();
    }

    function test_the_delay_of_a_hand_over_is_changed_by_the_admin_after_a_wait() public {
        CHEATS.startPrank(ADMIN);
        identity.changeDefaultAdminDelay(3 days);
        (uint48 delay, uint48 schedule) = identity.pendingDefaultAdminDelay();
        CHEATS.assertEq(delay, 3 days);
        CHEATS.assertTrue(schedule > block.timestamp);
        CHEATS.warp(schedule + 1);
        CHEATS.assertEq(identity.defaultAdminDelay(), 3 days);
        identity.changeDefaultAdminDelay(1 days);
        identity.rollbackDefaultAdminDelay();
        (delay, ) = identity.pendingDefaultAdminDelay();
        CHEATS.assertEq(delay, 0);
        CHEATS.assertEq(identity.defaultAdminDelayIncreaseWait(), 5 days);
    }

    function test_the_admin_leaves_for_good_in_two_steps() public {
        bytes32 role = identity.ADMIN_ROLE();
        CHEATS.startPrank(ADMIN);
        identity.beginDefaultAdminTransfer(address(0));
        CHEATS.warp(block.timestamp + 1 days + 1);
        identity.renounceRole(role, ADMIN);
        CHEATS.assertEq(identity.defaultAdmin(), address(0));
        CHEATS.assertEq(identity.getRoleMemberCount(role), 0);
    }

    function test_a_role_can_have_another_admin_role_in_a_later_version() public {
        RolesOnly roles = new RolesOnly();
        roles.initialize(ADMIN);
        roles.setRoleAdmin("MINOR", "MAJOR");
        CHEATS.assertEq(roles.getRoleAdmin("MINOR"), bytes32("MAJOR"));
        CHEATS.expectRevert(
            abi.encodeWithSelector(
                IAccessControlDefaultAdminRules.AccessControlEnforcedDefaultAdminRules.selector
            )
        );
        roles.setRoleAdmin(0, "MAJOR");
    }

    function testFuzz_no_role_acts_for_an_agents_people(uint256 who, address to, bytes calldata anything) public {
        uint256 agentId = _registerAgent();
        _give(CLIENT, agentId, 80, 0);
        CHEATS.prank(OWNER);
        validation.validationRequest(VALIDATOR, agentId, "", "request");
        address holder = [ADMIN, PAUSER, UPGRADER][who % 3];
        uint256 deadline = block.timestamp;

        bytes[8] memory onIdentity = [
            abi.encodeWithSignature("transferFrom(address,address,uint256)", OWNER, to, agentId),
            abi.encodeWithSignature("safeTransferFrom(address,address,uint256)", OWNER, holder, agentId),
            abi.encodeWithSignature("safeTransferFrom(address,address,uint256,bytes)", OWNER, to, agentId, anything),
            abi.encodeCall(identity.approve, (to, agentId)),
            abi.encodeCall(identity.setAgentURI, (agentId, string(anything))),
            abi.encodeCall(identity.setMetadata, (agentId, "ens", anything)),
            abi.encodeCall(identity.setAgentWallet, (agentId, to, deadline, anything)),
            abi.encodeCall(identity.unsetAgentWallet, (agentId))
        ];
        for (uint256 i = 0; i < onIdentity.length; ++i) {
            _expectRefused(holder, address(identity), onIdentity[i]);
        }
        _expectRefused(holder, address(reputation), abi.encodeCall(reputation.revokeFeedback, (agentId, 1)));
        _expectRefused(
            holder,
            address(validation),
            abi.encodeCall(validation.validationRequest, (to, agentId, string(anything), "other"))
        );
        _expectRefused(
            holder,
            address(validation),
            abi.encodeCall(validation.validationResponse, ("request", 100, "", 0, string(anything)))
        );
    }

    function _expectRefused(address sender, address target, bytes memory data) internal {
        CHEATS.prank(sender);
        (bool accepted, ) = target.call(data);
        CHEATS.assertFalse(accepted);
    }

    // Pause

    function test_only_a_pauser_pauses_and_unpauses() public {
        RegistryGovernance[3] memory registries = _registries();
        for (uint256 i = 0; i < registries.length; ++i) {
            RegistryGovernance registry = registries[i];
            bytes32 role = registry.PAUSER_ROLE();
            CHEATS.expectRevert(_refusal(ADMIN, role));
            CHEATS.prank(ADMIN);
            registry.pause();
            CHEATS.prank(PAUSER);
            registry.pause();
            CHEATS.assertTrue(registry.paused());
            CHEATS.expectRevert(_refusal(ADMIN, role));
            CHEATS.prank(ADMIN);
            registry.unpause();
            CHEATS.prank(PAUSER);
            registry.unpause();
            CHEATS.assertFalse(registry.paused());
        }
    }

    // Upgrade

    function test_only_an_upgrader_upgrades() public {
        RegistryGovernance[3] memory registries = _registries();
        address next = _deployNext("IdentityRegistryNext");
        for (uint256 i = 0; i < registries.length; ++i) {
            RegistryGovernance registry = registries[i];
            bytes32 role = registry.UPGRADER_ROLE();
            CHEATS.expectRevert(_refusal(ADMIN, role));
            CHEATS.prank(ADMIN);
            registry.upgradeToAndCall(next, "");
        }
    }

    function test_an_upgrade_goes_to_something_that_can_be_upgraded_again() public {
        address noRegistry = address(new NoHolder());
        CHEATS.expectRevert(
            abi.encodeWithSelector(ERC1967Utils.ERC1967InvalidImplementation.selector, noRegistry)
        );
        CHEATS.prank(UPGRADER);
        identity.upgradeToAndCall(noRegistry, "");
    }

    function test_an_upgrade_goes_through_the_proxy_only() public {
        IdentityRegistry implementation = IdentityRegistry(_deploy("IdentityRegistry"));
        address next = _deployNext("IdentityRegistryNext");
        CHEATS.expectRevert(UUPSUpgradeable.UUPSUnauthorizedCallContext.selector);
        implementation.upgradeToAndCall(next, "");
        CHEATS.expectRevert(UUPSUpgradeable.UUPSUnauthorizedCallContext.selector);
        identity.proxiableUUID();
        CHEATS.assertEq(implementation.proxiableUUID(), ERC1967Utils.IMPLEMENTATION_SLOT);
        CHEATS.assertEq(identity.UPGRADE_INTERFACE_VERSION(), "5.0.0");
    }

    function test_an_upgrade_keeps_everything() public {
        uint256 agentId = _registerAgent();
        CHEATS.prank(OWNER);
        identity.setMetadata(agentId, "ens", "one.eth");
        _give(CLIENT, agentId, 80, 1, "starred", "day");
        reputation.appendResponse(agentId, CLIENT, 1, "ipfs://response", 0);
        CHEATS.prank(OWNER);
        validation.validationRequest(VALIDATOR, agentId, "ipfs://request", "request");
        CHEATS.prank(VALIDATOR);
        validation.validationResponse("request", 90, "", "hash", "tee");

        bytes memory call = abi.encodeCall(IdentityRegistryNext.setAdded, (42));
        address[3] memory next = [
            _deployNext("IdentityRegistryNext"),
            _deployNext("ReputationRegistryNext"),
            _deployNext("ValidationRegistryNext")
        ];
        RegistryGovernance[3] memory registries = _registries();
        for (uint256 i = 0; i < registries.length; ++i) {
            CHEATS.prank(UPGRADER);
            registries[i].upgradeToAndCall(next[i], call);
            CHEATS.assertEq(registries[i].getVersion(), "2.1.0");
            CHEATS.assertEq(registries[i].defaultAdmin(), ADMIN);
            CHEATS.assertEq(IdentityRegistryNext(address(registries[i])).added(), 42);
        }

        CHEATS.assertEq(identity.ownerOf(agentId), OWNER);
        CHEATS.assertEq(identity.tokenURI(agentId), "ipfs://agent");
        CHEATS.assertEq(identity.getAgentWallet(agentId), OWNER);
        CHEATS.assertEq(identity.getMetadata(agentId, "ens"), bytes("one.eth"));
        CHEATS.prank(OWNER);
        CHEATS.assertEq(identity.register(), agentId + 1);
        (uint64 count, int128 value, uint8 decimals) = reputation.getSummary(agentId, _list(CLIENT), "starred", "day");
        CHEATS.assertEq(count, 1);
        CHEATS.assertEq(value, 80);
        CHEATS.assertEq(decimals, 1);
        CHEATS.assertEq(reputation.getResponseCount(agentId, CLIENT, 1, _list()), 1);
        CHEATS.assertEq(reputation.getIdentityRegistry(), address(identity));
        (, , uint8 response, bytes32 responseHash, string memory tag, ) = validation.getValidationStatus("request");
        CHEATS.assertEq(response, 90);
        CHEATS.assertEq(responseHash, bytes32("hash"));
        CHEATS.assertEq(tag, "tee");
        CHEATS.assertEq(validation.getAgentValidations(agentId).length, 1);
    }
}
