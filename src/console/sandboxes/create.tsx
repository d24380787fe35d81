import { useEffect, useState } from 'preact/hooks';
import type { CreateSandbox } from '../../client/client.ts';
import { asFailure, ask, type Failure, http } from '../api.ts';
import { go } from '../route.ts';
import { reload } from '../sandboxes.ts';
import { Dialog, FormFoot } from '../ui/dialog.tsx';
import { Icon } from '../ui/icons.tsx';
import { Problem, say } from '../ui/notices.tsx';
import { Explained, Input } from './field.tsx';
import { FIELDS, type Filled, grouped, inputOf, labelOf, shown } from './fields.ts';
import { Metadata, type Pairs } from './metadata.tsx';

interface Template {
  readonly templateName: string;
  readonly defaults: CreateSandbox;
}

/** Asks for a new sandbox: from a template as it stands with one click, or with every field explained. */
export function Create({ onClose }: { onClose: () => void }) {
  const [templates, setTemplates] = useState<readonly Template[]>([]);
  const [name, setName] = useState('default');
  const [filled, setFilled] = useState<Filled>({});
  const [metadata, setMetadata] = useState<Pairs>([]);
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Failure>();
  useEffect(() => {
    ask(http.GET('/templates')).then(
      ({ data }) => setTemplates(data.templates),
      (err) => setFailure(asFailure(err)),
    );
  }, []);
  const defaults = templates.find((one) => one.templateName === name)?.defaults ?? {};
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setFailure(undefined);
    try {
      const body = { templateName: name, ...inputOf(filled, metadata) } as CreateSandbox;
      // At once, and not when it is READY: its page shows how it gets there, and why not if it does not.
      const { data } = await ask(http.POST('/sandboxes', { body, params: { query: { wait: false } } }));
      say(`${data.sandboxId} is starting.`);
      onClose();
      void reload();
      go('sandboxes', data.sandboxId);
    } catch (err) {
      setFailure(asFailure(err));
      setBusy(false);
    }
  };
  const field = (key: string) =>
    key === 'metadata' ? (
      <Metadata key={key} pairs={metadata} inherited={defaults.metadata ?? {}} onChange={setMetadata} />
    ) : (
      <Input
        key={key}
        name={key}
        value={filled[key] ?? ''}
        inherited={shown(defaults[key as keyof CreateSandbox])}
        onChange={(value) => setFilled({ ...filled, [key]: value })}
      />
    );
  const [basics, ...others] = grouped();
  return (
    <Dialog title="New sandbox" onClose={onClose} wide>
      <form onSubmit={submit} class="create">
        <div class="dialog-scroll">
          <fieldset class="choices">
            <legend>Template</legend>
            {templates.map(({ templateName }) => (
              <label key={templateName} class="choice">
                <input
                  type="radio"
                  name="template"
                  checked={templateName === name}
                  onChange={() => setName(templateName)}
                />
                <span>{templateName}</span>
              </label>
            ))}
            <Explained text={FIELDS.templateName?.description} />
          </fieldset>
          <div class="field-grid">{basics?.fields.map(field)}</div>
          {others.map(({ title, fields }) => (
            <details key={title} class="fold">
              <summary>
                {title}
                <Icon name="next" size={16} />
                <span class="muted fold-hint">{summary(fields, filled, defaults)}</span>
              </summary>
              <div class="field-grid">{fields.map(field)}</div>
            </details>
          ))}
          {failure && <Problem failure={failure} />}
        </div>
        <FormFoot action="Start sandbox" atWork="Starting…" busy={busy} onClose={onClose} />
      </form>
    </Dialog>
  );
}

/** What a folded group comes to, in a line. */
function summary(fields: readonly string[], filled: Filled, defaults: CreateSandbox): string {
  return fields
    .slice(0, 3)
    .flatMap((name) => {
      const value = filled[name] || shown(defaults[name as keyof CreateSandbox]);
      return value ? `${labelOf(name).replace(/ \(.*/, '')}: ${value}` : [];
    })
    .join(' · ');
}
