// Deploys the registries to a production chain, where it costs money and stays. --help says how.

import { deploy } from "./lib/deployment.ts";
import { runScript } from "./lib/problem.ts";

await runScript("deploy-production", () => deploy("production", process.argv.slice(2)));
