// Sends transactions so that none is sent twice: the hash is on disk before the transaction is on its way.

import {
  getAddress,
  getContractAddress,
  keccak256,
  parseAbi,
  type Address,
  type Hex,
  type TransactionReceipt,
  type TransactionSerializableEIP1559,
} from "viem";
import type { Step } from "./journal.ts";
import type { Node } from "./node.ts";
import { Problem } from "./problem.ts";

// Where a proxy keeps its implementation: ERC-1967.
const IMPLEMENTATION_SLOT = "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc";

const RECEIPT_TIMEOUT_MS = 300_000;

interface Order {
  to?: Address;
  data: Hex;
  /** What the journal knows of an earlier try. */
  earlier?: Step | undefined;
  confirmations: number;
  /** Called before the transaction is sent, and again when it is mined. */
  record(step: Step): void;
}

type Sign = (transaction: TransactionSerializableEIP1559) => Promise<Hex>;

export class Sender {
  readonly node: Node;
  readonly chainId: number;
  readonly address: Address;
  /** Without it the node signs, as a fork does for accounts that it impersonates. */
  readonly sign: Sign | undefined;

  constructor(node: Node, chainId: number, address: Address, sign?: Sign) {
    this.node = node;
    this.chainId = chainId;
    this.address = address;
    this.sign = sign;
  }

  /** What a unit of gas may cost at most, in wei. */
  async feePerGas(): Promise<bigint> {
    return (await this.node.client.estimateFeesPerGas()).maxFeePerGas;
  }

  /** Makes sure that a transaction is mined, and was successful; sends it unless it was sent before. */
  async perform({ to, data, earlier, confirmations, record }: Order): Promise<Step> {
    const sent = (await this.#stillUnderWay(earlier)) ?? (await this.#send(to, data, earlier, record));
    const receipt = await this.node.client.waitForTransactionReceipt({
      hash: sent.hash,
      confirmations,
      timeout: RECEIPT_TIMEOUT_MS,
    });
    return this.#settle(sent, receipt, record);
  }

  /** An earlier try, if the chain has it or can still get it. */
  async #stillUnderWay(earlier: Step | undefined): Promise<Step | undefined> {
    if (!earlier) return undefined;
    const known = await this.node.client.getTransaction({ hash: earlier.hash }).catch(() => undefined);
    if (known) return earlier;
    const used = await this.node.client.getTransactionCount({ address: this.address, blockTag: "latest" });
    if (used > earlier.nonce) {
      throw new Problem(
        `transaction ${earlier.hash} (nonce ${earlier.nonce}) is not on the chain, and another one has its nonce`,
        "Look the account up in a block explorer: somebody else uses it. Deploy from an account of its own.",
      );
    }
    return undefined;
  }

  async #send(to: Address | undefined, data: Hex, earlier: Step | undefined, record: Order["record"]): Promise<Step> {
    const { client } = this.node;
    const { address: from } = this;
    // The nonce of a try that got lost is used again: whichever of the two is mined, the other is void.
    const nonce = earlier?.nonce ?? (await client.getTransactionCount({ address: from, blockTag: "pending" }));
    const request = { ...(to ? { to } : {}), data };
    const gas = ((await client.estimateGas({ account: from, ...request })) * 6n) / 5n;
    const { maxFeePerGas, maxPriorityFeePerGas } = await client.estimateFeesPerGas();
    if (!this.sign) {
      const transaction = { from, ...request, gas: `0x${gas.toString(16)}` };
      const hash = await client.request({ method: "eth_sendTransaction" as never, params: [transaction] as never });
      return { hash, nonce };
    }
    const raw = await this.sign({
      type: "eip1559",
      chainId: this.chainId,
      ...request,
      value: 0n,
      nonce,
      gas,
      maxFeePerGas,
      maxPriorityFeePerGas,
    });
    const step = { hash: keccak256(raw), nonce };
    record(step);
    await client.sendRawTransaction({ serializedTransaction: raw });
    return step;
  }

  #settle(sent: Step, receipt: TransactionReceipt, record: Order["record"]): Step {
    if (receipt.status !== "success") {
      throw new Problem(
        `transaction ${sent.hash} was mined and failed`,
        "Nothing was changed by it. Look it up in a block explorer; the deployment cannot go on from this account.",
      );
    }
    const step: Step = {
      ...sent,
      block: Number(receipt.blockNumber),
      gasUsed: receipt.gasUsed.toString(),
      ...(receipt.contractAddress ? { address: getAddress(receipt.contractAddress) } : {}),
    };
    record(step);
    return step;
  }

  /** A registry's proxy that one of the account's latest transactions made, other than those with known nonces. */
  async findDeployed(known: number[]): Promise<Address | undefined> {
    const { client } = this.node;
    const next = await client.getTransactionCount({ address: this.address, blockTag: "latest" });
    for (let nonce = next - 1; nonce >= Math.max(0, next - 64); --nonce) {
      if (known.includes(nonce)) continue;
      const address = getContractAddress({ from: this.address, nonce: BigInt(nonce) });
      const slot = await client.getStorageAt({ address, slot: IMPLEMENTATION_SLOT });
      if (slot === undefined || BigInt(slot) === 0n) continue;
      const abi = parseAbi(["function getVersion() view returns (string)"]);
      const version = await client.readContract({ address, abi, functionName: "getVersion" }).catch(() => undefined);
      if (version !== undefined) return address;
    }
    return undefined;
  }
}
