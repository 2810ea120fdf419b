// Deploys the registries to a test network. --help says how.

import { deploy } from "./lib/deployment.ts";
import { runScript } from "./lib/problem.ts";

await runScript("deploy-testnet", () => deploy("testnet", process.argv.slice(2)));
