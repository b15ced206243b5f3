#!/usr/bin/env node
// Holds objects of the Prometheus operator against its schemas: kinds that Kubernetes' own schemas do not know.
//
//     operator.mjs FILE.json...      JSON lists of objects
//
// Start it where `npm install @kubernetes-models/prometheus-operator` was run. Unknown keys are not noticed.

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const installed = 'node_modules/@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/index.js';
const kinds = await import(pathToFileURL(resolve(installed)));

let failed = 0;
for (const file of process.argv.slice(2)) {
  for (const object of JSON.parse(readFileSync(file, 'utf8'))) {
    const name = `${object.kind} ${object.metadata.name}`;
    try {
      new kinds[object.kind](object).validate();
      console.log(`${name}: valid`);
    } catch (error) {
      failed += 1;
      console.log(`${name}: ${error.message}`);
    }
  }
}
process.exit(failed ? 1 : 0);
