import { createStore } from './store.ts';

export type Theme = 'auto' | 'light' | 'dark';

const KEY = 'berth-theme';
const THEMES: readonly Theme[] = ['auto', 'light', 'dark'];

/** A matter of taste, so it may lie in localStorage; nothing else of ours does. */
export const theme = createStore<Theme>(kept());

function kept(): Theme {
  try {
    return THEMES.find((one) => one === localStorage.getItem(KEY)) ?? 'auto';
  } catch {
    return 'auto'; // a frame of another site, with its storage shut
  }
}

function apply(): void {
  const root = document.documentElement;
  if (theme.value === 'auto') delete root.dataset.theme;
  else root.dataset.theme = theme.value;
}

export function nextTheme(): void {
  theme.set(THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length] as Theme);
  apply();
  try {
    localStorage.setItem(KEY, theme.value);
  } catch {
    // For this page, then.
  }
}

apply();
