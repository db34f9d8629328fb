// Prints what AsyncAPI's own parser finds in the document named by the first argument, as one JSON array.
import { createRequire } from "node:module";

// The parser lives in the cache folder that the second argument names, not beside this file.
const { Parser, fromFile } = createRequire(`${process.argv[3]}/`)("@asyncapi/parser");

const parser = new Parser();
const { document, diagnostics } = await fromFile(parser, process.argv[2]).parse();
const told = diagnostics.map(({ code, severity, message, path }) => ({ code, severity, message, path: path.join("/") }));
const counts = document && {
  channels: document.channels().all().length,
  messages: document.messages().all().length,
  operations: document.operations().all().length,
};
console.log(JSON.stringify({ counts: counts ?? null, diagnostics: told }));
