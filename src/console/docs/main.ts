import '@fontsource-variable/inter/wght.css';
import 'swagger-ui-dist/swagger-ui.css';
import '../styles/tokens.css';
import '../styles/docs.css';
import '../theme.ts';
import swaggerUi from 'swagger-ui-dist/swagger-ui-es-bundle.js';
import { parse } from 'yaml';
import { SERVICE } from '../api.ts';
import { theme } from '../theme.ts';

type Operations = Record<string, { tags?: string[] }>;

/** What the operations stand under; the document itself has them in one row. The first that fits counts. */
const TAGS: readonly (readonly [RegExp, string])[] = [
  [/^\/recordings|^\/sandboxes\/\{id\}\/recordings/, 'Recordings'],
  [/^\/sandboxes\/\{id\}\/(json|downloads|pages|screenshot)/, 'Inside a sandbox'],
  [/^\/sandboxes\/\{id\}\/(live|viewers|tickets)/, 'Watching and sharing'],
  [/^\/sandboxes/, 'Sandboxes'],
  [/^\/(events|audit|session)|\/events$/, 'People and events'],
  [/./, 'The service'],
];

/** The document that the service hands out, tried on this very service with the session of whoever is signed in. */
async function show(): Promise<void> {
  const text = await (await fetch(`${SERVICE}/openapi.yaml`)).text();
  const document = parse(text) as { paths: Record<string, Operations> };
  for (const [path, operations] of Object.entries(document.paths)) {
    const tag = TAGS.find(([pattern]) => pattern.test(path))?.[1] ?? '';
    for (const operation of Object.values(operations)) if (!Array.isArray(operation)) operation.tags = [tag];
  }
  swaggerUi({
    dom_id: '#docs',
    spec: { ...document, servers: [{ url: SERVICE }] },
    // Nothing from elsewhere.
    validatorUrl: null,
    deepLinking: true,
    displayRequestDuration: true,
    docExpansion: 'list',
    defaultModelsExpandDepth: -1,
    tryItOutEnabled: true,
  });
}

/** Swagger UI has a class of its own for it. */
const dark = matchMedia('(prefers-color-scheme: dark)');
const colour = (): void => {
  const isDark = theme.value === 'dark' || (theme.value === 'auto' && dark.matches);
  document.documentElement.classList.toggle('dark-mode', isDark);
};
dark.addEventListener('change', colour);
colour();
void show();
