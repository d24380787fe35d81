import { readFile } from 'node:fs/promises';
import type { Validator } from '../api/validate.ts';
import { assertEgress } from '../core/egress.ts';
import type { Template } from '../core/input.ts';

/** As `templateName` may be. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;
/** What each sandbox has of its own. */
const NOT_SHARED = ['templateName', 'sandboxId'];

/**
 * Named defaults for the fields of `POST /sandboxes`, from a JSON file: `{"name": {fields}}`. There always is one called
 * "default", empty unless the file says otherwise. Throws one sentence that names file, template and field.
 */
export async function loadTemplates(
  file: string | undefined,
  validator: Validator,
): Promise<ReadonlyMap<string, Template>> {
  const templates = new Map<string, Template>([['default', {}]]);
  if (file === undefined) return templates;
  const wrong = (why: string): Error => new Error(`BERTH_TEMPLATES: ${file}: ${why}`);
  let content: unknown;
  try {
    content = JSON.parse(await readFile(file, 'utf8'));
  } catch (err) {
    throw wrong((err as Error).message);
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content)) {
    throw wrong('must hold an object of templates by name');
  }
  for (const [name, fields] of Object.entries(content)) {
    if (!NAME.test(name))
      throw wrong(`"${name}" cannot be the name of a template: letters, digits, - and _, at most 64`);
    try {
      const template = validator.body<Template>('createSandbox', fields);
      if (template.egress) assertEgress(template.egress);
      templates.set(name, template);
    } catch (err) {
      throw wrong(`${name}: ${(err as Error).message}`);
    }
    const own = NOT_SHARED.find((field) => field in fields);
    if (own) throw wrong(`${name}: ${own}: is not for templates`);
  }
  return templates;
}
