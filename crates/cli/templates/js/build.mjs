// Makes a WebAssembly component of module.js and what it imports.
import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const { component } = await componentize({
  sourcePath: 'module.js',
  witPath: 'wit',
  worldName: 'module',
  // What isn't imported needn't be granted.
  disableFeatures: ['http', 'fetch-event', 'random', 'stdio'],
});
await writeFile('{{NAME}}.wasm', component);
console.log(`{{NAME}}.wasm: ${component.length} bytes`);
