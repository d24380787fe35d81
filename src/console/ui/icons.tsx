/** Drawn on a grid of 24, as lines in the colour of the text around them. */
const PATHS = {
  plus: 'M12 5v14M5 12h14',
  stop: 'M7 7h10v10H7z',
  share: 'M12 15V4m0 0L8 8m4-4 4 4M5 13v5a2 2 0 0 0 2 2h10a2 2 0 0 0 2-2v-5',
  clock: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 7v5l3 2',
  back: 'M15 5l-7 7 7 7',
  next: 'M9 5l7 7-7 7',
  copy: 'M9 9h10v11H9zM15 9V4H5v11h4',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  close: 'M6 6l12 12M18 6L6 18',
  eye: 'M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12ZM12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6Z',
  hand: 'M8 12V6a1.5 1.5 0 0 1 3 0v5-6.5a1.5 1.5 0 0 1 3 0V11V6a1.5 1.5 0 0 1 3 0v8c0 4-2.5 7-6 7-2.5 0-4-1-5.5-3.5L3.8 14a1.6 1.6 0 0 1 2.7-1.7L8 14',
  plug: 'M9 3v5m6-5v5M6 8h12v3a6 6 0 0 1-12 0zM12 17v4',
  film: 'M4 5h16v14H4zM8 5v14m8-14v14M4 9.7h4m-4 4.6h4m8-4.6h4m-4 4.6h4',
  screen: 'M3 5h18v11H3zM8 20h8m-4-4v4',
  chart: 'M4 20V4m0 16h16M8 16v-4m4 4V8m4 8v-6',
  book: 'M5 4h11a3 3 0 0 1 3 3v13H8a3 3 0 0 1-3-3zM5 17a3 3 0 0 1 3-3h11',
  sun: 'M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM12 2v2m0 16v2M4.9 4.9l1.4 1.4m11.4 11.4 1.4 1.4M2 12h2m16 0h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4',
  moon: 'M20 14.5A8 8 0 1 1 9.5 4a6.5 6.5 0 0 0 10.5 10.5Z',
  contrast: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 3v18M12 7h6.5M12 12h9M12 17h6.5',
  out: 'M14 4h4a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2h-4M9 8l-4 4 4 4m-4-4h11',
  search: 'M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14Zm5-2 4.5 4.5',
  trash: 'M5 7h14M10 7V4h4v3m-7 0 1 13h8l1-13',
  download: 'M12 4v11m0 0 4-4m-4 4-4-4M5 20h14',
  play: 'M7 4.5v15l12-7.5z',
  pause: 'M8 5v14m8-14v14',
  full: 'M4 9V4h5m6 0h5v5m0 6v5h-5m-6 0H4v-5',
  clipboard: 'M9 5H6v16h12V5h-3M9 3h6v4H9z',
  open: 'M14 4h6v6m0-6-9 9M18 14v6H4V6h6',
  bug: 'M8 9a4 4 0 0 1 8 0v6a4 4 0 0 1-8 0zM8 11H4m16 0h-4M8 15H4.5m15 0H16M9 5.5 7.5 4M15 5.5 16.5 4M12 13v6',
  people:
    'M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7Zm-6.5 9c0-3.5 2.5-6 6.5-6s6.5 2.5 6.5 6M16 4.5a3.5 3.5 0 0 1 0 6.5m2 3.5c2 .8 3.5 2.7 3.5 5.5',
  warn: 'M12 4 2.5 20h19zM12 10v4.5m0 2.5v.5',
  keyboard: 'M3 6h18v12H3zM7 10h.01M11 10h.01M15 10h.01M17 14h.01M7 14h.01M10 14h4',
  zoom: 'M4 8V4h4m8 16h4v-4M4 4l6 6m10 10-6-6',
} as const;

export type IconName = keyof typeof PATHS;

/** For the eye alone: whoever uses it says in words what it means. */
export function Icon({ name, size = 18 }: { name: IconName; size?: number }) {
  return (
    <svg
      class="icon"
      aria-hidden="true"
      focusable="false"
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      stroke-width="1.8"
      stroke-linecap="round"
      stroke-linejoin="round"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}

/** The mark of Berth: a screen that lies on the water. */
export function Mark({ size = 28 }: { size?: number }) {
  return (
    <svg class="mark" aria-hidden="true" focusable="false" width={size} height={size} viewBox="0 0 32 32">
      <rect class="mark-ground" width="32" height="32" rx="8" />
      <rect x="8" y="7" width="16" height="11" rx="2.2" fill="none" stroke="#fff" stroke-width="2.2" />
      <path
        d="M5 23.5c1.8 0 1.8 1.6 3.7 1.6s1.8-1.6 3.6-1.6 1.8 1.6 3.7 1.6 1.8-1.6 3.7-1.6 1.8 1.6 3.6 1.6 1.9-1.6 3.7-1.6"
        fill="none"
        stroke="#8fe0f0"
        stroke-width="2.2"
        stroke-linecap="round"
      />
    </svg>
  );
}
