// SPDX-License-Identifier: MIT
pragma solidity 0.8.36;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {IERC721Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC721Metadata} from "@openzeppelin/contracts/token/ERC721/extensions/IERC721Metadata.sol";
import {IIdentityRegistry} from "../src/interfaces/IIdentityRegistry.sol";
import {IdentityRegistry} from "../src/IdentityRegistry.sol";
import {RegistryTest} from "./support/RegistryTest.sol";
import {Holder, NoHolder, SmartWallet} from "./support/Wallets.sol";

contract IdentityRegistryTest is RegistryTest {
    uint256 internal constant WALLET_KEY = uint256(keccak256("wallet"));

    // Registration

    function test_the_first_agent_has_id_0_and_the_next_1() public {
        CHEATS.startPrank(OWNER);
        CHEATS.assertEq(identity.register(), 0);
        CHEATS.assertEq(identity.register("ipfs://second"), 1);
        CHEATS.assertEq(identity.ownerOf(0), OWNER);
        CHEATS.assertEq(identity.balanceOf(OWNER), 2);
    }

    function test_an_agent_without_a_uri_has_an_empty_one() public {
        CHEATS.prank(OWNER);
        uint256 agentId = identity.register();
        CHEATS.assertEq(identity.tokenURI(agentId), "");
        CHEATS.prank(OWNER);
        CHEATS.assertEq(identity.tokenURI(identity.register("")), "");
    }

    function test_a_registration_is_announced_with_owner_uri_and_wallet() public {
        CHEATS.expectEmit(address(identity));
        emit IERC721.Transfer(address(0), OWNER, 0);
        CHEATS.expectEmit(address(identity));
        emit IIdentityRegistry.Registered(0, "ipfs://agent", OWNER);
        CHEATS.expectEmit(address(identity));
        emit IIdentityRegistry.MetadataSet(0, "agentWallet", "agentWallet", abi.encodePacked(OWNER));
        CHEATS.prank(OWNER);
        identity.register("ipfs://agent");
    }

    function test_the_owner_is_the_wallet_from_registration_on() public {
        uint256 agentId = _registerAgent();
        CHEATS.assertEq(identity.getAgentWallet(agentId), OWNER);
        CHEATS.assertEq(identity.getMetadata(agentId, "agentWallet"), abi.encodePacked(OWNER));
    }

    function test_an_agent_is_registered_with_metadata_and_the_later_of_two_equal_keys_stays() public {
        IIdentityRegistry.MetadataEntry[] memory metadata = new IIdentityRegistry.MetadataEntry[](3);
        metadata[0] = IIdentityRegistry.MetadataEntry("ens", "one.eth");
        metadata[1] = IIdentityRegistry.MetadataEntry("colour", hex"00ff");
        metadata[2] = IIdentityRegistry.MetadataEntry("ens", "two.eth");
        CHEATS.expectEmit(address(identity));
        emit IIdentityRegistry.MetadataSet(0, "ens", "ens", "one.eth");
        CHEATS.prank(OWNER);
        uint256 agentId = identity.register("ipfs://agent", metadata);
        CHEATS.assertEq(identity.getMetadata(agentId, "ens"), bytes("two.eth"));
        CHEATS.assertEq(identity.getMetadata(agentId, "colour"), bytes(hex"00ff"));
        CHEATS.assertEq(identity.tokenURI(agentId), "ipfs://agent");
    }

    function test_one_reserved_key_refuses_the_whole_registration() public {
        IIdentityRegistry.MetadataEntry[] memory metadata = new IIdentityRegistry.MetadataEntry[](2);
        metadata[0] = IIdentityRegistry.MetadataEntry("ens", "one.eth");
        metadata[1] = IIdentityRegistry.MetadataEntry("agentWallet", abi.encodePacked(STRANGER));
        CHEATS.expectRevert(abi.encodeWithSelector(IIdentityRegistry.ReservedMetadataKey.selector, "agentWallet"));
        CHEATS.prank(OWNER);
        identity.register("ipfs://agent", metadata);
        CHEATS.prank(OWNER);
        CHEATS.assertEq(identity.register(), 0);
    }

    function test_a_contract_that_can_hold_agents_sees_its_agent_complete_when_welcomed() public {
        Holder holder = new Holder(identity);
        IIdentityRegistry.MetadataEntry[] memory metadata = new IIdentityRegistry.MetadataEntry[](1);
        metadata[0] = IIdentityRegistry.MetadataEntry("note", "hello");
        holder.register(metadata);
        CHEATS.assertEq(holder.walletSeen(), address(holder));
        CHEATS.assertEq(holder.noteSeen(), bytes("hello"));
    }

    function test_a_contract_that_cannot_hold_agents_registers_none() public {
        NoHolder noHolder = new NoHolder();
        CHEATS.expectRevert(
            abi.encodeWithSelector(IERC721Errors.ERC721InvalidReceiver.selector, address(noHolder))
        );
        noHolder.register(identity);
    }

    // Who may write

    function test_owner_operator_and_approved_write_and_are_authorized() public {
        uint256 agentId = _registerAgent();
        address[3] memory writers = [OWNER, OPERATOR, APPROVED];
        for (uint256 i = 0; i < writers.length; ++i) {
            CHEATS.assertTrue(identity.isAuthorizedOrOwner(writers[i], agentId));
            CHEATS.startPrank(writers[i]);
            CHEATS.expectEmit(address(identity));
            emit IIdentityRegistry.URIUpdated(agentId, "https://agent.example", writers[i]);
            identity.setAgentURI(agentId, "https://agent.example");
            CHEATS.expectEmit(address(identity));
            emit IIdentityRegistry.MetadataSet(agentId, "by", "by", abi.encodePacked(writers[i]));
            identity.setMetadata(agentId, "by", abi.encodePacked(writers[i]));
            identity.unsetAgentWallet(agentId);
            CHEATS.stopPrank();
            CHEATS.assertEq(identity.getMetadata(agentId, "by"), abi.encodePacked(writers[i]));
        }
        CHEATS.assertEq(identity.tokenURI(agentId), "https://agent.example");
    }

    function test_a_stranger_writes_nothing() public {
        uint256 agentId = _registerAgent();
        CHEATS.assertFalse(identity.isAuthorizedOrOwner(STRANGER, agentId));
        CHEATS.assertFalse(identity.isAuthorizedOrOwner(address(0), agentId));
        bytes memory refusal = abi.encodeWithSelector(
            IERC721Errors.ERC721InsufficientApproval.selector,
            STRANGER,
            agentId
        );
        CHEATS.startPrank(STRANGER);
        CHEATS.expectRevert(refusal);
        identity.setAgentURI(agentId, "ipfs://mine");
        CHEATS.expectRevert(refusal);
        identity.setMetadata(agentId, "ens", "mine.eth");
        CHEATS.expectRevert(refusal);
        identity.setAgentWallet(agentId, STRANGER, block.timestamp, "");
        CHEATS.expectRevert(refusal);
        identity.unsetAgentWallet(agentId);
        CHEATS.expectRevert(refusal);
        identity.transferFrom(OWNER, STRANGER, agentId);
        CHEATS.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721InvalidApprover.selector, STRANGER));
        identity.approve(STRANGER, agentId);
    }

    function test_an_agent_that_does_not_exist_takes_nothing() public {
        bytes memory refusal = abi.encodeWithSelector(IERC721Errors.ERC721NonexistentToken.selector, 7);
        CHEATS.startPrank(OWNER);
        CHEATS.expectRevert(refusal);
        identity.setAgentURI(7, "ipfs://mine");
        CHEATS.expectRevert(refusal);
        identity.setMetadata(7, "ens", "mine.eth");
        CHEATS.expectRevert(refusal);
        identity.setAgentWallet(7, OWNER, block.timestamp, "");
        CHEATS.expectRevert(refusal);
        identity.unsetAgentWallet(7);
        CHEATS.expectRevert(refusal);
        identity.isAuthorizedOrOwner(OWNER, 7);
        CHEATS.expectRevert(refusal);
        identity.tokenURI(7);
        CHEATS.expectRevert(refusal);
        identity.ownerOf(7);
        CHEATS.expectRevert(refusal);
        identity.getApproved(7);
        CHEATS.assertEq(identity.getAgentWallet(7), address(0));
        CHEATS.assertEq(identity.getMetadata(7, "agentWallet"), bytes(""));
        CHEATS.assertEq(identity.getMetadata(7, "ens"), bytes(""));
    }

    function test_the_wallet_is_no_plain_metadata() public {
        uint256 agentId = _registerAgent();
        CHEATS.expectRevert(abi.encodeWithSelector(IIdentityRegistry.ReservedMetadataKey.selector, "agentWallet"));
        CHEATS.prank(OWNER);
        identity.setMetadata(agentId, "agentWallet", abi.encodePacked(STRANGER));
    }

    function test_empty_metadata_clears_an_entry() public {
        uint256 agentId = _registerAgent();
        CHEATS.startPrank(OWNER);
        identity.setMetadata(agentId, "ens", "one.eth");
        identity.setMetadata(agentId, "ens", "");
        CHEATS.assertEq(identity.getMetadata(agentId, "ens"), bytes(""));
    }

    // Wallet

    function test_a_wallet_that_signed_becomes_the_agents_wallet() public {
        uint256 agentId = _registerAgent();
        address wallet = CHEATS.addr(WALLET_KEY);
        uint256 deadline = block.timestamp + identity.MAX_DEADLINE_DELAY();
        bytes memory signature = _signWallet(WALLET_KEY, agentId, OWNER, deadline);
        CHEATS.expectEmit(address(identity));
        emit IIdentityRegistry.MetadataSet(agentId, "agentWallet", "agentWallet", abi.encodePacked(wallet));
        CHEATS.prank(APPROVED);
        identity.setAgentWallet(agentId, wallet, deadline, signature);
        CHEATS.assertEq(identity.getAgentWallet(agentId), wallet);
        CHEATS.assertEq(identity.getMetadata(agentId, "agentWallet"), abi.encodePacked(wallet));
    }

    function test_a_smart_wallet_signs_by_erc_1271() public {
        uint256 agentId = _registerAgent();
        address wallet = address(new SmartWallet(CHEATS.addr(WALLET_KEY)));
        bytes32 digest = _walletDigest(wallet, agentId, OWNER, block.timestamp);
        (uint8 v, bytes32 r, bytes32 s) = CHEATS.sign(WALLET_KEY, digest);
        CHEATS.prank(OWNER);
        identity.setAgentWallet(agentId, wallet, block.timestamp, abi.encodePacked(r, s, v));
        CHEATS.assertEq(identity.getAgentWallet(agentId), wallet);
    }

    function test_a_smart_wallet_that_did_not_sign_is_refused() public {
        uint256 agentId = _registerAgent();
        address wallet = address(new SmartWallet(STRANGER));
        bytes memory signature = _signWallet(WALLET_KEY, agentId, OWNER, block.timestamp);
        CHEATS.expectRevert(abi.encodeWithSelector(IIdentityRegistry.InvalidWalletSignature.selector, wallet));
        CHEATS.prank(OWNER);
        identity.setAgentWallet(agentId, wallet, block.timestamp, signature);
    }

    function test_an_account_with_delegated_code_signs_with_its_key() public {
        uint256 agentId = _registerAgent();
        address wallet = CHEATS.addr(WALLET_KEY);
        // What EIP-7702 leaves at an account: code, here of something that knows no ERC-1271.
        CHEATS.etch(wallet, address(new NoHolder()).code);
        bytes memory signature = _signWallet(WALLET_KEY, agentId, OWNER, block.timestamp);
        CHEATS.prank(OWNER);
        identity.setAgentWallet(agentId, wallet, block.timestamp, signature);
        CHEATS.assertEq(identity.getAgentWallet(agentId), wallet);
    }

    function test_a_signature_counts_for_its_agent_owner_deadline_and_wallet_only() public {
        uint256 agentId = _registerAgent();
        CHEATS.prank(OWNER);
        uint256 other = identity.register();
        address wallet = CHEATS.addr(WALLET_KEY);
        uint256 deadline = block.timestamp + 60;
        bytes memory refusal = abi.encodeWithSelector(IIdentityRegistry.InvalidWalletSignature.selector, wallet);
        bytes memory signature = _signWallet(WALLET_KEY, agentId, OWNER, deadline);
        bytes memory forStranger = _signWallet(WALLET_KEY, agentId, STRANGER, deadline);

        CHEATS.startPrank(OWNER);
        CHEATS.expectRevert(refusal);
        identity.setAgentWallet(other, wallet, deadline, signature);
        CHEATS.expectRevert(refusal);
        identity.setAgentWallet(agentId, wallet, deadline + 1, signature);
        CHEATS.expectRevert(refusal);
        identity.setAgentWallet(agentId, wallet, deadline, forStranger);
        CHEATS.expectRevert(refusal);
        identity.setAgentWallet(agentId, wallet, deadline, "");
        CHEATS.expectRevert(abi.encodeWithSelector(IIdentityRegistry.InvalidWalletSignature.selector, STRANGER));
        identity.setAgentWallet(agentId, STRANGER, deadline, signature);

        identity.transferFrom(OWNER, CLIENT, agentId);
        CHEATS.stopPrank();
        CHEATS.expectRevert(refusal);
        CHEATS.prank(CLIENT);
        identity.setAgentWallet(agentId, wallet, deadline, signature);
    }

    function test_the_other_s_of_a_signature_is_refused() public {
        uint256 agentId = _registerAgent();
        address wallet = CHEATS.addr(WALLET_KEY);
        (uint8 v, bytes32 r, bytes32 s) = CHEATS.sign(
            WALLET_KEY,
            _walletDigest(wallet, agentId, OWNER, block.timestamp)
        );
        uint256 order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        bytes memory malleated = abi.encodePacked(r, bytes32(order - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        CHEATS.expectRevert(abi.encodeWithSelector(IIdentityRegistry.InvalidWalletSignature.selector, wallet));
        CHEATS.prank(OWNER);
        identity.setAgentWallet(agentId, wallet, block.timestamp, malleated);
    }

    function test_a_deadline_must_be_ahead_but_not_too_far() public {
        uint256 agentId = _registerAgent();
        address wallet = CHEATS.addr(WALLET_KEY);
        uint256 latest = block.timestamp + identity.MAX_DEADLINE_DELAY();
        CHEATS.startPrank(OWNER);
        CHEATS.expectRevert(
            abi.encodeWithSelector(IIdentityRegistry.SignatureExpired.selector, block.timestamp - 1)
        );
        identity.setAgentWallet(agentId, wallet, block.timestamp - 1, "");
        CHEATS.expectRevert(
            abi.encodeWithSelector(IIdentityRegistry.DeadlineTooFar.selector, latest + 1, latest)
        );
        identity.setAgentWallet(agentId, wallet, latest + 1, "");
    }

    function test_the_zero_address_is_no_wallet() public {
        uint256 agentId = _registerAgent();
        CHEATS.expectRevert(IIdentityRegistry.InvalidAgentWallet.selector);
        CHEATS.prank(OWNER);
        identity.setAgentWallet(agentId, address(0), block.timestamp, new bytes(65));
    }

    function test_a_wallet_is_unset() public {
        uint256 agentId = _registerAgent();
        CHEATS.expectEmit(address(identity));
        emit IIdentityRegistry.MetadataSet(agentId, "agentWallet", "agentWallet", "");
        CHEATS.prank(OWNER);
        identity.unsetAgentWallet(agentId);
        CHEATS.assertEq(identity.getAgentWallet(agentId), address(0));
        CHEATS.assertEq(identity.getMetadata(agentId, "agentWallet"), bytes(""));
    }

    // Transfer

    function test_a_transfer_clears_the_wallet_and_says_so() public {
        uint256 agentId = _registerAgent();
        CHEATS.expectEmit(address(identity));
        emit IERC721.Transfer(OWNER, CLIENT, agentId);
        CHEATS.expectEmit(address(identity));
        emit IIdentityRegistry.MetadataSet(agentId, "agentWallet", "agentWallet", "");
        CHEATS.prank(OPERATOR);
        identity.safeTransferFrom(OWNER, CLIENT, agentId);
        CHEATS.assertEq(identity.ownerOf(agentId), CLIENT);
        CHEATS.assertEq(identity.getAgentWallet(agentId), address(0));
        CHEATS.assertFalse(identity.isAuthorizedOrOwner(OPERATOR, agentId));
        CHEATS.assertFalse(identity.isAuthorizedOrOwner(APPROVED, agentId));
    }

    function test_a_transfer_to_oneself_clears_the_wallet_too() public {
        uint256 agentId = _registerAgent();
        CHEATS.prank(OWNER);
        identity.transferFrom(OWNER, OWNER, agentId);
        CHEATS.assertEq(identity.getAgentWallet(agentId), address(0));
    }

    function test_metadata_and_uri_survive_a_transfer() public {
        uint256 agentId = _registerAgent();
        CHEATS.startPrank(OWNER);
        identity.setMetadata(agentId, "ens", "one.eth");
        identity.transferFrom(OWNER, CLIENT, agentId);
        CHEATS.assertEq(identity.getMetadata(agentId, "ens"), bytes("one.eth"));
        CHEATS.assertEq(identity.tokenURI(agentId), "ipfs://agent");
    }

    function test_a_transfer_names_the_right_owner_and_a_receiver() public {
        uint256 agentId = _registerAgent();
        address noHolder = address(new NoHolder());
        CHEATS.startPrank(OWNER);
        CHEATS.expectRevert(
            abi.encodeWithSelector(IERC721Errors.ERC721IncorrectOwner.selector, CLIENT, agentId, OWNER)
        );
        identity.transferFrom(CLIENT, STRANGER, agentId);
        CHEATS.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721InvalidReceiver.selector, address(0)));
        identity.transferFrom(OWNER, address(0), agentId);
        CHEATS.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721InvalidReceiver.selector, noHolder));
        identity.safeTransferFrom(OWNER, noHolder, agentId, "data");
        CHEATS.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721InvalidOperator.selector, address(0)));
        identity.setApprovalForAll(address(0), true);
        CHEATS.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721InvalidOwner.selector, address(0)));
        identity.balanceOf(address(0));
    }

    // What it says of itself

    function test_name_symbol_and_interfaces() public view {
        CHEATS.assertEq(identity.name(), "AgentIdentity");
        CHEATS.assertEq(identity.symbol(), "AGENT");
        CHEATS.assertTrue(identity.supportsInterface(type(IERC165).interfaceId));
        CHEATS.assertTrue(identity.supportsInterface(type(IERC721).interfaceId));
        CHEATS.assertTrue(identity.supportsInterface(type(IERC721Metadata).interfaceId));
        CHEATS.assertTrue(identity.supportsInterface(type(IIdentityRegistry).interfaceId));
        CHEATS.assertTrue(identity.supportsInterface(0x49064906));
        CHEATS.assertFalse(identity.supportsInterface(0xffffffff));
    }

    function test_the_domain_of_wallet_signatures() public view {
        (, string memory name, string memory version, uint256 chainId, address verifying, , ) = identity
            .eip712Domain();
        CHEATS.assertEq(name, "ERC8004IdentityRegistry");
        CHEATS.assertEq(version, "1");
        CHEATS.assertEq(chainId, block.chainid);
        CHEATS.assertEq(verifying, address(identity));
    }

    // Fuzz

    function testFuzz_what_is_written_is_read(string calldata uri, string calldata key, bytes calldata value) public {
        CHEATS.assume(keccak256(bytes(key)) != keccak256("agentWallet"));
        CHEATS.startPrank(OWNER);
        uint256 agentId = identity.register(uri);
        identity.setMetadata(agentId, key, value);
        CHEATS.assertEq(identity.tokenURI(agentId), uri);
        CHEATS.assertEq(identity.getMetadata(agentId, key), value);
        CHEATS.assertEq(identity.getAgentWallet(agentId), OWNER);
    }

    function testFuzz_random_bytes_are_nobodys_signature(address wallet, bytes calldata signature) public {
        CHEATS.assume(wallet != address(0));
        CHEATS.assume(wallet.code.length == 0);
        // Precompiles answer every call, none with the magic value; they are no wallets either.
        uint256 agentId = _registerAgent();
        CHEATS.expectRevert(abi.encodeWithSelector(IIdentityRegistry.InvalidWalletSignature.selector, wallet));
        CHEATS.prank(OWNER);
        identity.setAgentWallet(agentId, wallet, block.timestamp, signature);
    }

    function testFuzz_a_wallet_never_survives_a_transfer(uint256 key, address to) public {
        key = 1 + (key % (2 ** 128));
        CHEATS.assume(to != address(0));
        uint256 agentId = _registerAgent();
        bytes memory signature = _signWallet(key, agentId, OWNER, block.timestamp);
        CHEATS.startPrank(OWNER);
        identity.setAgentWallet(agentId, CHEATS.addr(key), block.timestamp, signature);
        identity.transferFrom(OWNER, to, agentId);
        CHEATS.assertEq(identity.getAgentWallet(agentId), address(0));
    }
}
