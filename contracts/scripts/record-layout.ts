// Writes layout/: what an upgrade is held against. To be run when a version has been deployed, and not before.

import { writeFileSync } from "node:fs";
import { REGISTRIES } from "./lib/deployment.ts";
import { layoutFile, layoutsOf } from "./lib/layout.ts";

for (const [registry, layout] of Object.entries(layoutsOf(REGISTRIES))) {
  writeFileSync(layoutFile(registry), `${JSON.stringify(layout, null, 2)}\n`);
}
