/**
 * Writes Discord's description of its HTTP API as OpenAPI 3.1: `node describe.mjs FILE`.
 *
 * The npm package discord-api-spec says the schemas with zod and the paths with TypeScript. Schemas are what zod makes of
 * them; paths are read from the interface Paths. What is not understood is an error, so that nothing is left unchecked.
 */
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import ts from "typescript";
import * as z from "zod";

const here = path.dirname(fileURLToPath(import.meta.url));
const spec = path.join(here, "node_modules", "discord-api-spec");
const source = path.join(spec, "build", "discord-api-spec");
const { version } = JSON.parse(fs.readFileSync(path.join(spec, "package.json"), "utf8"));
const K = ts.SyntaxKind;

async function componentSchemas() {
  // The package does not say that its .js files are modules; Node takes .mjs for one.
  const module = path.join(here, "schemas.mjs");
  fs.copyFileSync(`${source}.zod.js`, module);
  const registry = z.registry();
  for (const [name, schema] of Object.entries(await import(pathToFileURL(module))))
    if (name.endsWith("Schema")) registry.add(schema, { id: name.slice(0, -"Schema".length) });
  const { schemas } = z.toJSONSchema(registry, { uri: reference, io: "input", unrepresentable: "any", override: asDiscordSays });
  for (const schema of Object.values(schemas)) {
    delete schema.$schema;
    delete schema.$id;
  }
  return schemas;
}

const reference = (name) => `#/components/schemas/${name}`;

/** Zod adds rules of its own: UTC dates without an offset, and JavaScript's safe integers. */
function asDiscordSays({ jsonSchema }) {
  if (jsonSchema.format === "date-time") delete jsonSchema.pattern;
  if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
  if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
}

function literal(node) {
  if (node.kind === K.NullKeyword) return { type: "null" };
  if (node.kind === K.TrueKeyword || node.kind === K.FalseKeyword) return { const: node.kind === K.TrueKeyword };
  return { const: ts.isStringLiteral(node) ? node.text : Number(node.getText()) };
}

function object(node, known) {
  const made = { type: "object", properties: {}, required: [] };
  for (const member of node.members) {
    const schema = schemaOf(member.type, known);
    if (ts.isIndexSignatureDeclaration(member)) made.additionalProperties = schema;
    else if (schema) {
      made.properties[member.name.text] = schema;
      if (!member.questionToken) made.required.push(member.name.text);
    }
  }
  return made;
}

/** The JSON schema of a TypeScript type; undefined for what is never there. */
function schemaOf(type, known) {
  switch (type.kind) {
    case K.StringKeyword: return { type: "string" };
    case K.NumberKeyword: return { type: "number" };
    case K.BooleanKeyword: return { type: "boolean" };
    case K.UnknownKeyword: return {};
    case K.NeverKeyword: case K.UndefinedKeyword: return undefined;
    case K.LiteralType: return literal(type.literal);
    case K.ParenthesizedType: return schemaOf(type.type, known);
    case K.ArrayType: return { type: "array", items: schemaOf(type.elementType, known) };
    case K.UnionType: return { anyOf: type.types.map((one) => schemaOf(one, known)).filter(Boolean) };
    case K.IntersectionType: return { allOf: type.types.map((one) => schemaOf(one, known)) };
    case K.TypeLiteral: return object(type, known);
    case K.TypeReference: if (type.getText() in known) return { $ref: reference(type.getText()) };
  }
  throw new Error(`discord-api-spec ${version} has a type that describe.mjs cannot read: ${type.getText().slice(0, 200)}`);
}

const json = (schema) => ({ content: { "application/json": { schema } } });
const members = (type) => Object.fromEntries((type?.members ?? []).map((member) => [member.name.text, member]));

function operation(type, known) {
  const said = members(type);
  const made = { parameters: [], responses: {} };
  for (const [place, group] of Object.entries(members(said.parameters.type)))
    for (const [name, member] of Object.entries(members(group.type)))
      made.parameters.push({
        name, in: place, required: place === "path" || !member.questionToken, schema: schemaOf(member.type, known),
      });
  const body = schemaOf(said.requestBody.type, known);
  if (body) made.requestBody = json(body);
  for (const [status, member] of Object.entries(members(said.responses.type)))
    made.responses[status] = member.type.kind === K.UnknownKeyword ? {} : json(schemaOf(member.type, known));
  return made;
}

function paths(known) {
  const text = fs.readFileSync(`${source}.ts`, "utf8");
  const file = ts.createSourceFile("discord-api-spec.ts", text, ts.ScriptTarget.Latest, true);
  const all = file.statements.find((node) => ts.isInterfaceDeclaration(node) && node.name.text === "Paths");
  const made = {};
  for (const [route, member] of Object.entries(members(all)))
    made[route] = Object.fromEntries(
      Object.entries(members(member.type)).map(([method, one]) => [method, operation(one.type, known)]));
  return made;
}

const schemas = await componentSchemas();
const description = { openapi: "3.1.0", info: { title: "Discord HTTP API", version }, paths: paths(schemas), components: { schemas } };
fs.writeFileSync(process.argv[2], JSON.stringify(description));
