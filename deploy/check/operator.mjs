#!/usr/bin/env node
// Holds objects of the Prometheus operator against its schemas: kinds that Kubernetes' own schemas do not know.
//
//     operator.mjs FILE.json...      JSON lists of objects
//
// Start it where `npm install @kubernetes-models/prometheus-operator` was run.
//
// Its schemas are functions, which say nothing of unknown keys: a key that none of them has looked at is one.

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const SCHEMAS = 'node_modules/@kubernetes-models/prometheus-operator/_schemas';
const PREFIX = 'ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1';

/** The function that checks a kind. */
async function schemaOf(kind) {
  return (await import(pathToFileURL(resolve(`${SCHEMAS}/${PREFIX}${kind}.js`)))).validate;
}

/** A value that notes in `seen` which paths were looked at. */
function watched(value, path, seen) {
  if (typeof value !== 'object' || value === null) {
    return value;
  }
  return new Proxy(value, {
    get(target, key) {
      if (!Object.hasOwn(target, key)) {
        return target[key];
      }
      const inner = `${path}/${String(key)}`;
      seen.add(inner);
      return watched(target[key], inner, seen);
    },
  });
}

/** Paths of keys that were not looked at; what is below them is left out. */
function unseen(value, path, seen) {
  if (typeof value !== 'object' || value === null) {
    return [];
  }
  return Object.keys(value).flatMap((key) => {
    const inner = `${path}/${key}`;
    return seen.has(inner) ? unseen(value[key], inner, seen) : [inner];
  });
}

/** Everything that is wrong with an object. */
async function problemsOf(object) {
  const validate = await schemaOf(object.kind);
  const seen = new Set();
  const valid = validate(watched(object, '', seen));
  const wrong = valid ? [] : validate.errors.map((error) => `${error.instancePath}: ${error.keyword} ${JSON.stringify(error.params)}`);
  return [...wrong, ...unseen(object, '', seen).map((path) => `${path}: unknown key`)];
}

/** A slip in each of these is found, or nothing said here can be believed. */
async function testItself() {
  const rule = { alert: 'A', expr: 'up', for: '2m', labels: { any: 'x' } };
  const object = (more) => ({ apiVersion: 'monitoring.coreos.com/v1', kind: 'PrometheusRule', metadata: { name: 'a' }, spec: { groups: [{ name: 'g', rules: [more] }] } });
  const at = '/spec/groups/0/rules/0';
  for (const [given, expected] of [
    [rule, []],
    [{ ...rule, forr: '2m' }, [`${at}/forr: unknown key`]],
    [{ ...rule, expr: { a: 1 } }, [`${at}/expr`]],
  ]) {
    const found = await problemsOf(object(given));
    const fits = expected.length === 0 ? found.length === 0 : expected.every((part) => found.some((one) => one.startsWith(part)));
    if (!fits) {
      throw new Error(`operator.mjs finds ${JSON.stringify(found)} in ${JSON.stringify(given)}`);
    }
  }
}

await testItself();
let failed = 0;
for (const file of process.argv.slice(2)) {
  for (const object of JSON.parse(readFileSync(file, 'utf8'))) {
    const problems = await problemsOf(object);
    failed += problems.length;
    console.log([`${object.kind} ${object.metadata.name}: ${problems.length === 0 ? 'valid' : 'wrong'}`, ...problems].join('\n  '));
  }
}
process.exit(failed ? 1 : 0);
