import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { Validator } from '../../src/api/validate.ts';
import { loadTemplates } from '../../src/app/templates.ts';

const validator = new Validator(readFileSync(new URL('../../../openapi.yaml', import.meta.url), 'utf8'));
const folder = mkdtempSync(join(tmpdir(), 'bt-templates-'));
const file = join(folder, 'templates.json');
after(() => rmSync(folder, { recursive: true }));

function load(content: unknown): Promise<ReadonlyMap<string, unknown>> {
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
  return loadTemplates(file, validator);
}

describe('templates', () => {
  it('are one without a file, and those of the file with one', async () => {
    assert.deepEqual([...(await loadTemplates(undefined, validator))], [['default', {}]]);
    const fields = { recording: 'always', recordingScale: 0.5, viewport: { width: 800, height: 600 } };
    assert.deepEqual(Object.fromEntries(await load({ small: fields })), { default: {}, small: fields });
    assert.deepEqual([...(await load({ default: { recordingFps: 5 } }))], [['default', { recordingFps: 5 }]]);
  });

  for (const [what, content, reason] of [
    ['no JSON', '{', /^Error: BERTH_TEMPLATES: .*templates\.json: .*JSON/],
    ['a list', [], /must hold an object of templates by name$/],
    ['null', null, /must hold an object of templates by name$/],
    ['a name that no create could give', { 'a b': {} }, /"a b" cannot be the name of a template/],
    ['an unknown field', { a: { fps: 5 } }, /: a: fps: unknown field$/],
    ['a field out of bounds', { a: { recordingFps: 31 } }, /: a: recordingFps: must be <= 30$/],
    ['a template that is none', { a: 5 }, /: a: body: must be object$/],
    ["a sandbox's id", { a: { sandboxId: 'x' } }, /: a: sandboxId: is not for templates$/],
    ['another template', { a: { templateName: 'b' } }, /: a: templateName: is not for templates$/],
  ] as const) {
    it(`refuse ${what} with the reason`, () => assert.rejects(load(content), reason));
  }

  it('refuse a file that is not there, by its name', () =>
    assert.rejects(loadTemplates(join(folder, 'none'), validator), /BERTH_TEMPLATES: .*none: ENOENT/));
});
