// Deploys the registries to a chain on this machine. --help says how.

import { deploy } from "./lib/deployment.ts";
import { runScript } from "./lib/problem.ts";

await runScript("deploy-local", () => deploy("local", process.argv.slice(2)));
