import { Icon } from './icons.tsx';

interface SearchFieldProps {
  /** For who cannot see the icon. */
  readonly label: string;
  readonly placeholder: string;
  readonly value: string;
  readonly onInput: (value: string) => void;
}

/** Narrows a list while somebody types. */
export function SearchField({ label, placeholder, value, onInput }: SearchFieldProps) {
  return (
    <label class="search">
      <Icon name="search" size={16} />
      <span class="off-screen">{label}</span>
      <input
        type="search"
        placeholder={placeholder}
        value={value}
        onInput={(event) => onInput(event.currentTarget.value)}
      />
    </label>
  );
}
