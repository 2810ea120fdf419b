// A node of a chain, or a fork of one.

import { spawn } from "node:child_process";
import { createPublicClient, http, type PublicClient } from "viem";
import { ROOT } from "./artifacts.ts";
import { Problem } from "./problem.ts";

export interface Node {
  url: string;
  client: PublicClient;
}

export interface OwnNode extends Node {
  stop(): void;
}

export function nodeAt(url: string): Node {
  if (!/^https?:\/\//.test(url)) throw new Problem("the node's address is not a URL", "It begins with http(s)://");
  const client = createPublicClient({ transport: http(url, { retryCount: 2, timeout: 30_000 }), pollingInterval: 500 });
  return { url, client };
}

/** Starts a chain of our own on a free port of the loopback interface, with anvil. */
export function startNode(args: string[] = []): Promise<OwnNode> {
  const anvil = `${ROOT}node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil`;
  const child = spawn(anvil, ["--port", "0", ...args], { stdio: ["ignore", "pipe", "inherit"] });
  const stop = () => void child.kill();
  process.once("exit", stop);
  return new Promise((resolve, reject) => {
    let said = "";
    const listen = (chunk: Buffer) => {
      said += chunk;
      const address = /Listening on ([\d.]+:\d+)/.exec(said)?.[1];
      if (!address) return;
      // Read on without looking: the node stalls when nobody reads what it says.
      child.stdout.off("data", listen).resume();
      resolve({ ...nodeAt(`http://${address}`), stop });
    };
    child.stdout.on("data", listen);
    child.on("error", (error) => reject(new Problem(`anvil does not start: ${error.message}`, "Run: make install")));
    child.on("exit", () => reject(new Problem("anvil ended", said.trim() || "It said nothing.")));
  });
}

/** A chain of our own that begins where another one is. */
export function forkedNode(url: string): Promise<OwnNode> {
  return startNode(["--fork-url", url]);
}
