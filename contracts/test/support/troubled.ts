// A node behind a bad line: passes JSON-RPC on, and misbehaves at one chosen transaction.

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after } from "node:test";

export type Trouble = "refused" | "lost on the way there" | "lost on the way back";

export interface BadLine {
  url: string;
  /** Transactions that were passed on. */
  passed: number;
  /** Called when the trouble happens. */
  onTrouble: () => void;
}

/** Makes trouble at transaction number `at`, from 1, once. */
export async function badLine(target: string, at: number, trouble: Trouble): Promise<BadLine> {
  let seen = 0;
  const line: BadLine = { url: "", passed: 0, onTrouble: () => {} };
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString();
    const isTransaction = body.includes('"eth_sendRawTransaction"');
    const troubled = isTransaction && ++seen === at;
    if (troubled) line.onTrouble();
    if (troubled && trouble === "refused") {
      const { id } = JSON.parse(body) as { id: number };
      response.end(JSON.stringify({ jsonrpc: "2.0", id, error: { code: -32000, message: "txpool is full" } }));
      return;
    }
    if (troubled && trouble === "lost on the way there") {
      request.socket.destroy();
      return;
    }
    if (isTransaction) ++line.passed;
    const answer = await fetch(target, { method: "POST", headers: { "content-type": "application/json" }, body });
    const text = await answer.text();
    if (troubled) request.socket.destroy();
    else response.end(text);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  after(() => server.closeAllConnections());
  after(() => server.close());
  line.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return line;
}
