/** One field of a create, as openapi.yaml describes it. */
export interface Field {
  readonly type?: string | readonly string[];
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly description?: string;
}

/** From openapi.yaml, put in by the build. */
declare const __CREATE_FIELDS__: Readonly<Record<string, Field>>;

export const FIELDS = __CREATE_FIELDS__;

/** Which fields stand together in the dialog; those that nobody has put anywhere come last. */
export const GROUPS: readonly { readonly title: string; readonly fields: readonly string[] }[] = [
  { title: 'Basics', fields: ['sandboxId', 'viewport', 'metadata'] },
  {
    title: 'Lifetime',
    fields: ['maxLifetimeSeconds', 'sandboxIdleTimeoutSeconds', 'connectTimeoutSeconds', 'activity'],
  },
  {
    title: 'Recording',
    fields: [
      'recording',
      'recordingFps',
      'recordingQuality',
      'recordingScale',
      'recordingSegmentSeconds',
      'recordingCursor',
    ],
  },
  { title: 'Behaviour', fields: ['control', 'onBrowserClose', 'egress'] },
];

/** The fields of {@link GROUPS} that there are, and the rest. */
export function grouped(): { readonly title: string; readonly fields: readonly string[] }[] {
  const placed = new Set(['templateName', ...GROUPS.flatMap(({ fields }) => fields)]);
  const rest = Object.keys(FIELDS).filter((name) => !placed.has(name));
  const groups = GROUPS.map(({ title, fields }) => ({ title, fields: fields.filter((name) => name in FIELDS) }));
  return [...groups, { title: 'More', fields: rest }].filter(({ fields }) => fields.length > 0);
}

const LABELS: Readonly<Record<string, string>> = {
  sandboxId: 'Id',
  sandboxIdleTimeoutSeconds: 'Idle timeout (seconds)',
  maxLifetimeSeconds: 'Lifetime (seconds)',
  connectTimeoutSeconds: 'Connect timeout (seconds)',
  onBrowserClose: 'When a client closes the browser',
  activity: 'What counts as activity',
  recording: 'Recording',
  recordingFps: 'Frames a second',
  recordingScale: 'Scale',
  recordingQuality: 'Quality',
  recordingCursor: 'Show the mouse pointer',
  recordingSegmentSeconds: 'Segment (seconds)',
  viewport: 'Screen',
  metadata: 'Metadata',
  control: 'Control of the screen',
  egress: 'What it may reach',
};

/** `recordingFps` is `Frames a second`, and `newField` `New field`. */
export function labelOf(name: string): string {
  const words = name.replace(/([A-Z])/g, ' $1').toLowerCase();
  return LABELS[name] ?? words.charAt(0).toUpperCase() + words.slice(1);
}

/** A field as somebody has filled it in; empty is "as the template says". */
export type Filled = Readonly<Record<string, string>>;

/** What goes to the service. Throws a sentence that names the field. */
export function inputOf(filled: Filled, metadata: readonly (readonly [string, string])[]): Record<string, unknown> {
  const input: Record<string, unknown> = {};
  for (const [name, text] of Object.entries(filled)) {
    if (text.trim() === '') continue;
    input[name] = parsed(name, text.trim());
  }
  const pairs = metadata.filter(([key]) => key.trim() !== '');
  if (pairs.length > 0) input.metadata = Object.fromEntries(pairs.map(([key, value]) => [key.trim(), value]));
  return input;
}

function parsed(name: string, text: string): unknown {
  const field = FIELDS[name];
  if (name === 'viewport') {
    const [, width, height] = /^(\d+)\s*[x×*]\s*(\d+)$/i.exec(text) ?? [];
    if (!width || !height) throw new Error(`${labelOf(name)}: write it as 1280x720.`);
    return { width: Number(width), height: Number(height) };
  }
  if (field?.type === 'integer' || field?.type === 'number') {
    const value = Number(text);
    if (Number.isNaN(value)) throw new Error(`${labelOf(name)}: it must be a number.`);
    return value;
  }
  if (field?.type === 'boolean') return text === 'true';
  if (field?.type !== 'object') return text;
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${labelOf(name)}: it must be JSON, such as {"allow": ["example.com"]}.`);
  }
}

/** A default as the dialog shows it. */
export function shown(value: unknown): string {
  if (value === undefined || value === null) return '';
  if (typeof value !== 'object') return String(value);
  const { width, height } = value as { width?: number; height?: number };
  return width && height ? `${width}x${height}` : JSON.stringify(value);
}
