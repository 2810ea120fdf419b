// Where the registries keep what they know, and whether a next version keeps it there. A proxy's storage outlives its
// code: an upgrade that reads a slot as something else destroys what was in it.

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { ROOT } from "./artifacts.ts";
import { Problem } from "./problem.ts";

export interface Layout {
  /** Variables from slot 0 on: slot, offset in it, name, and the type with all that is in it. */
  variables: string[];
  /** Structs at ERC-7201 places, by their id: OpenZeppelin's contracts keep theirs there. */
  namespaces: Record<string, string[]>;
}

interface StorageType {
  label: string;
  encoding: string;
  base?: string;
  key?: string;
  value?: string;
  members?: StorageVariable[];
}

interface StorageVariable {
  label: string;
  slot: string;
  offset: number;
  type: string;
}

interface AstNode {
  id: number;
  nodeType: string;
  name?: string;
  nodes?: AstNode[];
  linearizedBaseContracts?: number[];
  documentation?: { text: string };
  members?: { name: string; typeDescriptions: { typeString: string } }[];
}

interface CompilerOutput {
  errors?: { severity: string; formattedMessage: string }[];
  sources: Record<string, { ast: AstNode }>;
  contracts: Record<string, Record<string, { storageLayout: { storage: StorageVariable[]; types: Record<string, StorageType> | null } }>>;
}

/** The layouts of some registries. `edit` may change a source before it is compiled, to see what that would do. */
export function layoutsOf(registries: readonly string[], edit = (source: string, _path: string) => source) {
  const require = createRequire(import.meta.url);
  const solc = require("solc") as { compile(input: string, callbacks: object): string };
  const read = (path: string) => {
    const file = existsSync(`${ROOT}${path}`) ? `${ROOT}${path}` : `${ROOT}node_modules/${path}`;
    return edit(readFileSync(file, "utf8"), path);
  };
  const sources = Object.fromEntries(
    registries.map((registry) => [`src/${registry}.sol`, { content: read(`src/${registry}.sol`) }]),
  );
  const outputSelection = { "*": { "*": ["storageLayout"], "": ["ast"] } };
  const output = JSON.parse(
    solc.compile(JSON.stringify({ language: "Solidity", sources, settings: { outputSelection } }), {
      import: (path: string) => ({ contents: read(path) }),
    }),
  ) as CompilerOutput;
  const error = output.errors?.find(({ severity }) => severity === "error");
  if (error) throw new Problem(`the contracts do not compile: ${error.formattedMessage}`, "Run: make build");
  return Object.fromEntries(registries.map((registry) => [registry, layoutFrom(output, registry)]));
}

function layoutFrom(output: CompilerOutput, registry: string): Layout {
  const { storage, types } = output.contracts[`src/${registry}.sol`]![registry]!.storageLayout;
  const variables = storage.map((variable) => describe(variable, types ?? {}));

  const byId = new Map<number, AstNode>();
  for (const { ast } of Object.values(output.sources)) for (const node of ast.nodes ?? []) byId.set(node.id, node);
  const contract = [...byId.values()].find((node) => node.nodeType === "ContractDefinition" && node.name === registry);
  const namespaces: Record<string, string[]> = {};
  for (const base of contract!.linearizedBaseContracts!.map((id) => byId.get(id)!)) {
    for (const struct of base.nodes?.filter(({ nodeType }) => nodeType === "StructDefinition") ?? []) {
      const place = /@custom:storage-location (\S+)/.exec(struct.documentation?.text ?? "")?.[1];
      if (place) namespaces[place] = struct.members!.map(({ name, typeDescriptions: t }) => `${name}: ${t.typeString}`);
    }
  }
  return { variables, namespaces: Object.fromEntries(Object.entries(namespaces).sort()) };
}

function describe({ slot, offset, label, type }: StorageVariable, types: Record<string, StorageType>): string {
  return `${slot}+${offset} ${label}: ${describeType(type, types)}`;
}

/** A type with everything in it, so that a change deep inside a mapping shows. */
function describeType(id: string, types: Record<string, StorageType>): string {
  const type = types[id]!;
  if (type.members) return `${type.label} { ${type.members.map((member) => describe(member, types)).join("; ")} }`;
  if (type.encoding === "mapping") {
    return `mapping(${describeType(type.key!, types)} => ${describeType(type.value!, types)})`;
  }
  if (type.base) return `${describeType(type.base, types)}[${/\[(\d*)\]$/.exec(type.label)?.[1] ?? ""}]`;
  return type.label;
}

/** What a change of layout would break: nothing, or one line for each thing. More at the end breaks nothing. */
export function incompatibilities(before: Layout, after: Layout): string[] {
  const compare = (where: string, old: string[], now: string[] = []) =>
    old.flatMap((entry, i) => (entry === now[i] ? [] : [`${where}: was "${entry}", is "${now[i] ?? "gone"}"`]));
  return [
    ...compare("variables", before.variables, after.variables),
    ...Object.entries(before.namespaces).flatMap(([place, members]) =>
      compare(place, members, after.namespaces[place]),
    ),
  ];
}

export const layoutFile = (registry: string) => `${ROOT}layout/${registry}.json`;

/** The layout that proxies out there may have. */
export function recordedLayout(registry: string): Layout {
  return JSON.parse(readFileSync(layoutFile(registry), "utf8")) as Layout;
}

/** Refuses code that would read a proxy's storage as something else. */
export function requireCompatibleLayout(registries: readonly string[]): void {
  const problems = Object.entries(layoutsOf(registries)).flatMap(([registry, layout]) =>
    incompatibilities(recordedLayout(registry), layout).map((problem) => `${registry}: ${problem}`),
  );
  if (problems.length) {
    throw new Problem(
      `the new code reads storage otherwise than the old:\n  ${problems.join("\n  ")}`,
      "Put the variables back where they were, and new ones after the last.",
    );
  }
}
