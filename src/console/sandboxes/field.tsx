import { useId } from 'preact/hooks';
import { FIELDS, labelOf } from './fields.ts';

interface InputProps {
  readonly name: string;
  readonly value: string;
  /** What the template gives when this is left empty. */
  readonly inherited: string;
  readonly onChange: (value: string) => void;
}

/** A field of a create by its kind, with what openapi.yaml says of it. */
export function Input({ name, value, inherited, onChange }: InputProps) {
  const id = useId();
  const field = FIELDS[name] ?? {};
  const about = { id, 'aria-describedby': `${id}-about` };
  const isObject = field.type === 'object' && name !== 'viewport';
  const isNumber = field.type === 'integer' || field.type === 'number';
  const options = field.enum ?? (field.type === 'boolean' ? ['true', 'false'] : undefined);
  return (
    <div class={isObject ? 'field whole' : 'field'}>
      <label for={id}>{labelOf(name)}</label>
      {options ? (
        <select {...about} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
          <option value="">{inherited ? `${said(inherited)} (from the template)` : 'As the service has it'}</option>
          {options.map((option) => (
            <option key={option} value={option}>
              {said(option)}
            </option>
          ))}
        </select>
      ) : isObject ? (
        <textarea
          {...about}
          rows={2}
          spellcheck={false}
          placeholder={inherited || '{}'}
          value={value}
          onInput={(event) => onChange(event.currentTarget.value)}
        />
      ) : (
        <input
          {...about}
          {...(isNumber
            ? {
                type: 'number' as const,
                min: field.minimum,
                max: field.maximum,
                step: field.type === 'number' ? 'any' : 1,
              }
            : { type: 'text' as const })}
          placeholder={inherited || (name === 'sandboxId' ? 'made up for you' : '')}
          autocomplete="off"
          spellcheck={false}
          value={value}
          onInput={(event) => onChange(event.currentTarget.value)}
        />
      )}
      <div id={`${id}-about`}>
        <Explained text={field.description} />
      </div>
    </div>
  );
}

function said(value: string): string {
  return { true: 'yes', false: 'no' }[value] ?? value;
}

/** Text of openapi.yaml, in which `code` stands between backticks. */
export function Explained({ text }: { text: string | undefined }) {
  if (!text) return null;
  return <p class="fine">{text.split('`').map((part, i) => (i % 2 === 1 ? <code key={i}>{part}</code> : part))}</p>;
}
