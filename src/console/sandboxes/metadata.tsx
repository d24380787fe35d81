import { Icon } from '../ui/icons.tsx';
import { Explained } from './field.tsx';
import { FIELDS, labelOf } from './fields.ts';

export type Pairs = readonly (readonly [key: string, value: string])[];

interface MetadataProps {
  readonly pairs: Pairs;
  readonly inherited: Readonly<Record<string, string>>;
  readonly onChange: (pairs: Pairs) => void;
}

/** Keys and values, as many as wanted. */
export function Metadata({ pairs, inherited, onChange }: MetadataProps) {
  const change = (at: number, pair: readonly [string, string]): void =>
    onChange(pairs.map((old, i) => (i === at ? pair : old)));
  return (
    <fieldset class="field whole">
      <legend>{labelOf('metadata')}</legend>
      {Object.entries(inherited).map(([key, value]) => (
        <p key={key} class="fine">
          <span class="label">
            {key}: {value}
          </span>{' '}
          from the template
        </p>
      ))}
      {pairs.map(([key, value], i) => (
        <div class="pair" key={i}>
          <input
            aria-label={`Key ${i + 1}`}
            placeholder="key"
            value={key}
            onInput={(event) => change(i, [event.currentTarget.value, value])}
          />
          <input
            aria-label={`Value ${i + 1}`}
            placeholder="value"
            value={value}
            onInput={(event) => change(i, [key, event.currentTarget.value])}
          />
          <button
            type="button"
            class="button ghost icon-only"
            aria-label={`Remove row ${i + 1}`}
            onClick={() => onChange(pairs.filter((_, other) => other !== i))}
          >
            <Icon name="close" size={16} />
          </button>
        </div>
      ))}
      <button type="button" class="button small" onClick={() => onChange([...pairs, ['', '']])}>
        <Icon name="plus" size={16} /> Add
      </button>
      <Explained text={FIELDS.metadata?.description} />
    </fieldset>
  );
}
